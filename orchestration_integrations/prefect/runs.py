"""Starting a run and waiting for it, as tasks, blocks and the context manager do; each blocking and not.

An interrupt is any BaseException: Prefect's signals, a cancelled asyncio task, a time-out that Prefect
raises, Ctrl-C, and whatever else is no answer of the server. It cancels the instance and goes on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..api.errors import InstanceStuckError, OrchestrationError, ValidationError, WaitTimeoutError
from ..api.models import CancelOutcome, Instance, RunResult, StageEvent, Transaction
from ..clock import SystemClock
from ..http_hook import AsyncOrchestrationHttpHook, OrchestrationHttpHook
from ..settings import Settings
from .artifacts import Progress
from .cancelling import acancel_instances_now, cancel_instances_now
from .credentials import FACE
from .flow_runs import WATCH_SECONDS, FlowRunWatch, run_logger, watch_here
from .rollback import RunRolledBackError
from .steps import Plan, RunRequest, plan_run


def instance_id_of(given: object) -> str:
    """The id in what a caller passed: an id, or the dict that ``run_workflow`` returned.

    Raises:
        ValidationError: it is neither.
    """
    if isinstance(given, Mapping):
        given = given.get("instance_id")
    if given is None:
        raise ValidationError(
            "instance_id is None: the task that starts the run did not run (Prefect returns None for a call whose "
            "upstream failed), so there is nothing to act on",
            path="instance_id",
        )
    if not isinstance(given, str) or not given:
        raise ValidationError(
            f"instance_id must be an id or what run_workflow returned, not {type(given).__name__}", path="instance_id"
        )
    return given


# ---- starting --------------------------------------------------------------------------------------


def start_run(
    settings: Settings, request: RunRequest, *, cancel_on_interrupt: bool = True, show_progress: bool = True
) -> tuple[Instance, str | None]:
    """Start, adopt or go on with the run that a request means. Returns it and its key."""
    with OrchestrationHttpHook(settings, face=FACE) as hook:
        plan = plan_run(settings, request, hook)
        try:
            instance = hook.start(request.workflow_id, on_chosen=plan.choose, **plan.arguments)
        except BaseException as error:
            if _must_cancel(error, plan, cancel_on_interrupt):
                cancel_instances_now(settings, [plan.instance_id or ""], "interrupted while starting")
            raise
    _started(settings, instance, plan, show_progress)
    return instance, plan.key


async def astart_run(
    settings: Settings, request: RunRequest, *, cancel_on_interrupt: bool = True, show_progress: bool = True
) -> tuple[Instance, str | None]:
    """As ``start_run``, without blocking."""
    with OrchestrationHttpHook(settings, face=FACE) as reader:
        plan = await asyncio.to_thread(plan_run, settings, request, reader)

    async def choose(instance_id: str) -> None:
        plan.instance_id = instance_id
        await asyncio.to_thread(plan.choose, instance_id)

    async with AsyncOrchestrationHttpHook(settings, face=FACE) as hook:
        try:
            instance = await hook.start(request.workflow_id, on_chosen=choose, **plan.arguments)
        except BaseException as error:
            if _must_cancel(error, plan, cancel_on_interrupt):
                await acancel_instances_now(settings, [plan.instance_id or ""], "interrupted while starting")
            raise
    await asyncio.to_thread(_started, settings, instance, plan, show_progress)
    return instance, plan.key


def _must_cancel(error: BaseException, plan: Plan, cancel_on_interrupt: bool) -> bool:
    if isinstance(error, RunRolledBackError):
        return plan.instance_id is not None
    if isinstance(error, Exception) or not cancel_on_interrupt:
        return False  # a retry goes on with what is on record
    if plan.instance_id is None:
        run_logger().warning(
            "interrupted while starting a run of workflow %s with key %s: nothing was released; where the workflow has "
            "no gate, a run may exist",
            plan.request.workflow_id,
            plan.key,
        )
    return plan.instance_id is not None


def _started(settings: Settings, instance: Instance, plan: Plan, show_progress: bool) -> None:
    if plan.instance_id != instance.id:
        plan.choose(instance.id)  # adopted: found by its key
    Progress(settings, instance.id, shown=show_progress).started(instance.workflow_id, instance.state)


# ---- waiting ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WaitOptions:
    """How to wait. Fields as ``wait_for_instance`` documents them."""

    timeout: float | None = None
    poll_interval: float = 5.0
    on_timeout: Literal["cancel", "leave"] = "cancel"
    cancel_on_interrupt: bool = True
    fail_after_attempts: int | None = None
    show_progress: bool = True

    def __post_init__(self) -> None:
        if self.on_timeout not in ("cancel", "leave"):
            raise ValidationError(f"on_timeout must be 'cancel' or 'leave', not {self.on_timeout!r}", path="on_timeout")

    def arguments(self) -> dict[str, Any]:
        """For the hook's ``wait``."""
        return {
            "timeout": self.timeout,
            "poll_interval": self.poll_interval,
            "fail_after_attempts": self.fail_after_attempts,
        }


class _WatchingClock(SystemClock):
    """Lets a wait look up from its sleep: is the flow run being cancelled?"""

    def __init__(self, watch: FlowRunWatch | None) -> None:
        self._watch = watch

    def sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while True:
            if self._watch is not None:
                self._watch.check()
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, WATCH_SECONDS))

    async def asleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while True:
            if self._watch is not None:
                await asyncio.to_thread(self._watch.check)
            left = end - time.monotonic()
            if left <= 0:
                return
            await asyncio.sleep(min(left, WATCH_SECONDS))


def wait_run(settings: Settings, instance_id: str, options: WaitOptions) -> dict[str, Any]:
    """Wait for an instance; see ``wait_for_instance``."""
    try:
        return _wait(settings, instance_id, options)
    except OrchestrationError:
        raise
    except BaseException as error:
        if options.cancel_on_interrupt:
            cancel_instances_now(settings, [instance_id], _interrupted(error))
        raise


def _wait(settings: Settings, instance_id: str, options: WaitOptions) -> dict[str, Any]:
    progress = Progress(settings, instance_id, shown=options.show_progress)
    try:
        with OrchestrationHttpHook(settings, face=FACE, clock=_WatchingClock(watch_here())) as hook:
            result = hook.wait(instance_id, on_stage=progress.stage, **options.arguments())
    except OrchestrationError as error:
        raised: OrchestrationError | dict[str, Any] = error
        if _gives_up(error) and options.on_timeout == "cancel":
            outcome = cancel_instances_now(settings, [instance_id], "given up")[instance_id]
            raised = _after_cancel(error, instance_id, outcome)
        progress.ended(*_end(raised, error))
        if isinstance(raised, dict):
            return raised
        if raised is error:
            raise
        raise raised from error
    progress.ended("succeeded", result.instance)
    return described(result)


async def await_run(settings: Settings, instance_id: str, options: WaitOptions) -> dict[str, Any]:
    """As ``wait_run``, without blocking."""
    try:
        return await _await(settings, instance_id, options)
    except OrchestrationError:
        raise
    except BaseException as error:
        if options.cancel_on_interrupt:
            await acancel_instances_now(settings, [instance_id], _interrupted(error))
        raise


async def _await(settings: Settings, instance_id: str, options: WaitOptions) -> dict[str, Any]:
    progress = Progress(settings, instance_id, shown=options.show_progress)

    async def stage(event: StageEvent) -> None:
        await asyncio.to_thread(progress.stage, event)

    try:
        async with AsyncOrchestrationHttpHook(settings, face=FACE, clock=_WatchingClock(watch_here())) as hook:
            result = await hook.wait(instance_id, on_stage=stage, **options.arguments())
    except OrchestrationError as error:
        raised: OrchestrationError | dict[str, Any] = error
        if _gives_up(error) and options.on_timeout == "cancel":
            outcome = (await acancel_instances_now(settings, [instance_id], "given up"))[instance_id]
            raised = _after_cancel(error, instance_id, outcome)
        await asyncio.to_thread(progress.ended, *_end(raised, error))
        if isinstance(raised, dict):
            return raised
        if raised is error:
            raise
        raise raised from error
    await asyncio.to_thread(progress.ended, "succeeded", result.instance)
    return described(result)


def _interrupted(error: BaseException) -> str:
    return f"the wait was interrupted ({type(error).__name__})"


def _gives_up(error: OrchestrationError) -> bool:
    """Whether the wait ended while the instance goes on."""
    return isinstance(error, WaitTimeoutError) or (isinstance(error, InstanceStuckError) and error.reason == "attempts")


def _after_cancel(
    error: OrchestrationError, instance_id: str, outcome: CancelOutcome | None
) -> OrchestrationError | dict[str, Any]:
    """What is true once an instance that was given up has been cancelled: an error, or the success that came first."""
    told = str(error).replace("; it was not cancelled", "").replace("; it goes on trying until it is cancelled", "")
    if outcome is None:
        return _same(error, f"{told}; it could not be cancelled and may still run", instance_id, None)
    instance = outcome.instance
    if outcome.status == "already_ended" and instance is not None and instance.state == "succeeded":
        return described(RunResult(instance=instance, moved=outcome.moved))
    if outcome.status == "cancelled":
        late = f"; {len(outcome.in_flight)} payments were under way and may arrive" if outcome.in_flight else ""
        text = f"{told}; it was then cancelled{late}"
    elif outcome.status == "already_ended":
        text = f"{told}; it then ended by itself: {instance.failure if instance is not None else ''}"
    elif outcome.status == "never_started":
        text = f"{told}; it never started"
    else:
        text = f"{told}; a cancel was sent ({outcome.abort_answer}) and not seen to take effect: it may still run"
    return _same(error, text, instance_id, outcome)


def _same(error: OrchestrationError, text: str, instance_id: str, outcome: CancelOutcome | None) -> OrchestrationError:
    about: dict[str, Any] = {
        "instance_id": instance_id,
        "instance": outcome.instance if outcome is not None else getattr(error, "instance", None),
        "moved": outcome.moved if outcome is not None else getattr(error, "moved", None),
    }
    if isinstance(error, InstanceStuckError):
        return InstanceStuckError(text, reason=error.reason, **about)
    return WaitTimeoutError(text, **about)


def _end(raised: OrchestrationError | dict[str, Any], error: OrchestrationError) -> tuple[str, Instance | None]:
    """How a wait that raised ended, for the UI."""
    instance = getattr(error if isinstance(raised, dict) else raised, "instance", None)
    if isinstance(raised, dict):
        return "succeeded", instance
    if instance is not None and instance.terminated:
        return instance.state, instance
    return type(raised).__name__, instance


def described(result: RunResult) -> dict[str, Any]:
    """A success as a small plain dict that any serializer takes."""
    transactions = [_transaction(one) for one in result.moved.transactions]
    return {
        "instance_id": result.instance.id,
        "workflow_id": result.instance.workflow_id,
        "state": result.instance.state,
        "stages_completed": result.moved.stages_completed,
        "transactions": transactions,
        "maybe_repeated": any(one["maybe_repeated"] for one in transactions),
    }


def _transaction(one: Transaction) -> dict[str, Any]:
    return {
        "stage": one.stage,
        "id": one.id,
        "ledger": one.ledger,
        "postings": [dict(posting) for posting in one.postings],
        "maybe_repeated": one.maybe_repeated,
    }

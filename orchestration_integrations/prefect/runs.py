"""Starting a run and waiting for it, as tasks, blocks and the context manager do; each blocking and not.

An interrupt is any BaseException: Prefect's signals, a cancelled asyncio task, a time-out that Prefect raises, Ctrl-C,
and for a wait whatever else is no answer of the server. There is one ``try`` from the first submit to the return: an
interrupt anywhere in it cancels the instance, unless another attempt has it, and goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

from ..api.errors import InstanceStuckError, OrchestrationError
from ..api.models import CancelOutcome, Instance, RunResult, StageEvent
from ..http_hook import AsyncOrchestrationHttpHook, OrchestrationHttpHook
from ..ownership.owned_run import OwnedRun, WaitFor
from ..procedures.checkpoints import Guard
from ..procedures.effects import Procedure
from ..procedures.outages import OutageNews
from ..procedures.verdicts import BEING_STARTED
from ..procedures.wording import run_summary
from ..settings import Settings
from .artifacts import Progress
from .cancelling import Target, acancel_instances_now, cancel_instances_now
from .credentials import FACE
from .errors import FlowRunCancelledError, RunRolledBackError
from .options import WaitOptions, wait_arguments
from .owner import Owner, WatchingClock
from .owning import Hook, RunRequest, Start, attending, record_of
from .place import Place, here, run_logger
from .run_records import PrefectRunStore


def _must_cancel(error: BaseException, *, waiting: bool) -> bool:
    """Whether what was raised ends the run too, where the caller asked for that."""
    if isinstance(error, OrchestrationError):
        return False  # it has been decided about already, or a retry goes on
    if isinstance(error, FlowRunCancelledError):
        return not error.superseded
    if isinstance(error, RunRolledBackError):
        return True
    return waiting or not isinstance(error, Exception)


# ---- starting --------------------------------------------------------------------------------------


def _target_to_cancel(start: Start, error: BaseException, cancel_on_interrupt: bool, *, waiting: bool) -> Target | None:
    """The run that is to be cancelled because of what was raised; None where none is."""
    asked = cancel_on_interrupt or isinstance(error, RunRolledBackError)
    if start.may_run_unknown and not isinstance(error, OrchestrationError):
        run_logger().error("run key %s: %s; %s", start.key, _interrupted(error), BEING_STARTED)
    return start.target if asked and _must_cancel(error, waiting=waiting) else None


@contextmanager
def _starting(start: Start, cancel_on_interrupt: bool, at_wait: list[Progress]) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        try:  # first of all: another interrupt may come
            target = _target_to_cancel(start, error, cancel_on_interrupt, waiting=bool(at_wait))
            if target is not None:
                _stopped(at_wait[-1] if at_wait else None, cancel_instances_now([target], _interrupted(error)))
        finally:
            start.failed()
        raise
    finally:
        start.close()


@asynccontextmanager
async def _astarting(start: Start, cancel_on_interrupt: bool, at_wait: list[Progress]) -> AsyncIterator[None]:
    try:
        yield
    except BaseException as error:
        try:
            target = _target_to_cancel(start, error, cancel_on_interrupt, waiting=bool(at_wait))
            if target is not None:
                outcomes = await acancel_instances_now([target], _interrupted(error))
                _stopped(at_wait[-1] if at_wait else None, outcomes)
        finally:
            start.failed()
        raise
    finally:
        start.close()


def start_run(settings: Settings, request: RunRequest, options: WaitOptions) -> tuple[Instance, str | None]:
    """Start, adopt or go on with the run that a request means. Returns it and its key."""
    start = Start(settings, request)
    with _starting(start, options["cancel_on_interrupt"], []):
        start.prepare()
        with OrchestrationHttpHook(settings, face=FACE, clock=WatchingClock(start.owner)) as hook:
            run = start.owning(hook)
            instance = hook.perform(run.begin())
            start.begun(instance)
            hook.perform(run.returned())
        Progress(settings, instance.id, shown=options["show_progress"]).started(instance, run.did)
        return instance, start.key


async def astart_run(settings: Settings, request: RunRequest, options: WaitOptions) -> tuple[Instance, str | None]:
    """As ``start_run``, without blocking."""
    start = Start(settings, request)
    async with _astarting(start, options["cancel_on_interrupt"], []):
        await asyncio.to_thread(start.prepare)
        async with AsyncOrchestrationHttpHook(settings, face=FACE, clock=WatchingClock(start.owner)) as hook:
            run = start.owning(hook)
            instance = await hook.perform(run.begin())
            start.begun(instance)
            await hook.perform(run.returned())
        progress = Progress(settings, instance.id, shown=options["show_progress"])
        await asyncio.to_thread(progress.started, instance, run.did)
        return instance, start.key


# ---- starting and waiting --------------------------------------------------------------------------


def run_and_wait(settings: Settings, request: RunRequest, options: WaitOptions) -> dict[str, Any]:
    """Start, adopt or go on with a run, and wait for its end."""
    start = Start(settings, request)
    at_wait: list[Progress] = []
    with _starting(start, options["cancel_on_interrupt"], at_wait):
        start.prepare()
        with OrchestrationHttpHook(settings, face=FACE, clock=WatchingClock(start.owner)) as hook:
            run = start.owning(hook)
            instance = hook.perform(run.begin())
            start.begun(instance)
            progress = Progress(settings, instance.id, shown=options["show_progress"])
            progress.started(instance, run.did)
            at_wait.append(progress)
            result = _attended(hook, run, instance.id, progress, options)
        progress.ended("succeeded", result.instance)
        return described(result)


async def arun_and_wait(settings: Settings, request: RunRequest, options: WaitOptions) -> dict[str, Any]:
    """As ``run_and_wait``, without blocking."""
    start = Start(settings, request)
    at_wait: list[Progress] = []
    async with _astarting(start, options["cancel_on_interrupt"], at_wait):
        await asyncio.to_thread(start.prepare)
        async with AsyncOrchestrationHttpHook(settings, face=FACE, clock=WatchingClock(start.owner)) as hook:
            run = start.owning(hook)
            instance = await hook.perform(run.begin())
            start.begun(instance)
            progress = Progress(settings, instance.id, shown=options["show_progress"])
            await asyncio.to_thread(progress.started, instance, run.did)
            at_wait.append(progress)
            result = await _aattended(hook, run, instance.id, progress, options)
        await asyncio.to_thread(progress.ended, "succeeded", result.instance)
        return described(result)


# ---- waiting ---------------------------------------------------------------------------------------


def wait_from_now(
    hook: Hook,
    options: WaitOptions,
    on_stage: Callable[[StageEvent], object],
    on_outage: Callable[[OutageNews], object],
) -> WaitFor:
    """The wait that begins now, for an instance: its time counts once, also where it is taken up again."""
    arguments = wait_arguments(options)

    def waiting(instance_id: str, guard: Guard) -> Procedure[RunResult]:
        return hook.waiting_for(instance_id, arguments, on_stage, guard, on_outage)

    return waiting


def _attended(
    hook: OrchestrationHttpHook, run: OwnedRun, instance_id: str, progress: Progress, options: WaitOptions
) -> RunResult:
    waiting = wait_from_now(hook, options, progress.stage, progress.outage)
    try:
        result: RunResult = hook.perform(run.attend(instance_id, waiting, on_timeout=options["on_timeout"]))
    except OrchestrationError as error:
        progress.ended(*_end(error))
        raise
    return result


async def _aattended(
    hook: AsyncOrchestrationHttpHook, run: OwnedRun, instance_id: str, progress: Progress, options: WaitOptions
) -> RunResult:
    async def stage(event: StageEvent) -> None:
        await asyncio.to_thread(progress.stage, event)

    waiting = wait_from_now(hook, options, stage, progress.outage)
    try:
        result: RunResult = await hook.perform(run.attend(instance_id, waiting, on_timeout=options["on_timeout"]))
    except OrchestrationError as error:
        await asyncio.to_thread(progress.ended, *_end(error))
        raise
    return result


def wait_run(settings: Settings, instance_id: str, options: WaitOptions, run_key: str | None = None) -> dict[str, Any]:
    """Wait for an instance; see ``wait_for_instance``."""
    target = Target(settings, instance_id, waiter_is_here=True)
    progress: Progress | None = None
    try:
        place = _place()
        record = record_of(place, instance_id, run_key)
        target = Target(settings, instance_id, record=record, waiter_is_here=True)
        progress = Progress(settings, instance_id, shown=options["show_progress"])
        clock = WatchingClock(Owner(place) if place is not None else None)
        with OrchestrationHttpHook(settings, face=FACE, clock=clock) as hook:
            run = attending(hook, place, record, instance_id)
            try:
                hook.perform(run.load())
            except Exception as error:
                run = _without_record(hook, place, instance_id, error)
                hook.perform(run.load())
            target = _target_of_wait(target, run)
            result = _attended(hook, run, instance_id, progress, options)
        progress.ended("succeeded", result.instance)
        return described(result)
    except BaseException as error:
        if options["cancel_on_interrupt"] and _must_cancel(error, waiting=True):
            _stopped(progress, cancel_instances_now([target], _interrupted(error)))
        raise


async def await_run(
    settings: Settings, instance_id: str, options: WaitOptions, run_key: str | None = None
) -> dict[str, Any]:
    """As ``wait_run``, without blocking."""
    target = Target(settings, instance_id, waiter_is_here=True)
    progress: Progress | None = None
    try:
        place = await asyncio.to_thread(_place)
        record = await asyncio.to_thread(record_of, place, instance_id, run_key)
        target = Target(settings, instance_id, record=record, waiter_is_here=True)
        progress = Progress(settings, instance_id, shown=options["show_progress"])
        clock = WatchingClock(Owner(place) if place is not None else None)
        async with AsyncOrchestrationHttpHook(settings, face=FACE, clock=clock) as hook:
            run = attending(hook, place, record, instance_id)
            try:
                await hook.perform(run.load())
            except Exception as error:
                run = _without_record(hook, place, instance_id, error)
                await hook.perform(run.load())
            target = _target_of_wait(target, run)
            result = await _aattended(hook, run, instance_id, progress, options)
        await asyncio.to_thread(progress.ended, "succeeded", result.instance)
        return described(result)
    except BaseException as error:
        if options["cancel_on_interrupt"] and _must_cancel(error, waiting=True):
            _stopped(progress, await acancel_instances_now([target], _interrupted(error)))
        raise


def _place() -> Place | None:
    """Where the wait stands; a wait goes on where Prefect's API cannot tell."""
    try:
        return here()
    except Exception as error:
        run_logger().warning("the flow run around this wait could not be read, so nobody watches it: %r", error)
        return None


def _without_record(hook: Hook, place: Place | None, instance_id: str, error: Exception) -> OwnedRun:
    run_logger().warning("instance %s: its record could not be read: %r", instance_id, error)
    return attending(hook, place, None, instance_id)


def _target_of_wait(known: Target, run: OwnedRun) -> Target:
    """What to cancel where the wait is interrupted: by its record, where there is one."""
    return known if known.record is not None else replace(known, run=run)


def _stopped(progress: Progress | None, outcomes: Mapping[str, CancelOutcome | None]) -> None:
    """Have the UI show where a run stands that was interrupted."""
    for outcome in outcomes.values():
        if progress is not None and outcome is not None and outcome.status == "held":
            progress.held(outcome.checkpoint, outcome.instance)


def _interrupted(error: BaseException) -> str:
    return f"interrupted ({type(error).__name__})"


def _end(error: OrchestrationError) -> tuple[str, Instance | None]:
    """How a wait that raised ended, for the UI."""
    instance = getattr(error, "instance", None)
    if instance is not None and instance.terminated:
        return instance.state, instance
    if isinstance(error, InstanceStuckError) and error.reason == "held":
        return "held", instance
    return type(error).__name__, instance


# ---- results ---------------------------------------------------------------------------------------


def describe_start(instance: Instance, key: str | None) -> dict[str, Any]:
    """A started run as a small plain dict."""
    return {
        "instance_id": instance.id,
        "workflow_id": instance.workflow_id,
        "state": instance.state,
        "run_key": key,
    }


def described(result: RunResult) -> dict[str, Any]:
    """A success as a small plain dict that any serializer takes."""
    return run_summary(result.instance, result.moved, postings=True)


# ---- stopping --------------------------------------------------------------------------------------


def stop_arguments(instance_id: str, run_key: str | None) -> dict[str, Any]:
    """For the hook's ``cancel``: the store and the key, so that a retry knows that its own side cancelled. Blocking."""
    record = record_of(here(), instance_id, run_key)
    if record is None:
        return {}
    return {"store": PrefectRunStore(), "run_key": record.key}

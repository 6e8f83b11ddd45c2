"""The arguments of ``run_once`` and ``owned_run``, and what an exception in them means."""

from __future__ import annotations

import inspect
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from ..api import calls
from ..api.errors import OrchestrationError, ValidationError
from ..api.models import RunResult, StageEvent
from ..api.numbers import at_least_zero, checked_flag
from ..ownership.keeping import resume_command
from ..ownership.keys import checked_run_key
from ..ownership.owned_run import OwnedRun, WaitFor
from ..ownership.record import RunStore
from ..ownership.request import OwnedRequest
from ..procedures.checkpoints import Guard
from ..procedures.effects import Procedure
from ..procedures.limits import POLL_SECONDS, READ_BUDGET, START_SECONDS
from ..procedures.variables import KEY_VARIABLE
from ..procedures.wait_arguments import WaitArguments, check_on_timeout
from .callbacks import owner_of

if TYPE_CHECKING:
    from .plans import Plans


class OwnedRunHandle(msgspec.Struct):
    """A run under ``with hook.owned_run(…)``.

    Attributes:
        instance_id: the run.
        result: the instance and what it moved, once the block has ended well; None before.
    """

    instance_id: str
    result: RunResult | None = None


class Once(msgspec.Struct):
    """What ``run_once`` was asked to do."""

    run: OwnedRun
    waiting_for: WaitFor
    on_timeout: Literal["cancel", "leave"]
    cancel_on_interrupt: bool
    process: int
    listener_raised: bool = False

    @property
    def is_own_process(self) -> bool:
        """Whether this is no forked child, whose parent has the run."""
        return self.process == os.getpid()

    def begins_cancel(self) -> None:
        """A run is cancelled once: what interrupts its cancel does not begin another."""
        self.cancel_on_interrupt = False

    def is_interrupt(self, error: BaseException) -> bool:
        """Whether an exception says nothing of the run, so that it is the caller's wish to end."""
        if not self.is_own_process:
            return False
        return self.listener_raised or not isinstance(error, OrchestrationError)


def _noting(listener: Callable[[StageEvent], object], once: Once) -> Callable[[StageEvent], object]:
    """The caller's listener; that it raised is noted, whatever it raised: its errors say nothing of the run."""

    async def awaited(answer: Any) -> object:
        try:
            return await answer
        except BaseException:
            once.listener_raised = True
            raise

    def told(event: StageEvent) -> object:
        try:
            answer = listener(event)
        except BaseException:
            once.listener_raised = True
            raise
        return awaited(answer) if inspect.isawaitable(answer) else answer

    return told


def once_of(
    plans: Plans,
    workflow: str | Mapping[str, Any],
    variables: Mapping[str, Any] | None,
    *,
    run_key: str,
    store: RunStore,
    timeout: float | None = None,
    rerun_failed: bool = False,
    on_changed: Literal["refuse", "adopt"] = "refuse",
    fingerprint_ignores: Sequence[str] = (),
    settled: str | None = None,
    first_attempt: bool = False,
    wants: Callable[[], bool] | None = None,
    checkpoints: bool = False,
    cancel_on_interrupt: bool = True,
    on_timeout: Literal["cancel", "leave"] = "cancel",
    key_variable: str = KEY_VARIABLE,
    allow_unbound: bool = False,
    strict_variables: bool = False,
    since: datetime | None = None,
    start_timeout: float = START_SECONDS,
    on_chosen: Callable[[str], object] | None = None,
    poll_interval: float = POLL_SECONDS,
    on_stage: Callable[[StageEvent], object] | None = None,
    fail_after_attempts: int | None = None,
    read_budget: float = READ_BUDGET,
    at_checkpoint: Callable[[int], object] | None = None,
) -> Once:
    """The checked arguments of ``run_once``, as what performs it needs them."""
    check_on_timeout(on_timeout)
    checked_flag(first_attempt, "first_attempt")
    checked_flag(cancel_on_interrupt, "cancel_on_interrupt")
    if not all(hasattr(store, name) for name in ("load", "save", "choose", "settle")):
        raise ValidationError(f"store must be a RunStore, not a {type(store).__name__}", path="store")
    if any(inspect.iscoroutinefunction(getattr(store, name)) for name in ("load", "save", "choose", "settle")):
        raise ValidationError(
            "store must have plain methods, not asynchronous ones; they are called in threads", path="store"
        )
    seconds = None if timeout is None else at_least_zero(timeout, "timeout")
    arguments = WaitArguments(
        deadline=None if seconds is None else plans.clock.time() + seconds,
        limit="" if seconds is None else f"timeout={seconds:g} s",
        poll_interval=poll_interval,
        fail_after_attempts=fail_after_attempts,
        read_budget=read_budget,
    )
    wanted = OwnedRequest(
        workflow=workflow,
        variables=variables,
        run_key=checked_run_key(run_key),
        key_variable=key_variable,
        how="first" if first_attempt else None,
        shared_key=not first_attempt,
        may_say_first=True,
        since=since,
        settled=() if settled is None else (settled,),
        rerun_failed=rerun_failed,
        on_changed=on_changed,
        fingerprint_ignores=tuple(fingerprint_ignores)
        if not isinstance(fingerprint_ignores, str)
        else fingerprint_ignores,
        attempt=uuid.uuid4().hex,
        allow_unbound=allow_unbound,
        strict_variables=strict_variables,
        checkpoints=checkpoints,
        timeout=at_least_zero(start_timeout, "start_timeout"),
    )
    command = resume_command(store, run_key)
    if command:
        wanted.remedy_held = f"{command} lets the same run go on"
    if isinstance(workflow, str):
        calls.get_workflow(workflow)  # refuses a bad id before anything is sent

    def waiting_for(instance_id: str, guard: Guard) -> Procedure[RunResult]:
        listener = None if on_stage is None else _noting(on_stage, once)
        return plans.waiting_for(instance_id, arguments, listener, guard)

    once = Once(
        run=plans.owning(
            wanted,
            store=store,
            owner=owner_of(wants, "wants", asynchronous=plans.asynchronous),
            at_checkpoint=owner_of(at_checkpoint, "at_checkpoint", asynchronous=plans.asynchronous),
            on_chosen=on_chosen,
        ),
        waiting_for=waiting_for,
        on_timeout=on_timeout,
        cancel_on_interrupt=cancel_on_interrupt,
        process=os.getpid(),
    )
    return once

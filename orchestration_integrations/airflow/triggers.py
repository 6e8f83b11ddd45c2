"""Triggers: they read. What follows from what they saw is decided on a worker.

A triggerer may die, restart, or run a trigger twice; a trigger that changed something there would
change it twice, or cancel a payment because of a deployment. So ``run`` sends nothing but the pass of a checkpoint,
which a second one cannot repeat (see ``trigger_passes``), and a cancel is sent only by ``on_kill``, which Airflow calls
when a user acted on the task (or its DAG run ended).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Sequence
from datetime import datetime, timezone
from typing import Any

from .. import telemetry
from ..api import calls
from ..api.errors import (
    InstanceCancelledError,
    InstanceFailedError,
    InstanceStuckError,
    OrchestrationError,
    StateUnknownError,
    ValidationError,
    WaitTimeoutError,
)
from ..api.models import StageEvent
from ..http_hook.in_time import as_sent
from ..procedures.checkpoints import Guard
from ..procedures.limits import CANCEL_SECONDS, POLL_SECONDS, READ_BUDGET
from ..procedures.wait_arguments import WaitArguments
from ..procedures.wording import run_summary, stage_line
from .attempt import Attempt, Wish, wish
from .compat import (
    AIRFLOW_3_3,
    TRIGGERS_REACH_VARIABLES,
    USER_ACTION,
    BaseEventTrigger,
    BaseTrigger,
    TriggerEvent,
    asset_stores,
    sight_of_task,
)
from .ended_watch import EndedWatch
from .hooks import DEFAULT_CONN_ID, OrchestrationHook
from .marks import NOBODY, AwaitedMarks, VariableMarks, put_up_hold
from .trigger_passes import LeftToWorker, TriggerPasses, asked, left_to_others

ENDS = ("succeeded", "failed", "cancelled")
"""How a run can end."""
KILL_SECONDS = CANCEL_SECONDS
"""Seconds that a cancel from a triggerer may take; Airflow gives it 30."""

logger = logging.getLogger("orchestration_integrations.airflow")

_cancelling: set[asyncio.Task[None]] = set()
"""Cancels under way: an event loop itself keeps only weak references."""


class _InstanceTrigger(BaseTrigger):  # type: ignore[misc]
    """What the triggers share: the connection, the cancel when a user kills the task."""

    def __init__(self, instance_id: str, orchestration_conn_id: str, cancel_on_kill: bool) -> None:
        super().__init__()
        self.instance_id = instance_id
        self.orchestration_conn_id = orchestration_conn_id
        self.cancel_on_kill = cancel_on_kill
        self._hook = OrchestrationHook(orchestration_conn_id)
        self._waits = False
        self._may_be_held = False

    def _kwargs(self) -> dict[str, Any]:
        raise NotImplementedError

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and keyword arguments, plain JSON, without any secret."""
        return f"{type(self).__module__}.{type(self).__name__}", self._kwargs()

    def _event(self, status: str, message: str) -> dict[str, Any]:
        return {"status": status, "instance_id": self.instance_id, "message": message}

    def _broken(self, error: Exception) -> dict[str, Any]:
        """A fault of this place, the connection's store being away for example: the worker looks for itself."""
        logger.exception("waiting for instance %s failed", self.instance_id)
        return self._event("error", f"{type(error).__name__}: {error}")

    async def on_kill(self) -> None:
        """Cancel the instance, because a user acted on the task or its DAG run ended (Airflow 3.3).

        Airflow gives this a time limit of 30 s, but cancels it anew about a second later, as it does not see the
        trigger gone: so the work is done by a task of its own, which that does not reach.
        """
        if not self.cancel_on_kill:
            logger.info("instance %s is left alone (cancel_on_kill=False)", self.instance_id)
            return
        await self._go_on_with(self._killed_by_user())

    async def _go_on_with(self, work: Coroutine[Any, Any, None]) -> None:
        working = asyncio.get_running_loop().create_task(work)
        _cancelling.add(working)
        working.add_done_callback(_cancelling.discard)
        await asyncio.shield(working)

    async def _killed_by_user(self) -> None:
        """What a user did is told by the task's state; where that cannot be read it was a kill."""
        word = await self._asked()
        if word == "superseded":
            logger.warning(
                "the task was marked as a success, or another try of it is to come: instance %s is left alone and %s",
                self.instance_id,
                "stands still at its next checkpoint" if self._may_be_held else "may still run",
            )
            return
        await self._cancel_instance()

    async def _cancel_instance(self) -> None:
        logger.info("the task was killed: cancelling instance %s", self.instance_id)
        try:
            async with await self._hook.get_async_conn() as http:
                # The only waiter is this trigger, whose wait is over: then nothing of it can still be sent.
                bound = None if self._waits else 0.0
                stop = None
                if TRIGGERS_REACH_VARIABLES and self._may_be_held:
                    place = AwaitedMarks(VariableMarks(self._parts() or NOBODY), asked)
                    by = "its task was marked or cleared while it was deferred"
                    stop = put_up_hold(place, self.instance_id, by, http.plans.clock, bound=bound)
                # It tells what came of it.
                await http.perform(http.cancelling(self.instance_id, KILL_SECONDS, stop))
        except OrchestrationError as error:
            logger.error("instance %s was not cancelled and may still run: %s", self.instance_id, error)
        except Exception as error:  # nobody waits for this task any more, who could tell it
            logger.exception("instance %s was not cancelled and may still run: %r", self.instance_id, error)

    async def _cancelled(self, error: asyncio.CancelledError) -> None:
        """Before Airflow 3.3 a kill by a user looks like a shutdown: only the task's state tells them apart."""
        if AIRFLOW_3_3 or not self.cancel_on_kill or (error.args and error.args[0] == USER_ACTION):
            return
        # As on_kill: a triggerer cancels anew each second until the trigger is gone, also amid the question.
        await self._go_on_with(self._killed_or_shut_down())

    async def _killed_or_shut_down(self) -> None:
        word = await self._asked()
        if word is None:
            logger.warning("the state of the task is unknown: instance %s is left alone", self.instance_id)
        elif word == "unwanted":
            await self._cancel_instance()
        elif word == "superseded":
            logger.info("the task is no longer deferred: instance %s is left to what follows", self.instance_id)

    async def _asked(self) -> Wish | None:
        """Whether the deferred try still wants the instance; None where that cannot be found out in time."""
        try:
            word: Wish | None = await asked(self._wish)
            return word
        except Exception as error:
            logger.warning("Airflow could not be asked for the state of the task: %r", error)
            return None

    def _parts(self) -> tuple[str, str, str, int] | None:
        """What names the task instance; None where Airflow has not told the trigger."""
        ti = self.task_instance
        if ti is None:
            return None
        return (ti.dag_id, ti.run_id, ti.task_id, ti.map_index if ti.map_index is not None else -1)

    def _wish(self) -> Wish | None:
        ti = self.task_instance
        if ti is None:
            return None
        attempt = Attempt(
            dag_id=ti.dag_id,
            run_id=ti.run_id,
            task_id=ti.task_id,
            map_index=ti.map_index if ti.map_index is not None else -1,
            try_number=ti.try_number,
            max_tries=0,
            retries=0,
            clear_number=None,
            first_instant=datetime.now(timezone.utc),
        )
        sight = sight_of_task(attempt.parts, in_trigger=True)
        if sight.state == "running":
            return "superseded"  # a worker has gone on with it
        return wish(attempt, sight.state, try_number=sight.try_number)


class OrchestrationInstanceTrigger(_InstanceTrigger):
    """Waits until an instance ends, a deadline passes, or the instance is stuck, and reports that in one event.

    The event: ``status`` (``succeeded``, ``failed``, ``cancelled``, ``timeout``, ``stuck``, ``checkpoint``,
    ``unknown``, ``error``), ``instance_id``, ``message``, on success ``result``, and where it is stuck ``reason``, as
    of InstanceStuckError. ``checkpoint``: a worker is to decide whether the instance goes on from the checkpoint where
    it stands.

    Args:
        instance_id: the instance to wait for.
        orchestration_conn_id: the connection.
        deadline: epoch seconds; None for none.
        poll_interval: longest seconds between two polls.
        fail_after_attempts: end the wait once a payment has failed this many times; None for never.
        cancel_on_kill: whether a user's kill of the task cancels the instance.
        row_grace: seconds for which an id never seen may be unknown; None for the default.
        read_budget: seconds for which reads may fail, one after the other.
        passes: the trigger lets the instance pass checkpoints, on behalf of the task that runs it. Default False: that
            is left to others.
        failed_before: the tasks of the DAG run that had failed before the task began: another one that fails keeps the
            instance at its checkpoint. None (default): failures of others do not matter.
        limit: names the limit that the deadline comes of, for the message.
        later: arguments of later versions; ignored.
    """

    def __init__(
        self,
        instance_id: str,
        orchestration_conn_id: str = DEFAULT_CONN_ID,
        deadline: float | None = None,
        poll_interval: float = POLL_SECONDS,
        fail_after_attempts: int | None = None,
        cancel_on_kill: bool = False,
        row_grace: float | None = None,
        read_budget: float = READ_BUDGET,
        passes: bool = False,
        failed_before: list[str] | None = None,
        limit: str = "",
        **later: Any,
    ) -> None:
        super().__init__(instance_id, orchestration_conn_id, cancel_on_kill)
        self._may_be_held = passes
        self.passes = passes
        self.failed_before = failed_before
        self.limit = limit
        self.read_budget = read_budget
        self.deadline = deadline
        self.poll_interval = poll_interval
        self.fail_after_attempts = fail_after_attempts
        self.row_grace = row_grace

    def _kwargs(self) -> dict[str, Any]:
        return {
            "instance_id": self.instance_id,
            "orchestration_conn_id": self.orchestration_conn_id,
            "deadline": self.deadline,
            "poll_interval": self.poll_interval,
            "fail_after_attempts": self.fail_after_attempts,
            "cancel_on_kill": self.cancel_on_kill,
            "row_grace": self.row_grace,
            "read_budget": self.read_budget,
            "passes": self.passes,
            "failed_before": self.failed_before,
            "limit": self.limit,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Read until there is something to tell."""
        try:
            event = await as_sent(self._wait())
        except asyncio.CancelledError as error:
            await self._cancelled(error)
            raise
        yield TriggerEvent(event)

    async def _wait(self) -> dict[str, Any]:
        try:
            async with await self._hook.get_async_conn() as http:
                self._waits = True
                arguments = WaitArguments(
                    deadline=self.deadline,
                    limit=self.limit,
                    poll_interval=self.poll_interval,
                    fail_after_attempts=self.fail_after_attempts,
                    row_grace=self.row_grace,
                    read_budget=self.read_budget,
                    shares="always",
                    gives_up="has a worker look at it",
                )
                with telemetry.span("wait", instance_id=self.instance_id):
                    waiting = http.waiting_for(self.instance_id, arguments, _log_stage, self._guard())
                    result = await http.perform(waiting)
        except LeftToWorker as left:
            return self._event("checkpoint", str(left))
        except OrchestrationError as error:
            event = self._event(_status_of(error), _reason_of(error))
            return {**event, "reason": error.reason} if isinstance(error, InstanceStuckError) else event
        except Exception as error:
            return self._broken(error)
        finally:
            self._waits = False
        return {**self._event("succeeded", ""), "result": run_summary(result.instance, result.moved)}

    def _guard(self) -> Guard:
        if not self.passes:
            return left_to_others(self.instance_id)
        return TriggerPasses(self.instance_id, self._asked, self._parts(), self.failed_before)


class _Reached(Exception):
    """Leaves a wait from within: what was waited for has happened."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


class OrchestrationStageTrigger(_InstanceTrigger):
    """Waits until a stage has begun, has ended, or listens for an event.

    The event: ``status`` (``reached``, ``failed``, ``over``, or as of ``OrchestrationInstanceTrigger``),
    ``instance_id``, ``message``.

    Args:
        instance_id: whose stage.
        stage: its number; None (only with ``until="listening"``) for any.
        until: ``begun``, ``ended`` or ``listening``.
        event: name that must be listened for; None for any.
        orchestration_conn_id, deadline, poll_interval, row_grace, later: as of ``OrchestrationInstanceTrigger``.
    """

    def __init__(
        self,
        instance_id: str,
        stage: int | None = None,
        until: str = "ended",
        event: str | None = None,
        orchestration_conn_id: str = DEFAULT_CONN_ID,
        deadline: float | None = None,
        poll_interval: float = POLL_SECONDS,
        row_grace: float | None = None,
        **later: Any,
    ) -> None:
        super().__init__(instance_id, orchestration_conn_id, cancel_on_kill=False)
        self.row_grace = row_grace
        self.stage = stage
        self.until = until
        self.event = event
        self.deadline = deadline
        self.poll_interval = poll_interval

    def _kwargs(self) -> dict[str, Any]:
        return {
            "instance_id": self.instance_id,
            "stage": self.stage,
            "until": self.until,
            "event": self.event,
            "orchestration_conn_id": self.orchestration_conn_id,
            "deadline": self.deadline,
            "poll_interval": self.poll_interval,
            "row_grace": self.row_grace,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Read until there is something to tell."""
        yield TriggerEvent(await self._wait())

    async def _wait(self) -> dict[str, Any]:
        try:
            async with await self._hook.get_async_conn() as http:
                arguments = WaitArguments(
                    deadline=self.deadline,
                    poll_interval=self.poll_interval,
                    row_grace=self.row_grace,
                    gives_up="has a worker look at it",
                )
                guard = left_to_others(self.instance_id)
                with telemetry.span("wait", instance_id=self.instance_id):
                    await http.perform(http.waiting_for(self.instance_id, arguments, self._on_stage, guard))
        except _Reached as reached:
            return self._event(reached.status, str(reached))
        except OrchestrationError as error:
            return self._event(_status_of(error), _reason_of(error))
        except Exception as error:
            return self._broken(error)
        return self._event("succeeded", "the instance has ended")

    def _on_stage(self, event: StageEvent) -> None:
        if self.stage is not None and event.stage != self.stage:
            return
        if event.kind == self.until and not (event.kind == "ended" and event.detail):
            if event.kind != "listening" or self.event in (None, event.detail):
                raise _Reached("reached", _line_of(event))
        elif event.kind == "ended" and self.stage is not None:
            raise _Reached("failed" if event.detail else "over", _line_of(event))


class OrchestrationInstanceEndedTrigger(BaseEventTrigger):  # type: ignore[misc]
    """Tells of the instances of a workflow that end: for an ``AssetWatcher`` that starts DAGs by it.

    One event a poll, of at most 300 ends, since Airflow joins events that come together into one DAG run. The event:
    ``workflow_id`` and ``instances``, a list of ``instance_id``, ``workflow_id``, ``state``, ``terminated_at``.

    On Airflow 3.3 each end is told once, also across restarts of the triggerer: what was told is kept in the state of
    the asset. A triggerer that dies within five seconds after an event may tell its ends again: they have the same
    ``instance_id``. On older versions, ends that come while the triggerer is down are not told.

    Nothing ends this trigger. What keeps it from reading (a missing connection, refused credentials, an unknown
    workflow) is logged once, the connection is read anew, and the next poll makes up for what was missed.

    Args:
        workflow_id: whose instances.
        states: only these ends: ``succeeded``, ``failed``, ``cancelled``; None for all.
        orchestration_conn_id: the connection.
        poll_interval: seconds between polls; default 30. A run that begins and ends between two polls is told later
            where the workflow has many runs: one poll later for each hundred, at most 120.

    Raises:
        ValidationError: the id is empty or no text, a state is none of these, or the interval is no number of seconds
            above 0.
    """

    def __init__(
        self,
        workflow_id: str,
        states: list[str] | None = None,
        orchestration_conn_id: str = DEFAULT_CONN_ID,
        poll_interval: float = 30.0,
        **later: Any,
    ) -> None:
        super().__init__()
        calls.get_workflow(workflow_id)  # refuses what can be no id
        self.workflow_id = workflow_id
        self.states = _checked_states(states)
        self.orchestration_conn_id = orchestration_conn_id
        self.poll_interval = WaitArguments(poll_interval=poll_interval).poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and keyword arguments, plain JSON."""
        return (
            f"{type(self).__module__}.{type(self).__name__}",
            {
                "workflow_id": self.workflow_id,
                "states": self.states,
                "orchestration_conn_id": self.orchestration_conn_id,
                "poll_interval": self.poll_interval,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Tell ends for ever."""
        watch = EndedWatch(
            self.workflow_id, self.states, self.orchestration_conn_id, self.poll_interval, asset_stores(self)
        )
        async for payload in watch.payloads():
            yield TriggerEvent(payload)


def _checked_states(states: Sequence[str] | None) -> list[str] | None:
    if states is None:
        return None
    if isinstance(states, str) or not states or not set(states) <= set(ENDS):
        raise ValidationError(f"states must be a list of {', '.join(ENDS)}, not {states!r}", path="states")
    return list(states)


def _line_of(event: StageEvent) -> str:
    return stage_line(event) or f"instance {event.instance_id}: its gate has {event.kind}"


def _log_stage(event: StageEvent) -> None:
    line = stage_line(event)
    if line:
        logger.info("%s", line)


def _status_of(error: OrchestrationError) -> str:
    if isinstance(error, InstanceFailedError):
        return "failed"
    if isinstance(error, InstanceCancelledError):
        return "cancelled"
    if isinstance(error, WaitTimeoutError):
        return "timeout"
    if isinstance(error, InstanceStuckError):
        return "checkpoint" if error.reason == "held" else "stuck"
    if isinstance(error, StateUnknownError):
        return "unknown"
    return "error"


def _reason_of(error: OrchestrationError) -> str:
    """What happened, without what became of the instance: the worker decides about that."""
    return error.told if isinstance(error, WaitTimeoutError | InstanceStuckError) else str(error)

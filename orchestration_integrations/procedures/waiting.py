"""Waiting for an instance to end: a reducer that is fed observations and says what to do next.

It holds no connection and no monotonic time, only the instance's id and an epoch deadline, so it can
be rebuilt on another host after a restart. Every wait, blocking or not, alone or on a shared poll,
feeds this one reducer:

    step = waiting.begin(now)
    while the step is not the end:
        tell ``step.tell``; perform ``step.next``; step = waiting.feed(what was seen, now)

Rules that live here and nowhere else: success is what ``Instance.state`` says and nothing weaker;
being absent from a list of running instances means nothing until a GET says so; a read that only
informs never fails a wait; reads may fail for a while, in number *and* time, before the wait gives
up; the deadline ends in exactly one last look, which decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from ..api.calls import get_instance, get_instance_history, get_stage_history, get_workflow
from ..api.errors import (
    AuthenticationError,
    NotFoundError,
    OrchestrationError,
    ValidationError,
    summary,
)
from ..api.instants import UNKNOWN_INSTANT, format_instant
from ..api.models import ActivityRun, Instance, RunResult, StageEvent, StageRun
from .effects import Now, Procedure, do, pause, tell
from .ends import End, Told, conclude
from .gate import own_number
from .listing import Versions
from .moved import STILL

FIRST_INTERVAL = 0.2
"""Seconds between the first polls; each pause is half as long again, up to the caller's interval."""
LAST_LOOK = 5.0
"""Seconds that the last look, with the reading of what had moved, may take after the deadline."""
GHOST_AGE = 60.0
"""Seconds after which a row without a stage, which the engine does not know, will never start."""
ROW_GRACE = 10.0
"""Seconds for which an id that was never seen may be unknown: rows can be late."""
ROW_PATIENCE = 3600.0
"""The same for an id that the server itself gave: a run stands behind it, however late its row is."""
FAILURES = 10
"""Reads in a row that may fail …"""
FAILURE_SECONDS = 120.0
"""… and seconds since the last that did not: a wait gives up once both are exceeded."""
LONGEST_DETAIL_PAUSE = 30.0
LONGEST_RETRY_AFTER = 300.0
"""Seconds: a server that asks for a longer silence is looked at all the same."""
SNAPSHOT_SECONDS = 60.0
"""Seconds after which a wait that is fed lists reads its instance itself."""
_RUNS = {"send": "RunSend", "delay": "RunDelay", "wait_event": "RunWaitEvent", "update": "RunUpdate"}
"""How the history names the kinds of stage."""


# ---- what is observed ------------------------------------------------------------------------------


class Seen(msgspec.Struct, frozen=True):
    """The instance, as a GET by its id gave it. ``server_time``: epoch seconds by the server's clock."""

    instance: Instance
    server_time: float


class InSnapshot(msgspec.Struct, frozen=True):
    """The id stood in a list of running instances: it runs."""


class Absent(msgspec.Struct, frozen=True):
    """The id stood not in a list of running instances. By itself this means nothing."""


class ReadFailed(msgspec.Struct, frozen=True):
    """A GET of the instance, or of the list, failed."""

    error: OrchestrationError


class DefinitionRead(msgspec.Struct, frozen=True):
    """The stages of the workflow: it names the stages of its instances."""

    stages: Sequence[Mapping[str, object]]


class HistoryRead(msgspec.Struct, frozen=True):
    """The stages whose work was launched."""

    stages: Sequence[StageRun]


class StageRead(msgspec.Struct, frozen=True):
    """The activities of a stage."""

    stage: int
    activities: Sequence[ActivityRun]


class DetailFailed(msgspec.Struct, frozen=True):
    """A history could not be read."""

    error: OrchestrationError


Observation = Seen | InSnapshot | Absent | ReadFailed | DefinitionRead | HistoryRead | StageRead | DetailFailed


# ---- what to do next -------------------------------------------------------------------------------


class LookAt(msgspec.Struct, frozen=True):
    """Do nothing until ``at`` (epoch seconds), then observe: by a GET, or a list that others share."""

    at: float


class Read(msgspec.Struct, frozen=True):
    """GET the instance now, over by ``by`` (epoch seconds). ``last``: this look decides."""

    by: float | None
    last: bool = False


class ReadDefinition(msgspec.Struct, frozen=True):
    """GET the workflow, once: it only informs."""

    workflow_id: str


class ReadHistory(msgspec.Struct, frozen=True):
    """Read the history of the instance: it only informs."""


class ReadStage(msgspec.Struct, frozen=True):
    """Read the history of a stage: it only informs."""

    stage: int


Next = LookAt | Read | ReadDefinition | ReadHistory | ReadStage | End


class Step(msgspec.Struct, frozen=True):
    """Tell these, then do this."""

    next: Next
    tell: tuple[StageEvent, ...] = ()


class _Told(msgspec.Struct):
    begun: bool = False
    ended: bool = False
    name: str | None = None
    listening: bool = False
    attempt: int = 1
    detail_at: float = 0.0
    detail_pause: float = 0.0


class Waiting(msgspec.Struct):
    """The state of one wait.

    Args:
        instance_id: whom to wait for.
        deadline: epoch seconds, None for none.
        poll_interval: seconds between polls once they have slowed down.
        detail: whether stages are told by name and failing payments are told; costs history calls.
        fail_after_attempts: end the wait once a payment failed so often; None for never.
        row_grace: seconds for which an id never seen may be unknown to the server.
    """

    instance_id: str
    deadline: float | None = None
    poll_interval: float = 5.0
    detail: bool = True
    fail_after_attempts: int | None = None
    row_grace: float = ROW_GRACE
    instance: Instance | None = None
    stage_count: int | None = None
    retried: set[int] = msgspec.field(default_factory=set)
    last_failure: str = ""
    _begun: float = 0.0
    _interval: float = FIRST_INTERVAL
    _stages: dict[int, _Told] = msgspec.field(default_factory=dict)
    _failures: int = 0
    _good_at: float = 0.0
    _read_at: float = 0.0
    _last_error: OrchestrationError | None = None
    _last_look: bool = False
    _asked_engine: int = 0
    _held: Seen | None = None
    _asked_definition: bool = False
    definition: Sequence[Mapping[str, Any]] | None = None

    def begin(self, now: float) -> Step:
        """The first step."""
        self._begun = self._good_at = self._read_at = now
        return Step(self._read(now))

    def feed(self, seen: Observation, now: float) -> Step:
        """What an observation leads to. ``now``: epoch seconds."""
        if isinstance(seen, Seen):
            return self._on_instance(seen, now)
        if isinstance(seen, ReadFailed):
            return Step(self._on_failure(seen.error, now))
        if isinstance(seen, InSnapshot):
            self._on_success(now)
            # A list shows neither stages nor a run that never started: look closer now and then.
            return Step(self._read(now) if now - self._read_at >= SNAPSHOT_SECONDS else self._later(now))
        if isinstance(seen, Absent):
            return Step(self._read(now))
        if isinstance(seen, DefinitionRead):
            return self._on_definition(seen.stages, now)
        if isinstance(seen, HistoryRead):
            return self._on_history(seen.stages, now)
        if isinstance(seen, StageRead):
            return self._on_stage(seen, now)
        return self._on_no_detail(seen.error, now)

    def detail_by(self, now: float) -> float | None:
        """Epoch seconds by which a read that only informs must be over; None for no limit."""
        if self.deadline is None:
            return None
        return self.over if self._last_look else max(self.deadline, now)

    @property
    def over(self) -> float | None:
        """Epoch seconds by which all is over. A wait that begins after its deadline still gets its last look."""
        return None if self.deadline is None else max(self.deadline, self._begun) + LAST_LOOK

    # Observations

    def _on_instance(self, seen: Seen, now: float) -> Step:
        instance = self.instance = seen.instance
        self._read_at = now
        self._on_success(now)
        if self.detail and not self._asked_definition:
            self._asked_definition = True
            self._held = seen
            return Step(ReadDefinition(instance.workflow_id))
        events = self._stage_events(instance)
        state = instance.state
        if state != "running":
            return Step(End(state, instance, instance.failure or ""), events)
        if self._last_look:
            return Step(self._timeout(), events)
        if not instance.status and self._is_old(instance, seen.server_time, now):
            return Step(ReadHistory(), events)
        wanted = self._detail_wanted(instance, now) if self.detail else None
        if wanted is not None:
            return Step(wanted, events)
        return Step(self._later(now), events)

    def _on_failure(self, error: OrchestrationError, now: float) -> Next:
        if isinstance(error, AuthenticationError | ValidationError):
            return End("error", self.instance, error=error)
        if isinstance(error, NotFoundError):
            grace_over = now - self._begun >= self.row_grace
            # Without an error code it was a gateway that answered, and nothing is known of a row that was seen.
            gone = self.instance is not None and error.error_code is not None
            if gone or (self.instance is None and grace_over):
                return End("error", self.instance, error=error)
        self._last_error = error
        self._failures += 1
        if self._last_look:
            return self._timeout()
        missing = isinstance(error, NotFoundError) and self.instance is None
        if self._failures > FAILURES and now - self._good_at > FAILURE_SECONDS and not missing:
            return End("unknown", self.instance, summary(error), error)
        return self._later(now, min(error.retry_after or 0.0, LONGEST_RETRY_AFTER))

    def _on_success(self, now: float) -> None:
        self._failures, self._good_at, self._last_error = 0, now, None

    def _on_definition(self, stages: Sequence[Mapping[str, object]], now: float) -> Step:
        self.stage_count = len(stages)
        self.definition = stages
        for number, stage in enumerate(stages):
            self._stages.setdefault(number, _Told()).name = _RUNS.get(next(iter(stage), ""))
        return self._resume(now)

    def _resume(self, now: float) -> Step:
        """Go on with what was seen before the definition was asked for."""
        held, self._held = self._held, None
        return self._on_instance(held, now) if held is not None else Step(self._later(now))

    def _on_history(self, stages: Sequence[StageRun], now: float) -> Step:
        self._asked_engine = 0
        events: list[StageEvent] = []
        for number, stage in enumerate(stages):
            told = self._stages.setdefault(number, _Told())
            told.name = stage.name
            open_wait = stage.name == "RunWaitEvent" and not stage.terminated
            if open_wait and told.begun and not told.ended and not told.listening:
                told.listening = True
                event = stage.input.get("event")
                events.append(self._event(number, "listening", event if isinstance(event, str) else None))
        wanted = self._detail_wanted(self.instance, now) if self.detail and self.instance is not None else None
        return Step(wanted if isinstance(wanted, ReadStage) else self._later(now), tuple(events))

    def _on_stage(self, seen: StageRead, now: float) -> Step:
        told = self._stages.setdefault(seen.stage, _Told())
        events: list[StageEvent] = []
        failed = 0
        for activity in seen.activities:
            if activity.terminated or (activity.attempt <= 1 and activity.last_failure is None):
                continue
            self.retried.add(seen.stage)
            failed = max(failed, activity.attempt - 1)
            self.last_failure = describe_failing(activity)
            if activity.attempt > told.attempt:
                told.attempt = activity.attempt
                events.append(self._event(seen.stage, "failing", self.last_failure))
        if self.fail_after_attempts is not None and failed >= self.fail_after_attempts:
            return Step(End("attempts", self.instance, self.last_failure), tuple(events))
        return Step(self._later(now), tuple(events))

    def _on_no_detail(self, error: OrchestrationError, now: float) -> Step:
        if self._held is not None:
            return self._resume(now)
        instance = self.instance
        unknown = isinstance(error, NotFoundError) and error.error_code is not None
        if instance is not None and not instance.status and unknown:
            self._asked_engine += 1
            if self._asked_engine >= 2:
                return Step(End("never_started", instance, summary(error)))
        return Step(self._later(now))

    # Decisions

    def _read(self, now: float) -> Next:
        if self.deadline is not None and now >= self.deadline:
            self._last_look = True
            return Read(self.over, last=True)
        return Read(self.deadline)

    def _later(self, now: float, at_least: float = 0.0) -> Next:
        if self.deadline is not None and now >= self.deadline:
            return self._read(now)
        interval = max(min(self._interval, self.poll_interval), at_least)
        self._interval = min(self._interval * 1.5, self.poll_interval)
        at = now + interval
        return LookAt(at if self.deadline is None else min(at, self.deadline))

    def _timeout(self) -> End:
        error = self._last_error
        return End("timeout", self.instance, summary(error) if error is not None else self.last_failure, error)

    def _is_old(self, instance: Instance, server_time: float, now: float) -> bool:
        return is_old(instance, server_time, now - self._begun)

    def _detail_wanted(self, instance: Instance, now: float) -> ReadHistory | ReadStage | None:
        if not instance.status:
            return None
        last = instance.status[-1]
        if last.terminated_at is not None or last.stage < 0:
            return None
        told = self._stages.setdefault(last.stage, _Told())
        if told.name is None or (told.name == "RunWaitEvent" and not told.listening):
            return ReadHistory() if self._due(told, now) else None
        if told.name not in STILL and self._due(told, now):
            return ReadStage(last.stage)
        return None

    def _due(self, told: _Told, now: float) -> bool:
        """Details of one stage are asked for ever more rarely: they cost the engine."""
        if now < told.detail_at:
            return False
        told.detail_pause = min(max(told.detail_pause * 1.5, 0.5), LONGEST_DETAIL_PAUSE)
        told.detail_at = now + told.detail_pause
        return True

    # Stage events

    def _event(
        self, stage: int, kind: Literal["begun", "ended", "failing", "listening"], detail: str | None
    ) -> StageEvent:
        known = self.definition is not None and stage < len(self.definition)
        return StageEvent(
            instance_id=self.instance_id,
            stage=stage,
            kind=kind,
            name=self._stages[stage].name,
            detail=detail,
            own_stage=own_number(self.definition or (), stage) if known else stage,
        )

    def _stage_events(self, instance: Instance) -> tuple[StageEvent, ...]:
        """Begin and end of each stage, once and in order, also of those that came and went unseen."""
        if not instance.status:
            return ()
        events: list[StageEvent] = []
        latest = {row.stage: row for row in instance.status}
        for number in sorted(latest):
            row, told = latest[number], self._stages.setdefault(number, _Told())
            if not told.begun:
                told.begun = True
                events.append(self._event(number, "begun", None))
            # A row can stay open for good where the server lost a write; what follows it tells its end.
            over = row.terminated_at is not None or instance.terminated or number < max(latest)
            if over and not told.ended:
                told.ended = True
                events.append(self._event(number, "ended", row.error))
        return tuple(events)


def is_old(instance: Instance, server_time: float, known_for: float) -> bool:
    """Whether a row should long have a stage; one without a readable age is as old as we have known it."""
    if instance.created_at == UNKNOWN_INSTANT:
        return known_for > GHOST_AGE
    return server_time - instance.created_at.timestamp() > GHOST_AGE


def describe_failing(activity: ActivityRun) -> str:
    """``CreateTransaction failed (attempt 4, next try …): account had insufficient funds``."""
    following = f", next try {format_instant(activity.next_execution)}" if activity.next_execution is not None else ""
    reason = activity.last_failure or "no reason is given"
    return f"{activity.name} failed (attempt {activity.attempt}{following}): {reason}"


# ---- the wait as a procedure -----------------------------------------------------------------------


def wait(waiting: Waiting, versions: Versions, now: Now, on_stage: object = None) -> Procedure[RunResult]:
    """Perform a wait.

    Args:
        on_stage: called with each StageEvent, or None.

    Raises:
        InstanceFailedError, InstanceCancelledError, InstanceStuckError, WaitTimeoutError,
        StateUnknownError, NotFoundError, AuthenticationError.
    """
    start = now.monotonic()
    epoch = now.time()

    def at() -> float:
        # Epoch seconds that no adjustment of the wall clock can move.
        return epoch + (now.monotonic() - start)

    def until(moment: float | None) -> float | None:
        return None if moment is None else start + (moment - epoch)

    listener = on_stage if callable(on_stage) else None
    step = waiting.begin(at())
    while True:
        for event in step.tell:
            yield from tell(listener, event)
        following = step.next
        if isinstance(following, End):
            told = Told(waiting.instance_id, frozenset(waiting.retried), waiting.definition)
            return (yield from conclude(following, told, versions, now, until(waiting.over)))
        seen: Observation
        if isinstance(following, LookAt):
            yield from pause(following.at - at())
            step = waiting.feed(Absent(), at())
            continue
        try:
            if isinstance(following, Read):
                instance = yield from do(get_instance(waiting.instance_id, versions.plain), until(following.by))
                seen = Seen(instance, now.server_time())
            elif isinstance(following, ReadDefinition):
                workflow_call = get_workflow(following.workflow_id, versions.plain)
                seen = DefinitionRead((yield from do(workflow_call, until(waiting.detail_by(at())))).stages)
            elif isinstance(following, ReadHistory):
                call = get_instance_history(waiting.instance_id, versions.plain)
                seen = HistoryRead((yield from do(call, until(waiting.detail_by(at())))))
            else:
                stage_call = get_stage_history(waiting.instance_id, following.stage, versions.plain)
                seen = StageRead(following.stage, (yield from do(stage_call, until(waiting.detail_by(at())))))
        except OrchestrationError as error:
            seen = ReadFailed(error) if isinstance(following, Read) else DetailFailed(error)
        step = waiting.feed(seen, at())

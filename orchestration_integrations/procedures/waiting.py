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
from typing import Any

import msgspec

from ..api.calls import get_instance, get_instance_history, get_stage_history
from ..api.errors import (
    AuthenticationError,
    NotFoundError,
    OrchestrationError,
    ValidationError,
    is_denial,
    is_gateways_404,
    summary,
)
from ..api.models import Instance, RunResult
from .checkpoint_watch import NEAR_INTERVAL, CheckpointWatch, Over
from .checkpoints import Guard, PassTried, try_to_pass
from .effects import Now, Procedure, do, tell
from .ends import End, Known, conclude, definition_of
from .ghosts import is_old
from .limits import FIRST_PAUSE, GROWTH, POLL_SECONDS, READ_BUDGET
from .limits import LAST_LOOK as LAST_LOOK
from .limits import ROW_GRACE as ROW_GRACE
from .limits import ROW_PATIENCE as ROW_PATIENCE
from .listing import Versions
from .naps import Nap, Times, Woken, plain_nap
from .observations import (
    Absent,
    DefinitionRead,
    DetailFailed,
    Hinted,
    HistoryRead,
    LookAt,
    Next,
    Observation,
    Paused,
    Read,
    ReadDefinition,
    ReadFailed,
    ReadHistory,
    ReadStage,
    Seen,
    StageRead,
    Step,
    TryToPass,
)
from .outages import FAILURES, Outage
from .stage_story import StageStory

HURRY_UP_TO = 3.0
"""Seconds between looks after a hint, which often comes a moment early; then the wait is as patient as before."""
DETAIL_SECONDS = 5.0
"""Seconds that one read may take that only informs."""
LAST_DETAIL = 1.0
"""Seconds after the deadline for all reads that only inform, such as what had moved."""
LONGEST_RETRY_AFTER = 300.0
"""Seconds: a server that asks for a longer silence is looked at all the same."""


class Waiting(msgspec.Struct):
    """The state of one wait.

    Args:
        instance_id: whom to wait for.
        deadline: epoch seconds, None for none.
        poll_interval: seconds between polls once they have slowed down.
        detail: whether stages are told by name and failing payments are told; costs history calls.
        fail_after_attempts: end the wait once a payment failed so often; None for never.
        row_grace: seconds for which an id never seen may be unknown to the server.
        read_budget: seconds for which reads may fail one after the other (and more than ten of them) before the wait
            gives up with StateUnknownError.
        passes: somebody decides at checkpoints whether the instance goes on.
        limit: names the limit that the deadline comes of, for the error.
        outage: the reads that have failed since the last good one, and what is to be told of them.
    """

    instance_id: str
    deadline: float | None = None
    poll_interval: float = POLL_SECONDS
    detail: bool = True
    fail_after_attempts: int | None = None
    row_grace: float = ROW_GRACE
    read_budget: float = READ_BUDGET
    passes: bool = False
    limit: str = ""
    outage: Outage = msgspec.field(default_factory=Outage)
    instance: Instance | None = None
    _begun: float = 0.0
    _interval: float = FIRST_PAUSE
    _before_hint: float | None = None
    _looked_at: float = 0.0
    _story: StageStory = msgspec.field(default_factory=lambda: StageStory(""))
    _failures: int = 0
    _good_at: float = 0.0
    _last_error: OrchestrationError | None = None
    _last_look: bool = False
    _asked_engine: int = 0
    _kept: Seen | None = None
    _asked_definition: bool = False
    _checkpoints: CheckpointWatch = msgspec.field(default_factory=CheckpointWatch)

    def __post_init__(self) -> None:
        self._story = StageStory(self.instance_id)

    @property
    def stage_count(self) -> int | None:
        """How many stages the workflow has; None while it is not known."""
        return len(self._story.definition) if self._story.definition is not None else None

    @property
    def is_settled(self) -> bool:
        """Whether its looks have slowed down to the caller's interval."""
        return self._interval >= self.poll_interval

    @property
    def is_young(self) -> bool:
        """Whether it looks more often than its caller asked for, since it began a moment ago."""
        return not self.is_settled and not self.is_failing and not self.hurries

    @property
    def hurries(self) -> bool:
        """Whether a hint has come a moment ago, so that it looks more often."""
        return self._before_hint is not None

    @property
    def is_failing(self) -> bool:
        """Whether its last read has failed."""
        return self._failures > 0

    @property
    def cannot_read(self) -> bool:
        """Whether its last read has failed, and not for a row that may be late."""
        return self.outage.lasts

    def may_be_listed(self, now: float) -> bool:
        """Whether the list of running instances shows what this wait has to know for now."""
        if self.instance is None:  # a server that cannot be read is asked by all as by one; for a late row, each asks
            seen = self._failures > 1 and not isinstance(self._last_error, NotFoundError)
        else:
            seen = bool(self.instance.status)
        return (
            seen
            and not self._last_look
            and not (self.passes and self._checkpoints.numbers != {})
            and not self._checkpoints.near(now)
        )

    def was_listed(self, now: float) -> None:
        """A list was read that holds the instance: it runs, and reads work."""
        self._on_success(now)

    def let_pass(self, seconds: float) -> None:
        """So much time has passed for the server while this wait slept: a test's server skipped it."""
        if self.deadline is not None:
            self.deadline -= seconds
        self._story.let_pass(seconds)

    @property
    def known(self) -> Known:
        """What the wait knows of its instance so far."""
        return Known(self.instance_id, self._story.retried, self._story.definition)

    def begin(self, now: float) -> Step:
        """The first step."""
        self._begun = self._good_at = now
        return Step(self._read(now))

    def go_on(self, seen: Seen, stages: Sequence[Mapping[str, Any]] | None, now: float) -> Step:
        """Instead of the first read: what the start of the run has just read. ``stages``: of its workflow, if known."""
        if any("delay" in stage for stage in stages or ()):
            self._interval *= GROWTH  # it takes a second at least, so the look that was had counts as the first
        return self.feed(seen, now)

    def feed(self, seen: Observation, now: float) -> Step:
        """What an observation leads to. ``now``: epoch seconds."""
        if isinstance(seen, Seen):
            return self._on_instance(seen, now)
        if isinstance(seen, ReadFailed):
            return Step(self._on_failure(seen.error, now))
        if isinstance(seen, Paused | Absent):
            return Step(self._rested(now))
        if isinstance(seen, Hinted):
            return Step(self._on_hint(now))
        if isinstance(seen, DefinitionRead):
            return self._on_definition(seen.stages, now)
        if isinstance(seen, HistoryRead):
            return self._on_history(seen, now)
        if isinstance(seen, StageRead):
            return self._on_stage(seen, now)
        if isinstance(seen, PassTried):
            return self._on_try(seen, now)
        return self._on_no_detail(seen.error, now)

    def detail_by(self, now: float) -> float | None:
        """Epoch seconds by which a read that only informs must be over."""
        limit = self.last_detail if self._last_look else self.deadline
        return now + DETAIL_SECONDS if limit is None else min(limit, now + DETAIL_SECONDS)

    @property
    def last_detail(self) -> float | None:
        """Epoch seconds by which the last read is over that only informs; None for no limit."""
        return None if self.deadline is None else max(self.deadline, self._begun) + LAST_DETAIL

    @property
    def over(self) -> float | None:
        """Epoch seconds by which all is over. A wait that begins after its deadline still gets its last look."""
        return None if self.deadline is None else max(self.deadline, self._begun) + LAST_LOOK

    # Observations

    def _on_instance(self, seen: Seen, now: float) -> Step:
        instance = self.instance = seen.instance
        self._on_success(now)
        # Only a wait that knows the checkpoints may share a poll, so a long one asks for them, and asks again.
        early = self.passes and (self._asked_definition or self.is_settled)
        first = self.detail and not self._asked_definition
        if first or self._checkpoints.wants_definition(instance, now, early=early):
            self._asked_definition = True
            self._checkpoints.asked(now)
            self._kept = seen
            return Step(ReadDefinition(instance.workflow_id))
        events = self._story.on_instance(instance)
        state = instance.state
        if state != "running":
            return Step(End(state, instance, instance.failure or ""), events)
        if self._last_look:
            return Step(self._timeout(), events)
        if self._checkpoints.follow(instance, now):
            self._interval = FIRST_PAUSE
        stands, number = self._checkpoints.standing(now)
        if stands:
            due = self._checkpoints.is_due(now)
            return Step(TryToPass(number) if due else self._look_in(self._checkpoints.look_in(now), now), events)
        if not instance.status and is_old(instance, seen.server_time, now - self._begun):
            return Step(ReadHistory(), events)
        wanted = self._story.wanted(instance, now) if self.detail else None
        if wanted is not None:
            return Step(wanted, events)
        return Step(self._later(now), events)

    def _on_failure(self, error: OrchestrationError, now: float) -> Next:
        if isinstance(error, AuthenticationError | ValidationError):
            return End("error", self.instance, error=error)
        if isinstance(error, NotFoundError):
            grace_over = now - self._begun >= self.row_grace
            # Without an error code it was a gateway that answered, and nothing is known of a row that was seen.
            gone = self.instance is not None and is_denial(error)
            if gone or (self.instance is None and grace_over and not is_gateways_404(error)):
                return End("error", self.instance, error=error)
        self._last_error = error
        self._failures += 1
        if self._last_look:
            return self._timeout()
        pause = min(error.retry_after or 0.0, LONGEST_RETRY_AFTER)
        if isinstance(error, NotFoundError) and self.instance is None and not is_gateways_404(error):
            return self._later(now, pause)  # its row may be late
        self.outage.failed(self.instance_id, error, now, read_budget=self.read_budget, deadline=self.deadline)
        if self._failures > FAILURES and now - self._good_at > self.read_budget:
            return End("unknown", self.instance, summary(error), error)
        return self._later(now, pause)

    def _on_success(self, now: float) -> None:
        self.outage.good(self.instance_id, now)
        self._failures, self._good_at, self._last_error = 0, now, None

    def _on_definition(self, stages: Sequence[Mapping[str, Any]], now: float) -> Step:
        self._story.learn_definition(stages)
        self._checkpoints.learn(stages)
        return self._resume(now)

    def _resume(self, now: float) -> Step:
        """Go on with what was seen before the definition was asked for."""
        held, self._kept = self._kept, None
        return self._on_instance(held, now) if held is not None else Step(self._later(now))

    def _on_history(self, read: HistoryRead, now: float) -> Step:
        self._asked_engine = 0
        events = self._story.on_history(read.stages)
        wanted = self._story.wanted(self.instance, now) if self.detail and self.instance is not None else None
        return Step(wanted if isinstance(wanted, ReadStage) else self._later(now), events)

    def _on_stage(self, read: StageRead, now: float) -> Step:
        failed, events = self._story.on_activities(read)
        if self.fail_after_attempts is not None and failed >= self.fail_after_attempts:
            return Step(End("attempts", self.instance, self._story.last_failure), events)
        return Step(self._later(now), events)

    def _on_no_detail(self, error: OrchestrationError, now: float) -> Step:
        if self._kept is not None:
            self._checkpoints.unread(hidden=is_denial(error))
            return self._resume(now)
        instance = self.instance
        if instance is not None and not instance.status and is_denial(error):
            self._asked_engine += 1
            if self._asked_engine >= 2:
                return Step(End("never_started", instance, summary(error)))
        return Step(self._later(now))

    def _on_try(self, tried: PassTried, now: float) -> Step:
        events = () if tried.standing is None else self._story.on_listening(tried.standing.stage, tried.standing.event)
        following = self._checkpoints.tried(tried, now)
        if isinstance(following, Over):
            return Step(End("held" if following.held else "unsure", self.instance, following.why), events)
        return Step(self._look_in(following.seconds, now), events)

    # Decisions

    def _read(self, now: float) -> Next:
        self._looked_at = now
        if self.deadline is not None and now >= self.deadline:
            self._last_look = True
            return Read(self.over, last=True)
        return Read(self.deadline)

    def _rested(self, now: float) -> Next:
        """Where it slept longer than it wanted, since others looked for it, its looks have slowed down to that."""
        slept = now - self._looked_at
        if slept > GROWTH * self._interval and not self.hurries:
            self._interval = max(min(slept, self.poll_interval), self._interval)
        return self._read(now)

    def _on_hint(self, now: float) -> Next:
        if self._before_hint is None:
            self._before_hint = self._interval
        self._interval = FIRST_PAUSE
        since = now - self._looked_at
        return self._read(now) if since >= FIRST_PAUSE else self._look_in(FIRST_PAUSE - since, now)

    def _later(self, now: float, at_least: float = 0.0) -> Next:
        longest = min(self.poll_interval, NEAR_INTERVAL) if self._checkpoints.near(now) else self.poll_interval
        interval = max(min(self._interval, longest), at_least)
        self._interval = min(self._interval * GROWTH, longest)
        if self._before_hint is not None and self._interval >= min(HURRY_UP_TO, longest):
            self._interval, self._before_hint = self._before_hint, None
        return self._look_in(interval, now)

    def _look_in(self, seconds: float, now: float) -> Next:
        if self.deadline is not None and now >= self.deadline:
            return self._read(now)
        at = now + seconds
        return LookAt(at if self.deadline is None else min(at, self.deadline))

    def _timeout(self) -> End:
        error = self._last_error
        why = self._checkpoints.trouble or self._story.last_failure
        return End("timeout", self.instance, summary(error) if error is not None else why, error, self.limit)


class Attended:
    """A wait that is performed: its reducer, and whatever else that needs."""

    def __init__(
        self,
        waiting: Waiting,
        versions: Versions,
        now: Now,
        times: Times,
        on_stage: object = None,
        guard: Guard | None = None,
        on_outage: object = None,
    ) -> None:
        self._on_outage = on_outage if callable(on_outage) else versions.remembered.outages.tell
        self._waiting = waiting
        self._versions = versions
        self._now = now
        self._times = times
        self._listener = on_stage if callable(on_stage) else None
        self._guard = guard

    def wake(self, woken: Woken) -> Step:
        """What waking leads to."""
        if woken.listed_at is not None:
            self._waiting.was_listed(self._times.epoch(woken.listed_at))
        return self._waiting.feed(woken.seen, self._times.at())

    def go_on(self, step: Step) -> Procedure[LookAt | End]:
        """Perform steps until time has to pass, or the wait is over."""
        waiting = self._waiting
        while True:
            news = waiting.outage.take()
            if news is not None:
                yield from tell(self._on_outage, news)
            for event in step.tell:
                yield from tell(self._listener, event)
            following = step.next
            if isinstance(following, LookAt | End):
                return following
            try:
                seen = yield from self._observed(following)
            except OrchestrationError as error:
                if isinstance(following, TryToPass):
                    raise  # of the guard
                seen = ReadFailed(error) if isinstance(following, Read) else DetailFailed(error)
            step = waiting.feed(seen, self._times.at())

    def _observed(self, following: Next) -> Procedure[Observation]:
        waiting, plain, times = self._waiting, self._versions.plain, self._times
        if isinstance(following, TryToPass) and waiting.instance is not None:
            by = times.until(waiting.deadline)
            return (
                yield from try_to_pass(waiting.instance, following.number, self._guard, self._versions, self._now, by)
            )
        if isinstance(following, Read):
            instance = yield from do(get_instance(waiting.instance_id, plain), times.until(following.by))
            return Seen(instance, self._now.server_time())
        by = times.until(waiting.detail_by(times.at()))
        if isinstance(following, ReadDefinition):
            return DefinitionRead((yield from definition_of(following.workflow_id, self._versions, by)))
        if isinstance(following, ReadStage):
            call = get_stage_history(waiting.instance_id, following.stage, plain, strict=True)
            return StageRead(following.stage, (yield from do(call, by)))
        return HistoryRead((yield from do(get_instance_history(waiting.instance_id, plain, strict=True), by)))

    def result(self, end: End) -> Procedure[RunResult]:
        """What the end comes to.

        Raises:
            InstanceFailedError, InstanceCancelledError, InstanceStuckError, WaitTimeoutError, StateUnknownError,
                NotFoundError, AuthenticationError.
        """
        waiting = self._waiting
        latest = self._times.until(waiting.last_detail)
        return (yield from conclude(end, waiting.known, self._versions, self._now, latest))


def wait(
    waiting: Waiting,
    versions: Versions,
    now: Now,
    on_stage: object = None,
    guard: Guard | None = None,
    nap: Nap = plain_nap,
    on_outage: object = None,
) -> Procedure[RunResult]:
    """Perform a wait.

    Args:
        on_outage: called with OutageNews when reads begin to fail and when they work again; None: the log is told.
        on_stage: called with each StageEvent, or None.
        guard: asked before a checkpoint is passed; None: nobody may let the instance pass one.
        nap: how time passes between two looks.

    Raises:
        InstanceFailedError, InstanceCancelledError, InstanceStuckError, WaitTimeoutError,
        StateUnknownError, NotFoundError, AuthenticationError; OwnerGoneError of the guard.
    """
    times = Times(now)
    attended = Attended(waiting, versions, now, times, on_stage, guard, on_outage)
    step = waiting.begin(times.at())
    if isinstance(step.next, Read) and not step.next.last:
        # What the start saw a moment ago need not be looked at again: the first pause of the wait begins there.
        looked = versions.remembered.last_look(waiting.instance_id, now.monotonic())
        if looked is not None:
            known = versions.remembered.definition(looked.workflow_id)
            step = waiting.go_on(Seen(looked, now.server_time()), known, times.at())
    while True:
        following = yield from attended.go_on(step)
        if isinstance(following, End):
            return (yield from attended.result(following))
        step = attended.wake((yield from nap(waiting, times.at(), following.at)))

"""What the server shows of a key, in the words of the table."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..api.calls import get_instance, get_instance_history
from ..api.definitions import strings_of
from ..api.errors import (
    AuthenticationError,
    NotFoundError,
    OrchestrationError,
    ValidationError,
    is_denial,
    is_inconclusive,
    retold,
    summary,
)
from ..api.models import Instance, StageRun, Workflow
from ..procedures.checkpoints import Standing, standing_at
from ..procedures.content import Content, differs_from_gate
from ..procedures.effects import Backoff, Now, Procedure, do, insist, pause
from ..procedures.gated_start import FoundRun, GatedStart, Look, shows_release
from ..procedures.ghosts import is_old, unknown_to_engine
from ..procedures.listing import Versions
from ..procedures.moved import Reading, read_moved
from ..procedures.start import Starting
from ..procedures.ungated_start import UngatedStart
from .marks import Marks
from .record import RunRecord
from .resolve import Shows

_ENDS = {
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
    "never_started": "never started",
}
HISTORY_SECONDS = 5.0
"""Seconds for finding out whether a cancelled run had begun anything."""


def unread_text(record: RunRecord, trouble: str) -> str:
    """What an attempt says of the run on record when it could not read the server: no more than is on record of it."""
    name = f"instance {record.instance_id} of key {record.key}"
    nothing = f"this attempt could not read the server ({trouble})"
    if record.end is not None:
        return f"{name} is on record as {end_named(record)}; {nothing}"
    return f"{name} is on record of an earlier attempt and may still run; {nothing}"


def is_refusal(error: BaseException) -> bool:
    """Whether the server refused the caller or the request (401, 403, 400): it says nothing of what was asked about."""
    if isinstance(error, ValidationError):
        return error.status_code is not None  # else nothing was sent
    return isinstance(error, AuthenticationError)


def unread_refused(record: RunRecord, error: OrchestrationError) -> OrchestrationError:
    """The error of a read of the run on record that the server refuses. It is there, however it ended: a refusal says
    no more of it than an outage does."""
    refused = retold(error, unread_text(record, str(error)))
    refused.run_may_exist = True
    return refused


def end_named(record: RunRecord) -> str:
    """How the run on record ended, in words; empty where no end is on record."""
    return "" if record.end is None else _ENDS.get(record.end, record.end)


class Seen(msgspec.Struct):
    """What the server showed, for the table and for what follows from it."""

    shows: Shows
    instance: Instance | None = None
    found: list[FoundRun] = msgspec.field(default_factory=list)
    candidates: list[str] = msgspec.field(default_factory=list)
    error: OrchestrationError | None = None
    history: Sequence[StageRun] = ()
    standing: Standing | None = None
    gate_unread: OrchestrationError | None = None

    @property
    def told(self) -> str:
        """What a word of the user can be about: it is about no more than was shown, so more makes it another text."""
        if self.shows in ("unasked", "nothing", "unknown id"):
            return ""
        return "\0".join([self.shows, *sorted(run.instance.id for run in self.found), *sorted(self.candidates)])


class Observer:
    """Looks at the server for one start.

    Args:
        starting, gated_start, ungated_start: the steps of the start.
        workflow: what is to run; None where the server hides it.
        content: what is asked for.
        key_variable: carries the key.
    """

    def __init__(
        self,
        starting: Starting,
        gated_start: GatedStart,
        ungated_start: UngatedStart,
        workflow: Workflow | None,
        content: Content,
        key_variable: str,
        versions: Versions,
        now: Now,
    ) -> None:
        self._starting = starting
        self._gated_start = gated_start
        self._ungated_start = ungated_start
        self._workflow = workflow
        self._content = content
        self._key_variable = key_variable
        self._versions = versions
        self._now = now

    @property
    def provable(self) -> bool:
        """Whether a stage carries the key as a whole string, so that its history proves whose run it is."""
        return bool(self._places())

    def _places(self) -> set[tuple[int, str]]:
        """Where the key stands as a whole string: (number of the stage, path in its input)."""
        stages = self._workflow.stages if self._workflow is not None else ()
        return {
            (number, path)
            for number, stage in enumerate(stages)
            for path, text in strings_of(next(iter(stage.values()), None))
            if text == f"${{{self._key_variable}}}"
        }

    def look(self, number: int | None, *, proven: bool, at_once: bool) -> Procedure[Seen]:
        """Rows 3 to 7: runs of the key.

        Args:
            number: of the round; None for the highest that there is.
            proven: no earlier attempt can have chosen a run that stands unreleased.
            at_once: what an earlier attempt released would show by now.
        """
        if self._workflow is not None and not self._workflow.id:
            return Seen("nothing")  # it is on no server yet, so it has no runs
        if at_once:
            look = (yield from self._gated_start.look()).of_round(number)
        else:
            look = yield from self._gated_start.patient_look(lambda look: look.of_round(number), enough=2)
        return self._seen_in(look, proven)

    def _seen_in(self, look: Look, proven: bool) -> Seen:
        if len(look.released) == 1:
            return Seen("one released", found=look.released)
        if look.released:
            return Seen("several", found=look.released)
        if not look.waiting:
            return Seen("nothing")
        if look.before:
            return Seen("waits after another", found=[*look.before, *look.waiting])
        same = [run for run in look.waiting if not differs_from_gate(run.gate, self._content)]
        if len(same) < len(look.waiting) and not (proven and same):
            return Seen("other waits", found=[run for run in look.waiting if run not in same])
        return Seen("one waits" if len(same) == 1 else "many wait", found=same)

    def prove(self, *, once: bool = False) -> Procedure[Seen]:
        """Rows 2 and 8: proof that a run of the key exists, looked for until time is over, or ``once``."""
        starting = self._starting
        backoff = Backoff(self._now, first=0.2)
        nothing: Seen | None = None
        while True:
            try:
                proven, candidates = yield from self._ungated_start.proofs(self._places())
            except OrchestrationError:
                if nothing is None or starting.left() > 0:
                    raise
                return nothing  # the time was over amid this look; the one before was whole
            if len(proven) > 1:
                return Seen("several", candidates=[proof.instance.id for proof in proven])
            if proven:
                return Seen("proof", instance=proven[0].instance, history=proven[0].history)
            wait = backoff.seconds()
            nothing = Seen("nothing", candidates=candidates, error=self._ungated_start.unread)
            if self._now.monotonic() + wait >= starting.until or once or not self.provable:
                return nothing
            yield from pause(wait)

    def read_chosen(self, record: RunRecord, chosen: str, token: bool, gated: bool) -> Procedure[Seen]:
        """Row 9 to 20: what the server shows of the instance on record, which waited at a gate or not."""
        call = get_instance(chosen, self._versions.plain)
        backoff = Backoff(self._now)
        began = self._now.monotonic()
        asked_engine = 0
        while True:
            trouble: OrchestrationError
            try:
                instance = yield from do(call, self._starting.until)
                self._versions.remembered.note_look(instance, self._now.monotonic())
            except OrchestrationError as error:
                if is_denial(error) and (record.seen or token):
                    return Seen("unknown id", error=error)
                if not (is_inconclusive(error) or isinstance(error, NotFoundError)):
                    raise unread_refused(record, error) from error
                trouble = error
                wait = backoff.seconds(error)
            else:
                if instance.terminated:
                    return (yield from self._read_end(instance, gated))
                if not instance.status and is_old(instance, self._now.server_time(), self._now.monotonic() - began):
                    asked_engine += yield from unknown_to_engine(instance.id, self._versions, self._starting.until)
                    if asked_engine >= 2:
                        return Seen("ghost", instance=instance)
                    if asked_engine > 0:
                        yield from pause(backoff.seconds())
                        continue
                return Seen("runs", instance=instance)
            if self._now.monotonic() + wait >= self._starting.until:
                raise self._starting.unread(unread_text(record, summary(trouble)), trouble, instance_id=chosen)
            yield from pause(wait)

    def read_standing(self, seen: Seen, record: RunRecord, marks: Marks | None) -> Procedure[None]:
        """Whether a run that goes on, and of which a stop was asked for, stands at a checkpoint for good."""
        if seen.shows != "runs" or seen.instance is None:
            return
        try:
            standing = yield from standing_at(seen.instance, self._versions, self._starting.until)
        except OrchestrationError:
            return  # the wait that follows looks again
        if standing is None:
            return
        number = standing.number
        announced = number in record.passing if marks is None else (yield from marks.announced(number))
        if not announced:
            seen.shows, seen.standing = "at checkpoint", standing

    def read_gate(self, chosen: str, seen: Seen) -> Procedure[bool]:
        """Read what a run stands for from its own gate. False where the engine does not show it in five seconds;
        ``seen.gate_unread`` then says why it could not be read."""
        if seen.instance is None:
            return False
        give_up = min(self._starting.until, self._now.monotonic() + HISTORY_SECONDS)
        backoff = Backoff(self._now)
        while True:
            gate, seen.gate_unread = yield from self._gated_start.read_gate(chosen)
            if gate is not None:
                seen.found = [FoundRun(seen.instance, gate)]
                return True
            wait = backoff.seconds()
            if self._now.monotonic() + wait >= give_up:
                return False
            yield from pause(wait)

    def _read_end(self, instance: Instance, gated: bool) -> Procedure[Seen]:
        if instance.state == "succeeded":
            return Seen("ended well", instance=instance)
        released = not gated or shows_release(instance)
        if released and instance.state == "failed":
            return Seen("ended badly", instance=instance)
        unmoved = yield from self._nothing_launched(instance, behind=0 if gated else -1)
        if not released and unmoved:
            return Seen("ended before release", instance=instance)
        if instance.state != "cancelled":
            return Seen("ended badly", instance=instance)
        if unmoved:
            return Seen("cancelled unmoved", instance=instance)
        reading = yield from self._read_all(instance)
        unread = None if reading.in_flight else reading.unread
        shows: Shows = "cancelled moved" if reading.moved.complete else "cancelled amid payment"
        return Seen(shows, instance=instance, error=unread)

    def _read_all(self, instance: Instance) -> Procedure[Reading]:
        """The histories of a cancelled run: whether they could be read, and show no payment that was under way."""
        until = self._now.monotonic() + HISTORY_SECONDS
        backoff = Backoff(self._now)
        before: Reading | None = None
        while True:
            reading = yield from read_moved(instance, self._versions, self._now, until)
            wait = backoff.seconds()
            if reading.moved.complete or reading.in_flight:
                return reading
            if self._now.monotonic() + wait >= until:
                # One that the end of its time has cut off says less than the one before it.
                cut = reading.unread is not None and self._now.monotonic() >= until
                return before if cut and before is not None else reading
            yield from pause(wait)
            before = reading

    def _nothing_launched(self, instance: Instance, behind: int) -> Procedure[bool]:
        """Whether no stage after ``behind`` had begun: neither a row nor the engine shows one, and both were read."""
        if any(row.stage > behind for row in instance.status):
            return False
        until = self._now.monotonic() + HISTORY_SECONDS
        try:
            history = yield from insist(
                get_instance_history(instance.id, self._versions.plain, strict=True), self._now, until
            )
        except OrchestrationError:
            return False
        return len(history) <= behind + 1

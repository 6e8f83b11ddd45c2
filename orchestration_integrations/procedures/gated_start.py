"""The steps of a start whose workflow has a gate: look for runs of the key, and release the one that is chosen."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Literal

import msgspec

from ..api.calls import abort_instance, get_instance, get_instance_history, send_event
from ..api.errors import (
    AuthenticationError,
    NotFoundError,
    OrchestrationError,
    ValidationError,
    is_gateways_404,
    is_inconclusive,
    summary,
)
from ..api.models import Instance, StageRun
from .effects import Backoff, Procedure, do, insist, pause
from .gate import GateText, opening_event, parsed_event
from .ghosts import is_old, unknown_to_engine
from .limits import OWNER_ANSWER_SECONDS
from .start import Starting

logger = logging.getLogger("orchestration_integrations.procedures")

LOOK_SECONDS = 2.0
"""Seconds for which a lost run is looked for before a gated submit is repeated."""
FIRST_STAGE_SECONDS = 0.03
"""Seconds after the answer to a submit before the first look: a real server begins the first stage after some 20 ms."""
CHANGE_SECONDS = 0.06
"""The first pause between a release and the look that confirms it: a change of stages takes some 40 ms."""
RELEASE_SHOWS_SECONDS = 5.0
"""Seconds that an earlier attempt's release gets to show, where several candidates stand."""


class FoundRun(msgspec.Struct, frozen=True):
    """A run of the key, as the server shows it."""

    instance: Instance
    gate: GateText


class Look(msgspec.Struct):
    """What a look found of the key: released runs, and unreleased ones that wait; the oldest first.

    Attributes:
        before: released runs of earlier rounds; known where the highest round was looked for.
    """

    released: list[FoundRun] = msgspec.field(default_factory=list)
    waiting: list[FoundRun] = msgspec.field(default_factory=list)
    before: list[FoundRun] = msgspec.field(default_factory=list)

    def of_round(self, number: int | None) -> Look:
        """Only the runs of one round; the highest that there is, for None."""
        highest = max((run.gate.round for run in (*self.released, *self.waiting)), default=0)
        wanted = highest if number is None else number
        return Look(
            released=[run for run in self.released if run.gate.round == wanted],
            waiting=[run for run in self.waiting if run.gate.round == wanted],
            before=[run for run in self.released if number is None and run.gate.round < wanted],
        )

    def without(self, instance_id: str | None) -> Look:
        """All runs but one."""
        return Look(
            released=[run for run in self.released if run.instance.id != instance_id],
            waiting=[run for run in self.waiting if run.instance.id != instance_id],
        )

    def with_text(self, text: str) -> Look:
        """Only the runs whose gate says this."""
        return Look(
            released=[run for run in self.released if run.gate.text == text],
            waiting=[run for run in self.waiting if run.gate.text == text],
        )


class Released(msgspec.Struct, frozen=True):
    """How a release ended: ``released``, ``ended`` (before it could be released), ``ghost`` (no run stands behind the
    row). ``instance``: as last read."""

    how: Literal["released", "ended", "ghost"]
    instance: Instance


class GatedStart:
    """The steps of one start that only a gate makes possible.

    Args:
        starting: what the steps share.
    """

    def __init__(self, starting: Starting) -> None:
        self._starting = starting
        self._now = starting.now
        self._version = starting.versions.plain

    # Looking for runs of the key

    def look(self) -> Procedure[Look]:
        """All runs of this key that the server shows, at one history call per candidate.

        Raises:
            OrchestrationError: the list, or a row that may be of this key, could not be read: see ``Starting.unread``.
        """
        look = Look()
        for row in (yield from self._starting.candidates()):
            history = yield from self._history_of(row)
            if not history:
                continue  # a ghost or a run that has not begun: it cannot have been released
            first = history[0]
            gate = parsed_event(first.input.get("event")) if first.name == "RunWaitEvent" else None
            if gate is None or not self._starting.is_mine(gate.key):
                self._starting.foreign.add(row.id)
                continue
            self._starting.rounds.add(gate.round)
            if first.terminated and first.error is None:
                look.released.append(FoundRun(row, gate))
            elif first.terminated or row.terminated:
                self._starting.foreign.add(row.id)  # aborted before its release: it counts as none
            else:
                look.waiting.append(FoundRun(row, gate))
        look.released.sort(key=_age)
        look.waiting.sort(key=_age)
        return look

    def patient_look(self, picked: Callable[[Look], Look], enough: int) -> Procedure[Look]:
        """A look; where unreleased runs stand there that an earlier attempt may have chosen, its release gets time to
        show.

        Args:
            picked: what of a look matters.
            enough: unreleased runs, with those released before, from which on the release gets time.
        """
        show_until = self._now.monotonic() + RELEASE_SHOWS_SECONDS
        backoff = Backoff(self._now, first=0.2)
        while True:
            look = picked((yield from self.look()))
            wait = backoff.seconds()
            over = self._now.monotonic() + wait >= min(show_until, self._starting.until)
            if look.released or len(look.waiting) + len(look.before) < enough or over:
                return look
            yield from pause(wait)

    def look_for_lost(self, gate: str, lost: OrchestrationError) -> Procedure[Look]:
        """After a lost answer: look for runs with this gate for a while, then let the caller submit again, which is
        harmless here.

        Raises:
            OrchestrationError: time is over: see ``Starting.unread``.
        """
        look_until = min(self._starting.until, self._now.monotonic() + LOOK_SECONDS)
        backoff = Backoff(self._now, first=0.2)
        while True:
            look = (yield from self.look()).with_text(gate)
            if look.released or look.waiting:
                return look
            wait = backoff.seconds(lost)
            if self._now.monotonic() + wait >= self._starting.until:
                why = f"its submit got no answer ({summary(lost)}) and no list shows it yet"
                raise self._starting.unread(why, lost)
            if self._now.monotonic() >= look_until:
                return look
            yield from pause(wait)

    def _history_of(self, row: Instance) -> Procedure[Sequence[StageRun]]:
        """The history of a candidate; empty where no stage of it has begun.

        Raises:
            OrchestrationError: stages have begun, and their history cannot be read: it may be of this key. See
                ``Starting.unread``.
        """
        history, unreadable = yield from self._read_history(row)
        if history:
            return history
        try:
            instance = yield from insist(get_instance(row.id, self._version), self._now, self._starting.until)
        except OrchestrationError as error:
            # Also where it is "not found": the list has it, and nothing deletes instances.
            why = f"instance {row.id} could not be read ({summary(error)})"
            raise self._starting.unread(why, error, (row.id,)) from error
        if not instance.status and not (unreadable is not None and instance.terminated):
            return ()  # of an ended run, the server can have lost the rows
        if unreadable is None and not shows_release(instance):
            return ()  # its first stage is not launched yet, or failed before its work
        history, unreadable = yield from self._read_history(row)  # its stages may have begun between the two reads
        if history:
            return history
        why = f"the history of instance {row.id} cannot be read"
        raise self._starting.unread(f"{why} ({summary(unreadable)})" if unreadable else why, unreadable, (row.id,))

    def _read_history(self, row: Instance) -> Procedure[tuple[Sequence[StageRun], OrchestrationError | None]]:
        """The history of a candidate, or why it cannot be read."""
        call = get_instance_history(row.id, self._version, strict=True)
        try:
            return (yield from insist(call, self._now, self._starting.until)), None
        except OrchestrationError as error:
            return (), error

    # Releasing

    def release(
        self, chosen: str, gate: str | None, others: Sequence[str] = (), *, submitted_at: float | None = None
    ) -> Procedure[Released]:
        """Send the gate's event until the gate of the chosen run is seen to be behind it.

        Nothing else waits for that event, so repeating it releases nothing else, and takes an earlier one out of the
        stage's queue. The owner is asked before each time it is sent.

        Args:
            chosen: the instance.
            gate: the text of its gate, as it was recorded or seen; None: it is read from the run itself.
            others: lost submits of this attempt, aborted afterwards where they still wait.
            submitted_at: when the answer to its submit came, in monotonic seconds; None: some time ago.

        Raises:
            StateUnknownError, AuthenticationError: it is not confirmed; the run may be released all the same. An
                attempt with the same key goes on with it.
            AmbiguousRunError: the same, where no such attempt comes, or where the server does not know the instance.
        """
        read = get_instance(chosen, self._version)
        remembered = self._starting.versions.remembered
        backoff = Backoff(self._now, first=0.03, longest=2.0)
        if submitted_at is not None:  # a look before its first stage has begun would be for nothing
            yield from pause(submitted_at + FIRST_STAGE_SECONDS - self._now.monotonic())
        trouble = "its row did not appear"
        missing: OrchestrationError | None = None
        send_at = 0.0
        resend = Backoff(self._now, first=0.3, longest=5.0)
        asked_engine = 0
        sent_once = False
        begun = self._now.monotonic()
        while True:
            wait, missing = backoff.seconds(), None
            try:
                looked = remembered.last_look(chosen, self._now.monotonic())  # that this start has had already
                instance = looked if looked is not None else (yield from do(read, self._starting.until))
                read_at = self._now.monotonic()
            except NotFoundError as error:
                missing = None if is_gateways_404(error) else error
                trouble = summary(error) if missing is None else f"the server does not know it ({summary(error)})"
            except OrchestrationError as error:
                if not is_inconclusive(error):
                    why = (
                        f"instance {chosen} was chosen, and then it could not be read ({error}); {self._advice(chosen)}"
                    )
                    raise self._starting.unread(why, error, instance_id=chosen) from error
                trouble, wait = summary(error), max(wait, error.retry_after or 0.0)
            else:
                if shows_release(instance):
                    if not sent_once and gate is not None:
                        yield from self._check_whose(chosen, gate)
                    yield from self._abort_others(others, gate)
                    remembered.note_look(instance, read_at)
                    return Released("released", instance)
                if instance.terminated:
                    return Released("ended", instance)
                if not instance.status:
                    trouble = "the server shows no stage of it"
                    if is_old(instance, self._now.server_time(), self._now.monotonic() - begun):
                        asked_engine += yield from unknown_to_engine(
                            chosen, self._starting.versions, self._starting.until
                        )
                        if asked_engine >= 2:
                            return Released("ghost", instance)
                else:
                    trouble = "its gate is still closed"
                    if gate is None:
                        known = yield from self.gate_of(chosen)
                        gate = known.text if known is not None else None
                    if gate is not None and self._now.monotonic() >= send_at:
                        sent_once = True
                        sent, said, after = yield from self._open(chosen, gate)
                        trouble = said or trouble
                        if sent:
                            backoff = Backoff(self._now, first=CHANGE_SECONDS, longest=2.0)
                            wait = backoff.seconds()
                        if after is not None:
                            send_at = self._now.monotonic() + max(resend.seconds(), after)
            if self._now.monotonic() + wait >= self._starting.until:
                raise self._unconfirmed(chosen, trouble, missing, others)
            yield from pause(wait)

    def _unconfirmed(
        self, chosen: str, trouble: str, missing: OrchestrationError | None, others: Sequence[str]
    ) -> OrchestrationError:
        why = f"instance {chosen} was chosen, and its release is not confirmed: {trouble}"
        if missing is None and self._starting.comes_again:
            return self._starting.unread(f"{why}; it may run", None, instance_id=chosen)
        return self._starting.ambiguous(f"{why}; {self._advice(chosen)}", (chosen, *others), missing)

    def _advice(self, chosen: str) -> str:
        again = self._starting.token() or self._starting.comes_again
        return "call again with the same key" if again else f"go on with chosen={chosen!r}"

    def _check_whose(self, chosen: str, gate: str) -> Procedure[None]:
        """A run that is released before this attempt has sent anything may be another's: its gate says whose it is.

        Raises:
            AmbiguousRunError: its gate has another text.
        """
        try:
            known = yield from self.gate_of(chosen)
        except ValidationError as error:
            raise self._starting.ambiguous(str(error), (), error) from error
        if known is not None and known.text != gate:
            why = f"the server named instance {chosen} for it, which is another run ({known.text})"
            raise self._starting.ambiguous(why, ())

    def _open(self, chosen: str, gate: str) -> Procedure[tuple[bool, str, float | None]]:
        """Send the event once, if the owner allows it.

        Returns:
            (whether it was taken, what went wrong, seconds before it may be sent again; None: at once).
        """
        yield from self._starting.permit(chosen)
        allowed = min(self._starting.until, self._now.monotonic() + OWNER_ANSWER_SECONDS)
        try:
            yield from do(send_event(chosen, opening_event(gate), self._version), allowed)
        except NotFoundError as error:
            return False, summary(error), None  # the stage is not launched yet, which takes milliseconds
        except AuthenticationError as error:
            why = f"instance {chosen} was chosen, and may not be released ({error}); {self._advice(chosen)}"
            raise self._starting.unread(why, error, instance_id=chosen) from error
        except OrchestrationError as error:
            return False, summary(error), error.retry_after or 0.0
        return True, "", 0.0

    def gate_of(self, chosen: str) -> Procedure[GateText | None]:
        """What the gate of a run says, as the engine shows it; None while it shows none, or cannot be read.

        Raises:
            ValidationError: it waits at a gate of another key.
        """
        return (yield from self.read_gate(chosen))[0]

    def read_gate(self, chosen: str) -> Procedure[tuple[GateText | None, OrchestrationError | None]]:
        """As ``gate_of``, and why it could not be read."""
        try:
            history = yield from do(get_instance_history(chosen, self._version, strict=True), self._starting.until)
        except OrchestrationError as error:
            return None, error
        event = history[0].input.get("event") if history and history[0].name == "RunWaitEvent" else None
        gate = parsed_event(event)
        if gate is None:
            return None, None
        if not self._starting.is_mine(gate.key):
            raise ValidationError(
                f"chosen: instance {chosen} waits at the gate of key {gate.key}, not of {self._starting.key}",
                path="chosen",
            )
        return gate, None

    def _abort_others(self, others: Sequence[str], gate: str | None) -> Procedure[None]:
        """Lost submits of this attempt that still wait: best effort, they move nothing. No effect on generation 2."""
        for other in others:
            if self._starting.left() <= 0:
                return
            try:
                history = yield from do(get_instance_history(other, self._version, strict=True), self._starting.until)
                waits = bool(history) and not history[0].terminated
                if waits and gate is not None and history[0].input.get("event") == opening_event(gate):
                    yield from do(abort_instance(other, self._version), self._starting.until)
            except OrchestrationError as error:
                logger.info("unreleased instance %s was left waiting: %s", other, summary(error))


def shows_release(instance: Instance) -> bool:
    """Whether the rows of an instance say that its gate is behind it."""
    return any(
        row.stage > 0 or (row.stage == 0 and row.terminated_at is not None and row.error is None)
        for row in instance.status
    )


def _age(run: FoundRun) -> tuple[datetime, str]:
    return run.instance.created_at, run.instance.id

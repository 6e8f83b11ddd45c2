"""One payment, one owner: one attempt's work on one key, from its beginning to the telling of its end.

``begin`` finds or starts the run, ``run`` also waits for its end, ``conclude`` puts an end on record before the
caller is told, ``stop`` cancels the run if it still belongs to this attempt. Airflow, Prefect, ``start``,
``run_once`` and the command line all perform these; what differs between them is only where the record is kept, who
the owner is, and how an attempt is told from an earlier one.

A wait lets its run pass the checkpoints of the workflow. ``guard`` is what it asks first (see ``checkpoints``).

Three rules are easy to lose in here:

* what is saved comes before what it announces, and a save that fails stops the step that it would have announced;
  after the release it stops nothing, since a known success must not become a failure;
* the owner is asked before each release and each pass, and its word stands for ten seconds; the safety of "one run"
  does not rest on it, since the answer is always stale by one send, but on ``choose``, where the first choice stands;
* whoever finds that another attempt has the record releases nothing more *and cancels nothing*.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Literal

from ..api.errors import (
    AuthenticationError,
    InstanceCancelledError,
    InstanceFailedError,
    InstanceStuckError,
    KeyReusedError,
    NotFoundError,
    OrchestrationError,
    OwnerGoneError,
    OwnerUnreachableError,
    RecordConflictError,
    StateUnknownError,
    ValidationError,
    WaitTimeoutError,
    retold,
)
from ..api.models import CancelOutcome, Instance, RunResult
from ..procedures.cancel import cancel
from ..procedures.checkpoints import Guard, Permit
from ..procedures.effects import Backoff, Now, Procedure, ask, pause
from ..procedures.key_lock import KeyLock
from ..procedures.limits import CANCEL_SECONDS, OWNER_ANSWER_SECONDS
from ..procedures.listing import Versions
from ..procedures.verdicts import cancel_verdict, made_by_then, outcome_text
from .beginning import Beginning
from .begun import Did, begun_text
from .comparing import Comparing
from .keeping import Keeper
from .marks import Hold, MarkPlace, Marks, PlacedMarks, RecordMarks, announced_pass, holding_of
from .record import GOOD_END, Owner, OwnerAt, OwnerWord, RunRecord, RunStore
from .request import OwnedRequest

logger = logging.getLogger("orchestration_integrations.ownership")

OWNER_SECONDS = 30.0
"""Seconds for which an owner that cannot be asked is asked again before a release is given up."""
UNWANTED_SECONDS = 5.0
"""Seconds for cancelling a run that was found unwanted at its gate, where it moves nothing."""

Refused = AuthenticationError | NotFoundError | ValidationError
"""Its state may not be read any more, which says nothing of the run: it may still run."""
GivenUp = WaitTimeoutError | StateUnknownError | InstanceStuckError | Refused
_GIVEN_UP = (
    WaitTimeoutError, StateUnknownError, InstanceStuckError, AuthenticationError, NotFoundError, ValidationError,
)  # fmt: skip
GivesUp = Literal["cancel", "leave"]
WaitFor = Callable[[str, Guard], Procedure[RunResult]]
"""Waits for an instance, and asks the guard before it lets it pass a checkpoint."""


class OwnedRun:
    """One attempt's work on one key.

    Args:
        request: what the caller wants.
        server: base URL of the server.
        store: where the record is kept; None: nowhere.
        owner: asked whether this attempt still wants the run; None: it does.
        at_checkpoint: asked besides, with the user's number of the stage behind it, before a checkpoint is passed.
        mark_place: where the marks of the run are; None: where the store says, else in the record.
        on_chosen: told the instance's id before its release; what it raises keeps the run from being released.
        versions, now: of the hook that performs this.
    """

    def __init__(
        self,
        request: OwnedRequest,
        *,
        server: str,
        store: RunStore | None,
        owner: Owner | None,
        on_chosen: Callable[[str], object] | None,
        versions: Versions,
        now: Now,
        at_checkpoint: OwnerAt | None = None,
        mark_place: MarkPlace | None = None,
    ) -> None:
        self._at_checkpoint = at_checkpoint
        self._place: MarkPlace | None = mark_place if mark_place is not None else getattr(store, "mark_place", None)
        self._has_checkpoints: bool | None = None
        self._announced: list[int] = []
        self._told_unasked = False
        self.request = request
        self.keeper = Keeper(request, server, store, now)
        self._owner = owner
        self._versions = versions
        self._now = now
        self._key_lock = KeyLock(server, request.run_key)
        self._beginning = Beginning(self.keeper, self._permit, on_chosen, self._placed_marks, versions, now)

    @property
    def record(self) -> RunRecord | None:
        """As last saved or loaded; without a store, as it would be."""
        return self.keeper.record

    @property
    def instance_id(self) -> str | None:
        """The run, once one is chosen, or was submitted by this attempt without a gate: then it runs already."""
        return self.keeper.instance_id or self.keeper.submitted

    @property
    def did(self) -> Did | None:
        """What ``begin`` did to have the run; None before."""
        return self._beginning.did

    @property
    def unreleased(self) -> bool:
        """Whether this attempt has submitted the run, with a gate, and has sent nothing that could release it."""
        return self.keeper.at_gate is not None and self.keeper.at_gate == self.instance_id

    @property
    def superseded(self) -> bool:
        """Whether another attempt has the record now."""
        return self.keeper.superseded

    @property
    def has_checkpoints(self) -> bool | None:
        """Whether the run waits at checkpoints; None while that is not known."""
        return self._beginning.has_checkpoints if self._has_checkpoints is None else self._has_checkpoints

    @has_checkpoints.setter
    def has_checkpoints(self, known: bool | None) -> None:
        self._has_checkpoints = known

    def take_over(self, interrupted: OwnedRun) -> None:
        """Go on with what another hook's OwnedRun of the same attempt knew when it was interrupted."""
        self.keeper = interrupted.keeper
        self._announced, self._has_checkpoints = interrupted._announced, interrupted._has_checkpoints

    def close(self) -> None:
        """Let the next caller of this process have the key. May be called twice."""
        self._key_lock.release()

    def begin(self) -> Procedure[Instance]:
        """Find or start the run that the call means. Returns it; it may have ended already.

        Raises:
            KeyReusedError: the key stands for other content, or another caller of this attempt has it.
            StateUnknownError: the run on record could not be read; an attempt with the same key goes on with it.
            AmbiguousRunError: a run may exist, and nothing proves that it does or does not.
            OwnerGoneError, OwnerUnreachableError: nothing was released.
            RecordConflictError: another process has the key; nothing was released.
            UnreadableRecordError, WrongServerError, NotFoundError, ValidationError: nothing was started.
            InstanceStuckError: ``held``.
        """
        yield from self._take_key()
        try:
            instance = yield from self._beginning.run()
        finally:
            self._has_checkpoints = self._beginning.has_checkpoints
        key, word = self.request.run_key, self.did
        if word is not None:
            ids = {"workflow_id": instance.workflow_id, "instance_id": instance.id, "run_key": key}
            logger.info("run key %s: %s", key, begun_text(word, instance), extra=ids)
        return instance

    def load(self) -> Procedure[RunRecord | None]:
        """Only load the record, to go on with a run that an earlier process of this very attempt has begun."""
        return (yield from self.keeper.load(resumed=True))

    def _take_key(self) -> Procedure[None]:
        give_up = self._now.monotonic() + self.request.timeout
        backoff = Backoff(self._now, first=0.02, longest=0.5)
        while not self._key_lock.take():
            wait = backoff.seconds()
            if not self.request.wait_for_key or self._now.monotonic() + wait >= give_up:
                raise KeyReusedError(
                    f"run key {self.request.run_key} is being used by another call of this process; nothing was "
                    "started. Give each payment a key of its own",
                    run_key=self.request.run_key,
                    differs="caller",
                )
            yield from pause(wait)

    def _permit(self, instance_id: str | None) -> Procedure[None]:
        """Ask the owner before a release, for 30 s where it cannot be asked.

        Args:
            instance_id: the run that is to be released; None: a run without a gate is to be submitted.

        Raises:
            OwnerGoneError: it does not want the run, or another attempt has it.
            OwnerUnreachableError: it could not be asked for 30 s.
        """
        word: OwnerWord = "yes"
        if instance_id is not None and self.has_checkpoints:
            word = yield from self._word_of_marks()
        if word == "yes" and self._owner is not None:  # last, since its word grows old
            word = yield from self._owners_word(self._owner, instance_id)
        step = "start anything" if instance_id is None else f"release instance {instance_id}"
        yield from self._obey(word, instance_id, step)

    def _owners_word(self, owner: Owner, instance_id: str | None) -> Procedure[OwnerWord]:
        give_up = self._now.monotonic() + OWNER_SECONDS
        backoff = Backoff(self._now, first=0.3, longest=3.0)
        while True:
            answer = yield from ask(owner)
            if answer.error is None:
                word: OwnerWord = answer.value
                return word
            wait = backoff.seconds()
            if self._now.monotonic() + wait >= give_up:
                kept = "nothing was started" if instance_id is None else f"instance {instance_id} was not released"
                raise self._unreachable(answer.error, kept) from answer.error
            yield from pause(wait)

    def _word_of_marks(self) -> Procedure[OwnerWord]:
        """What the marks say before a release: a stop that is put up while the run is being started counts too."""
        give_up = self._now.monotonic() + OWNER_SECONDS
        backoff = Backoff(self._now, first=0.3, longest=3.0)
        while True:
            try:
                return "yes" if (yield from self._marks().held()) is None else "unwanted"
            except RecordConflictError:
                return "superseded"
            except Exception as error:
                wait = backoff.seconds()
                if self._now.monotonic() + wait >= give_up:
                    raise self._unreachable(error, f"instance {self.instance_id} was not released") from error
            yield from pause(wait)

    def _obey(self, word: OwnerWord, instance_id: str | None, step: str) -> Procedure[None]:
        """What the owner's word comes to. ``step``: what it keeps this attempt from.

        Raises:
            OwnerGoneError: unless the word is yes.
        """
        key = self.request.run_key
        if word == "yes":
            return
        if word == "superseded":
            self.keeper.superseded = True
            raise OwnerGoneError(
                f"another attempt has the run of key {key} now; this one did not {step}",
                run_key=key,
                instance_id=instance_id,
                superseded=True,
            )
        if instance_id is None:
            raise OwnerGoneError(f"the run of key {key} is no longer wanted; nothing was started", run_key=key)
        outcome, what, _ = yield from self._stopped(UNWANTED_SECONDS, "its waiter, which no longer wants it")
        raise OwnerGoneError(
            f"the run of key {key} is no longer wanted, so this attempt did not {step}; {what}",
            run_key=key,
            instance_id=instance_id,
            outcome=outcome,
        )

    def _unreachable(self, error: BaseException, kept: str) -> OwnerUnreachableError:
        key, what = self.request.run_key, type(error).__name__
        return OwnerUnreachableError(
            f"whether the run of key {key} is still wanted could not be found out ({what}); {kept}",
            run_key=key,
            instance_id=self.instance_id,
        )

    # Checkpoints

    def _marks(self) -> Marks:
        """The marks of the run that is chosen now."""
        return self._placed_marks() or RecordMarks(self.keeper)

    def _placed_marks(self) -> PlacedMarks | None:
        if self._place is None or self.instance_id is None:
            return None
        return PlacedMarks(self._place, self.instance_id, self._announced)

    def guard(self, number: int) -> Procedure[Permit]:
        """Ask before a checkpoint is passed: the owner, then look for a stop, announce the pass, look once more.

        Raises:
            OwnerGoneError: the run is not wanted, or another attempt has it; nothing is let pass.
            OwnerUnreachableError: that could not be found out, or the pass could not be announced.
        """
        self._has_checkpoints = True
        kept = f"instance {self.instance_id} was not let go on to stage {number}"
        step = f"let instance {self.instance_id} go on to stage {number}"
        if self.keeper.superseded:  # the record has told so, whatever the owner's word is
            yield from self._obey("superseded", self.instance_id, step)
        for owner, arguments in ((self._owner, ()), (self._at_checkpoint, (number,))):
            if owner is not None:
                answer = yield from ask(owner, *arguments)
                if answer.error is not None:
                    raise self._unasked(answer.error, kept) from answer.error
                yield from self._obey(answer.value, self.instance_id, step)
        try:
            return (yield from announced_pass(self._marks(), number))
        except RecordConflictError:
            yield from self._obey("superseded", self.instance_id, step)
        except Exception as error:
            raise self._unasked(error, kept) from error
        raise AssertionError("the owner's word superseded was obeyed")

    def _unasked(self, error: BaseException, kept: str) -> OwnerUnreachableError:
        """Why the run stands at a checkpoint; told at once, since it may stand there until somebody looks."""
        made = self._unreachable(error, kept)
        if not self._told_unasked:
            self._told_unasked = True
            logger.warning("%s; it is asked again", made)
        return made

    # Waiting and stopping

    def run(
        self,
        waiting: WaitFor,
        *,
        on_timeout: Literal["cancel", "leave"] = "cancel",
        cancel_seconds: float = CANCEL_SECONDS,
    ) -> Procedure[RunResult]:
        """Begin, wait, and put the end on record.

        Args:
            waiting: the wait for an instance.
            on_timeout: what becomes of a run that is given up: at the deadline, or because its state could not be read
                for too long, or may not be read any more.
            cancel_seconds: seconds for a cancel.

        Raises:
            OrchestrationError: how it ended, or what is unknown.
        """
        instance = yield from self.begin()
        return (yield from self.attend(instance.id, waiting, on_timeout=on_timeout, cancel_seconds=cancel_seconds))

    def attend(
        self,
        instance_id: str,
        waiting: WaitFor,
        *,
        on_timeout: GivesUp | Callable[[GivenUp], GivesUp] = "cancel",
        cancel_seconds: float = CANCEL_SECONDS,
    ) -> Procedure[RunResult]:
        """Wait for the run that ``begin`` gave, and put its end on record before it is told.

        Args:
            instance_id: the run.
            waiting: the wait for an instance.
            on_timeout: what becomes of a run that is given up; a function says it of the error that ended the wait.
            cancel_seconds: seconds for a cancel.
        """
        try:
            result = yield from waiting(instance_id, self.guard)
        except (InstanceFailedError, InstanceCancelledError) as error:
            yield from self.conclude("failed" if isinstance(error, InstanceFailedError) else "cancelled")
            error.args = (error.told,)  # to advise another key would give up what this one protects
            raise
        except _GIVEN_UP as error:
            if isinstance(error, InstanceStuckError) and error.reason != "attempts":
                if error.reason == "never_started":
                    yield from self.conclude("never_started")
                else:
                    error.args = (f"{error}; {self.request.remedy_held}",)
                raise
            choice = on_timeout(error) if callable(on_timeout) else on_timeout
            return (yield from self._give_up(error, instance_id, waiting, choice, cancel_seconds))
        except OrchestrationError as error:
            error.run_may_exist = True  # it is there: only what became of it could not be read
            raise
        yield from Comparing(self.keeper, self._versions, self._now).verify(result.instance)
        yield from self.conclude(GOOD_END)
        return result

    def conclude(self, end: str) -> Procedure[None]:
        """Put an end on record, before the caller is told: ``succeeded``, ``failed``, ``cancelled``,
        ``never_started``."""
        yield from self.keeper.conclude(end)
        record = self.keeper.record
        marked = self._has_checkpoints or (record is not None and record.hold)
        if marked and not self.keeper.superseded:
            yield from self._marks().forget()

    def returned(self) -> Procedure[None]:
        """Put on record that this attempt's caller has got the run, without waiting for its end."""
        yield from self.keeper.returned()

    def _give_up(
        self,
        error: GivenUp,
        instance_id: str,
        waiting: WaitFor,
        on_timeout: str,
        seconds: float,
    ) -> Procedure[RunResult]:
        """The wait ended before the run did: cancel it unless it is to be left, and say what is true then."""
        told = str(error) if isinstance(error, Refused) else error.told
        error.args = (told,)  # what became of the run is said once, by the error that is raised from this one
        if on_timeout != "cancel":
            stuck = isinstance(error, InstanceStuckError) and error.instance is not None
            runs = stuck or (isinstance(error, WaitTimeoutError) and error.seen_running)
            left = "running" if runs else "as it is, and may still run"
            what = f"it was left {left}; an attempt with its key goes on waiting for it"
            raise same_end(error, f"{told}; {what}") from error
        outcome, what, known = yield from self._stopped(seconds, "its waiter, which has given up")
        if outcome is not None and outcome.status == "already_ended":
            try:
                return (yield from self.attend(instance_id, waiting, on_timeout="leave"))
            except _GIVEN_UP as late:  # it has ended all the same, and what it has moved is told as far as it was read
                raise same_end(error, f"{told}; {what}; an attempt with its key tells more", outcome, False) from late
        if outcome is not None and outcome.status in ("cancelled", "never_started"):
            yield from self.conclude(outcome.status)
        what += made_by_then(getattr(error, "moved", None), outcome)
        raise same_end(error, f"{told}; {what}", outcome, known) from error

    def _stopped(self, seconds: float, by: str) -> Procedure[tuple[CancelOutcome | None, str, bool]]:
        """``stop``, by the waiter itself: the outcome; in words what became of the run, also where the cancel failed;
        and whether that is known."""
        try:
            outcome = yield from self.stop(seconds, by=by)
        except OrchestrationError as error:
            on_hold = self.keeper.store is not None and self.record is not None and self.record.hold
            on_record = "; a stop is on record" if on_hold else ""
            return None, f"its cancel failed, and it may still run{on_record}: {error}", False
        if outcome is None:
            return None, outcome_text(None, superseded=self.superseded), True
        verdict = cancel_verdict(outcome, self.instance_id or "INSTANCE")
        return outcome, verdict.text, verdict.sure

    def stop(
        self, seconds: float = CANCEL_SECONDS, *, by: str = "", waiter_is_here: bool = True
    ) -> Procedure[CancelOutcome | None]:
        """Cancel the run, unless another attempt has it. None: nothing was cancelled.

        The stop is put on record first, so that a later attempt knows that the run was cancelled by its own side, and
        a waiter lets the run pass no further checkpoint.

        Args:
            seconds: for the cancel.
            by: who stops it, in words.
            waiter_is_here: no other process waits for the run on behalf of this attempt.
        """
        instance_id = self.instance_id
        if instance_id is None or not (yield from self.keeper.hold(by)):
            return None
        marks = self._marks()
        holding = None
        if self.has_checkpoints is not False and (yield from marks.hold(Hold(by, self.keeper.instant()))):
            since = self._now.monotonic() + (0.0 if waiter_is_here else OWNER_ANSWER_SECONDS)
            holding = holding_of(marks, since)
        try:
            outcome = yield from cancel(
                instance_id,
                timeout=seconds,
                versions=self._versions,
                now=self._now,
                permit=self.keeper.still_mine,
                holding=holding,
                on_record=True,
            )
        except RecordConflictError:
            return None  # the stop stays: whoever has the run now may have told by it already that the run is held
        if holding is not None and outcome.status in ("cancelled", "already_ended"):
            yield from marks.forget()
        return outcome


def same_end(error: GivenUp, message: str, outcome: CancelOutcome | None = None, known: bool = True) -> GivenUp:
    """The error again, with what has become of the instance since, and whether that is ``known``."""
    if isinstance(error, Refused):
        refused = retold(error, message)
        refused.run_may_exist = True
        return refused  # type: ignore[return-value]  # it is of the same class
    read = outcome is not None and outcome.instance is not None
    about: dict[str, Any] = {
        "instance_id": error.instance_id,
        "instance": outcome.instance if outcome is not None and read else error.instance,
        "moved": outcome.moved if outcome is not None and read else error.moved,
    }
    if isinstance(error, InstanceStuckError):
        return InstanceStuckError(message, reason=error.reason, **about)
    made = type(error)(message, **about)
    if isinstance(error, WaitTimeoutError) and isinstance(made, WaitTimeoutError):
        made.seen_running, made.outcome = error.seen_running and known, outcome
    return made

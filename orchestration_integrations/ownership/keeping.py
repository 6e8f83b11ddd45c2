"""Keeping the record of a key: what is saved strictly, what is saved as well as can be.

Before a release a save that fails stops the step that it announces. After it, what is known is known: a store that
is away must not turn a success into a failure, so it is tried a few times and then said to be not recorded.

A record that is gone is nobody's. An attempt that has its run, and finds no record of it any more, still has it: it
may stop it. But it saves nothing there: a record that it made anew would claim what is not known, for example that the
key has had one round. Only a record that names another attempt takes the run from it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timezone
from shlex import quote
from typing import Any

from msgspec.structs import replace

from ..api.errors import KeyReusedError, RecordConflictError, ValidationError
from ..api.models import Instance
from ..procedures.content import UNKNOWN, Content
from ..procedures.effects import Backoff, Now, Procedure, ask, ask_or_raise, pause
from ..procedures.gate import GateText
from ..procedures.start import KEY_AGE
from .record import NO_HOLD, RunRecord, RunStore, conflict
from .request import OwnedRequest, may_settle, token_of
from .resolve import How

logger = logging.getLogger("orchestration_integrations.ownership")

SAVES_AFTER_RELEASE = 3
"""Tries to put on record what is known after a release; then it is said that it is not recorded."""


class Keeper:
    """The record of one key in the hands of one attempt.

    Attributes:
        record: as last saved or loaded; without a store, as it would be.
        submitted: the run that this attempt has submitted without a gate, so that it runs already; None before. It is
            this attempt's also while it is not on record as the chosen one: see ``hold``.
        shown: what the server showed of the key, as far as a word of the user is about it; None before it was asked.
        beside_since: of the round that begins next, as ``RunRecord`` has it.
        at_gate: the run that this attempt has submitted with a gate, until it sends what could release it; else None.
        superseded: another attempt has the record now.
    """

    def __init__(self, request: OwnedRequest, server: str, store: RunStore | None, now: Now) -> None:
        self.request = request
        self.server = server
        self.store = store
        self.record: RunRecord | None = None
        self.submitted: str | None = None
        self.at_gate: str | None = None
        self.superseded = self._beside = False
        self.beside_since: datetime | None = None
        self.shown: str | None = None
        self._lost_by: RunStore | None = None
        self._now = now

    @property
    def instance_id(self) -> str | None:
        """The run, once one is chosen."""
        return self.record.instance_id if self.record is not None else None

    def instant(self) -> datetime:
        """Now."""
        return datetime.fromtimestamp(self._now.time(), timezone.utc)

    def not_of_others(self, instance_ids: Sequence[str]) -> Procedure[list[str]]:
        """Without the instances that the store has on record for another key or round, as far as it tells."""
        owners = getattr(self.store, "owners", None)
        if owners is None or not instance_ids:
            return list(instance_ids)
        answer = yield from ask(owners)
        known, own = answer.value or {}, (self.request.run_key, 0 if self.record is None else self.record.round)
        return [one for one in instance_ids if tuple(known.get(one, own)) == own]

    # Loading

    def load(self, *, resumed: bool = False) -> Procedure[RunRecord | None]:
        """The record of the key. ``resumed``: by a process that goes on with what this attempt has begun: with
        ``chosen``, also where the store has no record of it.

        Raises:
            KeyReusedError: this very attempt has used the key already, by another call that got its answer.
            RecordConflictError: another attempt has taken the key up since it was decided what is asked for.
            UnreadableRecordError: it cannot be read.
        """
        if self.store is None:
            self.record = self._of_caller(self.request.attempt if resumed else "")
        else:
            self.record = yield from ask_or_raise(self.store.load, self.request.run_key)
            if resumed and self.record is None and self.request.chosen is not None:
                self.record = self._of_caller(self.request.attempt)
                self._go_on_without_record()
        record = self.record
        mine = record is not None and bool(self.request.attempt) and record.attempt == self.request.attempt
        if resumed and record is not None and self.request.attempt and not mine:
            self.superseded = True  # another attempt has taken the key up since
        if not resumed and not mine and record is not None and self.request.decided_on not in (None, record.attempt):
            self.superseded = True  # its facts would hide from later attempts what that one was asked for
            raise conflict(record.key, record)
        if record is not None and self.request.rival is not None:
            rival = self.request.rival(record)
        else:
            rival = record is not None and mine and record.returned
        if record is not None and rival and not record.settled and not resumed:
            raise KeyReusedError(
                f"run key {self.request.run_key} is used by another call of this attempt (instance "
                f"{record.instance_id}); nothing was started. Give each payment a key of its own",
                run_key=self.request.run_key,
                differs="caller",
                instance_id=record.instance_id,
            )
        return record

    def _go_on_without_record(self) -> None:
        """The store has lost the record of a run that this attempt has."""
        logger.warning(
            "run key %s: the store shows no record of instance %s any more: its end will not be on record",
            self.request.run_key,
            self.instance_id,
        )
        self._lost_by, self.store = self.store, None

    def _of_caller(self, attempt: str) -> RunRecord | None:
        """The record that a caller keeps itself, by giving ``chosen``."""
        request = self.request
        if request.chosen is None:
            return None
        return RunRecord(
            key=request.run_key,
            state="chosen",
            workflow_id=request.workflow if isinstance(request.workflow, str) else "",
            server=self.server,
            since=request.since or self.instant(),
            content=UNKNOWN,
            instance_id=request.chosen,
            attempt=attempt,
        )

    def vouches(self) -> bool:
        """Whether the store would have a record of everything that was done under this key."""
        since = self.store.complete_since if self.store is not None else None
        return since is not None and bool(since <= (self.request.since or self.instant() - KEY_AGE))

    def how(self) -> How:
        """Whether the key is surely new, may have been used, or a new run of it is wanted."""
        how, record = self.request.how, self.record
        if record is not None and record.doubt and how == "first":
            return "first"  # the caller knows better than the doubt on record
        if record is not None:
            return "new" if record.settled or how == "new" else "again"
        if how is None:
            return "first" if self.vouches() else "again"
        return how

    def has_token(self) -> bool:
        """Whether the caller has settled what became of the run on record, as far as that is known."""
        settled = self.record is not None and self.record.settled
        if settled or self.shown is None:
            return settled or may_settle(self.record, self.request.run_key, self.request.settled)
        return self.token() in self.request.settled

    def token(self) -> str | None:
        """The text that settles the fate of the run on record; None where there is nothing to settle."""
        return None if self.store is None else token_of(self.record, self.request.run_key, self.shown or "")

    # Records to be saved

    def intended(
        self,
        number: int,
        gate: GateText | None,
        workflow_id: str,
        content: Content,
        *,
        proven: bool,
        another: bool = False,
    ) -> RunRecord:
        """The record of an intent. ``proven``: the round was surely not used before. ``another``: of a new round."""
        earlier = self.record
        former, beside = tuple[str, ...](), None
        since = self.instant() if proven else self.request.since or self.instant() - KEY_AGE
        if earlier is not None:
            same_round = earlier.round == number and bool(earlier.workflow_id) and not (earlier.doubt and proven)
            since = earlier.since if same_round else self.instant()
            same = earlier.former, earlier.beside_since, earlier.another
            former, beside, another = same if earlier.round == number else (earlier.formers, self.beside_since, another)
        return RunRecord(
            key=self.request.run_key,
            round=number,
            state="intended",
            workflow_id=workflow_id,
            server=self.server,
            gate=gate.text if gate is not None else "",
            since=since,
            content=content,
            former=former,
            beside_since=beside,
            another=another,
            attempt=self.request.attempt,
            facts=self.request.facts,
            revision=earlier.revision if earlier is not None else 0,
            unknown=earlier.unknown if earlier is not None else {},
        ).changed()

    def claimed(self, record: RunRecord, **changes: Any) -> RunRecord:
        """The record, with this attempt as the one that has the run now."""
        request = self.request
        return record.changed(attempt=request.attempt, returned=False, facts=request.facts, settled=False, **changes)

    # Saving

    def save(self, record: RunRecord) -> Procedure[None]:
        """Put on record what is about to happen. Raises what the store raises: what is not saved is not done."""
        if self.store is not None:
            try:
                yield from ask_or_raise(self.store.save, record)
            except RecordConflictError:
                self.superseded = True
                raise
        self.record = record

    def note_shown(self, shown: str, instance: Instance | None) -> None:
        """What the server has shown. It goes on record with what is saved next: whoever only looks changes nothing."""
        self.shown = shown
        if self.record is not None and instance is not None:
            self.record = self.record.as_shown(instance)

    def note_seen(self, instance: Instance) -> Procedure[None]:
        record = self.record
        if record is None or (record.seen and record.created_at == instance.created_at):
            return
        yield from self.save_late(record.changed(seen=True, created_at=instance.created_at))

    def save_late(self, record: RunRecord) -> Procedure[bool]:
        """Put on record what is known already. A store that fails here changes nothing about what is true."""
        if self.store is None:
            self.record = record
            return True
        backoff = Backoff(self._now, first=0.2)
        for number in range(SAVES_AFTER_RELEASE):
            if number:
                yield from pause(backoff.seconds())
            answer = yield from ask(self.store.save, record)
            if answer.error is None:
                self.record = record
                return True
            if isinstance(answer.error, RecordConflictError):
                stored = yield from self._stored_by_me()
                if stored is None and self.store is None:
                    self.record = record
                    return False
                if stored is None:
                    self.superseded = True
                    break
                changes: dict[str, Any] = {
                    "revision": stored.revision,
                    "hold": stored.hold,
                    "held_by": stored.held_by,
                    "held_since": stored.held_since,
                    "passing": stored.passing,
                    "settled": stored.settled,
                }
                record = replace(record, **changes).changed()
        logger.warning(
            "run key %s, instance %s: not recorded that it is %s (%s)",
            record.key,
            record.instance_id,
            record.end or record.state,
            type(answer.error).__name__,
        )
        return False

    def conclude(self, end: str) -> Procedure[None]:
        """Put an end on record, before the caller is told: ``succeeded``, ``failed``, ``cancelled``,
        ``never_started``."""
        record = self.record
        if record is None or record.instance_id is None or self.superseded:
            return
        if record.state == "told" and record.end == end and record.told_by == self.request.attempt:
            return
        if record.state != "told":
            yield from self.save_late(record.changed(state="ended", end=end))
            record = self.record or record
        yield from self.save_late(
            record.changed(
                state="told",
                end=end,
                told_by=record.told_by or self.request.attempt,
                returned=True,
                facts=self.request.facts,
            )
        )

    def returned(self) -> Procedure[None]:
        """Put on record that this attempt's caller has got the run, without waiting for its end."""
        record = self.record
        if record is not None and record.instance_id is not None and not self.superseded:
            yield from self.save_late(record.changed(returned=True, attempt=self.request.attempt))

    def still_mine(self) -> Procedure[None]:
        """Look whether this attempt still has the run, before something is done to it.

        A store that is away does not keep a run from being stopped.

        Raises:
            RecordConflictError: another attempt has it.
        """
        store = self.store if self.store is not None else self._lost_by
        if store is None or self.record is None or self._beside:
            return
        answer = yield from ask(store.load, self.record.key)
        gone = answer.value is None and self._lost_by is not None
        if answer.error is None and not gone and not self._is_mine(answer.value):
            self.superseded = True
            raise conflict(self.record.key, answer.value)

    def _is_mine(self, stored: RunRecord | None) -> bool:
        """Whether this attempt had the record last, though others may have put a hold on it since, or the answer to a
        save was lost."""
        if stored is None or self.record is None:
            return False
        if not self.request.attempt:
            return stored.nonce == self.record.nonce
        return (stored.attempt, stored.instance_id) == (self.request.attempt, self.record.instance_id)

    def _stored_by_me(self) -> Procedure[RunRecord | None]:
        """What is stored, where it is this attempt's; None where it is not, or the store is away, or has lost it:
        then there is no ``store`` any more."""
        if self.store is None:
            return None
        answer = yield from ask(self.store.load, self.request.run_key)
        if answer.error is None and answer.value is None:
            self._go_on_without_record()
        return answer.value if answer.error is None and self._is_mine(answer.value) else None

    def refreshed(self) -> Procedure[RunRecord | None]:
        """The record as it is stored now, with what others have put on it. None without a store, or where none is.

        Raises:
            RecordConflictError: another attempt has it. Besides, what the store raises.
        """
        if self.store is None or self.record is None:
            return None
        stored: RunRecord | None = yield from ask_or_raise(self.store.load, self.record.key)
        if not self._is_mine(stored):
            self.superseded = True
            raise conflict(self.record.key, stored)
        self.record = stored
        return stored

    def save_mine(self, record: RunRecord) -> Procedure[None]:
        """Save a change to what ``refreshed`` gave. Raises RecordConflictError where somebody was quicker."""
        if self.store is not None:
            yield from ask_or_raise(self.store.save, record)
        self.record = record

    def hold(self, by: str = "") -> Procedure[bool]:
        """Put on record that a stop was asked for. False: another attempt has the run, so it must not be stopped.

        A store that is away does not keep a stop from being carried out.
        """
        self._take_submitted()
        record = self.record
        if record is None or record.instance_id is None or self.superseded:
            return False
        if self.store is None:
            return True
        if self.request.attempt and record.attempt != self.request.attempt:
            logger.warning(
                "run key %s: instance %s of an earlier attempt is not cancelled, since this attempt had not taken it "
                "up; it may still run",
                record.key,
                record.instance_id,
            )
            return False
        made = self._on_hold(record, by)
        answer = yield from ask(self.store.save, made)
        if isinstance(answer.error, RecordConflictError):
            stored = yield from self._stored_by_me()
            if stored is None and self.store is None:
                return True
            if stored is None and (yield from self._stands_for_another()):
                self._beside = True  # the submitted one is nobody else's, and it pays: it is not to be left alone
                return True
            if stored is None:
                self.superseded = True
                logger.warning("run key %s: another attempt has instance %s", record.key, record.instance_id)
                return False
            made = self._on_hold(stored, by)
            answer = yield from ask(self.store.save, made)
        if answer.error is None:
            self.record = made
        else:
            what = type(answer.error).__name__
            logger.warning("run key %s: not recorded that a stop was asked for (%s)", record.key, what)
        return True

    def stands_for(self) -> Procedure[str | None]:
        """The run that the key stands for as it is stored now; None where there is none, or it could not be read."""
        if self.store is None:
            return None
        answer = yield from ask(self.store.load, self.request.run_key)
        stored: RunRecord | None = answer.value
        return None if stored is None else stored.instance_id

    def _stands_for_another(self) -> Procedure[bool]:
        """Whether the key stands for another run than the submitted one."""
        return self.submitted is not None and (yield from self.stands_for()) not in (None, self.submitted)

    def _take_submitted(self) -> None:
        """What was interrupted before the submitted run was chosen on record is taken to have been chosen."""
        if self.submitted is not None and self.record is not None and self.record.instance_id is None:
            self.record = replace(self.record, state="chosen", instance_id=self.submitted)

    def _on_hold(self, record: RunRecord, by: str) -> RunRecord:
        return record.held_by_stop(by, self.instant())


def put_hold(
    store: RunStore, run_key: str, instance_id: str, by: str = "", since: datetime | None = None
) -> Procedure[bool]:
    """Put on record that a stop of a run was asked for, by whoever cancels it from outside. Whether it is on record.

    A run whose end is on record gets none: nothing of it could be held, and nothing could be resumed.

    Raises:
        ValidationError: the record of the key names another instance.
    """
    for _ in range(3):
        loaded = yield from ask(store.load, run_key)
        if loaded.error is not None:
            what = type(loaded.error).__name__
            logger.warning("run key %s: not recorded that a stop was asked for (%s)", run_key, what)
            return False  # a store that is away does not keep a run from being stopped
        record: RunRecord | None = loaded.value
        if record is None:
            raise ValidationError(f"run_key: the store has no record of run key {run_key}", path="run_key")
        if record.instance_id != instance_id:
            raise ValidationError(
                f"run_key: the record of key {run_key} names instance {record.instance_id}, not {instance_id}",
                path="run_key",
            )
        if record.end is not None:
            return False
        answer = yield from ask(store.save, record.held_by_stop(by, since))
        if answer.error is None:
            return True
        if not isinstance(answer.error, RecordConflictError):
            what = type(answer.error).__name__
            logger.warning("run key %s: not recorded that a stop was asked for (%s)", run_key, what)
            return False
    return False


def hold_name(instance_id: str) -> str:
    """The name of the hold mark of a run, where marks have a place of their own."""
    return f"hold/{instance_id}"


def passing_name(instance_id: str, number: int) -> str:
    """The name of the mark of a pass that was announced: of the checkpoint before the user's stage ``number``."""
    return f"passing/{instance_id}/{number}"


def resume_command(store: object, run_key: str) -> str:
    """The command that takes back a stop; empty for a store that is no file, which has none."""
    path = getattr(store, "path", None)
    if not isinstance(path, str):
        return ""
    return f"orchestration-integrations runs resume {quote(run_key)} --store {quote(path)}"


def resume(store: RunStore, run_key: str) -> RunRecord | None:
    """Take back the stop of a run that is held at a checkpoint: the next attempt with its key lets it go on.

    Returns:
        What was on record; None where nothing was.

    Raises:
        ValidationError: the key is settled.
        RecordConflictError: the record was changed at the same moment. What the store raises besides.
    """
    record = store.load(run_key)
    if record is not None and record.settled:
        raise ValidationError(
            f"run_key: {run_key} is settled, so its next start is a new run: the one on record cannot be resumed",
            path="run_key",
        )
    if record is not None and record.hold:
        store.save(record.changed(**NO_HOLD))
    place: Any = getattr(store, "mark_place", None)
    if place is not None and record is not None and record.instance_id is not None:
        place.remove(hold_name(record.instance_id))  # also where the record says nothing: only one of the two was saved
    return record

"""What is kept of a key: one record, written before what it announces.

A process can die at any moment, so the record says what is about to happen, never what has happened:

``intended``
    a run of this content may be submitted from now on;
``chosen``
    this instance and no other may be released from now on;
``ended``
    the run has ended so, which nobody was told yet;
``told``
    the caller is about to be told.

Each state is saved before the step that it announces. Releasing is idempotent (its event opens one gate only), so
``chosen`` needs no state after it. A record is never deleted by the process that tells its end: the absence of a
record proves nothing unless the store vouches for it.

A store that can compare refuses a record that does not follow the one it has. ``follows`` is that comparison.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any, Literal, Protocol

import msgspec

from ..api.errors import RecordConflictError, UnreadableRecordError, ValidationError
from ..api.instants import instant_in_store, stored_instant
from ..api.models import Instance
from ..procedures.content import Content

NO_HOLD: Mapping[str, Any] = {"hold": False, "held_by": "", "held_since": None}
"""The fields of a record on which no stop stands."""
State = Literal["intended", "chosen", "ended", "told"]
STATES: tuple[State, ...] = ("intended", "chosen", "ended", "told")
FORMAT = 1
"""Version of the stored form. A reader refuses a later one and keeps unknown fields of its own."""
GOOD_END = "succeeded"


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is on record of a key.

    Attributes:
        key: whose run it is.
        round: the number of the run among those of its key, from 0.
        state: ``intended``, ``chosen``, ``ended`` or ``told``.
        workflow_id: what runs.
        server: base URL of the server that it was submitted to.
        gate: the exact text of the run's gate, as it was sent; empty where the workflow has no gate.
        since: when the key was first used.
        content: what is paid.
        instance_id: the run; None until one is chosen.
        end: ``succeeded``, ``failed``, ``cancelled`` or ``never_started``; None until then.
        seen: the server has shown the instance.
        created_at: of the instance, as the server showed it.
        hold: a stop of this run was asked for.
        held_by: by whom, in words.
        held_since: when.
        former: the instances that were this record's in earlier rounds, the newest last.
        beside_since: when the oldest run of the key was created that stood unreleased, and was not this record's, when
            this round began: another record may release it. None where none stood there.
        another: somebody asked for this round as another payment, whatever else the key has paid.
        passing: checkpoints for which a pass may have been sent.
        settled: the next start is a new round, whatever became of this run.
        doubt: nothing was submitted by whoever saved this intent: it stands for what an earlier attempt may have done.
        attempt: the attempt that took the key up last.
        returned: that attempt's caller has got its answer.
        told_by: the attempt that was told the end.
        facts: what the caller's framework said at that time, plain JSON; compared by the caller alone.
        revision: counts the savings of this record.
        nonce: names this saving, so that a repeated one knows itself.
        unknown: fields of a later version, kept.
    """

    key: str
    state: State
    workflow_id: str
    server: str
    since: datetime
    content: Content
    round: int = 0
    gate: str = ""
    instance_id: str | None = None
    end: str | None = None
    seen: bool = False
    created_at: datetime | None = None
    hold: bool = False
    held_by: str = ""
    held_since: datetime | None = None
    former: tuple[str, ...] = ()
    beside_since: datetime | None = None
    another: bool = False
    passing: tuple[int, ...] = ()
    settled: bool = False
    doubt: bool = False
    attempt: str = ""
    returned: bool = False
    told_by: str = ""
    facts: Mapping[str, Any] = msgspec.field(default_factory=dict)
    revision: int = 0
    nonce: str = ""
    unknown: Mapping[str, Any] = msgspec.field(default_factory=dict)

    def changed(self, **changes: Any) -> RunRecord:
        """The record that follows this one: to be saved next."""
        return msgspec.structs.replace(self, **changes, revision=self.revision + 1, nonce=uuid.uuid4().hex)

    @property
    def looked_back_to(self) -> datetime:
        """No run of the key is older that this round may have to tell from its own."""
        return self.since if self.beside_since is None else min(self.since, self.beside_since)

    @property
    def formers(self) -> tuple[str, ...]:
        """``former`` of the round that follows this one: the last hundred."""
        return (*self.former, *(() if self.instance_id is None else (self.instance_id,)))[-100:]

    def as_shown(self, instance: Instance) -> RunRecord:
        """The record, where the server has shown the instance. Only a saving makes it another one for others."""
        if instance.id != self.instance_id:
            return self
        return msgspec.structs.replace(self, seen=True, created_at=instance.created_at)

    def held_by_stop(self, by: str, since: datetime | None) -> RunRecord:
        """The record that follows this one, with a stop on it."""
        return self.changed(hold=True, held_by=by, held_since=since)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        values: dict[str, Any] = msgspec.to_builtins(self, enc_hook=stored_instant)
        unknown = values.pop("unknown")
        return {**unknown, "version": FORMAT, **values}

    @classmethod
    def from_json(cls, stored: object) -> RunRecord:
        """A record from its stored form, a mapping or the text of one.

        Raises:
            UnreadableRecordError: it is none, or one of a later version: a guess instead could pay twice.
        """
        key = "?"
        try:
            values = msgspec.json.decode(stored) if isinstance(stored, str | bytes) else stored
            if not isinstance(values, Mapping):
                raise TypeError("it is no JSON object")
            key = str(values.get("key", "?"))
            if values.get("version") != FORMAT:
                raise ValueError(f"its version is {values.get('version')!r}, and this one reads {FORMAT}")
            known = {name: value for name, value in values.items() if name in cls.__struct_fields__}
            known.pop("unknown", None)
            rest = {name: value for name, value in values.items() if name not in (*cls.__struct_fields__, "version")}
            return msgspec.convert({**known, "unknown": rest}, cls, dec_hook=instant_in_store)
        except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            raise UnreadableRecordError(
                f"the record of key {key} cannot be read ({error}), so an earlier run may exist; nothing was started. "
                "Find out how that run ended, then remove the record",
                run_key=key,
            ) from None


def follows(stored: RunRecord | None, record: RunRecord) -> bool:
    """Whether a record may be saved over what is stored: it was made from it, or it is the very same saving."""
    if stored is None:
        return record.revision == 1
    return stored.revision == record.revision - 1 or (stored.revision, stored.nonce) == (record.revision, record.nonce)


def tombstone(stored: RunRecord | None, key: str) -> RunRecord:
    """The tombstone for a record: the next start of its key is a new round. Nothing is deleted."""
    if stored is not None:
        return stored.changed(settled=True)
    empty = Content(stages="", variables={})
    return RunRecord(
        key=key,
        state="intended",
        workflow_id="",
        server="",
        since=datetime.now(timezone.utc),
        content=empty,
        settled=True,
        revision=1,
        nonce=uuid.uuid4().hex,
    )


class AdoptedElsewhereError(ValidationError):
    """An instance that was to be chosen for a key is the run of another one, by the word of a user."""


def conflict(key: str, stored: RunRecord | None) -> RecordConflictError:
    """The error of a store whose record has changed hands."""
    who = f"attempt {stored.attempt or '(unnamed)'} has it now" if stored is not None else "it was removed"
    return RecordConflictError(
        f"the record of key {key} changed since it was loaded ({who}): another process is at work on it. Nothing was "
        "released or cancelled by this call; call again once that one is through",
        run_key=key,
    )


class RunStore(Protocol):
    """Where records are kept. What each store promises stands in the documentation.

    Any method may raise; what is not saved is not done.
    """

    @property
    def complete_since(self) -> datetime | None:
        """From when on the absence of a record proves that a key was not used; None: it proves nothing."""
        ...

    def load(self, key: str) -> RunRecord | None:
        """The record of a key.

        Raises:
            UnreadableRecordError: there is one, and it cannot be read.
        """
        ...

    def save(self, record: RunRecord) -> None:
        """Store a record.

        Raises:
            RecordConflictError: it does not follow the stored one.
        """
        ...

    def choose(self, key: str, round: int, instance_id: str) -> str:
        """Choose the instance of a round; the first choice stands. Returns the instance that is chosen."""
        ...

    def settle(self, key: str) -> None:
        """Have the next start of a key be a new round. Nothing is deleted."""
        ...


OwnerWord = Literal["yes", "unwanted", "superseded"]
Owner = Callable[[], OwnerWord]
"""Asked whether this attempt still wants its run. It may raise where it cannot find out.

``unwanted``: nobody wants it any more; ``superseded``: another attempt has it now.
"""
OwnerAt = Callable[[int], OwnerWord]
"""The same before a checkpoint, asked with the user's number of the stage behind it."""

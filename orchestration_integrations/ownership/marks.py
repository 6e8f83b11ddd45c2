"""The marks that the waiter of a run and whoever wants to stop it leave for each other: a hold, and announced passes.

The waiter announces a pass before it looks for a hold; a stop puts up its hold before it looks for announced passes. So
whatever the order of their steps, one of the two sees the other, if the place shows at once what was written to it.

They stand in the record of the key, where the store compares and sets (``RecordMarks``). A framework's store does not:
two writers of one record could lose each other's mark there. So a framework has a place of its own for them, one name
for each mark, that tasks, callbacks and triggers can all reach (``PlacedMarks``).
"""

from __future__ import annotations

import hashlib
import re
from datetime import datetime, timezone
from typing import Any, Protocol

import msgspec

from ..api.errors import RecordConflictError
from ..api.instants import instant_in_store, stored_instant
from ..procedures.cancel import Holding
from ..procedures.checkpoints import Permit
from ..procedures.effects import Now, Procedure, ask, ask_or_raise
from ..procedures.limits import OWNER_ANSWER_SECONDS
from .keeping import Keeper, hold_name, passing_name, put_hold
from .record import RunStore

TRIES = 3
"""Tries to save a mark in a record that somebody else changes at the same time."""


_PLAIN = re.compile(r"[a-z0-9-]{1,100}")


def variable_name(mark: str) -> str:
    """A framework's variable for a mark: ``orchestration_hold_<instance>``, ``orchestration_passing_<instance>_<n>``.

    Prefect takes lower-case letters, digits, "_" and "-" only. Airflow 3.0 takes no "/". An instance whose id has other
    characters is named by a digest.
    """
    kind, instance_id, *number = mark.split("/")
    if not _PLAIN.fullmatch(instance_id):
        instance_id = hashlib.sha256(instance_id.encode()).hexdigest()[:40]
    return "_".join(["orchestration", kind, instance_id, *number])


class Hold(msgspec.Struct, frozen=True):
    """A stop that was asked for.

    Attributes:
        by: who asked, in words; empty where that is not known.
        since: when; None where that is not known.
    """

    by: str = ""
    since: datetime | None = None


class MarkPlace(Protocol):
    """Where a framework keeps marks, by name: ``hold/<instance>``, ``passing/<instance>/<n>``.

    A place that can find all marks of a run has ``remove_run(instance_id)`` too.
    """

    def read(self, name: str) -> str | None:
        """The text of a mark; None where there is none. Raises where it cannot be read."""
        ...

    def write(self, name: str, text: str) -> None:
        """Put up a mark, over one of that name."""
        ...

    def remove(self, name: str) -> None:
        """Take a mark away, if it is there."""
        ...


class Marks(Protocol):
    """The marks of one run."""

    def hold(self, hold: Hold) -> Procedure[bool]:
        """Ask for a stop. Whether every waiter will see it from now on."""
        ...

    def held(self) -> Procedure[Hold | None]:
        """The stop that was asked for, as it stands now. Raises where that cannot be read."""
        ...

    def let_go(self, seen: Hold) -> Procedure[None]:
        """Take back the stop that was seen, so that the run may go on. One that was put up since stays."""
        ...

    def announced(self, number: int) -> Procedure[bool]:
        """Whether a pass of this checkpoint was ever announced. Raises where that cannot be read."""
        ...

    def announce(self, number: int) -> Procedure[None]:
        """Say for good that a pass may be sent from now on. Raises where it is not on record."""
        ...

    def forget(self) -> Procedure[None]:
        """The run has ended."""
        ...


class RecordMarks:
    """In the record of the key, in the hands of one attempt. Nothing is kept without a store."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    def hold(self, hold: Hold) -> Procedure[bool]:
        """The record says it already: ``Keeper.hold`` comes first. Whether that was saved."""
        yield from ()
        record = self._keeper.record
        return self._keeper.store is not None and record is not None and record.hold

    def held(self) -> Procedure[Hold | None]:
        """As of ``Marks``. Raises RecordConflictError where another attempt has the record."""
        record = yield from self._keeper.refreshed()
        return Hold(record.held_by, record.held_since) if record is not None and record.hold else None

    def let_go(self, seen: Hold) -> Procedure[None]:
        """Whoever takes the run up again saves that with its claim."""
        yield from ()

    def announced(self, number: int) -> Procedure[bool]:
        """As of ``Marks``."""
        record = yield from self._keeper.refreshed()
        return record is None or number in record.passing

    def announce(self, number: int) -> Procedure[None]:
        """As of ``Marks``."""
        for left in reversed(range(TRIES)):
            record = yield from self._keeper.refreshed()
            if record is None or number in record.passing:
                return
            try:
                yield from self._keeper.save_mine(record.changed(passing=(*record.passing, number)))
                return
            except RecordConflictError:
                if not left:
                    raise

    def forget(self) -> Procedure[None]:
        """The record stays."""
        yield from ()


class StoredMarks:
    """In the record of the key, for whoever stops a run from outside."""

    def __init__(self, store: RunStore, run_key: str, instance_id: str) -> None:
        self._store = store
        self._run_key = run_key
        self._instance_id = instance_id

    def hold(self, hold: Hold) -> Procedure[bool]:
        """As of ``Marks``."""
        return (yield from put_hold(self._store, self._run_key, self._instance_id, hold.by, hold.since))

    def announced(self, number: int) -> Procedure[bool]:
        """As of ``Marks``."""
        record = yield from ask_or_raise(self._store.load, self._run_key)
        return record is None or record.instance_id != self._instance_id or number in record.passing

    def held(self) -> Procedure[Hold | None]:
        """As of ``Marks``."""
        record = yield from ask_or_raise(self._store.load, self._run_key)
        stands = record is not None and record.instance_id == self._instance_id and record.hold
        return Hold(record.held_by, record.held_since) if stands else None


class PlacedMarks:
    """In a framework's place.

    Args:
        place: where.
        instance_id: the run.
        mine: the passes that this attempt has announced; gets more.
    """

    def __init__(self, place: MarkPlace, instance_id: str, mine: list[int]) -> None:
        self._place = place
        self._instance_id = instance_id
        self._hold = hold_name(instance_id)
        self._mine = mine

    def hold(self, hold: Hold) -> Procedure[bool]:
        """As of ``Marks``."""
        text = msgspec.json.encode(hold, enc_hook=stored_instant).decode()
        answer = yield from ask(self._place.write, self._hold, text)
        return answer.error is None

    def held(self) -> Procedure[Hold | None]:
        """As of ``Marks``."""
        text: Any = yield from ask_or_raise(self._place.read, self._hold)
        return None if text is None else _hold_in(text)

    def let_go(self, seen: Hold) -> Procedure[None]:
        """As of ``Marks``."""
        if (yield from self.held()) == seen:
            yield from ask_or_raise(self._place.remove, self._hold)

    def announced(self, number: int) -> Procedure[bool]:
        """As of ``Marks``."""
        text = yield from ask_or_raise(self._place.read, passing_name(self._instance_id, number))
        return text is not None

    def announce(self, number: int) -> Procedure[None]:
        """As of ``Marks``."""
        if (yield from self.announced(number)):
            return
        self._mine.append(number)
        yield from ask_or_raise(self._place.write, passing_name(self._instance_id, number), "1")

    def forget(self) -> Procedure[None]:
        """As of ``Marks``: what this attempt has put up, and all others where they can be found. Best effort."""
        remove_run = getattr(self._place, "remove_run", None)
        if remove_run is not None:
            yield from ask(remove_run, self._instance_id)
            return
        for name in (self._hold, *(passing_name(self._instance_id, number) for number in self._mine)):
            yield from ask(self._place.remove, name)


def announced_pass(marks: Marks, number: int) -> Procedure[Permit]:
    """Look for a stop, announce a pass, look once more.

    An announcement is never taken back: another waiter of the run may have relied on it and sent the pass. So a stop
    that is put up between the two looks meets it, and nobody says of this checkpoint that the run is held there.

    Raises:
        Exception: whatever the marks raise; the checkpoint may not be passed then.
    """
    if (yield from marks.held()) is not None:
        return "held amid pass" if (yield from marks.announced(number)) else "held"
    yield from marks.announce(number)
    return "pass" if (yield from marks.held()) is None else "held amid pass"


def stop_from_outside(store: RunStore, run_key: str, instance_id: str, now: Now) -> Procedure[Holding | None]:
    """Put up a stop, by whoever cancels a run that somebody else may be waiting for.

    Returns:
        What tells whether the run is held; None where the stop stands nowhere.

    Raises:
        ValidationError: the record of the key names another instance.
    """
    hold = Hold("a cancel from outside", datetime.fromtimestamp(now.time(), timezone.utc))
    marks: StoredMarks | PlacedMarks = StoredMarks(store, run_key, instance_id)
    stands = yield from marks.hold(hold)
    place: MarkPlace | None = getattr(store, "mark_place", None)
    if place is not None:
        marks = PlacedMarks(place, instance_id, [])
        stands = yield from marks.hold(hold)
    return holding_of(marks, now.monotonic() + OWNER_ANSWER_SECONDS) if stands else None


def holding_of(marks: Marks | StoredMarks, since: float) -> Holding:
    """What tells a cancel whether a stop holds a run at its checkpoint.

    Args:
        marks: of the run, with the stop among them.
        since: monotonic seconds from which on a waiter that has not seen the stop can no longer send anything.
    """

    def stands() -> Procedure[bool]:
        return (yield from marks.held()) is not None

    return Holding(marks.announced, stands, since)


def stop_is_over(store: RunStore, instance_id: str) -> Procedure[None]:
    """Take the stop away again: the run has ended. The record keeps it."""
    place: MarkPlace | None = getattr(store, "mark_place", None)
    if place is not None:
        yield from PlacedMarks(place, instance_id, []).forget()


def _hold_in(text: str) -> Hold:
    """A hold from its stored form. Whatever stands there is one: somebody has put it up."""
    try:
        return msgspec.json.decode(text, type=Hold, dec_hook=instant_in_store)
    except (msgspec.MsgspecError, TypeError, ValueError):
        return Hold(by=text[:200])

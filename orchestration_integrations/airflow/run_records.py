"""Where Airflow keeps the record of a task's run, between its tries and over clears.

Airflow 3.3 has a task state store, which outlives tries, dying workers and clears. Older versions use a Variable for
each task instance. What Airflow refuses a process whose task was cleared stands in Variables on all versions: the mark
of a clear, and the word of a user who has settled an unknown fate.

**What the absence of a record proves.** The task state store has a record of everything, unless it is configured to
be emptied at each success. A Variable can be deleted, and on 3.x a read that fails looks the same. So the first try
leaves a note, before it does anything, that a record would stand here: absence proves something only beside that
note. Where neither is there, a later try takes it for possible that an earlier one has paid. A process that goes on
with a run, after a deferral, and finds no record of it, leaves no such note: it notes in the task state store that a
record was lost there.

**Compare and set.** Both places only read and write. Each saving is compared with what was read just before, which
keeps apart attempts that follow one another. Airflow starts no two tries of one task instance at a time.
"""

from __future__ import annotations

import hashlib
import json
import logging
from datetime import datetime, timezone
from typing import Any, Protocol

from ..api.errors import ConfigurationError, KeyReusedError, UnreadableRecordError
from ..ownership.keys import structured_key
from ..ownership.record import RunRecord, conflict, follows, tombstone
from ..ownership.resolve import How
from . import variables
from .attempt import Attempt, asked

logger = logging.getLogger("orchestration_integrations.airflow")

PREFIX = "orchestration_"
RUN = "run"
MARK = "mark"
SETTLED = "settled"
EVENT = "event"
INDEX = "index"
LONG_AGO = datetime(1970, 1, 1, tzinfo=timezone.utc)
STORES = ("auto", "variables", "none")


def digest_of(*parts: object) -> str:
    """Names a task instance in the names of Variables."""
    return hashlib.sha256(structured_key(*parts).encode()).hexdigest()[:32]


# ---- places ----------------------------------------------------------------------------------------


class Place(Protocol):
    """Where JSON values of one task instance stand, by name."""

    def read(self, name: str) -> Any:
        """The value; None where there is none."""
        ...

    def write(self, name: str, value: Any) -> None:
        """Store a value."""
        ...

    def write_first(self, name: str, value: Any) -> Any:
        """Store a value unless there is one; the one that stands."""
        ...


class StatePlace:
    """The task state store of Airflow 3.3."""

    def __init__(self, accessor: Any) -> None:
        self._accessor = accessor

    def read(self, name: str) -> Any:
        """The value; None where there is none."""
        return self._accessor.get(f"{PREFIX}{name}")

    def write(self, name: str, value: Any) -> None:
        """Store a value that never expires."""
        from .compat import NEVER_EXPIRE

        plain = json.loads(json.dumps(value))  # Airflow refuses tuples
        self._accessor.set(f"{PREFIX}{name}", plain, retention=NEVER_EXPIRE)

    def write_first(self, name: str, value: Any) -> Any:
        """Store a value unless there is one; the one that stands."""
        if self.read(name) is None:
            self.write(name, value)
        return self.read(name)


class VariablePlace:
    """Variables ``orchestration_<name>_<digest>`` of a task instance.

    Args:
        parts: what names the task instance; also stored, so that the Variables of DAG runs that are gone can be told.
        names: what stands in the digest, where that is not ``parts``.
    """

    def __init__(self, parts: tuple[str, str, str, int], names: tuple[object, ...] | None = None) -> None:
        self._parts = parts
        self._digest = digest_of(*(parts if names is None else names))

    def variable(self, name: str) -> str:
        """The name of a Variable."""
        kind, _, rest = name.partition("_")
        return f"{PREFIX}{kind}_{self._digest}" + (f"_{rest}" if rest else "")

    def read(self, name: str) -> Any:
        """The value; None where there is none. Raises ValueError where it cannot be read."""
        text = variables.read(self.variable(name))
        return None if text is None else self._value(name, text)

    def write(self, name: str, value: Any) -> None:
        """Store a value."""
        variables.write(self.variable(name), self._text(value), self._description())

    def write_first(self, name: str, value: Any) -> Any:
        """Store a value unless there is one; the one that stands."""
        stands = variables.write_first(self.variable(name), self._text(value), self._description())
        return self._value(name, stands)

    def _value(self, name: str, text: str) -> Any:
        stored = json.loads(text)
        if not isinstance(stored, dict) or "is" not in stored:
            raise ValueError(f"Variable {self.variable(name)} was not written by this package")
        return stored["is"]

    def _text(self, value: Any) -> str:
        return json.dumps({"of": list(self._parts), "is": value})

    def _description(self) -> str:
        dag_id, run_id, task_id, map_index = self._parts
        return f"Formance Orchestration: task {task_id}, map index {map_index}, of {dag_id} {run_id}"[:500]


# ---- records ---------------------------------------------------------------------------------------


class TaskRecords:
    """The record of one task instance: a RunStore with room for one key at a time.

    Args:
        place: where it stands.
        attempt: the try at work.
        vouches: the place loses nothing by itself, so that no note is needed.
    """

    def __init__(self, place: Place, attempt: Attempt, *, vouches: bool) -> None:
        self._place = place
        self._attempt = attempt
        self._vouches = vouches
        self._opened: datetime | None = LONG_AGO if vouches else None
        self._goes_on = False

    def go_on(self) -> None:
        """This process goes on with what its try has begun: where no record is, one was lost."""
        self._goes_on = True

    @property
    def complete_since(self) -> datetime | None:
        """From when on the absence of a record proves that nothing was done."""
        return self._opened if self._opened is not None else datetime.now(timezone.utc)

    def stored(self) -> RunRecord | None:
        """What is on record of the task instance, whatever its key.

        Raises:
            UnreadableRecordError: there is something, and it cannot be read.
        """
        kept = self._kept()
        return None if kept is None or kept["record"] is None else RunRecord.from_json(kept["record"])

    def load(self, key: str) -> RunRecord | None:
        """The record of the key. Leaves a note where there is none, so that a later try knows that this one looked."""
        record = self.stored()
        if record is None and self._goes_on:
            self._note_loss()
        elif record is None and self._opened is None:
            self._open()
        return record if record is not None and record.key == key else None

    def save(self, record: RunRecord) -> None:
        """Store a record that follows the stored one.

        Raises:
            RecordConflictError: another attempt has saved one meanwhile.
        """
        before = self._of(record.key)
        if not follows(before, record):
            raise conflict(record.key, before)
        self._write(record)

    def choose(self, key: str, round: int, instance_id: str) -> str:
        """The first choice of a round stands."""
        names = f"choice_{round}" if key == self._attempt.key else f"choice_{round}-{digest_of(key)[:12]}"
        chosen = self._place.write_first(names, instance_id)
        if not isinstance(chosen, str) or not chosen:
            raise self._unreadable(f"the choice of round {round} is {chosen!r}")
        return chosen

    def settle(self, key: str) -> None:
        """Have the next start of the key be a new round."""
        self._write(tombstone(self._of(key), key))

    @staticmethod
    def check_key(record: RunRecord | None, key: str, how: How) -> How:
        """Refuse another key than the one on record, while the run of that one may still be wanted.

        A key that is made by a template can change from one try to the next: the retry would be another payment.

        Args:
            record: what is on record of the task instance.
            key: of this try.
            how: what this try asks for.

        Returns:
            What is asked for, of this key.

        Raises:
            KeyReusedError: it is another key; nothing was started.
        """
        if record is None or record.key == key:
            return how
        if how == "new" and record.state == "told":
            return "again"  # a clear may bring another key, which others may have used
        raise KeyReusedError(
            f"this task has used run key {record.key} before, and now it is {key}: a retry with another key would be "
            f"another payment (instance {record.instance_id}). Restore the key; another one is taken once the task was "
            "cleared after it told how that run ended",
            run_key=key,
            differs="caller",
            instance_id=record.instance_id,
        )

    # Inside

    def _kept(self) -> dict[str, Any] | None:
        try:
            kept = self._place.read(RUN)
        except ValueError as error:
            raise self._unreadable(str(error)) from None
        if kept is None:
            return None
        if not isinstance(kept, dict) or set(kept) != {"opened", "record"}:
            raise self._unreadable("it was not written by this package")
        if not self._vouches or kept["record"] is None:
            try:
                self._opened = datetime.fromisoformat(kept["opened"])
            except (TypeError, ValueError):
                raise self._unreadable(f"its date is {kept['opened']!r}") from None
        return kept

    def _of(self, key: str) -> RunRecord | None:
        record = self.stored()
        return record if record is not None and record.key == key else None

    def _open(self) -> None:
        """Note that a record would stand here from now on; from ever, where no earlier try can have been."""
        first = asked(self._attempt, None) == "first"
        self._opened = LONG_AGO if first else datetime.now(timezone.utc)
        self._write(None)

    def _note_loss(self) -> None:
        """Note, in a place that would vouch, that absence proves nothing any more. Elsewhere nothing is written: it may
        only look as if nothing were there."""
        if self._vouches:
            self._opened = datetime.now(timezone.utc)
            self._write(None)

    def _write(self, record: RunRecord | None) -> None:
        opened = self.complete_since or LONG_AGO
        self._place.write(RUN, {"opened": opened.isoformat(), "record": None if record is None else record.to_json()})

    def _unreadable(self, why: str) -> UnreadableRecordError:
        return UnreadableRecordError(
            f"the record of this task's run cannot be read ({why}), so an earlier run may exist; nothing was started. "
            "Find out how that run ended, then remove the record",
            run_key=self._attempt.key,
        )


def records_of(attempt: Attempt, context: Any) -> TaskRecords | None:
    """The records of the running task; None where ``[orchestration] record_store`` is ``none``.

    Raises:
        ConfigurationError: that option names no store.
    """
    from .compat import conf

    kind = str(conf.get("orchestration", "record_store", fallback="auto")).strip().lower()
    if kind not in STORES:
        raise ConfigurationError(
            f"[orchestration] record_store: must be one of {', '.join(STORES)}, not {kind!r}", field="record_store"
        )
    if kind == "none":
        return None
    accessor = context.get("task_state_store") if kind == "auto" else None

    if accessor is None:
        return TaskRecords(VariablePlace(attempt.parts), attempt, vouches=False)
    emptied = bool(conf.getboolean("state_store", "clear_on_success", fallback=False))
    return TaskRecords(StatePlace(accessor), attempt, vouches=not emptied)


# ---- what stands in Variables on all versions --------------------------------------------------------


def mark_clear(attempt: Attempt) -> None:
    """Note that a user has cleared this try while it ran. The state store refuses this by then."""
    VariablePlace(attempt.parts).write(MARK, attempt.try_number)


def marked_try(attempt: Attempt) -> int | None:
    """The try that was cleared while it ran, as its killed process has noted."""
    try:
        found = VariablePlace(attempt.parts).read(MARK)
    except ValueError as error:
        logger.warning("the mark of a clear is ignored: %s", error)
        return None
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def settled_variable(parts: tuple[str, str, str, int]) -> str:
    """The name of the Variable by which a user settles an unknown fate."""
    return VariablePlace(parts).variable(SETTLED)


def settled_token(attempt: Attempt) -> str | None:
    """The token that a user has given for this task instance, by ``settle_run`` or by the command line."""
    text = variables.read(settled_variable(attempt.parts))
    return None if text is None else text.strip()


def check_index(attempt: Attempt, run_key: str) -> None:
    """Refuse a given key that two map indexes of one task share: each would take the other's payment for its own.

    Raises:
        KeyReusedError: another map index has it.
    """
    if attempt.map_index < 0:
        return
    place = VariablePlace(attempt.parts, (attempt.dag_id, attempt.run_id, attempt.task_id, "key", run_key))
    mine = {"index": attempt.map_index, **attempt.facts}
    stands = place.write_first(INDEX, mine)
    if stands == mine:
        return
    same_clear = isinstance(stands, dict) and all(stands.get(name) == value for name, value in attempt.facts.items())
    if same_clear and stands["index"] != attempt.map_index:
        raise KeyReusedError(
            f"run_key {run_key} is the key of map index {stands['index']} of this task too; nothing was started. Give "
            "each map index a key of its own, or leave run_key out",
            run_key=run_key,
            differs="caller",
        )
    place.write(INDEX, mine)  # the task was cleared, and its map indexes may stand for other payments now


class EventNote:
    """That an event is about to be sent by this task instance: in the state store, or in a Variable."""

    def __init__(self, attempt: Attempt, context: Any) -> None:
        accessor = context.get("task_state_store")
        self._place: Place = StatePlace(accessor) if accessor is not None else VariablePlace(attempt.parts)

    def read(self) -> Any:
        """What was noted before; None for nothing."""
        return self._place.read(EVENT)

    def write(self, about: dict[str, Any]) -> None:
        """Note what is about to be sent."""
        self._place.write(EVENT, about)

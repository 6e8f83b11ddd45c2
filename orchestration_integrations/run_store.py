"""Where records of runs are kept outside a framework: a SQLite file, or memory.

A file keeps processes of one machine apart: it compares before it stores, and the first choice of an instance
stands. A file on a network share keeps nobody apart, since locks of such files are not dependable.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone

import msgspec

from .api.errors import ConfigurationError, UnreadableRecordError, ValidationError
from .ownership.record import AdoptedElsewhereError, RunRecord, conflict, follows, tombstone
from .store_file import refuse_stranger, set_up

LOCK_SECONDS = 30.0
"""Seconds for which a process waits for another one's writing."""


class SqliteRunStore:
    """Records in one SQLite file, shared by many processes of one machine and many threads.

    Every record is on disk before a call returns. The absence of a record proves that a key was not used only since
    the file was created.

    Args:
        path: of the file; created with its folder's permissions where it is missing.

    Raises:
        ConfigurationError: the file cannot be opened, or it is the database of something else, or another file: then it
            was left as it is. ``field`` is ``path``.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        if not self.path or self.path == ":memory:" or self.path.startswith("file:"):
            raise ConfigurationError("path: must be the path of a file; for memory use MemoryRunStore", field="path")
        try:
            refuse_stranger(self.path, LOCK_SECONDS)
            with self._connection(create=True) as connection:
                set_up(connection, self.path)
        except (sqlite3.Error, OSError) as error:
            raise ConfigurationError(f"path: {self.path} cannot hold records of runs: {error}", field="path") from error

    def __repr__(self) -> str:
        return f"SqliteRunStore({self.path!r})"

    def __getstate__(self) -> dict[str, str]:
        # Another process may stand in another folder, where the same name is another file.
        return {"path": os.path.abspath(self.path)}

    @contextmanager
    def _connection(self, *, create: bool = False) -> Iterator[sqlite3.Connection]:
        """A connection for one use: safe between threads, and on both sides of a fork."""
        if not create and not os.path.exists(self.path):
            raise ConfigurationError(
                f"path: {self.path} was removed while it was in use; its records are lost", field="path"
            )
        connection = sqlite3.connect(self.path, timeout=LOCK_SECONDS, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous=FULL")
            yield connection
        finally:
            connection.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    @property
    def complete_since(self) -> datetime | None:
        """When the file was created. Read anew each time: the file may have been removed and made again."""
        with self._connection() as connection:
            row = connection.execute("SELECT value FROM about WHERE name = 'complete_since'").fetchone()
            return datetime.fromisoformat(row[0])

    def load(self, key: str) -> RunRecord | None:
        """The record of a key."""
        with self._connection() as connection:
            return _read(connection, key)

    def save(self, record: RunRecord) -> None:
        """Store a record that follows the stored one.

        Raises:
            RecordConflictError: another process has saved one meanwhile.
        """
        with self._writing() as connection:
            stored = _read(connection, record.key)
            if not follows(stored, record):
                raise conflict(record.key, stored)
            _write(connection, record)

    def choose(self, key: str, round: int, instance_id: str) -> str:
        """The first choice of a round stands.

        Raises:
            AdoptedElsewhereError: the instance is the run of another key, by the word of a user.
        """
        with self._writing() as connection:
            owner = connection.execute("SELECT value FROM about WHERE name = ?", (_adopted(instance_id),)).fetchone()
            if owner not in (None, (key,)):
                raise AdoptedElsewhereError(
                    f"instance {instance_id} is on record as the run of key {owner[0]}, so it is not that of key {key}",
                    path="instance_id",
                )
            connection.execute("INSERT OR IGNORE INTO choices VALUES (?, ?, ?)", (key, round, instance_id))
            row = connection.execute(
                "SELECT instance_id FROM choices WHERE key = ? AND round = ?", (key, round)
            ).fetchone()
            return str(row[0])

    def bind(self, record: RunRecord) -> None:
        """Choose the instance of a record for its round and store the record, both or neither.

        Args:
            record: names the instance that a user says is its run.

        Raises:
            RecordConflictError: another process has saved one meanwhile.
            ValidationError: the instance is the run of another key or round, or the round has another one.
        """
        with self._writing() as connection:
            stored = _read(connection, record.key)
            if not follows(stored, record):
                raise conflict(record.key, stored)
            owner = _owners(connection).get(str(record.instance_id))
            if owner not in (None, (record.key, record.round)):
                raise ValidationError(
                    f"instance {record.instance_id} is the run of key {owner[0]}, round {owner[1]}; nothing was "
                    "changed",
                    path="instance_id",
                )
            choice = (record.key, record.round, record.instance_id)
            connection.execute("INSERT OR IGNORE INTO choices VALUES (?, ?, ?)", choice)
            (chosen,) = connection.execute(
                "SELECT instance_id FROM choices WHERE key = ? AND round = ?", choice[:2]
            ).fetchone()
            if chosen != record.instance_id:
                raise ValidationError(
                    f"the run of key {record.key} is known: instance {chosen} was chosen for it; nothing was changed",
                    path="instance_id",
                )
            _write(connection, record)
            by = (_adopted(record.instance_id), record.key)
            connection.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", by)

    def settle(self, key: str) -> None:
        """Have the next start of a key be a new round."""
        with self._writing() as connection:
            _write(connection, tombstone(_read(connection, key), key))

    def forget(self, key: str) -> None:
        """Remove the record of a key whose run is over and was told.

        From now on the file proves of no key that was used before this moment that it was not: ``complete_since``
        becomes now.

        Args:
            key: the run key; one that is not on record is forgotten already.

        Raises:
            ValidationError: its run may go on, or nobody was told how it ended; nothing was removed.
        """
        with self._writing() as connection:
            stored = _read(connection, key)
            if stored is None:
                return
            refuse_needed(stored)
            _remove(connection, key)

    def forget_unreadable(self, key: str) -> None:
        """Remove a record that cannot be read, by the word of somebody who has found out how its run ended.

        ``complete_since`` becomes now, as by ``forget``.

        Raises:
            ValidationError: it can be read, or there is none; nothing was removed.
        """
        with self._writing() as connection:
            refuse_readable(key, _rows(connection).get(key))
            _remove(connection, key)

    def owners(self) -> Mapping[str, tuple[str, int]]:
        """Whose run each instance is that was ever chosen or put on record: by its id, the key and the round."""
        with self._connection() as connection:
            return _owners(connection)

    def records(self) -> Sequence[RunRecord]:
        """All records that can be read, the oldest first. ``unreadable`` names the others."""
        found = (one for one in self._rows().values() if isinstance(one, RunRecord))
        return tuple(sorted(found, key=lambda one: (one.since, one.key)))

    def unreadable(self) -> Mapping[str, UnreadableRecordError]:
        """Why records cannot be read, by their keys. ``load`` of such a key raises the same: nothing is started."""
        return {key: one for key, one in sorted(self._rows().items()) if isinstance(one, UnreadableRecordError)}

    def _rows(self) -> Mapping[str, RunRecord | UnreadableRecordError]:
        """Each row by itself: an odd one never costs the list."""
        with self._connection() as connection:
            return _rows(connection)


def refuse_needed(stored: RunRecord) -> None:
    """Refuse to remove a record that somebody still needs.

    Raises:
        ValidationError: its run may go on, or nobody was told how it ended.
    """
    over = stored.end is not None or stored.instance_id is None
    if stored.state != "told" and not (stored.settled and over):
        run = f"instance {stored.instance_id}" if stored.instance_id else "a run"
        raise ValidationError(
            f"run_key: the record of {stored.key} is needed: {run} may go on, or nobody was told how it ended. Call "
            "again with the key first, or cancel the run and settle the key",
            path="run_key",
        )


def refuse_readable(key: str, stored: RunRecord | UnreadableRecordError | None) -> None:
    """Refuse to remove what can be read by the word of somebody who says that it cannot.

    Raises:
        ValidationError: it can be read, or there is none.
    """
    if not isinstance(stored, UnreadableRecordError):
        raise ValidationError(
            f"run_key: there is no record of {key} that cannot be read; nothing was removed", path="run_key"
        )


def _adopted(instance_id: str | None) -> str:
    """The name of what says whose run an instance is by a user's word: the key."""
    return f"adopted/{instance_id}"


def _rows(connection: sqlite3.Connection) -> dict[str, RunRecord | UnreadableRecordError]:
    rows = connection.execute("SELECT key, record FROM runs").fetchall()
    return {str(key): _read_row(text) for key, text in rows}


def _owners(connection: sqlite3.Connection) -> dict[str, tuple[str, int]]:
    chosen = connection.execute("SELECT instance_id, key, round FROM choices").fetchall()
    owners = {str(instance_id): (str(key), int(number)) for instance_id, key, number in chosen}
    for one in _rows(connection).values():
        if isinstance(one, RunRecord) and one.instance_id is not None:
            owners[one.instance_id] = (one.key, one.round)
    return owners


def _remove(connection: sqlite3.Connection, key: str) -> None:
    connection.execute("DELETE FROM runs WHERE key = ?", (key,))
    connection.execute("DELETE FROM choices WHERE key = ?", (key,))
    connection.execute("DELETE FROM about WHERE name LIKE ? AND value = ?", (_adopted("%"), key))
    (text,) = connection.execute("SELECT value FROM about WHERE name = 'complete_since'").fetchone()
    since = max(datetime.fromisoformat(text), datetime.now(timezone.utc))  # a clock may have been set back
    connection.execute("UPDATE about SET value = ? WHERE name = 'complete_since'", (since.isoformat(),))


def _read_row(text: object) -> RunRecord | UnreadableRecordError:
    try:
        return RunRecord.from_json(text)
    except UnreadableRecordError as error:
        return error


def _read(connection: sqlite3.Connection, key: str) -> RunRecord | None:
    row = connection.execute("SELECT record FROM runs WHERE key = ?", (key,)).fetchone()
    return None if row is None else RunRecord.from_json(row[0])


def _write(connection: sqlite3.Connection, record: RunRecord) -> None:
    text = msgspec.json.encode(record.to_json()).decode()
    connection.execute("INSERT OR REPLACE INTO runs VALUES (?, ?)", (record.key, text))


class MemoryRunStore:
    """Records that end with the process: for tests, and for gated workflows, whose runs can be found again on the
    server. It vouches for nothing. It cannot be copied or pickled: two copies would not know of each other."""

    def __init__(self) -> None:
        self._records: dict[str, RunRecord] = {}
        self._choices: dict[tuple[str, int], str] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError(
            "a MemoryRunStore cannot be copied or pickled: what one copy starts the other would not know of; use a "
            "SqliteRunStore, which processes of one machine share"
        )

    @property
    def complete_since(self) -> datetime | None:
        """None: the absence of a record proves nothing."""
        return None

    def load(self, key: str) -> RunRecord | None:
        """The record of a key."""
        return self._records.get(key)

    def save(self, record: RunRecord) -> None:
        """Store a record that follows the stored one.

        Raises:
            RecordConflictError: another caller has saved one meanwhile.
        """
        with self._lock:
            stored = self._records.get(record.key)
            if not follows(stored, record):
                raise conflict(record.key, stored)
            self._records[record.key] = record

    def choose(self, key: str, round: int, instance_id: str) -> str:
        """The first choice of a round stands."""
        with self._lock:
            return self._choices.setdefault((key, round), instance_id)

    def settle(self, key: str) -> None:
        """Have the next start of a key be a new round."""
        with self._lock:
            self._records[key] = tombstone(self._records.get(key), key)

    def records(self) -> Sequence[RunRecord]:
        """All records, the oldest first."""
        with self._lock:
            return tuple(sorted(self._records.values(), key=lambda one: (one.since, one.key)))

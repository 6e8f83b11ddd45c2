"""Where the server's state lives: in this process alone, or written through to an SQLite file.

The working state is always the objects in memory; the engine says what it changed (`touch`) and `flush`
makes that durable in one transaction. In memory nothing has to be written. What is pending (delays,
retries, wake-ups) is state like any other, so a server started on the file goes on where the last one was.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from .record import Record
from .state import Instance, Trigger, Workflow, dump, load_instance

Entry = tuple[int, int, str, list[Any]]
_PUT = "INSERT OR REPLACE INTO things VALUES (?, ?, ?)"


class Store:
    """The state in memory: nothing to do. Also the interface of the other one."""

    def touch(self, thing: Workflow | Instance | Trigger) -> None:
        """It was created or changed."""

    def touch_meta(self) -> None:
        """Something else was changed: the ledger, a part of the server, the clock."""

    def event(self, entry: Entry) -> None:
        """A step became pending."""

    def event_done(self, seq: int) -> None:
        """It isn't any more."""

    def keep(self, record: Record) -> None:
        """Fill a record that is still empty with what earlier servers noted, and keep what is added to it."""

    def flush(self, meta: Any) -> None:
        """Make the changes durable; `meta()` gives the rest of the state as JSON values."""

    def load(self) -> tuple[list[Workflow], list[Instance], list[Trigger], list[Entry], dict[str, Any]] | None:
        """What the last server left; None: nothing."""
        return None

    def close(self) -> None:
        """Let go of the file; again is harmless."""


class SqliteStore(Store):
    """The state in a file, which is created if need be.

    Args:
        path: the file.
    """

    def __init__(self, path: str) -> None:
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute("CREATE TABLE IF NOT EXISTS things (kind TEXT, id TEXT, data TEXT, PRIMARY KEY (kind, id))")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS events (seq INTEGER PRIMARY KEY, due INTEGER, kind TEXT, args TEXT)"
        )
        self._db.execute("CREATE TABLE IF NOT EXISTS record (seq INTEGER PRIMARY KEY, name TEXT, entry TEXT)")
        self._record = Record()
        self._kept: dict[str, int] = {}
        self._things: dict[tuple[str, str], Any] = {}
        self._events: dict[int, Entry | None] = {}
        self._meta = False
        self._open = True

    def touch(self, thing: Workflow | Instance | Trigger) -> None:
        self._things[(type(thing).__name__, thing.id)] = thing

    def touch_meta(self) -> None:
        self._meta = True

    def event(self, entry: Entry) -> None:
        self._events[entry[1]] = entry

    def event_done(self, seq: int) -> None:
        self._events[seq] = None

    def keep(self, record: Record) -> None:
        for name, entry in self._db.execute("SELECT name, entry FROM record ORDER BY seq"):
            record.lists()[name].append(json.loads(entry))
        for (data,) in self._db.execute("SELECT data FROM things WHERE kind = 'counts'"):
            record.take_counts(json.loads(data))
        self._record = record
        self._kept = {name: len(entries) for name, entries in record.lists().items()}

    def _new_entries(self) -> list[tuple[str, Any]]:
        lists = self._record.lists().items()
        return [(name, one) for name, entries in lists for one in entries[self._kept.get(name, 0) :]]

    def flush(self, meta: Any) -> None:
        new = self._new_entries() if self._open else []
        if not self._open or not (self._things or self._events or self._meta or new):
            return
        self._db.execute("BEGIN")
        for (kind, key), thing in self._things.items():
            self._db.execute(_PUT, (kind, key, json.dumps(dump(thing))))
        for seq, entry in self._events.items():
            if entry is None:
                self._db.execute("DELETE FROM events WHERE seq = ?", (seq,))
            else:
                row = (seq, entry[0], entry[2], json.dumps(entry[3]))
                self._db.execute("INSERT OR REPLACE INTO events VALUES (?, ?, ?, ?)", row)
        if self._meta:
            self._db.execute(_PUT, ("meta", "", json.dumps(meta())))
        for name, entry in new:
            self._db.execute("INSERT INTO record (name, entry) VALUES (?, ?)", (name, json.dumps(entry)))
            self._kept[name] = self._kept.get(name, 0) + 1
        self._put_counts()
        self._db.execute("COMMIT")
        self._things, self._events, self._meta = {}, {}, False

    def _put_counts(self) -> None:
        self._db.execute(_PUT, ("counts", "", json.dumps(self._record.counts())))

    def load(self) -> tuple[list[Workflow], list[Instance], list[Trigger], list[Entry], dict[str, Any]] | None:
        found: dict[str, list[Any]] = {"Workflow": [], "Instance": [], "Trigger": [], "meta": []}
        for kind, data in self._db.execute("SELECT kind, data FROM things WHERE kind != 'counts' ORDER BY rowid"):
            found[kind].append(json.loads(data))
        if not found["meta"] and not found["Workflow"]:
            return None
        entries = [
            (due, seq, kind, json.loads(args))
            for seq, due, kind, args in self._db.execute("SELECT seq, due, kind, args FROM events")
        ]
        return (
            [Workflow(**d) for d in found["Workflow"]],
            [load_instance(d) for d in found["Instance"]],
            [Trigger(**d) for d in found["Trigger"]],
            entries,
            found["meta"][0] if found["meta"] else {},
        )

    def close(self) -> None:
        if self._open:
            self._open = False
            self._put_counts()  # reads count, and change nothing else
            self._db.close()

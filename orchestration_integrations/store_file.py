"""The file of a SqliteRunStore: which file is one, told before anything is written to it.

SQLite opens whatever database it is given, and a store that made its tables there would mix records of payments into
the data of a stranger. So a store's file has a mark, ``PRAGMA application_id``, and a file without the mark is a store
only if it is new, or if an earlier version made it: then it has the tables of a store and no other, and gets the mark.

A look must leave no trace in a stranger's file, and SQLite leaves some: a reader makes the files beside a database in
WAL mode, and whoever closes it last writes the log back. So the mark is read from the first bytes of the file. It is
there from the first transaction on, since that is over before the file goes to WAL. Only a file without it is opened:
as one that nobody changes, unless a log lies beside it already, which may hold what the file does not say yet.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path

from .api.errors import ConfigurationError

MARK = 0x0F0C_5701
"""``PRAGMA application_id`` of a store's file."""

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS runs (key TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS choices ("
    "key TEXT NOT NULL, round INTEGER NOT NULL, instance_id TEXT NOT NULL, PRIMARY KEY (key, round)) STRICT",
    "CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
)
_Columns = list[tuple[str, str, int]]
_TABLES: dict[str, _Columns] = {
    "runs": [("key", "TEXT", 1), ("record", "TEXT", 0)],
    "choices": [("key", "TEXT", 1), ("round", "INTEGER", 2), ("instance_id", "TEXT", 0)],
    "about": [("name", "TEXT", 1), ("value", "TEXT", 0)],
}
"""Name, type and place in the primary key of each column. All are NOT NULL."""
_HEADER, _MARK_AT = b"SQLite format 3\0", 68


def refuse_stranger(path: str, seconds: float) -> None:
    """See whether a file can be a store, and leave it as it is.

    Args:
        path: of the file; it may be missing.
        seconds: for which another process's writing is waited for.

    Raises:
        ConfigurationError: it is something else.
        sqlite3.Error, OSError: it cannot be read.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise _refused(path, "it is no file")
        with open(path, "rb") as file:
            head = file.read(_MARK_AT + 4)
    except FileNotFoundError:
        return
    if not head or int.from_bytes(head[_MARK_AT:], "big") == MARK:
        return
    if not head.startswith(_HEADER):
        raise _refused(path, "it is no SQLite database")
    logged = any(os.path.exists(path + end) for end in ("-wal", "-journal"))
    uri = f"{Path(os.path.abspath(path)).as_uri()}?mode=ro{'' if logged else '&immutable=1'}"
    with closing(sqlite3.connect(uri, uri=True, timeout=seconds)) as connection:
        _check(connection, path)


def set_up(connection: sqlite3.Connection, path: str) -> None:
    """Make a file a store: its mark and its tables, where they are missing.

    Args:
        connection: to the file, outside of a transaction.
        path: of the file, for messages.

    Raises:
        ConfigurationError: it has become something else meanwhile, or its tables are not those of a store.
        sqlite3.Error: it cannot be written.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        if _check(connection, path) != MARK:
            connection.execute(f"PRAGMA application_id = {MARK}")
        for table in _SCHEMA:
            connection.execute(table)
        connection.execute(
            "INSERT OR IGNORE INTO about VALUES ('complete_since', ?)", (datetime.now(timezone.utc).isoformat(),)
        )
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):  # else another process does the same, or will
            raise


def _check(connection: sqlite3.Connection, path: str) -> int:
    """The mark of a database, which is a store or empty."""
    (mark,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    names = {
        name
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        )
    }
    if mark != MARK and (mark or version or (names and names != set(_TABLES))):
        raise _refused(path, "it is the database of something else")
    for name in names & set(_TABLES):
        if _columns(connection, name) != _TABLES[name]:
            raise _refused(path, f"its table {name} is not that of a store")
    return int(mark)


def _columns(connection: sqlite3.Connection, table: str) -> _Columns:
    rows = connection.execute(f"PRAGMA table_info({table})").fetchall()
    # A part of a STRICT table's key cannot be NULL; not every SQLite says so of it.
    return [(name, kind, key) for _, name, kind, notnull, _, key in rows if notnull or key]


def _refused(path: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"path: {path} cannot hold records of runs: {why}; it was left as it is. Name a file of a store, or one that "
        "is not there yet and will be made",
        field="path",
    )

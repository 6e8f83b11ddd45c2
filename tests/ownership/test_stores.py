"""Where records are kept: compare before a save, the first choice stands, nothing is deleted."""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timezone
from threading import Barrier

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration_integrations import (
    ConfigurationError,
    MemoryRunStore,
    RecordConflictError,
    RunRecord,
    SqliteRunStore,
    UnreadableRecordError,
)
from orchestration_integrations.procedures.content import Content
from orchestration_integrations.store_file import MARK
from tests.commands import environment

NOW = datetime(2030, 1, 1, tzinfo=timezone.utc)


def record(key="k", **changes):
    plain = RunRecord(
        key=key,
        state="intended",
        workflow_id="w",
        server="http://s",
        since=NOW,
        content=Content(stages="0" * 8, variables={"amount": "1" * 12}),
    )
    return plain.changed(**changes)


@pytest.fixture(params=["sqlite", "memory"])
def store(request, tmp_path):
    return SqliteRunStore(tmp_path / "runs.db") if request.param == "sqlite" else MemoryRunStore()


def test_a_record_is_stored_and_found(store):
    assert store.load("k") is None
    first = record()
    store.save(first)
    assert store.load("k") == first
    second = first.changed(state="chosen", instance_id="i", seen=True, created_at=NOW, passing=(2,))
    store.save(second)
    assert store.load("k") == second
    assert store.records() == (second,)


def test_an_odd_row_costs_no_other(tmp_path):
    store = SqliteRunStore(tmp_path / "runs.db")
    kept = record("good")
    store.save(kept)
    store.save(record("later"))
    with sqlite3.connect(store.path) as connection:
        connection.execute("UPDATE runs SET record = json_set(record, '$.version', 2) WHERE key = 'later'")
        connection.execute("INSERT INTO runs VALUES ('odd', 'no record')")
    assert store.records() == (kept,)
    assert list(store.unreadable()) == ["later", "odd"]
    assert "version is 2" in str(store.unreadable()["later"])
    with pytest.raises(UnreadableRecordError):
        store.load("odd")


def test_a_save_from_an_old_record_is_refused(store):
    first = record()
    store.save(first)
    mine, theirs = first.changed(attempt="mine"), first.changed(attempt="theirs")
    store.save(theirs)
    with pytest.raises(RecordConflictError, match="theirs") as caught:
        store.save(mine)
    assert caught.value.run_key == "k"
    assert store.load("k") == theirs
    with pytest.raises(RecordConflictError):
        store.save(record())


def test_the_same_saving_again_knows_itself(store):
    first = record()
    store.save(first)
    store.save(first)
    second = first.changed(state="chosen", instance_id="i")
    store.save(second)
    store.save(second)
    assert store.load("k") == second


def test_the_first_choice_stands(store):
    assert store.choose("k", 0, "one") == "one"
    assert store.choose("k", 0, "two") == "one"
    assert store.choose("k", 1, "two") == "two"
    assert store.choose("other", 0, "two") == "two"


def test_settling_deletes_nothing(store):
    store.settle("never used")
    assert store.load("never used").settled
    first = record()
    store.save(first)
    store.save(first.changed(state="chosen", instance_id="i"))
    store.settle("k")
    kept = store.load("k")
    assert (kept.settled, kept.instance_id, kept.state) == (True, "i", "chosen")


def test_what_each_store_vouches_for(tmp_path):
    assert MemoryRunStore().complete_since is None
    before = datetime.now(timezone.utc)
    made = SqliteRunStore(tmp_path / "runs.db").complete_since
    assert before <= made <= datetime.now(timezone.utc)
    assert SqliteRunStore(tmp_path / "runs.db").complete_since == made


@pytest.mark.parametrize("path", ["", ":memory:", "file:x?mode=memory"])
def test_a_path_that_is_no_file_is_refused(path):
    with pytest.raises(ConfigurationError) as caught:
        SqliteRunStore(path)
    assert caught.value.field == "path"


def test_a_file_that_is_no_store_is_refused(tmp_path):
    (tmp_path / "runs.db").write_text("not a database, " * 100)
    with pytest.raises(ConfigurationError, match=r"runs\.db"):
        SqliteRunStore(tmp_path / "runs.db")
    with pytest.raises(ConfigurationError):
        SqliteRunStore(tmp_path / "no" / "such" / "folder" / "runs.db")


# ---- whose file it is --------------------------------------------------------------------------------

MADE_EARLIER = """
PRAGMA journal_mode=WAL;
CREATE TABLE IF NOT EXISTS runs (key TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS choices (
    key TEXT NOT NULL, round INTEGER NOT NULL, instance_id TEXT NOT NULL, PRIMARY KEY (key, round)
) STRICT;
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
INSERT INTO about VALUES ('complete_since', '2029-01-01T00:00:00+00:00');
"""


def made(path, script):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(script)
    return path


def mark_of(path):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA application_id").fetchone()[0]


def everything_in(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize(
    "script",
    [
        "CREATE TABLE users (a)",
        "CREATE TABLE runs (a)",
        "CREATE VIEW users AS SELECT 1",
        "PRAGMA application_id = 7",
        "PRAGMA user_version = 7",
        "CREATE TABLE users (a); PRAGMA journal_mode=WAL",
        MADE_EARLIER + "CREATE TABLE users (a)",
        MADE_EARLIER + "DROP TABLE choices",
        MADE_EARLIER.replace("record TEXT NOT NULL", "record TEXT"),
        MADE_EARLIER.replace("(key, round)", "(round, key)"),
        f"PRAGMA application_id = {MARK}; CREATE TABLE runs (a)",
    ],
)
def test_a_database_of_something_else_is_refused_and_left_as_it_is(tmp_path, script):
    path = made(tmp_path / "app ?#%.db", script)
    before = everything_in(tmp_path)
    with pytest.raises(ConfigurationError, match=r"it was left as it is\. Name a file") as caught:
        SqliteRunStore(path)
    assert caught.value.field == "path"
    assert everything_in(tmp_path) == before


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_a_database_that_is_in_use_is_left_as_it_is(tmp_path, mode):
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as theirs:
        theirs.executescript(f"PRAGMA journal_mode={mode}; CREATE TABLE users (a);")
        before = {name: data for name, data in everything_in(tmp_path).items() if not name.endswith("-shm")}
        with pytest.raises(ConfigurationError, match="something else"):
            SqliteRunStore(path)
        after = everything_in(tmp_path)
        assert {name: data for name, data in after.items() if not name.endswith("-shm")} == before
        theirs.execute("INSERT INTO users VALUES (1)")


@pytest.mark.parametrize("path", ["/dev/null", "/dev/zero", "."])
def test_what_is_no_file_is_refused(path):
    with pytest.raises(ConfigurationError, match="it is no file"):
        SqliteRunStore(path)


@pytest.mark.parametrize("in_use", [False, True])
def test_a_store_of_an_earlier_version_is_taken_and_marked(tmp_path, in_use):
    path, kept = tmp_path / "runs.db", record()
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.executescript(MADE_EARLIER)
        old.execute("INSERT INTO runs VALUES ('k', ?)", (json.dumps(kept.to_json()),))
        if not in_use:
            old.close()
        store = SqliteRunStore(path)
        assert store.load("k") == kept
        assert store.complete_since == datetime(2029, 1, 1, tzinfo=timezone.utc)
        assert mark_of(path) == MARK
        assert SqliteRunStore(path).load("k") == kept


def test_a_new_store_is_marked_at_once_and_in_its_first_bytes(tmp_path):
    (tmp_path / "empty.db").touch()
    made(tmp_path / "bare.db", "CREATE TABLE x (a); DROP TABLE x;")
    for name in ("new.db", "empty.db", "bare.db"):
        SqliteRunStore(tmp_path / name).save(record())
        assert mark_of(tmp_path / name) == MARK
        assert int.from_bytes((tmp_path / name).read_bytes()[68:72], "big") == MARK


def test_many_make_one_store_at_the_same_moment(tmp_path):
    start = Barrier(8)

    def make(number):
        start.wait(30)
        return SqliteRunStore(tmp_path / f"{number // 8}.db").complete_since

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(make, range(8 * 40)))) == 40


# ---- the stored form -------------------------------------------------------------------------------

texts = st.text(max_size=20)
records = st.builds(
    RunRecord,
    key=st.text(min_size=1),
    state=st.sampled_from(["intended", "chosen", "ended", "told"]),
    workflow_id=texts,
    server=texts,
    since=st.datetimes(timezones=st.just(timezone.utc)),
    content=st.builds(
        Content, stages=texts, variables=st.dictionaries(texts, texts), workflow_id=st.none() | texts, format=texts
    ),
    round=st.integers(0, 10**6),
    gate=texts,
    instance_id=st.none() | texts,
    end=st.none() | texts,
    seen=st.booleans(),
    created_at=st.none() | st.datetimes(timezones=st.just(timezone.utc)),
    hold=st.booleans(),
    passing=st.lists(st.integers(0, 50)).map(tuple),
    settled=st.booleans(),
    attempt=texts,
    returned=st.booleans(),
    told_by=texts,
    facts=st.dictionaries(texts, st.none() | st.integers(-(2**53), 2**53) | texts),
    revision=st.integers(0, 10**6),
    nonce=texts,
)


@given(records)
def test_a_record_survives_its_stored_form(one):
    stored = one.to_json()
    assert RunRecord.from_json(stored) == one
    assert RunRecord.from_json(json.dumps(stored)) == one


class Pendulum(datetime):
    """What pendulum and pandas give, and what stands for ``datetime`` while a test freezes the time."""


@given(records, st.data())
def test_a_datetime_of_any_class_is_stored(one, data):
    of_class = st.datetimes(timezones=st.just(timezone.utc)).map(
        lambda at: Pendulum.combine(at.date(), at.time(), tzinfo=timezone.utc)
    )
    changed = one.changed(since=data.draw(of_class), created_at=data.draw(of_class), held_since=data.draw(of_class))
    assert RunRecord.from_json(changed.to_json()) == changed
    assert RunRecord.from_json(json.dumps(changed.to_json())) == changed


FROZEN = """
from freezegun import freeze_time
{first}
from orchestration_integrations import MemoryRunStore, OrchestrationHttpHook, SqliteRunStore
from orchestration_integrations.server import EmbeddedServer

PAYS = {{
    "name": "pays",
    "stages": [
        {{
            "send": {{
                "source": {{"account": {{"id": "world"}}}},
                "destination": {{"account": {{"id": "shop"}}}},
                "amount": {{"amount": "5", "asset": "USD/2"}},
            }}
        }}
    ]
    * 2,
}}
with EmbeddedServer(2) as server, OrchestrationHttpHook(base_url=server.url) as hook:
    for number, store in enumerate((SqliteRunStore("runs.db"), MemoryRunStore())):
        pay = lambda: hook.run_once(PAYS, run_key=f"k{{number}}", store=store, checkpoints=True, poll_interval=0.2)
        with freeze_time("2020-02-29"):
            paid = pay()
            assert store.load(f"k{{number}}").end == "succeeded"
        assert pay().instance.id == paid.instance.id, "the record is read after the freeze too"
        if number == 0:
            created = store.complete_since
            with freeze_time("1999-12-31"):
                store.forget("k0")
            assert store.complete_since == created, "a clock that is set back proves nothing of earlier keys"
    assert server.balance("shop", "USD/2") == 20
"""


@pytest.mark.parametrize(
    "first", ["", "with freeze_time('2020-02-29'): import orchestration_integrations.ownership.marks"]
)
def test_a_payment_under_frozen_time_has_a_record(tmp_path, first):
    """In a process of its own, where no record was read before the freeze; imported before it, or in it."""
    pytest.importorskip("freezegun")
    done = subprocess.run(
        [sys.executable, "-c", FROZEN.format(first=first)],
        capture_output=True, text=True, env=environment(), cwd=tmp_path, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_fields_of_a_later_version_are_kept():
    stored = {**record().to_json(), "colour": "blue"}
    again = RunRecord.from_json(stored).changed(state="chosen", instance_id="i").to_json()
    assert again["colour"] == "blue"


@pytest.mark.parametrize(
    "stored",
    [
        "{",
        "[]",
        "null",
        {},
        {"version": 1, "key": "k"},
        {**record().to_json(), "version": 2},
        {**record().to_json(), "state": "dreamt"},
        {**record().to_json(), "revision": "many"},
    ],
)
def test_what_cannot_be_read_is_an_error_and_no_guess(stored):
    with pytest.raises(UnreadableRecordError) as caught:
        RunRecord.from_json(stored)
    assert caught.value.field == "record"


def test_an_unreadable_row_stops_a_load(tmp_path):
    store = SqliteRunStore(tmp_path / "runs.db")
    store.save(record())
    with sqlite3.connect(tmp_path / "runs.db") as connection:
        connection.execute("UPDATE runs SET record = '{}'")
    with pytest.raises(UnreadableRecordError):
        store.load("k")


# ---- side by side ----------------------------------------------------------------------------------


def _choose_and_append(path, number, results):
    store = SqliteRunStore(path)
    won = store.choose("k", 0, f"instance-{number}")
    saved = 0
    for _ in range(20):
        while True:
            stored = store.load("k")
            mine = record(attempt=str(number)) if stored is None else stored.changed(attempt=str(number))
            try:
                store.save(mine)
            except RecordConflictError:
                continue
            saved += 1
            break
    results.put((won, saved))


def test_processes_side_by_side_lose_nothing(tmp_path):
    path = str(tmp_path / "runs.db")
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    workers = [context.Process(target=_choose_and_append, args=(path, number, results)) for number in range(4)]
    for one in workers:
        one.start()
    answers = [results.get(timeout=60) for _ in workers]
    for one in workers:
        one.join(30)
    assert len({won for won, _ in answers}) == 1
    assert SqliteRunStore(path).load("k").revision == sum(saved for _, saved in answers) == 80

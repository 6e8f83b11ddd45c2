"""The trigger that tells the ends of a workflow: W3, and what a restart of the triggerer does."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from orchestration_integrations import AsyncOrchestrationHttpHook, OrchestrationHttpHook
from orchestration_integrations.airflow import ended_watch, hooks
from orchestration_integrations.airflow.compat import AirflowNotFoundException, asset_stores
from orchestration_integrations.airflow.ended_memory import key_of
from orchestration_integrations.airflow.ended_runs import EndedRuns
from orchestration_integrations.airflow.triggers import OrchestrationInstanceEndedTrigger
from orchestration_integrations.server import EmbeddedServer
from tests.airflow.framework import Connection
from tests.airflow.harness import SHORT, define

SLOW = {"name": "slow", "stages": [{"wait_event": {"event": "go"}}]}


@pytest.fixture(autouse=True)
def airflow_takes_an_event_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ended_watch, "KEEP_AFTER", 0.1)


class Watching:
    """A trigger at work on an event loop, as in a triggerer."""

    def __init__(self, workflow_id: str, store: Any = None, **arguments: Any) -> None:
        self.trigger = OrchestrationInstanceEndedTrigger(workflow_id, **{"poll_interval": 0.1, **arguments})
        if store is not None:
            self.trigger.asset_state_store = store
        self.events: list[Any] = []

    async def __aenter__(self) -> Watching:
        self._task = asyncio.create_task(self._collect())
        await asyncio.sleep(0.5)
        return self

    async def _collect(self) -> None:
        async for event in self.trigger.run():
            self.events.append(json.loads(json.dumps(event.payload)))

    @property
    def told(self) -> list[dict[str, Any]]:
        return [instance for event in self.events for instance in event["instances"]]

    @property
    def told_ids(self) -> list[str]:
        return sorted(one["instance_id"] for one in self.told)

    async def until_told(self, count: int) -> None:
        for _ in range(600):
            if len(self.told) >= count:
                break
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.4)  # nothing is told twice
        assert len(self.told) == count

    async def __aexit__(self, *_: object) -> None:
        assert not self._task.done()
        self._task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self._task


async def pay(server: Any, workflow_id: str, count: int = 1) -> list[str]:
    """Runs of a workflow that have ended."""
    async with AsyncOrchestrationHttpHook(base_url=server.url) as http:
        ids = [(await http.run_workflow(workflow_id, {"to": "merchants:1"})).id for _ in range(count)]
        for one in ids:
            await http.wait(one, timeout=30)
    return ids


def connect(patch: pytest.MonkeyPatch, **fields: Any) -> None:
    patch.setenv("AIRFLOW_CONN_ORCHESTRATION_DEFAULT", json.dumps({"conn_type": "orchestration", **fields}))


def test_ends_of_a_workflow_are_told_once_each(server: Any) -> None:
    workflow_id = define(server, SHORT, gate=False)

    async def watch() -> None:
        await pay(server, workflow_id)
        async with Watching(workflow_id) as watching:
            ids = await pay(server, workflow_id, 2)
            await watching.until_told(2)
            assert sorted(one["instance_id"] for one in watching.told) == sorted(ids)
            assert {one["state"] for one in watching.told} == {"succeeded"}
            assert {event["workflow_id"] for event in watching.events} == {workflow_id}

    time.sleep(1.1)
    asyncio.run(watch())


def test_a_rotated_secret_is_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """W3 (a)."""
    with EmbeddedServer(2, token="new") as server:
        with OrchestrationHttpHook(base_url=server.url, token="new") as http:
            workflow_id = http.ensure_workflow(SHORT).workflow.id
        connect(monkeypatch, host=server.url, extra=json.dumps({"token": "old"}))

        async def watch() -> None:
            async with Watching(workflow_id) as watching:
                connect(monkeypatch, host=server.url, extra=json.dumps({"token": "new"}))
                async with AsyncOrchestrationHttpHook(base_url=server.url, token="new") as http:
                    one = (await http.run_workflow(workflow_id, {"to": "merchants:1"})).id
                    await http.wait(one, timeout=30)
                await watching.until_told(1)
                assert watching.told[0]["instance_id"] == one

        asyncio.run(watch())


def test_ends_of_one_poll_are_one_event(server: Any) -> None:
    """W3 (b): Airflow would join several into one DAG run, which sees one of them."""
    workflow_id = define(server, SHORT, gate=False)

    async def watch() -> None:
        async with Watching(workflow_id, poll_interval=3.0) as watching:
            ids = await pay(server, workflow_id, 3)
            await watching.until_told(3)
            assert len(watching.events) <= 2
            assert sorted(one["instance_id"] for one in watching.told) == sorted(ids)

    asyncio.run(watch())


def test_a_missing_connection_is_told_once_and_does_not_end_the_trigger(
    server: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """W3 (c)."""
    workflow_id = define(server, SHORT, gate=False)
    conn_id = "orchestration_gone"
    connected: list[bool] = []

    async def connection(name: str, **_: Any) -> Any:
        if not connected:
            raise AirflowNotFoundException(f"The conn_id `{name}` isn't defined")
        return Connection(conn_id=name, conn_type="orchestration", host=server.url)

    monkeypatch.setattr(hooks, "get_async_connection", connection)

    async def watch() -> None:
        async with Watching(workflow_id, orchestration_conn_id=conn_id) as watching:
            await asyncio.sleep(0.5)
            connected.append(True)
            ids = await pay(server, workflow_id)
            await watching.until_told(1)
            assert watching.told[0]["instance_id"] == ids[0]

    with caplog.at_level("WARNING"):
        asyncio.run(watch())
    said = [one for one in caplog.records if "no end is told" in one.getMessage()]
    assert len(said) == 1
    assert conn_id in said[0].getMessage()
    assert said[0].exc_info is None


def test_an_end_before_the_first_list_that_could_be_read_is_told(server: Any) -> None:
    """W3 (d)."""
    workflow_id = define(server, SHORT, gate=False)

    async def watch() -> None:
        before = await pay(server, workflow_id)
        await asyncio.sleep(1.1)
        server.fault("list_instances", "status", 1000, code=403)
        async with Watching(workflow_id) as watching:
            ids = await pay(server, workflow_id)
            assert watching.told == []
            server.clear_faults()
            await watching.until_told(1)
            assert [one["instance_id"] for one in watching.told] == ids != before

    asyncio.run(watch())


@pytest.mark.parametrize("generation", [1, 2, 3])
def test_an_unknown_workflow_is_told_once(server: Any, caplog: pytest.LogCaptureFixture, generation: int) -> None:
    """W3 (e)."""
    unknown = "0e7f1d7e-0000-4000-8000-000000000000"

    async def watch() -> None:
        async with Watching(unknown):
            await asyncio.sleep(1.0)

    with caplog.at_level("ERROR"):
        asyncio.run(watch())
    assert sum(f"workflow {unknown}" in one.getMessage() for one in caplog.records) == 1


class Listed:
    """A server with a long history, as the trigger's hook shows it; counts the pages that were read."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows
        self.pages = 0
        self.plans = SimpleNamespace(clock=SimpleNamespace(server_time=time.time))

    async def get_workflow(self, workflow_id: str) -> Any:
        return SimpleNamespace(id=workflow_id, deleted_at=None)

    async def list_instances(self, workflow_id: str, running: bool | None = None) -> list[Any]:
        rows = [row for row in self.rows if running is None or row.terminated is not running]
        self.pages += 1 + len(rows) // 100
        return rows

    async def get_instance(self, instance_id: str) -> Any:
        return next(row for row in self.rows if row.id == instance_id)


def test_the_cost_of_a_poll_does_not_grow_with_the_history() -> None:
    """W3 (e): 3,000 ended rows, 100 polls: two to three pages a poll, and no end is lost or told twice."""
    long_ago = datetime.fromtimestamp(1e9, timezone.utc)

    def row(number: int, ended_at: datetime | None) -> Any:
        return SimpleNamespace(
            id=f"i{number}", terminated=ended_at is not None, terminated_at=ended_at, updated_at=long_ago
        )

    listed = Listed([row(number, long_ago) for number in range(3000)])
    runs = EndedRuns("w")

    async def polls() -> list[str]:
        told: list[str] = []
        for number in range(100):
            ended = (await runs.poll(listed)).ended  # type: ignore[arg-type]
            told += [one.id for one in ended]
            runs.told(ended)
            if number < 80:
                listed.rows.append(row(10_000 + number, datetime.now(timezone.utc)))
        return told

    told = asyncio.run(polls())
    assert sorted(told) == sorted(f"i{10_000 + number}" for number in range(80))
    assert listed.pages <= 100 * 2.5


# ---- restarts ------------------------------------------------------------------------------------------


class AssetState:
    """What Airflow 3.3 gives a trigger: the state of one asset, kept as JSON."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}
        self.broken: set[str] = set()
        self.writes = 0

    async def aget(self, key: str, default: Any = None) -> Any:
        if "get" in self.broken:
            raise RuntimeError("the API server is away")
        return json.loads(self.kept[key]) if key in self.kept else default

    async def aset(self, key: str, value: Any) -> None:
        if "set" in self.broken:
            raise RuntimeError("the API server is away")
        self.writes += 1
        self.kept[key] = json.dumps(value)


@pytest.mark.parametrize("generation", [1, 2, 3])
def test_a_restart_goes_on_and_tells_what_has_ended_meanwhile(server: Any, generation: int) -> None:
    workflow_id = define(server, SHORT, gate=False)
    store = AssetState()

    async def watch() -> None:
        async with Watching(workflow_id, store) as watching:
            first = await pay(server, workflow_id, 2)
            await watching.until_told(2)
            assert watching.told_ids == sorted(first)
        second = await pay(server, workflow_id, 3)
        for number in range(3):
            async with Watching(workflow_id, store) as watching:
                await watching.until_told(0 if number else 3)
                assert watching.told_ids == ([] if number else sorted(second))

    asyncio.run(watch())


def test_what_began_before_a_restart_and_ended_while_no_list_could_be_read_is_told(server: Any) -> None:
    """W3 (d), over a restart: the instant of the first start counts, though the server could not be reached."""
    workflow_id = define(server, SHORT, gate=False)
    store = AssetState()

    async def watch() -> None:
        server.fault("list_instances", "status", 1000, code=403)
        async with Watching(workflow_id, store) as watching:
            ids = await pay(server, workflow_id)
        assert watching.told == []
        await asyncio.sleep(1.0)
        server.clear_faults()
        async with Watching(workflow_id, store) as watching:
            await watching.until_told(1)
            assert watching.told_ids == ids

    asyncio.run(watch())


def test_a_quiet_workflow_writes_nothing(server: Any) -> None:
    workflow_id = define(server, SHORT, gate=False)
    store = AssetState()

    async def watch() -> None:
        async with Watching(workflow_id, store):
            writes = store.writes
            await asyncio.sleep(1.0)
            assert store.writes == writes <= 3  # the list of watchers, and what is known at first and by the first poll

    asyncio.run(watch())


def test_without_a_store_a_restart_begins_anew(server: Any) -> None:
    """Airflow before 3.3."""
    workflow_id = define(server, SHORT, gate=False)

    async def watch() -> None:
        async with Watching(workflow_id) as watching:
            await pay(server, workflow_id)
            await watching.until_told(1)
        await pay(server, workflow_id)
        await asyncio.sleep(1.1)
        async with Watching(workflow_id) as watching:
            await watching.until_told(0)
            ids = await pay(server, workflow_id)
            await watching.until_told(1)
            assert watching.told_ids == ids

    asyncio.run(watch())


def test_a_store_that_cannot_be_read_is_read_later_and_is_not_overwritten(
    server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    workflow_id = define(server, SHORT, gate=False)
    store = AssetState()

    async def watch() -> None:
        async with Watching(workflow_id, store) as watching:
            await pay(server, workflow_id)
            await watching.until_told(1)
        down = await pay(server, workflow_id)
        await asyncio.sleep(1.1)
        store.broken = {"get"}
        kept = dict(store.kept)
        async with Watching(workflow_id, store) as watching:
            up = await pay(server, workflow_id)
            await watching.until_told(1)
            assert watching.told_ids == up
            assert store.kept == kept
            store.broken = set()
            await watching.until_told(2)
            assert watching.told_ids == sorted(up + down)

    with caplog.at_level("INFO"):
        asyncio.run(watch())
    said = [one.getMessage() for one in caplog.records]
    assert sum("out of reach" in one for one in said) == 1
    assert sum("is kept again" in one for one in said) == 1


def test_a_store_that_cannot_be_written_repeats_after_a_restart(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    workflow_id = define(server, SHORT, gate=False)
    store = AssetState()

    async def watch() -> None:
        async with Watching(workflow_id, store) as watching:
            store.broken = {"set"}
            ids = await pay(server, workflow_id)
            await watching.until_told(1)
        store.broken = set()
        async with Watching(workflow_id, store) as watching:
            await watching.until_told(1)
            assert watching.told_ids == ids

    asyncio.run(watch())
    assert sum("out of reach" in one.getMessage() for one in caplog.records) == 1


def test_a_state_that_is_of_no_use_is_told_and_replaced(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    workflow_id = define(server, SHORT, gate=False)
    store = AssetState()
    key = key_of(workflow_id, None, "orchestration_default")
    store.kept[key] = json.dumps({"kept_at": 1, "ends": {"version": 99}})

    async def watch() -> None:
        async with Watching(workflow_id, store) as watching:
            ids = await pay(server, workflow_id)
            await watching.until_told(1)
            assert watching.told_ids == ids

    asyncio.run(watch())
    assert sum("of no use" in one.getMessage() for one in caplog.records) == 1
    assert json.loads(store.kept[key])["ends"]["version"] == 1


def test_only_the_states_that_were_asked_for_are_told(server: Any) -> None:
    workflow_id = define(server, SHORT, gate=False)
    store = AssetState()

    async def watch() -> None:
        async with Watching(workflow_id, store, states=["failed"]) as watching:
            await pay(server, workflow_id)
            await watching.until_told(0)
        async with Watching(workflow_id, store, states=["failed"]) as watching:
            await watching.until_told(0)

    asyncio.run(watch())


def test_watchers_that_tell_other_ends_keep_them_under_other_keys() -> None:
    keys = [
        key_of("w", None, "c"),
        key_of("w", ["failed"], "c"),
        key_of("w", [], "c"),
        key_of("v", None, "c"),
        key_of("w", None, "d"),
    ]
    assert len(set(keys)) == 5
    assert key_of("w", ["failed", "cancelled"], "c") == key_of("w", ["cancelled", "failed"], "c")


# ---- faults --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        ("list_instances", "truncated", 6, {}),
        ("list_instances", "status", 6, {"code": 500}),
        ("list_instances", "status", 1, {"code": 403, "skip": 1}),  # the whole list alone
        ("get_instance", "status", 6, {"code": 500}),
        ("get_instance", "truncated", 6, {}),
        ("get_instance", "html", 6, {"code": 404}),
    ],
)
def test_faults_delay_ends_and_neither_lose_nor_repeat_them(server: Any, fault: Any) -> None:
    workflow_id = define(server, SHORT, gate=False)
    operation, kind, count, options = fault

    async def watch() -> None:
        async with Watching(workflow_id, AssetState()) as watching:
            ids = await pay(server, workflow_id, 2)
            server.fault(operation, kind, count, **options)
            await watching.until_told(2)
            assert watching.told_ids == sorted(ids)
        server.clear_faults()

    asyncio.run(watch())


@pytest.mark.parametrize("generation", [2, 3])
def test_rows_that_shift_between_pages_end_nothing_and_lose_nothing(server: Any, generation: int) -> None:
    """130 runs, two pages that overlap: a run that is missing from a list goes on, says a read by id."""
    workflow_id = define(server, SLOW, gate=False)
    server.fault("list_instances", "shuffled", -1)

    async def watch() -> None:
        async with AsyncOrchestrationHttpHook(base_url=server.url) as http:
            ids = [one.id for one in await asyncio.gather(*(http.run_workflow(workflow_id) for _ in range(130)))]
            async with Watching(workflow_id, AssetState()) as watching:
                await asyncio.sleep(0.5)
                assert watching.told == []
                await asyncio.gather(*(http.send_event_when_ready(one, "go", timeout=60) for one in ids))
                await watching.until_told(130)
                assert watching.told_ids == sorted(ids)

    asyncio.run(watch())


# ---- Airflow's own store -------------------------------------------------------------------------------


def test_the_stores_of_a_trigger_are_those_of_its_assets() -> None:
    assert asset_stores(OrchestrationInstanceEndedTrigger("w")) == ()
    context = pytest.importorskip("airflow.sdk.execution_time.context")
    accessors = getattr(context, "AssetStateStoreAccessors", None)
    if accessors is None:
        pytest.skip("Airflow keeps state of assets from 3.3 on")
    from airflow.sdk import Asset

    trigger = OrchestrationInstanceEndedTrigger("w")
    for names in (["one"], ["one", "two"]):
        trigger.asset_state_store = accessors(inlets=[Asset(name=name) for name in names])
        stores = asset_stores(trigger)
        assert [repr(one) for one in stores] == [f"<AssetStateStoreAccessor name={name!r}>" for name in names]


def test_where_assets_share_a_trigger_the_newest_state_counts_and_each_gets_it(server: Any) -> None:
    workflow_id = define(server, SHORT, gate=False)
    one, two = AssetState(), AssetState()

    def both() -> Any:
        return SimpleNamespace(aget=None, aset=None, _by_name={"one": one, "two": two}, _by_uri={})

    async def watch() -> None:
        async with Watching(workflow_id, one) as watching:
            await pay(server, workflow_id)
            await watching.until_told(1)
        ids = await pay(server, workflow_id)
        async with Watching(workflow_id, both()) as watching:
            await watching.until_told(1)
            assert watching.told_ids == ids
        one.kept.clear()
        async with Watching(workflow_id, both()) as watching:
            await watching.until_told(0)

    asyncio.run(watch())
    assert one.kept.keys() == two.kept.keys()

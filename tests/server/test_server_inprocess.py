"""The virtual clock, the httpx transports on it, and the server's small readers and writers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import pytest

from orchestration_integrations.server import (
    AsyncInProcessTransport,
    Core,
    InProcessTransport,
    Unanswerable,
    VirtualClock,
)
from orchestration_integrations.server import golang as go
from orchestration_integrations.server.ledger import Ledger, Refused

from .conftest import WAIT, World, delay, send

if TYPE_CHECKING:
    from collections.abc import Callable

    MakeWorld = Callable[..., World]


def test_time_flows_only_where_something_takes_time(world: MakeWorld) -> None:
    w = world(2)
    begun = w.clock.time()
    w.client.get("/_info")
    assert w.clock.time() - begun == pytest.approx(0.002, abs=1e-6)
    w.clock.sleep(3600)
    assert w.clock.time() - begun == pytest.approx(3600.002, abs=1e-6)


def test_a_held_answer_moves_the_clock_and_no_further_than_the_timeout(world: MakeWorld) -> None:
    w = world(1)
    workflow = w.workflow(delay("1h"))
    begun = w.clock.time()
    with pytest.raises(httpx.ReadTimeout):
        w.client.post(f"/workflows/{workflow}/instances?wait=true", timeout=7)
    assert w.clock.time() - begun == pytest.approx(7)
    answer = w.client.post(f"/workflows/{workflow}/instances?wait=true", timeout=7200)
    assert answer.json()["data"]["terminated"] is True
    assert len(w.core.record().started) == 2


def test_a_request_that_is_never_answered_and_never_times_out_is_an_error(world: MakeWorld) -> None:
    w = world(1)
    workflow = w.workflow(WAIT)
    with pytest.raises(Unanswerable):
        w.client.post(f"/workflows/{workflow}/instances?wait=true", timeout=None)


def test_the_same_seed_gives_the_same_history() -> None:
    def history(seed: int) -> object:
        w = World(2, seed=seed)
        i = w.start(WAIT, delay("5s"))
        w.event(i)
        w.clock.sleep(10)
        return w.instance(i)

    assert history(1) == history(1)
    assert history(1) != history(2)


@pytest.mark.parametrize("generation", [1, 2, 3])
def test_an_amount_of_any_size_is_paid(generation: int) -> None:
    amount = "1" * 400
    w = World(generation, seed=1)
    i = w.start(send(amount, destination="shop"))
    w.clock.sleep(5)
    assert w.instance(i)["terminated"]
    assert w.core.balance("shop", "USD/2") == int(amount)


def test_a_server_must_run_on_the_clients_clock() -> None:
    with pytest.raises(ValueError, match="clock"):
        InProcessTransport(Core(2), VirtualClock())


async def test_tasks_interleave_on_the_clock() -> None:
    clock = VirtualClock(0)
    seen: list[tuple[str, float]] = []

    async def ticks(name: str, pause: float, times: int) -> None:
        for _ in range(times):
            await clock.asleep(pause)
            seen.append((name, round(clock.time(), 3)))

    await asyncio.gather(ticks("a", 3.0, 2), ticks("b", 2.0, 4))
    assert seen == [("b", 2.0), ("a", 3.0), ("b", 4.0), ("a", 6.0), ("b", 6.0), ("b", 8.0)] or seen == [
        ("b", 2.0),
        ("a", 3.0),
        ("b", 4.0),
        ("b", 6.0),
        ("a", 6.0),
        ("b", 8.0),
    ]


async def test_a_task_sees_at_once_what_another_one_brought_about() -> None:
    clock = VirtualClock()
    core = Core(1, clock=clock, seed=1)
    async with httpx.AsyncClient(transport=AsyncInProcessTransport(core, clock), base_url="http://s") as client:
        made = await client.post("/workflows", json={"stages": [delay("1h")]})
        run = f"/workflows/{made.json()['data']['id']}/instances"
        begun = clock.time()

        async def wait() -> float:
            answer = await client.post(f"{run}?wait=true", timeout=20)
            assert answer.json()["data"]["error"] == "canceled"
            return clock.time()

        async def abort() -> None:
            await clock.asleep(1)
            (row,) = (await client.get("/instances")).json()["data"]
            assert (await client.put(f"/instances/{row['id']}/abort")).status_code == 204
            await clock.asleep(1000)

        ended, _ = await asyncio.gather(wait(), abort())
    assert ended - begun < 1.2


async def test_timeouts_and_dripping_bodies_of_tasks() -> None:
    clock = VirtualClock()
    core = Core(2, clock=clock, seed=1)
    async with httpx.AsyncClient(transport=AsyncInProcessTransport(core, clock), base_url="http://s") as client:
        core.fault("info", "stall", seconds=60)
        begun = clock.time()
        with pytest.raises(httpx.ReadTimeout):
            await client.get("/_info", timeout=5)
        assert clock.time() - begun == pytest.approx(5)
        core.fault("info", "slow", bytes_per_second=1)
        answer = await client.get("/_info", timeout=5)
        assert clock.time() - begun > 5 + len(answer.content) - 1
        core.fault("info", "cut_after")
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/_info")


@pytest.mark.parametrize(
    ("text", "nanoseconds", "shown"),
    [
        ("60s", 60_000_000_000, "1m0s"),
        ("1h", 3_600_000_000_000, "1h0m0s"),
        ("1.5s", 1_500_000_000, "1.5s"),
        ("-5s", -5_000_000_000, "-5s"),
        ("10ms", 10_000_000, "10ms"),
        ("1h2m3.004005006s", 3_723_004_005_006, "1h2m3.004005006s"),
        ("1500µs", 1_500_000, "1.5ms"),
        ("7ns", 7, "7ns"),
        ("0", 0, "0s"),
        (".5m", 30_000_000_000, "30s"),
    ],
)
def test_durations(text: str, nanoseconds: int, shown: str) -> None:
    assert go.parse_duration(text) == nanoseconds
    assert go.format_duration(nanoseconds) == shown


@pytest.mark.parametrize("text", ["", "5", "abc", "s", "1", "1 s", "--1s", "1d", ".s", "300000h" * 60])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="invalid duration"):
        go.parse_duration(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2020-01-01T00:00:00Z", "2020-01-01T00:00:00Z"),
        ("2020-01-01T02:00:00.5+02:00", "2020-01-01T00:00:00.5Z"),
        ("2020-01-01T00:00:00.123456789Z", "2020-01-01T00:00:00.123456789Z"),
    ],
)
def test_instants(text: str, shown: str) -> None:
    assert go.format_instant(go.parse_instant(text)) == shown


@pytest.mark.parametrize("text", ["", "yesterday", "2020-01-01", "2020-13-01T00:00:00Z", "2020-01-01T00:00:00"])
def test_no_instants(text: str) -> None:
    with pytest.raises(ValueError, match=r"instant|month|day|hour"):
        go.parse_instant(text)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "EOF"),
        (b'{"a":', "unexpected EOF"),
        (b'{"a', "unexpected EOF"),
        (b"name: x", "invalid character 'a' in literal null (expecting 'u')"),
        (b"x", "invalid character 'x' looking for beginning of value"),
        (b"NaN", "invalid character 'N' looking for beginning of value"),
    ],
)
def test_what_a_bad_body_is_told(body: bytes, says: str) -> None:
    with pytest.raises(go.JsonError) as caught:
        go.decode_json(body)
    assert str(caught.value) == says


def test_the_ledger_moves_all_or_nothing() -> None:
    ledger = Ledger()

    def posting(source: str, destination: str, amount: int) -> dict[str, object]:
        return {"source": source, "destination": destination, "amount": amount, "asset": "USD/2"}

    ledger.create_transaction("default", [posting("world", "a", 100)], {}, 0)
    with pytest.raises(Refused, match="insufficient"):
        ledger.create_transaction("default", [posting("a", "b", 60), posting("a", "c", 60)], {}, 0)
    assert ledger.balance("default", "b", "USD/2") == 0
    ledger.create_transaction("default", [posting("a", "b", 60), posting("b", "c", 60)], {}, 0, key="k")
    _, made = ledger.create_transaction("default", [posting("a", "b", 60), posting("b", "c", 60)], {}, 0, key="k")
    assert made is False
    held = {name: ledger.balance("default", name, "USD/2") for name in ("world", "a", "b", "c")}
    assert held == {"world": -100, "a": 40, "b": 0, "c": 60}
    with pytest.raises(Refused, match="negative"):
        ledger.create_transaction("default", [posting("a", "b", -1)], {}, 0)

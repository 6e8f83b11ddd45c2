"""A watcher where the truth is hard to know: servers that deny, clocks, restores, other watchers, thousands of ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from datetime import datetime, timezone
from typing import Any

import pytest

from orchestration_integrations.airflow import ended_watch
from orchestration_integrations.airflow.ended_memory import MOST_KEYS, EndedMemory, key_of
from orchestration_integrations.airflow.ended_runs import DoubtfulServerError, EndedRuns
from orchestration_integrations.airflow.ended_watch import EndedWatch
from orchestration_integrations.airflow.runs_to_read import READS_PER_POLL
from orchestration_integrations.airflow.whole_lists import SHORTER_SECONDS
from tests.airflow.test_ended_histories import AHEAD, POLL, START, History, Store, World, pytestmark

__all__ = ["pytestmark"]


class Watched(World):
    """A world with a watcher of its own, poll by poll."""

    def __init__(self) -> None:
        super().__init__()
        self.runs = EndedRuns("w", lambda: self.here, lambda: self.here)
        self.told: Counter[str] = Counter()

    async def polls(self, count: int = 1) -> Any:
        for _ in range(count):
            poll = await self.runs.poll(self)  # type: ignore[arg-type]
            self.told.update(one.id for one in poll.ended)
            self.runs.told(poll.ended)
            self.here += POLL
        return poll

    def restart(self) -> None:
        state = json.loads(json.dumps(self.runs.state()))
        self.runs = EndedRuns("w", lambda: self.here, lambda: self.here)
        self.runs.go_on_from(state)


def test_a_run_that_was_told_and_runs_again_after_a_restore_is_told_again_with_the_next_poll() -> None:
    world = Watched()

    async def main() -> None:
        one = world.start()
        await world.polls()
        world.rows[one] = world._now()
        await world.polls(20)
        world.rows[one] = None
        await world.polls(20)
        assert world.told == {one: 1}
        world.rows[one] = world._now()
        await world.polls()
        assert world.told == {one: 2}
        await world.polls(20)
        assert world.told == {one: 2}

    asyncio.run(main())


def test_a_server_that_denies_everything_is_doubted_and_a_run_alone_is_not() -> None:
    world = Watched()

    async def main() -> None:
        ids = [world.start() for _ in range(50)]
        await world.polls()
        world.elsewhere = True
        await world.polls(2)
        reads = world.reads
        for _ in range(3):
            assert isinstance((await world.polls()).trouble, DoubtfulServerError)
        assert world.reads - reads <= 3 * 20  # it is asked little, as long as it denies everything
        world.elsewhere = False
        assert (await world.polls(2)).trouble is None
        lost, ended = ids[:2]
        del world.rows[lost]
        world.rows[ended] = world._now()
        for _ in range(30):
            assert (await world.polls()).trouble is None
        assert world.told == {ended: 1}

    asyncio.run(main())


def test_what_is_given_up_is_told_as_soon_as_a_read_shows_it_and_survives_a_restart() -> None:
    """The workflow is deleted, so no list shows its runs any more."""
    world = Watched()

    async def main() -> None:
        ids = [world.start() for _ in range(3)]
        await world.polls()
        world.elsewhere = True
        await world.polls(100)
        assert not len(world.runs._to_read)
        world.restart()
        await world.polls(100)
        for one in ids:
            world.rows[one] = world._now()
        rows, world.elsewhere = dict(world.rows), False
        world.hidden = set(ids)
        reads = world.reads
        await world.polls(2)
        assert world.reads - reads <= 4
        assert world.told == dict.fromkeys(rows, 1)

    asyncio.run(main())


def test_after_a_restore_what_is_held_gets_small_again() -> None:
    """The list is shorter for good. Nothing moved the instant any more before which everything was told."""
    world = Watched()

    async def main() -> None:
        for _ in range(40):
            world.short()
            await world.polls()
        held = len(world.runs._ends)
        for one in list(world.rows)[:30]:
            del world.rows[one]
        world.short()
        before = world.runs._ends.since
        await world.polls()
        assert world.runs._ends.since == before
        for _ in range(int(SHORTER_SECONDS / POLL) + 40):
            await world.polls()
        world.short()
        await world.polls(30)
        assert world.runs._ends.since is not None
        assert before is not None
        assert world.runs._ends.since > before + SHORTER_SECONDS / 2
        assert len(world.runs._ends) < held
        assert set(world.told.values()) == {1}

    asyncio.run(main())


def test_a_gateway_whose_clock_is_ahead_loses_no_end() -> None:
    """Ends have the instants of a worker, lists that of a gateway."""
    world = Watched()

    async def main() -> None:
        def ends() -> None:
            world.rows[world.start()] = datetime.fromtimestamp(world.here + AHEAD, timezone.utc)

        await world.polls()
        ends()
        await world.polls(5)
        world.ahead += 7200
        await world.polls(5)
        for _ in range(60):
            ends()
            await world.polls()
        await world.polls(5)
        assert world.told == dict.fromkeys(world.rows, 1)

    asyncio.run(main())


def test_a_burst_of_ends_is_held_only_until_it_is_quiet() -> None:
    world = Watched()

    async def main() -> None:
        for _ in range(1200):
            world.short()
        await world.polls(100)
        assert world.told == dict.fromkeys(world.rows, 1)
        assert not len(world.runs._ends)
        world.restart()
        await world.polls(20)
        assert set(world.told.values()) == {1}

    asyncio.run(main())


def test_five_thousand_ends_at_once_are_several_events_of_a_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    history = History([*[("start", 0)] * 5000, ("poll", 0), *[("end", 0)] * 5000], Store())
    sizes: list[tuple[int, int]] = []
    process = history._process

    async def sized() -> None:
        real = EndedWatch.payloads

        async def payloads(watch: EndedWatch) -> Any:
            async for payload in real(watch):
                sizes.append((len(payload["instances"]), len(json.dumps(payload))))
                yield payload

        monkeypatch.setattr(EndedWatch, "payloads", payloads)
        try:
            await process()
        finally:
            monkeypatch.setattr(EndedWatch, "payloads", real)

    monkeypatch.setattr(history, "_process", sized)
    history.run()
    assert history.told == dict.fromkeys(history.ended, 1)
    assert len(history.told) == 5000
    assert max(count for count, _ in sizes) == READS_PER_POLL
    assert max(size for _, size in sizes) < 64_000


# ---- watchers beside each other, and one after another ---------------------------------------------------


class Reached:
    """A hook that reaches a world."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def get_async_conn(self) -> Any:
        return self

    async def __aenter__(self) -> World:
        return self._world

    async def __aexit__(self, *_: object) -> None:
        pass


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A world that watchers reach by any connection."""
    found = World()
    monkeypatch.setattr(ended_watch, "OrchestrationHook", lambda conn_id: Reached(found))
    return found


async def watch(world: World, store: Store, states: list[str] | None, interval: float) -> Counter[str]:
    """What a watcher tells until it is cancelled."""
    told: Counter[str] = Counter()

    async def sleep(seconds: float) -> None:
        until = world.here + seconds
        while world.here < until:  # noqa: ASYNC110  # the time is a model's
            await asyncio.sleep(0)

    watcher = EndedWatch(
        "w", states, "c", interval, [store], sleep=sleep, now=lambda: world.here, elapsed=lambda: world.here
    )
    with contextlib.suppress(asyncio.CancelledError):
        async for payload in watcher.payloads():
            told.update(one["instance_id"] for one in payload["instances"])
    return told


async def clock(world: World, seconds: float, *, each: float | None = None) -> None:
    """Let the time pass, and have a short run end each so many seconds."""
    for second in range(int(seconds)):
        world.here += 1.0
        for _ in range(20):
            await asyncio.sleep(0)
        if each is not None and second % each == 0:
            world.short()


def test_two_watchers_that_differ_in_their_interval_lose_nothing_and_repeat_little(world: World) -> None:
    store = Store()

    async def main() -> tuple[Counter[str], Counter[str]]:
        one = asyncio.create_task(watch(world, store, None, 10.0))
        other = asyncio.create_task(watch(world, store, None, 35.0))
        await clock(world, 600, each=20)
        await clock(world, 60)
        for task in (one, other):
            task.cancel()
        return await one, await other

    one, other = asyncio.run(main())
    told = one + other
    assert set(told) == set(world.rows)
    assert sum(told.values()) < 1.5 * len(world.rows)

    async def after_a_restart() -> Counter[str]:
        task = asyncio.create_task(watch(world, store, None, 10.0))
        await clock(world, 60)
        task.cancel()
        return await task

    assert not asyncio.run(after_a_restart())


@pytest.mark.parametrize("changed", [["succeeded"], ["succeeded", "failed"]])
def test_a_watcher_whose_states_are_changed_goes_on_where_it_was(world: World, changed: list[str]) -> None:
    store = Store()

    async def watched(states: list[str] | None) -> Counter[str]:
        task = asyncio.create_task(watch(world, store, states, 10.0))
        await clock(world, 100)
        task.cancel()
        return await task

    world.here += 100
    old = world.short()
    world.here += 100
    assert not asyncio.run(watched(None))
    first = world.short()
    assert asyncio.run(watched(None)) == {first: 1}
    between = world.short()
    world.here += 1000
    assert asyncio.run(watched(changed)) == {between: 1}
    assert not asyncio.run(watched(changed))
    assert old not in (first, between)


def test_a_new_watcher_of_an_asset_without_a_state_tells_nothing_old(world: World) -> None:
    store = Store()

    async def watched() -> Counter[str]:
        task = asyncio.create_task(watch(world, store, None, 10.0))
        await clock(world, 100)
        task.cancel()
        return await task

    world.short()
    world.here += 100
    assert not asyncio.run(watched())


def test_the_list_of_watchers_stays_short_and_survives_nonsense() -> None:
    store = Store()

    async def main() -> None:
        for nonsense in (None, 7, {"keys": 7}, {"keys": [7, None]}):
            for key in list(store.kept):
                if key.startswith("orchestration_watchers_"):
                    store.kept[key] = json.dumps(nonsense)
            for number in range(MOST_KEYS + 5):
                memory = EndedMemory("w", None, f"c{number}", [store], EndedRuns("w", lambda: START))
                await memory.load()
                await memory.save()
        (keys,) = [json.loads(text) for key, text in store.kept.items() if key.startswith("orchestration_watchers_")]
        assert keys["keys"] == [key_of("w", None, f"c{number}") for number in range(5, MOST_KEYS + 5)]

    asyncio.run(main())

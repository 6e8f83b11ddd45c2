"""The watch by itself: whom it wakes and when, what it asks for, and what it keeps."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest

from orchestration_integrations import ServerError
from orchestration_integrations.procedures.snapshots import Snapshot
from orchestration_integrations.server import VirtualClock
from orchestration_integrations.watching import (
    BURST,
    CLOSER_LOOK_SECONDS,
    CLOSER_LOOKS_PER_SECOND,
    READS_PER_SECOND,
    Watch,
)


class World:
    """What runs, who was woken, and what was asked for."""

    def __init__(self, rows_of_others: int = 0, page: int | None = None) -> None:
        self.clock = VirtualClock()
        self.running: set[str] = set()
        self.woken: list[tuple[float, str, str]] = []
        self.lists: list[tuple[float, str | None]] = []
        self.ill = self.reads_fail = False
        self.rows_of_others = rows_of_others
        self.page = page
        self.begun = self.clock.monotonic()
        self.watch = Watch(self.read, self.clock, lambda: 0.5)

    async def read(self, workflow_id: str | None, until: float) -> Snapshot:
        self.lists.append((self.at(), workflow_id))
        await self.clock.asleep(0.01)
        if self.ill:
            raise ServerError("the list is ill", status_code=503)
        rows = len(self.running) + (self.rows_of_others if workflow_id is None else 0)
        return Snapshot(frozenset(self.running), rows, 1 if self.page is None else 1 + rows // self.page)

    def at(self) -> float:
        return round(self.clock.monotonic() - self.begun, 3)

    def sleep(self, instance_id: str, *, again: bool = False, workflow: str | None = "w", **options: Any) -> Any:
        def woken(reason: Any, listed_at: float | None) -> None:
            self.woken.append((self.at(), instance_id, type(reason).__name__))
            if again:
                asyncio.get_running_loop().call_soon(
                    lambda: self.sleep(
                        instance_id, again=True, workflow=workflow, **{**options, "failed": self.reads_fail}
                    )
                )

        given = {"interval": 5.0, **options}
        return self.watch.fall_asleep(instance_id, workflow, given.pop("interval"), woken, **given)

    def enter(self, *ids: str, **options: Any) -> None:
        for instance_id in ids:
            self.running.add(instance_id)
            self.watch.enter(instance_id)
            self.sleep(instance_id, **options)


def played(world: World, what: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await what()
        for instance_id in list(world.watch._present.elements()):
            world.watch.leave(instance_id)

    asyncio.run(main())


def test_who_is_missing_is_woken_and_who_is_listed_sleeps() -> None:
    world = World()

    async def main() -> None:
        world.enter("a", "b", "c")
        await world.clock.asleep(7)
        world.running.discard("b")
        await world.clock.asleep(5)
        assert [(name, why) for _, name, why in world.woken] == [("b", "Absent")]
        assert [round(at) for at, _ in world.lists] == [5, 10]

    played(world, main)


def test_whoever_sleeps_is_woken_at_its_deadline_also_while_a_list_is_being_read() -> None:
    world = World()

    async def main() -> None:
        world.enter("a", "b", until=world.clock.monotonic() + 5.005)
        world.enter("c")
        await world.clock.asleep(6)
        assert sorted(world.woken) == [(5.005, "a", "Paused"), (5.005, "b", "Paused")]

    played(world, main)


@pytest.mark.parametrize(
    ("waiting", "others", "listed"), [(2, 0, True), (2, 90, True), (2, 110, False), (50, 4000, True), (50, 6000, False)]
)
def test_a_list_is_read_where_it_costs_less_than_its_sleepers(waiting: int, others: int, listed: bool) -> None:
    world = World(rows_of_others=others)

    async def main() -> None:
        world.enter(*(f"i{number}" for number in range(waiting)), again=True, workflow=None)
        await world.clock.asleep(200)
        assert (len(world.lists) > 30) is listed
        if not listed:
            assert len(world.lists) == 1, "it is asked for again after five minutes"
            assert len(world.woken) >= waiting * 30

    played(world, main)


def test_the_list_of_one_workflow_is_read_where_all_wait_for_it() -> None:
    world = World(rows_of_others=10_000)

    async def main() -> None:
        world.enter("a", "b", workflow="w")
        await world.clock.asleep(6)
        world.enter("c", workflow="x")
        await world.clock.asleep(5)
        assert [workflow for _, workflow in world.lists] == ["w", None]

    played(world, main)


def test_reads_have_a_rate_however_many_end_at_once() -> None:
    world = World()

    async def main() -> None:
        world.enter(*(f"i{number}" for number in range(1000)))
        await world.clock.asleep(4)
        world.running.clear()
        await world.clock.asleep(20)
        assert len(world.woken) == 1000
        for second in range(20):
            within = [at for at, _, _ in world.woken if second <= at < second + 1]
            assert len(within) <= READS_PER_SECOND + BURST

    played(world, main)


def test_closer_looks_go_round_and_have_a_rate() -> None:
    world = World()

    async def main() -> None:
        world.enter(*(f"i{number}" for number in range(400)), again=True)
        await world.clock.asleep(400)
        names = [name for _, name, _ in world.woken]
        assert set(names) == {f"i{number}" for number in range(400)}
        assert max(map(names.count, set(names))) - min(map(names.count, set(names))) <= 1
        assert len(names) <= 400 * CLOSER_LOOKS_PER_SECOND

    played(world, main)


def test_few_look_closer_each_half_minute() -> None:
    world = World()

    async def main() -> None:
        world.enter("a", "b", "c", again=True)
        await world.clock.asleep(CLOSER_LOOK_SECONDS * 4 + 20)
        assert [name for _, name, _ in world.woken].count("a") in (3, 4)

    played(world, main)


def test_an_ill_server_is_asked_ever_more_rarely_however_many_wait() -> None:
    world = World()

    async def main() -> None:
        world.ill = world.reads_fail = True
        world.enter(*(f"i{number}" for number in range(300)), again=True)
        await world.clock.asleep(300)
        pauses = [two - one for (one, _), (two, _) in pairwise(world.lists)]
        assert pauses[0] < 8
        assert 55 < pauses[-1] < 67
        assert {why for _, _, why in world.woken} == {"Paused"}
        assert len([at for at, _, _ in world.woken if at > 200]) <= 300 * 3
        world.ill = world.reads_fail = False
        world.woken.clear()
        world.running.discard("i7")
        await world.clock.asleep(70)
        assert ("i7", "Absent") in [(name, why) for _, name, why in world.woken]
        assert world.lists[-1][0] - world.lists[-2][0] < 6

    played(world, main)


def test_one_list_that_fails_wakes_nobody() -> None:
    world = World()

    async def main() -> None:
        world.enter(*(f"i{number}" for number in range(300)), again=True)
        await world.clock.asleep(4)
        world.ill = True
        await world.clock.asleep(3)
        world.ill = False
        await world.clock.asleep(15)
        assert world.woken == []

    played(world, main)


def test_a_list_that_fails_while_reads_are_good_is_left_alone_for_a_while() -> None:
    world = World()

    async def main() -> None:
        world.ill = True
        world.enter("a", "b", "c", again=True)
        await world.clock.asleep(200)
        assert len(world.lists) == 3
        looked = [at for at, name, _ in world.woken if name == "a"]
        assert max(two - one for one, two in pairwise(looked)) < 12, "each its interval"
        await world.clock.asleep(150)
        assert len(world.lists) > 3

    played(world, main)


def test_an_interval_is_kept_beside_a_shorter_one() -> None:
    world = World(rows_of_others=10_000)

    async def main() -> None:
        world.enter("often", again=True, interval=1.0, workflow=None)
        world.enter("seldom", again=True, interval=60.0, workflow=None)
        await world.clock.asleep(600)
        assert 8 <= [name for _, name, _ in world.woken].count("seldom") <= 13

    played(world, main)


def test_of_two_who_wait_for_the_same_each_looks_closer() -> None:
    world = World()

    async def main() -> None:
        world.enter("a", "b", again=True)
        await world.clock.asleep(13)
        world.enter("a", again=True)
        await world.clock.asleep(600)
        assert [name for _, name, _ in world.woken].count("a") > 25

    played(world, main)


def test_a_hint_wakes_whoever_sleeps_and_whoever_is_about_to() -> None:
    world = World()

    async def main() -> None:
        world.enter("a", "b")
        assert world.watch.hint("a")
        await world.clock.asleep(0.01)
        assert world.woken == [(0.0, "a", "Paused")]
        assert world.watch.hint("a")  # it is awake: its read may have come too early
        world.sleep("a")
        await world.clock.asleep(0.1)
        assert [name for _, name, _ in world.woken] == ["a", "a"]
        assert not world.watch.hint("somebody else")

    played(world, main)


def test_two_who_wait_for_the_same_are_both_woken() -> None:
    world = World()

    async def main() -> None:
        world.enter("a", "a", "b")
        world.running.discard("a")
        await world.clock.asleep(6)
        assert [(name, why) for _, name, why in world.woken] == [("a", "Absent")] * 2

    played(world, main)


def test_nothing_is_kept_of_those_that_left() -> None:
    world = World()

    async def main() -> None:
        sleepers = []
        for number in range(300):
            world.watch.enter(f"i{number}")
            sleepers.append(world.sleep(f"i{number}", until=world.clock.monotonic() + 10_000))
        await world.clock.asleep(6)  # all are missing
        for number, sleeper in enumerate(sleepers):
            world.watch.forget(sleeper)
            world.watch.leave(f"i{number}")
        assert (world.watch.present, world.watch.remembers) == (0, 0)
        lists = len(world.lists)
        await world.clock.asleep(60)
        assert len(world.lists) == lists

    played(world, main)


def test_a_sleeper_that_looks_closer_for_ever_leaves_no_trail_of_deadlines() -> None:
    world = World()

    async def main() -> None:
        world.enter("a", "b", again=True, until=world.clock.monotonic() + 10**6)
        await world.clock.asleep(40_000)
        assert len(world.watch._deadlines) < 200

    played(world, main)


def test_a_sleeper_costs_less_than_two_kilobytes() -> None:
    world = World()

    async def main() -> None:
        count = 10_000
        ids = [f"{number:032x}" for number in range(count)]
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for instance_id in ids:
            world.watch.enter(instance_id)
            world.watch.fall_asleep(instance_id, "w", 5.0, print, until=world.clock.monotonic() + 10**6)
        cost = (tracemalloc.get_traced_memory()[0] - before) / count
        tracemalloc.stop()
        assert cost < 1024

    played(world, main)

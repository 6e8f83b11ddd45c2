"""The watch beside servers that are slow, ill or lost, and beside whoever cancels it."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from orchestration_integrations.sleepers import READ_SECONDS
from orchestration_integrations.watching import LIST_SECONDS, REVIVED_AFTER, Watch
from tests.core.test_watching import World, played


def limited(most: int) -> World:
    """Those who were woken may read so many at once."""
    world = World()
    world.watch = Watch(world.read, world.clock, lambda: 0.5, reads_at_once=most)
    return world


def test_a_slow_server_is_not_asked_for_more_than_it_answers() -> None:
    """Twenty end at once; three may read. Each that is through makes place for the next, and for no more."""
    world = limited(3)

    async def main() -> None:
        names = [f"i{number:02}" for number in range(20)]
        sleepers = {}
        for name in names:
            world.running.add(name)
            world.watch.enter(name)
            sleepers[name] = world.sleep(name)
        world.running.clear()
        await world.clock.asleep(8)
        assert len(world.woken) == 3
        for through in range(1, 18):
            world.watch.has_read(sleepers[world.woken[through - 1][1]])
            await world.clock.asleep(0.1)
            assert len(world.woken) == 3 + through
        world.watch.has_read(sleepers[world.woken[0][1]])  # said again
        assert sorted(name for _, name, _ in world.woken) == names

    played(world, main)


def test_a_deadline_waits_for_nobodys_read() -> None:
    world = limited(1)

    async def main() -> None:
        world.enter("a", "b")
        world.enter("late", until=world.clock.monotonic() + 9)
        world.running -= {"a", "b"}
        await world.clock.asleep(10)
        assert len(world.woken) == 2
        assert world.woken[1][1] == "late"

    played(world, main)


def test_a_read_of_which_nothing_is_heard_does_not_take_its_place_for_ever() -> None:
    world = limited(1)

    async def main() -> None:
        world.enter("a", "b")
        world.running.clear()
        await world.clock.asleep(READ_SECONDS)
        assert len(world.woken) == 1
        await world.clock.asleep(30)
        assert {name for _, name, _ in world.woken} == {"a", "b"}

    played(world, main)


def test_while_a_list_takes_its_time_each_looks_after_its_interval() -> None:
    """Nobody waits out the 15 s that a list may take."""
    world = World()

    async def main() -> None:
        world.list_seconds = LIST_SECONDS
        world.enter(*(f"i{number}" for number in range(10)), again=True)
        await world.clock.asleep(14)
        assert len(world.lists) == 1
        looked = [at for at, name, _ in world.woken if name == "i3"]
        assert looked
        assert looked[0] <= 11

    played(world, main)


def test_newcomers_at_an_ill_server_do_not_make_it_be_asked_more_often() -> None:
    world = World()

    async def main() -> None:
        world.ill = world.reads_fail = True
        world.enter(*(f"old{number}" for number in range(50)), again=True)
        await world.clock.asleep(200)
        before = len(world.lists)
        for number in range(60):  # one each second, new, with a first look after a third of a second
            name = f"new{number}"
            world.running.add(name)
            world.watch.enter(name)
            world.sleep(name, again=True, answered=None, first_look=0.3)
            await world.clock.asleep(1)
        assert len(world.lists) - before <= 3

    played(world, main)


@pytest.mark.parametrize(("waiting", "longest"), [(1, 5.5), (2, 11), (4, 22)])
def test_together_they_ask_an_ill_server_as_often_as_one_alone_would(waiting: int, longest: float) -> None:
    """One alone keeps its interval of 5 s: a pause that is longer for one would tell it late of the end."""
    world = World(rows_of_others=100_000)

    async def main() -> None:
        world.reads_fail = True
        world.enter(*(f"i{number}" for number in range(waiting)), again=True, answered=False, workflow=None)
        await world.clock.asleep(300)
        looked = [at for at, name, _ in world.woken if name == "i0"]
        pauses = [two - one for one, two in pairwise(looked)]
        assert max(pauses) <= longest + 0.5
        assert max(pauses[5:]) >= longest * 0.8

    played(world, main)


def test_whoever_cancels_all_tasks_of_the_loop_leaves_no_sleeper_alone() -> None:
    world = World()

    async def main() -> None:
        world.enter("a", "b")
        await world.clock.asleep(1)
        world.running.discard("a")
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(REVIVED_AFTER + 0.5)  # the watch comes back by the clock of the loop, which is real
        await world.clock.asleep(10)
        assert ("a", "Absent") in [(name, why) for _, name, why in world.woken]

    played(world, main)


def test_whoever_falls_asleep_while_the_server_is_ill_waits_no_longer_once_a_read_is_good() -> None:
    world = World()

    async def main() -> None:
        world.ill = world.reads_fail = True
        world.enter(*(f"i{number}" for number in range(50)), again=True)
        await world.clock.asleep(290)
        world.ill = world.reads_fail = False
        polls = len(world.lists)
        any_of_them: Any = world.sleep("i0", answered=True)
        await world.clock.asleep(6)
        assert len(world.lists) == polls + 1
        world.watch.forget(any_of_them)

    played(world, main)

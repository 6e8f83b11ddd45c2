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
        self.listed_at: dict[str, float | None] = {}
        self.list_seconds = 0.01
        self.rows_of_others = rows_of_others
        self.page = page
        self.begun = self.clock.monotonic()
        self.watch = Watch(self.read, self.clock, lambda: 0.5)

    async def read(self, workflow_id: str | None, until: float) -> Snapshot:
        self.lists.append((self.at(), workflow_id))
        await self.clock.asleep(self.list_seconds)
        if self.ill:
            raise ServerError("the list is ill", status_code=503)
        rows = len(self.running) + (self.rows_of_others if workflow_id is None else 0)
        return Snapshot(frozenset(self.running), rows, 1 if self.page is None else 1 + rows // self.page)

    def at(self) -> float:
        return round(self.clock.monotonic() - self.begun, 3)

    def sleep(self, instance_id: str, *, again: bool = False, workflow: str | None = "w", **options: Any) -> Any:
        def woken(sleeper: Any, reason: Any, listed_at: float | None) -> None:
            self.woken.append((self.at(), instance_id, type(reason).__name__))
            self.listed_at[instance_id] = None if listed_at is None else round(listed_at - self.begun, 1)
            if again:
                asyncio.get_running_loop().call_soon(
                    lambda: self.sleep(
                        instance_id,
                        again=True,
                        workflow=workflow,
                        **{**options, "answered": not self.reads_fail, "first_look": None},
                    )
                )

        given = {"interval": 5.0, "answered": True, **options}
        return self.watch.fall_asleep(instance_id, workflow, given.pop("interval"), woken, **given)

    def later(self) -> dict[str, Any]:
        return {"answered": not self.reads_fail, "first_look": None}

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
        assert world.woken == [(0.0, "a", "Hinted")]
        assert world.watch.hint("a")  # it is awake: its read may have come too early
        world.sleep("a")
        await world.clock.asleep(0.1)
        assert [name for _, name, _ in world.woken] == ["a", "a"]
        assert not world.watch.hint("somebody else")
        world.enter("c")
        await world.clock.asleep(0)
        world.watch.enter("c")
        world.watch.enter("c")  # these two read it just now
        assert world.watch.hint("c")
        world.sleep("c")
        world.sleep("c")
        await world.clock.asleep(0.5)
        assert [name for _, name, _ in world.woken].count("c") == 3, "each who waits for it"

    played(world, main)


def test_hints_in_a_flood_hold_up_nobody_else() -> None:
    """An end that no list shows is told as soon as without the flood, or nearly so."""
    world = World()

    async def main() -> None:
        world.enter(*(f"i{number}" for number in range(100)), again=True)
        world.enter("ends")
        flooding = True

        async def flood() -> None:
            while flooding:
                for number in range(100):
                    world.watch.hint(f"i{number}")
                await world.clock.asleep(0.1)

        task = asyncio.ensure_future(flood())
        await world.clock.asleep(3)
        world.running.discard("ends")
        await world.clock.asleep(6)
        flooding = False
        await task
        assert [why for _, name, why in world.woken if name == "ends"] == ["Absent"]
        assert len(world.woken) <= world.at() * READS_PER_SECOND + BURST, "and hints have the rate of all"

    played(world, main)


def test_a_hint_is_followed_at_once_though_a_crowd_waits_for_its_turn() -> None:
    world = World()

    async def main() -> None:
        world.enter(*(f"i{number:04}" for number in range(1500)))
        await world.clock.asleep(4)
        world.running.clear()
        await world.clock.asleep(2)
        waits = next(one.instance_id for one in reversed(list(world.watch._sleepers)) if one.queued)
        hinted_at = world.at()
        world.watch.hint(waits)
        await world.clock.asleep(5)
        assert next(at for at, name, _ in world.woken if name == waits) - hinted_at <= 0.2

    played(world, main)


def test_whoever_was_hinted_at_too_early_looks_again_when_it_wants() -> None:
    world = World()

    async def main() -> None:
        world.enter("a", "b", interval=3600.0, again_at=world.clock.monotonic() + 0.3)
        await world.clock.asleep(1)
        assert world.woken == [(0.3, "a", "Paused"), (0.3, "b", "Paused")]

    played(world, main)


def test_a_long_interval_keeps_nobody_asleep_whose_own_is_short_while_the_server_is_ill() -> None:
    world = World()

    async def main() -> None:
        world.ill = world.reads_fail = True
        world.enter(*(f"i{number}" for number in range(24)), interval=3600.0, again=True)
        world.watch.enter("short")
        world.running.add("short")
        for _ in range(20):  # its reads hang while others poll, so that it is awake whenever a pause is chosen
            world.sleep("short", interval=0.5, answered=False)
            await world.clock.asleep(1.5)
        world.ill = world.reads_fail = False
        world.woken.clear()
        world.sleep("short", interval=0.5, answered=False)
        await world.clock.asleep(61)
        assert [name for _, name, _ in world.woken].count("short") >= 1

    played(world, main)


def test_the_poll_comes_soon_for_whoever_has_just_begun_and_then_as_before() -> None:
    world = World()

    async def main() -> None:
        world.enter(*(f"i{number}" for number in range(30)))
        await world.clock.asleep(7)
        world.enter("short", first_look=0.2)
        world.running.discard("short")
        await world.clock.asleep(0.5)
        assert [(name, why) for _, name, why in world.woken] == [("short", "Absent")]
        assert world.woken[0][0] == pytest.approx(7.2, abs=0.05)
        world.lists.clear()
        await world.clock.asleep(60)
        pauses = [round(later - earlier, 1) for (earlier, _), (later, _) in pairwise(world.lists)]
        assert pauses[0] < 1
        assert pauses[:8] == sorted(pauses[:8]), "ever more rarely"
        assert all(4.4 < pause < 5.6 for pause in pauses[9:])

    played(world, main)


@pytest.mark.parametrize("seconds", [0.01, 0.1])
def test_newcomers_one_after_the_other_take_a_small_share_of_the_time_for_lists(seconds: float) -> None:
    world = World()
    world.list_seconds = seconds

    async def main() -> None:
        world.enter(*(f"i{number}" for number in range(1_000)))
        await world.clock.asleep(6)
        world.lists.clear()
        for number in range(100):
            world.enter(f"new{number}", first_look=0.2)
            await world.clock.asleep(0.3)
        assert 10 <= len(world.lists) <= 100, "one for each newcomer at most"
        assert len(world.lists) * seconds <= 0.06 * 30

    played(world, main)


def test_a_list_tells_only_of_those_that_it_holds_that_they_were_read() -> None:
    """Whoever is missing, and cannot be read, gives up as it would by itself."""
    world = World()

    async def main() -> None:
        world.enter("a", "b", "c", again=True)
        await world.clock.asleep(17)
        world.running.discard("b")
        await world.clock.asleep(40)
        times = [round(at) for at, name, _ in world.woken if name == "b"]
        assert len(times) >= 7
        assert world.listed_at["b"] is None, "no list of its last sleep held it"
        assert world.listed_at["a"] is not None
        world.running.add("b")
        await world.clock.asleep(45)
        assert world.listed_at["b"] is not None

    played(world, main)


@pytest.mark.parametrize(("waiting", "listed"), [(30, False), (300, True)])
def test_a_list_that_takes_too_long_gives_way_to_reads_where_these_are_few(waiting: int, listed: bool) -> None:
    world = World()
    world.list_seconds = 8.0

    async def main() -> None:
        world.enter(*(f"i{number}" for number in range(waiting)), again=True, interval=2.0)
        await world.clock.asleep(100)
        assert (len(world.lists) > 8) is listed
        if not listed:
            looked = [at for at, name, _ in world.woken if name == "i3" and at > 12]
            assert max(two - one for one, two in pairwise(looked)) < 4.5
            assert any(name == "i3" and 2 < at < 9 for at, name, _ in world.woken), "also while it is being read"

    played(world, main)


def test_any_number_may_wait_for_the_same_and_leave_in_any_order() -> None:
    world = World()

    async def main() -> None:
        sleepers = []
        for _ in range(2000):
            world.watch.enter("a")
            sleepers.append(world.sleep("a", until=world.clock.monotonic() + 10_000))
        assert len(world.watch._sleepers._alarms) == 2000
        for sleeper in (*sleepers[:700:2], *sleepers[1999:900:-3]):
            world.watch.forget(sleeper)
        left = [one for one in sleepers if one.asleep]
        assert list(world.watch._sleepers.of("a")) == left[::-1]
        for sleeper in left:
            world.watch.forget(sleeper)
        assert world.watch.remembers == 0

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
        assert len(world.watch._sleepers._alarms) < 200

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

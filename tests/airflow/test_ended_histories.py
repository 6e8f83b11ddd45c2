"""Histories of a watched workflow: whatever the order of starts, ends, polls, faults and restarts, each end is told.

The loop and the parts behind it are the real ones. Server, store and clock are models: a pause of the loop lets the
history go on. One thing a model must grant: a run that is shown as ended is not lost by two whole lists in a row.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from orchestration_integrations.airflow import ended_memory, ended_watch, whole_lists
from orchestration_integrations.airflow.compat import AIRFLOW_3_3
from orchestration_integrations.airflow.ended_runs import EndedRuns
from orchestration_integrations.airflow.ended_watch import EndedWatch
from orchestration_integrations.airflow.told_ends import (
    MOST_TO_LOOK_AT,
    MOST_TOLD,
    ToldEnds,
    UnreadableStateError,
)
from orchestration_integrations.api.errors import NotFoundError, ServerError, TransportError

pytestmark = pytest.mark.skipif(
    not AIRFLOW_3_3, reason="they are long, and one version is enough: nothing in them is Airflow's"
)

POLL = 30.0
START = 1.8e9
AHEAD = 3600.0
"""Seconds by which the server's clock is ahead."""
MOST_BYTES = 65_535
"""Of one value in Airflow's store."""


class Killed(BaseException):
    """The triggerer dies."""


class Over(BaseException):
    """The history is over."""


class Store:
    """Keeps what was set, as JSON, while it is up."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}
        self.up = True
        self.hangs = False
        self.tick: Callable[[], None] = lambda: None

    async def aget(self, key: str, default: Any = None) -> Any:
        await self._answers()
        return json.loads(self.kept[key]) if key in self.kept else default

    async def aset(self, key: str, value: Any) -> None:
        await self._answers()
        self.kept[key] = json.dumps(value)
        assert len(self.kept[key]) <= MOST_BYTES
        self.tick()

    async def _answers(self) -> None:
        self.tick()
        if self.hangs:
            await asyncio.Event().wait()
        if not self.up:
            raise RuntimeError("no API server")


class World:
    """A server with its runs, what becomes of requests to it, and a clock."""

    def __init__(self) -> None:
        self.here = START
        self.ahead = AHEAD
        self.rows: dict[str, datetime | None] = {}
        self.backup: dict[str, datetime | None] = {}
        self.begun = 0
        self.elsewhere = False
        """Requests reach another server, which knows none of the runs."""
        self.alive_for: int | None = None
        """Steps until the triggerer dies; None: it lives."""
        self.failing_lists = self.failing_whole_lists = self.failing_reads = self.denials = 0
        self.lossy_lists = 0
        self.lost_last: set[str] = set()
        self.hidden: set[str] = set()
        """Lost by every whole list."""
        self.at_once = self.most_at_once = 0
        self.reads = self.pages = 0
        self.plans = SimpleNamespace(clock=SimpleNamespace(server_time=lambda: self.here + self.ahead))

    def short(self) -> str:
        one = self.start()
        self.rows[one] = self._now()
        return one

    def start(self) -> str:
        one = f"run-{self.begun:08d}-0000-4000-8000-000000000000"
        self.begun += 1
        self.rows[one] = None
        return one

    def end(self, number: int) -> None:
        running = [one for one, ended in self.rows.items() if ended is None]
        if running:
            self.rows[running[number % len(running)]] = self._now()

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.here + self.ahead, timezone.utc)

    def tick(self) -> None:
        if self.alive_for is not None:
            self.alive_for -= 1
            if self.alive_for < 0:
                self.alive_for = None
                raise Killed

    def _row(self, one: str) -> Any:
        ended = self.rows[one]
        return SimpleNamespace(
            id=one,
            workflow_id="w",
            terminated=ended is not None,
            terminated_at=ended,
            updated_at=datetime.fromtimestamp(0, timezone.utc),
            state="running" if ended is None else "succeeded",
        )

    async def get_workflow(self, workflow_id: str) -> Any:
        return SimpleNamespace(id=workflow_id, deleted_at=None)

    async def list_instances(self, workflow_id: str, running: bool | None = None) -> Sequence[Any]:
        self.tick()
        if self.elsewhere:
            return []
        if self.failing_lists > 0 or (running is None and self.failing_whole_lists > 0):
            self.failing_lists -= 1
            self.failing_whole_lists -= running is None
            raise TransportError("the connection was cut in the middle of the list")
        rows = [self._row(one) for one, ended in self.rows.items() if running is None or ended is None]
        self.pages += 1 + len(rows) // whole_lists.PAGE_SIZE
        if self.lossy_lists > 0:
            self.lossy_lists -= 1
            lost = {row.id for number, row in enumerate(rows) if number % 3 == self.lossy_lists % 3}
            if running is None:
                lost -= self.lost_last
                self.lost_last = lost
            return [row for row in rows if row.id not in lost]
        if running is None:
            self.lost_last = set()
            return [row for row in rows if row.id not in self.hidden]
        return rows

    async def get_instance(self, instance_id: str) -> Any:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.reads += 1
        await asyncio.sleep(0)
        self.at_once -= 1
        self.tick()
        if self.elsewhere or instance_id not in self.rows:
            raise NotFoundError("Instance not found", status_code=500)
        if self.failing_reads > 0:
            self.failing_reads -= 1
            raise ServerError("away", status_code=503)
        if self.denials > 0:
            self.denials -= 1
            raise NotFoundError("page not found", status_code=404)
        return self._row(instance_id)

    def heal(self) -> None:
        self.elsewhere = False
        self.failing_lists = self.failing_whole_lists = self.failing_reads = self.denials = self.lossy_lists = 0


class History:
    """Performs actions whenever the loop pauses. ``poll`` lets it go on, ``restart`` and ``crash`` end the process."""

    def __init__(self, actions: Sequence[tuple[str, int]], store: Store | None, failing: int = 0) -> None:
        self.world = World()
        self.world.failing_lists = failing
        self.store = store
        self.told: Counter[str] = Counter()
        self.crashed_amid = self.store_failed = False
        self._actions = list(actions)
        self._just_told = self._crash = False
        self._polls_left = 60
        if store is not None:
            store.tick = self.world.tick

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[World]:
        yield self.world

    async def get_async_conn(self) -> Any:
        return self.connected()

    async def sleep(self, seconds: float) -> None:
        self.world.tick()
        self.world.here += seconds
        if self._just_told:
            self._just_told = False
            if self._crash:
                self._crash, self.crashed_amid = False, True
                raise Killed
            return
        while self._actions:
            name, number = self._actions.pop(0)
            self.world.here += 1
            if name == "poll":
                return
            self._act(name, number)
        if (
            self._crash
            or (self.store is not None and (self.store.hangs or not self.store.up))
            or self._polls_left == 60
        ):
            self._crash = False
            self.world.alive_for = None
            if self.store is not None:
                self.store.up, self.store.hangs = True, False
            self.world.heal()
        self._polls_left -= 1
        if self._polls_left < 0:
            raise Over

    def _act(self, name: str, number: int) -> None:
        world = self.world
        if name == "start":
            world.start()
        elif name == "short":
            world.short()
        elif name == "end":
            world.end(number)
        elif name == "later":
            world.here += number * 60
        elif name == "restart":
            raise Killed
        elif name == "crash":
            self._crash = True
        elif name == "store" and self.store is not None:
            self.store.up = bool(number % 2)
            self.store_failed = self.store_failed or not self.store.up
        elif name == "hang" and self.store is not None:
            self.store.hangs = bool(number % 2)
        elif name == "die":
            world.alive_for = number
        elif name == "elsewhere":
            world.elsewhere = bool(number % 2)
        elif name == "back up":
            world.backup = dict(world.rows)
        elif name == "restore":
            world.rows = dict(world.backup)
        elif name == "clock":
            world.ahead += (number - 10) * 500
        elif name == "heal":
            world.heal()
        else:
            setattr(world, name, number % 4)

    def run(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ended_watch, "OrchestrationHook", lambda conn_id: self)
            patch.setattr(whole_lists, "PAGE_SIZE", 3)
            patch.setattr(ended_memory, "STORE_SECONDS", 0.001)
            while True:
                try:
                    asyncio.run(self._process())
                except Killed:
                    self._just_told = False
                    continue
                except Over:
                    return

    async def _process(self) -> None:
        stores = [] if self.store is None else [self.store]
        watch = EndedWatch(
            "w", None, "c", POLL, stores, sleep=self.sleep, now=lambda: self.world.here, elapsed=lambda: self.world.here
        )
        async for payload in watch.payloads():
            self._just_told = True
            self.told.update(one["instance_id"] for one in payload["instances"])

    @property
    def ended(self) -> set[str]:
        return {one for one, ended in self.world.rows.items() if ended is not None}


NUMBERS = st.integers(0, 20)
WORLD = st.tuples(st.sampled_from(["start", "short", "end", "later"]), NUMBERS)
FAULTS = st.tuples(
    st.sampled_from(["failing_lists", "failing_whole_lists", "failing_reads", "denials", "lossy_lists", "heal"]),
    NUMBERS,
)
POLLS = st.just(("poll", 0))
RESTARTS = st.just(("restart", 0))
CRASHES = st.just(("crash", 0))
STORES = st.tuples(st.just("store"), NUMBERS)


def unfolded(actions: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """``polls`` is twenty-five of them: twelve minutes. Between two jumps of its clock the server is seen once."""
    shown = {"polls": [("poll", 0)] * 25, "clock": [("short", 0), ("poll", 0)]}
    return [
        one for name, number in actions for one in ([] if name == "polls" else [(name, number)]) + shown.get(name, [])
    ]


MANY = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@MANY
@given(st.lists(WORLD | FAULTS | POLLS | RESTARTS, max_size=60), st.integers(0, 5))
@example([("start", 0), ("poll", 0), ("end", 0), ("restart", 0)], 0)
@example([("short", 0), ("poll", 0), ("restart", 0), ("short", 0)], 3)
def test_with_a_store_each_end_is_told_exactly_once(actions: list[tuple[str, int]], failing: int) -> None:
    """``failing``: lists that fail from the beginning on."""
    history = History(actions, Store(), failing)
    history.run()
    assert history.told == dict.fromkeys(history.ended, 1)


@MANY
@given(st.lists(WORLD | FAULTS | POLLS | RESTARTS | CRASHES | STORES, max_size=60))
@example([("start", 0), ("poll", 0), ("end", 0), ("crash", 0), ("poll", 0), ("poll", 0)])
def test_crashes_and_a_failing_store_repeat_and_lose_nothing(actions: list[tuple[str, int]]) -> None:
    """A crash between telling and keeping, and a store that was up when the watching began and fails now and then."""
    history = History(actions, Store())
    history.run()
    assert set(history.told) == history.ended
    if not history.crashed_amid and not history.store_failed:
        assert set(history.told.values()) <= {1}


ELSEWHERE = st.tuples(st.just("elsewhere"), NUMBERS)
MANY_POLLS = st.just(("polls", 0))


@MANY
@given(st.lists(WORLD | POLLS | MANY_POLLS | RESTARTS | ELSEWHERE, max_size=40))
@example([("start", 0), ("poll", 0), ("elsewhere", 1), ("polls", 0), ("elsewhere", 0), ("poll", 0), ("end", 0)])
@example([("start", 0), ("poll", 0), ("elsewhere", 1), ("polls", 0), ("restart", 0), ("polls", 0), ("end", 0)])
@example([("start", 0), ("poll", 0), ("elsewhere", 1), ("end", 0), ("short", 0), ("polls", 0), ("restart", 0)])
def test_another_server_that_answers_for_a_while_loses_and_repeats_nothing(actions: list[tuple[str, int]]) -> None:
    """Its lists are empty and it denies the ids, for an hour and longer. Then the right one is back."""
    history = History(unfolded(actions), Store())
    history.run()
    assert history.told == dict.fromkeys(history.ended, 1)


@MANY
@given(
    st.lists(
        WORLD | POLLS | MANY_POLLS | RESTARTS | ELSEWHERE | st.sampled_from([("back up", 0), ("restore", 0)]),
        max_size=40,
    )
)
@example([("start", 0), ("back up", 0), ("end", 0), ("polls", 0), ("restore", 0), ("polls", 0), ("end", 0)])
def test_a_server_that_is_restored_from_a_backup_loses_no_end(actions: list[tuple[str, int]]) -> None:
    """What ends after it is told, also where the run had ended before, and was told."""
    history = History(unfolded(actions), Store())
    history.run()
    assert history.ended <= set(history.told)


@MANY
@given(st.lists(WORLD | POLLS | MANY_POLLS | st.tuples(st.just("clock"), NUMBERS), max_size=40))
@example([("clock", 20), ("short", 0), ("polls", 0), ("clock", 0), ("short", 0), ("poll", 0)])
def test_a_clock_of_the_server_that_jumps_loses_no_end(actions: list[tuple[str, int]]) -> None:
    history = History(unfolded(actions), Store())
    history.run()
    assert set(history.told) == history.ended


@MANY
@given(st.lists(WORLD | FAULTS | POLLS | RESTARTS | ELSEWHERE | st.tuples(st.just("die"), NUMBERS), max_size=60))
def test_a_triggerer_that_dies_at_any_step_repeats_and_loses_nothing(actions: list[tuple[str, int]]) -> None:
    history = History(actions, Store())
    history.run()
    assert set(history.told) == history.ended


@settings(MANY, max_examples=60)
@given(st.lists(WORLD | FAULTS | POLLS | st.tuples(st.just("hang"), NUMBERS), max_size=40))
@example([("poll", 0), ("hang", 1), ("short", 0), *[("poll", 0)] * 5, ("short", 0)])
def test_a_store_that_hangs_keeps_no_end_from_being_told(actions: list[tuple[str, int]]) -> None:
    history = History(actions, Store())
    history.run()
    assert history.told == dict.fromkeys(history.ended, 1)


@MANY
@given(st.lists(WORLD | FAULTS | POLLS, max_size=60))
def test_without_a_store_each_end_is_told_exactly_once_until_a_restart(actions: list[tuple[str, int]]) -> None:
    history = History(actions, None)
    history.run()
    assert history.told == dict.fromkeys(history.ended, 1)


def test_without_a_store_what_ends_while_the_triggerer_is_down_is_not_told() -> None:
    history = History([("start", 0), ("start", 0), ("poll", 0), ("end", 0), ("poll", 0), ("restart", 0)], None)
    history.run()
    assert len(history.told) == 1
    history = History([("start", 0), ("poll", 0), ("end", 0), ("restart", 0)], None)
    history.run()
    assert not history.told


def test_a_crash_between_telling_and_keeping_repeats_the_end_with_its_id() -> None:
    history = History([("start", 0), ("poll", 0), ("crash", 0), ("end", 0), ("poll", 0)], Store())
    history.run()
    assert history.crashed_amid
    assert history.told == dict.fromkeys(history.ended, 2)


def test_what_is_told_before_the_store_can_be_read_is_held_until_then() -> None:
    store = Store()
    away = [("poll", 0), ("store", 0), ("restart", 0), ("short", 0), *[("poll", 0)] * 40, ("store", 1)]
    history = History(away, store)
    history.run()
    assert history.told == dict.fromkeys(history.ended, 1)
    assert len(history.told) == 1


def test_a_run_that_was_seen_running_is_told_after_a_restart_however_old_its_end_looks() -> None:
    """Its row was written late, or by a clock that is behind: lists alone would take it for told."""
    world = World()

    async def polls() -> None:
        runs = EndedRuns("w", lambda: world.here, lambda: world.here)
        one = world.start()
        for _ in range(40):
            await runs.poll(world)  # type: ignore[arg-type]
            world.here += POLL
        world.rows[one] = datetime.fromtimestamp(START + AHEAD + 1, timezone.utc)
        again = EndedRuns("w", lambda: world.here, lambda: world.here)
        again.go_on_from(json.loads(json.dumps(runs.state())))
        for _ in range(2):
            ended = (await again.poll(world)).ended  # type: ignore[arg-type]
            assert [row.id for row in ended] == [one]
        again.told(ended)
        assert not (await again.poll(world)).ended  # type: ignore[arg-type]

    asyncio.run(polls())


@pytest.mark.parametrize("sign", ["none before", "a row comes up late", "the list gets shorter"])
def test_what_whole_lists_lose_is_told_later(sign: str) -> None:
    """Whatever a list loses twice in a row, as long as the second reading shows that rows were lost."""
    world = World()
    told: list[str] = []

    async def polls() -> None:
        runs = EndedRuns("w", lambda: world.here, lambda: world.here)

        async def poll(*hidden: str) -> None:
            world.hidden = set(hidden)
            ended = (await runs.poll(world)).ended  # type: ignore[arg-type]
            told.extend(one.id for one in ended)
            runs.told(ended)
            world.here += POLL

        await poll()
        old = world.short()
        await poll()
        await poll()
        lost, late = world.short(), world.short()
        world.here += 600
        if sign == "none before":
            await poll(lost, late)
        else:
            await poll(lost, late)
            await poll(lost, *([old, late] if sign == "the list gets shorter" else []))
        await poll()
        assert sorted(told) == sorted([old, lost, late])

    asyncio.run(polls())


def test_what_is_held_stays_small_and_so_does_what_a_poll_reads() -> None:
    """A thousand short runs, two a poll: held are those of the last minutes alone."""
    world, store = World(), Store()

    async def polls() -> None:
        runs = EndedRuns("w", lambda: world.here, lambda: world.here)
        told: Counter[str] = Counter()
        held = []
        for _ in range(500):
            for _ in range(2):
                world.short()
            world.here += POLL
            ended = (await runs.poll(world)).ended  # type: ignore[arg-type]
            told.update(one.id for one in ended)
            runs.told(ended)
            held.append(len(runs._ends))
            await store.aset("key", runs.state())
        assert max(held) < 120
        for _ in range(20):
            world.here += POLL
            ended = (await runs.poll(world)).ended  # type: ignore[arg-type]
            told.update(one.id for one in ended)
            runs.told(ended)
        assert told == dict.fromkeys(world.rows, 1)

    asyncio.run(polls())
    assert world.pages < 2 * 520 + 200


def test_reads_by_id_are_bounded_at_once_and_in_one_poll() -> None:
    world = World()
    for _ in range(700):
        world.start()

    async def polls() -> list[int]:
        runs = EndedRuns("w", lambda: world.here, lambda: world.here)
        await runs.poll(world)  # type: ignore[arg-type]
        for _ in range(700):
            world.end(0)
        counts = []
        for _ in range(4):
            ended = (await runs.poll(world)).ended  # type: ignore[arg-type]
            counts.append(len(ended))
            runs.told(ended)
        return counts

    assert asyncio.run(polls()) == [300, 300, 100, 0]
    assert world.most_at_once == 10
    assert world.reads == 700


def test_reads_by_id_stop_where_the_server_is_ill() -> None:
    world = World()
    for _ in range(100):
        world.start()

    async def polls() -> int:
        runs = EndedRuns("w", lambda: world.here, lambda: world.here)
        await runs.poll(world)  # type: ignore[arg-type]
        for _ in range(100):
            world.end(0)
        world.failing_reads = 1000
        poll = await runs.poll(world)  # type: ignore[arg-type]
        assert isinstance(poll.trouble, ServerError)
        reads = world.reads
        world.failing_reads = 0
        assert len((await runs.poll(world)).ended) == 100  # type: ignore[arg-type]
        return reads

    assert asyncio.run(polls()) <= 20


def test_what_is_kept_fits_into_airflows_store() -> None:
    """Where more was told than fits, the oldest are left out: they are repeated, not lost."""
    ends = ToldEnds(START)
    ends.set_clock(0.0)
    ids = [f"{number:08d}-0000-4000-8000-000000000000" for number in range(MOST_TOLD + 1000)]
    for number, one in enumerate(ids):
        ends.tell(one, START + number * 61)
    running = [f"{number:08d}-1111-4000-8000-000000000000" for number in range(MOST_TO_LOOK_AT + 1000)]
    state = ends.state(running)
    assert len(json.dumps({"kept_at": START, "ends": state})) <= MOST_BYTES
    again, look_at = ToldEnds.of_state(json.loads(json.dumps(state)))
    assert [again.is_told(one) for one in ids] == [False] * 1000 + [True] * MOST_TOLD
    assert look_at == running[:MOST_TO_LOOK_AT]
    again.advance(START + 61 * 2000 - 0.5)
    assert all(again.is_told(one) for one in ids[2000:])
    assert not again.is_told(ids[1000])


@pytest.mark.parametrize(
    "state",
    [
        None,
        7,
        "text",
        [],
        {},
        {"version": 2},
        {"version": 1, "since": "soon", "told": {}, "look_at": []},
        {"version": 1, "since": float("nan"), "told": {}, "look_at": []},
        {"version": 1, "since": 1.0, "told": {"x": "abc"}, "look_at": []},
        {"version": 1, "since": 1.0, "told": [], "look_at": []},
        {"version": 1, "since": 1.0, "told": {}},
    ],
)
def test_what_is_no_state_is_told_as_such(state: Any) -> None:
    runs = EndedRuns("w")
    with pytest.raises(UnreadableStateError):
        runs.go_on_from(state)

"""One random history of waits that share a poll: instances end at random times, waiters come and go, lists go wrong.

The server's own record judges, and a play of the same seed in which each wait asks for itself. *Safety*: no wait ends
but by a read of its instance's id after it ended, none is told what is not so, none sleeps past its deadline and last
look. *Liveness*: once the faults are over, whoever waits is told within a poll and its bounded rate. *Tidiness*:
nothing is kept of those that left.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from orchestration_integrations import (
    AsyncOrchestrationHttpHook,
    InstanceCancelledError,
    InstanceFailedError,
    OrchestrationError,
    OrchestrationHttpHook,
    RunResult,
    Settings,
    WaitTimeoutError,
)
from orchestration_integrations.api.calls import list_workflows
from orchestration_integrations.http_hook import many, waits
from orchestration_integrations.http_hook.asynchronous_driver import AsyncDriver
from orchestration_integrations.procedures.wait_arguments import WaitArguments
from orchestration_integrations.server import Core, InProcessTransport, VirtualClock
from orchestration_integrations.server.clock import SECOND
from orchestration_integrations.server.exchange import Request

from .faulty import AsyncFaultyTransport, Plan
from .histories import DELAY, LAST_LOOK, SLACK, Violation, approval, payment

AFTERWARDS = 400.0
"""Seconds after the faults for which everybody who has no limit waits."""
PATIENCE = 75.0
"""Seconds after the faults within which an end is told: the polls of a list that could not be read are so rare."""

SHAPES: dict[str, list[dict[str, Any]]] = {
    "pays": [payment()],
    "waits": [approval(), payment()],
    "waits twice": [approval("first"), DELAY, approval()],
    "lacks funds": [payment(source="poor")],
    "fails": [approval(), payment(destination="bad account!")],
}


@dataclass
class Group:
    """Somebody who waits for several instances."""

    ids: list[str]
    joins: float
    interval: float
    timeout: float | None
    leaves: float
    told: dict[str, tuple[float, Any]] = field(default_factory=dict)
    left: bool = False
    joined: float = 0.0


class Traffic(httpx.AsyncBaseTransport):
    """Counts reads by id, and lets two generations of servers answer at one address."""

    def __init__(self, inner: httpx.AsyncBaseTransport, core: Core, clock: VirtualClock, rng: Any) -> None:
        self.inner = inner
        self.reads: dict[str, list[float]] = defaultdict(list)
        self.counts: Counter[str] = Counter()
        self._core = core
        self._clock = clock
        self._rng = rng

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        parts = request.url.path.strip("/").split("/")
        if self._rng is not None:
            self._core.generation = self._rng.choice([2, 3])
        response = await self.inner.handle_async_request(request)
        if len(parts) == 2 and parts[0] == "instances" and request.method == "GET" and response.status_code == 200:
            self.reads[parts[1]].append(self._clock.time())
        self.counts["lists" if parts[-1] == "instances" else "reads by id" if len(parts) == 2 else "others"] += 1
        return response


@dataclass
class World:
    """What happens whoever looks: the same in every play of a seed."""

    seed: int
    rng: random.Random
    clock: VirtualClock
    core: Core
    plan: Plan
    groups: list[Group]
    mixed: bool
    intensity: float

    def broken(self, what: str) -> Violation:
        return Violation(
            f"{what}\nseed {self.seed}: generation {self.core.engine.generation}"
            f"{', two generations at one address' if self.mixed else ''}; replay with "
            f"python -m tests.simulation.soak --shared --seed {self.seed}"
        )

    def ends(self) -> dict[str, tuple[float, str]]:
        """When and how each run ended."""
        return {one["instance_id"]: (_seconds(one["at"]), one["error"] or "") for one in self.core.record().ended}


def _seconds(instant: Any) -> float:
    return float(instant) / SECOND if isinstance(instant, int) else float(instant)


def _done(core: Core, method: str, path: str, body: Any = None) -> None:
    """Something that somebody else does; nobody waits for the answer."""
    content = b"" if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json", "content-length": str(len(content))}
    core.handle(Request(method, path, "", headers, content))


def world_of(seed: int) -> World:
    """The world of a seed."""
    rng = random.Random(f"shared {seed}")
    clock = VirtualClock()
    core = Core(rng.choice([1, 2, 3]), clock=clock, seed=seed, faults=False)
    intensity = rng.choice([0.0, 0.05, 0.2, 0.4])
    begun = clock.time()
    span = rng.choice([5.0, 40.0, 120.0])
    names = rng.sample(list(SHAPES), rng.choice([1, 1, 2, 3]))
    setup = OrchestrationHttpHook(
        Settings(base_url="http://orchestration"), clock=clock, transport=InProcessTransport(core, clock)
    )
    workflows = {name: setup.create_workflow({"name": name, "stages": SHAPES[name]}).id for name in names}
    events: list[tuple[int, int, Callable[[], Any]]] = []

    def at(seconds: float, what: Callable[[], Any]) -> None:
        events.append((int((begun + seconds) * SECOND), len(events), what))

    ids = []
    for _ in range(rng.choice([2, 5, 12, 30])):
        name = rng.choice(names)
        instance_id = setup.run_workflow(workflows[name]).id
        ids.append(instance_id)
        first = rng.random() * span
        if rng.random() < 0.8:
            send = lambda one=instance_id, name=name: _done(core, "POST", f"/instances/{one}/events", {"name": name})  # noqa: E731
            if name == "waits twice":
                at(first, lambda send=send: send(name="first"))
            at(first + 2.0 + rng.random() * 5, lambda send=send: send(name="approve"))
        if rng.random() < 0.1:
            at(rng.random() * span, lambda one=instance_id: _done(core, "PUT", f"/instances/{one}/abort"))
    if rng.random() < 0.15:
        gone = rng.choice(list(workflows.values()))
        at(rng.random() * span, lambda: _done(core, "DELETE", f"/workflows/{gone}"))  # its runs are in no list
    clock.sleep(rng.choice([0.0, 0.3, 2.0]))
    plan = Plan(rng, clock, core, 0.0, clock.time(), random.Random(f"misread shared {seed}"))
    plan.quiet_at = begun + (rng.choice([5.0, 30.0, 60.0]) if intensity else 0.0)
    plan.schedule_outages()
    events.sort(key=lambda one: one[:2])

    def pump(now_ns: int) -> None:
        while events and events[0][0] <= now_ns:
            events.pop(0)[2]()

    clock.serve(pump, lambda: events[0][0] if events else None)
    last = max(span + 10.0, plan.quiet_at - begun) + AFTERWARDS
    groups = [
        Group(
            rng.sample(ids, rng.randint(1, len(ids))),
            joins=rng.choice([0.0, 0.0, rng.random() * span]),
            interval=rng.choice([1.0, 5.0, 20.0]),
            timeout=rng.choice([None, None, 3.0, 30.0, 90.0]),
            leaves=rng.choice([last, last, last, rng.random() * span]),
        )
        for _ in range(rng.choice([1, 2, 3]))
    ]
    return World(
        seed, rng, clock, core, plan, groups, mixed=core.generation > 1 and rng.random() < 0.2, intensity=intensity
    )


def play(world: World, shared: bool) -> Counter[str]:
    """Let everybody wait, and judge. Raises Violation."""
    rng = random.Random(f"mixed {world.seed}") if world.mixed else None
    traffic = Traffic(AsyncFaultyTransport(world.plan), world.core, world.clock, rng)
    random.seed(world.seed)
    begun = world.clock.time()
    asyncio.run(_play(world, traffic, shared, begun))
    counts: Counter[str] = Counter(traffic.counts)
    ends = world.ends()
    for group in world.groups:
        for instance_id in group.ids:
            _judge(world, group, instance_id, ends.get(instance_id), traffic, begun, counts)
    for kind, count in world.plan.injected.items():
        counts[f"fault {kind}"] += count
    return counts


async def _play(world: World, traffic: Traffic, shared: bool, begun: float) -> None:
    settings = Settings(base_url="http://orchestration")
    async with AsyncOrchestrationHttpHook(settings, clock=world.clock, transport=traffic) as hook:
        driver = hook.another(AsyncDriver)
        for one in (hook, driver):  # the first call of each begins threads, which take no virtual time
            await one.perform(hook.plans.listing(list_workflows))
        world.plan.intensity = world.intensity
        watch = waits.watch_by(driver, lambda: None) if shared else None

        async def stay(group: Group) -> None:
            await world.clock.asleep(begun + group.joins - world.clock.time())
            group.joined = world.clock.time()
            arguments = WaitArguments(timeout=group.timeout, poll_interval=group.interval)
            if watch is None:
                await asyncio.gather(*(direct(group, one, arguments) for one in group.ids))
                return
            states = [hook.plans.wait_state(one, arguments) for one in group.ids]
            several = many.ManyWaits(driver, watch, states)
            several.begin()
            try:
                for _ in states:
                    told = await several.ended.get()
                    if isinstance(told, BaseException):
                        raise told
                    group.told[told[0]] = (world.clock.time(), told[1])
            finally:
                several.leave()

        async def direct(group: Group, instance_id: str, arguments: WaitArguments) -> None:
            what: Any
            try:
                what = await hook.perform(hook.waiting_for(instance_id, arguments))
            except OrchestrationError as error:
                what = error
            group.told[instance_id] = (world.clock.time(), what)

        async def until_it_leaves(group: Group) -> None:
            staying = asyncio.create_task(stay(group))
            leaving = asyncio.create_task(world.clock.asleep(begun + group.leaves - world.clock.time()))
            done, _ = await asyncio.wait((staying, leaving), return_when=asyncio.FIRST_COMPLETED)
            group.left = staying not in done
            for one in (staying, leaving):
                one.cancel()
            results = await asyncio.gather(staying, leaving, return_exceptions=True)
            for one in results:
                if isinstance(one, Exception):
                    raise one

        await asyncio.gather(*(until_it_leaves(group) for group in world.groups))
        if watch is not None and (watch.present or watch.remembers):
            raise world.broken(f"something is kept of those that left: {watch.present}, {watch.remembers}")


def _judge(
    world: World,
    group: Group,
    instance_id: str,
    end: tuple[float, str] | None,
    traffic: Traffic,
    begun: float,
    counts: Counter[str],
) -> None:
    joined = group.joined
    until = None if group.timeout is None else joined + group.timeout
    if instance_id not in group.told:
        if not group.left:
            raise world.broken(f"nothing was told of {instance_id}, and nobody left")
        due = max(end[0], world.plan.quiet_at, joined) + group.interval * 1.5 + PATIENCE if end is not None else None
        if due is not None and begun + group.leaves > due:
            raise world.broken(f"{instance_id} ended at {end}, and whoever waited until {group.leaves} was not told")
        counts["left"] += 1
        return
    at, what = group.told[instance_id]
    kind = "succeeded" if isinstance(what, RunResult) else type(what).__name__
    counts[kind] += 1
    if isinstance(what, WaitTimeoutError):
        if until is None or at < until - SLACK or at > until + LAST_LOOK + SLACK:
            raise world.broken(f"{instance_id}: timed out at {at - joined:.2f} of {group.timeout}")
        if end is not None and max(end[0], world.plan.quiet_at, joined) + group.interval * 1.5 + PATIENCE < until:
            raise world.broken(f"{instance_id}: timed out at {at}, and it ended at {end}")
        return
    told = {RunResult: "", InstanceFailedError: None, InstanceCancelledError: "canceled"}
    if type(what) not in told:
        raise world.broken(f"{instance_id}: {what!r}")
    if end is None:
        raise world.broken(f"{instance_id}: {kind}, and it runs")
    wanted = told[type(what)]
    if (wanted is None and end[1] in ("", "canceled")) or (wanted is not None and end[1] != wanted):
        raise world.broken(f"{instance_id}: {kind}, and it ended with {end[1]!r}")
    if not any(end[0] - 1e-6 <= one <= at for one in traffic.reads[instance_id]):
        raise world.broken(f"{instance_id}: {kind}, and nobody read it after its end")
    if until is not None and at > until + LAST_LOOK + SLACK:
        raise world.broken(f"{instance_id}: told {at - until:.2f} s past the deadline")
    if at > max(end[0], world.plan.quiet_at, joined) + group.interval * 1.5 + PATIENCE:
        raise world.broken(f"{instance_id}: ended at {end[0] - begun:.1f}, told at {at - begun:.1f}")


def run_shared_history(seed: int) -> Counter[str]:
    """Play a seed twice: sharing, and each for itself. Raises Violation."""
    world = world_of(seed)
    counts = play(world, shared=True)
    alone = world_of(seed)
    apart = play(alone, shared=False)
    for group, other in zip(world.groups, alone.groups, strict=True):
        for instance_id, instance_other in zip(group.ids, other.ids, strict=True):
            one, two = group.told.get(instance_id), other.told.get(instance_other)
            if one is None or two is None or WaitTimeoutError in (type(one[1]), type(two[1])):
                continue
            if type(one[1]) is not type(two[1]):
                raise world.broken(f"{instance_id}: {one[1]!r} where the direct wait said {two[1]!r}")
            counts["the same as the direct wait"] += 1
    counts["reads by id, each for itself"] = apart["reads by id"]
    return counts

"""The price of waiting, by the number of waiters: requests, bytes, CPU, memory, and how late an end is told."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from . import svg
from .measuring import Child, Options, Spread, figure, percentile
from .report import Section, Target
from .waiters import shares

SIZES = ((10, 100, 1_000), (10_000,))
"""Numbers of waiters; those that stand together are light, and are measured at the same time to save some."""

WINDOWS = 6
"""Intervals that are measured, each by itself: their differences are the spread."""


@dataclass
class Waited:
    """What one client did while n runs waited.

    Attributes:
        operations: how many requests of each operation, in all.
        seconds, requests, bytes, cpu: of each interval: its length, and what was sent, transferred and computed in it.
        server: seconds of the server's CPU in all.
        delays: seconds from each end on the server to the moment at which the client was told.
        missed: how many ends it was not told in time.
        grown: bytes of the client's memory for each waiter.
    """

    seconds: list[float] = field(default_factory=list)
    requests: list[float] = field(default_factory=list)
    operations: Counter[str] = field(default_factory=Counter)
    bytes: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    server: float = 0.0
    delays: list[float] = field(default_factory=list)
    missed: int = 0
    grown: float = 0.0

    def rate(self, of: list[float]) -> float:
        """For each second."""
        return sum(of) / sum(self.seconds)


def wait(server: Child, way: str, count: int, interval: float, windows: int) -> Waited:
    """Let a client wait for new runs on a server, while one in a hundred ends in each interval."""
    url, ids = server.ask("url"), server.ask("running", count=count)
    first = server.ask("running", count=1)
    server.ask("end", ids=first, within=0.0)
    found = Waited()
    with Child("waiters", way, url, *first) as client:
        client.ask("ready")
        client.ask("wait", ids=ids, interval=interval)
        time.sleep(2 * interval)  # the first reads are over, and the pauses have grown
        left = random.sample(ids, len(ids))
        ending: list[str] = []
        here, there = client.ask("usage"), server.ask("usage")
        begun = there
        for _ in range(windows):
            some = [left.pop() for _ in range(max(1, count // 100)) if left]
            ending += some
            server.ask("end", ids=some, within=interval)
            time.sleep(max(0.0, here["at"] + interval - time.time()))
            then, now = client.ask("usage"), server.ask("usage")
            found.seconds.append(now["at"] - there["at"])
            found.requests.append(_reads(now) - _reads(there))
            found.bytes.append(now["bytes"] - there["bytes"])
            found.cpu.append(then["cpu"] - here["cpu"])
            here, there = then, now
        found.operations = Counter(there["requests"])
        found.operations.subtract(begun["requests"])
        found.server = now["cpu"] - begun["cpu"]
        found.grown = here["grown"] / count
        limit = time.time() + max(3 * interval, 2.0)
        while client.ask("usage")["told"] < len(ending) and time.time() < limit:
            time.sleep(0.2)
        told, ended = client.ask("told"), server.ask("ended")
    unended = [one for one in ending if one not in ended]
    if unended:
        raise RuntimeError(f"{len(unended)} of {len(ending)} runs did not end on the server: a fault of the benchmark")
    found.delays = [told[one] - ended[one] for one in ending if one in told]
    found.missed = len(ending) - len(found.delays)
    server.ask("end_all")  # the next client finds a server without them
    return found


def _reads(usage: dict[str, Any]) -> int:
    return sum(count for name, count in usage["requests"].items() if name.startswith(("get_", "list_")))


def rounds(found: Waited, count: int, interval: float, way: str) -> list[float]:
    """How many times each waiter was looked at, in each interval. A client that asks for each by itself and cannot
    keep up looks less often than it should: its cost counts for each time that it did look."""
    if way == "peers":
        left = [count - max(1, count // 100) * (at + 0.5) for at in range(len(found.requests))]
        return [requests / max(waiting, 1) for requests, waiting in zip(found.requests, left, strict=True)]
    return [seconds / interval for seconds in found.seconds]


def measure(options: Options) -> list[Section]:
    """Both clients in turns, for each number of waiters."""
    interval = 1.0 if options.quick else 5.0
    sizes = ((10, 100),) if options.quick else SIZES
    windows = 2 if options.quick else WINDOWS
    mine: dict[int, Waited] = {}
    other: dict[int, Waited] = {}

    def one(server: Child, way: str, count: int) -> None:
        (mine if way == "ours" else other)[count] = wait(server, way, count, interval, windows)

    for at, together in enumerate(sizes):
        with ExitStack() as stack, ThreadPoolExecutor(len(together)) as pool:
            servers = [stack.enter_context(Child("serving")) for _ in together]
            for way in ("ours", "peers") if at % 2 else ("peers", "ours"):
                list(pool.map(one, servers, [way] * len(together), together))
    mine, other = ({count: found[count] for count in sorted(found)} for found in (mine, other))
    return [told(interval, mine, other)]


def times(what: str, one: Waited, two: Waited, count: int, interval: float) -> Spread:
    """How many times more the peers' way takes for one look at all waiters: over all intervals; and the lowest and the
    highest over two neighbouring ones, since a poll may come at the end of one and at the beginning of the next."""

    def ratio(part: slice) -> float:
        theirs = sum(getattr(two, what)[part]) / sum(rounds(two, count, interval, "peers")[part])
        own = sum(getattr(one, what)[part]) / sum(rounds(one, count, interval, "ours")[part])
        return float(theirs / max(own, 1e-6))

    pairs = [ratio(slice(at, at + 2)) for at in range(len(one.seconds) - 1)]
    return Spread(ratio(slice(None)), min(pairs), max(pairs))


def told(interval: float, mine: dict[int, Waited], other: dict[int, Waited]) -> Section:
    """The tables and charts."""
    rows, targets, slow = [], [], []
    ratios: dict[str, list[Spread]] = {"requests": [], "cpu": []}
    for count in mine:
        one, two = mine[count], other[count]
        for what in ratios:
            ratios[what].append(times(what, one, two, count, interval))
        took = interval / (sum(rounds(two, count, interval, "peers")) / (sum(two.seconds) / interval))
        if took > 1.15 * interval:
            slow.append(f"{count:,} (each was read every {took:.1f} s)")
        for name, found in (("ours", one), ("peers", two)):
            rows.append(
                [
                    f"{count:,}",
                    name,
                    figure(found.rate(found.requests)),
                    figure(found.rate(found.bytes) / 1000),
                    figure(found.rate(found.cpu)),
                    figure(found.server / sum(found.seconds)),
                    f"{_delay(found, 0.5)} / {_delay(found, 0.99)}",
                    figure(found.grown / 1024),
                    f"{ratios['requests'][-1]}" if name == "ours" else "",
                    f"{ratios['cpu'][-1]}" if name == "ours" else "",
                ]
            )
    most = max(mine)
    last = mine[most]
    targets.append(Target(f"requests, {most:,} waiters: times fewer", ratios["requests"][-1].middle, 50, "at least"))
    targets.append(Target(f"CPU, {most:,} waiters: times less", ratios["cpu"][-1].middle, 10, "at least"))
    late = percentile(last.delays, 0.99) if last.delays and not last.missed else math.inf
    targets.append(Target(f"p99 delay, {most:,} waiters, in intervals", late / interval, 1.5, "at most"))
    targets.append(Target(f"KB for each of {most:,} waiters", last.grown / 1024, 2, "at most"))
    text = [
        f"Each run stands in a `wait_event`; one in a hundred (at least one) ends in each interval of {interval:g} s. "
        "Ours is `wait_many`; `peers` is one loop for each run, as the triggers of other providers have it: read, "
        "sleep, read again. It is made cheaper than theirs: one aiohttp session for all, where dbt Cloud's trigger "
        "opens one for each read and Databricks' one for each run. CPU is that of the client's process alone; bytes "
        "are those on the connections, both ways, heads included.",
        "The last two columns say how many times fewer requests and how many times less CPU ours takes for one look at "
        "all waiters, lowest and highest over two neighbouring intervals.",
    ]
    if not shares():
        text.append("**`wait_many` is not there yet: `ours` is one `wait` for each run.**")
    if slow:
        text.append(
            "The peers' way did not keep up with "
            + ", ".join(slow)
            + ": the client and the embedded server could not do more on this machine. So its requests and CPU a "
            "second are too low, and the ratios count what it spent for each look at all waiters."
        )
    unheard = [
        f"{name} {found.missed} of {count:,}"
        for name, all_ in (("ours", mine), ("peers", other))
        for count, found in all_.items()
        if found.missed
    ]
    if unheard:
        text.append("Ends that were not told within three intervals after the last one: " + ", ".join(unheard) + ".")
    each = ", ".join(
        f"`{name}` {figure(number / len(last.seconds))}"
        for name, number in last.operations.most_common()
        if number and name.startswith(("get_", "list_"))
    )
    notes = [f"Requests of ours for {most:,} waiters, in each interval: {each}."]
    sizes = list(mine)
    series = {
        "requests a second": lambda found: found.rate(found.requests),
        "CPU seconds a second": lambda found: found.rate(found.cpu),
    }
    charts = {
        f"waiting-{slug}": svg.lines(
            f"Waiting: {what}, by the number of waiters",
            sizes,
            {way: [max(value(found[n]), 1e-4) for n in sizes] for way, found in (("ours", mine), ("peers", other))},
            across="waiters",
            up=what,
        )
        for (what, value), slug in zip(series.items(), ("requests", "cpu"), strict=True)
    }
    return Section(
        "waiting",
        "Waiting",
        text,
        [
            "waiters",
            "client",
            "requests/s",
            "KB/s",
            "CPU s/s",
            "server CPU s/s",
            "told after p50 / p99, s",
            "KB a waiter",
            "requests ×",
            "CPU ×",
        ],
        rows,
        targets,
        charts,
        notes,
    )


def _delay(found: Waited, share: float) -> str:
    return figure(percentile(found.delays, share)) if found.delays else "–"

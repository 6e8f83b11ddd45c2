"""The server's clocks: one that follows the wall and can be moved ahead, one that stands still until it is moved.

All instants inside the server are integers: nanoseconds since 1970. Nothing in the server reads the
time in any other way, so moving the clock moves everything: delays, retries, token lifetimes, `Date` headers.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from functools import partial
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

SECOND = 1_000_000_000
MILLISECOND = 1_000_000


def _monotonic_ns() -> Callable[[], int]:
    """What counts the machine's nanoseconds. Libraries that freeze the time of a test replace `time.monotonic_ns`,
    and a server that asked that one would stand still; the system's own call they leave alone."""
    if hasattr(time, "clock_gettime_ns"):
        return partial(time.clock_gettime_ns, time.CLOCK_MONOTONIC)
    return time.monotonic_ns


monotonic_ns = _monotonic_ns()
"""Nanoseconds that never go back and that nothing freezes."""
_MOST_ROUNDS = 500
"""Rounds of the event loop after which a virtual clock moves although others can run: they may run for ever."""


class Clock(Protocol):
    """What the engine needs of a clock."""

    def now_ns(self) -> int:
        """Nanoseconds since 1970; never goes back."""
        ...

    def move_ns(self, nanoseconds: int) -> None:
        """Move the clock ahead by so much."""
        ...


class RealClock:
    """The wall's time plus an offset. It can be moved ahead, never back, and a step of the wall clock doesn't move it.

    Args:
        offset_ns: how far ahead of the wall it starts; 0 by default.
    """

    def __init__(self, offset_ns: int = 0) -> None:
        self.offset_ns = offset_ns
        self._base = time.time_ns() - monotonic_ns()

    def now_ns(self) -> int:
        return self._base + monotonic_ns() + self.offset_ns

    def move_ns(self, nanoseconds: int) -> None:
        self.offset_ns += max(0, nanoseconds)


class VirtualClock:
    """A clock for simulations: it stands still but for `sleep`, `asleep` and `move_ns`, and costs no real time.

    Several servers and clients may share one. Asynchronous sleepers are served in the order of their
    due times: the clock moves to the earliest one only, so tasks that sleep for different times
    interleave as they would in real time. Not for use from several threads.

    Args:
        start: seconds since 1970 that the clock shows at first.
    """

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._now = int(start * SECOND)
        self._servers: list[tuple[Callable[[int], None], Callable[[], int | None]]] = []
        self._sleepers: list[tuple[int, int]] = []
        self._tickets = 0

    def serve(self, pump: Callable[[int], None], next_due: Callable[[], int | None]) -> None:
        """Have `pump(now_ns)` called after every move; `next_due()` is the instant of the server's next step."""
        self._servers.append((pump, next_due))

    def now_ns(self) -> int:
        return self._now

    def move_ns(self, nanoseconds: int) -> None:
        self.move_to(self._now + max(0, nanoseconds))

    def move_to(self, instant_ns: int) -> None:
        """Move ahead to an instant (no move if it has passed) and let the servers do what was due."""
        self._now = max(self._now, instant_ns)
        for pump, _ in self._servers:
            pump(self._now)

    def time(self) -> float:
        """Seconds since 1970, as `time.time`."""
        return self._now / SECOND

    def monotonic(self) -> float:
        """Seconds from a fixed point, as `time.monotonic`."""
        return self._now / SECOND

    def sleep(self, seconds: float) -> None:
        """As `time.sleep`, without the waiting."""
        self.move_ns(int(seconds * SECOND))

    async def asleep(self, seconds: float) -> None:
        """As `asyncio.sleep`, without the waiting."""
        await self.until(self._now + int(max(0.0, seconds) * SECOND))

    async def until(self, instant_ns: int, early: Callable[[], bool] | None = None) -> None:
        """Return when the clock shows the instant, or as soon as `early()` holds.

        The clock is moved there by others, or by us if nobody sleeps less long: step by step, so that
        whoever waits for a step of a server sees it at its instant.
        """
        self._tickets += 1
        mine = (instant_ns, self._tickets)
        heapq.heappush(self._sleepers, mine)
        try:
            while True:
                # Let every runnable task reach its own sleep first: only then is the earliest sleeper known.
                idle = 0
                for _ in range(_MOST_ROUNDS):
                    await asyncio.sleep(0)
                    idle = 0 if self._others_can_run() else idle + 1
                    if idle == 3:
                        break
                if self._now >= instant_ns or (early is not None and early()):
                    return
                if self._sleepers[0] == mine:
                    dues = [due for _, next_due in self._servers if (due := next_due()) is not None]
                    self.move_to(min([instant_ns, *dues]))
        finally:
            self._sleepers.remove(mine)
            heapq.heapify(self._sleepers)

    def _others_can_run(self) -> bool:
        """Whether anything is ready to run but those that sleep here: each of these is, whenever another one looks."""
        ready = getattr(asyncio.get_running_loop(), "_ready", ())  # asyncio's own loops have it
        return len(ready) >= len(self._sleepers)

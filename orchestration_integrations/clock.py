"""The time as everything here sees it, so that tests can move it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Protocol


def _monotonic() -> Callable[[], float]:
    """What counts the machine's seconds. Libraries that freeze the time of a test replace ``time.monotonic``, and a
    wait that asked that one would never be over; the system's own call they leave alone."""
    if hasattr(time, "clock_gettime"):
        return partial(time.clock_gettime, time.CLOCK_MONOTONIC)
    return time.monotonic


monotonic = _monotonic()
"""Seconds that never go back, comparable only inside this process. Nothing freezes them."""


class Clock(Protocol):
    """Wall-clock and monotonic seconds, and ways to let them pass."""

    def time(self) -> float:
        """Epoch seconds."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back, comparable only inside this process."""
        ...

    def sleep(self, seconds: float) -> None:
        """Block this thread."""
        ...

    async def asleep(self, seconds: float) -> None:
        """Suspend this task."""
        ...


class SystemClock:
    """The clock of the machine.

    Attributes:
        look_seconds: seconds after which whoever sleeps has to ``look``.
    """

    look_seconds: float = inf

    def look(self) -> None:
        """See whether the sleep is to go on. What it raises ends it."""

    async def alook(self) -> None:
        """As ``look``, without blocking the loop."""

    def time(self) -> float:
        """Epoch seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return monotonic()

    def sleep(self, seconds: float) -> None:
        """Block this thread for ``seconds``."""
        time.sleep(seconds)

    async def asleep(self, seconds: float) -> None:
        """Suspend this task for ``seconds``."""
        from asyncio import sleep  # not needed by those who block, and slow to import

        await sleep(seconds)


class AttentiveClock(SystemClock):
    """The clock of the machine, for those who look up while they sleep: nobody tells them otherwise to stop.

    Args:
        look: called as a sleep begins and each ``look_seconds`` from then on; what it raises ends the sleep. It may
            block. None: nothing is asked, and a sleep is made of short ones, so that it can be interrupted.
        look_seconds: seconds.
    """

    def __init__(self, look: Callable[[], object] | None, look_seconds: float) -> None:
        self._look = look
        self.look_seconds = look_seconds

    def look(self) -> None:
        """See whether the sleep is to go on. What it raises ends it."""
        if self._look is not None:
            self._look()

    def sleep(self, seconds: float) -> None:
        """Block this thread for ``seconds``."""
        end = self.monotonic() + seconds
        while True:
            self.look()
            left = end - self.monotonic()
            if left <= 0:
                return
            super().sleep(min(left, self.look_seconds))

    async def asleep(self, seconds: float) -> None:
        """Suspend this task for ``seconds``."""
        end = self.monotonic() + seconds
        while True:
            await self.alook()
            left = end - self.monotonic()
            if left <= 0:
                return
            await super().asleep(min(left, self.look_seconds))

    async def alook(self) -> None:
        """As ``look``, without blocking the loop."""
        from asyncio import to_thread

        if self._look is not None:
            await to_thread(self._look)


SYSTEM_CLOCK = SystemClock()

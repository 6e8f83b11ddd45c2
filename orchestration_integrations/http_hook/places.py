"""Places for calls of one event loop: so many at once, the others wait in their order.

A pool of httpcore looks through all its waiting requests whenever one ends, so hundreds that wait there keep the loop
from everything else. Here the end of a call wakes one waiter.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    import asyncio


class Places:
    """Places that tasks of one loop take and give back.

    Args:
        count: how many there are.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self, seconds: float) -> None:
        """Take a place. Raises httpx.PoolTimeout where none is free within these seconds."""
        if self._free > 0:
            self._free -= 1
            return
        from asyncio import get_running_loop  # not needed by the blocking hook, and slow to import

        loop = get_running_loop()
        place = loop.create_future()
        self._waiting.append(place)
        late = loop.call_later(seconds, _tell_late, place)
        try:
            await place
        except BaseException:
            if place.done() and not place.cancelled() and place.exception() is None:
                self.give_back()  # it was handed over, and its task was cancelled in the same moment
            raise
        finally:
            late.cancel()

    def give_back(self) -> None:
        """Hand a place to the task that has waited longest."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._free += 1


def _tell_late(place: asyncio.Future[None]) -> None:
    if not place.done():
        place.set_exception(httpx.PoolTimeout("all connections were in use until the deadline"))

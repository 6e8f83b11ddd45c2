"""Something read while somebody looks at it, and answered from memory: for what is looked at too rarely to be read
all the time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import msgspec

from ..api.errors import NotFoundError, is_gateways_404
from .ages import Limit, Moment
from .problems import problem_text

T = TypeVar("T")

EVERY, SHARE = 3.0, 20.0
"""Seconds at least between two readings; and so many times as long as one that succeeded took, the pause after it."""
FIRST = 0.3
"""Seconds for which a look waits for the reading under way: a quick server's answer is of this moment."""
LONGEST_READING = 60.0
"""Seconds of one reading, of all its calls together. One that takes longer is given up, and told."""


class Known(msgspec.Struct, Generic[T], frozen=True):
    """What the last readings came to.

    Attributes:
        value: of the last reading that succeeded; None before.
        read: when that reading began; None before.
        problem: why the last reading failed; None where it did not.
        missing: the last reading was denied: the server says that there is no such thing.
        unrouted: nobody was ever found who knows such a call, as on a server that is too old for it. Once something
            was read, such an answer is a gateway's: a ``problem`` like any other.
        begun: when the reading under way began; None where there is none.
    """

    value: T | None = None
    read: Moment | None = None
    problem: str | None = None
    missing: bool = False
    unrouted: bool = False
    begun: Moment | None = None


class Kept(Generic[T]):
    """Reads one thing, at each look that comes late enough; all who look meanwhile share the reading.

    Args:
        read: reads it.
        on_change: called when there is something new to see.

    Attributes:
        known: what the last readings came to.
        looked: monotonic seconds of the last look.
    """

    def __init__(self, read: Callable[[], Awaitable[T]], on_change: Callable[[], None]) -> None:
        self._read = read
        self._on_change = on_change
        self._due = 0.0
        self._task: asyncio.Task[None] | None = None
        self._begun: Moment | None = None
        self.looked = 0.0
        self.known: Known[T] = Known()

    async def look(self) -> Known[T]:
        """What is known now; has it read anew where that is due."""
        self.looked = time.monotonic()
        if self._task is None and self.looked >= self._due:
            self._task = asyncio.ensure_future(self._round())
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=FIRST)
        return msgspec.structs.replace(self.known, begun=self._begun)

    async def _round(self) -> None:
        begun = self._begun = Moment.now()
        before = self.known
        try:
            known = Known(await Limit(LONGEST_READING).keep(self._read), begun)
        except Exception as error:
            unrouted = is_gateways_404(error)
            if unrouted and before.value is None:
                known = Known(unrouted=True)
            elif isinstance(error, NotFoundError) and not unrouted:
                known = Known(before.value, before.read, missing=True)
            else:
                known = Known(before.value, before.read, problem_text(error))
        finally:
            self._task = self._begun = None
        took = begun.took if known.problem is None else 0.0  # one that failed was mostly waiting
        self._due = time.monotonic() + max(EVERY, SHARE * took)
        self.known = known
        if before == Known() or _news(known) != _news(before):
            self._on_change()

    def stop(self) -> None:
        """Read no more."""
        if self._task is not None:
            self._task.cancel()


def _news(known: Known[T]) -> object:
    """All but when it was read."""
    return msgspec.structs.replace(known, read=None)

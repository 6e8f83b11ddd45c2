"""How old what the page shows is.

Whatever is shown consists of answers that came one after another. It is as old as its oldest part, and that part is as
old as the moment at which its reading **began**: an answer may show its thing as it was when it was asked for. When a
reading has ended says nothing: one that took a minute tells of a minute ago. So every answer of the page carries the
begin of the reading of its oldest part, and how many seconds ago that was; the sign in the page's corner takes its word
from nothing else. A reading has a limit in time. What it has not read by then is told as unread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from ..api.errors import TransportError
from ..http_hook.in_time import in_time

T = TypeVar("T")

LIVE_FOR = 8.0
"""Seconds for which what was read counts as live. The page's scripts are told."""


class Moment(msgspec.Struct, frozen=True):
    """A moment of this process: ``monotonic`` seconds, for ages, and ``epoch`` seconds, for people."""

    monotonic: float
    epoch: float

    @classmethod
    def now(cls) -> Moment:
        """This moment."""
        return cls(time.monotonic(), time.time())

    @property
    def age(self) -> float:
        """Seconds since then, rather too many than too few: one clock stands while a machine sleeps, the other can be
        set back."""
        return max(self.took, time.time() - self.epoch)

    @property
    def took(self) -> float:
        """Seconds of work since then."""
        return time.monotonic() - self.monotonic


def oldest(*read: Moment | None) -> Moment | None:
    """The begin of the oldest of some readings; None where one of them was never made."""
    found = [one for one in read if one is not None]
    return min(found, key=lambda one: one.monotonic) if len(found) == len(read) else None


def told(read: Moment | None, begun: Moment | None = None) -> dict[str, Any]:
    """What an answer says of its age: ``readAt`` (epoch seconds), ``age`` and ``readingFor`` (seconds).

    Args:
        read: when the reading of the oldest part began; None: nothing was read yet.
        begun: when the reading under way began; None where there is none.
    """
    return {
        "readAt": None if read is None else read.epoch,
        "age": None if read is None else round(read.age, 1),
        "readingFor": None if begun is None else round(begun.age, 1),
    }


class Limit:
    """The limit in time of one reading that makes several calls.

    Args:
        seconds: that all of them may take together.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until = time.monotonic() + seconds

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self._until

    async def keep(self, read: Callable[[], Awaitable[T]]) -> T:
        """What a call answers within the limit.

        Raises:
            TransportError: it has not answered by then. Besides, what the call raises.
        """
        left = self._until - time.monotonic()
        if left > 0:
            try:
                return await in_time(read(), left)
            except (TimeoutError, asyncio.TimeoutError):
                pass
        raise TransportError(f"no answer within the {self._seconds:g} s of a reading")

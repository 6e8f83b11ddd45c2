"""The moment by which one exchange is over, as httpx's time-outs and as what a socket may still take.

httpcore asks its dictionary of time-outs at the beginning of each phase (pool, connect, write, read) and hands the
number to the socket as often as that phase needs it. A dictionary of constants would allow each phase, and each read
within a phase, the whole time, one after the other: a head that arrives byte by byte would never be late. This one
answers with the time that remains, as a number that knows its deadline, so that ``network`` asks again at each read
and each write. The sockets note here what is known of the exchange once it has failed.
"""

from __future__ import annotations

from math import inf
from typing import Any

from ..clock import Clock

LEAST_TIMEOUT = 0.001
"""Seconds: httpx takes 0 for "do not wait at all"."""


class Left(float):
    """Seconds that remained when a phase of an exchange began.

    Attributes:
        deadline: of that exchange.
    """

    __slots__ = ("deadline",)
    deadline: Deadline


class Deadline(dict[str, float]):
    """The time-outs of one exchange.

    Args:
        clock: gives monotonic time.
        at: monotonic seconds.
        seconds: that the exchange may take from when it has a connection for itself; None: ``at`` stands.
        until: monotonic seconds by which it has to be over in any case.
        place_by: monotonic seconds by which it has to have that connection; None: ``at``.

    Attributes:
        watched: whether the exchange goes over sockets that note here what they were handed.
        sent: whether a part of the request may have left: such a socket was handed it.
        proxy: name of the proxy that is being asked for a way to the server at the moment; None for none.
    """

    def __init__(
        self,
        clock: Clock,
        at: float,
        *,
        seconds: float | None = None,
        until: float = inf,
        place_by: float | None = None,
    ) -> None:
        super().__init__(connect=0.0, read=0.0, write=0.0, pool=0.0)
        self._clock = clock
        self._seconds = seconds
        self._until = until
        self._place_by = at if place_by is None else place_by
        self.at = at
        self.watched = False
        self.sent = False
        self.proxy: str | None = None

    def patience(self) -> float:
        """Seconds for which it may wait for a connection."""
        return max(LEAST_TIMEOUT, self._place_by - self._clock.monotonic())

    def begin(self) -> None:
        """It has a connection. Its time counts from now on: how long it waited for that says nothing of the server."""
        if self._seconds is not None:
            self.at = min(self._clock.monotonic() + self._seconds, self._until)

    def remaining(self) -> float:
        """Seconds that remain; 0 or less once it is over."""
        return self.at - self._clock.monotonic()

    def left(self) -> float:
        """Seconds that remain, at least a little."""
        return max(LEAST_TIMEOUT, self.remaining())

    def again(self) -> Deadline:
        """For another request of the same exchange, of which nothing has left yet."""
        return Deadline(self._clock, self.at)

    def get(self, key: str, default: Any = None) -> Any:
        """The time that remains, for each phase."""
        if key not in self:
            return default
        return self.limit()

    def __getitem__(self, key: str) -> float:
        return self.limit()

    def limit(self) -> Left:
        """The time that remains, as a time-out that knows this deadline."""
        left = Left(self.left())
        left.deadline = self
        return left

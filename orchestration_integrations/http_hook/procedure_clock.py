"""The clocks that procedures read, with the server's time as its answers told it."""

from __future__ import annotations

import random

from ..clock import Clock
from .exchange import Exchange


class ProcedureClock:
    """The clocks of one hook.

    Args:
        clock: of this machine.
        exchange: has heard the server's time.
    """

    def __init__(self, clock: Clock, exchange: Exchange) -> None:
        self._clock = clock
        self._exchange = exchange

    def monotonic(self) -> float:
        """Seconds for deadlines inside this process."""
        return self._clock.monotonic()

    def time(self) -> float:
        """Epoch seconds on this machine's clock."""
        return self._clock.time()

    def server_time(self) -> float:
        """Epoch seconds on the server's clock, by the Date of its latest answer; ours until it gave one."""
        return self._exchange.server_time()

    def jitter(self) -> float:
        """A random number from 0 to 1, for pauses."""
        return random.random()  # noqa: S311

"""What the lists of all instances prove, one after another. Knows neither server nor Airflow.

The list of all instances grows for ever, has no order that would allow to stop early, and each hundred rows cost a
request: it is read once in as many polls as it has pages, up to ``MOST_POLLS_BETWEEN_WHOLE_LISTS``.

Two whole lists in a row move the instant before which everything was told: what the second shows, the first would have
shown if it lost no row. A row that was lost, or a list that gets shorter, keeps it where it is.

**By which clock.** The instant of an end comes from a worker of the server, the instant of a list from the Date of its
answer; either may be wrong, and jump. So the instant moves no further than both allow: ``LATE_SECONDS`` behind the
list, and no further than the newest end that it shows. A server that shows no end, since it is not the right one or was
restored from an old backup, moves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from ..api.calls import PAGE_SIZE

MOST_POLLS_BETWEEN_WHOLE_LISTS = 120
POLLS_BETWEEN_EARLY_LISTS = 10
LATE_SECONDS = 300.0
"""Seconds by which the instant of an end may lie before the moment at which lists show it."""
CLOCK_SECONDS = 2.0
"""Seconds by which clocks may differ that count as equal."""
SHORTER_LISTS = 5
"""Lists in a row, none shorter than the one before, after which a shorter list counts as whole: rows are gone for good,
since the server's database was restored from a backup."""
SHORTER_SECONDS = 3600.0
"""Seconds that must have passed by then."""


class WholeLists:
    """In which polls the whole list is read, and what it confirms.

    Args:
        elapsed: seconds that never go back.
    """

    def __init__(self, elapsed: Callable[[], float]) -> None:
        self._elapsed = elapsed
        self._polls = 0
        self._until = 0
        self._failures = 0
        self._most_rows = 0
        self._shorter: tuple[int, int, float] | None = None
        """How many lists in a row were shorter, the rows of the last, and when the first was read."""
        self._confirmable: float | None = None
        self._began = -inf
        self._newest = -inf
        self._newest_at = 0.0

    @property
    def last_began(self) -> float:
        """The server's time as the latest list began from which on another can confirm something."""
        return self._began

    def is_due(self, *, many: bool) -> bool:
        """Whether this poll reads one. ``many``: so much was told that the next list is wanted early."""
        self._polls += 1
        self._until -= 1
        return self._until <= 0 or (many and self._polls >= POLLS_BETWEEN_EARLY_LISTS and not self._failures)

    def want(self) -> None:
        """The next poll reads one."""
        self._until = 0

    def begin_anew(self) -> None:
        """The next poll reads one, and what was read before confirms nothing."""
        self.want()
        self._distrust()

    def _distrust(self) -> None:
        self._confirmable, self._began = None, -inf

    def clock_was_set(self) -> None:
        """The server's clock has jumped: instants of before and after cannot be compared."""
        self._distrust()
        self._newest = -inf

    def failed(self) -> None:
        """It is tried again, at once and then ever more rarely: it may be long, and the server ill."""
        self._until = min(2**self._failures, POLLS_BETWEEN_EARLY_LISTS)
        self._failures += 1

    def done(self, began: float, rows: int, newest: float | None, *, lost: bool) -> float | None:
        """A whole list was read.

        Args:
            began: the server's time before it was read.
            rows: how many it has.
            newest: the latest instant of an end in it; None without one.
            lost: it shows an end that the list before should have shown.

        Returns:
            The instant before which every end is known; None where this list confirms nothing.
        """
        self._polls = self._failures = 0
        self._until = min(MOST_POLLS_BETWEEN_WHOLE_LISTS, rows // PAGE_SIZE)
        shorter = self._is_shorter(rows)
        confirmed = None if lost or shorter else self._confirmable
        if newest is not None and newest > self._newest:
            self._newest, self._newest_at = newest, self._elapsed()
        if shorter:
            self._distrust()
            return None
        self._confirmable, self._began = self._reach(began), began
        return confirmed

    def _reach(self, began: float) -> float | None:
        """How far the next list may move the instant, if it shows that this one has lost nothing."""
        if self._newest == -inf:
            return None
        quiet = self._elapsed() - self._newest_at > LATE_SECONDS
        return min(began - LATE_SECONDS, self._newest + 1e-6 if quiet else self._newest - LATE_SECONDS)

    def _is_shorter(self, rows: int) -> bool:
        """Nothing deletes an instance: a list that is shorter than an earlier one has lost rows, or the server has."""
        if rows >= self._most_rows:
            self._most_rows, self._shorter = rows, None
            return False
        count, before, since = self._shorter or (0, 0, self._elapsed())
        if rows < before:
            count, since = 0, self._elapsed()
        self._shorter = (count + 1, rows, since)
        if count + 1 < SHORTER_LISTS or self._elapsed() - since < SHORTER_SECONDS:
            return True
        self._most_rows, self._shorter = rows, None
        return False

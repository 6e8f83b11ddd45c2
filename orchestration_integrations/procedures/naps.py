"""How time passes in a wait: by what it is counted, how a wait sleeps between two looks, and why it wakes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from .effects import Now, Procedure, pause
from .observations import Observation, Paused

if TYPE_CHECKING:
    from .waiting import Waiting


class Woken(msgspec.Struct, frozen=True):
    """Why a wait looks at its instance now.

    Attributes:
        seen: the time has passed, the instance is not listed, or somebody gave a hint.
        listed_at: monotonic seconds at which a list was last read that holds the instance; None for never.
    """

    seen: Observation = Paused()
    listed_at: float | None = None


class Nap(Protocol):
    """How a wait lets time pass between two looks."""

    def __call__(self, waiting: Waiting, now: float, at: float) -> Procedure[Woken]:
        """Sleep until there is a reason to look, or until ``at`` where nobody else would see one.

        Args:
            waiting: who sleeps. It never sleeps past its deadline.
            now: epoch seconds.
            at: epoch seconds.
        """
        ...


def plain_nap(waiting: Waiting, now: float, at: float) -> Procedure[Woken]:
    """A nap that nothing ends but the time."""
    yield from pause(at - now)
    return Woken()


class Times:
    """Epoch seconds that no adjustment of the wall clock can move, and what they are on the monotonic clock."""

    def __init__(self, now: Now) -> None:
        self._now = now
        self._start = now.monotonic()
        self._epoch = now.time()

    def at(self) -> float:
        """Epoch seconds."""
        return self._epoch + (self._now.monotonic() - self._start)

    def until(self, moment: float | None) -> float | None:
        """A moment in monotonic seconds."""
        return None if moment is None else self._start + (moment - self._epoch)

    def epoch(self, monotonic: float) -> float:
        """Monotonic seconds as epoch seconds."""
        return self._epoch + (monotonic - self._start)

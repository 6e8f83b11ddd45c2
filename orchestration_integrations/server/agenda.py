"""What is to happen on the server, and when: a heap of steps, each an instant, a kind and plain arguments.

The agenda knows nothing of what the steps do. Whoever pumps it takes the steps that are due, in the order of time,
and each finds `now` at *its own instant* however late the pump comes. Steps are plain data, so that a store can keep
them and a server that starts on a file goes on with what was pending.
"""

from __future__ import annotations

import heapq
import random
import uuid
from typing import TYPE_CHECKING, Any

from .clock import SECOND, Clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from .store import Entry, Store
    from .timing import Timing


class Agenda:
    """The pending steps of one server, and its present instant.

    Args:
        clock: where the time comes from.
        timing: how long each step takes.
        store: hears of each step that becomes pending or is done.
        rng: the source of jitter and ids.
    """

    def __init__(self, clock: Clock, timing: Timing, store: Store, rng: random.Random) -> None:
        self.timing = timing
        self.rng = rng
        self.ids = rng
        """Where fresh ids come from."""
        self.now = clock.now_ns()
        self._store = store
        self._heap: list[Entry] = []
        self._number = 0
        self.done = 0
        """How many steps were done."""

    def ticket(self) -> int:
        """A number that nothing else on this server has."""
        self._number += 1
        return self._number

    def uuid(self) -> str:
        """A fresh id."""
        return str(uuid.UUID(int=self.ids.getrandbits(128), version=4))

    def at(self, instant_ns: int, kind: str, *args: Any) -> None:
        """Have a step done at an instant."""
        entry = (max(instant_ns, self.now), self.ticket(), kind, list(args))
        heapq.heappush(self._heap, entry)
        self._store.event(entry)

    def after(self, seconds: float, kind: str, *args: Any) -> None:
        """Have a step done after about so long."""
        spread = 1.0 + self.timing.jitter * (2.0 * self.rng.random() - 1.0)
        self.at(self.now + int(seconds * spread * SECOND), kind, *args)

    def next_due(self) -> int | None:
        """When the next step is due; None: nothing will happen by itself."""
        return self._heap[0][0] if self._heap else None

    def next_of(self, counts: Callable[[str, list[Any]], bool]) -> int | None:
        """When the next step is due that counts, by its kind and arguments; None: there is none."""
        if self._heap and counts(*self._heap[0][2:]):
            return self._heap[0][0]
        return min((due for due, _, kind, args in self._heap if counts(kind, args)), default=None)

    def pending(self) -> list[tuple[str, list[Any]]]:
        """All steps, by kind and arguments, in no order."""
        return [(kind, args) for _, _, kind, args in self._heap]

    def take(self, now_ns: int) -> tuple[str, list[Any]] | None:
        """The next step that is due by `now_ns`, with `now` moved to its instant. None: no more, and it is `now_ns`."""
        if not self._heap or self._heap[0][0] > now_ns:
            self.now = max(self.now, now_ns)
            return None
        due, number, kind, args = heapq.heappop(self._heap)
        self._store.event_done(number)
        self.done += 1
        self.now = max(self.now, due)
        return kind, args

    def restore(self, entries: list[Entry]) -> None:
        """Take pending steps back in after a restart. Those that belong to a request are gone with it."""
        self._heap = list(entries)
        heapq.heapify(self._heap)
        self._number = max((entry[1] for entry in entries), default=0)

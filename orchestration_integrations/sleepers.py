"""Those who sleep in a watch: by instance, by how long they sleep at most, and when each has to be woken in any case.

A sleeper costs a few hundred bytes, and nothing is kept of one that was woken or went away. Any number may wait for the
same instance.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Iterator, KeysView
from itertools import count

from .procedures.observations import Absent, Hinted, Paused

Reason = Paused | Hinted | Absent
Wake = Callable[["Sleeper", Reason, "float | None"], None]
"""Called once, on the loop: for whom, why, and the monotonic seconds at which a list was last read that holds the
instance. It is told for whom, so that all sleepers of a crowd can have the same."""


READ_SECONDS = 60.0
"""Seconds after which a read counts as through of which nothing was heard."""


class Sleeper:
    """Somebody who waits for an instance, from when it fell asleep until it is woken.

    Attributes:
        instance_id: whom it waits for.
        workflow_id: of which workflow; None where that is not known.
        interval: the longest seconds between two polls.
        wake: called when it is woken.
        since: monotonic seconds.
        is_new: it has just begun to wait.
        asleep: whether it still sleeps.
        queued: whether its turn to be woken is to come.
        hinted: the same, because of a hint.
        missing: whether the last list that was read does not hold the instance.
        listed_at: if it is missing: when a list was last read that holds it; None for never.
    """

    __slots__ = (
        "_earlier",
        "_later",
        "asleep",
        "hinted",
        "instance_id",
        "interval",
        "is_new",
        "listed_at",
        "missing",
        "queued",
        "since",
        "wake",
        "workflow_id",
    )

    def __init__(
        self, instance_id: str, workflow_id: str | None, interval: float, wake: Wake, since: float, is_new: bool
    ) -> None:
        self.instance_id = instance_id
        self.workflow_id = workflow_id
        self.interval = interval
        self.wake = wake
        self.since = since
        self.is_new = is_new
        self.asleep = True
        self.queued = self.hinted = self.missing = False
        self.listed_at: float | None = None
        self._earlier: Sleeper | None = None
        self._later: Sleeper | None = None


class Sleepers:
    """All that sleep in one watch."""

    def __init__(self) -> None:
        self._latest: dict[str, Sleeper] = {}
        self._count = 0
        self._intervals: Counter[float] = Counter()
        self._workflows: Counter[str | None] = Counter()
        self._alarms: list[tuple[float, int, bool, Sleeper]] = []
        self._numbers = count()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Sleeper]:
        """Those who fell asleep first come first, except where several wait for one instance."""
        for latest in self._latest.values():
            yield from _chain(latest)

    def of(self, instance_id: str) -> Iterator[Sleeper]:
        """Those who wait for an instance."""
        return _chain(self._latest.get(instance_id))

    @property
    def instance_ids(self) -> KeysView[str]:
        """The instances that somebody sleeps for."""
        return self._latest.keys()

    @property
    def remembers(self) -> int:
        """How much is kept."""
        return len(self._latest) + len(self._intervals) + len(self._workflows) + len(self._alarms) + self._count

    def shortest_interval(self, default: float) -> float:
        """The shortest interval of those who sleep."""
        return min(self._intervals, default=default)

    def only_workflow(self) -> str | None:
        """The workflow that all wait for; None where there are several, or one is not known."""
        return next(iter(self._workflows)) if len(self._workflows) == 1 else None

    def add(self, sleeper: Sleeper) -> None:
        """One has fallen asleep."""
        earlier = self._latest.pop(sleeper.instance_id, None)
        if earlier is not None:
            sleeper._earlier, earlier._later = earlier, sleeper
        self._latest[sleeper.instance_id] = sleeper
        self._count += 1
        self._intervals[sleeper.interval] += 1
        self._workflows[sleeper.workflow_id] += 1

    def remove(self, sleeper: Sleeper) -> None:
        """One is woken, or goes away."""
        sleeper.asleep = False
        sleeper.wake = _nobody
        self._count -= 1
        _count_down(self._intervals, sleeper.interval)
        _count_down(self._workflows, sleeper.workflow_id)
        earlier, later = sleeper._earlier, sleeper._later
        sleeper._earlier = sleeper._later = None
        if earlier is not None:
            earlier._later = later
        if later is not None:
            later._earlier = earlier
        elif earlier is not None:
            self._latest[sleeper.instance_id] = earlier
        else:
            del self._latest[sleeper.instance_id]
        if not self._count or len(self._alarms) > 2 * self._count + 100:  # mostly of those that were woken since
            self._alarms = [one for one in self._alarms if one[3].asleep]
            heapq.heapify(self._alarms)

    # Alarms

    def set_alarm(self, sleeper: Sleeper, at: float, *, is_deadline: bool) -> bool:
        """Something is due for a sleeper at these monotonic seconds. Returns whether nothing else is due before."""
        heapq.heappush(self._alarms, (at, next(self._numbers), is_deadline, sleeper))
        return self._alarms[0][3] is sleeper

    def next_alarm(self) -> float | None:
        """Monotonic seconds at which something is due."""
        return self._alarms[0][0] if self._alarms else None

    def due(self, now: float) -> Iterator[tuple[Sleeper, bool]]:
        """Who has an alarm now, and whether it is its deadline."""
        while self._alarms and (self._alarms[0][0] <= now or not self._alarms[0][3].asleep):
            _, _, is_deadline, sleeper = heapq.heappop(self._alarms)
            if sleeper.asleep:
                yield sleeper, is_deadline


class WakingOrder:
    """Who is to be woken. The queues take turns, so that a crowd in one of them holds up none of another."""

    def __init__(self) -> None:
        self._hints: deque[tuple[Sleeper, Reason]] = deque()
        self._soon: deque[tuple[Sleeper, Reason]] = deque()
        self._later: deque[tuple[Sleeper, Reason]] = deque()
        self._blind: deque[tuple[Sleeper, Reason]] = deque()
        self._turns = deque((self._hints, self._soon, self._later, self._blind))

    def __bool__(self) -> bool:
        return any(self._turns)

    @property
    def remember(self) -> int:
        """How many are in them."""
        return sum(map(len, self._turns))

    def look_again(self, sleeper: Sleeper) -> None:
        """After a hint that came too early, the time is over that it wanted to let pass."""
        if not sleeper.hinted:
            sleeper.hinted = True
            self._hints.append((sleeper, Paused()))

    def clear(self) -> None:
        """Nobody waits any more."""
        for queue in self._turns:
            queue.clear()

    def hint(self, sleeper: Sleeper) -> None:
        """Somebody gave a hint, which may find it in another queue: there its turn may be late."""
        if not sleeper.hinted:
            sleeper.hinted = True
            self._hints.append((sleeper, Hinted()))

    def absent(self, sleeper: Sleeper, *, again: bool) -> None:
        """The list does not hold its instance. ``again``: nor did the one before, and a read has not ended the wait."""
        self._enqueue(self._later if again else self._soon, sleeper, Absent())

    def closer_look(self, sleeper: Sleeper) -> None:
        """It has slept long, and the list does not show everything."""
        self._enqueue(self._later, sleeper, Paused())

    def look_without_a_list(self, sleeper: Sleeper) -> None:
        """No list was read."""
        self._enqueue(self._blind, sleeper, Paused())

    def forget_looks_without_a_list(self) -> None:
        """A list was read: they need not look for themselves any more."""
        while self._blind:
            self._blind.popleft()[0].queued = False

    def next(self) -> tuple[Sleeper, Reason] | None:
        """Who is woken next, and why."""
        for _ in range(len(self._turns)):
            queue = self._turns[0]
            self._turns.rotate(-1)
            while queue:
                sleeper, reason = queue.popleft()
                if sleeper.asleep:
                    return sleeper, reason
        return None

    def _enqueue(self, queue: deque[tuple[Sleeper, Reason]], sleeper: Sleeper, reason: Reason) -> None:
        if not sleeper.queued:
            sleeper.queued = True
            queue.append((sleeper, reason))


class Reading:
    """Who was woken and has not read yet.

    Args:
        most: how many there may be.
    """

    def __init__(self, most: float) -> None:
        self._most = most
        self._since: dict[Sleeper, float] = {}

    def __len__(self) -> int:
        return len(self._since)

    def is_full(self, now: float) -> bool:
        """Whether nobody else is to read now."""
        while self._since:
            first = next(iter(self._since))
            if now - self._since[first] < READ_SECONDS:
                break
            del self._since[first]
        return len(self._since) >= self._most

    def begin(self, sleeper: Sleeper, now: float) -> None:
        """One was woken."""
        self._since[sleeper] = now

    def end(self, sleeper: Sleeper) -> bool:
        """One is through, or was before. Returns whether another one may read that could not until now."""
        was_full = len(self._since) >= self._most
        return self._since.pop(sleeper, None) is not None and was_full

    def clear(self) -> None:
        """Nobody waits any more."""
        self._since.clear()


def _nobody(sleeper: Sleeper, reason: Reason, listed_at: float | None) -> None:
    """What a sleeper is woken by that sleeps no more."""


def _chain(latest: Sleeper | None) -> Iterator[Sleeper]:
    while latest is not None:
        yield latest
        latest = latest._earlier


def _count_down(counter: Counter, key: object) -> None:  # type: ignore[type-arg]
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]

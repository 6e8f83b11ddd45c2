"""For whoever moves the time of a server of this process: the waits that sleep meanwhile, and what passes for them.

A wait sleeps on the machine's clock. Where a test's server skips a week, nobody who waits for it has waited a week. So
the one who skips takes that week off what each of these waits has left until its deadline, and wakes those that have
something to see. Nothing else learns of it: time limits of exchanges, calls and cancels go on in real time.

Some wait in pieces, of which none knows what passed for the others: a task that is deferred and goes on, a sensor that
pokes. ``passed_for`` tells them.

A test's server looks for this module among those that are loaded: whoever makes waits loads it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Set
from typing import Protocol
from weakref import WeakSet

from ..clock import monotonic
from .hints import Listener, ignore, listeners

MOST_JUMPS = 10_000
"""Jumps that are kept in mind."""

_passed: deque[tuple[float, str, float]] = deque(maxlen=MOST_JUMPS)
_pausing: WeakSet[Listener] = WeakSet()


class Sleeping(Protocol):
    """Who sleeps."""

    @property
    def deadline(self) -> float | None:
        """Epoch seconds at which it gives up; None: never."""
        ...

    @property
    def cannot_read(self) -> bool:
        """Whether its last read has failed, so that it does not know how its instance stands."""
        ...

    def let_pass(self, seconds: float) -> None:
        """So much time has passed for the server while this one slept."""
        ...


class Asleep:
    """A wait between two looks.

    Args:
        waiting: the wait.
        now: epoch seconds, as the wait counts them.
    """

    __slots__ = ("_now", "_since", "waiting")

    def __init__(self, waiting: Sleeping, now: float) -> None:
        self.waiting = waiting
        self._now = now
        self._since = monotonic()

    @property
    def left(self) -> float | None:
        """Seconds to its deadline; None: it has none."""
        deadline = self.waiting.deadline
        return None if deadline is None else deadline - self._now - (monotonic() - self._since)


class WaitsAsleep:
    """The waits of this process for some instances, at one moment.

    Attributes:
        awake: how many of them do not sleep: they read, or their callers do something. Who sleeps because it cannot
            read counts too: it has not seen how its instance stands.
        known: the instances that one of them waits for.
        instances: those that one sleeps for.
        left: the least seconds that one of them has until its deadline; None: none of them has one.
    """

    def __init__(self, instances: Set[str]) -> None:
        self.awake = 0
        self._asleep: list[tuple[Listener, str, Asleep]] = []
        known: set[str] = set()
        for listener in (*listeners(), *list(_pausing)):
            try:
                names = listener.waits_for(instances)
            except RuntimeError:  # it changed at this very moment
                self.awake += 1
                continue
            known.update(names)
            for instance_id in names:
                asleep = listener.asleep(instance_id)
                if asleep is None:
                    self.awake += 1
                else:
                    self.awake += asleep.waiting.cannot_read
                    self._asleep.append((listener, instance_id, asleep))
        self.known = known
        self.instances = {instance_id for _, instance_id, _ in self._asleep}
        self.left = min((left for _, _, one in self._asleep if (left := one.left) is not None), default=None)

    def let_pass(self, seconds: float, changed: Iterable[str]) -> None:
        """So much time has passed for them, and these instances have changed: whoever sleeps for one looks at it, and
        so does whoever's deadline is over."""
        look = set(changed)
        if seconds > 0:
            now = time.time()
            _passed.extend((now, instance_id, seconds) for instance_id in self.instances)
        for listener, instance_id, asleep in self._asleep:
            asleep.waiting.let_pass(seconds)
            left = asleep.left
            if instance_id in look or (left is not None and left <= 0):
                try:
                    listener.wake(instance_id)
                except RuntimeError:  # its loop is closed: nobody waits there any more
                    ignore(listener)


def pausing(listener: Listener) -> None:
    """Somebody waits from now on who looks after pauses of its own, so that no hint can reach it."""
    _pausing.add(listener)


def no_longer(listener: Listener) -> None:
    """It waits no more."""
    _pausing.discard(listener)


def passed_for(instance_id: str, since: float) -> float:
    """Seconds that a test's server has skipped for those who waited for an instance here; 0 wherever none skips.

    Args:
        instance_id: whom they waited for.
        since: epoch seconds; what was skipped before does not count.
    """
    return sum(seconds for at, name, seconds in tuple(_passed) if name == instance_id and at >= since)

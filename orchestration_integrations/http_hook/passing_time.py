"""For whoever moves the time of a server of this process: the waits that sleep meanwhile, and what passes for them.

A wait sleeps on the machine's clock. Where a test's server skips a week, nobody who waits for it has waited a week. So
the one who skips takes that week off what each of these waits has left until its deadline, and wakes those that have
something to see. Nothing else learns of it: time limits of exchanges, calls and cancels go on in real time.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

from .hints import Asleep, Listener, ignore, listeners


class WaitsAsleep:
    """The waits of this process for some instances, at one moment.

    Attributes:
        awake: how many of them do not sleep: they read, or their callers do something.
        known: the instances that one of them waits for.
        instances: those that one sleeps for.
        left: the least seconds that one of them has until its deadline; None: none of them has one.
    """

    def __init__(self, instances: Set[str]) -> None:
        self.awake = 0
        self._asleep: list[tuple[Listener, str, Asleep]] = []
        known: set[str] = set()
        for listener in listeners():
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
                    self._asleep.append((listener, instance_id, asleep))
        self.known = known
        self.instances = {instance_id for _, instance_id, _ in self._asleep}
        self.left = min((left for _, _, one in self._asleep if (left := one.left) is not None), default=None)

    def let_pass(self, seconds: float, changed: Iterable[str]) -> None:
        """So much time has passed for them, and these instances have changed: whoever sleeps for one looks at it, and
        so does whoever's deadline is over."""
        look = set(changed)
        for listener, instance_id, asleep in self._asleep:
            asleep.waiting.let_pass(seconds)
            left = asleep.left
            if instance_id in look or (left is not None and left <= 0):
                try:
                    listener.wake(instance_id)
                except RuntimeError:  # its loop is closed: nobody waits there any more
                    ignore(listener)

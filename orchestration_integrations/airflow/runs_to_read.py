"""Which runs are to be read by id, and in which order. Knows nothing of Airflow, and sends nothing.

**No denial is final.** A server that denies a run which it has listed may be another server for a while: a gateway that
leads elsewhere, a restored database, the other half of a blue/green pair. So a denied run is read again behind all
others, and given up only when it was denied often and for long. Giving up costs nothing but time: the id is kept, one
of those given up is read in each poll, and as soon as the server shows one of them again, all are read again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

READS_PER_POLL = 300
"""Reads by id in one poll. The next poll goes on with the rest."""
DENIALS_UNTIL_GIVEN_UP = 5
"""Polls in which the server must deny an instance that it has listed, until it is given up."""
SECONDS_UNTIL_GIVEN_UP = 600.0
"""Seconds for which it must have denied it by then."""
DENIALS_IN_DOUBT = 10
"""Denials in one poll after which, where nothing else was answered, the other denied ones are left to later polls."""
READS_OF_DENIED = READS_PER_POLL // 4
"""Denied ones that a poll reads, if there are so many, whatever else there is to read."""
MOST_GIVEN_UP = 10_000
"""Ids that are kept of those given up; the oldest are forgotten first."""


@dataclass
class _Denied:
    count: int
    since: float


class RunsToRead:
    """The ids to be read, with what the server has said of them.

    Args:
        elapsed: seconds that never go back.
    """

    def __init__(self, elapsed: Callable[[], float]) -> None:
        self._elapsed = elapsed
        self._fresh: dict[str, None] = {}
        self._denied: dict[str, _Denied] = {}
        self._given_up: dict[str, None] = {}

    def __contains__(self, instance_id: object) -> bool:
        return instance_id in self._fresh or instance_id in self._denied

    def __len__(self) -> int:
        return len(self._fresh) + len(self._denied)

    def __iter__(self) -> Iterator[str]:
        yield from self._fresh
        yield from self._denied

    @property
    def denied(self) -> int:
        """How many runs the server denies, with those given up."""
        return len(self._denied) + len(self._given_up)

    @property
    def given_up(self) -> list[str]:
        """The ids given up, the latest first."""
        return list(reversed(self._given_up))

    def add(self, ids: Iterable[str]) -> None:
        """These are to be read."""
        for one in ids:
            if one not in self and not self.shown(one):
                self._fresh[one] = None

    def shown(self, instance_id: str) -> bool:
        """The server shows this run. Where it was given up, all that were given up are read again.

        Returns:
            Whether it was given up, and is therefore to be read now.
        """
        if instance_id not in self._given_up:
            return False
        self._fresh.update(self._given_up)
        self._given_up.clear()
        return True

    def drop(self, instance_id: str) -> None:
        """This one need not be read: it was answered, or is seen running."""
        self.shown(instance_id)
        self._fresh.pop(instance_id, None)
        self._denied.pop(instance_id, None)

    def next(self) -> list[str]:
        """The ids of this poll: those not denied yet, then those denied, then one of those given up.

        Many new ones do not keep the denied ones from being read: a part of each poll is theirs.
        """
        given_up = list(islice(self._given_up, 1))
        most = READS_PER_POLL - len(given_up)
        fresh = list(islice(self._fresh, max(most - min(len(self._denied), READS_OF_DENIED), 0)))
        return [*fresh, *islice(self._denied, most - len(fresh)), *given_up]

    def was_denied(self, instance_id: str) -> bool:
        """Whether the server has denied this one before."""
        return instance_id not in self._fresh

    def failed(self, instance_id: str) -> None:
        """It could not be read: it comes behind the others of its kind."""
        if instance_id in self._fresh:
            self._fresh[instance_id] = self._fresh.pop(instance_id)
        elif instance_id in self._denied:
            self._denied[instance_id] = self._denied.pop(instance_id)
        elif instance_id in self._given_up:
            self._given_up[instance_id] = self._given_up.pop(instance_id)

    def deny(self, instance_id: str) -> bool:
        """The server has denied it.

        Returns:
            Whether it is given up by that.
        """
        if instance_id in self._given_up:
            self.failed(instance_id)
            return False
        self._fresh.pop(instance_id, None)
        now = self._elapsed()
        denied = self._denied.pop(instance_id, None) or _Denied(0, now)
        denied.count += 1
        if denied.count < DENIALS_UNTIL_GIVEN_UP or now - denied.since < SECONDS_UNTIL_GIVEN_UP:
            self._denied[instance_id] = denied
            return False
        self._given_up[instance_id] = None
        if len(self._given_up) > MOST_GIVEN_UP:
            self._given_up.pop(next(iter(self._given_up)))
        return True

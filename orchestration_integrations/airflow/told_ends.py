"""Which ends were told, small enough to be kept elsewhere and to be gone on from. Knows neither server nor Airflow.

What ended before ``since`` counts as told. Of each end that came later and was told, a digest is held. So ``since`` may
only move up once whole lists have shown that nothing older is unknown: ``EndedRuns`` decides that.

A store takes a limited size. Where more was told than fits, the oldest are left out, so that they are told again after
a restart: a repeat can be recognised by its ``instance_id``, a loss cannot.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterable
from typing import Any

MOST_TOLD = 1500
"""Digests that go into a store."""
MOST_TO_LOOK_AT = 500
"""Ids that go into a store: those whose end may have come, and those that run."""
LONGEST_ID = 40
"""Characters of an id that goes into a store; the server's ids have 36."""

HELD_SECONDS = 300.0
"""Seconds for which a digest is held beyond ``since``, so that a clock that is set back by less repeats nothing."""

_VERSION = 1
_DIGEST_BYTES = 9
_DIGEST_CHARACTERS = 12
_BUCKET_SECONDS = 60.0


class UnreadableStateError(ValueError):
    """What a store gave is not what was put there."""


class ToldEnds:
    """The ends of one workflow's runs that need not be told any more.

    Attributes:
        began: epoch seconds by this machine's clock at which the watching began; None once ``since`` is known.
        since: epoch seconds by the server's clock; None until the server's clock is known.
    """

    def __init__(self, began: float) -> None:
        self.began: float | None = began
        self.since: float | None = None
        self._server_ahead = 0.0
        self._told: dict[str, float] = {}
        self._taken_back: set[str] = set()

    def __len__(self) -> int:
        """How many ends count as told by their digest alone."""
        return sum(self.since is None or ended_at >= self.since for ended_at in self._told.values())

    def set_clock(self, server_ahead: float) -> None:
        """Learn by how many seconds the server's clock is ahead of this machine's."""
        self._server_ahead = server_ahead
        if self.since is None and self.began is not None:
            self.since = self.began + server_ahead
            self.began = None

    def is_told(self, instance_id: str, ended_at: float | None = None) -> bool:
        """Whether an end is over and done with; without its instant only if it was told by this object's knowledge."""
        if ended_at is not None and self.since is not None and ended_at < self.since:
            return True
        return _digest(instance_id) in self._told

    def tell(self, instance_id: str, ended_at: float) -> None:
        """Take an end as told. ``ended_at``: epoch seconds by the server's clock."""
        self._taken_back.discard(_digest(instance_id))
        self._told[_digest(instance_id)] = ended_at if self.since is None else max(ended_at, self.since)

    def advance(self, since: float) -> None:
        """Everything that ended before ``since`` was told."""
        if self.since is None or since <= self.since:
            return
        self.since = since
        held = since - HELD_SECONDS
        self._told = {one: ended_at for one, ended_at in self._told.items() if ended_at >= held}

    def take_back(self, instance_id: str) -> None:
        """An end was told, and yet the run goes on: its next end is to be told, too."""
        if self._told.pop(_digest(instance_id), None) is not None:
            self._taken_back.add(_digest(instance_id))

    def set_back(self, seconds: float) -> None:
        """The server's clock was set back: what ended before ``since`` counts as told only as far as that."""
        if self.since is not None:
            self.since -= seconds

    def learn(self, other: ToldEnds) -> None:
        """What another watcher has told lately need not be told again."""
        self._told.update((one, at) for one, at in other._told.items() if one not in self._taken_back)

    def merge(self, earlier: ToldEnds) -> None:
        """Go on from what an earlier process knew: what ended since it began and was told by neither is to be told."""
        self._told.update(earlier._told)
        if self.since is None and earlier.since is None:
            self.began = min(one for one in (self.began, earlier.began) if one is not None)
            return
        began = None if earlier.began is None else earlier.began + self._server_ahead
        self.since = min(one for one in (self.since, earlier.since, began) if one is not None)
        self.began = None

    def state(self, to_look_at: Iterable[str]) -> dict[str, Any]:
        """Plain JSON of at most 64 kB.

        Args:
            to_look_at: ids of runs that may have ended, then of runs that go on: the first of them are kept.
        """
        told = sorted(self._told.items(), key=lambda one: one[1])[-MOST_TOLD:]
        base = self.since if self.since is not None else 0.0
        buckets: dict[str, str] = {}
        for digest, ended_at in told:
            # Rounded up: an end is never forgotten before ``since`` has passed it.
            bucket = str(math.floor((ended_at - base) / _BUCKET_SECONDS) + 1)
            buckets[bucket] = buckets.get(bucket, "") + digest
        ids = [one for one in to_look_at if len(one) <= LONGEST_ID][:MOST_TO_LOOK_AT]
        start = {"began": self.began} if self.since is None else {"since": self.since}
        return {"version": _VERSION, **start, "told": buckets, "look_at": ids}

    @classmethod
    def of_state(cls, state: Any) -> tuple[ToldEnds, list[str]]:
        """What ``state`` gave, and the ids to look at.

        Raises:
            UnreadableStateError: it is something else.
        """
        try:
            if isinstance(state, str):
                state = json.loads(state)
            if state["version"] != _VERSION:
                raise UnreadableStateError(f"it is of version {state['version']!r}, not {_VERSION}")
            ends = cls(_instant(state["began"]) if "began" in state else 0.0)
            if "since" in state:
                ends.since, ends.began = _instant(state["since"]), None
            base = ends.since if ends.since is not None else 0.0
            for bucket, digests in state["told"].items():
                ended_at = base + int(bucket) * _BUCKET_SECONDS
                for at in range(0, len(digests), _DIGEST_CHARACTERS):
                    ends._told[digests[at : at + _DIGEST_CHARACTERS]] = ended_at
            look_at = [one for one in state["look_at"] if isinstance(one, str) and one]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UnreadableStateError(f"it cannot be understood: {type(error).__name__}: {error}") from error
        return ends, look_at


def _instant(value: Any) -> float:
    instant = float(value)
    if not math.isfinite(instant):
        raise UnreadableStateError(f"{value!r} is no instant")
    return instant


def _digest(instance_id: str) -> str:
    """12 characters for an id of 36: one pair in 10**21 shares one."""
    return base64.b64encode(hashlib.blake2b(instance_id.encode(), digest_size=_DIGEST_BYTES).digest()).decode()

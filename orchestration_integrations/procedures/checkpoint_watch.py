"""What a wait knows of the checkpoints of its instance: which there are, where it stands, what is to be done and when.

No I/O. ``checkpoints`` performs a try; this decides whether one is due, and what its answer leads to. While the stage
before a checkpoint runs, the wait looks more often than its caller asked for, so that passing costs a second at most
beside the stage itself; for ten minutes, since a stage that lasts longer waits for somebody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ..api.models import Instance
from .checkpoints import PassTried
from .gate import checkpoints_of
from .limits import HELD_AFTER

NEAR_INTERVAL = 0.5
"""The longest pause between two polls, in seconds, while the stage before a checkpoint runs."""
NEAR_SECONDS = 600.0
"""For so long after that stage was first seen."""
HELD_SECONDS = HELD_AFTER + 1.0
"""Whoever has asked for the stop gets so long to cancel the run, before the wait says that it is held."""
LOST_ROW_SECONDS = 5.0
"""Seconds after which the engine is asked whether a run stands at a checkpoint whose row the server does not show."""
UNSURE_SECONDS = 30.0
"""For so long a run is watched that a stop was asked for after a pass may have been sent."""
DEFINITION_SECONDS = 5.0
"""Seconds between two readings of a definition that could not be read."""

FIRST_LOOK = 0.05
"""Seconds between a pass that was sent and the first look what came of it."""
LONGEST_LOOK = 1.0
FIRST_RESEND = 0.7
"""Seconds that a stage gets to take a pass before it is sent again."""
LONGEST_RESEND = 15.0
LONGEST_REFUSED = 5.0


class Look(msgspec.Struct, frozen=True):
    """Look again after so many seconds."""

    seconds: float


class Over(msgspec.Struct, frozen=True):
    """The wait is over: ``held``: the run stands there for good; else nobody knows whether it will go on."""

    held: bool
    why: str


class CheckpointWatch(msgspec.Struct):
    """The checkpoints of one instance.

    Attributes:
        numbers: by the server's number, the user's number of the stage behind; None while the definition is not known.
        trouble: why the last try did not let it pass; empty for nothing.
    """

    numbers: Mapping[int, int] | None = None
    trouble: str = ""
    _hidden: bool = False
    _read_definition_at: float = 0.0
    _stage: int = -1
    _open: bool = False
    _seen_at: float = 0.0
    _due: float = 0.0
    _look: float = FIRST_LOOK
    _resend: float = FIRST_RESEND
    _sent: bool = False
    _unsure_since: float | None = None
    _held_since: float | None = None

    def learn(self, stages: Sequence[Mapping[str, Any]]) -> None:
        """The definition was read."""
        self.numbers = checkpoints_of(stages)

    def unread(self, *, hidden: bool) -> None:
        """It could not be read. ``hidden``: the server will not show it any more, so the engine has to be asked."""
        self._hidden = self._hidden or hidden

    def wants_definition(self, instance: Instance, now: float, *, early: bool) -> bool:
        """Whether the definition has to be read, to know whether the instance stands at a checkpoint.

        Args:
            instance: as it was just seen.
            now: epoch seconds.
            early: also before the instance can stand at one.
        """
        behind_gate = not instance.terminated and bool(instance.status) and instance.status[-1].stage > 0
        wanted = self.numbers is None and (behind_gate or early)
        return wanted and not self._hidden and now >= self._read_definition_at

    def asked(self, now: float) -> None:
        """It is being read."""
        self._read_definition_at = now + DEFINITION_SECONDS

    def follow(self, instance: Instance, now: float) -> bool:
        """Take in where the instance is. Whether it has moved on since, in a workflow with checkpoints."""
        if not instance.status:
            return False
        last = instance.status[-1]
        is_open = last.terminated_at is None and last.error is None
        if (last.stage, is_open) == (self._stage, self._open):
            return False
        self._stage, self._open, self._seen_at = last.stage, is_open, now
        self._due, self._look, self._resend, self._sent = now, FIRST_LOOK, FIRST_RESEND, False
        self._unsure_since, self._held_since, self.trouble = None, None, ""
        return bool(self.numbers)

    def near(self, now: float) -> bool:
        """Whether the instance is at a checkpoint or may soon be."""
        if not self.numbers or now - self._seen_at > NEAR_SECONDS:
            return False
        return self._stage in self.numbers or self._stage + 1 in self.numbers

    def standing(self, now: float) -> tuple[bool, int | None]:
        """(whether the instance may stand at a checkpoint, the user's number of the stage behind it; None: unknown)."""
        if self.numbers:
            number = self.numbers.get(self._stage) if self._open else None
            if number is None and not self._open and now - self._seen_at >= LOST_ROW_SECONDS:
                number = self.numbers.get(self._stage + 1)
            return number is not None, number
        return self._hidden and self._open and self._stage > 0, None

    def is_due(self, now: float) -> bool:
        """Whether it is time for a try."""
        return now >= self._due

    def look_in(self, now: float) -> float:
        """Seconds until the next look, where no try is due."""
        seconds = min(self._look, max(self._due - now, FIRST_LOOK))
        self._look = min(self._look * 1.7, LONGEST_LOOK)
        return seconds

    def tried(self, tried: PassTried, now: float) -> Look | Over:
        """What an answer leads to."""
        outcome, self.trouble = tried.outcome, tried.detail
        number = tried.standing.number if tried.standing is not None else None
        where = f"it stands at the checkpoint before stage {number}"
        if outcome == "unguarded":
            return Over(
                True, f"{where}, and nobody here may let it pass: call again with its run key, or give at_checkpoint="
            )
        if outcome == "held":
            first, self._held_since = self._held_since is None, now if self._held_since is None else self._held_since
            if first or now - self._held_since < HELD_SECONDS:
                return self._again(now, HELD_SECONDS, FIRST_LOOK)
            return Over(True, f"{where}, held by a stop: nothing of it moves any more")
        if outcome == "held amid pass":
            self._unsure_since = now if self._unsure_since is None else self._unsure_since
            if now - self._unsure_since >= UNSURE_SECONDS:
                return Over(False, f"{where}; a stop was asked for after a pass may have been sent: it may still go on")
            return self._again(now, LONGEST_LOOK)
        if outcome in ("sent", "lost"):
            self._sent, self._look = True, FIRST_LOOK
            seconds, self._resend = self._resend, min(self._resend * 2, LONGEST_RESEND)
            self._due = now + max(seconds, tried.retry_after)
            return Look(FIRST_LOOK)
        if outcome == "not ready":
            return self._again(now, max(self._growing(LONGEST_LOOK), tried.retry_after))
        return self._again(now, max(self._growing(LONGEST_REFUSED), tried.retry_after))

    def _growing(self, longest: float) -> float:
        seconds, self._look = self._look, min(self._look * 1.7, longest)
        return seconds

    def _again(self, now: float, seconds: float, look: float | None = None) -> Look:
        """Try again after so many seconds, and look before, where that is said."""
        self._due = now + seconds
        return Look(seconds if look is None else look)

"""What a sensor that pokes tells a test's server whose time skips: that it waits, for whom, and until when.

Between two pokes Airflow sleeps, and nothing here can wake it. So a server that has skipped something which this sensor
has to see waits for its next poke. What was skipped counts against the sensor's time-out, which Airflow does not know:
the poke itself raises it.

In the mode ``reschedule`` the task ends after each poke. Then the sensor waits on until a few of its pauses have passed
without another poke.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Hashable, Set
from functools import partial
from typing import TYPE_CHECKING, Any

from ..clock import monotonic
from .compat import AIRFLOW_3, Context, first_start
from .skipped import skipped_for, try_of

if TYPE_CHECKING:
    from ..http_hook.passing_time import Asleep

PAUSES_UNTIL_GONE = 3
LEAST_UNTIL_GONE = 1.0
_A_TESTS_SERVER = f"{__name__.split('.', maxsplit=1)[0]}.server.skipping"

_rescheduled: dict[Hashable, Pokes] = {}


def pokes_of(sensor: Any, context: Context) -> Pokes | None:
    """The pokes of the piece of work that begins; None where no test's server is in this process: nobody asks then,
    and Airflow need not be asked when a rescheduled try has begun."""
    if _A_TESTS_SERVER not in sys.modules:
        return None
    started, key, begun = context["ti"].start_date, None, time.time()
    if sensor.reschedule:
        key = try_of(context)
        begun = first_start(context) or (begun if started is None else started.timestamp())
    return Pokes(key, begun, sensor.timeout, sensor.poke_interval)


def unguarded(execute: Callable[[Context], Any]) -> Callable[[Context], Any]:
    """The ``execute`` of Airflow's own sensor, for a call from ours.

    Airflow 2.11 guards it, and takes such a call for one from outside a task: a warning, or an error with
    ``allow_nested_operators=False``.
    """
    inner = None if AIRFLOW_3 else getattr(execute, "__wrapped__", None)
    return execute if inner is None else partial(inner, execute.__self__)  # type: ignore[attr-defined]


class Pokes:
    """The pokes of one piece of a sensor's work.

    Args:
        key: names the try of the task, if it is rescheduled between its pokes; else None.
        begun: epoch seconds at which its time-out began.
        timeout: seconds.
        interval: seconds between two pokes.
    """

    def __init__(self, key: Hashable, begun: float, timeout: float, interval: float) -> None:
        self.cannot_read = False
        self._key = key
        self._begun = begun
        self._timeout = timeout
        self._interval = interval
        self._instance_id = ""
        self._asleep: Asleep | None = None
        self._gone_at: float | None = None
        self._looks_again = False
        _rescheduled.pop(key, None)

    @property
    def skipped(self) -> float:
        """Seconds that a server has skipped since the time-out began."""
        return skipped_for(self._instance_id, self._begun)

    @property
    def deadline(self) -> float | None:
        """Epoch seconds."""
        return self._begun + self._timeout - self.skipped

    def let_pass(self, seconds: float) -> None:
        """``skipped`` has it."""

    def looks(self, instance_id: str) -> None:
        """A poke begins."""
        self._instance_id, self._asleep = instance_id, None
        self._looks_again = self.cannot_read = False

    def sleeps(self) -> bool:
        """A poke has not found what it looks for. Returns whether the time is over because of what was skipped."""
        from ..http_hook.passing_time import Asleep, pausing

        now = time.time()
        if self.skipped and self._begun + self._timeout - self.skipped <= now:
            return True
        self._looks_again = True
        self._asleep = Asleep(self, now)
        pausing(self)
        return False

    def ends(self) -> None:
        """This piece of work is over. A rescheduled sensor comes again, if it has not found what it looks for."""
        from ..http_hook.passing_time import no_longer

        if self._key is not None and self._looks_again:
            self._gone_at = monotonic() + max(LEAST_UNTIL_GONE, PAUSES_UNTIL_GONE * self._interval)
            _rescheduled[self._key] = self
        else:
            no_longer(self)

    # What a server asks

    def waits_for(self, names: Set[str]) -> Collection[str]:
        """The instance, if it is among these."""
        if self._gone_at is not None and monotonic() >= self._gone_at:
            _rescheduled.pop(self._key, None)
            return ()
        return (self._instance_id,) if self._instance_id in names else ()

    def hint(self, instance_id: str) -> None:
        """It cannot be reached."""

    def asleep(self, instance_id: str) -> Asleep | None:
        """How it sleeps until its next poke."""
        return self._asleep

    def wake(self, instance_id: str) -> None:
        """It counts as awake until its next poke."""
        self._asleep = None

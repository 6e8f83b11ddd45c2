"""When waiting ends, by whose wish, and how much time its end may take.

``execution_timeout`` is Airflow's, and what Airflow does at that moment is no end: it interrupts whatever runs. So
the operator's own deadline lies before it, by as much as a cancel needs. Airflow 3 does not apply it to a deferred
task, where the operator's own deadline is all there is; 2.11 does, counted from the start of the try.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from ..procedures.limits import CANCEL_SECONDS

LEAST_CANCEL_SECONDS = 1.0
RETURN_SECONDS = 1.0
"""Seconds between the end of a cancel and Airflow's limit, for telling what came of it."""
RESERVE_SECONDS = 20.0
"""Seconds before Airflow's limit at which waiting ends; or 0.4 of that limit, whichever is less."""
RESERVE_DEFERRED_SECONDS = 30.0
"""The same on 2.11 where the task is deferred: a worker has to be found first; or 0.6 of that limit."""


DEFER_MARGIN = 60.0
"""Seconds that Airflow's own limit of a deferral lies behind the wait's deadline."""
MOST_DEFERRALS = 5
"""Times that a wait is resumed after a trigger that told nothing usable, before the task fails."""


@dataclass(frozen=True)
class Limit:
    """When waiting ends.

    Attributes:
        deadline: epoch seconds, None for never.
        by: whose wish it is: of the operator's ``timeout``, or of Airflow's ``execution_timeout``.
        airflow_at: epoch seconds at which Airflow interrupts this process, None for never.
    """

    deadline: float | None
    by: Literal["timeout", "execution_timeout"] = "timeout"
    airflow_at: float | None = None

    def cancel_seconds(self, now: float) -> float:
        """Seconds that a cancel may take which begins at the deadline, or now where that is over."""
        if self.airflow_at is None:
            return CANCEL_SECONDS
        begins = max(now, self.deadline if self.deadline is not None else now)
        return min(CANCEL_SECONDS, max(LEAST_CANCEL_SECONDS, self.airflow_at - begins - RETURN_SECONDS))


def limit_of(
    *,
    started: float,
    began: float,
    timeout: float | None,
    execution_timeout: float | None,
    deferrable: bool,
    applies_deferred: bool,
) -> Limit:
    """The limit of a try.

    Args:
        started: epoch seconds at which the try began.
        began: epoch seconds at which this process began to execute it: Airflow's own clock starts then.
        timeout: the operator's, in seconds from the start of the try.
        execution_timeout: Airflow's, in seconds.
        deferrable: the wait takes place in the triggerer.
        applies_deferred: Airflow applies ``execution_timeout`` to a deferred task (2.11).
    """
    own = None if timeout is None else started + timeout
    if execution_timeout is None:
        return Limit(own)
    if not deferrable:
        airflow_at = began + execution_timeout
        last = airflow_at - min(RESERVE_SECONDS, 0.4 * execution_timeout)
    elif applies_deferred:
        airflow_at = started + execution_timeout
        last = airflow_at - min(RESERVE_DEFERRED_SECONDS, 0.6 * execution_timeout)
    else:
        airflow_at = began + execution_timeout  # of this piece of the task's work
        last = started + execution_timeout
    if own is None or last < own:
        return Limit(last, "execution_timeout", airflow_at)
    return Limit(own, "timeout", airflow_at)


def limit_resumed(
    deadline: float | None,
    by: str,
    *,
    started: float,
    began: float,
    execution_timeout: float | None,
    applies_deferred: bool,
) -> Limit:
    """The limit of a try that goes on after its deferral; arguments as of ``limit_of``."""
    airflow_at = None
    if execution_timeout is not None:
        airflow_at = (started if applies_deferred else began) + execution_timeout
    return Limit(deadline, "execution_timeout" if by == "execution_timeout" else "timeout", airflow_at)


def deferral_limit(deadline: float | None) -> timedelta | None:
    """How long Airflow may leave a task deferred whose wait ends at a deadline (epoch seconds); None for no limit."""
    if deadline is None:
        return None
    return timedelta(seconds=max(0.0, deadline - time.time()) + DEFER_MARGIN)

"""The limit of a task that waits in pieces, where a test's server skips time: what it skipped counts for all of them.

A deferred task goes on with what was stored as it deferred. ``dag.test()`` stores nothing: it hands on the event of the
trigger alone, and lets the try begin anew. But it runs all pieces in one process, so the deadline is kept here too,
until the next piece asks for it; what was skipped meanwhile is taken off.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from .compat import Context

MOST_DEFERRED = 1000
"""Tries whose deadline is kept in one process; a worker's process has one."""
_NAMES_OF_A_TRY = ("dag_id", "run_id", "task_id", "map_index", "try_number")

_deferred: OrderedDict[tuple[object, ...], tuple[float | None, float]] = OrderedDict()


def try_of(context: Context) -> tuple[object, ...]:
    """What names the running try."""
    return tuple(getattr(context["ti"], name, None) for name in _NAMES_OF_A_TRY)


def keep_deadline(context: Context, deadline: float | None) -> None:
    """The running try defers, and waits until a deadline (epoch seconds; None for none)."""
    _deferred[try_of(context)] = (deadline, time.time())
    if len(_deferred) > MOST_DEFERRED:
        _deferred.popitem(last=False)


def deadline_after(
    context: Context, instance_id: Any, stored: float | None, anew: Callable[[], float | None]
) -> float | None:
    """The deadline of a try that goes on after its deferral.

    Args:
        context: of the task.
        instance_id: whom it waits for.
        stored: what Airflow has stored; None: nothing, or that there is none.
        anew: counts it from the start of the try; asked where nothing is left of it.
    """
    kept = _deferred.pop(try_of(context), None)
    if stored is not None:
        return stored
    deadline, since = (anew(), time.time()) if kept is None else kept
    return None if deadline is None else deadline - skipped_for(str(instance_id), since)


def skipped_for(instance_id: str, since: float) -> float:
    """Seconds that a test's server has skipped for an instance since then (epoch seconds); 0 in production."""
    from ..http_hook.passing_time import passed_for  # whoever parses a DAG needs no client

    return passed_for(instance_id, since)

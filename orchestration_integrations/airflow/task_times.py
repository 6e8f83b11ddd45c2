"""The times of one try of a run task: what its arguments, and Airflow's own clock, come to."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..api.errors import ValidationError
from ..procedures.limits import POLL_SECONDS
from .arguments import poll_seconds_of, seconds_of
from .compat import AIRFLOW_3, Context
from .limits import Limit, limit_of, limit_resumed
from .skipped import deadline_after

if TYPE_CHECKING:
    from .run_operator import OrchestrationRunWorkflowOperator


class TaskTimes:
    """When a try waits how long.

    Args:
        operator: with its templates filled in.
        context: of the task.
        began: epoch seconds at which Airflow called the operator.
    """

    def __init__(self, operator: OrchestrationRunWorkflowOperator, context: Context, began: float) -> None:
        self._operator = operator
        self._context = context
        self._began = began

    @cached_property
    def timeout(self) -> float | None:
        """Seconds from the start of the try until waiting ends; None for no limit."""
        seconds: float | None = self._seconds("timeout", seconds_of, None)
        return seconds

    @cached_property
    def poll_interval(self) -> float:
        """The longest pause between two polls, in seconds."""
        seconds: float = self._seconds("poll_interval", poll_seconds_of, POLL_SECONDS)
        return seconds

    def limit(self) -> Limit:
        """The limit of a try that begins: in epoch seconds, so that it means the same on every host."""
        return limit_of(
            started=self._started(),
            began=self._began,
            timeout=self.timeout,
            execution_timeout=self._execution_timeout(),
            deferrable=bool(self._operator.deferrable and self._operator.wait_for_termination),
            applies_deferred=not AIRFLOW_3,
        )

    def limit_after(self, instance_id: str, stored: float | None, by: str) -> Limit:
        """The limit of a try that goes on after its deferral, by what was stored then; else counted anew."""
        anew = self.limit()
        deadline = deadline_after(self._context, instance_id, stored, lambda: anew.deadline)
        return replace(anew, deadline=deadline) if stored is None else self.limit_resumed(deadline, by)

    def limit_resumed(self, deadline: float | None, by: str) -> Limit:
        """The limit of a try that goes on after its deferral, with what was stored as it deferred."""
        return limit_resumed(
            deadline,
            by,
            started=self._started(),
            began=self._began,
            execution_timeout=self._execution_timeout(),
            applies_deferred=not AIRFLOW_3,
        )

    def named(self, limit: Limit) -> str:
        """The limit by the name of the argument that it comes of; empty where there is none."""
        seconds = self.timeout if limit.by == "timeout" else self._execution_timeout()
        return "" if limit.deadline is None or seconds is None else f"{limit.by}={seconds:g} s"

    def _seconds(self, name: str, read: Callable[[Any, str], Any], otherwise: float | None) -> Any:
        """What an argument comes to. ``execute`` has refused what is wrong; a task that resumes must get to its run."""
        try:
            return read(getattr(self._operator, name), name)
        except ValidationError as error:
            self._operator.log.warning("%s; going on with %s", error, otherwise)
            return otherwise

    def _started(self) -> float:
        started = self._context["ti"].start_date
        return started.timestamp() if started is not None else time.time()

    def _execution_timeout(self) -> float | None:
        given = self._operator.execution_timeout
        return None if given is None else given.total_seconds()

"""What a try of a run task brings to the checkpoints of its run: the place of marks, and ``hold_on_failure``."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..api.errors import ValidationError
from ..ownership.record import OwnerWord
from ..ownership.resolve import How
from ..procedures.gate import checkpoints_of
from . import compat
from .attempt import Attempt
from .marks import VariableMarks, remove_marks, waiter_mark
from .owner import Calls

if TYPE_CHECKING:
    from ..api.models import CancelOutcome, Instance
    from ..http_hook import OrchestrationHttpHook
    from .run_operator import OrchestrationRunWorkflowOperator

logger = logging.getLogger("orchestration_integrations.airflow")

REMEDY_HELD = "clear the task, and the same run goes on"
PAYS_AGAIN = "a cleared task starts a new run, which pays all of it again"

RUNS_ON_FAILURE = frozenset(
    {
        "all_done",
        "all_done_min_one_success",
        "all_done_setup_success",
        "all_failed",
        "always",
        "dummy",
        "none_skipped",
        "one_done",
        "one_failed",
        "one_success",
    }
)
"""Trigger rules by which a task is meant to run although tasks before it have failed."""


def check_checkpoints(checkpoints: Any, wait_for_termination: Any, hold_on_failure: Any) -> None:
    """Refuse wrong arguments about checkpoints.

    Raises:
        ValidationError: ``path`` names the argument.
    """
    for name, value in (("checkpoints", checkpoints), ("hold_on_failure", hold_on_failure)):
        if not isinstance(value, bool) and (value is not None or name == "checkpoints"):
            or_none = " or None" if name == "hold_on_failure" else ""
            raise ValidationError(f"{name} must be True or False{or_none}, not {value!r}", path=name)
    if hold_on_failure and not wait_for_termination:
        raise ValidationError(
            "hold_on_failure: with wait_for_termination=False nobody looks for other tasks that fail; leave out one of "
            "the two",
            path="hold_on_failure",
        )
    if checkpoints and not wait_for_termination:
        raise ValidationError(
            "checkpoints: with wait_for_termination=False nobody would let the run pass them; leave out one of the two",
            path="checkpoints",
        )


def holds_on_failure(operator: OrchestrationRunWorkflowOperator) -> bool:
    """Whether a task that fails keeps the run of this one from passing its next checkpoint."""
    if operator.hold_on_failure is not None:
        return operator.hold_on_failure
    if getattr(operator, "is_teardown", False):
        return False
    rule = operator.trigger_rule
    return str(getattr(rule, "value", rule)) not in RUNS_ON_FAILURE


def new_failures(parts: tuple[str, str, str, int], before: Iterable[str]) -> tuple[str, ...]:
    """The other tasks of the DAG run that have failed, but for those that had failed before. Asks Airflow."""
    dag_id, run_id, task_id, map_index = parts
    failed = compat.failed_tasks(dag_id, run_id)
    return tuple(sorted(failed - set(before) - {compat.shown_task(task_id, map_index)}))


def failure_text(failed: Iterable[str]) -> str:
    """Names the tasks that have failed."""
    return f"in the same DAG run has failed: {', '.join(failed)} (hold_on_failure)"


def failure_advice(failed: Iterable[str], outcome: CancelOutcome | None, rerun_on_clear: bool) -> str:
    """Why a run was not let go on, and what a clear of its task does.

    Args:
        failed: the tasks that have failed.
        outcome: of the cancel of the run; None where none was tried.
        rerun_on_clear: of the operator.
    """
    status = None if outcome is None else outcome.status
    advice = {"held": REMEDY_HELD, "cancelled": PAYS_AGAIN if rerun_on_clear else None}.get(status or "")
    why = f"a task {failure_text(failed)}"
    return why if advice is None else f"{why}; {advice}"


class TaskCheckpoints:
    """The checkpoints of one try's run.

    Attributes:
        place: where the marks stand.
        failed: the tasks that keep the run from going on; empty for none.

    Args:
        operator: of the task.
        attempt: the try.
        calls: how Airflow is called.
    """

    def __init__(self, operator: OrchestrationRunWorkflowOperator, attempt: Attempt, calls: Calls) -> None:
        self.place = VariableMarks(attempt.parts, calls)
        self.failed: tuple[str, ...] = ()
        self._holds = holds_on_failure(operator)
        self._possible = operator.checkpoints or (operator.definition in (None, "") and operator.path in (None, ""))
        self._attempt = attempt
        self._calls = calls
        self._before: tuple[str, ...] = ()
        self._noted: str | None = None

    @property
    def failed_before(self) -> list[str] | None:
        """The tasks that had failed before this one began; None where no failure holds the run."""
        return list(self._before) if self._holds else None

    def begin(self, how: How, instance_id: str | None) -> None:
        """Note which tasks had failed before: those that an earlier try has noted, unless a user has cleared it.

        Args:
            how: what this try asks for.
            instance_id: the run on record.
        """
        if not self._holds or not self._possible:
            return
        noted = None if instance_id is None or how == "new" else self._note_of(instance_id)
        self._before = noted if noted is not None else self._calls(new_failures, self._attempt.parts, ())

    def chosen(self, instance_id: str) -> None:
        """Put up that this task waits for the run and looks at its marks. Comes before the run is released."""
        if self._noted == instance_id:
            return
        self.place.write(waiter_mark(instance_id), json.dumps({"failed_before": list(self._before)}))
        self._noted = instance_id

    def taken_up(self, instance_id: str) -> bool | None:
        """Whether the run has checkpoints, as this try has noted before it deferred; None where that cannot be read."""
        try:
            noted = self._note_of(instance_id)
        except Exception as error:
            logger.warning("the marks of instance %s could not be read: %s", instance_id, error)
            return None
        self._before = noted or ()
        self._noted = None if noted is None else instance_id
        return noted is not None

    def at_checkpoint(self, number: int) -> OwnerWord:
        """Whether the run may go on, as far as other tasks of the DAG run have a say. Raises what Airflow raises."""
        if not self._holds:
            return "yes"
        self.failed = self._calls(new_failures, self._attempt.parts, self._before)
        if not self.failed:
            return "yes"
        logger.error("the run is not let go on to stage %d: a task %s", number, failure_text(self.failed))
        return "unwanted"

    def ended(self, http: OrchestrationHttpHook, instance: Instance | None) -> None:
        """Take away the marks of a run that has ended. Best effort: ``record_care`` removes what stays."""
        if instance is None or self._noted != instance.id:
            return
        try:
            numbers = checkpoints_of(http.get_workflow(instance.workflow_id).stages).values()
            remove_marks(self.place, instance.id, numbers)
        except Exception as error:
            logger.info("marks of instance %s were not removed: %s", instance.id, error)

    def _note_of(self, instance_id: str) -> tuple[str, ...] | None:
        text = self.place.read(waiter_mark(instance_id))
        if text is None:
            return None
        try:
            return tuple(str(one) for one in json.loads(text)["failed_before"])
        except (ValueError, TypeError, KeyError):
            return ()

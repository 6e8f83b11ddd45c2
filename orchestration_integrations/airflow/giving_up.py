"""What becomes of a run that a try gives up: left to the next try, or cancelled or left as the task says.

A run is left to a next try only where one follows. Three have a say in that: the counters of Airflow, the class of the
error that ends the try, and the retry policy of the task, which Airflow asks once the try is over, so that it is
asked here too, before. ``retry_follows`` is the one answer, to what is done and to what is said.

A wait that is given up, at its deadline, since its reads failed or since its trigger did, comes to ``on_timeout``. Only
a kill comes to ``cancel_on_kill``, and the limit that Airflow sets by ``execution_timeout`` is one.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..api.errors import InstanceStuckError, OrchestrationError, StateUnknownError, WaitTimeoutError
from ..api.models import CancelOutcome
from ..ownership.owned_run import GivesUp, Refused
from ..procedures.verdicts import outcome_text
from .compat import DEFERRAL_FAILURES, AirflowFailException, AirflowSkipException, is_deferral_timeout
from .errors import is_final
from .limits import Limit

if TYPE_CHECKING:
    from .task_run import TaskRun


def retry_follows(task: TaskRun, error: BaseException) -> bool:
    """Whether Airflow tries again once this try ends with an error.

    Args:
        task: the try.
        error: what it raises, or an error that it will raise as a class of Airflow's.
    """
    if task.owner.gone is not None or not task.attempt.tries_left:  # what it has killed, it does not try again
        return False
    if isinstance(error, AirflowFailException | AirflowSkipException):
        return False
    if isinstance(error, OrchestrationError) and is_final(error):
        return False
    return not _policy_gives_up(task, error)


def _policy_gives_up(task: TaskRun, error: BaseException) -> bool:
    """Whether the retry policy of the task (Airflow 3.3) fails it at once. One that itself fails decides nothing."""
    policy = getattr(task.operator, "retry_policy", None)
    if policy is None:
        return False
    attempt = task.attempt
    try:
        decision = policy.evaluate(
            exception=error, try_number=attempt.try_number, max_tries=attempt.max_tries, context=task.context
        )
        return bool(decision.action.value == "fail")
    except Exception as trouble:
        task.log.warning("the retry policy could not be asked whether a retry follows: %r", trouble)
        return False


def choice(task: TaskRun, error: BaseException, limit: Limit) -> GivesUp:
    """What becomes of the run of a wait that ended before it.

    Args:
        task: the try.
        error: what ended the wait: an error of ``GivenUp``, or Airflow's of a failed deferral.
        limit: of the wait.
    """
    operator = task.operator
    if task.owner.gone == "superseded":
        return "leave"  # whoever has declared a success, or has the task now, asked for no cancel
    if is_late(error):
        cancels = operator.cancel_on_kill if limit.by == "execution_timeout" else operator.on_timeout == "cancel"
        return "cancel" if cancels else "leave"
    if isinstance(error, StateUnknownError | Refused):
        error.run_may_exist = True
    if not isinstance(error, InstanceStuckError) and retry_follows(task, error):
        return "leave"
    return "cancel" if operator.on_timeout == "cancel" else "leave"


def is_late(error: BaseException) -> bool:
    """Whether the wait has ended since its time was over."""
    return isinstance(error, WaitTimeoutError) or (isinstance(error, DEFERRAL_FAILURES) and is_deferral_timeout(error))


def leave(task: TaskRun, why: str) -> str:
    """What is said of a run that nothing is done to. ``why``: it is left."""
    runs = "is still running" if task.seen_running else "may still run"
    return f"instance {task.instance_id} {runs}{why}"


def cancel(task: TaskRun, by: str, limit: Limit) -> tuple[CancelOutcome | None, str]:
    """Cancel a run that a triggerer may still wait for: the outcome, None where there is none, and what is said of it.

    Args:
        task: the try, which has taken the run up.
        by: why it is cancelled, in words.
        limit: of the try.
    """
    if task.run is None:
        return None, leave(task, "")
    name, seconds = f"instance {task.instance_id}", limit.cancel_seconds(time.time())
    try:
        outcome = task.http.perform(task.run.stop(seconds, by=by, waiter_is_here=False))
    except OrchestrationError as error:
        return None, f"the cancel of {name} failed, and it may still run: {error}"
    return outcome, f"{name}: {outcome_text(outcome, superseded=task.run.superseded)}"

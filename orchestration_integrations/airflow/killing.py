"""What a killed task does about its run, inside a signal's handler and within seconds.

On Airflow 3 the interrupted code goes on once the handler is through. Where the run is not wanted any more it must
not: amid a start it could still submit or release what nobody waits for, and after a deferral it would defer again.
What the kill came to is said once, and the error that ends the task says the same as the log.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from typing import TYPE_CHECKING

from ..api.errors import OrchestrationError
from ..procedures.limits import CANCEL_SECONDS
from ..procedures.verdicts import BEING_STARTED, outcome_text
from .compat import AIRFLOW_3, AirflowException, is_timeout_of_airflow
from .owner import ASK_SECONDS, Interrupted
from .run_records import mark_clear
from .taking_up import taken_up_by_kill

if TYPE_CHECKING:
    from ..ownership.owned_run import OwnedRun
    from .task_run import TaskRun

KILL_SECONDS = 4.3 if AIRFLOW_3 else CANCEL_SECONDS
"""Seconds for all that is done while the task is being killed: Airflow 3 sends SIGKILL about 4.7 s after SIGTERM."""
MARK_SECONDS = 1.0


def on_kill(task: TaskRun) -> None:
    """Find out what the kill means, and do that; amid a call to Airflow, once that call is through.

    Raises:
        AirflowException: the run was being started or taken up, and is not wanted any more.
    """
    begun = time.monotonic()
    if is_timeout_of_airflow(sys.exc_info()[1]):
        _decide(task, begun, "timed out")
    elif AIRFLOW_3 and task.calls.postpone(lambda: _decide(task, begun)):
        late = threading.Timer(ASK_SECONDS, _decide_late, (task, begun))
        late.daemon = True
        late.start()
    else:
        _decide(task, begun)


def _decide_late(task: TaskRun, begun: float) -> None:
    """The interrupted call hangs, and Airflow soon ends the process: nobody can be asked."""
    if task.calls.postponed() is None:
        return
    with contextlib.suppress(AirflowException):  # the main thread hears it from its owner
        _decide(task, begun, "unknown")


def _decide(task: TaskRun, begun: float, means: str | None = None) -> None:
    task.calls.kill()
    means = means or task.owner.killed()
    if means == "drained" and (AIRFLOW_3 or task.attempt.tries_left):
        goes_on = "this process continues" if AIRFLOW_3 else "the next try continues with it"
        task.log.warning("SIGTERM, and the task is still wanted: %s is left alone, %s", _subject(task), goes_on)
        task.calls.go_on()
        return
    stands = task.run is not None and task.run.instance_id is not None and bool(task.run.has_checkpoints)
    if means in ("succeeded", "superseded"):
        task.owner.give_up("superseded")
        why = "the task was marked as a success" if means == "succeeded" else "another try has the task"
        _tell(task, logging.WARNING, f"killed: {why}; {_left_alone(task, stands)}")
    elif means == "unknown" and stands:
        task.owner.give_up("superseded")  # the word that lets nothing pass and cancels nothing
        task.left_alone = (
            f"killed, and Airflow could not be asked why: {_subject(task)} is left alone and stands still at its next "
            "checkpoint, where nobody lets it pass until a further try does"
        )
        _tell(task, logging.ERROR, task.left_alone)
    else:
        task.owner.give_up("unwanted")
        marking = threading.Thread(target=_mark, args=(task,), daemon=True)
        if means == "cleared":
            marking.start()
        _cancel(task, means, KILL_SECONDS - (time.monotonic() - begun))
        if means == "cleared":
            marking.join(MARK_SECONDS)
    if task.starting:
        raise AirflowException(task.came_of_kill)


def _tell(task: TaskRun, level: int, what: str, exc_info: bool = False) -> None:
    task.came_of_kill = what
    task.log.log(level, "%s", what, exc_info=exc_info)


def _subject(task: TaskRun) -> str:
    known = task.instance_id or task.begun
    if known is None:
        return "the run that this try has begun" if task.resumes else "nothing that was started"
    return f"instance {known}"


def _left_alone(task: TaskRun, stands: bool) -> str:
    run = task.run
    if run is not None and run.instance_id is None and run.record is not None:
        return BEING_STARTED
    if task.instance_id is None and not task.resumes:
        left = "; if an earlier try had started a run, that was left alone, and may still run"
        earlier = left if task.attempt.try_number > 1 else ""
        return f"this try had started nothing{earlier}"
    goes_on = "stands still at its next checkpoint" if stands else "may still run"
    if run is not None and run.unreleased:
        goes_on = "is not released"
    return f"{_subject(task)} is left alone and {goes_on}"


def _cancel(task: TaskRun, means: str, left: float) -> None:
    run, killed = task.run, f"killed ({means})"
    known = run.instance_id if run is not None else None
    if known is None and not task.resumes:
        if run is not None and run.record is not None:
            _tell(task, logging.WARNING, f"{killed}, run key {run.request.run_key}: {BEING_STARTED}")
        elif task.attempt.try_number > 1:
            what = "one that an earlier try has started was not cancelled and may still run"
            _tell(task, logging.ERROR, f"{killed} before this try had looked for its run: {what}")
        else:
            _tell(task, logging.INFO, f"{killed} before anything was started")
        return
    if not task.operator.cancel_on_kill:
        left_how = "not released" if run is not None and run.unreleased else "left alone, and may still run"
        _tell(task, logging.INFO, f"{killed}; {_subject(task)} is {left_how} (cancel_on_kill=False)")
        return
    left = max(1.0, left)
    # In a thread: whatever hangs in there, Airflow's own limit must not be what ends this.
    seconds = max(0.7, left - 0.3)
    stopping = threading.Thread(target=_stop, args=(task, None if known is None else run, means, seconds), daemon=True)
    stopping.start()
    stopping.join(left + 0.3)
    if stopping.is_alive():
        _tell(task, logging.ERROR, f"{killed}; whether {_subject(task)} was cancelled is not known yet")


def _stop(task: TaskRun, run: OwnedRun | None, means: str, seconds: float) -> None:
    """Cancel by connections of its own: those of the interrupted code may be in any state. ``run``: None where this
    process has not taken up yet what its try has begun."""
    killed = f"killed ({means})"
    try:
        with task.hook.fresh_conn(masked=False, apart=True, timeout=2.0, retry_budget=2.0) as http:
            if run is None:
                again = taken_up_by_kill(task, http)
            else:
                again = http.owning(run.request, store=run.keeper.store, mark_place=task.checkpoints.place)
                again.take_over(run)
            if again is None:
                why = "Airflow does not say which one it is"
                _tell(task, logging.ERROR, f"{killed}; {_subject(task)} was not cancelled and may still run: {why}")
                return
            instance_id = task.instance_id = again.request.chosen if run is None else again.instance_id
            if again.instance_id != instance_id:
                why = f"the task now has instance {again.instance_id}"
                _tell(task, logging.ERROR, f"{killed}; {_subject(task)} was not cancelled and may still run: {why}")
                return
            stop = again.stop(seconds, by=f"its task was killed ({means})", waiter_is_here=run is not None)
            outcome = http.perform(stop)
    except OrchestrationError as error:
        _tell(task, logging.ERROR, f"{killed}; {_subject(task)} was not cancelled and may still run: {error}")
        return
    except Exception as error:
        _tell(task, logging.ERROR, f"{killed}; {_subject(task)} was not cancelled and may still run: {error!r}", True)
        return
    if run is not None and run.unreleased:
        _tell(task, logging.INFO, f"{killed} while the run was being started; {_subject(task)} was not released")
        return
    sure = outcome is not None and outcome.status in ("cancelled", "already_ended", "held")
    what = outcome_text(outcome, superseded=again.superseded)
    _tell(task, logging.INFO if sure else logging.ERROR, f"{killed}; {_subject(task)}: {what}")


def _mark(task: TaskRun) -> None:
    """Note that a user has cleared this try, which on 2.11 nothing else tells the next one."""
    try:
        task.calls(mark_clear, task.attempt)
    except Interrupted as error:
        task.log.warning("not noted that the task was cleared while it ran: %s", error)
    except Exception:
        task.log.warning("not noted that the task was cleared while it ran", exc_info=True)

"""What a killed task does about its run, inside a signal's handler and within seconds.

On Airflow 3 the interrupted code goes on once the handler is through. Where the run is not wanted any more it must
not: amid a start it could still submit or release what nobody waits for.
"""

from __future__ import annotations

import contextlib
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

if TYPE_CHECKING:
    from ..ownership.owned_run import OwnedRun
    from .task_run import TaskRun

KILL_SECONDS = 4.3 if AIRFLOW_3 else CANCEL_SECONDS
"""Seconds for all that is done while the task is being killed: Airflow 3 sends SIGKILL about 4.7 s after SIGTERM."""
MARK_SECONDS = 1.0


def on_kill(task: TaskRun) -> None:
    """Find out what the kill means, and do that; amid a call to Airflow, once that call is through.

    Raises:
        AirflowException: the run was being started, and is not wanted any more.
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
    if means == "drained" and (AIRFLOW_3 or task.attempt.retry_follows):
        goes_on = "this process continues" if AIRFLOW_3 else "the next try continues with it"
        task.log.warning("SIGTERM, and the task is still wanted: %s is left alone, %s", _subject(task), goes_on)
        task.calls.go_on()
        return
    stands = task.run is not None and task.run.instance_id is not None and bool(task.run.has_checkpoints)
    if means in ("succeeded", "superseded"):
        task.owner.give_up("superseded")
        why = "the task was marked as a success" if means == "succeeded" else "another try has the task"
        goes_on = "stands still at its next checkpoint" if stands else "keeps running"
        task.log.warning("killed: %s; %s is left alone and %s", why, _subject(task), goes_on)
    elif means == "unknown" and stands:
        task.owner.give_up("superseded")  # the word that lets nothing pass and cancels nothing
        task.left_alone = (
            f"killed, and Airflow could not be asked why: {_subject(task)} is left alone and stands still at its next "
            "checkpoint, where nobody lets it pass until a further try does"
        )
        task.log.error("%s", task.left_alone)
    else:
        task.owner.give_up("unwanted")
        marking = threading.Thread(target=_mark, args=(task,), daemon=True)
        if means == "cleared":
            marking.start()
        _cancel(task, means, KILL_SECONDS - (time.monotonic() - begun))
        if means == "cleared":
            marking.join(MARK_SECONDS)
    if task.starting:
        raise AirflowException("killed while the run was being started; it was not released")


def _subject(task: TaskRun) -> str:
    return "nothing that was started" if task.instance_id is None else f"instance {task.instance_id}"


def _cancel(task: TaskRun, means: str, left: float) -> None:
    run = task.run
    if run is None or run.instance_id is None:
        if run is not None and run.record is not None:
            task.log.warning("killed (%s), run key %s: %s", means, run.request.run_key, BEING_STARTED)
        elif task.attempt.try_number > 1:
            task.log.error(
                "killed (%s) before this try had looked for its run: one that an earlier try has started was not "
                "cancelled and may still run",
                means,
            )
        return
    if not task.operator.cancel_on_kill:
        task.log.info("killed (%s); instance %s is left running (cancel_on_kill=False)", means, run.instance_id)
        return
    left = max(1.0, left)
    # In a thread: whatever hangs in there, Airflow's own limit must not be what ends this.
    stopping = threading.Thread(target=_stop, args=(task, run, means, max(0.7, left - 0.3)), daemon=True)
    stopping.start()
    stopping.join(left + 0.3)
    if stopping.is_alive():
        task.log.error("killed (%s); whether instance %s was cancelled is not known yet", means, run.instance_id)


def _stop(task: TaskRun, run: OwnedRun, means: str, seconds: float) -> None:
    """Cancel by connections of its own: those of the interrupted code may be in any state."""
    try:
        with task.hook.fresh_conn(masked=False, apart=True, timeout=2.0, retry_budget=2.0) as http:
            again = http.owning(run.request, store=run.keeper.store, mark_place=task.checkpoints.place)
            again.take_over(run)
            outcome = http.perform(again.stop(seconds, by=f"its task was killed ({means})"))
    except OrchestrationError as error:
        task.log.error(
            "killed (%s); instance %s was not cancelled and may still run: %s", means, run.instance_id, error
        )
        return
    except Exception:
        task.log.exception("killed (%s); instance %s was not cancelled and may still run", means, run.instance_id)
        return
    sure = outcome is not None and outcome.status in ("cancelled", "already_ended", "held")
    tell = task.log.info if sure else task.log.error
    tell("killed (%s); instance %s: %s", means, run.instance_id, outcome_text(outcome, superseded=again.superseded))


def _mark(task: TaskRun) -> None:
    """Note that a user has cleared this try, which on 2.11 nothing else tells the next one."""
    try:
        task.calls(mark_clear, task.attempt)
    except Interrupted as error:
        task.log.warning("not noted that the task was cleared while it ran: %s", error)
    except Exception:
        task.log.warning("not noted that the task was cleared while it ran", exc_info=True)

"""A try that fails before it has its run: what becomes of the run that an earlier try has started.

Where no try follows, nobody would wait for that run. A try that did not look for it, since its own input is wrong, does
with it as ``cancel_on_kill`` says; one that has looked for it and could not read it has given it up, so that
``on_timeout`` decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..api.errors import OrchestrationError, summary
from .errors import is_unread
from .giving_up import cancel, leave, retry_follows
from .taking_up import take_up

if TYPE_CHECKING:
    from .task_run import TaskRun


def tell_earlier_run(task: TaskRun, error: Exception) -> None:
    """Say what becomes of the run that an earlier try has started; where no try follows, it may be cancelled.

    Args:
        task: the try that fails.
        error: what the task raises. One of this package gets it added to its message; the log says it always.
    """
    follows, unread = retry_follows(task, error), task.run is not None and is_unread(error)
    waits = task.operator.wait_for_termination and task.operator.on_timeout == "cancel"
    if unread and (follows or task.records is None or not waits):
        return  # nothing is done, and the error itself says what is known
    task.close()
    try:
        left = _of_earlier_try(task, follows, unread)
    except Exception as trouble:
        left = f"whether an earlier try has left a run behind could not be found out ({trouble})"
    if left is None:
        return
    task.log.error("%s", left)
    if isinstance(error, OrchestrationError):
        error.args = (f"{error}; {left}",)


def _of_earlier_try(task: TaskRun, follows: bool, unread: bool) -> str | None:
    if task.records is None:
        if task.attempt.try_number <= 1:
            return None
        return "no records are kept, so it is not known whether an earlier try has left a run behind"
    record = task.calls(task.records.stored)
    if record is None or record.state == "told":
        return None
    if task.attempt.is_before(record):
        return f"another try has {_subject(record.instance_id)} now, so this one has cancelled nothing"
    if record.instance_id is None:
        return None if record.gate or unread else f"an earlier try may have started a run of key {record.key}"
    try:
        word = task.owner()
    except Exception as trouble:
        return (
            f"instance {record.instance_id} of an earlier try was not cancelled and may still run: Airflow could not "
            f"say whether another try has it now ({trouble})"
        )
    if word == "superseded":
        return (
            f"another try has {_subject(record.instance_id)} now, or the task was marked as a success, so this try has "
            "cancelled nothing"
        )
    instance_id = take_up(task, None, earlier=record)
    why = "this try could not read it" if unread else "this try did not look for it"
    cancels = unread or bool(not follows and task.operator.cancel_on_kill)
    try:
        ended = None if unread else task.ended(instance_id)
    except OrchestrationError as trouble:
        if not cancels:
            return f"instance {instance_id} of an earlier try could not be read and may still run ({summary(trouble)})"
        ended = None
    if ended is not None:
        return f"instance {instance_id} of an earlier try has ended: {ended.state}"
    if cancels:
        return f"{why}; {cancel(task, why, task.times.limit_resumed(None, 'timeout'))[1]}"
    return f"{why}; {leave(task, '; the next try continues with it' if follows else ' (cancel_on_kill=False)')}"


def _subject(instance_id: str | None) -> str:
    return "the run" if instance_id is None else f"instance {instance_id}"

"""Going on, in a new process, with a run that was begun before: by this try before it deferred, or by an earlier one.

The deferral names the run, and so do its record and the task's XComs. A record that is gone, or that cannot be read
while the process is being killed, does not take the run from its try: see ``ownership.keeping``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..api.errors import NotFoundError, StateUnknownError
from ..ownership.request import UNREAD_WORKFLOW, OwnedRequest
from ..procedures.moved import NOTHING_READ
from .checkpointing import REMEDY_HELD
from .links import INSTANCE_ID_KEY

if TYPE_CHECKING:
    from ..http_hook import OrchestrationHttpHook
    from ..ownership.owned_run import OwnedRun
    from ..ownership.record import RunRecord
    from .task_run import TaskRun


def take_up(task: TaskRun, instance_id: Any, *, earlier: RunRecord | None = None) -> str:
    """Go on with what this try has begun, or with ``earlier``, the record of another try. Returns the instance's id.

    Raises:
        NotFoundError: nothing says which run it is; ``run_may_exist``.
        StateUnknownError: another try has taken over.
    """
    record = _stored(task) if earlier is None else earlier
    instance_id = instance_id or _named(task, record)
    if not isinstance(instance_id, str) or not instance_id:
        lost = NotFoundError("Airflow has no record of the instance that this task was waiting for; it may still run")
        lost.run_may_exist = True  # so it is retried: a further try finds the run by its key
        raise lost
    task.instance_id = instance_id
    did = "goes on with" if earlier is None else "looks after the earlier"
    workflow_id = (record.workflow_id or None) if record is not None else None
    url = task.http.settings.instance_link(instance_id, workflow_id)
    task.log.info("try %s %s instance %s: %s", task.attempt.try_number, did, instance_id, url)
    run = task.run = task.owning(_request(task, instance_id, record, earlier))
    run.has_checkpoints = task.checkpoints.taken_up(instance_id)
    task.http.perform(run.load())
    if run.instance_id != instance_id:
        raise StateUnknownError(
            f"this try waited for instance {instance_id}, but the task now has instance {run.instance_id}: another "
            "try has taken over",
            instance_id=instance_id,
            instance=None,
            moved=NOTHING_READ,
        )
    return instance_id


def taken_up_by_kill(task: TaskRun, http: OrchestrationHttpHook) -> OwnedRun | None:
    """The run of a process that is killed before it has taken it up; None where nothing says which run it is."""
    record, store, unread = None, task.store, ""
    try:
        record = _stored(task)
    except Exception as error:
        store, unread = None, repr(error)
    instance_id = task.begun or _named(task, record)
    if not isinstance(instance_id, str) or not instance_id:
        return None
    request = _request(task, instance_id, record, None)
    run = http.owning(request, store=store, mark_place=task.checkpoints.place)
    try:
        http.perform(run.load())
    except Exception as error:
        unread = repr(error)
        run = http.owning(request, store=None, mark_place=task.checkpoints.place)
        http.perform(run.load())
    if unread:
        task.log.warning("the record of instance %s could not be read: %s", instance_id, unread)
    return run


def _stored(task: TaskRun) -> RunRecord | None:
    if task.records is None:
        return None
    task.records.go_on()
    return task.calls(task.records.stored)


def _named(task: TaskRun, record: RunRecord | None) -> Any:
    """What else names the instance than the deferral."""
    if record is not None and record.instance_id:
        return record.instance_id
    ti = task.context["ti"]
    return task.calls(lambda: ti.xcom_pull(task_ids=ti.task_id, key=INSTANCE_ID_KEY, map_indexes=ti.map_index))


def _request(task: TaskRun, instance_id: str, record: RunRecord | None, earlier: RunRecord | None) -> OwnedRequest:
    return OwnedRequest(
        workflow=record.workflow_id if record is not None and record.workflow_id else UNREAD_WORKFLOW,
        run_key=record.key if record is not None else task.attempt.key,
        attempt=earlier.attempt if earlier is not None else task.attempt.name,
        facts=earlier.facts if earlier is not None else task.attempt.facts,
        chosen=instance_id,
        remedy_held=REMEDY_HELD,
    )

"""Workflows, instances, histories and triggers as the API shows them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from . import definitions
from .golang import format_instant, format_instant_cut

if TYPE_CHECKING:
    from .state import Activity, Instance, StageRow, StageRun, Trigger, Workflow


def workflow_json(workflow: Workflow, cut: bool = True) -> dict[str, Any]:
    """A workflow; its instants are cut to microseconds once the database had it."""
    show = format_instant_cut if cut else format_instant
    created = show(workflow.created_ns)
    return {
        "id": workflow.id,
        "config": {"name": workflow.name, "stages": workflow.stages},
        "createdAt": created,
        "updatedAt": created,
        "deletedAt": None if workflow.deleted_ns is None else show(workflow.deleted_ns),
    }


def new_instance_json(instance: Instance, generation: int) -> dict[str, Any]:
    """An instance as the answer to a run request shows it: never read back, so nothing of it has begun."""
    created = format_instant(instance.created_ns)
    shown: dict[str, Any] = {
        "workflowID": instance.workflow_id,
        "id": instance.id,
        "createdAt": created,
        "updatedAt": created,
        "terminated": False,
    }
    if generation == 1:
        shown["error"] = ""
    return shown


def instance_row(instance: Instance, generation: int) -> dict[str, Any]:
    """An instance's row without those of its stages, as lists have it."""
    shown = _instance_head(instance)
    if generation == 1 or instance.error:
        shown["error"] = instance.error
    return shown


def instance_json(instance: Instance, generation: int, rng: random.Random) -> dict[str, Any]:
    """An instance's row with those of its stages, which come in no order."""
    shown = _instance_head(instance)
    if instance.rows:
        status = [_stage_row(instance.id, row, generation) for row in instance.rows]
        if len(status) > 1:
            rng.shuffle(status)
        shown["status"] = status
    if generation == 1 or instance.error:
        shown["error"] = instance.error
    return shown


def _instance_head(instance: Instance) -> dict[str, Any]:
    created = format_instant_cut(instance.created_ns)
    shown: dict[str, Any] = {
        "workflowID": instance.workflow_id,
        "id": instance.id,
        "createdAt": created,
        "updatedAt": created,
        "terminated": instance.terminated_ns is not None,
    }
    if instance.terminated_ns is not None:
        shown["terminatedAt"] = format_instant_cut(instance.terminated_ns)
    return shown


def _stage_row(instance_id: str, row: StageRow, generation: int) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "stage": row.stage,
        "instanceID": instance_id,
        "startedAt": format_instant_cut(row.started_ns),
    }
    if generation > 1:
        shown["temporalRunID"] = row.run_id
    if row.terminated_ns is not None:
        shown["terminatedAt"] = format_instant_cut(row.terminated_ns)
    if generation == 1 or row.error:
        shown["error"] = row.error
    return shown


def stage_run_json(run: StageRun) -> dict[str, Any]:
    """A stage's work as an instance's history shows it."""
    shown: dict[str, Any] = {
        "name": definitions.RUNNERS[run.kind],
        "input": run.input,
        "terminated": run.terminated_ns is not None,
        "startedAt": format_instant(run.started_ns),
    }
    if run.error:
        shown["error"] = run.error
    if run.terminated_ns is not None:
        shown["terminatedAt"] = format_instant(run.terminated_ns)
    return shown


def activity_json(activity: Activity, v2: bool) -> dict[str, Any]:
    """An activity as a stage's history shows it."""
    shown: dict[str, Any] = {
        "name": activity.name,
        "input": {activity.name: activity.step["input"]},
        "terminated": activity.terminated_ns is not None,
        "startedAt": format_instant(activity.started_ns),
        "attempt": activity.attempt,
    }
    if activity.has_output:
        output = activity.output
        if v2 and activity.name == "CreateTransaction":
            # Version 2 keeps the shape of an older ledger: a list, and the number under two names.
            output = {"data": [{**output["data"], "txid": output["data"]["id"]}]}
        shown["output"] = {activity.name: output}
    if activity.error:
        shown["error"] = activity.error
    if activity.terminated_ns is not None:
        shown["terminatedAt"] = format_instant(activity.terminated_ns)
    if activity.last_failure:
        shown["lastFailure"] = activity.last_failure
    if activity.next_ns is not None:
        shown["nextExecution"] = format_instant(activity.next_ns)
    return shown


def trigger_json(trigger: Trigger) -> dict[str, Any]:
    """A trigger."""
    shown: dict[str, Any] = {
        "name": trigger.name,
        "event": trigger.event,
        "workflowID": trigger.workflow_id,
        "id": trigger.id,
        "createdAt": format_instant_cut(trigger.created_ns),
    }
    if trigger.filter is not None:
        shown["filter"] = trigger.filter
    if trigger.vars:
        shown["vars"] = trigger.vars
    return shown

"""The tasks that only read. You may give them retries: ``get_instance.with_options(retries=3)``.

None is cached: a cached answer would be old. Each has a twin (``…_async``) for asyncio.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .api_tasks import Asked, repeatable
from .credentials import Credentials
from .plain_values import (
    activity_row,
    each,
    history_rows,
    instance_row,
    occurrence_row,
    plain_mapping,
    trigger_row,
    workflow_row,
    workflow_with_stages,
)
from .subjects import Subject, id_in, instance_id_of


@repeatable("get-server-info")
def _get_server_info(credentials: Credentials) -> Asked[dict[str, Any]]:
    """Read what the server says of itself.

    Args:
        credentials: the block, or the name of the stored block.

    Returns:
        ``{"version"}``.
    """
    return Asked(credentials, lambda hook: hook.get_server_info(), lambda info: {"version": info.version})


# ---- workflows -------------------------------------------------------------------------------------


@repeatable("list-workflows")
def _list_workflows(credentials: Credentials) -> Asked[list[dict[str, Any]]]:
    """Read all workflows, without their stages.

    Args:
        credentials: the block, or the name of the stored block.

    Returns:
        A list of ``{"workflow_id", "name", "created_at", "updated_at", "deleted_at"}``, instants as RFC 3339 texts.
    """
    return Asked(credentials, lambda hook: hook.list_workflows(), each(workflow_row))


@repeatable("get-workflow")
def _get_workflow(credentials: Credentials, workflow_id: Subject) -> Asked[dict[str, Any]]:
    """Read a workflow.

    Args:
        credentials: the block, or the name of the stored block.
        workflow_id: the id, or what another task returned that holds it.

    Returns:
        ``{"workflow_id", "name", "created_at", "updated_at", "deleted_at", "stages"}``. ``deleted_at`` is None for one
        that is not deleted.

    Raises:
        NotFoundError: there is no such workflow.
    """
    found = id_in(workflow_id, "workflow_id")
    return Asked(credentials, lambda hook: hook.get_workflow(found), workflow_with_stages)


# ---- instances -------------------------------------------------------------------------------------


@repeatable("list-instances")
def _list_instances(
    credentials: Credentials, workflow_id: Subject | None = None, running: bool | None = None
) -> Asked[list[dict[str, Any]]]:
    """Read the instances of one workflow, or of all.

    Args:
        credentials: the block, or the name of the stored block.
        workflow_id: only of this workflow; None (default) for all.
        running: True for running ones only, False for ended ones only, None (default) for both.

    Returns:
        A list as ``get_instance`` gives each of them; ``stages`` is empty where a server leaves it out of lists.
    """
    found = id_in(workflow_id, "workflow_id") if workflow_id is not None else None
    return Asked(credentials, lambda hook: hook.list_instances(found, running), each(instance_row))


@repeatable("get-instance")
def _get_instance(credentials: Credentials, instance_id: Subject) -> Asked[dict[str, Any]]:
    """Read an instance.

    Args:
        credentials: the block, or the name of the stored block.
        instance_id: the id, or what ``run_workflow`` returned.

    Returns:
        ``{"instance_id", "workflow_id", "state", "error", "created_at", "terminated_at", "stages"}``, instants as
        RFC 3339 texts.

    Raises:
        NotFoundError: there is no such instance.
    """
    found = instance_id_of(instance_id)
    return Asked(credentials, lambda hook: hook.get_instance(found), instance_row)


@repeatable("get-instance-history")
def _get_instance_history(credentials: Credentials, instance_id: Subject) -> Asked[list[dict[str, Any]]]:
    """Read the stages whose work was launched.

    Args:
        credentials: the block, or the name of the stored block.
        instance_id: the id, or what ``run_workflow`` returned.

    Returns:
        A list of ``{"stage", "name", "input", "error", "terminated", "started_at", "terminated_at"}``. Numbers of an
        input beyond 2**53 may have lost digits on the server.

    Raises:
        NotFoundError: there is no such instance, or the engine no longer keeps its history.
    """
    found = instance_id_of(instance_id)
    return Asked(credentials, lambda hook: hook.get_instance_history(found), history_rows)


@repeatable("get-stage-history")
def _get_stage_history(credentials: Credentials, instance_id: Subject, number: int) -> Asked[list[dict[str, Any]]]:
    """Read what a stage did: its calls to other services.

    Args:
        credentials: the block, or the name of the stored block.
        instance_id: the id, or what ``run_workflow`` returned.
        number: of the stage, from 0, as the server counts: a gate is number 0.

    Returns:
        A list of ``{"name", "input", "output", "error", "terminated", "started_at", "terminated_at", "last_failure",
        "attempt", "next_execution"}``; empty for a ``delay`` or ``wait_event``.

    Raises:
        NotFoundError: there is no such instance or stage, or the stage failed before its work.
    """
    found = instance_id_of(instance_id)
    return Asked(credentials, lambda hook: hook.get_stage_history(found, number), each(activity_row))


# ---- triggers --------------------------------------------------------------------------------------


@repeatable("list-triggers")
def _list_triggers(credentials: Credentials) -> Asked[list[dict[str, Any]]]:
    """Read all triggers.

    Args:
        credentials: the block, or the name of the stored block.

    Returns:
        A list as ``get_trigger`` gives each of them.
    """
    return Asked(credentials, lambda hook: hook.list_triggers(), each(trigger_row))


@repeatable("get-trigger")
def _get_trigger(credentials: Credentials, trigger_id: Subject) -> Asked[dict[str, Any]]:
    """Read a trigger.

    Args:
        credentials: the block, or the name of the stored block.
        trigger_id: the id, or what ``create_trigger`` returned.

    Returns:
        ``{"trigger_id", "event", "workflow_id", "filter", "variables", "created_at"}``.

    Raises:
        NotFoundError: there is no such trigger.
    """
    found = id_in(trigger_id, "trigger_id")
    return Asked(credentials, lambda hook: hook.get_trigger(found), trigger_row)


@repeatable("list-trigger-occurrences")
def _list_trigger_occurrences(credentials: Credentials, trigger_id: Subject) -> Asked[list[dict[str, Any]]]:
    """Read each firing of a trigger.

    Args:
        credentials: the block, or the name of the stored block.
        trigger_id: the id, or what ``create_trigger`` returned.

    Returns:
        A list of ``{"trigger_id", "instance_id", "date", "event", "error"}``; ``instance_id`` is None where no run was
        started. It is empty for an unknown trigger.
    """
    found = id_in(trigger_id, "trigger_id")
    return Asked(credentials, lambda hook: hook.list_trigger_occurrences(found), each(occurrence_row))


@repeatable("test-trigger")
def _test_trigger(credentials: Credentials, trigger_id: Subject, event: Mapping[str, Any]) -> Asked[dict[str, Any]]:
    """Ask what the filter and the variables of a trigger evaluate to for an event. It starts nothing.

    Args:
        credentials: the block, or the name of the stored block.
        trigger_id: the id, or what ``create_trigger`` returned.
        event: the payload of an event.

    Returns:
        What the server answers.

    Raises:
        NotFoundError: there is no such trigger, or the server has no v2 of the API.
    """
    found = id_in(trigger_id, "trigger_id")
    return Asked(credentials, lambda hook: hook.test_trigger(found, event), plain_mapping)


get_server_info, get_server_info_async = _get_server_info
list_workflows, list_workflows_async = _list_workflows
get_workflow, get_workflow_async = _get_workflow
list_instances, list_instances_async = _list_instances
get_instance, get_instance_async = _get_instance
get_instance_history, get_instance_history_async = _get_instance_history
get_stage_history, get_stage_history_async = _get_stage_history
list_triggers, list_triggers_async = _list_triggers
get_trigger, get_trigger_async = _get_trigger
list_trigger_occurrences, list_trigger_occurrences_async = _list_trigger_occurrences
test_trigger, test_trigger_async = _test_trigger
# Their names begin like those of tests: pytest would call them wherever they are imported.
test_trigger.__test__ = False  # type: ignore[attr-defined]
test_trigger_async.__test__ = False  # type: ignore[attr-defined]

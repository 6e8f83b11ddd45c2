"""The tasks that only read, blocking and (``…_async``) for asyncio. None is cached: a cached answer would be old."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prefect.cache_policies import NO_CACHE

from ..api.instants import format_instant
from ..api.models import Instance, StageRun
from ..http_hook import OrchestrationHttpHook
from .credentials import FACE, OrchestrationCredentials, settings_of
from .mapping import credentials_task
from .runs import instance_id_of
from .tasks import async_hook, named


@credentials_task(name="get-instance", task_run_name=named("get-instance"), cache_policy=NO_CACHE)
def get_instance(credentials: OrchestrationCredentials | str, instance_id: str | Mapping[str, Any]) -> dict[str, Any]:
    """Read an instance.

    Returns:
        ``{"instance_id", "workflow_id", "state", "error", "created_at", "terminated_at", "stages"}``, instants as
        RFC 3339 texts.

    Raises:
        NotFoundError: there is no such instance.
    """
    found = instance_id_of(instance_id)
    with OrchestrationHttpHook(settings_of(credentials), face=FACE) as hook:
        return _instance(hook.get_instance(found))


@credentials_task(name="get-instance", task_run_name=named("get-instance"), cache_policy=NO_CACHE)
async def get_instance_async(
    credentials: OrchestrationCredentials | str, instance_id: str | Mapping[str, Any]
) -> dict[str, Any]:
    """As ``get_instance``, for asyncio."""
    found = instance_id_of(instance_id)
    async with await async_hook(credentials) as hook:
        return _instance(await hook.get_instance(found))


@credentials_task(name="list-instances", task_run_name=named("list-instances"), cache_policy=NO_CACHE)
def list_instances(
    credentials: OrchestrationCredentials | str, workflow_id: str | None = None, running: bool | None = None
) -> list[dict[str, Any]]:
    """Instances, of one workflow or all, running ones only or (``running=False``) ended ones; as ``get_instance`` gives
    them, their stages not included by every server."""
    with OrchestrationHttpHook(settings_of(credentials), face=FACE) as hook:
        return [_instance(row) for row in hook.list_instances(workflow_id, running)]


@credentials_task(name="list-instances", task_run_name=named("list-instances"), cache_policy=NO_CACHE)
async def list_instances_async(
    credentials: OrchestrationCredentials | str, workflow_id: str | None = None, running: bool | None = None
) -> list[dict[str, Any]]:
    """As ``list_instances``, for asyncio."""
    async with await async_hook(credentials) as hook:
        return [_instance(row) for row in await hook.list_instances(workflow_id, running)]


@credentials_task(name="get-instance-history", task_run_name=named("get-history"), cache_policy=NO_CACHE)
def get_instance_history(
    credentials: OrchestrationCredentials | str, instance_id: str | Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The stages whose work was launched.

    Returns:
        A list of ``{"stage", "name", "input", "error", "terminated", "started_at", "terminated_at"}``. Numbers of an
        input beyond 2**53 may have lost digits on the server.

    Raises:
        NotFoundError: there is no such instance, or the engine no longer keeps its history.
    """
    found = instance_id_of(instance_id)
    with OrchestrationHttpHook(settings_of(credentials), face=FACE) as hook:
        return _history(hook.get_instance_history(found))


@credentials_task(name="get-instance-history", task_run_name=named("get-history"), cache_policy=NO_CACHE)
async def get_instance_history_async(
    credentials: OrchestrationCredentials | str, instance_id: str | Mapping[str, Any]
) -> list[dict[str, Any]]:
    """As ``get_instance_history``, for asyncio."""
    found = instance_id_of(instance_id)
    async with await async_hook(credentials) as hook:
        return _history(await hook.get_instance_history(found))


def _instance(instance: Instance) -> dict[str, Any]:
    return {
        "instance_id": instance.id,
        "workflow_id": instance.workflow_id,
        "state": instance.state,
        "error": instance.failure,
        "created_at": format_instant(instance.created_at),
        "terminated_at": format_instant(instance.terminated_at) if instance.terminated_at is not None else None,
        "stages": [
            {
                "stage": row.stage,
                "error": row.error,
                "started_at": format_instant(row.started_at),
                "terminated_at": format_instant(row.terminated_at) if row.terminated_at is not None else None,
            }
            for row in instance.status
        ],
    }


def _history(stages: Sequence[StageRun]) -> list[dict[str, Any]]:
    return [
        {
            "stage": number,
            "name": run.name,
            "input": dict(run.input),
            "error": run.error,
            "terminated": run.terminated,
            "started_at": format_instant(run.started_at),
            "terminated_at": format_instant(run.terminated_at) if run.terminated_at is not None else None,
        }
        for number, run in enumerate(stages)
    ]

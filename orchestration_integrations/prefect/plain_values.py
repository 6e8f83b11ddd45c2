"""What the server told, as small plain values that JSON can hold. Instants are RFC 3339 texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from ..api.instants import format_instant
from ..api.models import ActivityRun, Instance, Occurrence, StageRun, Trigger, Workflow

T = TypeVar("T")


def each(shown: Callable[[T], dict[str, Any]]) -> Callable[[Sequence[T]], list[dict[str, Any]]]:
    """For a list of what ``shown`` takes."""

    def rows(answer: Sequence[T]) -> list[dict[str, Any]]:
        return [shown(one) for one in answer]

    return rows


def workflow_row(workflow: Workflow) -> dict[str, Any]:
    """A workflow without its stages."""
    return {
        "workflow_id": workflow.id,
        "name": workflow.name,
        "created_at": format_instant(workflow.created_at),
        "updated_at": format_instant(workflow.updated_at),
        "deleted_at": _instant_or_none(workflow.deleted_at),
    }


def workflow_with_stages(workflow: Workflow) -> dict[str, Any]:
    """A workflow."""
    return {**workflow_row(workflow), "stages": _plain(list(workflow.stages))}


def instance_row(instance: Instance) -> dict[str, Any]:
    """An instance with the rows of its stages."""
    return {
        "instance_id": instance.id,
        "workflow_id": instance.workflow_id,
        "state": instance.state,
        "error": instance.failure,
        "created_at": format_instant(instance.created_at),
        "terminated_at": _instant_or_none(instance.terminated_at),
        "stages": [
            {
                "stage": row.stage,
                "error": row.error,
                "started_at": format_instant(row.started_at),
                "terminated_at": _instant_or_none(row.terminated_at),
            }
            for row in instance.status
        ],
    }


def history_rows(stages: Sequence[StageRun]) -> list[dict[str, Any]]:
    """The history of an instance."""
    return [
        {
            "stage": number,
            "name": run.name,
            "input": _plain(run.input),
            "error": run.error,
            "terminated": run.terminated,
            "started_at": format_instant(run.started_at),
            "terminated_at": _instant_or_none(run.terminated_at),
        }
        for number, run in enumerate(stages)
    ]


def activity_row(activity: ActivityRun) -> dict[str, Any]:
    """A call that a stage made."""
    return {
        "name": activity.name,
        "input": _plain(activity.input),
        "output": _plain(activity.output),
        "error": activity.error,
        "terminated": activity.terminated,
        "started_at": format_instant(activity.started_at),
        "terminated_at": _instant_or_none(activity.terminated_at),
        "last_failure": activity.last_failure,
        "attempt": activity.attempt,
        "next_execution": _instant_or_none(activity.next_execution),
    }


def trigger_row(trigger: Trigger) -> dict[str, Any]:
    """A trigger."""
    return {
        "trigger_id": trigger.id,
        "event": trigger.event,
        "workflow_id": trigger.workflow_id,
        "filter": trigger.filter,
        "variables": _plain(trigger.variables),
        "created_at": format_instant(trigger.created_at),
    }


def occurrence_row(occurrence: Occurrence) -> dict[str, Any]:
    """A firing of a trigger."""
    return {
        "trigger_id": occurrence.trigger_id,
        "instance_id": occurrence.instance_id,
        "date": format_instant(occurrence.date),
        "event": _plain(occurrence.event),
        "error": occurrence.error,
    }


def plain_mapping(answer: Any) -> dict[str, Any]:
    """An answer that is shown as it is."""
    shown: dict[str, Any] = _plain(answer)
    return shown


def _instant_or_none(instant: datetime | None) -> str | None:
    return format_instant(instant) if instant is not None else None


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value)

"""What a person may do through the page. Each is a procedure of the hook, so that it says what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..api.errors import AmbiguousRunError, EventNotDeliveredError, OrchestrationError, ValidationError
from ..api.models import Workflow
from ..http_hook import AsyncOrchestrationHttpHook
from ..procedures.events import refusal_of
from ..procedures.gate import checkpoints_of
from ..procedures.verdicts import cancel_verdict
from ..procedures.wording import cancel_summary

EVENT_SECONDS = 10.0
"""Seconds for sending an event and seeing its stage end."""


class ActionRefused(Exception):
    """The page does not do that; the text says why, and what to do instead."""


async def send_event(hook: AsyncOrchestrationHttpHook, instance_id: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Send an event to the stage that listens for it.

    Args:
        asked: ``name`` of the event; ``stage``, the server's number of the stage that is meant, or none.

    Raises:
        ActionRefused: the event opens a gate or a checkpoint.
        OrchestrationError: as ``send_event_when_ready``.
    """
    name, stage = asked.get("name"), asked.get("stage")
    if not isinstance(name, str) or not name:
        raise ValidationError("name: give the name of the event", path="name")
    if stage is not None and (not isinstance(stage, int) or isinstance(stage, bool)):
        raise ValidationError("stage: must be a whole number from 0", path="stage")
    refusal = refusal_of(name)
    if refusal:
        raise ActionRefused(refusal)
    instance = await hook.send_event_when_ready(instance_id, name, stage=stage, timeout=EVENT_SECONDS)
    return {"text": f"The event “{name}” was sent, and its stage has ended.", "state": instance.state}


async def cancel(hook: AsyncOrchestrationHttpHook, instance_id: str) -> dict[str, Any]:
    """Cancel an instance, and say what came of it."""
    outcome = await hook.cancel(instance_id)
    verdict = cancel_verdict(outcome)
    text = f"{verdict.text[0].upper()}{verdict.text[1:]}."
    return {**cancel_summary(instance_id, outcome), "text": text, "sure": verdict.sure}


async def run(hook: AsyncOrchestrationHttpHook, workflow: Workflow, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Start a run, or find the one that its key already has.

    Args:
        asked: ``variables`` by name, texts; ``runKey``.

    Raises:
        ActionRefused: the workflow has checkpoints, which nobody would let the run pass.
        OrchestrationError: as ``start``.
    """
    variables, key = asked.get("variables", {}), asked.get("runKey")
    if not isinstance(variables, Mapping) or not all(isinstance(value, str) for value in variables.values()):
        raise ValidationError("variables: must be texts by name", path="variables")
    if not isinstance(key, str) or not key.strip():
        raise ValidationError("runKey: give the run a key; the same key again finds the same run", path="runKey")
    if checkpoints_of(workflow.stages):
        raise ActionRefused(
            "this workflow has checkpoints: a run waits at each until its owner lets it pass, and a page that may be "
            "closed is no owner. Start it with run_once, Airflow, Prefect or the command `run`"
        )
    instance = await hook.start(workflow.id, dict(variables), run_key=key)
    return {"id": instance.id, "state": instance.state, "text": "It was started, or found by its key."}


def refused(error: Exception) -> tuple[int, dict[str, Any]]:
    """Status and JSON body for what an action, or a reading, raised."""
    kind = type(error).__name__
    body: dict[str, Any] = {"error": kind, "message": str(error)}
    if isinstance(error, ActionRefused):
        return 409, body
    path = getattr(error, "path", None)
    if path is not None:
        body["path"] = path
    if isinstance(error, AmbiguousRunError):
        body["candidates"] = list(error.candidates)
    if isinstance(error, EventNotDeliveredError):
        body["reason"] = error.reason
    statuses = {
        "ValidationError": 400,
        "NotFoundError": 404,
        "KeyReusedError": 409,
        "EventNotDeliveredError": 409,
        "AmbiguousRunError": 409,
        "AmbiguousSubmitError": 409,
    }
    return statuses.get(kind, 502 if isinstance(error, OrchestrationError) else 500), body

"""What a person may do through the page. Each is a procedure of the hook, so that it says what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..api.errors import (
    AmbiguousRunError,
    EventNotDeliveredError,
    OrchestrationError,
    ValidationError,
    is_gateways_404,
    retold,
)
from ..api.models import Workflow
from ..http_hook import AsyncOrchestrationHttpHook
from ..ownership.keys import checked_run_key
from ..procedures.events import refusal_of
from ..procedures.gate import checkpoints_of, is_gate
from ..procedures.verdicts import cancel_verdict, see_how_it_ends
from ..procedures.wording import cancel_summary
from .fresh_keys import FreshKeys
from .problems import problem_text

EVENT_SECONDS = 10.0
"""Seconds for sending an event and seeing its stage end."""


class ActionRefused(Exception):
    """The page does not do that; the text says why, and what to do instead."""


async def send_event(hook: AsyncOrchestrationHttpHook, instance_id: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Send an event to the stage that was on screen when somebody decided to send it.

    Args:
        asked: ``name`` of the event; ``stage``, the server's number of the stage that waited for it then.

    Raises:
        ActionRefused: the event opens a gate or a checkpoint, or the run does not stand at that stage any more.
        OrchestrationError: as ``send_event_when_ready``.
    """
    name, stage = asked.get("name"), asked.get("stage")
    if not isinstance(name, str) or not name:
        raise ValidationError("name: give the name of the event", path="name")
    refusal = refusal_of(name)
    if refusal:
        raise ActionRefused(refusal)
    if not isinstance(stage, int) or isinstance(stage, bool) or stage < 0:
        raise ValidationError("stage: give the server's number of the stage that waits for it, from 0", path="stage")
    await _stands_there(hook, instance_id, name, stage)
    instance = await hook.send_event_when_ready(instance_id, name, stage=stage, timeout=EVENT_SECONDS)
    return {"text": f"The event “{name}” was sent, and its stage has ended.", "state": instance.state}


async def _stands_there(hook: AsyncOrchestrationHttpHook, instance_id: str, name: str, stage: int) -> None:
    """Whether a run still waits where it was seen to wait. Afterwards ``stage`` alone keeps the event from another."""
    instance = await hook.get_instance(instance_id)
    if instance.terminated:
        raise ActionRefused(f"nothing was sent: the run has ended ({instance.state})")
    latest = max((row.stage for row in instance.status), default=-1)
    history = await hook.get_instance_history(instance_id) if latest == stage else ()
    run = history[stage] if len(history) > stage else None
    if latest == stage and run is not None and not run.terminated and run.input.get("event") == name:
        return
    raise ActionRefused(
        f"nothing was sent: the run does not wait for “{name}” at stage {stage} of the server's count any more; "
        "look at where it stands now"
    )


async def cancel(hook: AsyncOrchestrationHttpHook, instance_id: str) -> dict[str, Any]:
    """Cancel an instance, and say what came of it.

    Raises:
        OrchestrationError: as ``cancel``; where the instance may exist all the same, the text says so.
    """
    try:
        outcome = await hook.cancel(instance_id)
    except OrchestrationError as error:
        if not error.run_may_exist:
            raise
        raise retold(
            error,
            f"{error}. All the same it may exist, still run and move money: {see_how_it_ends(instance_id)}",
        ) from error
    verdict = cancel_verdict(outcome, instance_id)
    text = f"{verdict.text[0].upper()}{verdict.text[1:]}."
    return {**cancel_summary(instance_id, outcome), "text": text, "sure": verdict.sure}


async def run(
    hook: AsyncOrchestrationHttpHook, workflow: Workflow, asked: Mapping[str, Any], fresh_keys: FreshKeys
) -> dict[str, Any]:
    """Start a run, or find the one that its key already has.

    Args:
        asked: ``variables`` by name, texts; ``runKey``.
        fresh_keys: the keys of which it is known that nobody used them.

    Raises:
        ActionRefused: the workflow has checkpoints, which nobody would let the run pass.
        OrchestrationError: as ``start``.
    """
    variables, key = asked.get("variables", {}), asked.get("runKey")
    if not isinstance(variables, Mapping) or not all(isinstance(value, str) for value in variables.values()):
        raise ValidationError("variables: must be texts by name", path="variables")
    if not isinstance(key, str) or not key.strip():
        raise ValidationError("runKey: give the run a key; the same key again finds the same run", path="runKey")
    checked_run_key(key)
    if checkpoints_of(workflow.stages):
        raise ActionRefused(
            "this workflow has checkpoints: a run waits at each until its owner lets it pass, and a page that may be "
            "closed is no owner. Start it with run_once, Airflow, Prefect or the command `run`"
        )
    gated = bool(workflow.stages) and is_gate(workflow.stages[0])
    first = fresh_keys.use(workflow.id, key) and not gated
    instance = await hook.start(workflow.id, dict(variables), run_key=key, first_attempt=first)
    return {"id": instance.id, "state": instance.state, "text": "It was started, or found by its key."}


def refused(error: Exception) -> tuple[int, dict[str, Any]]:
    """Status and JSON body for what an action, or a reading, raised.

    A 404 is a denial to whoever gets it. So it is passed on only where the server denies what was asked for: not
    where a gateway answered in its place, nor where the run may exist all the same, which ``runMayExist`` tells.
    """
    kind = type(error).__name__
    if isinstance(error, ActionRefused):
        return 409, {"error": kind, "message": str(error)}
    body: dict[str, Any] = {"error": kind, "message": problem_text(error)}
    if isinstance(error, OrchestrationError) and error.run_may_exist:
        body["runMayExist"] = True
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
    if kind == "NotFoundError" and (is_gateways_404(error) or "runMayExist" in body):
        return 502, body
    return statuses.get(kind, 502 if isinstance(error, OrchestrationError) else 500), body

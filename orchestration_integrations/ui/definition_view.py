"""A workflow as the page shows it: its stages in words, and the variables that a run of it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ..api.definitions import placeholders
from ..api.models import Workflow
from ..procedures.gate import checkpoints_of, is_gate, own_number, own_stages
from ..procedures.variables import KEY_VARIABLE
from ..procedures.wording import KINDS
from .money import payment_text


class StageText(msgspec.Struct, frozen=True):
    """What a stage is.

    Attributes:
        role: ``gate``, ``checkpoint`` or ``stage``.
        kind: ``send``, ``delay``, ``wait_event``, ``update``, or one that this version does not know.
        title: of the stage, as messages name it: ``stage 1 (send)``.
        text: what it does, in words.
        own: its number in the user's definition; None for a gate or checkpoint.
    """

    role: str
    kind: str
    title: str
    text: str
    own: int | None


def stage_texts(stages: Sequence[Mapping[str, Any]]) -> list[StageText]:
    """The stages of a workflow, in words."""
    checkpoints = checkpoints_of(stages)
    found = []
    for number, stage in enumerate(stages):
        kind = next(iter(stage), "unknown")
        if number in checkpoints:
            title = f"Checkpoint before stage {checkpoints[number]}"
            found.append(StageText("checkpoint", kind, title, "its owner is asked whether it may go on", None))
        elif number == 0 and is_gate(stage):
            found.append(StageText("gate", kind, "Gate", "its owner lets it go, once it is on record", None))
        else:
            own = own_number(stages, number)
            title = f"Stage {number if own is None else own} · {kind}"
            found.append(StageText("stage", kind, title, body_text(kind, stage.get(kind)), own))
    return found


def unknown_stage(number: int, run_name: str) -> StageText:
    """A stage whose definition is not known: the engine's name for it has to do."""
    kind = KINDS.get(run_name, run_name or "unknown")
    return StageText("stage", kind, f"Stage {number} · {kind}", "", number)


def body_text(kind: str, body: object) -> str:
    """What a stage does, in words."""
    if not isinstance(body, Mapping):
        return ""
    if kind == "send":
        return payment_text(body)
    if kind == "delay":
        return f"until {body['until']}" if body.get("until") else f"for {body.get('duration', '?')}"
    if kind == "wait_event":
        return f"for the event “{body.get('event', '?')}”"
    if kind == "update":
        account = body.get("account")
        return f"metadata of {account.get('id', '?')}" if isinstance(account, Mapping) else ""
    return msgspec.json.encode(body).decode()


def workflow_summary(workflow: Workflow) -> dict[str, Any]:
    """One row of the list of workflows."""
    return {
        "id": workflow.id,
        "name": workflow.name,
        "stages": len(own_stages(workflow.stages)),
        "gate": bool(workflow.stages) and is_gate(workflow.stages[0]),
        "checkpoints": len(checkpoints_of(workflow.stages)),
        "createdAt": workflow.created_at,
        "deletedAt": workflow.deleted_at,
    }


def workflow_view(workflow: Workflow) -> dict[str, Any]:
    """All that the page of a workflow shows."""
    own = own_stages(workflow.stages)
    fields: dict[str, list[str]] = {}
    for path, name in placeholders(own):
        if name != KEY_VARIABLE:  # a start fills it in
            fields.setdefault(name, []).append(path)
    return {
        **workflow_summary(workflow),
        "timeline": [msgspec.structs.asdict(one) for one in stage_texts(workflow.stages)],
        "variables": [{"name": name, "paths": paths} for name, paths in fields.items()],
    }

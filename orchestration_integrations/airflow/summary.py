"""What a task returns and logs of a run: small plain dicts and single lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..api.models import Instance, Moved, StageEvent

MOST_TRANSACTIONS = 100
"""Transactions that a result names; ``transactions_left_out`` counts the rest."""
KINDS = {"RunSend": "send", "RunDelay": "delay", "RunWaitEvent": "wait_event", "RunUpdate": "update"}
"""How a user's definition calls the kinds of stage that the server names."""
_FIELDS = ("stages_completed", "transactions", "maybe_repeated")


def moved_summary(moved: Moved | None) -> dict[str, Any]:
    """What had moved, as JSON values."""
    transactions = () if moved is None else moved.transactions
    told = [
        {"stage": one.stage, "id": one.id, "ledger": one.ledger, "maybe_repeated": one.maybe_repeated}
        for one in transactions[:MOST_TRANSACTIONS]
    ]
    found: dict[str, Any] = {
        "stages_completed": 0 if moved is None else moved.stages_completed,
        "transactions": told,
        "maybe_repeated": any(one.maybe_repeated for one in transactions),
    }
    if len(transactions) > MOST_TRANSACTIONS:
        found["transactions_left_out"] = len(transactions) - MOST_TRANSACTIONS
    if moved is not None and not moved.complete:
        found["complete"] = False
    return found


def run_summary(instance: Instance, moved: Moved | Mapping[str, Any] | None) -> dict[str, Any]:
    """What a run task returns."""
    told = dict(moved) if isinstance(moved, Mapping) else moved_summary(moved)
    return {"instance_id": instance.id, "workflow_id": instance.workflow_id, "state": instance.state, **told}


def told_moved(result: Any, instance_id: str) -> Mapping[str, Any] | None:
    """What a trigger's event tells of the transactions of this instance; None where it tells nothing usable."""
    if not isinstance(result, Mapping) or result.get("instance_id") != instance_id:
        return None
    if not all(name in result for name in _FIELDS):
        return None
    names = (*_FIELDS, "transactions_left_out", "complete")
    return {name: result[name] for name in names if name in result}


def stage_line(event: StageEvent) -> str:
    """One log line for what happened to a stage; empty for the gate, which is no stage of the user's."""
    if event.own_stage is None:
        return ""
    kind = KINDS.get(event.name or "", event.name)
    name = f" ({kind})" if kind else ""
    head = f"instance {event.instance_id}: stage {event.own_stage}{name}"
    if event.kind == "begun":
        return f"{head} has begun"
    if event.kind == "ended":
        return f"{head} has ended" + (f" with an error: {event.detail}" if event.detail else "")
    if event.kind == "listening":
        return f"{head} waits for the event {event.detail!r}"
    return f"{head} does not get on: {event.detail}"

"""What every face says of runs, stages and cancels: one wording for errors, logs and results.

A result is a small plain dict, so that Airflow's XCom and every serializer of Prefect take it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..api.models import ActivityRun, CancelOutcome, Instance, Moved, StageEvent, Transaction
from .gate import checkpoints_of, is_own_event, own_number, own_stages
from .moved import NOTHING_READ

MAY_HAVE_MOVED = "that money may have moved, check the ledger"
UNREAD_PAYMENT = "whether a payment is under way could not be read"
"""Where a history is missing: what was not read is never \"none\"."""
MOST_TRANSACTIONS = 100
"""Transactions that a result names; ``transactions_left_out`` counts the rest."""
KINDS = {"RunSend": "send", "RunDelay": "delay", "RunWaitEvent": "wait_event", "RunUpdate": "update"}
"""How a user's definition calls the kinds of stage that the server names."""


def stage_line(event: StageEvent) -> str:
    """One log line for what happened to a stage; empty for the gate, which is no stage of the user's."""
    if event.checkpoint is not None:
        text = _checkpoint_text(event)
        return f"instance {event.instance_id}: {text}" if text else ""
    if event.own_stage is None:
        return ""
    return f"instance {event.instance_id}: {stage_text(event)}"


def stage_text(event: StageEvent) -> str:
    """What happened to a stage, without the instance."""
    kind = KINDS.get(event.name or "", event.name)
    theirs = event.stage if event.kind == "listening" else None
    head = stage_named(event.own_stage, kind, theirs)
    if event.kind == "begun":
        return f"{head} has begun"
    if event.kind == "ended":
        return f"{head} has ended" + (f" with an error: {event.detail}" if event.detail else "")
    if event.kind == "listening" and is_own_event(event.detail or ""):
        return f"{head} waits to be opened by whoever has the run key"  # its definition could not be read
    if event.kind == "listening":
        return f"{head} waits for the event {event.detail!r}"
    return f"{head} is failing: {event.detail}"


def stage_named(number: int | None, kind: str | None, theirs: int | None = None) -> str:
    """A stage as its user counts them, and as ``stage=`` of calls, tasks and sensors counts them where that differs.

    Args:
        number: the user's.
        kind: of the stage; None where it is not known.
        theirs: the server's number, which counts the gate and checkpoints too; None: it is of no use here.
    """
    counted = f"{theirs} on the server" if theirs is not None and theirs != number else None
    more = "; ".join(part for part in (kind, counted) if part)
    return f"stage {number} ({more})" if more else f"stage {number}"


def stage_counted(theirs: int, stages: Sequence[Mapping[str, Any]] | None, kind: str | None = None) -> str:
    """The stage that the server calls ``theirs``, so that nobody takes it for another stage of the definition.

    Args:
        theirs: the server's number.
        stages: of the workflow; None where they are not known: then the number is marked as the server's.
        kind: of the stage; None: it is named only where the numbers differ.
    """
    if stages is None:
        return f"stage {theirs} on the server" + (f" ({kind})" if kind else "")
    if theirs >= len(stages):  # beyond the last
        return stage_named(theirs - len(stages) + len(own_stages(stages)), kind, theirs)
    number = own_number(stages, theirs)
    if number is None:
        behind = checkpoints_of(stages).get(theirs)
        return f"the {'gate' if behind is None else f'checkpoint before stage {behind}'} ({theirs} on the server)"
    if kind is None and number != theirs:
        kind = next(iter(stages[theirs]), None)
    return stage_named(number, kind, theirs)


def _checkpoint_text(event: StageEvent) -> str:
    """What happened at a checkpoint; empty for its begin, which says no more than that it listens."""
    where = f"the checkpoint before stage {event.checkpoint}"
    if event.kind == "ended":
        return f"{where} has ended with an error: {event.detail}" if event.detail else f"{where} was passed"
    return f"it stands at {where}" if event.kind == "listening" else ""


def moved_summary(moved: Moved | None, *, postings: bool = False) -> dict[str, Any]:
    """What a run has moved: ``stages_completed``, ``transactions``, ``maybe_repeated`` (check the ledger).

    ``transactions_left_out`` and ``complete`` stand in it only where some are missing. What nobody read is None, never
    "none": ``stages_completed`` where nothing was read, ``maybe_repeated`` where not all was, without a sign of it.

    Args:
        moved: as it was read; None where nothing was.
        postings: name the postings of each transaction too.
    """
    found = NOTHING_READ if moved is None else moved
    transactions = found.transactions
    unseen = False if found.complete else None
    summary: dict[str, Any] = {
        "stages_completed": None if found == NOTHING_READ else found.stages_completed,
        "transactions": [_transaction(each, postings) for each in transactions[:MOST_TRANSACTIONS]],
        "maybe_repeated": any(each.maybe_repeated for each in transactions) or unseen,
    }
    if len(transactions) > MOST_TRANSACTIONS:
        summary["transactions_left_out"] = len(transactions) - MOST_TRANSACTIONS
    if not found.complete:
        summary["complete"] = False
    return summary


def _transaction(transaction: Transaction, postings: bool) -> dict[str, Any]:
    named: dict[str, Any] = {"stage": transaction.stage, "id": transaction.id, "ledger": transaction.ledger}
    if postings:
        named["postings"] = [dict(posting) for posting in transaction.postings]
    return {**named, "maybe_repeated": transaction.maybe_repeated}


def run_summary(
    instance: Instance, moved: Moved | Mapping[str, Any] | None, *, postings: bool = False
) -> dict[str, Any]:
    """What a run task returns: ``instance_id``, ``workflow_id``, ``state``, and what the run has moved.

    Args:
        instance: the run.
        moved: what was read of it, or what an earlier process has made of that.
        postings: as of ``moved_summary``.
    """
    told = dict(moved) if isinstance(moved, Mapping) else moved_summary(moved, postings=postings)
    return {"instance_id": instance.id, "workflow_id": instance.workflow_id, "state": instance.state, **told}


def cancel_summary(instance_id: str, outcome: CancelOutcome) -> dict[str, Any]:
    """What a cancel task returns: ``instance_id``, ``status``, ``state``, ``abort_answer``, ``in_flight``, moved."""
    return {
        "instance_id": instance_id,
        "status": outcome.status,
        "state": None if outcome.instance is None else outcome.instance.state,
        "abort_answer": outcome.abort_answer,
        "in_flight": [activity.name for activity in outcome.in_flight],
        **moved_summary(outcome.moved),
    }


def in_flight_text(activities: Sequence[ActivityRun]) -> str:
    """What it means that payments had not ended when their run did; empty where there are none."""
    return f"{names_of(activities)} was under way then: {MAY_HAVE_MOVED}" if activities else ""


def difference_text(differs: Sequence[str]) -> str:
    """What is not the same between two payments under one key."""
    named = [name for name in differs if name.startswith("variables.")]
    parts = []
    if "workflow" in differs:
        parts.append("the workflow differs")
    if named:
        parts.append(f"{', '.join(named)} differ{'s' if len(named) == 1 else ''}")
    if "content" in differs:
        parts.append("its variables differ")
    return " and ".join(parts) or "its content differs"


def names_of(activities: Sequence[ActivityRun]) -> str:
    """What was called, without repeats."""
    return ", ".join(sorted({activity.name for activity in activities}))

"""What --json says of each thing: plain objects, whose fields docs/cli.md lists. People see a choice of the fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from ..api.errors import OrchestrationError, OwnerGoneError, WaitTimeoutError
from ..api.models import (
    ActivityRun,
    CancelOutcome,
    Instance,
    Moved,
    Occurrence,
    StageEvent,
    StageRun,
    StageStatus,
    StandingRun,
    Trigger,
    Workflow,
)
from ..ownership.observing import end_named
from ..procedures.ends import own_completed
from ..procedures.gate import gate_of, own_number
from ..procedures.moved import NOTHING_READ
from ..procedures.verdicts import cancel_verdict, end_verdict
from ..procedures.wording import KINDS, cancel_summary, moved_summary, stage_line
from .as_options import as_options
from .exit_codes import OK, SUCCEEDED, UNKNOWN, status_of_verdict

if TYPE_CHECKING:
    from ..ownership.record import RunRecord

Object = dict[str, Any]
Stages = Sequence[Mapping[str, Any]]


def instant(value: datetime | None) -> str | None:
    """An instant in UTC."""
    return None if value is None else value.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")


def workflow(one: Workflow, **more: Any) -> Object:
    """A stored definition."""
    return {
        "type": "workflow",
        "id": one.id,
        "name": one.name or None,
        "created_at": instant(one.created_at),
        "deleted_at": instant(one.deleted_at),
        "stages": [dict(stage) for stage in one.stages],
        **more,
    }


def unread_workflow(workflow_id: str) -> Object:
    """A workflow of which nothing but its id is known."""
    unknown = dict.fromkeys(("name", "created_at", "deleted_at"))
    return {"type": "workflow", "id": workflow_id, **unknown, "stages": []}


def instance(one: Instance, **more: Any) -> Object:
    """A run of a workflow."""
    return {
        "type": "instance",
        "id": one.id,
        "workflow_id": one.workflow_id,
        "state": one.state,
        "created_at": instant(one.created_at),
        "ended_at": instant(one.terminated_at),
        "error": one.failure,
        **more,
    }


def stage(instance_id: str, number: int, row: StageStatus | None, run: StageRun | None, stages: Stages) -> Object:
    """A stage of a run: its row, and what the engine shows of it."""
    ended = row.terminated_at if row is not None else run.terminated_at if run is not None else None
    error = (row.error if row is not None else None) or (run.error if run is not None else None)
    known: Any = next(iter(stages[number]), None) if number < len(stages) else None
    begun = row.started_at if row is not None else run.started_at if run is not None else None
    return {
        "type": "stage",
        "instance_id": instance_id,
        "stage": number,
        "own_stage": own_number(stages, number) if number < len(stages) else None,
        "kind": known or (KINDS.get(run.name, run.name) if run is not None else None),
        "state": "failed" if error else "running" if ended is None else "ended",
        "begun_at": instant(begun),
        "ended_at": instant(ended),
        "error": error,
        "input": None if run is None else dict(run.input),
    }


def activity(instance_id: str, number: int, one: ActivityRun) -> Object:
    """A call that a stage made to another service."""
    return {
        "type": "activity",
        "instance_id": instance_id,
        "stage": number,
        "name": one.name,
        "state": "failed" if one.error else "ended" if one.terminated else "running",
        "attempt": one.attempt,
        "begun_at": instant(one.started_at),
        "ended_at": instant(one.terminated_at),
        "next_try_at": instant(one.next_execution),
        "last_failure": one.last_failure,
        "error": one.error,
        "input": dict(one.input),
        "output": None if one.output is None else dict(one.output),
    }


def stage_event(one: StageEvent) -> Object:
    """What a wait tells of a stage. ``text`` is empty for the gate, which is no stage of the user's."""
    return {
        "type": "stage_event",
        "instance_id": one.instance_id,
        "stage": one.stage,
        "own_stage": one.own_stage,
        "checkpoint": one.checkpoint,
        "kind": one.kind,
        "name": one.name,
        "detail": one.detail,
        "text": stage_line(one),
    }


def moved(one: Moved | None, stages: Stages | None) -> Object:
    """What a run has moved. Its stages are counted as the user wrote them, without the gate and checkpoints.

    Args:
        one: as it was read; None where nothing was: then ``stages_completed`` is None, and ``complete`` is False.
        stages: of its workflow; None where they are not known.
    """
    told = {"complete": one is not None, "transactions_left_out": 0, **moved_summary(one, postings=True)}
    told["stages_completed"] = own_completed(told["stages_completed"], stages)
    if one is None or one == NOTHING_READ:
        told["stages_completed"] = None
    for each in told["transactions"]:
        each["own_stage"] = own_number(stages, each["stage"]) if stages is not None else None
    return told


def moved_by_error(error: OrchestrationError, stages_of: Callable[[str], Stages | None]) -> Object:
    """What the run of an error has moved, where the error is the outcome of a run, or a run may exist; else nothing.

    Args:
        stages_of: the stages of a workflow, by its id; None where they are not known.
    """
    if isinstance(error, OwnerGoneError) and error.outcome is None:
        return moved(None, None) if error.instance_id is not None else {}
    outcome: Any = error.outcome if isinstance(error, OwnerGoneError) else error
    if getattr(outcome, "moved", None) is None:
        return moved(None, None) if error.run_may_exist else {}
    run: Instance | None = outcome.instance
    return moved(outcome.moved, None if run is None else stages_of(run.workflow_id))


def end(instance_id: str, result: object, stages: Stages | None, **more: Any) -> Object:
    """What a wait for a run came to: ``RunResult``, or the error that the wait raised."""
    verdict = end_verdict(result)
    known = getattr(result, "instance", None)
    cancel = result.outcome if isinstance(result, WaitTimeoutError) else None
    return {
        "type": "end",
        "instance_id": instance_id,
        "workflow_id": None if known is None else known.workflow_id,
        "state": verdict.word,
        "reason": as_options(verdict.text),
        "outcome": None if cancel is None else cancel.status,
        "exit_status": status_of_verdict(verdict),
        **moved(getattr(result, "moved", None), stages),
        **more,
    }


def cancelled(instance_id: str, outcome: CancelOutcome, stages: Stages | None) -> Object:
    """What a cancel came to."""
    verdict = cancel_verdict(outcome)
    return {
        "type": "cancel",
        **cancel_summary(instance_id, outcome),
        **moved(outcome.moved, stages),
        "checkpoint": outcome.checkpoint,
        "at_gate": outcome.at_gate,
        "text": verdict.text,
        "exit_status": status_of_verdict(verdict),
    }


def ended_on_record(one: RunRecord, trouble: str) -> Object:
    """What a cancel came to whose run has ended, as its record says, where the server could not be read."""
    status = {"succeeded": SUCCEEDED, "never_started": OK}.get(one.end or "", UNKNOWN)
    unread = "" if status == OK else f"; what it has moved could not be read ({trouble})"
    ledger = ": check the ledger" if status == UNKNOWN else ""
    return {
        "type": "cancel",
        "instance_id": one.instance_id,
        "status": "already_ended",
        "state": one.end,
        "abort_answer": None,
        "in_flight": [],
        **moved(None, None),
        "checkpoint": None,
        "at_gate": False,
        "text": f"it had already ended: it is on record as {end_named(one)}{unread}{ledger}",
        "exit_status": status,
    }


def trigger(one: Trigger, **more: Any) -> Object:
    """What runs a workflow on an event."""
    return {
        "type": "trigger",
        "id": one.id,
        "event": one.event,
        "workflow_id": one.workflow_id,
        "filter": one.filter,
        "variables": dict(one.variables),
        "created_at": instant(one.created_at),
        **more,
    }


def occurrence(one: Occurrence) -> Object:
    """One firing of a trigger."""
    return {
        "type": "occurrence",
        "trigger_id": one.trigger_id,
        "instance_id": one.instance_id,
        "date": instant(one.date),
        "error": one.error,
        "event": dict(one.event),
    }


def standing(one: StandingRun, stopped: str) -> Object:
    """A run that stands still and moves nothing."""
    where = "at its gate" if one.checkpoint is None else f"at the checkpoint before stage {one.checkpoint}"
    return {
        "type": "standing",
        "instance_id": one.instance.id,
        "workflow_id": one.instance.workflow_id,
        "run_key": one.run_key,
        "created_at": instant(one.instance.created_at),
        "where": where,
        "checkpoint": one.checkpoint,
        "since": instant(one.since),
        "stopped": stopped,
    }


def record(one: RunRecord) -> Object:
    """What is on record of a key."""
    return {"type": "record", **one.to_json()}


def unreadable_record(key: str, why: str) -> Object:
    """A record that cannot be read, in the list of those that can."""
    return {
        "type": "record",
        "key": key,
        "state": "unreadable",
        "shown_state": "unreadable",
        "end": None,
        "instance_id": None,
        "created": None,
        "reason": why,
    }


def gate_key(history: Sequence[StageRun]) -> str | None:
    """The run key that the gate of a run shows; None where it has no gate, or the engine does not show it."""
    gate = gate_of(history)
    return None if gate is None or not gate.key else gate.key

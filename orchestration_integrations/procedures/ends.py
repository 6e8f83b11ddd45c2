"""What the end of a wait means: a result, or the error that says how it ended and what had moved by then.

Messages name stages as the user wrote them: the gate and checkpoints are no stages of the user's, so they are not
counted. The attributes of errors and models keep the server's numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from ..api.calls import get_workflow
from ..api.errors import (
    InstanceCancelledError,
    InstanceFailedError,
    InstanceStuckError,
    NotFoundError,
    OrchestrationError,
    StateUnknownError,
    WaitTimeoutError,
    retold,
    summary,
)
from ..api.instants import format_instant
from ..api.models import ActivityRun, Instance, Moved, RunResult, StageRun
from .effects import Now, Procedure, do
from .gate import checkpoint_of, checkpoints_of, own_number, own_stages, parsed_event, stands_at_gate
from .listing import Versions
from .moved import NOTHING_READ, Reading, all_ended_well, read_moved
from .wording import UNREAD_PAYMENT, in_flight_text, stage_counted

MOVED_SECONDS = 5.0
"""Seconds for reading what had moved, where no deadline is near."""

AT_GATE = " at its gate"
AT_CHECKPOINT = "at the checkpoint before stage"
UNREAD = "what it stands at could not be read"

Stages = Sequence[Mapping[str, Any]]
EndKind = Literal[
    "succeeded", "failed", "cancelled", "never_started", "attempts", "held", "unsure", "timeout", "unknown", "error"
]


class End(msgspec.Struct, frozen=True):
    """The wait is over. ``unknown``: reads failed for too long; ``unsure``: it stands at a checkpoint, and nobody knows
    whether it will go on; ``error``: ``error`` itself is the answer. ``limit``: names the time limit that was over."""

    kind: EndKind
    instance: Instance | None
    detail: str = ""
    error: OrchestrationError | None = None
    limit: str = ""


class Known(msgspec.Struct, frozen=True):
    """What a wait knew of its instance when it ended.

    Attributes:
        instance_id: whom it waited for.
        retried: stages whose activity was seen under retry.
        definition: the stages of the workflow; None where they were not read.
    """

    instance_id: str
    retried: frozenset[int]
    definition: Stages | None


def conclude(end: End, known: Known, versions: Versions, now: Now, latest: float | None) -> Procedure[RunResult]:
    """Read what had moved, then return the result or raise what the end means.

    Args:
        latest: monotonic seconds by which all is over, None for no limit.
    """
    instance = end.instance
    reading = Reading(NOTHING_READ)
    if instance is not None and end.kind not in ("error", "never_started"):
        over = now.monotonic() + MOVED_SECONDS
        if latest is not None:
            over = min(over, latest)
        stages = known.definition
        if all_ended_well(instance):  # then the definition, read once for all runs, spares the history of each
            stages = yield from definition_or_none(instance, known.definition, versions, now, over)
        reading = yield from read_moved(instance, versions, now, over, known.retried, stages)
    elif end.kind == "never_started":
        reading = Reading(Moved(stages_completed=0, transactions=(), complete=True))
    if end.kind == "succeeded" and instance is not None:
        return RunResult(instance=instance, moved=reading.moved)
    stages = yield from definition_or_none(instance, known.definition, versions, now, latest)
    if end.kind == "timeout" and end.error is None and instance is not None:
        stands = standing_text(instance, reading, stages)
        if end.detail and AT_CHECKPOINT in stands:
            stands = f"{stands}: {end.detail}"
        end = msgspec.structs.replace(end, detail=stands or end.detail or UNREAD)
    raise error_of(end, known.instance_id, reading, stages)


def standing_text(instance: Instance, reading: Reading, stages: Stages | None) -> str:
    """What a run that goes on stands at; empty where the histories do not tell."""
    failing = [activity for activity in reading.in_flight if activity.attempt > 1 or activity.last_failure is not None]
    if failing:
        return describe_failing(failing[-1])
    if not instance.status:
        return "no stage of it has begun"
    number = len(reading.stages) - 1
    if number < 0 or reading.stages[number].terminated:
        return ""
    run = reading.stages[number]
    where = _where(number, stages) if stages is not None else _seen_at(reading.stages)
    if run.name == "RunWaitEvent" and AT_CHECKPOINT in where:
        return f"it stands{where}"
    if run.name == "RunWaitEvent" and where == AT_GATE:
        return _at_gate(run.input.get("event"))
    if run.name == "RunWaitEvent":
        return f"it waits for event {run.input.get('event')!r}{where}"
    if run.name == "RunDelay":
        until = run.input.get("until") or run.input.get("duration")
        return f"it waits out a delay ({until}){where}" if until else f"it waits out a delay{where}"
    under_way = ", ".join(sorted({activity.name for activity in reading.in_flight}))
    return f"{under_way or run.name} is under way{where}"


def _seen_at(history: Sequence[StageRun]) -> str:
    """Where a run stands, by its history alone: no message quotes what opens a gate, whether or not its definition
    could be read."""
    behind = checkpoint_of(history)
    if behind is not None:
        return f" {AT_CHECKPOINT} {behind}"
    return AT_GATE if stands_at_gate(history) else _where(len(history) - 1, None)


def _at_gate(event: object) -> str:
    """What a run at its gate waits for: to be released by whoever has its key."""
    gate = parsed_event(event)
    stands = "it stands at its gate, where nothing of it has begun"
    if gate is None:
        return (
            f"{stands}: it was submitted without a run key, so nothing will release it; begin it by start or run_once"
        )
    return f"{stands}: start, run_once or a run task with run key {gate.key} releases it"


def describe_failing(activity: ActivityRun) -> str:
    """``CreateTransaction failed 3 times (attempt 4, next try …): account had insufficient funds``.

    The server counts the attempt that is under way or comes next.
    """
    following = f", next try {format_instant(activity.next_execution)}" if activity.next_execution is not None else ""
    reason = activity.last_failure or "no reason is given"
    failures = activity.attempt - 1
    often = {1: " once"}.get(failures, f" {failures} times") if failures > 0 else ""
    return f"{activity.name} failed{often} (attempt {activity.attempt}{following}): {reason}"


def definition_or_none(
    instance: Instance | None, known: Stages | None, versions: Versions, now: Now, latest: float | None
) -> Procedure[Stages | None]:
    """The stages of the workflow, which name those of the instance; None where they cannot be read at once."""
    if known is not None or instance is None or not instance.status:
        return known
    over = now.monotonic() + MOVED_SECONDS
    try:
        return (yield from definition_of(instance.workflow_id, versions, over if latest is None else min(over, latest)))
    except OrchestrationError:
        return None


def definition_of(workflow_id: str, versions: Versions, until: float | None) -> Procedure[Stages]:
    """The stages of a workflow; read once for each hook, since they never change.

    Args:
        until: monotonic seconds by which the reading is over, None for no limit.

    Raises:
        OrchestrationError: they could not be read.
    """
    known = versions.remembered.definition(workflow_id)
    if known is not None:
        return known
    workflow = yield from do(get_workflow(workflow_id, versions.plain), until)
    versions.remembered.note_workflow(workflow)
    return workflow.stages


def error_of(end: End, instance_id: str, reading: Reading, stages: Stages | None = None) -> OrchestrationError:
    """The error that an end of a wait, other than success, means. Its message names the instance.

    Args:
        stages: of the workflow; None where they are not known.
    """
    instance, moved = end.instance, reading.moved
    about: dict[str, Any] = {"instance_id": instance_id, "instance": instance, "moved": moved}
    tail = f" after {moved_text(moved, stages)}"
    open_payment = ended_amid(instance, reading) if instance is not None and instance.terminated else ""
    if open_payment:
        tail += f"; {open_payment}"
    if end.kind == "error" and end.error is not None:
        if isinstance(end.error, NotFoundError):
            known = "was there before: is this another server?" if instance is not None else "is unknown to the server"
            return NotFoundError(
                f"instance {instance_id} {known} ({summary(end.error)})",
                status_code=end.error.status_code,
                error_code=end.error.error_code,
            )
        return retold(end.error, f"the state of instance {instance_id} may not be read: {end.error}")
    if end.kind == "failed":
        return InstanceFailedError(
            f"instance {instance_id} failed{_where_failed(instance, stages)}: {end.detail}{tail}", **about
        )
    if end.kind == "cancelled":
        cancelled = f"instance {instance_id} was cancelled{tail}"
        advice = "" if open_payment else "; to run anew, use another run key"
        return InstanceCancelledError(f"{cancelled}{advice}", told=cancelled, **about)
    if end.kind == "never_started":
        return InstanceStuckError(
            f"instance {instance_id} has a row but no run behind it: it never started and never will",
            reason="never_started",
            **about,
        )
    if end.kind == "attempts":
        stuck = f"instance {instance_id} is stuck{tail}: {end.detail}"
        return InstanceStuckError(
            f"{stuck}; it goes on trying until it is cancelled", reason="attempts", told=stuck, **about
        )
    if end.kind == "held":
        return InstanceStuckError(
            f"the wait for instance {instance_id} goes no further{tail}: {end.detail}", reason="held", **about
        )
    if end.kind == "timeout":
        why = f" ({end.detail})" if end.detail else ""
        state = "could not be read" if end.error is not None else "was still running"
        limit = f" of {end.limit}" if end.limit else ""
        late = f"instance {instance_id} {state} at the deadline{limit}{why}{tail}"
        timeout = WaitTimeoutError(f"{late}; it was not cancelled", told=late, **about)
        timeout.seen_running = end.error is None and instance is not None
        return timeout
    if end.kind == "unsure":
        return StateUnknownError(f"whether instance {instance_id} goes on is unknown{tail}: {end.detail}", **about)
    return StateUnknownError(
        f"the state of instance {instance_id} is unknown: it could not be read for too long ({end.detail})", **about
    )


def ended_amid(instance: Instance, reading: Reading) -> str:
    """What it means that payments had not ended when their run did, or that this could not be read; else empty."""
    if instance.state == "succeeded":
        return ""
    unread = "" if reading.moved.complete else f"{UNREAD_PAYMENT}: check the ledger"
    return in_flight_text(reading.in_flight) or unread


def _where_failed(instance: Instance | None, stages: Stages | None) -> str:
    failed = next((row.stage for row in instance.status if row.error), None) if instance is not None else None
    return "" if failed is None else _where(failed, stages)


def _where(stage: int, stages: Stages | None) -> str:
    """`` in stage 1 (send)``: the user's number and kind of the stage that the server calls ``stage``."""
    if stages is None or not 0 <= stage < len(stages):
        return f" in {stage_counted(stage, None)}"
    if own_number(stages, stage) is not None:
        return f" in {stage_counted(stage, stages, next(iter(stages[stage]), 'unknown'))}"
    behind = checkpoints_of(stages).get(stage)
    return AT_GATE if behind is None else f" {AT_CHECKPOINT} {behind}"


def own_completed(completed: int, stages: Stages | None) -> int:
    """How many of the user's stages ended well.

    Args:
        completed: how many did by the server's count, which has the gate and checkpoints in it.
        stages: of the workflow; None where they are not known: then the server's count is all that there is.
    """
    return completed if stages is None else len(own_stages(stages[:completed]))


def moved_text(moved: Moved, stages: Stages | None) -> str:
    """How many stages of a run ended well and how many transactions it made.

    Args:
        stages: of its workflow; None where they are not known.
    """
    completed = own_completed(moved.stages_completed, stages)
    ended = f"{completed} completed stage{'' if completed == 1 else 's'}"
    made = f"{len(moved.transactions)} transaction{'' if len(moved.transactions) == 1 else 's'}"
    more = "" if moved.complete else ", perhaps more (not all that it did is known)"
    twice = sum(transaction.maybe_repeated for transaction in moved.transactions)
    ledger = f"; {twice} of them may have been made twice: check the ledger" if twice else ""
    return f"{ended} and {made}{more}{ledger}"

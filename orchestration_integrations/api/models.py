"""What the server and the procedures tell, as frozen types. What was received of a row stays in its ``raw``.

How they are read from an answer stands in ``decoding``. All of them can be pickled, copied, and encoded by msgspec.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec

State = Literal["running", "succeeded", "failed", "cancelled"]
CANCELED = "canceled"


class ServerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of ``GET /_info``."""

    version: str
    raw: Mapping[str, Any] = msgspec.field(default_factory=dict)


class Workflow(msgspec.Struct, frozen=True, kw_only=True):
    """A stored definition."""

    id: str
    name: str
    stages: Sequence[Mapping[str, Any]]
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    raw: Mapping[str, Any]


class StageStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The row of a stage that has begun. ``stage`` counts from 0; ``error`` is None when fine."""

    stage: int
    started_at: datetime
    terminated_at: datetime | None
    error: str | None
    raw: Mapping[str, Any]


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """A run of a workflow. ``status`` holds the rows of its stages by stage; empty where the server sent none."""

    id: str
    workflow_id: str
    created_at: datetime
    updated_at: datetime
    terminated: bool
    terminated_at: datetime | None
    error: str | None
    status: Sequence[StageStatus]
    raw: Mapping[str, Any]

    @property
    def state(self) -> State:
        """The one classifier of the end of a run.

        Success is ``terminated`` being true with no error, neither of the instance nor of a stage;
        whatever else is terminated has failed, or was cancelled if the error is ``canceled``.
        """
        if not self.terminated:
            return "running"
        error = self.failure
        if error is None:
            return "succeeded"
        return "cancelled" if error == CANCELED else "failed"

    @property
    def failure(self) -> str | None:
        """The error of the instance, or else the first of its stages; None if there is none."""
        if self.error:
            return self.error
        return next((row.error for row in self.status if row.error), None)


class StageRun(msgspec.Struct, frozen=True, kw_only=True):
    """A stage whose work was launched. Numbers in ``input`` may have lost digits on the server: treat as lossy."""

    name: str
    input: Mapping[str, Any]
    error: str | None
    terminated: bool
    started_at: datetime
    terminated_at: datetime | None
    raw: Mapping[str, Any]


class ActivityRun(msgspec.Struct, frozen=True, kw_only=True):
    """A call that a stage made to another service. ``attempt`` counts from 1; an ended activity always says 1."""

    name: str
    input: Mapping[str, Any]
    output: Mapping[str, Any] | None
    error: str | None
    terminated: bool
    started_at: datetime
    terminated_at: datetime | None
    last_failure: str | None
    attempt: int
    next_execution: datetime | None
    raw: Mapping[str, Any]


class Trigger(msgspec.Struct, frozen=True, kw_only=True):
    """Runs a workflow when an event arrives on the server's broker."""

    id: str
    event: str
    workflow_id: str
    filter: str | None
    variables: Mapping[str, str]
    created_at: datetime
    raw: Mapping[str, Any]


class Occurrence(msgspec.Struct, frozen=True, kw_only=True):
    """One firing of a trigger. ``instance_id`` is None where no run was started."""

    trigger_id: str
    instance_id: str | None
    date: datetime
    event: Mapping[str, Any]
    error: str | None
    raw: Mapping[str, Any]


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """One page of a list. ``next``: the cursor of the following page, None on the last; ``cursored``: v2's shape."""

    rows: Sequence[Any]
    next: str | None = None
    cursored: bool = False


def distinct(rows: Iterable[Any]) -> tuple[Any, ...]:
    """Rows of a list, the first of each: pages repeat rows. Rows that nothing tells apart are all kept."""
    seen: set[Hashable] = set()
    kept = []
    for row in rows:
        identity = _identity(row)
        if identity is not None and identity in seen:
            continue
        seen.add(identity)
        kept.append(row)
    return tuple(kept)


def _identity(row: Workflow | Instance | Trigger | Occurrence) -> Hashable:
    if not isinstance(row, Occurrence):
        return row.id or None
    # An occurrence has no id. Its instance is embedded in it and changes, so the row as a whole does not tell it.
    return row.trigger_id, str(row.raw.get("date")), row.instance_id, msgspec.json.encode(row.event, order="sorted")


# ---- what procedures tell ----------------------------------------------------------------------------


class Transaction(msgspec.Struct, frozen=True, kw_only=True):
    """A movement that a stage made. ``maybe_repeated``: the server may have made it twice; check the ledger."""

    stage: int
    id: str | None
    ledger: str | None
    postings: Sequence[Mapping[str, Any]]
    maybe_repeated: bool


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """What a run had done: read from its histories, best effort.

    ``complete`` is False where some history could not be read, so that there may be more.
    """

    stages_completed: int
    transactions: Sequence[Transaction]
    complete: bool


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """A wait that ended in success."""

    instance: Instance
    moved: Moved


class CancelOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What is true after a cancel. See ``cancel`` of the hook.

    ``checkpoint``: the instance was last seen standing at the checkpoint before this stage, by the number that the
    stage has in the definition as its user wrote it; None where it was not seen at one. ``at_gate``: it was last seen
    standing at its gate, where it moves nothing until a start with its run key releases it.
    """

    status: Literal["cancelled", "already_ended", "never_started", "held", "not_confirmed"]
    instance: Instance | None
    abort_answer: str
    moved: Moved
    in_flight: Sequence[ActivityRun]
    checkpoint: int | None = None
    at_gate: bool = False


class StandingRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run that stands still and moves nothing.

    Attributes:
        instance: the run.
        run_key: its key, as its gate says it.
        checkpoint: the stage behind the checkpoint at which it stands, as its user counts; None where it stands at its
            gate.
        since: when it came there, by the server's clock; None where the server does not say.
    """

    instance: Instance
    run_key: str
    checkpoint: int | None
    since: datetime | None


class EnsuredWorkflow(msgspec.Struct, frozen=True, kw_only=True):
    """The workflow that serves a definition, and whether this call created it."""

    workflow: Workflow
    created: bool


class EnsuredTrigger(msgspec.Struct, frozen=True, kw_only=True):
    """The trigger that runs a workflow on an event, and whether this call created it.

    ``warnings``: what its runs would do that is hardly meant, in sentences, as they were logged.
    """

    trigger: Trigger
    created: bool
    warnings: Sequence[str] = ()


class StageEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What a wait tells of a stage.

    ``name`` is ``RunSend``, ``RunDelay`` …, None while unknown. ``detail``: the event listened for,
    the last failure with attempt and next try, or the error that the stage ended with. ``stage`` is the server's
    number; ``own_stage`` the one that the stage has in the definition as its user wrote it: None for the gate and for a
    checkpoint, the server's number where the definition could not be read. ``checkpoint``: for a checkpoint, the
    ``own_stage`` of the stage behind it; else None.
    """

    instance_id: str
    stage: int
    kind: Literal["begun", "ended", "failing", "listening"]
    name: str | None
    detail: str | None
    own_stage: int | None = None
    checkpoint: int | None = None

"""What the server tells, as frozen types that keep what was received in ``raw``.

Reading is lenient, row by row: only the id of an instance and its ``terminated`` are load-bearing,
everything else may be missing, null or of a later library's shape. What cannot be read stays in
``raw`` and is logged once per answer; it never costs the rest of the answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal, TypeVar

import msgspec

from .errors import ServerError
from .instants import UNKNOWN_INSTANT, parse_instant

logger = logging.getLogger("orchestration_integrations.api")

T = TypeVar("T")
State = Literal["running", "succeeded", "failed", "cancelled"]
CANCELED = "canceled"
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class ServerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of ``GET /_info``."""

    version: str
    raw: Mapping[str, Any] = _NOTHING


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
    """What is true after a cancel. See ``cancel`` of the hook."""

    status: Literal["cancelled", "already_ended", "never_started", "held", "not_confirmed"]
    instance: Instance | None
    abort_answer: str
    moved: Moved
    in_flight: Sequence[ActivityRun]


class EnsuredWorkflow(msgspec.Struct, frozen=True, kw_only=True):
    """The workflow that serves a definition, and whether this call created it."""

    workflow: Workflow
    created: bool


class StageEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What a wait tells of a stage.

    ``name`` is ``RunSend``, ``RunDelay`` …, None while unknown. ``detail``: the event listened for,
    the last failure with attempt and next try, or the error that the stage ended with. ``stage`` is the server's
    number; ``own_stage`` the one that the stage has in the definition as its user wrote it: None for the gate, the
    server's number where the definition could not be read.
    """

    instance_id: str
    stage: int
    kind: Literal["begun", "ended", "failing", "listening"]
    name: str | None
    detail: str | None
    own_stage: int | None = None


# ---- from JSON -------------------------------------------------------------------------------------


class _Odd:
    """Collects what could not be read in one answer, to be told once."""

    __slots__ = ("where",)

    def __init__(self) -> None:
        self.where: list[str] = []

    def tell(self, what: str) -> None:
        if self.where:
            shown = ", ".join(self.where[:5]) + (" …" if len(self.where) > 5 else "")
            logger.warning("%s: could not read %s; kept as received in raw", what, shown)


def _text(raw: Mapping[str, Any], key: str, odd: _Odd) -> str:
    value = raw.get(key)
    if isinstance(value, str):
        return value
    if value is not None:
        odd.where.append(key)
        return str(value)
    return ""


def _instant(raw: Mapping[str, Any], key: str, odd: _Odd) -> datetime:
    parsed = parse_instant(raw.get(key))
    if parsed is None:
        odd.where.append(key)
        return UNKNOWN_INSTANT
    return parsed


def _instant_or_none(raw: Mapping[str, Any], key: str, odd: _Odd) -> datetime | None:
    value = raw.get(key)
    if value is None:
        return None
    parsed = parse_instant(value)
    if parsed is None:
        odd.where.append(key)
        return UNKNOWN_INSTANT
    return parsed


def _error(raw: Mapping[str, Any], key: str = "error") -> str | None:
    value = raw.get(key)
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _mapping(raw: Mapping[str, Any], key: str, odd: _Odd) -> Mapping[str, Any]:
    value = raw.get(key)
    if isinstance(value, dict):
        return value
    if value is not None:
        odd.where.append(key)
    return _NOTHING


def _rows(value: Any, odd: _Odd, where: str) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list):
        odd.where.append(where)
        return []
    rows = [row for row in value if isinstance(row, dict)]
    if len(rows) != len(value):
        odd.where.append(f"{where}[]")
    return rows


def _workflow(raw: Mapping[str, Any], odd: _Odd) -> Workflow:
    config = _mapping(raw, "config", odd)
    return Workflow(
        id=_text(raw, "id", odd),
        name=_text(config, "name", odd),
        stages=tuple(_rows(config.get("stages"), odd, "config.stages")),
        created_at=_instant(raw, "createdAt", odd),
        updated_at=_instant(raw, "updatedAt", odd),
        deleted_at=_instant_or_none(raw, "deletedAt", odd),
        raw=raw,
    )


def _stage_status(raw: Mapping[str, Any], odd: _Odd) -> StageStatus:
    stage = raw.get("stage")
    if not isinstance(stage, int) or isinstance(stage, bool):
        odd.where.append("status.stage")
        stage = -1
    return StageStatus(
        stage=stage,
        started_at=_instant(raw, "startedAt", odd),
        terminated_at=_instant_or_none(raw, "terminatedAt", odd),
        error=_error(raw),
        raw=raw,
    )


def _by_stage(row: StageStatus) -> tuple[int, datetime]:
    return row.stage, row.started_at


def _instance(raw: Mapping[str, Any], odd: _Odd) -> Instance:
    status = raw.get("status")
    rows: tuple[StageStatus, ...] = ()
    if status is not None:
        rows = tuple(sorted([_stage_status(row, odd) for row in _rows(status, odd, "status")], key=_by_stage))
    return Instance(
        id=_text(raw, "id", odd),
        workflow_id=_text(raw, "workflowID", odd),
        created_at=_instant(raw, "createdAt", odd),
        updated_at=_instant(raw, "updatedAt", odd),
        terminated=raw.get("terminated") is True,
        terminated_at=_instant_or_none(raw, "terminatedAt", odd),
        error=_error(raw),
        status=rows,
        raw=raw,
    )


def _stage_run(raw: Mapping[str, Any], odd: _Odd) -> StageRun:
    return StageRun(
        name=_text(raw, "name", odd),
        input=_mapping(raw, "input", odd),
        error=_error(raw),
        terminated=raw.get("terminated") is True,
        started_at=_instant(raw, "startedAt", odd),
        terminated_at=_instant_or_none(raw, "terminatedAt", odd),
        raw=raw,
    )


def _activity_run(raw: Mapping[str, Any], odd: _Odd) -> ActivityRun:
    attempt = raw.get("attempt")
    if not isinstance(attempt, int) or isinstance(attempt, bool):
        if attempt is not None:
            odd.where.append("attempt")
        attempt = 1
    return ActivityRun(
        name=_text(raw, "name", odd),
        input=_mapping(raw, "input", odd),
        output=_mapping(raw, "output", odd) if raw.get("output") is not None else None,
        error=_error(raw),
        terminated=raw.get("terminated") is True,
        started_at=_instant(raw, "startedAt", odd),
        terminated_at=_instant_or_none(raw, "terminatedAt", odd),
        last_failure=_error(raw, "lastFailure"),
        attempt=attempt,
        next_execution=_instant_or_none(raw, "nextExecution", odd),
        raw=raw,
    )


def _trigger(raw: Mapping[str, Any], odd: _Odd) -> Trigger:
    return Trigger(
        id=_text(raw, "id", odd),
        event=_text(raw, "event", odd),
        workflow_id=_text(raw, "workflowID", odd),
        filter=raw["filter"] if isinstance(raw.get("filter"), str) and raw["filter"] else None,
        variables=_mapping(raw, "vars", odd),
        created_at=_instant(raw, "createdAt", odd),
        raw=raw,
    )


def _occurrence(raw: Mapping[str, Any], odd: _Odd) -> Occurrence:
    instance = raw.get("workflowInstanceID")
    return Occurrence(
        trigger_id=_text(raw, "triggerID", odd),
        instance_id=instance if isinstance(instance, str) and instance else None,
        date=_instant(raw, "date", odd),
        event=_mapping(raw, "event", odd),
        error=_error(raw),
        raw=raw,
    )


def _decode(body: bytes, what: str) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise unreadable(what) from None


def unreadable(what: str) -> ServerError:
    """The error for a successful status with a body that says nothing usable."""
    return ServerError(
        f"{what}: the body of the answer could not be read", status_code=200, server_message="unreadable"
    )


def _data(body: bytes, what: str) -> Any:
    decoded = _decode(body, what)
    if not isinstance(decoded, dict) or "data" not in decoded:
        raise unreadable(what)
    return decoded["data"]


def decode_nothing(body: bytes, what: str) -> None:
    """Of a call whose answer has no body."""


def decode_info(body: bytes, what: str) -> ServerInfo:
    """``/_info``, which has no ``data`` wrapper."""
    decoded = _decode(body, what)
    if isinstance(decoded, dict) and isinstance(decoded.get("data"), dict):
        decoded = decoded["data"]
    if not isinstance(decoded, dict):
        raise unreadable(what)
    return ServerInfo(version=str(decoded.get("version", "")), raw=decoded)


def _one(read: Callable[[Mapping[str, Any], _Odd], T], body: bytes, what: str) -> T:
    """One row; its id must be readable."""
    data = _data(body, what)
    if not isinstance(data, dict) or not isinstance(data.get("id"), str) or not data["id"]:
        raise unreadable(what)
    odd = _Odd()
    row = read(data, odd)
    odd.tell(what)
    return row


def _many(read: Callable[[Mapping[str, Any], _Odd], T], body: bytes, what: str) -> tuple[T, ...]:
    """All rows that are objects, however odd."""
    odd = _Odd()
    rows = tuple([read(row, odd) for row in _rows(_data(body, what), odd, "data")])
    odd.tell(what)
    return rows


def decode_instance(body: bytes, what: str) -> Instance:
    """One instance; its id and ``terminated`` must be readable."""
    instance = _one(_instance, body, what)
    if not isinstance(instance.raw.get("terminated"), bool):
        raise unreadable(what)
    return instance


def decode_workflow(body: bytes, what: str) -> Workflow:
    """One workflow; its id must be readable."""
    return _one(_workflow, body, what)


def decode_trigger(body: bytes, what: str) -> Trigger:
    """One trigger; its id must be readable."""
    return _one(_trigger, body, what)


def decode_stage_runs(body: bytes, what: str) -> tuple[StageRun, ...]:
    """The history of an instance."""
    return _many(_stage_run, body, what)


def decode_activity_runs(body: bytes, what: str) -> tuple[ActivityRun, ...]:
    """The history of a stage."""
    return _many(_activity_run, body, what)


def decode_object(body: bytes, what: str) -> Mapping[str, Any]:
    """A JSON object under ``data``, as received."""
    data = _data(body, what)
    if not isinstance(data, dict):
        raise unreadable(what)
    return data


_READERS: Mapping[str, Any] = {
    "workflow": _workflow,
    "instance": _instance,
    "trigger": _trigger,
    "occurrence": _occurrence,
}
Listed = Literal["workflow", "instance", "trigger", "occurrence"]


def decode_page(kind: Listed, body: bytes, what: str) -> Page:
    """A list in either shape: v1's bare array (one page, no cursor) or v2's cursor.

    Rows that are no objects are skipped and told; rows with odd fields are kept.
    """
    decoded = _decode(body, what)
    if not isinstance(decoded, dict):
        raise unreadable(what)
    following: str | None = None
    cursor = decoded.get("cursor")
    if isinstance(cursor, dict):
        rows = cursor.get("data")
        if isinstance(cursor.get("next"), str) and cursor["next"]:
            following = cursor["next"]
    elif "data" in decoded:
        rows = decoded["data"]
    else:
        raise unreadable(what)
    odd = _Odd()
    read = _READERS[kind]
    page = Page(
        rows=tuple([read(row, odd) for row in _rows(rows, odd, "data")]), next=following, cursored="cursor" in decoded
    )
    odd.tell(what)
    return page


def distinct(rows: Iterable[Any]) -> tuple[Any, ...]:
    """Rows by id, the first of each; rows without a readable id are all kept."""
    seen: set[str] = set()
    kept = []
    for row in rows:
        if row.id and row.id in seen:
            continue
        seen.add(row.id)
        kept.append(row)
    return tuple(kept)

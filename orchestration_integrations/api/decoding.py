"""From the body of a successful answer to a model, or to the error that says that it is no answer.

An answer counts only if it answers what was asked. So a decoder is told what that was (the id, the workflow, the
version and the page) and refuses an answer about anything else: a proxy's sign-in page, a cache, or a connection that
two processes share can answer 200 with a body that was meant for another question.

**Strict** is the reading of whatever decides: one instance, one workflow, and each list or history that a procedure
looks through. There a field that the decision rests on must be readable in every row, since a row that was passed
over may be the run that has already paid.

**Lenient** is the reading of a list or a history that is only shown to a user. There an odd row costs only itself:
it stays in ``raw``, and one warning for each answer names what could not be read. A list that is no list is an error
there too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypeVar

import msgspec

from .errors import UnreadableAnswerError
from .instants import UNKNOWN_INSTANT, is_no_instant, parse_instant
from .json_text import decoded
from .models import (
    ActivityRun,
    Instance,
    Occurrence,
    Page,
    ServerInfo,
    StageRun,
    StageStatus,
    Trigger,
    Workflow,
)

logger = logging.getLogger("orchestration_integrations.api")

Model = TypeVar("Model")
Raw = Mapping[str, Any]
Listed = Literal["workflow", "instance", "trigger", "occurrence"]

_SHOWN_ODDITIES = 5
_NO_LIST = frozenset({"errorCode", "errorMessage", "hasMore", "next"})
"""Beside the rows these are no part of a list: an error, or a page in a form that no server has."""


# ---- bodies ----------------------------------------------------------------------------------------


def decode_nothing(body: bytes, what: str) -> None:
    """An answer that has no body: 204, or nothing in it. A page of a gateway's is no such answer."""
    if body.strip():
        raise unreadable(what, _looks_like_a_page(body) or "it has a body, where none is expected")


def decode_info(body: bytes, what: str) -> ServerInfo:
    """``/_info``, which has no ``data`` wrapper."""
    answer = json_of(body, what)
    if isinstance(answer, dict) and isinstance(answer.get("data"), dict):
        answer = answer["data"]
    if not isinstance(answer, dict) or not isinstance(answer.get("version"), str):
        raise unreadable(what, "it names no version")
    return ServerInfo(version=answer["version"], raw=answer)


def decode_object(body: bytes, what: str) -> Mapping[str, Any]:
    """A JSON object under ``data``, as received."""
    data = _data(body, what)
    if not isinstance(data, dict):
        raise unreadable(what, "data is no object")
    return data


def decode_instance(
    body: bytes, what: str, *, id: str | None = None, workflow_id: str | None = None, new: bool = False
) -> Instance:
    """One instance, read strictly.

    Args:
        id: of the instance that was asked for; None where the server chooses it.
        workflow_id: of the workflow that was run; None where any will do.
        new: it was made for this very call, so nothing of it can have begun.
    """
    instance = _single(_instance, body, what, id)
    if workflow_id is not None and not is_same_id(instance.workflow_id, workflow_id):
        raise unreadable(what, f"it is about an instance of workflow {instance.workflow_id!r}")
    if new and (instance.terminated or instance.status):
        raise unreadable(what, f"it is about instance {instance.id!r}, which ran before")
    return instance


def decode_workflow(body: bytes, what: str, *, id: str | None = None) -> Workflow:
    """One workflow, read strictly. ``id``: the one that was asked for."""
    return _single(_workflow, body, what, id)


def decode_created_workflow(body: bytes, what: str, *, name: str) -> Workflow:
    """The workflow that was created under ``name``; only its id and name must be readable."""
    workflow = _single(_workflow, body, what, None, strict=False)
    if workflow.name != name:
        raise unreadable(what, f"it is about a workflow of the name {workflow.name!r}")
    return workflow


def decode_trigger(
    body: bytes, what: str, *, id: str | None = None, event: str | None = None, workflow_id: str | None = None
) -> Trigger:
    """One trigger: the one that was asked for by ``id``, or the one that was created with the rest."""
    trigger = _single(_trigger, body, what, id)
    if event is not None and trigger.event != event:
        raise unreadable(what, f"it is about a trigger on {trigger.event!r}")
    if workflow_id is not None and not is_same_id(trigger.workflow_id, workflow_id):
        raise unreadable(what, f"it is about a trigger of workflow {trigger.workflow_id!r}")
    return trigger


def decode_stage_runs(body: bytes, what: str, *, strict: bool = False) -> tuple[StageRun, ...]:
    """The history of an instance."""
    return _several(_stage_run, body, what, strict)


def decode_activity_runs(body: bytes, what: str, *, strict: bool = False) -> tuple[ActivityRun, ...]:
    """The history of a stage."""
    return _several(_activity_run, body, what, strict)


def decode_page(
    kind: Listed,
    body: bytes,
    what: str,
    *,
    strict: bool = False,
    first: bool = True,
    parent_id: str | None = None,
) -> Page:
    """A list in either shape: v1's bare array (one page, no cursor) or v2's cursor.

    Args:
        strict: one row that cannot be read makes the page unreadable.
        first: the first page was asked for.
        parent_id: the workflow of the instances, or the trigger of the occurrences, that were asked for.
    """
    answer = json_of(body, what)
    cursor = answer.get("cursor") if isinstance(answer, dict) else None
    following: str | None = None
    if isinstance(answer, dict) and (_NO_LIST & answer.keys() or ("data" in answer and "cursor" in answer)):
        raise unreadable(what, "it is no list, or a list and something else")
    if isinstance(cursor, dict):
        rows = cursor.get("data")
        following = next_of(cursor, what, first)
    elif isinstance(answer, dict) and "data" in answer:
        rows = answer["data"]
        if not first:
            raise unreadable(what, "it has no cursor")
    else:
        raise unreadable(what, "it is no list")
    if not isinstance(rows, list):
        raise unreadable(what, "its rows are no list")
    oddities = _Oddities()
    read = _READERS[kind]
    models = tuple([read(row, oddities) for row in _objects(rows, oddities, "data")])
    for model in models:
        _check_parent(model, parent_id, what, oddities)
    oddities.settle(what, strict)
    return Page(rows=models, next=following, cursored=isinstance(cursor, dict))


def _check_parent(model: Any, parent_id: str | None, what: str, oddities: _Oddities) -> None:
    """Refuse a filtered list that holds a row of something else.

    Passing over such a row would be too little. It proves that the filter was lost on the way, or that this is the
    answer to another question: what such a list lacks proves nothing then, whatever it holds. So the whole list is
    unreadable, also where it is only shown.
    """
    if parent_id is None:
        return
    of_trigger = isinstance(model, Occurrence)
    parent = model.trigger_id if of_trigger else model.workflow_id
    if not parent:
        oddities.decisive.append("triggerID" if of_trigger else "workflowID")
    elif not is_same_id(parent, parent_id):
        raise unreadable(what, f"it holds a row of {parent!r}, which was not asked for")


def next_of(cursor: Raw, what: str, first: bool) -> str | None:
    """The cursor of the following page; None on the last page."""
    following, previous, more = cursor.get("next"), cursor.get("previous"), cursor.get("hasMore")
    if not all(text is None or isinstance(text, str) for text in (following, previous)):
        raise unreadable(what, "its cursor is no text")
    if not isinstance(more, bool):
        raise unreadable(what, f"hasMore is {more!r}")  # the server says it on each page
    if more and not following:
        raise unreadable(what, "it says that there are more rows (hasMore), and not where (next)")
    if first and previous:
        raise unreadable(what, "it is not the first page, which was asked for")
    return following or None


def json_of(body: bytes, what: str) -> Any:
    """A body as JSON. Raises UnreadableAnswerError where it is none."""
    try:
        return decoded(body)
    except ValueError:
        raise unreadable(what, _looks_like_a_page(body) or "it is no JSON") from None


def _data(body: bytes, what: str) -> Any:
    answer = json_of(body, what)
    if not isinstance(answer, dict) or "data" not in answer:
        raise unreadable(what, "it has no data")
    return answer["data"]


def _looks_like_a_page(body: bytes) -> str:
    is_page = body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")
    return "it is a web page: does a proxy or a sign-in page answer for the server?" if is_page else ""


def unreadable(what: str, why: str) -> UnreadableAnswerError:
    """The error for an answer that is none."""
    return UnreadableAnswerError(
        f"{what}: the answer cannot be read: {why}", status_code=200, server_message=f"unreadable answer: {why}"
    )


def _single(
    read: Callable[[Raw, _Oddities], Model], body: bytes, what: str, id: str | None, *, strict: bool = True
) -> Model:
    data = _data(body, what)
    found = data.get("id") if isinstance(data, dict) else None
    if not isinstance(found, str) or not found:
        raise unreadable(what, "it has no id")
    if id is not None and not is_same_id(found, id):
        raise unreadable(what, f"it is about {found!r}, which was not asked for")
    oddities = _Oddities()
    model = read(data, oddities)
    oddities.settle(what, strict)
    return model


def _several(read: Callable[[Raw, _Oddities], Model], body: bytes, what: str, strict: bool) -> tuple[Model, ...]:
    data = _data(body, what)
    if not isinstance(data, list):
        raise unreadable(what, "its rows are no list")
    oddities = _Oddities()
    models = tuple([read(row, oddities) for row in _objects(data, oddities, "data")])
    oddities.settle(what, strict)
    return models


def is_same_id(found: str, wanted: str) -> bool:
    """Whether two ids name the same thing. UUIDs may be spelled in more than one way; other ids may not."""
    return found == wanted or (_uuid(found) is not None and _uuid(found) == _uuid(wanted))


def _uuid(id: str) -> str | None:
    digits = id.strip("{}").replace("-", "").lower()
    return digits if len(digits) == 32 and not digits.strip("0123456789abcdef") else None


# ---- rows ------------------------------------------------------------------------------------------


class _Oddities:
    """What could not be read in one answer: what only informs, and what a decision may rest on."""

    __slots__ = ("decisive", "informing")

    def __init__(self) -> None:
        self.informing: list[str] = []
        self.decisive: list[str] = []

    def settle(self, what: str, strict: bool) -> None:
        """Raise where a decision rests on what could not be read; else tell of it once."""
        if strict and self.decisive:
            raise unreadable(what, f"{self.decisive[0]} has an unknown form")
        fields = [*self.decisive, *self.informing]
        if fields:
            shown = ", ".join(fields[:_SHOWN_ODDITIES]) + (" …" if len(fields) > _SHOWN_ODDITIES else "")
            logger.warning("%s: could not read %s; kept as received in raw", what, shown)


def _text(raw: Raw, key: str, odd: list[str], *, required: bool = False) -> str:
    value = raw.get(key)
    if isinstance(value, str) and (value or not required):
        return value
    if value is not None or required:
        odd.append(key)
    return "" if value is None else str(value)


def _flag(raw: Raw, key: str, odd: list[str]) -> bool:
    value = raw.get(key)
    if not isinstance(value, bool):
        odd.append(key)
    return value is True


def _instant(raw: Raw, key: str, odd: list[str]) -> datetime:
    parsed = parse_instant(raw.get(key))
    if parsed is None:
        odd.append(key)
        return UNKNOWN_INSTANT
    return parsed


def _instant_or_none(raw: Raw, key: str, odd: list[str]) -> datetime | None:
    value = raw.get(key)
    if value is None or is_no_instant(value):
        return None
    return _instant(raw, key, odd)


def _error(raw: Raw, odd: list[str], key: str = "error") -> str | None:
    value = raw.get(key)
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    if not value:
        odd.append(key)  # false, 0, {}: whether that is an error is anyone's guess
    return msgspec.json.encode(value).decode()


def _mapping(raw: Raw, key: str, odd: list[str], *, required: bool = False) -> Mapping[str, Any]:
    value = raw.get(key)
    if isinstance(value, dict):
        return value
    if value is not None or required:
        odd.append(key)
    return {}


def _objects(rows: Sequence[Any], oddities: _Oddities, where: str) -> list[dict[str, Any]]:
    objects = [row for row in rows if isinstance(row, dict)]
    if len(objects) != len(rows):
        oddities.decisive.append(f"{where}[]")
    return objects


def _rows(raw: Raw, key: str, oddities: _Oddities, where: str) -> list[dict[str, Any]]:
    """Rows within a row. Null is how the server writes no rows."""
    rows = raw.get(key)
    if rows is None:
        return []
    if not isinstance(rows, list):
        oddities.decisive.append(where)
        return []
    return _objects(rows, oddities, where)


def _workflow(raw: Raw, oddities: _Oddities) -> Workflow:
    config = _mapping(raw, "config", oddities.decisive, required=True)
    if "stages" not in config:
        oddities.decisive.append("config.stages")
    return Workflow(
        id=_text(raw, "id", oddities.decisive, required=True),
        name=_text(config, "name", oddities.decisive),
        stages=tuple(_rows(config, "stages", oddities, "config.stages")),
        created_at=_instant(raw, "createdAt", oddities.informing),
        updated_at=_instant(raw, "updatedAt", oddities.informing),
        deleted_at=_instant_or_none(raw, "deletedAt", oddities.decisive),
        raw=raw,
    )


def _stage_status(raw: Raw, oddities: _Oddities, instance_id: str) -> StageStatus:
    stage = raw.get("stage")
    if not isinstance(stage, int) or isinstance(stage, bool) or stage < 0:
        oddities.decisive.append("status.stage")
        stage = -1
    owner = raw.get("instanceID")
    if owner is not None and not (isinstance(owner, str) and is_same_id(owner, instance_id)):
        oddities.decisive.append("status.instanceID")
    return StageStatus(
        stage=stage,
        started_at=_instant(raw, "startedAt", oddities.informing),
        terminated_at=_instant_or_none(raw, "terminatedAt", oddities.decisive),
        error=_error(raw, oddities.decisive),
        raw=raw,
    )


def _by_stage(row: StageStatus) -> tuple[int, datetime]:
    return row.stage, row.started_at


def _instance(raw: Raw, oddities: _Oddities) -> Instance:
    instance_id = _text(raw, "id", oddities.decisive, required=True)
    rows = [_stage_status(row, oddities, instance_id) for row in _rows(raw, "status", oddities, "status")]
    return Instance(
        id=instance_id,
        workflow_id=_text(raw, "workflowID", oddities.decisive),
        created_at=_instant(raw, "createdAt", oddities.informing),
        updated_at=_instant(raw, "updatedAt", oddities.informing),
        terminated=_flag(raw, "terminated", oddities.decisive),
        terminated_at=_instant_or_none(raw, "terminatedAt", oddities.informing),
        error=_error(raw, oddities.decisive),
        status=tuple(sorted(rows, key=_by_stage)),
        raw=raw,
    )


def _stage_run(raw: Raw, oddities: _Oddities) -> StageRun:
    name = _text(raw, "name", oddities.decisive, required=True)
    launched_with = _mapping(raw, "input", oddities.decisive, required=True)
    if name == "RunWaitEvent" and not isinstance(launched_with.get("event"), str):
        oddities.decisive.append("input.event")
    return StageRun(
        name=name,
        input=launched_with,
        error=_error(raw, oddities.decisive),
        terminated=_flag(raw, "terminated", oddities.decisive),
        started_at=_instant(raw, "startedAt", oddities.informing),
        terminated_at=_instant_or_none(raw, "terminatedAt", oddities.informing),
        raw=raw,
    )


def _activity_run(raw: Raw, oddities: _Oddities) -> ActivityRun:
    attempt = raw.get("attempt")
    if not isinstance(attempt, int) or isinstance(attempt, bool):
        if attempt is not None:
            oddities.decisive.append("attempt")
        attempt = 1
    return ActivityRun(
        name=_text(raw, "name", oddities.decisive, required=True),
        input=_mapping(raw, "input", oddities.informing),
        output=_mapping(raw, "output", oddities.informing) if raw.get("output") is not None else None,
        error=_error(raw, oddities.decisive),
        terminated=_flag(raw, "terminated", oddities.decisive),
        started_at=_instant(raw, "startedAt", oddities.informing),
        terminated_at=_instant_or_none(raw, "terminatedAt", oddities.informing),
        last_failure=_error(raw, oddities.informing, "lastFailure"),
        attempt=attempt,
        next_execution=_instant_or_none(raw, "nextExecution", oddities.informing),
        raw=raw,
    )


def _trigger(raw: Raw, oddities: _Oddities) -> Trigger:
    return Trigger(
        id=_text(raw, "id", oddities.decisive, required=True),
        event=_text(raw, "event", oddities.decisive),
        workflow_id=_text(raw, "workflowID", oddities.decisive),
        filter=raw["filter"] if isinstance(raw.get("filter"), str) and raw["filter"] else None,
        variables=_mapping(raw, "vars", oddities.informing),
        created_at=_instant(raw, "createdAt", oddities.informing),
        raw=raw,
    )


def _occurrence(raw: Raw, oddities: _Oddities) -> Occurrence:
    instance = raw.get("workflowInstanceID")
    return Occurrence(
        trigger_id=_text(raw, "triggerID", oddities.decisive),
        instance_id=instance if isinstance(instance, str) and instance else None,
        date=_instant(raw, "date", oddities.informing),
        event=_mapping(raw, "event", oddities.informing),
        error=_error(raw, oddities.informing),
        raw=raw,
    )


_READERS: Mapping[str, Callable[[Raw, _Oddities], Any]] = {
    "workflow": _workflow,
    "instance": _instance,
    "trigger": _trigger,
    "occurrence": _occurrence,
}

"""The list of running instances, read for nothing but their ids: what a poll for many waits costs depends on it.

Being listed means running. Not being listed means nothing, so a row that cannot be read is passed over: it costs its
waiter a read by id.
"""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import urlencode

import msgspec

from .calls import PAGE_SIZE, Call, RetryClass, Version
from .decoding import is_same_id, json_of, next_of, unreadable


class RunningPage(msgspec.Struct, frozen=True):
    """One page of the list.

    Attributes:
        ids: of the instances that run.
        rows: how many rows there are on the page, whatever they say.
        next: the cursor of the following page; None on the last one.
    """

    ids: frozenset[str]
    rows: int
    next: str | None = None


class _Row(msgspec.Struct):
    id: str
    workflowID: str = ""
    terminated: bool = False


class _Cursor(msgspec.Struct):
    data: list[_Row]
    hasMore: Any = None
    next: Any = None
    previous: Any = None


class _Answer(msgspec.Struct):
    data: list[_Row] | msgspec.UnsetType = msgspec.UNSET
    cursor: _Cursor | msgspec.UnsetType = msgspec.UNSET
    errorCode: Any = None


_decoder = msgspec.json.Decoder(_Answer)


def list_running(
    version: Version = "v1", cursor: str | None = None, *, workflow_id: str | None = None
) -> Call[RunningPage]:
    """ListInstances: ``GET /instances?running=true``, one page of it. A cursor replaces all filters."""
    query = {"cursor": cursor} if cursor is not None else {"pageSize": str(PAGE_SIZE), "running": "true"}
    if cursor is None and workflow_id is not None:
        query["workflowID"] = workflow_id
    return Call(
        "list_instances",
        "list of running instances",
        "GET",
        f"{'/v2' if version == 'v2' else ''}/instances",
        RetryClass.READ,
        partial(decode_running, version=version, first=cursor is None, workflow_id=workflow_id),
        query=urlencode(query),
    )


def decode_running(
    body: bytes, what: str, *, version: Version = "v1", first: bool = True, workflow_id: str | None = None
) -> RunningPage:
    """A page in the shape of its version.

    Args:
        first: the first page was asked for.
        workflow_id: whose instances were asked for; None for all.

    Raises:
        UnreadableAnswerError: it is no such page, or holds rows of another workflow.
    """
    try:
        answer = _decoder.decode(body)
    except msgspec.MsgspecError:
        answer = _odd_answer(json_of(body, what))
    if answer.errorCode is not None:
        raise unreadable(what, "it is an error, or a list and an error")
    following = None
    if not isinstance(answer.cursor, msgspec.UnsetType):
        cursor = answer.cursor
        rows = cursor.data
        said = {"next": cursor.next, "previous": cursor.previous, "hasMore": cursor.hasMore}
        following = next_of(said, what, first)
    elif not isinstance(answer.data, msgspec.UnsetType) and version == "v1" and first:
        rows = answer.data
    else:
        raise unreadable(what, "it is no list of this version")
    if workflow_id is not None and not all(is_same_id(row.workflowID, workflow_id) for row in rows if row.workflowID):
        raise unreadable(what, "it holds instances of another workflow")
    return RunningPage(frozenset([row.id for row in rows if not row.terminated]), len(rows), following)


def _odd_answer(answer: Any) -> _Answer:
    """An answer of which some rows cannot be read."""
    if not isinstance(answer, dict):
        return _Answer()
    cursor = answer.get("cursor")
    if isinstance(cursor, dict) and isinstance(cursor.get("data"), list):
        said = {name: cursor.get(name) for name in ("hasMore", "next", "previous")}
        return _Answer(cursor=_Cursor(_readable(cursor["data"]), **said), errorCode=answer.get("errorCode"))
    if isinstance(answer.get("data"), list):
        return _Answer(data=_readable(answer["data"]), errorCode=answer.get("errorCode"))
    return _Answer(errorCode=answer.get("errorCode"))


def _readable(rows: list[Any]) -> list[_Row]:
    found = []
    for row in rows:
        try:
            found.append(msgspec.convert(row, _Row))
        except msgspec.MsgspecError:
            found.append(_Row("", terminated=True))  # it counts as a row, and as nothing else
    return found

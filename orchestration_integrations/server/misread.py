"""Successful answers that are not the answer: what gateways, proxies, crossed connections and odd servers make of one.

The server did what it was asked to. What goes out is, by `how`:

| how | what goes out |
|---|---|
| `object` | the first row of a list where the list belongs (`{}` if there is none) |
| `list` | a list with the object where the object belongs |
| `null` | `{"data": null}` |
| `ids` | `{"data": ["0b5d"]}` |
| `message` | `{"data": {"message": "upstream request timeout"}}` |
| `empty_cursor` | `{"cursor": {}}` |
| `empty_page` | `{"cursor": {"hasMore": true, "data": []}}` |
| `empty` | no body at all |
| `sign_in` | 200 with a proxy's sign-in page |
| `other_id` | the same thing with another id |
| `other_workflow` | an instance of another workflow; in a list, every row is one |
| `no_filter` | a list of instances as if nothing but the page had been asked for: of all workflows, ended or not |
| `no_next` | a page of version 2 that says that there are more, and doesn't say where |
| `bom` | JSON that begins with a byte order mark |
| `zero_time` | `0001-01-01T00:00:00Z` as the end of what has not ended, or was not deleted |

The first nine (`object` and `list` aside) take the place of any success, also of a 204, which becomes a 200 then. The
others change an answer that has what they change; any other one goes out as it is.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .exchange import Reply

if TYPE_CHECKING:
    from collections.abc import Callable

ZERO_TIME = "0001-01-01T00:00:00Z"
BOM = b"\xef\xbb\xbf"
SIGN_IN_PAGE = (
    b"<!doctype html>\n<html><head><title>Sign in</title></head>\n"
    b'<body><form action="/login" method="post"><input name="user"><input name="password" type="password">'
    b"<button>Sign in</button></form></body></html>\n"
)
_IN_PLACE = {
    "null": b'{"data":null}',
    "ids": b'{"data":["0b5d"]}',
    "message": b'{"data":{"message":"upstream request timeout"}}',
    "empty_cursor": b'{"cursor":{}}',
    "empty_page": b'{"cursor":{"hasMore":true,"data":[]}}',
    "empty": b"",
}


def _object(body: dict[str, Any]) -> None:
    page = body.get("cursor", body)
    if isinstance(page.get("data"), list):
        page["data"] = page["data"][0] if page["data"] else {}


def _list(body: dict[str, Any]) -> None:
    if isinstance(body.get("data"), dict):
        body["data"] = [body["data"]]


def _other_id(body: dict[str, Any]) -> None:
    thing = body.get("data")
    if isinstance(thing, dict) and isinstance(thing.get("id"), str):
        thing["id"] = another_id(thing["id"])
        for row in thing.get("status") or ():
            row["instanceID"] = thing["id"]


def _other_workflow(body: dict[str, Any]) -> None:
    for row in _rows(body):
        if isinstance(row.get("workflowID"), str):
            row["workflowID"] = another_id(row["workflowID"])
            if isinstance(row.get("workflow"), dict):
                row["workflow"]["id"] = row["workflowID"]


def _no_next(body: dict[str, Any]) -> None:
    if "cursor" in body:
        body["cursor"]["hasMore"] = True
        body["cursor"].pop("next", None)


def _zero_time(body: dict[str, Any]) -> None:
    for row in _rows(body):
        for thing in (row, *(row.get("status") or ())):
            if "terminatedAt" not in thing and ("terminated" in thing or "stage" in thing):
                thing["terminatedAt"] = ZERO_TIME
            if "deletedAt" in thing and thing["deletedAt"] is None:
                thing["deletedAt"] = ZERO_TIME


_CHANGES: dict[str, Callable[[dict[str, Any]], None]] = {
    "object": _object,
    "list": _list,
    "other_id": _other_id,
    "other_workflow": _other_workflow,
    "no_next": _no_next,
    "zero_time": _zero_time,
}
HOWS = (*_CHANGES, *_IN_PLACE, "sign_in", "no_filter", "bom")
"""All ways in which a success can be misread."""


def another_id(known: str) -> str:
    """An id of the same form that is not this one."""
    return known[:-1] + ("1" if known[-1:] == "0" else "0")


def changed(reply: Reply, what: str) -> Reply:
    """A reply as a fault has it: `hidden`, `unknown_fields`, or one of the ways above. The reply itself where that
    changes nothing."""
    if reply.status < 300:
        return _misread(reply, what)
    return _with_json(reply, _hide) if what == "hidden" else reply


def _misread(reply: Reply, how: str) -> Reply:
    if how == "sign_in":
        return Reply(200, SIGN_IN_PAGE, "text/html; charset=utf-8")
    if how in _IN_PLACE:
        return Reply(200 if reply.status == 204 else reply.status, _IN_PLACE[how], reply.content_type)
    if how == "bom" and reply.body and reply.content_type == "application/json":
        return Reply(reply.status, BOM + reply.body, reply.content_type, reply.headers)
    if how == "unknown_fields":
        return _with_json(reply, _add_unknown)
    if how in _CHANGES:
        return _with_json(reply, _CHANGES[how])
    return reply


def _with_json(reply: Reply, change: Callable[[Any], None]) -> Reply:
    if reply.content_type != "application/json" or not reply.body.startswith(b"{"):
        return reply
    body = json.loads(reply.body)
    change(body)
    if body == json.loads(reply.body):
        return reply
    return Reply(reply.status, json.dumps(body).encode(), reply.content_type, reply.headers)


def _rows(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The things that an answer shows: one, or those of a list."""
    shown = body.get("cursor", body).get("data")
    rows = shown if isinstance(shown, list) else [shown]
    return [row for row in rows if isinstance(row, dict)]


def _hide(body: dict[str, Any]) -> None:
    if "errorMessage" in body:
        body["errorMessage"] = "internal server error"


def _add_unknown(value: Any) -> None:
    if isinstance(value, list):
        for item in value:
            _add_unknown(item)
    elif isinstance(value, dict):
        for key in ("data", "cursor", "status"):
            _add_unknown(value.get(key))
        if "id" in value or "stage" in value or "terminated" in value:
            value["fromTheFuture"] = {"kind": "unheard of", "list": [None, 1, "x"]}

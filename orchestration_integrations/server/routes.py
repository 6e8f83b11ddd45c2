"""Addresses: which operation a method and a path mean, as the real router decides it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from . import golang
from .exchange import Reply

if TYPE_CHECKING:
    from .exchange import Request

PREFIX = "/api/orchestration"
_TOKEN_PATHS = ("/api/auth/oauth/token", PREFIX + "/api/auth/oauth/token")
NOT_THERE = Reply(404, b"404 page not found\n", "text/plain; charset=utf-8")
_BAD_PATH = Reply(400, b"400 Bad Request", "text/plain; charset=utf-8")
_OTHER_METHOD = Reply(405)
FREE = frozenset(("info", "healthcheck", "openapi", "token"))
"""Operations that demand no token."""

_SINGLE = {"_info": {"GET": "info"}, "_healthcheck": {"GET": "healthcheck"}, "openapi.json": {"GET": "openapi"}}
_WORKFLOWS = [
    {},
    {"GET": "list_workflows", "POST": "create_workflow"},
    {"GET": "get_workflow", "DELETE": "delete_workflow"},
]
_RUNS = {"POST": "run_workflow"}
_INSTANCES = [{}, {"GET": "list_instances"}, {"GET": "get_instance"}]
_INSTANCE_ACTIONS = {
    "events": {"POST": "send_event"},
    "abort": {"PUT": "abort_instance"},
    "history": {"GET": "get_instance_history"},
}
_TRIGGERS = [
    {},
    {"GET": "list_triggers", "POST": "create_trigger"},
    {"GET": "get_trigger", "DELETE": "delete_trigger"},
]
_TRIGGER_ACTIONS = {"occurrences": {"GET": "list_trigger_occurrences"}, "test": {"POST": "test_trigger"}}


class Route(NamedTuple):
    """An operation, whether it is asked for in version 2, and what its path names."""

    operation: str
    v2: bool = False
    id: str = ""
    stage: str = ""


def below_prefix(path: str) -> str:
    """The path without the stack's prefix, where it has one."""
    if path.startswith(PREFIX) and path[len(PREFIX) : len(PREFIX) + 1] in ("", "/"):
        return path[len(PREFIX) :] or "/"
    return path


def route(request: Request, generation: int) -> Route | Reply:
    """The operation that a request asks for, or the answer of a router that knows none."""
    path = golang.routed_path(below_prefix(request.path))
    if path is None:
        return _BAD_PATH
    if request.path in _TOKEN_PATHS:
        return Route("token") if request.method == "POST" else _OTHER_METHOD
    parts = path.split("/")[1:]
    v2 = bool(parts) and parts[0] == "v2" and generation > 1
    if v2:
        del parts[0]
    if not parts:
        return NOT_THERE
    depth = _depth(parts)
    if depth is None:
        return NOT_THERE
    if parts[0] == "instances" and depth == 5 and parts[2] == "stages" and parts[4] == "history":
        return Route("get_stage_history", v2, parts[1], parts[3]) if request.method == "GET" else _OTHER_METHOD
    methods = _methods(parts, depth, v2, generation)
    if methods is None:
        return NOT_THERE
    operation = methods.get(request.method)
    if operation is None:
        return _OTHER_METHOD
    return Route(operation, v2, parts[1] if depth > 1 else "")


def _depth(parts: list[str]) -> int | None:
    """How many parts count: a collection or an item may end in a slash, an action may not (None)."""
    n = len(parts)
    if n > 1 and parts[-1] == "" and (n < 4 or parts[2] == "instances"):
        n -= 1
        if n > 2 and parts[0] != "workflows":
            return None
    return n


def _methods(parts: list[str], depth: int, v2: bool, generation: int) -> dict[str, str] | None:
    head = parts[0]
    if head == "instances":
        if depth <= 2:
            return _INSTANCES[depth]
        return _INSTANCE_ACTIONS.get(parts[2]) if depth == 3 else None
    if head == "workflows":
        if depth <= 2:
            return _WORKFLOWS[depth]
        return _RUNS if depth == 3 and parts[2] == "instances" else None
    if head == "triggers" and generation > 1:
        if depth <= 2:
            return _TRIGGERS[depth]
        if depth != 3 or (parts[2] == "test" and not v2):
            return None
        return _TRIGGER_ACTIONS.get(parts[2])
    return _SINGLE.get(head) if depth == 1 and not v2 else None

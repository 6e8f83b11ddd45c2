"""The control calls under `/_control/`: what tests in another process may do. Never subject to faults or auth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import msgspec

from .exchange import Reply, Request

if TYPE_CHECKING:
    from .core import Core

_NOT_THERE = Reply(404, b"404 page not found\n", "text/plain; charset=utf-8")


def handle(core: Core, request: Request, path: str) -> Reply:
    """Answer a control call; `path` is what follows `/_control/`."""
    if not core.controlled:
        return _NOT_THERE
    words = [unquote(word) for word in path.split("/")]
    name = words[0]
    try:
        if request.method == "GET":
            if path == "record":
                return _json(core.record().as_dict())
            if name == "balances" and len(words) == 3:
                core.pump()
                return _json(core.engine.ledger.balances.get(words[1], {}).get(words[2], {}))
        if request.method == "POST" and len(words) == 1:
            return _post(core, name, request.body)
    except (ValueError, msgspec.MsgspecError) as error:
        return _json({"errorCode": "VALIDATION", "errorMessage": str(error)}, 400)
    return _NOT_THERE


def _post(core: Core, name: str, body: bytes) -> Reply:
    if name == "clear_faults":
        core.clear_faults()
        return Reply(204)
    if name not in ("world", "fault", "advance", "publish"):
        return _NOT_THERE
    given = msgspec.json.decode(body)
    if not isinstance(given, dict):
        raise ValueError("an object is wanted")
    if name == "publish":
        core.publish(given)
    elif name == "world":
        core.world(_text(given, "what"))
    elif name == "advance":
        seconds = given.get("seconds")
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < 1e10:
            raise ValueError("seconds must be a number from 0")
        core.advance(seconds)
    else:
        options = dict(given)
        operation, kind = _text(options, "operation"), _text(options, "kind")
        del options["operation"], options["kind"]
        core.fault(operation, kind, options.pop("count", 1), **options)
    return Reply(204)


def _text(given: dict[str, Any], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a string")
    return value


def _json(value: Any, status: int = 200) -> Reply:
    from .api import encode

    return Reply(status, encode(value))

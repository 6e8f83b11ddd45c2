"""The control calls under `/_control/`: what tests in another process may do. Never subject to faults or auth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote

import msgspec

from .exchange import Reply, Request
from .replies import encode
from .routes import NOT_THERE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .record import Record

PREFIX = "/_control/"


class Controls(Protocol):
    """What the calls ask of a server; `Core` has it."""

    controlled: bool

    def record(self) -> Record: ...
    def seed_data(self, data: Mapping[str, Any]) -> None: ...
    def wallet(self, wallet_id: str) -> dict[str, dict[str, int]]: ...
    def balances(self, ledger: str, account: str) -> dict[str, int]: ...
    def world(self, what: str) -> None: ...
    def fault(self, operation: str, kind: str, count: int = 1, **options: Any) -> object: ...
    def clear_faults(self) -> None: ...
    def advance(self, seconds: float) -> None: ...
    def publish(self, message: Mapping[str, Any]) -> None: ...


def handle(controls: Controls, request: Request, path: str) -> Reply:
    """Answer a control call; `path` is what follows the prefix."""
    if not controls.controlled:
        return NOT_THERE
    words = [unquote(word) for word in path.split("/")]
    name = words[0]
    try:
        if request.method == "GET":
            if path == "record":
                return _json(controls.record().as_dict())
            if path == "record.jsonl":
                return Reply(200, controls.record().as_json_lines().encode(), "application/x-ndjson")
            if name == "wallets" and len(words) == 2:
                return _json(controls.wallet(words[1]))
            if name == "balances" and len(words) == 3:
                return _json(controls.balances(words[1], words[2]))
        if request.method == "POST" and len(words) == 1:
            return _post(controls, name, request.body)
    except (ValueError, msgspec.MsgspecError) as error:
        return _json({"errorCode": "VALIDATION", "errorMessage": str(error)}, 400)
    return NOT_THERE


def _post(controls: Controls, name: str, body: bytes) -> Reply:
    if name == "clear_faults":
        controls.clear_faults()
        return Reply(204)
    if name not in ("world", "fault", "advance", "publish", "seed"):
        return NOT_THERE
    given = msgspec.json.decode(body)
    if not isinstance(given, dict):
        raise ValueError("an object is wanted")
    if name == "publish":
        controls.publish(given)
    elif name == "seed":
        controls.seed_data(given)
    elif name == "world":
        controls.world(_text(given, "what"))
    elif name == "advance":
        seconds = given.get("seconds")
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < 1e10:
            raise ValueError("seconds must be a number from 0")
        controls.advance(seconds)
    else:
        options = dict(given)
        operation, kind = _text(options, "operation"), _text(options, "kind")
        del options["operation"], options["kind"]
        controls.fault(operation, kind, options.pop("count", 1), **options)
    return Reply(204)


def _text(given: dict[str, Any], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a string")
    return value


def _json(value: Any, status: int = 200) -> Reply:
    return Reply(status, encode(value))

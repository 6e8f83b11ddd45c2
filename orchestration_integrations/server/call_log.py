"""What was asked of the server, call by call, for tests that look at what a client sent.

It holds no header and no body of a token request, so no secret of a client.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from .clock import SECOND

if TYPE_CHECKING:
    from .exchange import Exchange, Request

MOST = 10_000
"""Calls that are kept; older ones are forgotten."""
_LONGEST_BODY = 65_536


@dataclass(slots=True)
class Call:
    """A request that reached an operation.

    Attributes:
        operation: as faults name it.
        method, path: as they were sent.
        query: by name.
        body: what was sent, as bytes; empty for a token request and where it was longer than 64 KiB.
        at: seconds since 1970, on the server's clock.
        status: of the answer; None while there is none, and where the connection is cut before.
        faults: the faults that it met.
    """

    operation: str
    method: str
    path: str
    query: dict[str, str]
    body: bytes
    at: float
    status: int | None
    faults: tuple[str, ...]

    @property
    def json(self) -> Any:
        """The body as JSON values; None: there is none, or it is something else."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


class CallLog:
    """The calls of one server, the latest last. Used under the core's lock."""

    def __init__(self) -> None:
        self._calls: deque[Call] = deque(maxlen=MOST)
        self._open: dict[Exchange, Call] = {}

    def begun(self, request: Request, exchange: Exchange, now_ns: int) -> None:
        """A request was taken in."""
        if not exchange.operation:
            return
        keep = exchange.operation != "token" and len(request.body) <= _LONGEST_BODY
        call = Call(
            exchange.operation,
            request.method,
            request.path,
            dict(parse_qsl(request.query, keep_blank_values=True)),
            request.body if keep else b"",
            now_ns / SECOND,
            exchange.reply.status if exchange.reply is not None else None,
            exchange.faults,
        )
        self._calls.append(call)
        if exchange.reply is None:
            self._open[exchange] = call

    def ended(self, exchange: Exchange) -> None:
        """It was answered, or cut."""
        call = self._open.pop(exchange, None)
        if call is not None and exchange.reply is not None:
            call.status = exchange.reply.status

    def kept(self, operation: str | None = None) -> tuple[Call, ...]:
        """Copies of all calls that are kept, or of those of one operation."""
        return tuple(replace(one) for one in self._calls if operation is None or one.operation == operation)

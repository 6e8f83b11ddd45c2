"""What was asked of the server, call by call, for tests that look at what a client sent.

It holds no header and no body of a token request, so no secret of a client. What changes something is kept for ever. Of
all other calls the latest are, and whoever asks for those that are gone hears that they are.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from dataclasses import dataclass, replace
from heapq import merge
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from .clock import SECOND

if TYPE_CHECKING:
    from .exchange import Exchange, Request

MOST = 10_000
"""Calls that change nothing and are kept; older ones are forgotten."""
CHANGING = frozenset(
    {
        "create_workflow",
        "delete_workflow",
        "run_workflow",
        "send_event",
        "abort_instance",
        "create_trigger",
        "delete_trigger",
    }
)
"""Operations whose calls are never forgotten."""
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
        faults: the faults that changed its answer or its connection.
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
        self._changing: list[tuple[int, Call]] = []
        self._others: deque[tuple[int, Call]] = deque()
        self._count = 0
        self._forgotten: Counter[str] = Counter()
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
        self._count += 1
        if call.operation in CHANGING:
            self._changing.append((self._count, call))
        else:
            self._others.append((self._count, call))
            if len(self._others) > MOST:
                self._forgotten[self._others.popleft()[1].operation] += 1
        if exchange.reply is None:
            self._open[exchange] = call

    def ended(self, exchange: Exchange) -> None:
        """Its answer is about to go out, or never will."""
        call = self._open.pop(exchange, None)
        if call is None:
            return
        call.faults = exchange.faults
        if exchange.reply is not None:
            call.status = exchange.reply.status

    def kept(self, operation: str | None = None) -> tuple[Call, ...]:
        """Copies of all calls, or of those of one operation. ValueError: some of them are forgotten."""
        forgotten = sum(self._forgotten.values()) if operation is None else self._forgotten[operation]
        if forgotten:
            raise ValueError(
                f"the first {forgotten} of these calls are forgotten: of calls that change nothing, the latest {MOST} "
                "are kept. Calls that change something are all kept: ask for one of "
                f"{', '.join(sorted(CHANGING))}"
            )
        every = merge(self._changing, self._others, key=lambda one: one[0])
        return tuple(replace(one) for _, one in every if operation is None or one.operation == operation)

"""httpx transports that talk to a server in this process, on a virtual clock: a week of waiting costs no time.

    clock = VirtualClock()
    core = Core(2, clock=clock, seed=1)
    client = httpx.Client(transport=InProcessTransport(core, clock), base_url="http://orchestration")

A held answer moves the clock to the instant at which it is due. The read timeout that httpx asks for is
kept on that clock: the clock moves by it and `httpx.ReadTimeout` is raised. Cut connections, lost answers,
broken and dripping bodies appear as the exceptions that httpx raises over a socket. There are no bytes of a head
here: one that drips, and informational answers before the real one, take their time and nothing else, and the
read timeout bounds all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx

from .clock import SECOND, VirtualClock
from .dates import http_date
from .exchange import Exchange, Reply, Request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from .core import Core

_CUT = "Server disconnected without sending a response."
_SHORT = "peer closed connection without sending complete message body"
_STATUS_LINE = 19
"""Bytes of a status line and of the empty line after the headers, about."""


class Unanswerable(RuntimeError):
    """A request without a read timeout to which no answer will ever come."""


class _Transport:
    """What both transports share: everything but the waiting."""

    def __init__(self, core: Core, clock: VirtualClock, latency: float = 0.002) -> None:
        if core.clock is not clock:
            raise ValueError("the server must run on the same clock")
        self.core = core
        self.clock = clock
        self.latency = latency
        self._half_ns = int(latency * SECOND / 2)

    def _begin(self, request: httpx.Request, body: bytes) -> Exchange:
        url = request.url
        raw = url.raw_path.decode("ascii")
        path, _, query = raw.partition("?")
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in request.headers.raw}
        exchange = self.core.handle(Request(request.method, path, query, headers, body))
        if exchange.refused:
            self.core.forget(exchange)
            raise httpx.ConnectError("Connection refused", request=request)
        return exchange

    def _ready_ns(self, exchange: Exchange, reply: Reply) -> int | None:
        """When the answer has arrived, with all that comes before its body; None: never."""
        before = 0.0
        if exchange.interim is not None:
            if exchange.interim.times is None:
                return None
            before += exchange.interim.every * exchange.interim.times
        if exchange.head_rate is not None:
            head = sum(len(name) + len(value) + 4 for name, value in self._headers(reply)) + _STATUS_LINE
            before += head / exchange.head_rate
        return exchange.ready_ns + int(before * SECOND)

    def _due_ns(self, exchange: Exchange) -> int | None:
        """When there is something to do with an exchange; None: not by itself."""
        if exchange.reply is None:
            return exchange.cut_ns
        ready = self._ready_ns(exchange, exchange.reply)
        return min((due for due in (ready, exchange.cut_ns) if due is not None), default=None)

    def _next(self, exchange: Exchange, deadline: int | None) -> int | None:
        """The instant to move to before looking again; None: look now. Raises where there is none."""
        due = self._due_ns(exchange)
        now = self.clock.now_ns()
        if due is not None and due <= now:
            return None
        if due is None and exchange.reply is None:
            due = self.core.engine.next_due()
        elif exchange.reply is None:
            step = self.core.engine.next_due()
            due = min((instant for instant in (due, step) if instant is not None), default=None)
        if deadline is not None and (due is None or due > deadline):
            return deadline
        if due is None:
            raise Unanswerable("no answer will ever come to this request, and it has no read timeout")
        return due

    def _due(self, exchange: Exchange) -> bool:
        due = self._due_ns(exchange)
        return due is not None and due <= self.clock.now_ns()

    def _over(self, request: httpx.Request, exchange: Exchange, deadline: int | None) -> bool:
        """Whether the answer can go out now; raises if the connection is cut or the time is up."""
        now = self.clock.now_ns()
        if exchange.cut_ns is not None and now >= exchange.cut_ns:
            self.core.forget(exchange)
            raise httpx.RemoteProtocolError(_CUT, request=request)
        ready = None if exchange.reply is None else self._ready_ns(exchange, exchange.reply)
        if ready is not None and now >= ready:
            self.core.forget(exchange)
            if exchange.lost:
                raise httpx.RemoteProtocolError(_CUT, request=request)
            return True
        if deadline is not None and now >= deadline:
            self.core.forget(exchange)
            raise httpx.ReadTimeout("The read operation timed out", request=request)
        return False

    def timeout_ns(self, request: httpx.Request) -> int | None:
        """The read timeout that a request asks for."""
        seconds = (request.extensions.get("timeout") or {}).get("read")
        return None if seconds is None else int(seconds * SECOND)

    def _response(self, request: httpx.Request, exchange: Exchange) -> httpx.Response:
        reply = exchange.reply
        if reply is None:
            raise AssertionError("an exchange that is over has a reply")
        stream: Any
        if exchange.truncate or exchange.rate:
            stream = _Stream(self, request, exchange, reply)
        else:
            stream = httpx.ByteStream(reply.body)
        return httpx.Response(reply.status, headers=self._headers(reply), stream=stream)

    def _headers(self, reply: Reply) -> list[tuple[str, str]]:
        headers = [("Date", http_date(self.clock.now_ns())), ("Content-Type", reply.content_type), *reply.headers]
        if reply.status != 204:
            headers.append(("Content-Length", str(len(reply.body))))
        return headers


class _Stream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that drips or breaks off."""

    def __init__(self, transport: _Transport, request: httpx.Request, exchange: Exchange, reply: Reply) -> None:
        self._transport = transport
        self._request = request
        self._exchange = exchange
        self._body = reply.body[: len(reply.body) // 2] if exchange.truncate else reply.body

    def _chunks(self) -> Iterator[tuple[int, bytes]]:
        """Pauses in nanoseconds, and what comes after each."""
        rate = self._exchange.rate
        if not rate:
            yield 0, self._body
        else:
            size = max(1, int(rate / 10))
            for at in range(0, len(self._body), size):
                chunk = self._body[at : at + size]
                yield int(len(chunk) / rate * SECOND), chunk

    def _timed_out(self, pause: int) -> int | None:
        limit = self._transport.timeout_ns(self._request)
        return limit if limit is not None and pause > limit else None

    def _end(self) -> None:
        if self._exchange.truncate:
            raise httpx.RemoteProtocolError(_SHORT, request=self._request)

    def _late(self) -> httpx.ReadTimeout:
        return httpx.ReadTimeout("The read operation timed out", request=self._request)

    def __iter__(self) -> Iterator[bytes]:
        for pause, chunk in self._chunks():
            limit = self._timed_out(pause)
            self._transport.clock.move_ns(pause if limit is None else limit)
            if limit is not None:
                raise self._late()
            yield chunk
        self._end()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        clock = self._transport.clock
        for pause, chunk in self._chunks():
            limit = self._timed_out(pause)
            await clock.until(clock.now_ns() + (pause if limit is None else limit))
            if limit is not None:
                raise self._late()
            yield chunk
        self._end()


class InProcessTransport(_Transport, httpx.BaseTransport):
    """For `httpx.Client`.

    Args:
        core: the server.
        clock: its clock.
        latency: what a round trip takes, in seconds on that clock; 0.002.
    """

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        clock = self.clock
        body = request.read()
        if self._half_ns:
            clock.move_ns(self._half_ns)
        timeout = self.timeout_ns(request)
        deadline = None if timeout is None else clock.now_ns() - self._half_ns + timeout
        exchange = self._begin(request, body)
        try:
            while not self._over(request, exchange, deadline):
                target = self._next(exchange, deadline)
                if target is not None:
                    clock.move_to(target)
        finally:
            if not exchange.gone:
                self.core.forget(exchange)
        if self._half_ns:
            clock.move_ns(self._half_ns)
        return self._response(request, exchange)


class AsyncInProcessTransport(_Transport, httpx.AsyncBaseTransport):
    """For `httpx.AsyncClient`; arguments as above. Requests of several tasks interleave on the clock."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        clock = self.clock
        body = await request.aread()
        await clock.until(clock.now_ns() + self._half_ns)
        timeout = self.timeout_ns(request)
        deadline = None if timeout is None else clock.now_ns() - self._half_ns + timeout
        exchange = self._begin(request, body)
        try:
            while not self._over(request, exchange, deadline):
                target = self._next(exchange, deadline)
                if target is not None:
                    await clock.until(target, lambda: self._due(exchange))
        finally:
            if not exchange.gone:
                self.core.forget(exchange)
        await clock.until(clock.now_ns() + self._half_ns)
        return self._response(request, exchange)

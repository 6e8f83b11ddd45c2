"""The server as an ASGI app: reads a request, asks the core, waits, answers, or breaks the connection."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

from starlette.applications import Starlette
from starlette.routing import Mount

from . import wire
from .bell import Bell
from .core import Core
from .dates import http_date
from .exchange import Exchange, Reply, Request
from .page import Front

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from starlette.types import Receive, Scope, Send

    from ..ui.page import Page


class Connections:
    """The open connections by their client's address, so that a fault can cut one."""

    def __init__(self) -> None:
        self._open: dict[Any, asyncio.Transport] = {}

    def opened(self, transport: asyncio.Transport) -> None:
        self._open[transport.get_extra_info("peername")[:2]] = transport

    def closed(self, transport: asyncio.Transport) -> None:
        peer = transport.get_extra_info("peername")
        if peer is not None:
            self._open.pop(peer[:2], None)

    def of(self, client: Any) -> asyncio.Transport | None:
        """A client's connection, if it is known."""
        return self._open.get(tuple(client or ()))

    def cut(self, client: Any) -> bool:
        """Close a client's connection after what was written to it. False: it isn't known."""
        transport = self.of(client)
        if transport is None:
            return False
        transport.close()
        return True


class CutConnection(Exception):
    """Raised out of the app where the connection has to break and only the HTTP server can do it."""


class Shell:
    """The ASGI side of a core."""

    def __init__(self, core: Core, connections: Connections) -> None:
        self.core = core
        self.connections = connections
        self._bell: Bell | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self.core.arrives()
        try:
            await self._exchange(scope, receive, send)
        finally:
            self.core.leaves()

    async def _exchange(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, complete = b"", False
        while not complete:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            complete = not message.get("more_body", False)
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        raw = scope.get("raw_path") or scope["path"].encode()
        request = Request(
            scope["method"],
            raw.split(b"?", 1)[0].decode("latin-1"),
            scope["query_string"].decode("latin-1"),
            headers,
            body,
            tuple(scope["client"][:2]) if scope.get("client") else None,
        )
        exchange = self.core.handle(request)
        try:
            if not await self._wait(exchange, receive):
                return None
            reply = exchange.reply
            if reply is None or exchange.lost or self._cut_now(exchange):
                self.core.forget(exchange)
                return await self._cut(scope, receive)
            self.core.answers(exchange)  # before its first byte: whoever has read it finds its status
            return await self._answer(scope, receive, send, exchange, reply)
        finally:
            self.core.forget(exchange)

    def _cut_now(self, exchange: Exchange) -> bool:
        return exchange.cut_ns is not None and self.core.clock.now_ns() >= exchange.cut_ns

    def _ready(self, exchange: Exchange) -> bool:
        if self._cut_now(exchange):
            return True
        return exchange.reply is not None and self.core.clock.now_ns() >= exchange.ready_ns

    async def _wait(self, exchange: Exchange, receive: Receive) -> bool:
        """Until the answer can go out. False: the client left first."""
        if self._ready(exchange):
            return True
        if self._bell is None or self._bell.loop is not asyncio.get_running_loop():
            self._bell = Bell(self.core)
        bell, woken = self._bell, self._bell.wait(exchange)
        left = asyncio.ensure_future(receive())

        def wake(_: object) -> None:
            if not woken.done():
                woken.set_result(None)

        left.add_done_callback(wake)
        try:
            await woken
            return self._ready(exchange) or not left.done()
        finally:
            bell.leave(exchange)
            left.cancel()

    async def _cut(self, scope: Scope, receive: Receive) -> None:
        if not self.connections.cut(scope.get("client")):
            raise CutConnection
        await self._seen_cut(receive)

    async def _seen_cut(self, receive: Receive) -> None:
        """Until the HTTP server has seen it too: an app that returns unasked is an error to it."""
        while (await receive())["type"] != "http.disconnect":
            pass

    async def _answer(self, scope: Scope, receive: Receive, send: Send, exchange: Exchange, reply: Reply) -> None:
        headers = [
            (b"date", http_date(self.core.clock.now_ns()).encode()),
            (b"content-type", reply.content_type.encode()),
            *((k.lower().encode(), v.encode()) for k, v in reply.headers),
        ]
        if reply.status != 204:
            headers.append((b"content-length", str(len(reply.body)).encode()))
        connection = self.connections.of(scope.get("client"))
        if connection is not None and (exchange.interim is not None or exchange.head_rate is not None):
            return await self._answer_past_the_server(scope, receive, exchange, reply, headers, connection)
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        body = reply.body if scope["method"] != "HEAD" else b""
        if exchange.truncate and body:
            await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
            return await self._cut(scope, receive)
        if exchange.rate:
            size = max(1, int(exchange.rate / 10))
            for at in range(0, len(body), size):
                chunk = body[at : at + size]
                await asyncio.sleep(len(chunk) / exchange.rate)
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            body = b""
        await send({"type": "http.response.body", "body": body})
        exchange.whole = True
        return None

    async def _answer_past_the_server(
        self,
        scope: Scope,
        receive: Receive,
        exchange: Exchange,
        reply: Reply,
        headers: list[tuple[bytes, bytes]],
        connection: asyncio.Transport,
    ) -> None:
        if exchange.interim is not None:
            await wire.write_interim(connection, exchange.interim)
        head = wire.head(reply.status, [*headers, (b"connection", b"close")])
        if exchange.head_rate is not None:
            await wire.drip(connection, head, exchange.head_rate)
            head = b""
        if not connection.is_closing():
            connection.write(head + (reply.body if scope["method"] != "HEAD" else b""))
            exchange.whole = True
        connection.close()  # it may be closed already, by a client that has left
        await self._seen_cut(receive)


def create_app(
    generation: Literal[1, 2, 3] = 2,
    *,
    db: str | None = None,
    token: str | None = None,
    faults: bool = True,
    seed: int | None = None,
    data: Mapping[str, Any] | str | Path | None = None,
    core: Core | None = None,
    connections: Connections | None = None,
    page: Callable[[], Page] | None = None,
    hosts: Collection[str] | None = None,
) -> Starlette:
    """The server as an ASGI app. Its core is `app.state.core`: `world`, `fault`, `advance`, `record`, `balance`.

    Args:
        generation: which generation of the real server it imitates.
        db: an SQLite file; None keeps everything in memory.
        token: demand this bearer token, or one issued for it as a client secret; None demands nothing.
        faults: whether the control calls under `/_control/` exist.
        seed: makes ids and moments repeatable.
        data: accounts, wallets, payments and connectors that are there from the start; see `Core`.
        core: a core of your own; the arguments before then don't count.
        connections: the HTTP server's connections, where it tells of them; without, a cut appears as an
            exception in the HTTP server.
        page: makes the live page at `/`, once somebody opens it; None: there is none. `app.state.front.stop()` ends it.
        hosts: answer only requests whose `Host` is an address, `localhost`, or one of these names, or that carry the
            token; None: any.

    Raises:
        ValueError: the token is blank, or the data isn't right.
    """
    if core is None:
        core = Core(generation, db=db, token=token, faults=faults, seed=seed, data=data)
    shell = Shell(core, connections or Connections())
    front = Front(shell, page, hosts=hosts, carries_token=core.tokens.carried_by)
    app = Starlette(routes=[Mount("/", app=front)])
    app.state.core, app.state.front = core, front
    return app

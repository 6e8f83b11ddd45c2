"""The live page in front of the imitated server.

The page is no part of what is imitated: it shows this server as it shows any other, through its address. So it is the
one thing of the rest of the package that is used here, and it is loaded when somebody opens it.

A browser that shows another web site can send requests to this machine too. Programs send no `Origin`, browsers do with
whatever changes something; a foreign one is refused before the server hears of it. A web site whose name was pointed at
this machine after it was loaded sends its own name as `Origin` and as `Host`. So a server that listens for this machine
alone answers only to names that are this machine, and to whoever carries its token.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from starlette.types import ASGIApp, Receive, Scope, Send

    from ..ui.page import Page

PREFIX = "/_ui/"
_SAFE = ("GET", "HEAD", "OPTIONS")
_PLAIN = frozenset({"127.0.0.1", "localhost", "[::1]"})
"""What nearly everybody asks for, known without loading the page."""


class Front:
    """Answers `/` and what belongs to the page; hands all else to the imitated server.

    Args:
        server: the imitated server.
        page: makes the page; called once, when somebody opens it. None: there is no page.
        hosts: the names by which the server may be asked for, besides addresses and `localhost`; None: any.
        carries_token: whether an `Authorization` header carries the token that the server demands.
    """

    def __init__(
        self,
        server: ASGIApp,
        page: Callable[[], Page] | None,
        *,
        hosts: Collection[str] | None = None,
        carries_token: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._server = server
        self._hosts = None if hosts is None else frozenset(host.lower() for host in hosts)
        self._carries_token = carries_token
        self._make = page
        self._page: Page | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._server(scope, receive, send)
        path = scope["path"]
        if self._make is not None and (path == "/" or path.startswith(PREFIX)):
            if self._page is None:
                self._page = self._make()
            return await self._page(scope, receive, send)
        why = self._unknown_host(scope)
        if why is not None:
            return await _refuse(why, send)
        if scope["method"] not in _SAFE and any(name in (b"origin", b"sec-fetch-site") for name, _ in scope["headers"]):
            why = _foreign(scope)
            if why is not None:
                return await _refuse(why, send)
        return await self._server(scope, receive, send)

    def _unknown_host(self, scope: Scope) -> str | None:
        """Why a request asks for a name that is not this machine's; None where it does not."""
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if self._hosts is None or not host or host.rpartition(":")[0] in _PLAIN or host in _PLAIN:
            return None  # no browser leaves `Host` out
        if _is_known(host, self._hosts) or self._carries_token(headers.get(b"authorization", b"").decode("latin-1")):
            return None
        return f"the server was asked for as {host!r}, which is not known to be this machine; use --allow-host for it"

    def stop(self) -> None:
        """End the page's streams."""
        if self._page is not None:
            self._page.stop()


def make_page(url: str, token: str | None, generation: int, hosts: Collection[str] = ()) -> Page:
    """The page of the server at an address of this machine."""
    from ..ui.page import page_of_embedded_server

    return page_of_embedded_server(url, token, generation, hosts)


def is_loopback(host: str) -> bool:
    """Whether what listens on this host (an IPv6 address without its brackets) is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_known(host: str, names: frozenset[str]) -> bool:
    from ..ui.page import is_known_host

    return is_known_host(host, names)


def _foreign(scope: Scope) -> str | None:
    from ..ui.page import foreign_request

    return foreign_request({name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]})


async def _refuse(why: str, send: Send) -> None:
    body = msgspec.json.encode({"errorCode": "VALIDATION", "errorMessage": why})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})

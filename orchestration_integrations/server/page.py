"""The live page in front of the imitated server.

The page is no part of what is imitated: it shows this server as it shows any other, through its address. So it is the
one thing of the rest of the package that is used here, and it is loaded when somebody opens it.

A browser that shows another web site can send requests to this machine too. Programs send no `Origin`, browsers do with
whatever changes something; a foreign one is refused before the server hears of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

    from ..ui.page import Page

PREFIX = "/_ui/"
_SAFE = ("GET", "HEAD", "OPTIONS")


class Front:
    """Answers `/` and what belongs to the page; hands all else to the imitated server.

    Args:
        server: the imitated server.
        page: makes the page; called once, when somebody opens it. None: there is no page.
    """

    def __init__(self, server: ASGIApp, page: Callable[[], Page] | None) -> None:
        self._server = server
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
        if scope["method"] not in _SAFE and any(name in (b"origin", b"sec-fetch-site") for name, _ in scope["headers"]):
            why = _foreign(scope)
            if why is not None:
                return await _refuse(why, send)
        return await self._server(scope, receive, send)

    def stop(self) -> None:
        """End the page's streams."""
        if self._page is not None:
            self._page.stop()


def make_page(url: str, token: str | None, generation: int) -> Page:
    """The page of the server at an address of this machine."""
    from ..ui.page import page_of_embedded_server

    return page_of_embedded_server(url, token, generation)


def _foreign(scope: Scope) -> str | None:
    from ..ui.page import foreign_request

    return foreign_request({name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]})


async def _refuse(why: str, send: Send) -> None:
    body = msgspec.json.encode({"errorCode": "VALIDATION", "errorMessage": why})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})

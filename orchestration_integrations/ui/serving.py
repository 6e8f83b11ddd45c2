"""A web server for the page alone: for ``orchestration-integrations ui`` and for tests."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress
from types import TracebackType

import uvicorn

from ..api.errors import ConfigurationError
from ..settings import Settings, is_loopback
from .guard import Guard
from .page import Page


class PageServer:
    """The page of a server, on a socket of this process; a context manager.

    Args:
        settings: of the server that the page shows, credentials included.
        host: address to listen on; 127.0.0.1.
        port: 0 (default) takes a free one.
        token: what the page demands of everybody; None: nothing, which is for loopback only. A blank one is an error.
        actions: whether events may be sent, runs cancelled and started through the page; False.
        embedders: origins whose pages may show this one in a frame.
        hosts: further names under which the page may be asked for without a token.

    Attributes:
        url: its address, known once it is started.

    Raises:
        ConfigurationError: another host than loopback without a token, or a token that is blank.
        OSError: the port is taken.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        actions: bool = False,
        embedders: tuple[str, ...] = (),
        hosts: tuple[str, ...] = (),
    ) -> None:
        if token is None and not is_loopback(host):
            raise ConfigurationError(
                f"token: the page would show {settings.base_url}, by the credentials of this process, to everybody who "
                f"reaches {host}; give a token, or listen on 127.0.0.1",
                field="token",
            )
        guard = Guard(token=token, actions=actions, hosts=frozenset({host, *hosts}))
        self.page = Page(settings, guard, embedders=embedders)
        self.url = ""
        self._address = (host, port)
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._socket: socket.socket | None = None

    def start(self) -> PageServer:
        """Listen and serve. Returns itself."""
        host, port = self._address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(128)
        except BaseException:
            listener.close()
            raise
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{listener.getsockname()[1]}"
        config = uvicorn.Config(
            self.page,
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=2,
        )
        server = uvicorn.Server(config)
        self._socket, self._server = listener, server
        self._thread = threading.Thread(
            target=lambda: asyncio.run(server.serve(sockets=[listener])), name="orchestration-page", daemon=True
        )
        self._thread.start()
        return self

    def stop(self) -> None:
        """End all streams and close; again is harmless."""
        self.page.stop()
        if self._server is not None:
            self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(5)
        if self._socket is not None:
            with suppress(OSError):
                self._socket.close()
        self._server = self._thread = self._socket = None

    def __enter__(self) -> PageServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

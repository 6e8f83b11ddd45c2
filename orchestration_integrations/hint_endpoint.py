"""An HTTP endpoint that takes hints: whoever is told of an end by a webhook or a broker passes it on to waits.

The body of a POST is any JSON. Each text in it that is the id of an instance that this process waits for makes its
waits read it at once. Nothing in a body is believed, so a forged one costs a few reads and changes nothing.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from .api.errors import ConfigurationError
from .clock import monotonic
from .http_hook.hints import hint_all

LONGEST_BODY = 1_000_000
"""Bytes."""
SENDERS = 32
"""Senders that are served at once; further ones are refused."""
SECONDS = 10.0
"""For so long a sender may take."""


class HintEndpoint:
    """Listens in a thread of its own, from ``start`` until ``stop``; or use it as a context manager.

    Args:
        port: 0 takes a free one. Default 0.
        host: the address to listen on; default 127.0.0.1, so that only this machine reaches it.

    Attributes:
        url: where to send hints.

    Raises:
        ConfigurationError: the port or the host is none; ``field`` says which.
        OSError: it cannot listen there.
    """

    def __init__(self, port: int = 0, host: str = "127.0.0.1") -> None:
        if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port < 2**16:
            raise ConfigurationError(f"port: must be a whole number from 0 to 65535, not {port!r}", field="port")
        if not isinstance(host, str) or not host.strip():
            raise ConfigurationError(f"host: must be an address of this machine, not {host!r}", field="host")
        self._stopped = False
        self._server = _Server((host, port), _Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="orchestration-hints", daemon=True)
        self.url = f"http://{host}:{self._server.server_address[1]}/"

    def start(self) -> None:
        """Take hints from now on; again is harmless.

        Raises:
            ConfigurationError: it was stopped, and let go of its port.
        """
        if self._stopped:
            raise ConfigurationError(
                f"port: {self.url} was stopped and takes no more hints; make another endpoint", field="port"
            )
        if not self._thread.is_alive():
            self._thread.start()

    def stop(self) -> None:
        """Take no more hints; again is harmless."""
        self._stopped = True
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def __enter__(self) -> HintEndpoint:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Server(ThreadingHTTPServer):
    """Serves few senders at once, each for a bounded time, however slowly it sends."""

    daemon_threads = True

    def __init__(self, *given: Any) -> None:
        self._since: dict[Any, float] = {}
        super().__init__(*given)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a sender, unless there are too many."""
        if len(self._since) >= SENDERS:
            self.shutdown_request(request)
            return
        self._since[request] = monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """A sender is through, or is refused."""
        self._since.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Called each half second: whoever has taken too long is cut off."""
        for request, since in list(self._since.items()):
            if monotonic() - since > SECONDS:
                with suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a sender that was cut off, or has hung up."""


class _Handler(BaseHTTPRequestHandler):
    timeout = SECONDS

    def do_POST(self) -> None:
        """Pass a hint on: 204 where somebody waits for what it names, 200 where nobody does."""
        self._answer(*self._told())

    def do_GET(self) -> None:
        """Refuse whatever is no POST."""
        self._answer(405, "send hints by POST, as JSON that names instances")

    do_HEAD = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_GET

    def _told(self) -> tuple[int, str]:
        try:
            length = int(self.headers.get("content-length") or "")
        except ValueError:
            return 411, "a body with a Content-Length is needed"
        if not 0 <= length <= LONGEST_BODY:
            return 413, f"a body has at most {LONGEST_BODY} bytes"
        try:
            names = set(texts_in(json.loads(self.rfile.read(length))))
        except (ValueError, RecursionError):
            return 400, "the body must be JSON"
        return (204, "") if hint_all(names) else (200, "nobody here waits for what it names")

    def _answer(self, status: int, text: str) -> None:
        body = f"{text}\n".encode() if text else b""
        self.send_response(status)
        if status != 204:
            self.send_header("content-type", "text/plain; charset=utf-8")
            self.send_header("content-length", str(len(body)))
        if status == 405:
            self.send_header("allow", "POST")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a body may hold what belongs in no log."""


def texts_in(value: Any) -> Iterator[str]:
    """All texts in a JSON value, names of fields left out."""
    stack = [value]
    while stack:
        one = stack.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            stack += one.values()
        elif isinstance(one, list):
            stack += one

"""A gateway between the page and its server that answers by itself whatever a test wants answered."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import httpx
import msgspec


class Answer(msgspec.Struct, frozen=True):
    """What the gateway answers: status, body, the seconds before it, and its ``Date``; None: that of this machine."""

    status: int = 200
    body: bytes = b""
    seconds: float = 0.0
    date: str | None = None

    @classmethod
    def of(cls, body: Any, *, status: int = 200, seconds: float = 0.0) -> Answer:
        return cls(status, json.dumps(body).encode(), seconds)


Rule = Callable[[str, str], "Answer | None"]
"""Method and path of a request; None: the server answers."""


class Gateway:
    """Passes requests on, but those for which ``rule`` has an answer. A context manager."""

    def __init__(self, target: str) -> None:
        self.rule: Rule = lambda method, path: None
        gateway, client = self, httpx.Client(base_url=target, trust_env=False, timeout=30)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                made = gateway.rule(self.command, self.path)
                if made is None:
                    kind = {"content-type": self.headers.get("content-type") or "application/json"}
                    got = client.request(self.command, self.path, content=body, headers=kind)
                    made = Answer(got.status_code, got.content, date=got.headers.get("date"))
                time.sleep(made.seconds)
                self.send_response_only(made.status)
                self.send_header("date", made.date or self.date_time_string())
                if made.status != 204:
                    self.send_header("content-type", "application/json")
                    self.send_header("content-length", str(len(made.body)))
                self.end_headers()
                self.wfile.write(made.body)

            do_GET = do_POST = do_PUT = do_DELETE = answer

            def log_message(self, *_: object) -> None:
                return

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """A client that did not wait for its answer."""

        self._server, self._client = Server(("127.0.0.1", 0), Handler), client
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Gateway:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._client.close()

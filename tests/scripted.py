"""A server that answers each connection as a script says, at the level of bytes."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Got:
    """One request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int


Answer = Callable[[socket.socket, Got], None]


def respond(status: int, body: object = None, **headers: str) -> Answer:
    """A whole answer with a Content-Length."""

    def answer(peer: socket.socket, got: Got) -> None:
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(data)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        peer.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + data)

    return answer


def cut(peer: socket.socket, got: Got) -> None:
    """Close without an answer."""
    peer.close()


def stall(seconds: float) -> Answer:
    """Answer nothing for a while, then close."""

    def answer(peer: socket.socket, got: Got) -> None:
        time.sleep(seconds)
        peer.close()

    return answer


def drip(every: float, count: int) -> Answer:
    """A body that arrives a byte at a time."""

    def answer(peer: socket.socket, got: Got) -> None:
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
        try:
            for _ in range(count):
                peer.sendall(b" ")
                time.sleep(every)
        except OSError:
            pass
        peer.close()

    return answer


@dataclass
class ScriptedServer:
    """Serves requests by ``script(got)``; remembers all of them."""

    script: Callable[[Got], Answer]
    got: list[Got] = field(default_factory=list)

    def __enter__(self) -> ScriptedServer:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._peers: list[socket.socket] = []
        self._count = 0
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def refuse(self) -> None:
        """Take no further connection."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # close() alone leaves the accept() going
        self._listener.close()

    def __exit__(self, *exc: object) -> None:
        self.refuse()
        for peer in self._peers:
            peer.close()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self._peers.append(peer)
            self._count += 1
            threading.Thread(target=self._serve, args=(peer, self._count), daemon=True).start()

    def _serve(self, peer: socket.socket, number: int) -> None:
        buffer = b""
        try:
            while True:
                while b"\r\n\r\n" not in buffer:
                    more = peer.recv(65536)
                    if not more:
                        return
                    buffer += more
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                lines = head.decode().split("\r\n")
                method, target, _ = lines[0].split(" ", 2)
                headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines[1:])}
                length = int(headers.get("content-length", 0))
                while len(buffer) < length:
                    buffer += peer.recv(65536)
                body, buffer = buffer[:length], buffer[length:]
                got = Got(method, target, headers, body, number)
                self.got.append(got)
                self.script(got)(peer, got)
        except OSError:
            return
        finally:
            peer.close()


INSTANCE = {
    "workflowID": "w",
    "id": "i",
    "createdAt": "2026-01-01T00:00:00Z",
    "updatedAt": "2026-01-01T00:00:00Z",
    "terminated": False,
}


def instance(**changes: object) -> dict[str, object]:
    """The body of an instance's answer."""
    return {"data": {**INSTANCE, **changes}}

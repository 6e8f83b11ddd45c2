"""A proxy at the level of bytes, a server under TLS, and certificates for both."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scripted import Answer, Got, ScriptedServer, instance, respond

HOST = "orchestration.example"
"""Of the server behind a proxy. No name system is asked for it: only the proxy would be."""


def make_certificate(folder: Path) -> Path:
    """A certificate of its own authority, for 127.0.0.1 and ``HOST``: cert.pem, key.pem and, encrypted, secret.pem."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    command = "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=127.0.0.1"
    openssl(*command.split(), "-addext", f"subjectAltName=IP:127.0.0.1,DNS:{HOST}")
    openssl("rsa", "-aes256", "-in", "key.pem", "-out", "secret.pem", "-passout", "pass:geheim")
    return folder


def context_of(folder: Path) -> ssl.SSLContext:
    """For the side of a server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


class TlsServer(ScriptedServer):
    """A scripted server under TLS."""

    def __init__(self, folder: Path, script: Callable[[Got], Answer] = lambda got: respond(200, instance())) -> None:
        super().__init__(script)
        self._context = context_of(folder)
        self.handshakes = 0

    def _serve(self, peer: socket.socket, number: int) -> None:
        self.handshakes += 1
        try:
            super()._serve(self._context.wrap_socket(peer, server_side=True), number)
        except (ssl.SSLError, OSError):
            peer.close()


class TunnelProxy:
    """Leads each CONNECT to one server.

    Args:
        server: where it leads; None where it never does.
        tls: folder of the certificate of a proxy that itself speaks TLS.
        answer: to a CONNECT.
        every: seconds between the bytes that come from the server; 0 for all at once.
        slowly: seconds between the bytes of the answer to a CONNECT.

    Attributes:
        heads: each CONNECT as it arrived.
        carried: what went through the tunnels, as the proxy can read it.
    """

    def __init__(
        self,
        server: ScriptedServer | None = None,
        *,
        tls: Path | None = None,
        answer: bytes = b"HTTP/1.1 200 OK\r\n\r\n",
        every: float = 0.0,
        slowly: float = 0.0,
    ) -> None:
        self._server, self._tls, self._answer, self._every, self._slowly = server, tls, answer, every, slowly
        self.heads: list[bytes] = []
        self.carried = b""

    def __enter__(self) -> TunnelProxy:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        for one in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(peer)
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._tls is not None:
                peer = context_of(self._tls).wrap_socket(peer, server_side=True)
                self._open.append(peer)
            head = b""
            while b"\r\n\r\n" not in head:
                data = peer.recv(4096)
                if not data:
                    return
                head += data
            self.heads.append(head)
            self._send(peer, self._answer, self._slowly)
            if self._server is None:
                self.carried += peer.recv(4096)
                return
            server = socket.create_connection(("127.0.0.1", int(self._server.url.rsplit(":", 1)[1])))
            self._open.append(server)
            threading.Thread(target=self._carry, args=(peer, server), daemon=True).start()
            self._carry(server, peer, self._every)

    def _carry(self, source: socket.socket, target: socket.socket, every: float = 0.0) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.carried += data
                self._send(target, data, every)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _send(peer: socket.socket, data: bytes, every: float) -> None:
        if not every:
            peer.sendall(data)
            return
        for number in range(len(data)):
            peer.sendall(data[number : number + 1])
            time.sleep(every)

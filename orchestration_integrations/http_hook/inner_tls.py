"""TLS within TLS, for the blocking hook: a server under TLS behind a proxy under TLS.

``ssl`` cannot wrap a socket twice. httpcore's stream for this case waits the whole time-out anew for each part that
arrives. This one reads and writes through a connection that keeps the deadline at each step.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import httpcore

T = TypeVar("T")

_PART = 16 * 1024
"""Bytes of one TLS record at most."""


class InnerTls(httpcore.NetworkStream):
    """A connection under TLS over one that is under TLS already.

    Args:
        outer: the connection beneath; keeps the deadline at each read and write.
        context: what the server's certificate is checked with.
        host: the server's name.
    """

    def __init__(self, outer: httpcore.NetworkStream, context: ssl.SSLContext, host: str | None) -> None:
        self._outer = outer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)

    def shake_hands(self, timeout: float | None) -> None:
        """Begin TLS. Raises httpcore.ConnectTimeout or httpcore.ConnectError, and has closed the connection then."""
        try:
            self._through(self._tls.do_handshake, timeout)
        except BaseException as error:
            with suppress(Exception):  # the server is told why, if it still listens
                self._flush(timeout)
            self.close()
            if isinstance(error, httpcore.TimeoutException):
                raise httpcore.ConnectTimeout(str(error)) from error
            if isinstance(error, httpcore.NetworkError | OSError):
                raise httpcore.ConnectError(str(error)) from error
            raise

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """The next bytes; none once the server has ended TLS."""
        try:
            return self._through(lambda: self._tls.read(max_bytes), timeout)
        except ssl.SSLZeroReturnError:
            return b""
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """All of the bytes."""
        try:
            while buffer:
                part = buffer[:_PART]
                buffer = buffer[self._through(lambda part=part: self._tls.write(part), timeout) :]  # type: ignore[misc]
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    def close(self) -> None:
        """Close it. Nothing is sent: whoever is waited for may have gone."""
        self._outer.close()

    def get_extra_info(self, info: str) -> Any:
        """As of the connection beneath; but no socket, since what is written to that one would not be encrypted."""
        if info == "ssl_object":
            return self._tls
        return None if info == "socket" else self._outer.get_extra_info(info)

    def _through(self, step: Callable[[], T], timeout: float | None) -> T:
        """Do a step of TLS; send and fetch what it needs."""
        while True:
            try:
                done = step()
            except ssl.SSLWantReadError:
                self._flush(timeout)
                data = self._outer.read(_PART, timeout)
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
            else:
                self._flush(timeout)
                return done

    def _flush(self, timeout: float | None) -> None:
        data = self._outgoing.read()
        if data:
            self._outer.write(data, timeout)

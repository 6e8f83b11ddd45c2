"""Sockets that keep the deadline of their exchange at every read and every write, blocking and not.

Nothing is written once the deadline is over: a request that left with a millisecond for its answer would be
ambiguous for nothing. What was handed to a socket is noted in the deadline, so that an error can say whether the
request may have arrived.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterable
from typing import Any

import httpcore

from .deadline import Deadline, Left
from .received import Received
from .threads import in_own_thread

CHUNK = 16 * 1024
"""Bytes that are written before the time is looked at again."""

SocketOption = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]


def _deadline_of(timeout: float | None) -> Deadline | None:
    return timeout.deadline if isinstance(timeout, Left) else None


def _within(timeout: float | None, over: type[httpcore.TimeoutException], connecting: Deadline | None) -> float | None:
    """Seconds for the next step. Raises ``over`` once the deadline has passed.

    Args:
        timeout: as httpcore hands it over.
        over: what is raised.
        connecting: the deadline of the call that made the connection. It counts where httpcore hands over none: while
            it speaks to a SOCKS proxy.
    """
    deadline = _deadline_of(timeout) or (connecting if timeout is None else None)
    if deadline is None:
        return timeout
    remaining = deadline.remaining()
    if remaining <= 0:
        raise over("the deadline is over")
    return remaining


def _note_sent(timeout: float | None) -> None:
    deadline = _deadline_of(timeout)
    if deadline is not None:
        deadline.sent = True


class BoundedStream(httpcore.NetworkStream):
    """A connection that keeps the deadline.

    Args:
        stream: the connection.
        connecting: the deadline of the call that made it.
    """

    def __init__(self, stream: httpcore.NetworkStream, connecting: Deadline | None = None) -> None:
        self._stream = stream
        self._connecting = connecting
        self.received = Received()

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """The next bytes."""
        data = self._stream.read(max_bytes, _within(timeout, httpcore.ReadTimeout, self._connecting))
        self.received.add(data)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """All of the bytes, as much at a time as the socket takes."""
        plain = self._socket()
        self.received.begin()
        while buffer:
            seconds = _within(timeout, httpcore.WriteTimeout, self._connecting)
            _note_sent(timeout)
            if plain is None:
                self._stream.write(buffer[:CHUNK], seconds)
                buffer = buffer[CHUNK:]
                continue
            try:
                plain.settimeout(seconds)
                buffer = buffer[plain.send(buffer) :]
            except TimeoutError as error:
                raise httpcore.WriteTimeout(str(error)) from error
            except OSError as error:
                raise httpcore.WriteError(str(error)) from error

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """The connection under TLS."""
        seconds = _within(timeout, httpcore.ConnectTimeout, self._connecting)
        return BoundedStream(self._stream.start_tls(ssl_context, server_hostname, seconds), self._connecting)

    def get_extra_info(self, info: str) -> Any:
        """As of the connection."""
        return self._stream.get_extra_info(info)

    def close(self) -> None:
        """Close it."""
        self._stream.close()

    def _socket(self) -> socket.socket | None:
        """The socket that takes what is written; None for TLS within TLS, which has none of its own."""
        found = self._stream.get_extra_info("socket")
        if not isinstance(found, socket.socket):
            return None
        under_tls = self._stream.get_extra_info("ssl_object") is not None
        return found if isinstance(found, ssl.SSLSocket) or not under_tls else None


class BoundedBackend(httpcore.NetworkBackend):
    """Connects within the deadline. Each address of a host gets its share of what remains."""

    def __init__(self) -> None:
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore.NetworkStream:
        """A connection to the first address that takes one."""
        addresses = _addresses(host, port, timeout)
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for number, address in enumerate(addresses):
            seconds = _within(timeout, httpcore.ConnectTimeout, None)
            share = None if seconds is None else seconds / (len(addresses) - number)
            try:
                made = self._sockets.connect_tcp(address, port, share, local_address, socket_options)
                return BoundedStream(made, _deadline_of(timeout))
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


def _addresses(host: str, port: int, timeout: float | None) -> list[str]:
    """The addresses of a host. The look-up has no time-out of its own, so it runs in a thread that may be left."""
    if _is_address(host):
        return [host]
    found: list[list[str]] = []
    failed: list[Exception] = []

    def look_up() -> None:
        try:
            found.append(_looked_up(host, port))
        except httpcore.ConnectError as error:
            failed.append(error)

    thread = threading.Thread(target=look_up, name="orchestration-look-up", daemon=True)
    seconds = _within(timeout, httpcore.ConnectTimeout, None)
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not found:
        raise httpcore.ConnectTimeout(f"the look-up of {host} was not answered in time")
    return found[0]


async def _addresses_async(host: str, port: int, timeout: float | None) -> list[str]:
    """As ``_addresses``."""
    from asyncio import wait  # not needed by the blocking hook, and slow to import

    if _is_address(host):
        return [host]
    seconds = _within(timeout, httpcore.ConnectTimeout, None)
    looking = in_own_thread(_looked_up, host, port, daemon=True)
    if not (await wait({looking}, timeout=seconds))[0]:
        looking.cancel()
        raise httpcore.ConnectTimeout(f"the look-up of {host} was not answered in time")
    return looking.result()


def _looked_up(host: str, port: int) -> list[str]:
    try:
        rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(str(error)) from error
    return list(dict.fromkeys(str(row[4][0]) for row in rows))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])  # the zone of an IPv6 address follows the sign
    except ValueError:
        return False
    return True


class AsyncBoundedStream(httpcore.AsyncNetworkStream):
    """As ``BoundedStream``."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, connecting: Deadline | None = None) -> None:
        self._stream = stream
        self._connecting = connecting
        self.received = Received()

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """The next bytes."""
        data = await self._stream.read(max_bytes, _within(timeout, httpcore.ReadTimeout, self._connecting))
        self.received.add(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """All of the bytes."""
        seconds = _within(timeout, httpcore.WriteTimeout, self._connecting)
        self.received.begin()
        _note_sent(timeout)
        await self._stream.write(buffer, seconds)

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        """The connection under TLS."""
        seconds = _within(timeout, httpcore.ConnectTimeout, self._connecting)
        made = await self._stream.start_tls(ssl_context, server_hostname, seconds)
        return AsyncBoundedStream(made, self._connecting)

    def get_extra_info(self, info: str) -> Any:
        """As of the connection."""
        return self._stream.get_extra_info(info)

    async def aclose(self) -> None:
        """Close it."""
        await self._stream.aclose()


class AsyncBoundedBackend(httpcore.AsyncNetworkBackend):
    """As ``BoundedBackend``."""

    def __init__(self) -> None:
        self._sockets = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to the first address that takes one."""
        addresses = await _addresses_async(host, port, timeout)
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for number, address in enumerate(addresses):
            seconds = _within(timeout, httpcore.ConnectTimeout, None)
            share = None if seconds is None else seconds / (len(addresses) - number)
            try:
                made = await self._sockets.connect_tcp(address, port, share, local_address, socket_options)
                return AsyncBoundedStream(made, _deadline_of(timeout))
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

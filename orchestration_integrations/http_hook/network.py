"""Sockets that keep the deadline of their exchange at every read and every write, blocking and not.

Nothing is written once the deadline is over: a request that left with a millisecond for its answer would be
ambiguous for nothing. What was handed to a socket is noted in the deadline, so that an error can say whether the
request may have arrived. What a proxy is asked for first (``CONNECT``, SOCKS), and TLS itself, is no part of it.
"""

from __future__ import annotations

import ipaddress
import logging
import select
import socket
import ssl
import sys
import threading
from collections.abc import Iterable
from typing import Any

import httpcore

from . import own_connections
from .deadline import Deadline, Left
from .inner_tls import InnerTls
from .proxies import Proxy
from .received import Received
from .signal_errors import raised_by_signal
from .threads import in_own_thread

logger = logging.getLogger("orchestration_integrations.hook")

CHUNK = 16 * 1024
"""Bytes that are written before the time is looked at again."""
_AT_ONCE = 2**20
"""Bytes: more than a loop ever reads at once. What it had to keep back would be seen by nobody."""
_TO_PROXY = b"CONNECT "

SocketOption = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]


def _deadline_of(timeout: float | None) -> Deadline | None:
    return timeout.deadline if isinstance(timeout, Left) else None


def _within(timeout: float | None, over: type[httpcore.TimeoutException], connecting: Deadline | None) -> float | None:
    """Seconds for the next step, which know the deadline. Raises ``over`` once the deadline has passed.

    Args:
        timeout: as httpcore hands it over.
        over: what is raised.
        connecting: the deadline of the call that made the connection. It counts where httpcore hands over none: while
            it speaks to a SOCKS proxy.
    """
    deadline = _deadline_of(timeout) or (connecting if timeout is None else None)
    if deadline is None:
        return timeout
    if deadline.remaining() <= 0:
        raise over("the deadline is over")
    return deadline.limit()


class NotingStream:
    """What a connection notes: in the deadline, that a request was handed over; here, what its answer brought.

    Args:
        stream: the connection.
        proxy_tls: whether TLS with an https proxy is still to come.
    """

    def __init__(self, stream: Any, proxy_tls: bool) -> None:
        found = stream.get_extra_info("ssl_object")
        self._tls = found if isinstance(found, ssl.SSLObject) else None
        self._proxy_tls = proxy_tls
        self._received = Received()
        self._spent = False

    def end_of_answer(self, body: int) -> None:
        """The body of an answer was read to its end. If more came, the connection is not written to again.

        To be called before the answer is closed: then its connection is back in the pool, and may be another call's. It
        is no use to tell the pool that the connection is spent: it looks at its idle connections before it takes one,
        and this one can become idle in between.

        Args:
            body: bytes of the body, as they were read, still packed.
        """
        if not self._received.is_exactly(body) or _lies_ready(self._tls):
            logger.warning("the server sent more than its answer; the connection is not used again")
            self._spent = True

    def _begins(self, buffer: bytes, timeout: float | None) -> None:
        """Bytes are about to be handed over: from here on a part of them may have left.

        Raises:
            httpcore.ConnectionNotAvailable: the connection is spent. The pool closes it and takes another.
        """
        if self._spent:
            raise httpcore.ConnectionNotAvailable
        self._received.begin()
        deadline = _deadline_of(timeout)
        if deadline is not None and not buffer.startswith(_TO_PROXY):
            deadline.sent = True
            deadline.proxy = None

    def _tls_begins(self, timeout: float | None) -> None:
        """TLS is about to begin: the proxy's own where that is still to come, else the server's."""
        deadline = _deadline_of(timeout)
        if deadline is not None and not self._proxy_tls:
            deadline.proxy = None


def _lies_ready(tls: ssl.SSLObject | None) -> bool:
    """Whether TLS with a buffer of its own, which no socket shows, holds more than was read from it."""
    if tls is None:
        return False
    try:
        return bool(tls.read(1))
    except ssl.SSLWantReadError:
        return False
    except ssl.SSLError:
        return True


class TimedStream(httpcore.NetworkStream):
    """A connection that keeps the deadline.

    Args:
        stream: the connection.
        connecting: the deadline of the call that made it.
    """

    def __init__(self, stream: httpcore.NetworkStream, connecting: Deadline | None) -> None:
        self._stream = stream
        self._connecting = connecting

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """The next bytes."""
        return self._stream.read(max_bytes, _within(timeout, httpcore.ReadTimeout, self._connecting))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """All of the bytes, as much at a time as the socket takes."""
        if not buffer:
            return
        plain = self._stream.get_extra_info("socket")
        seconds = _within(timeout, httpcore.WriteTimeout, self._connecting)
        self._begins(buffer, timeout)
        while True:
            buffer = buffer[self._hand_over(buffer, plain, seconds) :]
            if not buffer:
                return
            seconds = _within(timeout, httpcore.WriteTimeout, self._connecting)

    def _hand_over(self, buffer: bytes, plain: Any, seconds: float | None) -> int:
        """Returns how many bytes were taken."""
        if not isinstance(plain, socket.socket):  # TLS within TLS has none of its own
            self._stream.write(buffer[:CHUNK], seconds)
            return CHUNK
        try:
            plain.settimeout(seconds)
            return plain.send(buffer)
        except TimeoutError as error:
            raise httpcore.WriteTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    def _begins(self, buffer: bytes, timeout: float | None) -> None:
        """Bytes are about to be handed over."""

    def get_extra_info(self, info: str) -> Any:
        """As of the connection."""
        return self._stream.get_extra_info(info)

    def close(self) -> None:
        """Close it."""
        self._stream.close()


class BoundedStream(NotingStream, TimedStream):
    """A connection that keeps the deadline, and notes what goes over it.

    Args:
        stream: the connection.
        connecting: the deadline of the call that made it.
        proxy_tls: whether TLS with an https proxy is still to come.
    """

    def __init__(
        self, stream: httpcore.NetworkStream, connecting: Deadline | None = None, *, proxy_tls: bool = False
    ) -> None:
        NotingStream.__init__(self, stream, proxy_tls)
        TimedStream.__init__(self, stream, connecting)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """The next bytes."""
        data = TimedStream.read(self, max_bytes, timeout)
        self._received.add(data)
        return data

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """The connection under TLS."""
        self._tls_begins(timeout)
        seconds = _within(timeout, httpcore.ConnectTimeout, self._connecting)
        made: httpcore.NetworkStream
        if self._stream.get_extra_info("ssl_object") is None:
            made = self._stream.start_tls(ssl_context, server_hostname, seconds)
        else:
            made = inner = InnerTls(TimedStream(self._stream, self._connecting), ssl_context, server_hostname)
            inner.shake_hands(seconds)
        return BoundedStream(made, self._connecting)


class BoundedBackend(httpcore.NetworkBackend):
    """Connects within the deadline. Each address of a host gets its share of what remains.

    Args:
        proxy: to which it connects; None for servers.
    """

    def __init__(self, proxy: Proxy | None = None) -> None:
        self._proxy = proxy
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
        proxy_tls = _connects_to(self._proxy, timeout)
        addresses = _addresses(host, port, timeout)
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        handled = sys.exc_info()[1]
        for number, address in enumerate(addresses):
            seconds = _within(timeout, httpcore.ConnectTimeout, None)
            share = None if seconds is None else seconds / (len(addresses) - number)
            try:
                made = self._sockets.connect_tcp(address, port, share, local_address, socket_options)
                own_connections.note(made)
                return BoundedStream(made, _deadline_of(timeout), proxy_tls=proxy_tls)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                if raised_by_signal(error, handled) is not None:
                    raise
                failure = error
        raise failure


def _connects_to(proxy: Proxy | None, timeout: float | None) -> bool:
    """A connection to a proxy, or to a server, is about to be made. Returns whether it is a proxy with TLS."""
    deadline = _deadline_of(timeout)
    if deadline is not None and proxy is not None:
        deadline.proxy = proxy.name
    return proxy is not None and proxy.under_tls


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


class AsyncBoundedStream(NotingStream, httpcore.AsyncNetworkStream):
    """As ``BoundedStream``."""

    def __init__(
        self, stream: httpcore.AsyncNetworkStream, connecting: Deadline | None = None, *, proxy_tls: bool = False
    ) -> None:
        super().__init__(stream, proxy_tls)
        self._stream = stream
        self._connecting = connecting
        self._most = _AT_ONCE if self._tls is None else 0
        self._plain = stream.get_extra_info("socket")

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """The next bytes; without TLS all that the loop has taken from the socket."""
        seconds = _within(timeout, httpcore.ReadTimeout, self._connecting)
        data = await self._stream.read(max(max_bytes, self._most), seconds)
        self._received.add(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """All of the bytes."""
        if not buffer:
            return
        seconds = _within(timeout, httpcore.WriteTimeout, self._connecting)
        self._begins(buffer, timeout)
        await self._stream.write(buffer, seconds)

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        """The connection under TLS."""
        self._tls_begins(timeout)
        seconds = _within(timeout, httpcore.ConnectTimeout, self._connecting)
        made = await self._stream.start_tls(ssl_context, server_hostname, seconds)
        return AsyncBoundedStream(made, self._connecting)

    async def aclose(self) -> None:
        """Close it."""
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> Any:
        """As of the connection. Whether there is something to read, the pool asks of each idle connection for each
        request: so it is asked of the socket itself, which anyio would look up anew each time."""
        if info == "is_readable" and self._plain is not None:
            return _is_readable(self._plain)
        return self._stream.get_extra_info(info)


def _is_readable(plain: Any) -> bool:
    """Whether a read would return at once, be it with the end of the connection."""
    number = plain.fileno()
    if number < 0:  # closed
        return True
    if not hasattr(select, "poll"):
        return bool(select.select([number], [], [], 0)[0])
    asking = select.poll()
    asking.register(number, select.POLLIN)
    return bool(asking.poll(0))


class AsyncBoundedBackend(httpcore.AsyncNetworkBackend):
    """As ``BoundedBackend``."""

    def __init__(self, proxy: Proxy | None = None) -> None:
        self._proxy = proxy
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
        from asyncio import CancelledError  # not needed by the blocking hook, and slow to import

        from .in_time import is_given_up

        proxy_tls = _connects_to(self._proxy, timeout)
        addresses = await _addresses_async(host, port, timeout)
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        handled = sys.exc_info()[1]
        for number, address in enumerate(addresses):
            seconds = _within(timeout, httpcore.ConnectTimeout, None)
            share = None if seconds is None else seconds / (len(addresses) - number)
            try:
                made = await self._sockets.connect_tcp(address, port, share, local_address, socket_options)
                if is_given_up():  # anyio swallows cancellations there on Python 3.10
                    await made.aclose()
                    raise CancelledError
                own_connections.note(made)
                return AsyncBoundedStream(made, _deadline_of(timeout), proxy_tls=proxy_tls)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                if raised_by_signal(error, handled) is not None:
                    raise
                failure = error
        raise failure

"""httpx transports over httpcore pools whose sockets keep the deadline (``network``).

httpx makes pools of its own and takes no network backend. These do what its transports do, with one pool for each
proxy that the environment names.
"""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import Any, Generic, NoReturn, TypeVar, cast

import httpcore
import httpx

from ..api.errors import ConfigurationError
from .deadline import Deadline
from .network import AsyncBoundedBackend, BoundedBackend, NotingStream
from .proxies import Proxy, proxy_for
from .signal_errors import raised_by_signal
from .tls import Contexts

P = TypeVar("P")

_QUOTED = re.compile(r"[:'\"]|\bb'|\bbytearray")
"""Where h11 begins to quote what it was sent."""

_MEANINGS: dict[type[Exception], type[httpx.TransportError]] = {
    httpcore.ConnectTimeout: httpx.ConnectTimeout,
    httpcore.ReadTimeout: httpx.ReadTimeout,
    httpcore.WriteTimeout: httpx.WriteTimeout,
    httpcore.PoolTimeout: httpx.PoolTimeout,
    httpcore.ConnectError: httpx.ConnectError,
    httpcore.ReadError: httpx.ReadError,
    httpcore.WriteError: httpx.WriteError,
    httpcore.UnsupportedProtocol: httpx.UnsupportedProtocol,
    httpcore.LocalProtocolError: httpx.LocalProtocolError,
    httpcore.RemoteProtocolError: httpx.RemoteProtocolError,
    httpcore.TimeoutException: httpx.TimeoutException,
    httpcore.NetworkError: httpx.NetworkError,
    httpcore.ProtocolError: httpx.ProtocolError,
}


def _raise_as_of_httpx(error: Exception, handled: BaseException | None) -> NoReturn:
    """Raise what a failure of a pool is in httpx. ``handled``: what was being handled when the exchange began.

    Whatever else comes out of a pool, from TLS, from the loop or from the package that speaks to a SOCKS proxy, is a
    failed exchange too. If it escaped as it is, it would pass for an interrupt of the caller.

    What is no HTTP is not quoted: it can echo a credential.
    """
    wish = raised_by_signal(error, handled)
    if wish is not None:
        raise wish from None
    if isinstance(error, httpcore.RemoteProtocolError):
        raise httpx.RemoteProtocolError(_QUOTED.split(str(error), maxsplit=1)[0]) from None
    for kind in type(error).__mro__:
        meaning = _MEANINGS.get(kind)
        if meaning is not None:
            raise meaning(str(error)) from error
    raise httpx.TransportError(f"{type(error).__name__}: {error}") from error


def _raise_of_proxy(error: httpcore.ProxyError, proxy: Proxy | None) -> NoReturn:
    """Raise what a proxy's refusal means. httpcore gives the status and the proxy's own words, which are left out."""
    status = str(error)[:3]
    if proxy is not None and status == "407":
        refused = ConfigurationError(
            f"proxy: {proxy.name} wants a user and a password that it accepts (status 407): give them in the "
            "variable, as http://user:password@host:port",
            field="proxy",
        )
        refused.before_send = True  # it has handed nothing on
        raise refused from None
    raise httpx.ProxyError(f"status {status}" if status.isascii() and status.isdecimal() else str(error)) from None


def _forwards(proxy: Proxy | None, request: httpx.Request) -> bool:
    """Whether the proxy itself reads the request and hands it on; else it only carries bytes."""
    return proxy is not None and not proxy.socks and request.url.scheme == "http"


def _request(request: httpx.Request) -> httpcore.Request:
    url = request.url
    deadline = request.extensions.get("timeout")
    if isinstance(deadline, Deadline):
        deadline.watched = True
    return httpcore.Request(
        method=request.method,
        url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
        headers=request.headers.raw,
        content=cast("Any", request.stream),
        extensions=request.extensions,
    )


class _Pools(Generic[P]):
    """One pool for each proxy."""

    def __init__(self, make: Callable[[Proxy | None], P]) -> None:
        self._make = make
        self._by_place: dict[tuple[str, str, int | None], tuple[P, Proxy | None]] = {}
        self._by_proxy: dict[str, P] = {}

    def of(self, url: httpx.URL) -> tuple[P, Proxy | None]:
        """The pool for an address, and the proxy that it goes through."""
        place = (url.scheme, url.host, url.port)
        found = self._by_place.get(place)
        if found is None:
            proxy = proxy_for(url)
            # Two threads may come here at once: the first pool stands.
            named = "" if proxy is None else f"{proxy.name} {proxy.address.url}"
            pool = self._by_proxy.setdefault(named, self._make(proxy))
            found = self._by_place[place] = pool, proxy
        return found

    def all(self) -> list[P]:
        return list(self._by_proxy.values())


def _limits(most: int, idle: int, idle_seconds: float) -> dict[str, Any]:
    return {"max_connections": most, "max_keepalive_connections": idle, "keepalive_expiry": idle_seconds}


def _proxy_arguments(proxy: Proxy, contexts: Contexts) -> dict[str, Any]:
    url, auth = proxy.address.url, proxy.address.auth
    arguments: dict[str, Any] = {
        "proxy_url": httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
        "proxy_auth": None if auth is None else tuple(part.encode() for part in auth),
    }
    if not proxy.socks:
        arguments["proxy_headers"] = proxy.address.headers.raw
    if proxy.under_tls:
        arguments["proxy_ssl_context"] = contexts.for_proxies
    return arguments


def _connection_of(answer: httpcore.Response) -> NotingStream | None:
    stream = answer.extensions.get("network_stream")
    return stream if isinstance(stream, NotingStream) else None


class _Body(httpx.SyncByteStream):
    def __init__(self, stream: Iterable[bytes], connection: NotingStream | None) -> None:
        self._stream = stream
        self._connection = connection

    def __iter__(self) -> Iterator[bytes]:
        count, handled = 0, sys.exc_info()[1]
        try:
            for part in self._stream:
                count += len(part)
                yield part
            if self._connection is not None:  # still this call's: closing the stream gives it back to the pool
                self._connection.end_of_answer(count)
        except Exception as error:
            _raise_as_of_httpx(error, handled)

    def close(self) -> None:
        close, handled = getattr(self._stream, "close", None), sys.exc_info()[1]
        try:
            if close is not None:
                close()
        except Exception as error:
            _raise_as_of_httpx(error, handled)


class BoundedTransport(httpx.BaseTransport):
    """For ``httpx.Client``.

    Args:
        contexts: for TLS.
        most: connections of a pool at once.
        idle: of these without a call under way.
        idle_seconds: how long an idle one is kept.
    """

    def __init__(self, contexts: Contexts, *, most: int, idle: int, idle_seconds: float) -> None:
        def make(proxy: Proxy | None) -> httpcore.ConnectionPool:
            limits = _limits(most, idle, idle_seconds)
            shared = {"ssl_context": contexts.for_servers, "network_backend": BoundedBackend(proxy), **limits}
            if proxy is None:
                return httpcore.ConnectionPool(**shared)
            kind = httpcore.SOCKSProxy if proxy.socks else httpcore.HTTPProxy
            return cast("httpcore.ConnectionPool", kind(**_proxy_arguments(proxy, contexts), **shared))

        self._pools = _Pools(make)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; the body of the answer is still to be read."""
        pool, proxy = self._pools.of(request.url)
        handled = sys.exc_info()[1]
        try:
            answer = pool.handle_request(_request(request))
            if answer.status == 407 and _forwards(proxy, request):
                answer.close()
                raise httpcore.ProxyError("407")
        except httpcore.ProxyError as error:
            _raise_of_proxy(error, proxy)
        except Exception as error:
            _raise_as_of_httpx(error, handled)
        return httpx.Response(
            status_code=answer.status,
            headers=answer.headers,
            stream=_Body(cast("Iterable[bytes]", answer.stream), _connection_of(answer)),
            extensions=answer.extensions,
        )

    def close(self) -> None:
        """Close all connections."""
        for pool in self._pools.all():
            pool.close()


class _AsyncBody(httpx.AsyncByteStream):
    def __init__(self, stream: AsyncIterable[bytes], connection: NotingStream | None) -> None:
        self._stream = stream
        self._connection = connection

    async def __aiter__(self) -> AsyncIterator[bytes]:
        count, handled = 0, sys.exc_info()[1]
        try:
            async for part in self._stream:
                count += len(part)
                yield part
            if self._connection is not None:  # still this call's: closing the stream gives it back to the pool
                self._connection.end_of_answer(count)
        except Exception as error:
            _raise_as_of_httpx(error, handled)

    async def aclose(self) -> None:
        close, handled = getattr(self._stream, "aclose", None), sys.exc_info()[1]
        try:
            if close is not None:
                await close()
        except Exception as error:
            _raise_as_of_httpx(error, handled)


class AsyncBoundedTransport(httpx.AsyncBaseTransport):
    """For ``httpx.AsyncClient``. Arguments as of ``BoundedTransport``."""

    def __init__(self, contexts: Contexts, *, most: int, idle: int, idle_seconds: float) -> None:
        def make(proxy: Proxy | None) -> httpcore.AsyncConnectionPool:
            shared = {
                "ssl_context": contexts.for_servers,
                "network_backend": AsyncBoundedBackend(proxy),
                **_limits(most, idle, idle_seconds),
            }
            if proxy is None:
                return httpcore.AsyncConnectionPool(**shared)
            kind = httpcore.AsyncSOCKSProxy if proxy.socks else httpcore.AsyncHTTPProxy
            return cast("httpcore.AsyncConnectionPool", kind(**_proxy_arguments(proxy, contexts), **shared))

        self._pools = _Pools(make)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; the body of the answer is still to be read."""
        pool, proxy = self._pools.of(request.url)
        handled = sys.exc_info()[1]
        try:
            answer = await pool.handle_async_request(_request(request))
            if answer.status == 407 and _forwards(proxy, request):
                await answer.aclose()
                raise httpcore.ProxyError("407")
        except httpcore.ProxyError as error:
            _raise_of_proxy(error, proxy)
        except Exception as error:
            _raise_as_of_httpx(error, handled)
        return httpx.Response(
            status_code=answer.status,
            headers=answer.headers,
            stream=_AsyncBody(cast("AsyncIterable[bytes]", answer.stream), _connection_of(answer)),
            extensions=answer.extensions,
        )

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in self._pools.all():
            await pool.aclose()

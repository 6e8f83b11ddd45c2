"""httpx transports over httpcore pools whose sockets keep the deadline (``network``).

httpx makes pools of its own and takes no network backend. These do what its transports do, with one pool for each
proxy that the environment names.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import Any, Generic, NoReturn, TypeVar, cast

import httpcore
import httpx

from .network import AsyncBoundedBackend, BoundedBackend
from .proxies import proxy_for

P = TypeVar("P")

_MEANINGS: dict[type[Exception], type[httpx.TransportError]] = {
    httpcore.ConnectTimeout: httpx.ConnectTimeout,
    httpcore.ReadTimeout: httpx.ReadTimeout,
    httpcore.WriteTimeout: httpx.WriteTimeout,
    httpcore.PoolTimeout: httpx.PoolTimeout,
    httpcore.ConnectError: httpx.ConnectError,
    httpcore.ReadError: httpx.ReadError,
    httpcore.WriteError: httpx.WriteError,
    httpcore.ProxyError: httpx.ProxyError,
    httpcore.UnsupportedProtocol: httpx.UnsupportedProtocol,
    httpcore.LocalProtocolError: httpx.LocalProtocolError,
    httpcore.RemoteProtocolError: httpx.RemoteProtocolError,
    httpcore.TimeoutException: httpx.TimeoutException,
    httpcore.NetworkError: httpx.NetworkError,
    httpcore.ProtocolError: httpx.ProtocolError,
}


def _raise_as_of_httpx(error: Exception) -> NoReturn:
    """Raise what a failure of a pool is in httpx.

    Whatever else comes out of a pool, from TLS, from the loop or from the package that speaks to a SOCKS proxy, is a
    failed exchange too. If it escaped as it is, it would pass for an interrupt of the caller.
    """
    for kind in type(error).__mro__:
        meaning = _MEANINGS.get(kind)
        if meaning is not None:
            raise meaning(str(error)) from error
    raise httpx.TransportError(f"{type(error).__name__}: {error}") from error


def _request(request: httpx.Request) -> httpcore.Request:
    url = request.url
    return httpcore.Request(
        method=request.method,
        url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
        headers=request.headers.raw,
        content=cast("Any", request.stream),
        extensions=request.extensions,
    )


class _Pools(Generic[P]):
    """One pool for each proxy."""

    def __init__(self, make: Callable[[httpx.Proxy | None], P]) -> None:
        self._make = make
        self._by_place: dict[tuple[str, str, int | None], P] = {}
        self._by_proxy: dict[str, P] = {}

    def of(self, url: httpx.URL) -> P:
        place = (url.scheme, url.host, url.port)
        pool = self._by_place.get(place)
        if pool is None:
            proxy = proxy_for(url)
            # Two threads may come here at once: the first pool stands.
            pool = self._by_proxy.setdefault("" if proxy is None else str(proxy.url), self._make(proxy))
            self._by_place[place] = pool
        return pool

    def all(self) -> list[P]:
        return list(self._by_proxy.values())


def _limits(most: int, idle: int, idle_seconds: float) -> dict[str, Any]:
    return {"max_connections": most, "max_keepalive_connections": idle, "keepalive_expiry": idle_seconds}


def _proxy_arguments(proxy: httpx.Proxy) -> dict[str, Any]:
    url = proxy.url
    arguments: dict[str, Any] = {
        "proxy_url": httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
        "proxy_auth": None if proxy.auth is None else tuple(part.encode() for part in proxy.auth),
    }
    if not url.scheme.startswith("socks"):
        arguments["proxy_headers"] = proxy.headers.raw
    return arguments


class _Body(httpx.SyncByteStream):
    def __init__(self, stream: Iterable[bytes]) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._stream
        except Exception as error:
            _raise_as_of_httpx(error)

    def close(self) -> None:
        close = getattr(self._stream, "close", None)
        try:
            if close is not None:
                close()
        except Exception as error:
            _raise_as_of_httpx(error)


class BoundedTransport(httpx.BaseTransport):
    """For ``httpx.Client``.

    Args:
        context: for TLS; None where no address needs one.
        most: connections of a pool at once.
        idle: of these without a call under way.
        idle_seconds: how long an idle one is kept.
    """

    def __init__(self, context: ssl.SSLContext | None, *, most: int, idle: int, idle_seconds: float) -> None:
        def make(proxy: httpx.Proxy | None) -> httpcore.ConnectionPool:
            limits = _limits(most, idle, idle_seconds)
            shared = {"ssl_context": context, "network_backend": BoundedBackend(), **limits}
            if proxy is None:
                return httpcore.ConnectionPool(**shared)
            kind = httpcore.SOCKSProxy if proxy.url.scheme.startswith("socks") else httpcore.HTTPProxy
            return cast("httpcore.ConnectionPool", kind(**_proxy_arguments(proxy), **shared))

        self._pools = _Pools(make)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; the body of the answer is still to be read."""
        pool = self._pools.of(request.url)
        try:
            answer = pool.handle_request(_request(request))
        except Exception as error:
            _raise_as_of_httpx(error)
        return httpx.Response(
            status_code=answer.status,
            headers=answer.headers,
            stream=_Body(cast("Iterable[bytes]", answer.stream)),
            extensions=answer.extensions,
        )

    def close(self) -> None:
        """Close all connections."""
        for pool in self._pools.all():
            pool.close()


class _AsyncBody(httpx.AsyncByteStream):
    def __init__(self, stream: AsyncIterable[bytes]) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._stream:
                yield part
        except Exception as error:
            _raise_as_of_httpx(error)

    async def aclose(self) -> None:
        close = getattr(self._stream, "aclose", None)
        try:
            if close is not None:
                await close()
        except Exception as error:
            _raise_as_of_httpx(error)


class AsyncBoundedTransport(httpx.AsyncBaseTransport):
    """For ``httpx.AsyncClient``. Arguments as of ``BoundedTransport``."""

    def __init__(self, context: ssl.SSLContext | None, *, most: int, idle: int, idle_seconds: float) -> None:
        def make(proxy: httpx.Proxy | None) -> httpcore.AsyncConnectionPool:
            shared = {
                "ssl_context": context,
                "network_backend": AsyncBoundedBackend(),
                **_limits(most, idle, idle_seconds),
            }
            if proxy is None:
                return httpcore.AsyncConnectionPool(**shared)
            kind = httpcore.AsyncSOCKSProxy if proxy.url.scheme.startswith("socks") else httpcore.AsyncHTTPProxy
            return cast("httpcore.AsyncConnectionPool", kind(**_proxy_arguments(proxy), **shared))

        self._pools = _Pools(make)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; the body of the answer is still to be read."""
        pool = self._pools.of(request.url)
        try:
            answer = await pool.handle_async_request(_request(request))
        except Exception as error:
            _raise_as_of_httpx(error)
        return httpx.Response(
            status_code=answer.status,
            headers=answer.headers,
            stream=_AsyncBody(cast("AsyncIterable[bytes]", answer.stream)),
            extensions=answer.extensions,
        )

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in self._pools.all():
            await pool.aclose()

"""One HTTP exchange with httpx: its deadline, its request, and what its answer or failure means.

Shared by the synchronous and the asynchronous hook; nothing here waits.
"""

from __future__ import annotations

import os
import platform
import re
import ssl
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx
import msgspec

from ..api.calls import Call, RetryClass
from ..api.errors import (
    AuthenticationError,
    ConfigurationError,
    OrchestrationError,
    ServerError,
    TransportError,
    error_from_response,
)
from ..clock import Clock
from ..settings import MASK, Settings
from ..version import __version__

T = TypeVar("T")

LEAST_TIMEOUT = 0.001
"""Seconds: httpx takes 0 for "do not wait at all"."""
BODY_LIMIT = 256 * 2**20
"""Bytes: a longer answer is not read to its end."""


class Deadline(dict[str, float]):
    """httpx's timeouts for one exchange, as what is left until a moment.

    httpcore asks its timeout dictionary at the beginning of each phase (pool, connect, write, read).
    A dictionary of constants would allow each phase the whole time, one after the other; this one
    answers with the time that remains. A body that drips within its read timeout is bounded by
    ``check``, called for each chunk.
    """

    def __init__(self, clock: Clock, at: float) -> None:
        super().__init__(connect=0.0, read=0.0, write=0.0, pool=0.0)
        self._clock = clock
        self.at = at

    def left(self) -> float:
        """Seconds that remain, at least a little."""
        return max(LEAST_TIMEOUT, self.at - self._clock.monotonic())

    def get(self, key: str, default: Any = None) -> Any:
        """The time that remains, for each phase."""
        return self.left() if key in self else default

    def __getitem__(self, key: str) -> float:
        return self.left()

    def check(self, size: int) -> None:
        """Raise httpx.ReadTimeout once the moment has passed, httpx.ReadError for a body without an end."""
        if size > BODY_LIMIT:
            raise httpx.ReadError("the answer is too large")
        if self._clock.monotonic() > self.at:
            raise httpx.ReadTimeout("the answer was still arriving at the deadline")


class _Bounded(httpx.SyncByteStream):
    """A body whose deadline is checked per chunk."""

    def __init__(self, stream: Iterable[bytes], deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for chunk in self._stream:
            size += len(chunk)
            self._deadline.check(size)
            yield chunk

    def close(self) -> None:
        """Close what it wraps."""
        if isinstance(self._stream, httpx.SyncByteStream):
            self._stream.close()


class _AsyncBounded(httpx.AsyncByteStream):
    """As ``_Bounded``."""

    def __init__(self, stream: AsyncIterable[bytes], deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            self._deadline.check(size)
            yield chunk

    async def aclose(self) -> None:
        """Close what it wraps."""
        if isinstance(self._stream, httpx.AsyncByteStream):
            await self._stream.aclose()


def read_body(response: httpx.Response, deadline: Deadline) -> bytes:
    """The whole body; raises httpx.ReadTimeout at the deadline however it arrives."""
    if not response.is_stream_consumed and isinstance(response.stream, httpx.SyncByteStream):
        response.stream = _Bounded(response.stream, deadline)
    return response.read()


async def aread_body(response: httpx.Response, deadline: Deadline) -> bytes:
    """As ``read_body``."""
    if not response.is_stream_consumed and isinstance(response.stream, httpx.AsyncByteStream):
        response.stream = _AsyncBounded(response.stream, deadline)
    return await response.aread()


def user_agent(face: str | None = None) -> str:
    """``orchestration-integrations/<version> python/<version>`` and the framework, where one calls."""
    agent = f"orchestration-integrations/{__version__} python/{platform.python_version()}"
    return f"{agent} {face}" if face else agent


class Exchange:
    """Builds requests for one server and reads its answers. Remembers how far the server's clock is from ours."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        face: str | None = None,
        secrets: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._base_url = settings.base_url
        self._secrets = secrets
        self._clock = clock
        self._read_headers = httpx.Headers(
            {
                "Host": _host_header(settings.base_url),
                "Accept": "application/json",
                "Accept-Encoding": "gzip, deflate",
                "Connection": "keep-alive",
                "User-Agent": user_agent(face),
            }
        )
        self._submit_headers = self._read_headers.copy()
        self._submit_headers["Connection"] = "close"
        self._server_offset = 0.0

    def server_time(self) -> float:
        """Epoch seconds on the server's clock, by the Date of its latest answer; ours until it gave one."""
        return self._clock.time() + self._server_offset

    def request(self, call: Call[Any], deadline: Deadline) -> httpx.Request:
        """The request of a call. The body goes with a Content-Length: a chunked one is ignored by the server."""
        submit = call.retry is RetryClass.SUBMIT
        headers: Any = self._submit_headers if submit else self._read_headers
        if call.body is not None:
            headers = headers.copy()
            headers["Content-Type"] = "application/json"
        url = f"{self._base_url}{call.path}?{call.query}" if call.query else self._base_url + call.path
        return httpx.Request(call.method, url, headers=headers, content=call.body, extensions={"timeout": deadline})

    def result(self, call: Call[T], response: httpx.Response, body: bytes) -> T:
        """What the answer says. Raises the error that it means."""
        status = response.status_code
        date = response.headers.get("Date")
        if date is not None:
            self._learn_time(date)
        if 200 <= status < 300:
            return call.decode(body, call.what)
        for secret in self._secrets():
            body = body.replace(secret.encode(), MASK.encode())  # a server may echo what it was sent
        raise error_from_response(
            call.what, status, body, retry_after=response.headers.get("Retry-After"), now=self.server_time()
        )

    def failure(self, call: Call[Any], request: httpx.Request, error: Exception) -> OrchestrationError:
        """What a failure of httpx means: above all, whether the request can have reached the server."""
        return transport_error(call.what, request, error)

    def _learn_time(self, date: str) -> None:
        if date == getattr(self, "_last_date", None):
            return
        self._last_date = date
        try:
            server = parsedate_to_datetime(date).timestamp()
        except (TypeError, ValueError, OverflowError):
            return
        offset = server - self._clock.time()
        # The header is cut to whole seconds; so small a difference says nothing.
        self._server_offset = offset if abs(offset) > 2.0 else 0.0


_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)


def transport_error(what: str, request: httpx.Request, error: Exception) -> TransportError:
    """A TransportError that says whether the request surely never left.

    Where another request than the call's own failed, it was the one for a token: requests are told
    apart by identity, since httpx writes an address in its own way.
    """
    failed: object = request
    if isinstance(error, httpx.HTTPError):
        try:
            failed = error.request
        except RuntimeError:
            failed = request
    for_token = failed is not request
    detail = str(error)
    failure = TransportError(
        f"{what}: {type(error).__name__}{': ' + detail if detail else ''}",
        sent=not for_token and not isinstance(error, _NOT_SENT),
    )
    failure.before_send = for_token
    return failure


def ssl_context(settings: Settings) -> ssl.SSLContext | bool:
    """What httpx verifies with; built once for all connections of a hook. Raises ConfigurationError."""
    if not settings.base_url.startswith("https") and not (settings.token_url or "").startswith("https"):
        return True
    try:
        if isinstance(settings.verify, bool):
            context = httpx.create_ssl_context(verify=settings.verify)
        elif os.path.isdir(settings.verify):
            context = ssl.create_default_context(capath=settings.verify)
        else:
            context = ssl.create_default_context(cafile=settings.verify)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"verify: no usable CA bundle: {error}", field="verify") from None
    if settings.cert is not None:
        pair = settings.cert if isinstance(settings.cert, tuple) else (settings.cert, None)
        try:
            context.load_cert_chain(*pair)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"cert: no usable client certificate: {error}", field="cert") from None
    return context


def _host_header(base_url: str) -> str:
    return base_url.split("://", 1)[1].split("/", 1)[0]


def token_failure(status: int, body: bytes, retry_after: str | None) -> OrchestrationError:
    """The error of a token endpoint that gave no token. The call that needed it was not sent."""
    what = "access token"
    if status in (400, 401, 403, 404, 422):
        said = _oauth_error(body)
        return AuthenticationError(
            f"{what}: the token endpoint answered {status}{': ' + said if said else ''}: check token_url, credentials",
            status_code=status,
        )
    if 200 <= status < 300:
        failure: OrchestrationError = ServerError(
            f"{what}: the token endpoint answered {status} without a usable token", status_code=status
        )
    else:
        failure = error_from_response(what, status, b"", retry_after=retry_after, now=time.time())
    failure.before_send = True
    return failure


def _oauth_error(body: bytes) -> str:
    """The ``error`` code of an OAuth2 answer; its free text is not quoted, it may echo what was sent."""
    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    code = decoded.get("error") if isinstance(decoded, dict) else None
    return code if isinstance(code, str) and re.fullmatch(r"[a-z_]{1,40}", code) else ""

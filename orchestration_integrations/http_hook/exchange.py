"""One HTTP exchange with httpx: its request, its body, and what its answer or failure means. Nothing here waits."""

from __future__ import annotations

import platform
import ssl
from collections.abc import Callable, Iterable, Iterator
from email.utils import parsedate_to_datetime
from functools import lru_cache
from io import BytesIO
from typing import Any, TypeVar

import httpx

from ..api.calls import Call, RetryClass
from ..api.errors import (
    ConfigurationError,
    OrchestrationError,
    TransportError,
    UnreadableAnswerError,
    error_from_response,
)
from ..clock import Clock
from ..settings import MASK, Settings
from ..version import __version__
from .deadline import Deadline
from .reachable import serves_a_test

T = TypeVar("T")

_SUCCESS = (200, 201, 202, 204)
_parsed = lru_cache(maxsize=256)(httpx.URL)  # whoever waits asks for the same again and again
LEAST_OFFSET = 2.0
"""Seconds by which two clocks may differ that count as equal."""
MOST_OFFSET = 366 * 86400.0
"""Seconds by which a server's clock may be off. A test may freeze ours at any date, and its server's goes on."""
SHORTEST_IN_BODY = 8
"""Bytes: a shorter secret stands in answers by chance."""
BODY_LIMIT = 64 * 2**20
"""Bytes, unpacked: a longer answer is not read to its end."""


def read_body(response: httpx.Response, deadline: Deadline) -> bytes:
    """The whole body, unpacked. Raises httpx.ReadTimeout at the deadline, httpx.ReadError for one that is too large."""
    _check_packing(response)
    body = BytesIO()  # it gives what it holds without a copy: a list can be large
    for part in response.iter_bytes():
        _check(body.tell() + len(part), deadline)
        body.write(part)
    return body.getvalue()


async def aread_body(response: httpx.Response, deadline: Deadline) -> bytes:
    """As ``read_body``."""
    _check_packing(response)
    body = BytesIO()
    async for part in response.aiter_bytes():
        _check(body.tell() + len(part), deadline)
        body.write(part)
    return body.getvalue()


def _check_packing(response: httpx.Response) -> None:
    """A body that is packed twice can unpack to a million times its length, a piece at a time."""
    if "," in response.headers.get("Content-Encoding", ""):
        raise httpx.DecodingError("the answer is packed more than once")


def _check(size: int, deadline: Deadline) -> None:
    if size > BODY_LIMIT:
        raise httpx.ReadError(f"the answer is longer than {BODY_LIMIT} bytes")
    if deadline.remaining() < 0:
        raise httpx.ReadTimeout("the answer was still arriving at the deadline")


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
        self.agent = user_agent(face)
        self._clock = clock
        self._read_headers = httpx.Headers(
            {
                "Host": _host_header(settings.base_url),
                "Accept": "application/json",
                "Accept-Encoding": "gzip, deflate",
                "Connection": "keep-alive",
                "User-Agent": self.agent,
            }
        )
        self._submit_headers = self._read_headers.copy()
        self._submit_headers["Connection"] = "close"
        self._server_offset = 0.0
        self._last_date: str | None = None
        self._learned_at = 0.0

    def server_time(self) -> float:
        """Epoch seconds on the server's clock, by the Date of its latest answer; ours until it gave one."""
        return self._clock.time() + self._server_offset

    def request(self, call: Call[Any], deadline: Deadline, token: str | None = None) -> httpx.Request:
        """The request of a call. The body goes with a Content-Length: the server ignores a chunked one."""
        headers = self._submit_headers if call.retry is RetryClass.SUBMIT else self._read_headers
        url = f"{self._base_url}{call.path}?{call.query}" if call.query else self._base_url + call.path
        made = httpx.Request(
            call.method, _parsed(url), headers=headers, content=call.body, extensions={"timeout": deadline}
        )
        if token is not None:
            made.headers["Authorization"] = f"Bearer {token}"
        if call.body is not None:
            made.headers["Content-Type"] = "application/json"
        return made

    def result(self, call: Call[T], response: httpx.Response, body: bytes) -> T:
        """What the answer says. Raises the error that it means."""
        status = response.status_code
        date = response.headers.get("Date")
        if date is not None:
            self._learn_time(date)
        if status in _SUCCESS:
            return call.decode(body, call.what)
        if 200 <= status < 300:
            raise UnreadableAnswerError(
                f"{call.what}: the answer cannot be read: it is a part of one, or none yet ({status})",
                status_code=status,
                server_message=f"unreadable answer: status {status}",
            )
        retry_after = response.headers.get("Retry-After")
        raise call.advised(
            error_from_response(call.what, status, body, retry_after=retry_after, now=self.server_time())
        )

    def masked(self, body: bytes) -> bytes:
        """An answer without the secrets that a server may echo: it stays in ``raw`` and in messages."""
        for secret in self._secrets():
            encoded = secret.encode()
            if len(encoded) >= SHORTEST_IN_BODY and encoded in body:
                body = body.replace(encoded, MASK.encode())
        return body

    def mask(self, error: OrchestrationError) -> None:
        """Mask the texts of an error, and drop its causes where they quote a secret: servers and proxies echo them."""
        secrets = self._secrets()
        for secret in secrets:
            error.args = tuple(one.replace(secret, MASK) if isinstance(one, str) else one for one in error.args)
            for name, value in error.__dict__.items():
                if isinstance(value, str) and secret in value:
                    setattr(error, name, value.replace(secret, MASK))
        if any(secret in str(one) for one in _causes(error) for secret in secrets):
            error.__cause__, error.__suppress_context__ = None, True

    def _learn_time(self, date: str) -> None:
        ours = self._clock.time()
        if date == self._last_date and abs(ours - self._learned_at) <= LEAST_OFFSET:
            return
        self._last_date, self._learned_at = date, ours
        try:
            server = parsedate_to_datetime(date).timestamp()
        except (TypeError, ValueError, OverflowError):
            return
        offset = server - ours
        if abs(offset) > MOST_OFFSET and not serves_a_test():
            return  # no clock is so wrong
        # The header is cut to whole seconds; so small a difference says nothing.
        self._server_offset = offset if abs(offset) > LEAST_OFFSET else 0.0


_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)


def failure_of(what: str, error: Exception, deadline: Deadline, server: str) -> OrchestrationError:
    """What a failure of httpx means: above all, whether a part of the request can have reached the server.

    Where sockets noted what they were handed, that note counts. Another transport is judged by the kind of the failure.

    Args:
        what: was to be done.
        error: the failure.
        deadline: of the exchange.
        server: its address, for the message.
    """
    certificate = _certificate_error(error)
    if certificate is not None:
        whose = (
            "the server's certificate" if deadline.proxy is None else f"the certificate of the proxy {deadline.proxy}"
        )
        refused = ConfigurationError(
            f"{what}: {whose} is not trusted ({certificate.verify_message}): set verify to the path "
            "of a bundle with its authority",
            field="verify",
        )
        refused.before_send = True
        return refused
    unreached = isinstance(error, _NOT_SENT)
    detail = f"{type(error).__name__}{': ' + str(error) if str(error) else ''}"
    if deadline.proxy is not None:
        detail = f"the proxy {deadline.proxy} let nothing through: {detail}"
    elif unreached:
        detail = f"{server} could not be reached: {detail}"
    if "WRONG_VERSION_NUMBER" in detail:
        detail += "; the server may speak plain http: try http:// in base_url"
    return TransportError(f"{what}: {detail}", sent=deadline.sent if deadline.watched else not unreached)


def _certificate_error(error: BaseException) -> ssl.SSLCertVerificationError | None:
    """The refusal of a certificate among the causes of a failure."""
    return next((one for one in (error, *_causes(error)) if isinstance(one, ssl.SSLCertVerificationError)), None)


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause = error.__cause__ or error.__context__
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _host_header(base_url: str) -> str:
    """The host as it stands in a request: encoded, where it is not ASCII."""
    return httpx.URL(base_url).netloc.decode("ascii")

"""Who is calling: nobody, the bearer of a ready-made token, or an OAuth2 client.

The client's token is shared by all calls of a hook, fetched by one of them while the others wait,
and renewed early. A 401 drops only the token that was used, so that of fifty calls that fail
together one fetches anew, and each is replayed once. Without a token nothing is sent.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable, Generator
from typing import TYPE_CHECKING
from urllib.parse import urlencode
from weakref import WeakKeyDictionary

import httpx
import msgspec

from ..api.errors import TransportError
from ..clock import Clock
from ..settings import Settings, is_header_safe
from .exchange import Deadline, aread_body, read_body, token_failure

if TYPE_CHECKING:
    import asyncio

EARLY = 30.0
"""Seconds before its end at which a token counts as over; a quarter of its life where that is less."""


class BearerAuth(httpx.Auth):
    """Sends one token."""

    def __init__(self, token: str) -> None:
        self._header = f"Bearer {token}"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the header. A 401 is final: there is nothing to renew."""
        request.headers["Authorization"] = self._header
        yield request


class ClientCredentialsAuth(httpx.Auth):
    """OAuth2 client credentials, for both kinds of client, any number of threads and event loops."""

    def __init__(self, settings: Settings, clock: Clock, on_token: Callable[[str], None] | None = None) -> None:
        if settings.client_id is None or settings.client_secret is None or settings.token_url is None:
            raise ValueError("client_id, client_secret and token_url are needed")
        form = {
            "grant_type": "client_credentials",
            "client_id": settings.client_id,
            "client_secret": settings.client_secret,
        }
        if settings.scope:
            form["scope"] = settings.scope
        self._form = urlencode(form).encode()
        self._url = settings.token_url
        self._clock = clock
        self._on_token = on_token
        self._token: str | None = None
        self._over_at = 0.0
        self._lock = threading.Lock()
        self._loop_locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()

    @property
    def token(self) -> str | None:
        """The token in use, so that it can be kept out of messages."""
        return self._token

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send with a token; after a 401 once more with another."""
        used = yield from self._sync_token(request)
        _put(request, used)
        response = yield request
        if response.status_code == 401:
            read_body(response, _deadline(request))
            self._drop(used)
            _put(request, (yield from self._sync_token(request)))
            yield request

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """As ``sync_auth_flow``."""
        import asyncio  # not needed by the blocking hook, and slow to import

        for attempt in (1, 2):
            token = self._current()
            if token is None:
                with self._lock:
                    lock = self._loop_locks.setdefault(asyncio.get_running_loop(), asyncio.Lock())
                try:
                    await asyncio.wait_for(lock.acquire(), _deadline(request).left())
                except asyncio.TimeoutError:
                    raise _waited_too_long() from None
                try:
                    token = self._current()
                    if token is None:
                        answer = yield self._token_request(request)
                        body = await aread_body(answer, _deadline(request))
                        token = self._keep(answer, body)
                finally:
                    lock.release()
            _put(request, token)
            response = yield request
            if response.status_code != 401 or attempt == 2:
                return
            await aread_body(response, _deadline(request))
            self._drop(token)

    def _sync_token(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, str]:
        token = self._current()
        if token is not None:
            return token
        if not self._lock.acquire(timeout=_deadline(request).left()):
            raise _waited_too_long()
        try:
            token = self._current()
            if token is None:
                answer = yield self._token_request(request)
                token = self._keep(answer, read_body(answer, _deadline(request)))
            return token
        finally:
            self._lock.release()

    def _current(self) -> str | None:
        return self._token if self._token is not None and self._clock.monotonic() < self._over_at else None

    def _drop(self, token: str) -> None:
        if self._token == token:
            self._token = None

    def _token_request(self, request: httpx.Request) -> httpx.Request:
        return httpx.Request(
            "POST",
            self._url,
            headers={
                "Content-Type": "application/x-www-form-urlencoded",
                "Accept": "application/json",
                "User-Agent": request.headers["User-Agent"],
            },
            content=self._form,
            extensions={"timeout": request.extensions["timeout"]},
        )

    def _keep(self, answer: httpx.Response, body: bytes) -> str:
        token, life = None, None
        if 200 <= answer.status_code < 300:
            try:
                decoded = msgspec.json.decode(body)
            except (msgspec.DecodeError, UnicodeDecodeError):
                decoded = None
            if isinstance(decoded, dict):
                token, life = decoded.get("access_token"), decoded.get("expires_in")
        token = token.strip() if isinstance(token, str) else ""
        if not is_header_safe(token):
            raise token_failure(answer.status_code, body, answer.headers.get("Retry-After"))
        try:
            seconds = float(life) if life is not None and not isinstance(life, bool) else float("inf")
        except (TypeError, ValueError, OverflowError):
            seconds = float("inf")
        if self._on_token is not None:
            self._on_token(token)
        self._over_at = self._clock.monotonic() + max(0.0, seconds - min(EARLY, seconds / 4))
        self._token = token
        return token


def _put(request: httpx.Request, token: str) -> None:
    request.headers["Authorization"] = f"Bearer {token}"


def _deadline(request: httpx.Request) -> Deadline:
    deadline = request.extensions["timeout"]
    assert isinstance(deadline, Deadline)  # noqa: S101
    return deadline


def _waited_too_long() -> TransportError:
    error = TransportError("access token: another call was still fetching it at the deadline", sent=False)
    error.before_send = True
    return error


def auth_for(settings: Settings, clock: Clock, on_token: Callable[[str], None] | None = None) -> httpx.Auth | None:
    """The authentication that the settings ask for; None for none."""
    if settings.token is not None:
        return BearerAuth(settings.token)
    if settings.client_id is not None:
        return ClientCredentialsAuth(settings, clock, on_token)
    return None

"""Who is calling: nobody, the bearer of a ready-made token, or an OAuth2 client.

A client's token is shared by all hooks of the same settings in a process. One call fetches it while the others wait,
and renews it early. A 401 drops only the token that was used, so that of fifty calls that fail together one fetches
anew, and each is replayed once. Without a token nothing is sent.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode
from weakref import WeakKeyDictionary

import httpx

from ..api.errors import (
    AuthenticationError,
    OrchestrationError,
    TransportError,
    UnreadableAnswerError,
    error_from_response,
)
from ..api.json_text import decoded
from ..clock import Clock
from ..settings import Settings, is_header_safe
from .deadline import Deadline
from .places import Places
from .token_listeners import TokenListeners

if TYPE_CHECKING:
    import asyncio

EARLY = 30.0
"""Seconds before its end at which a token counts as over; a quarter of its life where that is less."""
REMEMBERED = 16
"""Fetched tokens that are kept out of messages."""
WHAT = "access token"


class Tokens:
    """The access token of some settings.

    Args:
        settings: name the token, or the client that gets one.
        clock: gives monotonic time.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._given = settings.token
        self._url = settings.token_url or ""
        self._clock = clock
        self._token: str | None = None
        self._fetched: deque[str] = deque(maxlen=REMEMBERED)
        self._over_at = 0.0
        self._lock = threading.Lock()
        self._short_lock = threading.Lock()  # the other one is held as long as a thread fetches
        self._of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, Places] = WeakKeyDictionary()
        self.listeners = TokenListeners()
        self.fetches = settings.client_id is not None
        form = {
            "grant_type": "client_credentials",
            "client_id": settings.client_id or "",
            "client_secret": settings.client_secret or "",
        }
        if settings.scope:
            form["scope"] = settings.scope
        self._form = urlencode(form).encode()

    @property
    def fetched(self) -> tuple[str, ...]:
        """The tokens that were fetched lately, so that they can be kept out of messages."""
        return tuple(self._fetched)

    def current(self) -> str | None:
        """The token to send; None where one must be fetched, or none is used."""
        if not self.fetches:
            return self._given
        return self._token if self._token is not None and self._clock.monotonic() < self._over_at else None

    def drop(self, token: str) -> None:
        """The server has refused this token."""
        if self._token == token:
            self._over_at = 0.0

    @contextmanager
    def alone(self, deadline: Deadline) -> Iterator[None]:
        """While one thread fetches, the others wait. Raises TransportError at the deadline."""
        if not self._lock.acquire(timeout=deadline.left()):
            raise _waited_too_long()
        try:
            yield
        finally:
            self._lock.release()

    @asynccontextmanager
    async def aalone(self, deadline: Deadline) -> AsyncIterator[None]:
        """As ``alone``, for the tasks of a loop."""
        from asyncio import get_running_loop  # not needed by the blocking hook, and slow to import

        loop = get_running_loop()
        with self._short_lock:
            place = self._of_loops.get(loop)
            if place is None:
                place = self._of_loops[loop] = Places(1)
        try:
            await place.take(deadline.left())
        except httpx.PoolTimeout:
            raise _waited_too_long() from None
        try:
            yield
        finally:
            place.give_back()

    def request(self, agent: str, deadline: Deadline) -> httpx.Request:
        """The request for a token."""
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Accept": "application/json",
            "User-Agent": agent,
        }
        return httpx.Request("POST", self._url, headers=headers, content=self._form, extensions={"timeout": deadline})

    def keep(self, answer: httpx.Response, body: bytes) -> str:
        """The token of an answer, which is in use from now on. Raises the error that another answer means."""
        token, life = None, None
        if 200 <= answer.status_code < 300:
            said = _object(body)
            token, life = said.get("access_token"), said.get("expires_in")
        token = token.strip() if isinstance(token, str) else ""
        if not is_header_safe(token):
            raise _refused(answer.status_code, body, answer.headers.get("Retry-After"))
        try:
            seconds = float(life) if life is not None and not isinstance(life, bool) else float("inf")
        except (TypeError, ValueError, OverflowError):
            seconds = float("inf")
        self._over_at = self._clock.monotonic() + max(0.0, seconds - min(EARLY, seconds / 4))
        self._token = token
        self._fetched.append(token)
        return token


def _waited_too_long() -> TransportError:
    error = TransportError(f"{WHAT}: another call was still fetching it at the deadline", sent=False)
    error.before_send = True
    return error


def _refused(status: int, body: bytes, retry_after: str | None) -> OrchestrationError:
    """The error of a token endpoint that gave no token. The call that needed it was not sent."""
    if status in (400, 401, 403, 404, 422):
        said = _oauth_error(body)
        return AuthenticationError(
            f"{WHAT}: the token endpoint answered {status}{': ' + said if said else ''}: check token_url, credentials",
            status_code=status,
        )
    if 200 <= status < 300:
        failure: OrchestrationError = UnreadableAnswerError(
            f"{WHAT}: the token endpoint answered {status} without a usable token", status_code=status
        )
    else:
        failure = error_from_response(WHAT, status, b"", retry_after=retry_after, now=time.time())
    failure.before_send = True
    return failure


def _oauth_error(body: bytes) -> str:
    """The ``error`` code of an OAuth2 answer; its free text is not quoted, it may echo what was sent."""
    code = _object(body).get("error")
    return code if isinstance(code, str) and re.fullmatch(r"[a-z_]{1,40}", code) else ""


def _object(body: bytes) -> dict[str, Any]:
    """The JSON object of an answer; an empty one where it is none."""
    try:
        found = decoded(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}

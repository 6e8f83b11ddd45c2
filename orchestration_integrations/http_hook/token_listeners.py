"""Who is told of access tokens, so that they can be kept out of logs: before a hook first sends one.

A listener may block: it asks a vault, or takes a lock. The asynchronous side must not stand still for that, since one
loop may serve the waits of every hook of a process. So it calls a plain listener in a thread of its own, and awaits an
asynchronous one as a task of its own, each until the deadline of the call that needs the token and without any lock.
A call that has not returned by then goes on by itself: it is neither cut off nor made a second time meanwhile.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable
from weakref import WeakValueDictionary

from ..api.errors import TransportError
from .deadline import Deadline

if TYPE_CHECKING:
    import asyncio

logger = logging.getLogger("orchestration_integrations.hook")

_telling: set[asyncio.Task[Any]] = set()
"""Calls under way: an event loop itself keeps only weak references."""


@runtime_checkable
class ListenerOfBoth(Protocol):
    """A listener that the blocking side calls, and the asynchronous side awaits on the loop that needs the token."""

    def __call__(self, token: str) -> object: ...

    async def ahear(self, token: str) -> None:
        """As a call, without blocking the loop."""


class TokenListener:
    """One listener, however many hooks have it. It is told each token once.

    Args:
        function: plain or asynchronous, or a ``ListenerOfBoth``. Whatever it raises is logged by its kind alone, and
            does not keep the token from being used.

    Attributes:
        heard: the token that it was told last.
    """

    def __init__(self, function: Callable[[str], object]) -> None:
        self.function = function
        self.heard: str | None = None
        self._asynchronous = _asynchronous(function)
        self._lock = threading.Lock()  # held as long as a thread tells
        self._short_lock = threading.Lock()
        self._under_way: Future[None] | None = None
        self._left_out = False

    def hear(self, token: str, deadline: Deadline) -> None:
        """Tell it in this thread, which it may block. Raises TransportError where another thread is at it too long.

        Nobody can await an asynchronous one here: that is logged once, and the asynchronous side tells it, if it uses
        the token.
        """
        if self.heard == token:
            return
        if self._asynchronous is not None and not isinstance(self.function, ListenerOfBoth):
            if not self._left_out:
                logger.warning("on_token is asynchronous: a blocking hook cannot await it, so it is not told")
            self._left_out = True
            return
        if not self._lock.acquire(timeout=deadline.left()):
            raise _too_long()
        try:
            if self.heard != token:
                self._call(token)
        finally:
            self._lock.release()

    async def ahear(self, token: str, deadline: Deadline) -> None:
        """Tell it without blocking the loop. Raises TransportError where it has not returned by the deadline."""
        if self.heard == token:
            return
        from asyncio import wait, wrap_future  # not needed by the blocking hook, and slow to import

        while self.heard != token:
            with self._short_lock:
                call = self._under_way
                if call is None or call.done():
                    call = self._under_way = self._begin(token)
            done, _ = await wait({wrap_future(call)}, timeout=deadline.left())
            if not done:
                raise _too_long()

    def _begin(self, token: str) -> Future[None]:
        through: Future[None] = Future()
        if self._asynchronous is not None:
            from asyncio import get_running_loop

            task = get_running_loop().create_task(self._await(self._asynchronous(token), token))
            _telling.add(task)
            task.add_done_callback(_telling.discard)
            task.add_done_callback(lambda _: _end(through))
        else:

            def work() -> None:
                try:
                    self._call(token)
                finally:
                    _end(through)

            threading.Thread(target=work, name="orchestration-token", daemon=True).start()
        return through

    def _call(self, token: str) -> None:
        try:
            answer = self.function(token)
            if inspect.iscoroutine(answer):
                answer.close()
                raise TypeError("a plain listener returned a coroutine: give the asynchronous function itself")
        except Exception as error:
            _failed(error)
        self.heard = token

    async def _await(self, call: Coroutine[Any, Any, object], token: str) -> None:
        try:
            await call
        except Exception as error:
            _failed(error)
        self.heard = token


class TokenListeners:
    """The listeners of one token, each function once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: WeakValueDictionary[Callable[[str], object], TokenListener] = WeakValueDictionary()

    def of(self, function: Callable[[str], object]) -> TokenListener:
        """The listener that a function is; who gets it must hold it."""
        try:
            hash(function)
        except TypeError:
            return TokenListener(function)
        with self._lock:
            found = self._known.get(function)
            if found is None:
                found = self._known[function] = TokenListener(function)
            return found


def _asynchronous(function: Callable[[str], object]) -> Callable[[str], Coroutine[Any, Any, object]] | None:
    """What is to be awaited; None for a plain function."""
    if isinstance(function, ListenerOfBoth):
        return function.ahear
    called = getattr(type(function), "__call__", None)  # noqa: B004  # an object may have an asynchronous one
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called):
        return function  # type: ignore[return-value]
    return None


def _end(call: Future[None]) -> None:
    if not call.done():
        call.set_result(None)


def _failed(error: Exception) -> None:
    logger.warning("a listener of access tokens (on_token) failed: %s", type(error).__name__)


def _too_long() -> TransportError:
    error = TransportError(
        "access token: whoever is told of it (on_token) had not returned at the deadline", sent=False
    )
    error.before_send = True
    return error

"""What the hooks of a process share: for the same settings one access token, one TLS context, one set of connections.

**Forks.** A child has copies of its parent's sockets, and of what its other threads had locked. Answers would go to
either process. So whatever was made in another process is left to it: a child makes its own at its first call.

**Interrupted calls.** A call that a cancellation or a signal breaks off can leave its place in a pool taken for good.
So the client whose call was broken off is given up: calls that are under way end on it, later ones get a new client,
and the last call closes it.
"""

from __future__ import annotations

import os
import ssl
import threading
from collections import OrderedDict
from types import TracebackType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

import httpx

from ..api.calls import RetryClass
from ..clock import SYSTEM_CLOCK, Clock
from ..settings import Settings
from .auth import Tokens
from .tls import needs_tls, ssl_context
from .transport import AsyncBoundedTransport, BoundedTransport, Limits

if TYPE_CHECKING:
    import asyncio

IDLE_SECONDS = 30.0
"""Seconds for which an idle connection is kept."""
MOST_SETTINGS = 32
"""Settings whose tokens and contexts a process keeps while no hook has them."""


class _Lent:
    """Counts the calls that are under way on a client."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self._lock = threading.Lock()
        self._calls = 0
        self._given_up = False

    @property
    def usable(self) -> bool:
        """Whether another call may begin on it."""
        return not self._given_up and self.process == os.getpid()

    def begin(self) -> None:
        with self._lock:
            self._calls += 1

    def end(self, broken_off: bool) -> bool:
        """Returns whether the client is to be closed now."""
        with self._lock:
            self._calls -= 1
            self._given_up = self._given_up or broken_off
            return self._given_up and self._calls == 0

    def give_up(self) -> bool:
        """No further call begins. Returns whether the client is to be closed now."""
        with self._lock:
            first, self._given_up = not self._given_up, True
            return first and self._calls == 0


class BlockingClient(_Lent):
    """A client that is lent to calls of any thread."""

    def __init__(self, client: httpx.Client) -> None:
        super().__init__()
        self.client = client

    def __enter__(self) -> httpx.Client:
        self.begin()
        return self.client

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if self.end(kind is not None and not issubclass(kind, Exception)):
            self.client.close()

    def close(self) -> None:
        """Close it, once the last call is through."""
        if self.give_up():
            self.client.close()


class AsyncClient(_Lent):
    """A client that is lent to the tasks of one loop."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        super().__init__()
        self.client = client

    async def __aenter__(self) -> httpx.AsyncClient:
        self.begin()
        return self.client

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if self.end(kind is not None and not issubclass(kind, Exception)):
            await self.client.aclose()

    async def close(self) -> None:
        """Close it, once the last call is through."""
        if self.give_up():
            await self.client.aclose()


class _OfLoop:
    """The clients of one event loop, and the hooks that use them."""

    def __init__(self) -> None:
        self.clients: dict[RetryClass, AsyncClient] = {}
        self.holders: WeakSet[object] = WeakSet()


class Connections:
    """Token, TLS context and clients of some settings.

    Args:
        settings: say where the server is, and how many connections may be open.
        clock: gives monotonic time.
        transport: in place of sockets, for tests.
    """

    def __init__(self, settings: Settings, clock: Clock = SYSTEM_CLOCK, transport: Any = None) -> None:
        self.process = os.getpid()
        self.tokens = Tokens(settings, clock)
        self._settings = settings
        self._transport = transport
        self._lock = threading.RLock()
        self._context: ssl.SSLContext | None = None
        self._has_context = not needs_tls(settings)
        self._clients: dict[RetryClass, BlockingClient] = {}
        self._holders: WeakSet[object] = WeakSet()
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _OfLoop] = WeakKeyDictionary()

    @property
    def usable(self) -> bool:
        """Whether they are of this process."""
        return self.process == os.getpid()

    @property
    def idle(self) -> bool:
        """Whether no hook has them."""
        return not self._holders and not any(loop.holders for loop in self._loops.values())

    def client(self, retry: RetryClass, holder: object) -> BlockingClient:
        """The client for calls of a class; the holder has it until ``release``."""
        with self._lock:
            self._holders.add(holder)
            lent = self._clients.get(retry)
            if lent is None or not lent.usable:
                transport = self._transport or BoundedTransport(self._ready_context(), self._limits(retry))
                made = httpx.Client(transport=transport, follow_redirects=False, trust_env=False)
                lent = self._clients[retry] = BlockingClient(made)
            return lent

    def release(self, holder: object) -> None:
        """A hook no longer uses them: with the last one all connections are closed."""
        with self._lock:
            self._holders.discard(holder)
            if self._holders or not self.usable:
                return
            clients, self._clients = self._clients, {}
        for lent in clients.values():
            lent.close()

    async def aclient(self, retry: RetryClass, holder: object) -> AsyncClient:
        """As ``client``, for the running loop."""
        from asyncio import get_running_loop  # not needed by the blocking hook, and slow to import

        loop = get_running_loop()
        if not self._has_context:
            # Reading CA bundles takes tens of milliseconds: not on the loop.
            await loop.run_in_executor(None, self._ready_context)
        with self._lock:
            for closed in [one for one in self._loops if one.is_closed()]:
                del self._loops[closed]
            of_loop = self._loops.setdefault(loop, _OfLoop())
            of_loop.holders.add(holder)
            lent = of_loop.clients.get(retry)
            if lent is None or not lent.usable:
                transport = self._transport or AsyncBoundedTransport(self._ready_context(), self._limits(retry))
                made = httpx.AsyncClient(transport=transport, follow_redirects=False, trust_env=False)
                lent = of_loop.clients[retry] = AsyncClient(made)
            return lent

    async def arelease(self, holder: object) -> None:
        """As ``release``, for the running loop."""
        from asyncio import get_running_loop

        with self._lock:
            of_loop = self._loops.get(get_running_loop())
            if of_loop is None:
                return
            of_loop.holders.discard(holder)
            if of_loop.holders or not self.usable:
                return
            clients, of_loop.clients = of_loop.clients, {}
        for lent in clients.values():
            await lent.close()

    def _limits(self, retry: RetryClass) -> Limits:
        """Submits go over fresh connections: a stale one would make a routine submit ambiguous."""
        most = self._settings.max_connections
        submit = retry is RetryClass.SUBMIT
        return Limits(most, 0 if submit else most, 0.0 if submit else IDLE_SECONDS)

    def _ready_context(self) -> ssl.SSLContext | None:
        with self._lock:
            if not self._has_context:
                self._context = ssl_context(self._settings)
                self._has_context = True
            return self._context


_shared: OrderedDict[Settings, Connections] = OrderedDict()
_lock = threading.RLock()  # a signal's handler may come while its own thread holds it


def shared_connections(settings: Settings) -> Connections:
    """The connections of all hooks of this process that reach the same server in the same way."""
    alike = settings.with_changes(timeout=10.0, retry_budget=60.0, api_version="auto")
    with _lock:
        connections = _shared.get(alike)
        if connections is None:
            connections = _shared[alike] = Connections(alike)
        _shared.move_to_end(alike)
        if len(_shared) > MOST_SETTINGS:
            for name in [name for name, one in _shared.items() if one.idle][: len(_shared) - MOST_SETTINGS]:
                del _shared[name]
        return connections


def _leave_to_the_parent() -> None:
    global _lock
    _lock = threading.RLock()
    _shared.clear()


os.register_at_fork(after_in_child=_leave_to_the_parent)

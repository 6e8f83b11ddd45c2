"""What the hooks of a process share: for the same settings one access token, one TLS context, one set of connections.

**Forks.** A child has copies of its parent's sockets, and of what its other threads had locked. Answers would go to
either process. So whatever was made in another process is left to it: a child makes its own at its first call.

**Interrupted calls.** A call that a cancellation or a signal breaks off can leave its place in a pool taken for good.
So the client whose call was broken off is given up: calls that are under way end on it, later ones get a new client.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakKeyDictionary, WeakSet

import httpx

from ..api.calls import RetryClass
from ..clock import SYSTEM_CLOCK, Clock
from ..settings import Settings
from .auth import Tokens
from .deadline import Deadline
from .places import Places
from .proxies import VARIABLES
from .signal_errors import raised_by_signal
from .threads import in_own_thread
from .tls import BUNDLES, Contexts, tls_contexts

if TYPE_CHECKING:
    import asyncio

C = TypeVar("C")

IDLE_SECONDS = 30.0
"""Seconds for which an idle connection is kept."""
MOST_SETTINGS = 32
"""Settings whose tokens and contexts a process keeps while no hook has them."""


class _Lent(Generic[C]):
    """A client, and how many calls are under way on it."""

    def __init__(self, client: C) -> None:
        self.client = client
        self._process = os.getpid()
        self._lock = threading.RLock()  # a signal's handler may come while its own thread holds it
        self._calls = 0
        self._given_up = False
        self.broken = False

    def begin(self) -> bool:
        """A call begins. Returns False where none may: the client was given up, or is another process's."""
        if self._process != os.getpid():
            return False
        with self._lock:
            if self._given_up:
                return False
            self._calls += 1
            return True

    def end(self, *, broken_off: bool) -> bool:
        """A call is through. Returns whether the client is to be closed now."""
        with self._lock:
            self._calls -= 1
            self.broken = self.broken or broken_off
            self._given_up = self._given_up or broken_off
            return self._given_up and self._calls == 0

    def give_up(self) -> bool:
        """No further call begins. Returns whether the client is to be closed now."""
        with self._lock:
            first, self._given_up = not self._given_up, True
            return first and self._calls == 0


class _OfLoop:
    """The clients of one event loop, the hooks that use them, and the places for calls."""

    def __init__(self, places: int) -> None:
        self.clients: dict[RetryClass, _Lent[httpx.AsyncClient]] = {}
        self.holders: WeakSet[object] = WeakSet()
        self.places = {retry: Places(places) for retry in RetryClass}
        """Whoever reads holds up nobody who starts or cancels."""
        self.prepared = False
        self.preparing: asyncio.Future[None] | None = None


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
        self._contexts: Contexts | None = None
        self._clients: dict[RetryClass, _Lent[httpx.Client]] = {}
        self._holders: WeakSet[object] = WeakSet()
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _OfLoop] = WeakKeyDictionary()

    @property
    def usable(self) -> bool:
        """Whether they are of this process."""
        return self.process == os.getpid()

    @property
    def idle(self) -> bool:
        """Whether no hook has them."""
        with self._lock:
            return not self._holders and not any(loop.holders for loop in list(self._loops.values()))

    @contextmanager
    def client(self, retry: RetryClass, holder: object, deadline: Deadline) -> Iterator[httpx.Client]:
        """The client for one call. The holder has it until ``release``.

        Args:
            retry: class of the call.
            holder: the hook.
            deadline: of the call.
        """
        with self._lock:
            self._holders.add(holder)
            lent = self._clients.get(retry)
            if lent is None or not lent.begin():
                made = httpx.Client(transport=self._blocking(retry), follow_redirects=False, trust_env=False)
                lent = self._clients[retry] = _Lent(made)
                lent.begin()
        broken_off, handled = True, sys.exc_info()[1]
        try:
            yield lent.client
            broken_off = False
        except Exception as error:
            broken_off = raised_by_signal(error, handled) is not None
            raise
        finally:
            # A client that was given up is not closed here: a signal can have broken the call off while it held a lock
            # of the pool, and closing would wait for that lock for ever. Its sockets end with the last reference.
            if lent.end(broken_off=broken_off) and not lent.broken:
                lent.client.close()

    def release(self, holder: object) -> None:
        """A hook no longer uses them: with the last one all connections are closed."""
        if not self.usable:
            return  # its lock may have been held in the parent
        with self._lock:
            self._holders.discard(holder)
            if self._holders:
                return
            clients, self._clients = self._clients, {}
        for lent in clients.values():
            if lent.give_up():
                lent.client.close()

    @asynccontextmanager
    async def aclient(self, retry: RetryClass, holder: object, deadline: Deadline) -> AsyncIterator[httpx.AsyncClient]:
        """As ``client``, for the running loop. Raises httpx.PoolTimeout where no place is free by the deadline."""
        of_loop = await self._of_running_loop(deadline)
        of_loop.holders.add(holder)
        places = of_loop.places[retry]
        await places.take(deadline.patience())
        deadline.begin()
        try:
            lent = of_loop.clients.get(retry)
            if lent is None or not lent.begin():
                made = httpx.AsyncClient(transport=self._async(retry), follow_redirects=False, trust_env=False)
                lent = of_loop.clients[retry] = _Lent(made)
                lent.begin()
            broken_off, handled = True, sys.exc_info()[1]
            try:
                yield lent.client
                broken_off = False
            except Exception as error:
                broken_off = raised_by_signal(error, handled) is not None
                raise
            finally:
                if lent.end(broken_off=broken_off):
                    await lent.client.aclose()
        finally:
            places.give_back()

    async def arelease(self, holder: object) -> None:
        """As ``release``, for the running loop."""
        from asyncio import get_running_loop

        of_loop = self._loops.get(get_running_loop()) if self.usable else None
        if of_loop is None:
            return
        of_loop.holders.discard(holder)
        if of_loop.holders:
            return
        clients, of_loop.clients = of_loop.clients, {}
        for lent in clients.values():
            if lent.give_up():
                await lent.client.aclose()

    def leave_to_others(self, holder: object) -> bool:
        """A hook no longer uses them on the running loop, if others do: they close them then. Whether that is so."""
        from asyncio import get_running_loop

        of_loop = self._loops.get(get_running_loop()) if self.usable else None
        if of_loop is None or holder not in of_loop.holders:
            return True
        if len(of_loop.holders) == 1:
            return False
        of_loop.holders.discard(holder)
        return True

    async def _of_running_loop(self, deadline: Deadline) -> _OfLoop:
        from asyncio import get_running_loop, wait  # not needed by the blocking hook, and slow to import

        loop = get_running_loop()
        of_loop = self._loops.get(loop)
        if of_loop is None:
            with self._lock:
                for closed in [one for one in self._loops if one.is_closed()]:
                    del self._loops[closed]
                of_loop = self._loops.setdefault(loop, _OfLoop(self._settings.max_connections))
        while not of_loop.prepared:
            # Reading CA bundles and importing takes tens of milliseconds: in a thread, and once for all tasks.
            preparing = of_loop.preparing  # a task may begin anew before those wake that waited with it
            if preparing is None or preparing.done():
                preparing = of_loop.preparing = in_own_thread(self._prepare)
            if not (await wait({preparing}, timeout=deadline.left()))[0]:
                raise httpx.PoolTimeout("the certificate authorities were still being read at the deadline")
            preparing.result()
            of_loop.prepared = True
        return of_loop

    def _prepare(self) -> None:
        import_module(".transport", __package__)
        import_module("anyio._backends._asyncio")  # anyio does so at the first connection
        self._ready_contexts()

    def _blocking(self, retry: RetryClass) -> httpx.BaseTransport:
        from .transport import BoundedTransport  # httpcore: with the first call, as httpx does

        given: httpx.BaseTransport | None = self._transport
        return given or BoundedTransport(self._ready_contexts(), **self._limits(retry))

    def _async(self, retry: RetryClass) -> httpx.AsyncBaseTransport:
        from .transport import AsyncBoundedTransport

        given: httpx.AsyncBaseTransport | None = self._transport
        return given or AsyncBoundedTransport(self._ready_contexts(), **self._limits(retry))

    def _limits(self, retry: RetryClass) -> dict[str, Any]:
        """Submits go over fresh connections: a stale one would make a routine submit ambiguous."""
        most = self._settings.max_connections
        submit = retry is RetryClass.SUBMIT
        return {"most": most, "idle": 0 if submit else most, "idle_seconds": 0.0 if submit else IDLE_SECONDS}

    def _ready_contexts(self) -> Contexts:
        with self._lock:
            if self._contexts is None:
                self._contexts = tls_contexts(self._settings)
            return self._contexts


_Alike = tuple[Settings, tuple[str | None, ...]]
_shared: OrderedDict[_Alike, Connections] = OrderedDict()
_lock = threading.RLock()  # a signal's handler may come while its own thread holds it


def shared_connections(settings: Settings) -> Connections:
    """The connections of all hooks of this process that reach the same server in the same way."""
    bare = settings.with_changes(timeout=10.0, retry_budget=60.0, api_version="auto", ui_url=None)
    alike = bare, tuple(os.environ.get(name) for name in (*BUNDLES, *VARIABLES))
    with _lock:
        connections = _shared.get(alike)
        if connections is None:
            connections = _shared[alike] = Connections(bare)
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

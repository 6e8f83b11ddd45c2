"""Where the waits of a process meet, so that they share a poll, and where somebody may tell them to look at once.

Waits of asynchronous hooks meet on their event loop. Waits of blocking hooks run in threads, and there are asynchronous
ones that are alone on a loop, as the tasks that Prefect submits are. As soon as two of all these wait for instances of
the same server, they sleep in the ``Watch`` of a loop that a thread of its own runs. A wait that is alone sleeps by
itself. So does one that needs its stages as they come, or that has begun a moment ago, as long as few wait: it looks
more often at first. Where a hook's clock says that whoever sleeps has to look up now and then, each of them does.
"""

from __future__ import annotations

import concurrent.futures
import os
import random
import threading
from collections.abc import Awaitable, Callable, Collection, Set
from contextlib import suppress
from math import inf, isinf
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from ..clock import monotonic
from ..procedures.effects import Procedure, ask_or_raise
from ..procedures.snapshots import RunningInstances
from ..procedures.waiting import Waiting, Woken
from .asynchronous_driver import AsyncDriver
from .background import background_loop, background_runs

if TYPE_CHECKING:
    import asyncio

    from ..clock import SystemClock
    from ..procedures.wait_arguments import Shares
    from ..watching import Reason, Watch
    from .base import HookBase

FEW = 20
"""As long as no more wait, each one that has just begun looks for itself, more often at first."""

LEAST: Final[dict[Shares, float]] = {"always": 2, "many": FEW + 1, "never": inf}
"""How many have to wait before one of them sleeps in the watch."""
CHECK_SECONDS = 5.0
"""Seconds after which a thread that sleeps in the watch sees whether the watch's loop still runs."""
LATE_SECONDS = 1.0
"""Seconds after its deadline at which such a thread goes on by itself."""
WITHOUT_A_DEADLINE = 3600.0
"""Seconds for which such a thread sleeps at most where its wait has no deadline."""

T = TypeVar("T")

_lock = threading.RLock()  # a signal's handler may come while its own thread holds it
_listeners: WeakSet[Listener] = WeakSet()
_meetings: WeakKeyDictionary[object, dict[str, _Meeting]] = WeakKeyDictionary()


def hint(instance_id: str) -> bool:
    """Tell the waits of this process that an instance may have ended: each one that waits for it reads it at once.

    Nothing is believed: the read decides. Any thread may call it. It sends nothing itself.

    Args:
        instance_id: the instance.

    Returns:
        Whether anybody here waits for it.
    """
    return hint_all({instance_id}) > 0


def hint_all(names: Set[str]) -> int:
    """As ``hint``, for each instance among the names that somebody here waits for.

    Returns:
        How many waits were told.
    """
    told = 0
    for listener in listeners():
        try:
            for instance_id in listener.waits_for(names):
                listener.hint(instance_id)
                told += 1
        except RuntimeError:  # its loop is closed: nobody waits there any more
            ignore(listener)
    return told


class Listener(Protocol):
    """Whoever takes hints. Any thread may call it."""

    def waits_for(self, names: Set[str]) -> Collection[str]:
        """The instances among these that it waits for."""
        ...

    def hint(self, instance_id: str) -> None:
        """Look at an instance at once."""
        ...

    def asleep(self, instance_id: str) -> Asleep | None:
        """How it sleeps until it looks at one of its instances again; None while it is awake."""
        ...

    def wake(self, instance_id: str) -> None:
        """As ``hint``; it counts as awake from now on."""
        ...


class Asleep:
    """A wait between two looks.

    Args:
        waiting: the wait.
        now: epoch seconds, as the wait counts them.
    """

    __slots__ = ("_now", "_since", "waiting")

    def __init__(self, waiting: Waiting, now: float) -> None:
        self.waiting = waiting
        self._now = now
        self._since = monotonic()

    @property
    def left(self) -> float | None:
        """Seconds to its deadline; None: it has none."""
        deadline = self.waiting.deadline
        return None if deadline is None else deadline - self._now - (monotonic() - self._since)


def listeners() -> list[Listener]:
    """All who take hints now."""
    with _lock:
        return list(_listeners)


def listen(listener: Listener) -> None:
    """Take hints from now on."""
    with _lock:
        _listeners.add(listener)


def ignore(listener: Listener) -> None:
    """Take no more hints."""
    with _lock:
        _listeners.discard(listener)


class _Meeting:
    """The waits for instances of one server: the watch of each loop, and how many wait on loops and in threads."""

    def __init__(self) -> None:
        self.watches: WeakKeyDictionary[asyncio.AbstractEventLoop, Watch] = WeakKeyDictionary()
        self.waits = 0

    def watch(self, hook: HookBase) -> Watch:
        """The watch of the running loop."""
        from asyncio import get_running_loop

        loop = get_running_loop()
        for closed in [one for one in self.watches if one.is_closed()]:
            del self.watches[closed]
        watch = self.watches.get(loop)
        if watch is None:
            watch = self.watches[loop] = watch_by(hook.reader(AsyncDriver), lambda: self.watches.pop(loop, None))
        return watch


def watch_by(reader: AsyncDriver, on_empty: Callable[[], object]) -> Watch:
    """A watch that reads by a driver, and closes it when the last one has left."""
    from asyncio import get_running_loop

    from ..watching import Watch

    running = RunningInstances(reader.plans.versions)
    closing: set[asyncio.Task[None]] = set()

    async def read(workflow_id: str | None, until: float) -> Any:
        return await reader.perform(running.read(workflow_id, until))

    def empty() -> None:
        on_empty()
        if reader.reach.leave_to_others(reader):
            return
        task = get_running_loop().create_task(reader.close())
        closing.add(task)
        task.add_done_callback(closing.discard)

    return Watch(read, reader.clock, random.random, empty)


class Place:
    """The place of one wait. Make it where the wait begins, and ``leave`` it.

    Args:
        hook: waits.
        instance_id: whom it waits for.
        shares: when it may sleep in the watch of those that reach the same server.
        clock: of the hook. Whoever sleeps looks up as often as it says.
    """

    def __init__(self, hook: HookBase, instance_id: str, shares: Shares, clock: SystemClock) -> None:
        self.instance_id = instance_id
        self._hook = hook
        self._clock = clock
        self._meeting = meeting_of(hook) if shares != "never" else None
        self._least = LEAST[shares]
        self._asleep: Asleep | None = None
        self._there: Watch | None = None
        self._slept_there = False
        if self._meeting is not None:
            with _lock:
                self._meeting.waits += 1
        listen(self)

    def leave(self) -> None:
        """The wait is over."""
        ignore(self)
        if self._slept_there:
            with suppress(RuntimeError):
                background_loop().call_soon_threadsafe(self._leave_there)
        meeting, self._meeting = self._meeting, None
        if meeting is not None:
            with _lock:
                meeting.waits -= 1

    def waits_for(self, names: Set[str]) -> Collection[str]:
        """The instance, if it is among these."""
        return (self.instance_id,) if self.instance_id in names else ()

    def hint(self, instance_id: str) -> None:
        """Look at once."""
        raise NotImplementedError

    def asleep(self, instance_id: str) -> Asleep | None:
        """How it sleeps until it looks again."""
        return self._asleep

    def wake(self, instance_id: str) -> None:
        """Look at once, and count as awake."""
        self._asleep = None
        self.hint(instance_id)

    def nap(self, waiting: Waiting, now: float, at: float) -> Procedure[Woken]:
        """How a wait sleeps here."""
        # Where the server has asked for a longer pause, the wait keeps that by itself.
        listed = self._meeting is not None and waiting.may_be_listed(now) and at - now <= waiting.poll_interval
        left = None if waiting.deadline is None else max(waiting.deadline - now, 0.0)
        self._asleep = Asleep(waiting, now)
        try:
            woken: Woken = yield from ask_or_raise(self._nap, waiting, max(at - now, 0.0), left, listed)
        finally:
            self._asleep = None
        return woken

    _nap: Callable[..., Any]

    def _in_company(self, waiting: Waiting, present: int) -> bool:
        """Whether a wait sleeps better in the watch than by itself."""
        return present >= self._least and (waiting.is_settled or present > FEW)

    # The watch of the background loop, in which those sleep who are alone where they run.

    def _is_told(self) -> bool:
        """Whether a hint came that nobody has followed yet."""
        raise NotImplementedError

    def _tell_there(self) -> None:
        if self._there is not None:
            background_loop().call_soon_threadsafe(self._there.hint, self.instance_id)

    def _begin_there(self, waiting: Waiting, left: float | None) -> concurrent.futures.Future[Woken]:
        from asyncio import run_coroutine_threadsafe

        meeting = self._meeting

        async def sleep() -> Woken:
            if self._there is None and meeting is not None:
                self._there = meeting.watch(self._hook)
                self._there.enter(self.instance_id)
            return Woken() if self._there is None or self._is_told() else await sleep_in(self._there, waiting, left)

        self._slept_there = True
        return run_coroutine_threadsafe(sleep(), background_loop())

    def _leave_there(self) -> None:
        """On that loop, behind whatever an interrupted sleep still does there."""
        there, self._there = self._there, None
        if there is not None:
            there.leave(self.instance_id)


def meeting_of(hook: HookBase) -> _Meeting:
    """Where the waits of all hooks meet that reach the same server in the same way, by the same version of the API."""
    with _lock:
        return _meetings.setdefault(hook.reach, {}).setdefault(hook.settings.api_version, _Meeting())


class AsyncPlace(Place):
    """The place of a wait on an event loop."""

    def __init__(self, hook: HookBase, instance_id: str, shares: Shares, clock: SystemClock) -> None:
        from asyncio import get_running_loop

        self._loop = get_running_loop()
        self._alone: asyncio.Future[None] | None = None
        self._hinted = False
        super().__init__(hook, instance_id, shares, clock)
        self._watch = self._meeting.watch(hook) if self._meeting is not None else None
        if self._watch is not None:
            self._watch.enter(instance_id)

    def leave(self) -> None:
        """The wait is over."""
        super().leave()
        if self._watch is not None:
            self._watch.leave(self.instance_id)
            self._watch = None

    def hint(self, instance_id: str) -> None:
        """Look at once."""
        self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        if self._alone is not None:
            _settle(self._alone)
            return
        self._hinted = True
        if self._watch is not None:
            self._watch.hint(self.instance_id)
        self._tell_there()

    def _is_told(self) -> bool:
        return self._hinted

    async def _nap(self, waiting: Waiting, seconds: float, left: float | None, listed: bool) -> Woken:
        if self._hinted:
            self._hinted = False
            return Woken()
        try:
            meeting, here = self._meeting, self._watch
            if meeting is None or here is None or not listed or not self._in_company(waiting, meeting.waits):
                await self._attentively(self._sleep_alone(seconds), inf)
                return Woken()
            if self._in_company(waiting, here.present):
                return await self._attentively(sleep_in(here, waiting, left), inf) or Woken()
            return await self._sleep_there(waiting, left)
        finally:
            self._hinted = False

    async def _sleep_alone(self, seconds: float) -> None:
        self._alone = self._loop.create_future()
        late = self._loop.call_later(seconds, _settle, self._alone)
        try:
            await self._alone
        finally:
            late.cancel()
            self._alone = None

    async def _sleep_there(self, waiting: Waiting, left: float | None) -> Woken:
        """This loop has no other wait: it sleeps where those of threads do."""
        from asyncio import wrap_future

        sleeping = self._begin_there(waiting, left)
        try:
            woken = await self._attentively(wrap_future(sleeping), _ends_at(left))
        finally:
            sleeping.cancel()
        return woken or Woken()  # none: that loop is gone, or stands still

    async def _attentively(self, sleep: Awaitable[T], end: float) -> T | None:
        """Sleep, and look up as often as the clock says. None where the background loop does not wake it."""
        from asyncio import ensure_future, wait

        every = self._clock.look_seconds if isinf(end) else min(self._clock.look_seconds, CHECK_SECONDS)
        if isinf(every):
            return await sleep
        sleeping = ensure_future(sleep)
        try:
            while True:
                await self._clock.alook()
                await wait({sleeping}, timeout=every)
                if sleeping.done():
                    return sleeping.result()
                if not isinf(end) and (not background_runs() or monotonic() >= end):
                    return None
        finally:
            sleeping.cancel()


class BlockingPlace(Place):
    """The place of a wait in a thread."""

    def __init__(self, hook: HookBase, instance_id: str, shares: Shares, clock: SystemClock) -> None:
        self._told = threading.Event()
        super().__init__(hook, instance_id, shares, clock)

    def hint(self, instance_id: str) -> None:
        """Look at once."""
        self._told.set()
        self._tell_there()

    def _is_told(self) -> bool:
        return self._told.is_set()

    def _nap(self, waiting: Waiting, seconds: float, left: float | None, listed: bool) -> Woken:
        try:
            if self._meeting is None or not listed or not self._in_company(waiting, self._meeting.waits):
                return self._sleep_alone(monotonic() + seconds)
            if self._is_told():
                return Woken()
            return self._sleep_there(waiting, left)
        finally:
            self._told.clear()

    def _sleep_alone(self, end: float) -> Woken:
        while True:
            self._clock.look()
            left = end - monotonic()
            if left <= 0 or self._told.wait(min(left, self._clock.look_seconds, threading.TIMEOUT_MAX)):
                return Woken()

    def _sleep_there(self, waiting: Waiting, left: float | None) -> Woken:
        end = _ends_at(left)
        every = min(self._clock.look_seconds, CHECK_SECONDS)
        sleeping = self._begin_there(waiting, left)
        try:
            while True:
                self._clock.look()
                try:
                    return sleeping.result(min(end - monotonic(), every))
                except concurrent.futures.TimeoutError:
                    if not background_runs() or monotonic() >= end:
                        return Woken()  # that loop is gone, or stands still
        finally:
            sleeping.cancel()


def _ends_at(left: float | None) -> float:
    """Monotonic seconds at which a sleep elsewhere is over in any case."""
    return monotonic() + (WITHOUT_A_DEADLINE if left is None else left + LATE_SECONDS)


async def sleep_in(watch: Watch, waiting: Waiting, left: float | None) -> Woken:
    """Sleep in a watch until it wakes the wait, and never longer than ``left`` seconds."""
    from asyncio import get_running_loop

    woken: asyncio.Future[Woken] = get_running_loop().create_future()

    def wake(seen: Reason, listed_at: float | None) -> None:
        if not woken.done():
            woken.set_result(Woken(seen, listed_at))

    workflow_id = waiting.instance.workflow_id if waiting.instance is not None else None
    until = None if left is None else watch.now() + left
    sleeper = watch.fall_asleep(
        waiting.instance_id, workflow_id, waiting.poll_interval, wake, until=until, failed=waiting.is_failing
    )
    try:
        return await woken
    finally:
        watch.forget(sleeper)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _leave_to_the_parent() -> None:
    global _lock, _listeners, _meetings
    _lock, _listeners, _meetings = threading.RLock(), WeakSet(), WeakKeyDictionary()


os.register_at_fork(after_in_child=_leave_to_the_parent)

"""Where the waits of a process meet, so that they share a poll, and where somebody may tell them to look at once.

Waits of asynchronous hooks meet on their event loop. Waits of blocking hooks run in threads; as soon as two of them
wait for instances of the same server, they sleep in the ``Watch`` of a loop that a thread of its own runs. A wait that
is alone sleeps by itself. So does one that needs its stages as they come, or that has begun a moment ago, as long as
few wait: it looks more often at first.
"""

from __future__ import annotations

import concurrent.futures
import os
import random
import threading
from collections.abc import Callable, Collection, Set
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary, WeakSet

from ..procedures.effects import Procedure, ask_or_raise
from ..procedures.snapshots import RunningInstances
from ..procedures.waiting import Waiting, Woken
from .asynchronous_driver import AsyncDriver
from .background import background_loop, background_runs

if TYPE_CHECKING:
    import asyncio

    from ..watching import Reason, Watch
    from .base import HookBase

FEW = 20
"""As long as no more wait, each one that has just begun looks for itself, more often at first."""

CHECK_SECONDS = 5.0
"""Seconds after which a thread that sleeps in the watch sees whether the watch's loop still runs."""
LATE_SECONDS = 1.0
"""Seconds after its deadline at which such a thread goes on by itself."""

_lock = threading.RLock()  # a signal's handler may come while its own thread holds it
_listeners: WeakSet[Listener] = WeakSet()
_meetings: WeakKeyDictionary[object, _Meeting] = WeakKeyDictionary()


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
    with _lock:
        listeners = list(_listeners)
    told = 0
    for listener in listeners:
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


def listen(listener: Listener) -> None:
    """Take hints from now on."""
    with _lock:
        _listeners.add(listener)


def ignore(listener: Listener) -> None:
    """Take no more hints."""
    with _lock:
        _listeners.discard(listener)


class _Meeting:
    """The waits for instances of one server: the watch of each loop, and how many threads wait."""

    def __init__(self) -> None:
        self.watches: WeakKeyDictionary[asyncio.AbstractEventLoop, Watch] = WeakKeyDictionary()
        self.threads = 0

    def watch(self, hook: HookBase) -> Watch:
        """The watch of the running loop."""
        from asyncio import get_running_loop

        loop = get_running_loop()
        for closed in [one for one in self.watches if one.is_closed()]:
            del self.watches[closed]
        watch = self.watches.get(loop)
        if watch is None:
            watch = self.watches[loop] = watch_by(hook.another(AsyncDriver), lambda: self.watches.pop(loop, None))
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
        shares: it may sleep in the watch of those that reach the same server.
    """

    def __init__(self, hook: HookBase, instance_id: str, shares: bool) -> None:
        self.instance_id = instance_id
        self._hook = hook
        self._shares = shares

    def leave(self) -> None:
        """The wait is over."""
        ignore(self)

    def waits_for(self, names: Set[str]) -> Collection[str]:
        """The instance, if it is among these."""
        return (self.instance_id,) if self.instance_id in names else ()

    def hint(self, instance_id: str) -> None:
        """Look at once."""
        raise NotImplementedError

    def nap(self, waiting: Waiting, now: float, at: float) -> Procedure[Woken]:
        """How a wait sleeps here."""
        # Where the server has asked for a longer pause, the wait keeps that by itself.
        listed = self._shares and waiting.may_be_listed(now) and at - now <= waiting.poll_interval
        left = None if waiting.deadline is None else max(waiting.deadline - now, 0.0)
        woken: Woken = yield from ask_or_raise(self._nap, waiting, max(at - now, 0.0), left, listed)
        return woken

    _nap: Callable[..., Any]


def meeting_of(hook: HookBase) -> _Meeting:
    """Where the waits of all hooks meet that reach the same server in the same way."""
    with _lock:
        return _meetings.setdefault(hook.reach, _Meeting())


class AsyncPlace(Place):
    """The place of a wait on an event loop."""

    def __init__(self, hook: HookBase, instance_id: str, shares: bool) -> None:
        from asyncio import get_running_loop

        super().__init__(hook, instance_id, shares)
        self._loop = get_running_loop()
        self._alone: asyncio.Future[None] | None = None
        self._hinted = False
        self._watch = meeting_of(hook).watch(hook) if shares else None
        if self._watch is not None:
            self._watch.enter(instance_id)
        listen(self)

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

    async def _nap(self, waiting: Waiting, seconds: float, left: float | None, listed: bool) -> Woken:
        if self._hinted:
            self._hinted = False
            return Woken()
        try:
            if self._watch is not None and listed and in_company(waiting, self._watch.present):
                return await sleep_in(self._watch, waiting, left)
            self._alone = self._loop.create_future()
            late = self._loop.call_later(seconds, _settle, self._alone)
            try:
                await self._alone
            finally:
                late.cancel()
                self._alone = None
            return Woken()
        finally:
            self._hinted = False


class BlockingPlace(Place):
    """The place of a wait in a thread."""

    def __init__(self, hook: HookBase, instance_id: str, shares: bool) -> None:
        super().__init__(hook, instance_id, shares)
        self._told = threading.Event()
        self._meeting = meeting_of(hook) if shares else None
        self._there: Watch | None = None
        self._slept_there = False
        if self._meeting is not None:
            with _lock:
                self._meeting.threads += 1
        listen(self)

    def leave(self) -> None:
        """The wait is over."""
        super().leave()
        if self._slept_there:
            with suppress(RuntimeError):
                background_loop().call_soon_threadsafe(self._leave_watch)
        meeting, self._meeting = self._meeting, None
        if meeting is not None:
            with _lock:
                meeting.threads -= 1

    def _leave_watch(self) -> None:
        """On the loop, behind whatever an interrupted sleep still does there."""
        there, self._there = self._there, None
        if there is not None:
            there.leave(self.instance_id)

    def hint(self, instance_id: str) -> None:
        """Look at once."""
        self._told.set()
        there = self._there
        if there is not None:
            background_loop().call_soon_threadsafe(there.hint, self.instance_id)

    def _nap(self, waiting: Waiting, seconds: float, left: float | None, listed: bool) -> Woken:
        meeting = self._meeting
        try:
            if meeting is None or not listed or not in_company(waiting, meeting.threads):
                self._told.wait(seconds)
                return Woken()
            if self._told.is_set():
                return Woken()
            return self._sleep_in_watch(meeting, waiting, left)
        finally:
            self._told.clear()

    def _sleep_in_watch(self, meeting: _Meeting, waiting: Waiting, left: float | None) -> Woken:
        from asyncio import run_coroutine_threadsafe

        async def sleep() -> Woken:
            if self._there is None:
                self._there = meeting.watch(self._hook)
                self._there.enter(self.instance_id)
            return Woken() if self._told.is_set() else await sleep_in(self._there, waiting, left)

        until = None if left is None else monotonic() + left + LATE_SECONDS
        self._slept_there = True
        sleeping = run_coroutine_threadsafe(sleep(), background_loop())
        try:
            while True:
                try:
                    return sleeping.result(CHECK_SECONDS if until is None else min(until - monotonic(), CHECK_SECONDS))
                except concurrent.futures.TimeoutError:
                    if not background_runs() or (until is not None and monotonic() >= until):
                        return Woken()  # the loop is gone, or stands still
        finally:
            sleeping.cancel()


def in_company(waiting: Waiting, present: int) -> bool:
    """Whether a wait sleeps better in the watch than by itself."""
    return present > 1 and (waiting.is_settled or present > FEW)


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

"""Where the waits of a process meet, so that they share a poll.

Waits of asynchronous hooks meet on their event loop. Waits of blocking hooks run in threads, and there are asynchronous
ones that are alone on a loop, as the tasks that Prefect submits are. As soon as two of all these wait for instances of
the same server, they sleep in the ``Watch`` of a loop that a thread of its own runs. A wait that is alone sleeps by
itself. So does one that needs its stages as they come, or that has begun a moment ago, as long as few wait: it looks
more often at first. Where many wait, the watch does that for all who have just begun. Where a hook's clock says that
whoever sleeps has to look up now and then, each of them does (but not ``wait_many``).
"""

from __future__ import annotations

import concurrent.futures
import os
import random
import threading
from collections.abc import Awaitable, Callable, Collection, Set
from contextlib import suppress
from math import inf, isinf
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from ..clock import monotonic
from ..procedures.effects import Procedure, ask_or_raise
from ..procedures.naps import Woken
from ..procedures.observations import Hinted
from ..procedures.snapshots import RunningInstances
from ..procedures.waiting import Waiting
from .asynchronous_driver import AsyncDriver
from .background import CHECK_SECONDS, background_answers, background_loop, background_runs
from .hints import ignore, listen
from .passing_time import Asleep

if TYPE_CHECKING:
    import asyncio

    from ..clock import SystemClock
    from ..procedures.wait_arguments import Shares
    from ..sleepers import Reason, Sleeper
    from ..watching import Watch
    from .base import HookBase

FEW = 20
"""As long as no more wait, each one that has just begun looks for itself, more often at first."""

LEAST: Final[dict[Shares, float]] = {"always": 2, "many": FEW + 1, "never": inf}
"""How many have to wait before one of them sleeps in the watch."""
SHARE_OF_CONNECTIONS = 0.75
"""How many of the connections for reads those take at most whom a watch has woken: others read too."""
LATE_SECONDS = 1.0
"""Seconds after its deadline at which such a thread goes on by itself."""
WITHOUT_A_DEADLINE = 3600.0
"""Seconds for which such a thread sleeps at most where its wait has no deadline."""

T = TypeVar("T")

_lock = threading.RLock()  # a signal's handler may come while its own thread holds it
_meetings: WeakKeyDictionary[object, dict[str, _Meeting]] = WeakKeyDictionary()


class _Meeting:
    """The waits for instances of one server: the watch of each loop, and who waits on loops and in threads."""

    def __init__(self) -> None:
        self.watches: WeakKeyDictionary[asyncio.AbstractEventLoop, Watch] = WeakKeyDictionary()
        self.places: WeakSet[Place] = WeakSet()

    def watch(self, hook: HookBase) -> Watch:
        """The watch of the running loop."""
        from asyncio import get_running_loop

        loop = get_running_loop()
        with _lock:  # each loop has a thread of its own
            for closed in [one for one in self.watches if one.is_closed()]:
                del self.watches[closed]
            watch = self.watches.get(loop)
            if watch is None:
                watch = self.watches[loop] = watch_by(hook.reader(AsyncDriver), lambda: self._forget(loop))
            return watch

    def _forget(self, loop: asyncio.AbstractEventLoop) -> None:
        with _lock:
            self.watches.pop(loop, None)


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

    at_once = max(reader.settings.max_connections * SHARE_OF_CONNECTIONS, 1.0)
    return Watch(read, reader.clock, random.random, empty, reader.settings.base_url, at_once)


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
        self._loop_there: asyncio.AbstractEventLoop | None = None
        self._left = False
        self._woken: tuple[Watch, asyncio.AbstractEventLoop, Sleeper] | None = None
        if self._meeting is not None:
            with _lock:
                self._meeting.places.add(self)
        listen(self)

    def leave(self) -> None:
        """The wait is over. May be called twice."""
        self._left = True
        self._has_read()
        ignore(self)
        if self._meeting is not None:
            with _lock:
                self._meeting.places.discard(self)
        if self._slept_there and background_runs():
            with suppress(RuntimeError):
                background_loop().call_soon_threadsafe(self._leave_there)
                self._slept_there = False

    _slept_there = False

    def __del__(self) -> None:
        """An interrupt can have broken off ``leave`` itself."""
        if self._slept_there:
            self.leave()

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
        self._has_read()
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

    async def _sleep_in(self, watch: Watch, waiting: Waiting, left: float | None, seconds: float) -> Woken:
        """Sleep in a watch until that wakes the wait, at most ``left`` seconds.

        ``seconds``: after these it would look by itself, as it has just begun, or after a hint.
        """
        from asyncio import get_running_loop

        woken: asyncio.Future[Woken] = get_running_loop().create_future()

        def wake(_: Sleeper, seen: Reason, listed_at: float | None) -> None:
            if not woken.done():
                woken.set_result(Woken(seen, listed_at))

        workflow_id = waiting.instance.workflow_id if waiting.instance is not None else None
        now = watch.now()
        sleeper = watch.fall_asleep(
            waiting.instance_id,
            workflow_id,
            waiting.poll_interval,
            wake,
            until=None if left is None else now + left,
            again_at=now + seconds if waiting.hurries else None,
            first_look=seconds if waiting.is_young else None,
            answered=not waiting.is_failing,
        )
        try:
            told = await woken
        except BaseException:
            watch.has_read(sleeper)
            raise
        finally:
            watch.forget(sleeper)
        self._woken = watch, get_running_loop(), sleeper
        return told

    def _has_read(self) -> None:
        """What it was woken for is read."""
        woken, self._woken = self._woken, None
        if woken is not None:
            watch, loop, sleeper = woken
            with suppress(RuntimeError):  # that loop is closed
                loop.call_soon_threadsafe(watch.has_read, sleeper)

    def _has_company(self, waiting: Waiting, present: int) -> bool:
        """Whether a wait sleeps better in the watch than by itself."""
        return present >= self._least and (waiting.is_settled or present > FEW)

    def _in_the_process(self) -> int:
        """How many wait in this process."""
        return 0 if self._meeting is None else len(self._meeting.places)

    # The watch of the background loop, in which those sleep who are alone where they run.

    def _is_told(self) -> bool:
        """Whether a hint came that nobody has followed yet."""
        raise NotImplementedError

    def _tell_there(self) -> None:
        there, loop = self._there, self._loop_there
        if there is not None and loop is not None:
            loop.call_soon_threadsafe(there.hint, self.instance_id)

    def _home_is_gone(self) -> bool:
        """Whether nobody can be told any more: nothing of a wait is kept whose loop was closed over it."""
        return False

    def _begin_there(self, waiting: Waiting, left: float | None, seconds: float) -> concurrent.futures.Future[Woken]:
        from asyncio import run_coroutine_threadsafe

        meeting, loop = self._meeting, background_loop()

        async def sleep() -> Woken:
            if self._loop_there is not loop:
                self._there, self._loop_there = None, loop  # an earlier loop is dead
            if self._there is None and meeting is not None and not self._left:
                self._there = meeting.watch(self._hook)
                self._there.enter(self.instance_id)
            if self._there is None or self._is_told():
                return Woken(Hinted())
            told = await self._sleep_in(self._there, waiting, left, seconds)
            if self._home_is_gone():
                self.leave()
            return told

        self._slept_there = True
        return run_coroutine_threadsafe(sleep(), loop)

    def _leave_there(self) -> None:
        """On that loop. What an interrupted sleep still does there comes later, and does no harm."""
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
        self._alone: asyncio.Future[Woken] | None = None
        self._hinted = self._sleeps_here = False
        super().__init__(hook, instance_id, shares, clock)
        self._watch = self._meeting.watch(hook) if self._meeting is not None else None
        if self._watch is not None:
            self._watch.enter(instance_id)

    def leave(self) -> None:
        """The wait is over."""
        super().leave()
        if self._watch is not None:
            with suppress(RuntimeError):  # the loop was closed over its waits, and its watch with it
                self._watch.leave(self.instance_id)
            self._watch = None

    def hint(self, instance_id: str) -> None:
        """Look at once."""
        self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        if self._alone is not None:
            _settle(self._alone, Woken(Hinted()))
            return
        if self._sleeps_here and self._watch is not None:
            self._watch.hint(self.instance_id)
            return
        self._hinted = True
        self._tell_there()

    def _is_told(self) -> bool:
        return self._hinted

    def _home_is_gone(self) -> bool:
        return self._loop.is_closed()

    async def _nap(self, waiting: Waiting, seconds: float, left: float | None, listed: bool) -> Woken:
        if self._hinted:
            self._hinted = False
            return Woken(Hinted())
        try:
            here = self._watch
            if here is not None and listed and self._has_company(waiting, here.present):
                self._sleeps_here = True
                return await self._attentively(self._sleep_in(here, waiting, left, seconds), inf) or Woken()
            if listed and self._has_company(waiting, self._in_the_process()) and background_answers():
                return await self._sleep_there(waiting, left, seconds)
            return await self._attentively(self._sleep_alone(seconds), inf) or Woken()
        finally:
            self._hinted = self._sleeps_here = False

    async def _sleep_alone(self, seconds: float) -> Woken:
        self._alone = self._loop.create_future()
        late = self._loop.call_later(seconds, _settle, self._alone, Woken())
        try:
            return await self._alone
        finally:
            late.cancel()
            self._alone = None

    async def _sleep_there(self, waiting: Waiting, left: float | None, seconds: float) -> Woken:
        """This loop has no other wait: it sleeps where those of threads do."""
        from asyncio import wrap_future

        sleeping = self._begin_there(waiting, left, seconds)
        try:
            woken = await self._attentively(wrap_future(sleeping), _ends_at(left))
        finally:
            sleeping.cancel()
        return woken or Woken()  # none: that loop is gone, or stands still

    async def _attentively(self, sleep: Awaitable[T], end: float) -> T | None:
        """Sleep, and look up as often as the clock says. None where the background loop does not wake it."""
        from asyncio import FIRST_COMPLETED, ensure_future, wait

        every = self._clock.look_seconds if isinf(end) else min(self._clock.look_seconds, CHECK_SECONDS)
        if isinf(every):
            return await sleep
        sleeping, looking = ensure_future(sleep), ensure_future(self._clock.alook())
        try:
            while True:
                # A look that takes its time holds up no sleep that is over.
                await wait({sleeping, looking}, timeout=every, return_when=FIRST_COMPLETED)
                if looking.done():
                    looking.result()
                    await wait({sleeping}, timeout=every)
                if sleeping.done():
                    return sleeping.result()
                if looking.done():
                    looking = ensure_future(self._clock.alook())
                if not isinf(end) and (not background_answers(self._loop_there) or monotonic() >= end):
                    return None
        finally:
            sleeping.cancel()
            looking.cancel()


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
            if not listed or not self._has_company(waiting, self._in_the_process()) or not background_answers():
                return self._sleep_alone(monotonic() + seconds)
            if self._is_told():
                return Woken(Hinted())
            return self._sleep_there(waiting, left, seconds)
        finally:
            self._told.clear()

    def _sleep_alone(self, end: float) -> Woken:
        while True:
            self._clock.look()
            left = end - monotonic()
            if left <= 0:
                return Woken()
            if self._told.wait(min(left, self._clock.look_seconds, threading.TIMEOUT_MAX)):
                return Woken(Hinted())

    def _sleep_there(self, waiting: Waiting, left: float | None, seconds: float) -> Woken:
        end = _ends_at(left)
        every = min(self._clock.look_seconds, CHECK_SECONDS)
        sleeping = self._begin_there(waiting, left, seconds)
        try:
            while True:
                self._clock.look()
                try:
                    return sleeping.result(min(end - monotonic(), every))
                except concurrent.futures.TimeoutError:
                    if not background_answers(self._loop_there) or monotonic() >= end:
                        return Woken()  # that loop is gone, or stands still
        finally:
            sleeping.cancel()


def _ends_at(left: float | None) -> float:
    """Monotonic seconds at which a sleep elsewhere is over in any case."""
    return monotonic() + (WITHOUT_A_DEADLINE if left is None else left + LATE_SECONDS)


def _settle(future: asyncio.Future[Woken], woken: Woken) -> None:
    if not future.done():
        future.set_result(woken)


def _leave_to_the_parent() -> None:
    global _lock, _meetings
    _lock, _meetings = threading.RLock(), WeakKeyDictionary()


os.register_at_fork(after_in_child=_leave_to_the_parent)

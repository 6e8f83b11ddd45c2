"""Waiting for many instances at once, each told as it ends: by one poll, and a read by id for what has changed.

Whoever is asleep costs its reducer and a place in the watch. A task is made for an instance only while it is read.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Set

import httpx

from ..api.errors import OrchestrationError, ValidationError
from ..api.models import RunResult
from ..late_tasks import begun_later
from ..procedures.ends import End
from ..procedures.naps import Times, Woken
from ..procedures.observations import Hinted, LookAt
from ..procedures.wait_arguments import WaitArguments
from ..procedures.waiting import Attended, Waiting
from ..sleepers import Reason, Sleeper
from ..watching import Watch
from .asynchronous_driver import AsyncDriver
from .background import CHECK_SECONDS, background_loop, background_runs
from .base import HookBase
from .hints import ignore, listen
from .passing_time import Asleep
from .waits import meeting_of, watch_by

Told = tuple[str, "RunResult | OrchestrationError"]


def aeach_ended(hook: HookBase, instance_ids: Iterable[str], arguments: WaitArguments) -> AsyncIterator[Told]:
    """What each instance comes to, as it ends, on the running loop. See ``wait_many`` of the hooks."""
    return _aeach(hook.another(AsyncDriver), hook, _states(hook, instance_ids, arguments))


def each_ended(hook: HookBase, instance_ids: Iterable[str], arguments: WaitArguments) -> Iterator[Told]:
    """As ``aeach_ended``, for a thread: a loop in a thread of its own does the work."""
    return _each(hook.another(AsyncDriver, InThread), hook, _states(hook, instance_ids, arguments))


def _states(hook: HookBase, instance_ids: Iterable[str], arguments: WaitArguments) -> list[Waiting]:
    if isinstance(instance_ids, str) or not isinstance(instance_ids, Iterable):
        given = type(instance_ids).__name__
        raise ValidationError(f"instance_ids must be several ids, as a list of them, not {given}", path="instance_ids")
    detail = arguments.fail_after_attempts is not None
    return [hook.plans.wait_state(one, arguments, detail=detail) for one in dict.fromkeys(instance_ids)]


async def _aeach(driver: AsyncDriver, hook: HookBase, states: list[Waiting]) -> AsyncIterator[Told]:
    if not states:
        return
    many = ManyWaits(driver, _watch_of(hook, driver), states)
    many.begin()
    try:
        for _ in states:
            told = await many.ended.get()
            if isinstance(told, BaseException):
                raise told
            yield told
    finally:
        many.leave()
        await driver.close()


def _each(driver: AsyncDriver, hook: HookBase, states: list[Waiting]) -> Iterator[Told]:
    ended: queue.SimpleQueue[Told | BaseException | None] = queue.SimpleQueue()

    async def work() -> None:
        try:
            async for told in _aeach(driver, hook, states):
                ended.put(told)
            ended.put(None)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # of the caller's thread: the loop goes on
            ended.put(error)

    working = asyncio.run_coroutine_threadsafe(work(), background_loop())
    try:
        while True:
            try:
                told = ended.get(timeout=CHECK_SECONDS)
            except queue.Empty:
                if background_runs():
                    continue
                raise RuntimeError("the loop that waits has ended; the instances may still run") from None
            if told is None:
                return
            if isinstance(told, BaseException):
                raise told
            yield told
    finally:
        working.cancel()


def _watch_of(hook: HookBase, driver: HookBase) -> Watch:
    """The watch of all that reach the same server, or one for this hook alone."""
    return meeting_of(hook).watch(hook) if hook.shares else watch_by(driver.reader(AsyncDriver), lambda: None)


class ManyWaits:
    """The waits for several instances.

    Args:
        driver: performs what they ask for.
        watch: where they sleep.
        states: of each instance the state of its wait, which has not begun.
    """

    def __init__(self, driver: AsyncDriver, watch: Watch, states: list[Waiting]) -> None:
        self.ended: asyncio.Queue[Told | BaseException] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._driver = driver
        self._watch = watch
        self._times = Times(driver.plans.clock)
        self._waits = {state.instance_id: state for state in states}
        self._sleepers: dict[str, Sleeper] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._pausing: dict[str, asyncio.Future[Woken]] = {}
        self._told: set[str] = set()
        self._wake = self._woken  # one for all sleepers

    def begin(self) -> None:
        """Begin to wait. All sleep until the first poll, which comes at once."""
        for instance_id, waiting in self._waits.items():
            self._watch.enter(instance_id)
            waiting.begin(self._times.at())
        for waiting in self._waits.values():
            self._sleep(waiting, first_look=0.0)
        listen(self)

    def leave(self) -> None:
        """Wait no longer."""
        ignore(self)
        for sleeper in self._sleepers.values():
            self._watch.forget(sleeper)
        for task in self._tasks:
            task.cancel()
        for instance_id in self._waits:
            self._watch.leave(instance_id)
        self._waits.clear()

    def waits_for(self, names: Set[str]) -> Collection[str]:
        """The instances among these that have not ended."""
        return names & self._waits.keys()

    def hint(self, instance_id: str) -> None:
        """Look at an instance at once. Any thread may call it."""
        self._loop.call_soon_threadsafe(self._tell_of, instance_id)

    def asleep(self, instance_id: str) -> Asleep | None:
        """How the wait for an instance sleeps until it looks again."""
        waiting = self._waits.get(instance_id)
        sleeps = (instance_id in self._sleepers or instance_id in self._pausing) and instance_id not in self._told
        return Asleep(waiting, self._times.at()) if sleeps and waiting is not None else None

    def wake(self, instance_id: str) -> None:
        """Look at an instance at once, and count as awake until then."""
        self._told.add(instance_id)
        self.hint(instance_id)

    def _tell_of(self, instance_id: str) -> None:
        pausing = self._pausing.get(instance_id)
        if pausing is None:
            self._watch.hint(instance_id)
        elif not pausing.done():
            pausing.set_result(Woken(Hinted()))

    def _sleep(
        self,
        waiting: Waiting,
        *,
        again_at: float | None = None,
        first_look: float | None = None,
        has_read: bool = False,
    ) -> None:
        instance, deadline = waiting.instance, self._times.until(waiting.deadline)
        self._sleepers[waiting.instance_id] = self._watch.fall_asleep(
            waiting.instance_id,
            instance.workflow_id if instance is not None else None,
            waiting.poll_interval,
            self._wake,
            until=deadline,
            again_at=again_at,
            first_look=first_look,
            answered=not waiting.is_failing if has_read else None,
        )

    def _woken(self, sleeper: Sleeper, seen: Reason, listed_at: float | None) -> None:
        self._told.discard(sleeper.instance_id)
        del self._sleepers[sleeper.instance_id]
        self._do(self._waits[sleeper.instance_id], Woken(seen, listed_at), sleeper)

    def _do(self, waiting: Waiting, woken: Woken, sleeper: Sleeper) -> None:
        # In the context of whoever waits, not of the watch.
        task = begun_later(self._awake(waiting, woken, sleeper), self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _awake(self, waiting: Waiting, woken: Woken, sleeper: Sleeper) -> None:
        plans = self._driver.plans
        attended = Attended(waiting, plans.versions, plans.clock, self._times)
        try:
            while True:
                try:
                    following = await self._driver.perform(attended.go_on(attended.wake(woken)))
                finally:
                    self._watch.has_read(sleeper)
                if isinstance(following, End):
                    break
                now = self._times.at()
                if waiting.may_be_listed(now) and following.at - now <= waiting.poll_interval:
                    return self._sleep(
                        waiting,
                        again_at=self._times.until(following.at) if waiting.hurries else None,
                        first_look=following.at - now if waiting.is_young else None,
                        has_read=True,
                    )
                woken = await self._pause(waiting.instance_id, following)
            self._tell(waiting, await self._driver.perform(attended.result(following)))
        except OrchestrationError as error:
            self._tell(waiting, error)
        except Exception as error:
            self.ended.put_nowait(error)

    async def _pause(self, instance_id: str, following: LookAt) -> Woken:
        if self._watch.takes_hint(instance_id):
            return Woken(Hinted())
        told: asyncio.Future[Woken] = self._loop.create_future()
        self._pausing[instance_id] = told
        pause = asyncio.ensure_future(self._driver.clock.asleep(max(following.at - self._times.at(), 0.0)))
        try:
            await asyncio.wait((told, pause), return_when=asyncio.FIRST_COMPLETED)
            if told.done():
                return told.result()
            await pause
            return Woken()
        finally:
            pause.cancel()
            del self._pausing[instance_id]
            self._told.discard(instance_id)

    def _tell(self, waiting: Waiting, what: RunResult | OrchestrationError) -> None:
        del self._waits[waiting.instance_id]
        self._watch.leave(waiting.instance_id)
        self.ended.put_nowait((waiting.instance_id, what))


class InThread(httpx.AsyncBaseTransport):
    """A blocking transport for an asynchronous driver."""

    def __init__(self, transport: httpx.BaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request in a thread."""
        await request.aread()
        response = await asyncio.to_thread(self._transport.handle_request, request)
        return httpx.Response(
            response.status_code, headers=response.headers, content=await asyncio.to_thread(response.read)
        )

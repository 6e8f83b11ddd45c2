"""One poll for many waits: whoever waits sleeps here until there is a reason to read its instance.

A wait that asks for itself costs a request each few seconds, whether anything has happened or not. Ten thousand of them
are two thousand requests a second. The list of running instances says the same about all of them in one request. So
the waits of a process that reach one server in the same way sleep in one ``Watch``. It reads the list, and wakes those
that are not in it: they read their instances by id, and that decides. Whoever is listed sleeps on, and costs nothing.

**What the list does not show.** Stages, failing payments and runs that never started are seen by a read by id only. So
each sleeper is woken for a closer look now and then, the one that has slept longest first: after half a minute where
few wait, and later where many do, since closer looks have a rate of their own. Whoever needs to see more than that (a
run near a checkpoint, the wait for a stage) does not sleep here.

**What a poll costs.** A row of the list costs the server about a hundredth of a read by id (measured). Where few wait
and many run, reading by id is cheaper: then a poll wakes whoever has slept an interval, and reads no list. The list of
one workflow is read where all sleepers wait for that workflow.

**What goes wrong.** A list that cannot be read wakes nobody for what it lacks. From the second one in a row on, each
sleeper looks for itself. Where these reads fail too, the server is ill: polls become rarer for all, until a read is
good. Where they do not, the list is left alone for five minutes. Whoever is woken has one rate with all others: if a
thousand runs end at once, their waiters are told one after the other. Only a sleeper's deadline does not wait.

A sleeper holds no connection, and nothing is kept of one that left.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine
from itertools import count
from typing import Any, Protocol

from .api.errors import OrchestrationError, summary
from .procedures.observations import Absent, Paused
from .procedures.snapshots import Snapshot

FIRST_PAUSE = 0.2
"""Seconds between the first polls; each pause is half as long again, up to the shortest interval of a sleeper."""
ROW_COST = 0.01
"""What a row of the list costs, where a request costs 1."""
RECHECK_SECONDS = 300.0
"""Seconds for which a list counts as too long to be read."""
READS_PER_SECOND = 200.0
"""Sleepers that are woken in a second, at most."""
BURST = 50.0
"""Sleepers that may be woken at once."""
CLOSER_LOOK_SECONDS = 30.0
"""Seconds after which a sleeper that is listed is woken for a closer look, where few wait."""
CLOSER_LOOKS_PER_SECOND = 5.0
"""Closer looks in a second, at most."""
LIST_SECONDS = 15.0
"""Seconds that one reading of the list may take."""
BUSY_SHARE = 0.05
"""The share of the time that reading lists may take while polls are quicker than any sleeper's interval."""
LONGEST_PAUSE = 60.0
"""Seconds between two polls of a list that cannot be read."""
GIVEN_UP_AFTER = 3
"""Lists in a row that could not be read, after which the list is left alone for a while, if reads by id are good."""
GRANT_SECONDS = 0.05
"""Seconds between two rounds of waking sleepers that have to wait for their turn."""

Reason = Paused | Absent
Wake = Callable[[Reason, "float | None"], None]
"""Called once, on the loop: why, and the monotonic seconds at which a list was last read meanwhile."""

logger = logging.getLogger("orchestration_integrations.watching")


class Time(Protocol):
    """A monotonic clock of the event loop's."""

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...

    async def asleep(self, seconds: float) -> None:
        """Suspend this task."""
        ...


class Sleeper:
    """Somebody who waits for an instance, from when it fell asleep until it is woken."""

    __slots__ = ("asleep", "hurries", "instance_id", "interval", "other", "queued", "since", "wake", "workflow_id")

    def __init__(
        self, instance_id: str, workflow_id: str | None, interval: float, wake: Wake, since: float, hurries: bool
    ) -> None:
        self.hurries = hurries
        self.instance_id = instance_id
        self.workflow_id = workflow_id
        self.interval = interval
        self.wake = wake
        self.since = since
        self.asleep = True
        self.queued = False
        self.other: Sleeper | None = None


class Watch:
    """The sleepers of one event loop that wait for instances of one server.

    Args:
        read: reads a snapshot of the running instances of a workflow, or of all, by the given monotonic seconds.
        time: the clock.
        jitter: gives a random number from 0 to 1.
        on_empty: called when the last one has left.

    Attributes:
        present: how many wait, asleep or awake.
    """

    def __init__(
        self,
        read: Callable[[str | None, float], Awaitable[Snapshot]],
        time: Time,
        jitter: Callable[[], float],
        on_empty: Callable[[], object] | None = None,
    ) -> None:
        self._on_empty = on_empty
        self._read = read
        self._time = time
        self._jitter = jitter
        self.present = 0
        self._present: Counter[str] = Counter()
        self._sleepers: dict[str, Sleeper] = {}
        self._deadlines: list[tuple[float, int, Sleeper]] = []
        self._numbers = count()
        self._intervals: Counter[float] = Counter()
        self._workflows: Counter[str | None] = Counter()
        self._missed: set[str] = set()
        self._hinted: set[str] = set()
        self._soon: deque[tuple[Sleeper, Reason]] = deque()
        self._later: deque[tuple[Sleeper, Reason]] = deque()
        self._blind: deque[tuple[Sleeper, Reason]] = deque()
        self._tokens = BURST
        self._filled_at = time.monotonic()
        self._closer = 1.0
        self._pace = FIRST_PAUSE
        self._due = self._filled_at
        self._polled_at: float | None = None
        self._listed_at: float | None = None
        self._lists_failed = 0
        self._ill = 0
        self._good_reads = self._bad_reads = 0
        self._costs: dict[str | None, tuple[float, float]] = {}
        self._kick = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._polling: asyncio.Task[None] | None = None

    @property
    def remembers(self) -> int:
        """How much is kept: of those that sleep or have just been woken."""
        kept = (self._sleepers, self._missed, self._hinted, self._intervals, self._workflows)
        asleep = sum(one[2].asleep for one in self._deadlines)
        return sum(map(len, kept)) + asleep + sum(one.asleep for one, _ in (*self._soon, *self._later, *self._blind))

    def now(self) -> float:
        """Monotonic seconds."""
        return self._time.monotonic()

    # ---- those who wait ----------------------------------------------------------------------------

    def enter(self, instance_id: str) -> None:
        """Somebody begins to wait for an instance."""
        self._present[instance_id] += 1
        self.present += 1

    def leave(self, instance_id: str) -> None:
        """Somebody waits no longer. Nothing is kept of it."""
        self._present[instance_id] -= 1
        self.present -= 1
        if self._present[instance_id] <= 0:
            del self._present[instance_id]
            self._missed.discard(instance_id)
            self._hinted.discard(instance_id)
        if not self._present:
            for task in (self._task, self._polling):
                if task is not None:
                    task.cancel()
            self._task = self._polling = None
            self._lists_failed = self._ill = 0
            self._costs.clear()
            if self._on_empty is not None:
                self._on_empty()

    def fall_asleep(
        self,
        instance_id: str,
        workflow_id: str | None,
        interval: float,
        wake: Wake,
        *,
        until: float | None = None,
        hurry: bool = False,
        failed: bool = False,
    ) -> Sleeper:
        """Sleep until there is a reason to read the instance. Whoever sleeps has entered.

        Args:
            instance_id: whom it waits for.
            workflow_id: of which workflow; None where that is not known.
            interval: the longest seconds between two polls.
            wake: called when it is woken.
            until: monotonic seconds at which it is woken in any case.
            hurry: it has just begun to wait: the next poll comes at once, and the following ones soon.
            failed: its last read has failed.
        """
        now = self._time.monotonic()
        self._note_read(failed, hurry)
        sleeper = Sleeper(instance_id, workflow_id, interval, wake, now, hurry)
        sleeper.other = self._sleepers.pop(instance_id, None)
        self._sleepers[instance_id] = sleeper
        self._intervals[interval] += 1
        self._workflows[workflow_id] += 1
        if until is not None:
            self._note_deadline(until, sleeper)
        if hurry and self._pace > FIRST_PAUSE:
            self._pace, self._due = FIRST_PAUSE, min(self._due, now + FIRST_PAUSE)
            self._kick.set()
        if instance_id in self._hinted:
            self._hinted.discard(instance_id)
            self._enqueue(self._soon, sleeper, Paused())
            self._kick.set()
        if self._task is None or self._task.done():
            self._due, self._pace = (now, FIRST_PAUSE) if hurry else (now + interval, interval)
            self._task = _task_of_nobody(self._watch())
        elif now + interval < self._due and not self._ill:
            self._due = now + interval
            self._kick.set()
        elif len(self._sleepers) == 1:
            self._kick.set()  # while nobody slept, no poll was due
        return sleeper

    def _note_read(self, failed: bool, hurry: bool) -> None:
        """Somebody falls asleep after a read, unless it has just begun."""
        if failed:
            self._bad_reads += 1
        elif not hurry:
            self._good_reads += 1
            if self._ill:  # the server is well again: nobody waits out the long pause
                self._ill, self._due = 0, min(self._due, self._time.monotonic() + min(self._intervals, default=0.0))
                self._kick.set()

    def _note_deadline(self, until: float, sleeper: Sleeper) -> None:
        heapq.heappush(self._deadlines, (until, next(self._numbers), sleeper))
        if self._deadlines[0][2] is sleeper:
            self._kick.set()
        if len(self._deadlines) > 2 * len(self._sleepers) + 100:  # mostly of those that were woken since
            self._deadlines = [one for one in self._deadlines if one[2].asleep]
            heapq.heapify(self._deadlines)

    def forget(self, sleeper: Sleeper) -> None:
        """A sleeper goes away before it is woken."""
        if not sleeper.asleep:
            return
        sleeper.asleep = False
        self._intervals[sleeper.interval] -= 1
        if self._intervals[sleeper.interval] <= 0:
            del self._intervals[sleeper.interval]
        self._workflows[sleeper.workflow_id] -= 1
        if self._workflows[sleeper.workflow_id] <= 0:
            del self._workflows[sleeper.workflow_id]
        first = self._sleepers.get(sleeper.instance_id)
        if first is sleeper:
            if sleeper.other is None:
                del self._sleepers[sleeper.instance_id]
            else:
                self._sleepers[sleeper.instance_id] = sleeper.other
            return
        while first is not None:
            if first.other is sleeper:
                first.other = sleeper.other
                return
            first = first.other

    def hint(self, instance_id: str) -> bool:
        """Somebody says that the instance may have ended: its waiters read it now.

        Returns:
            Whether anybody waits for it.
        """
        if instance_id not in self._present:
            return False
        sleeper = self._sleepers.get(instance_id)
        awake = self._present[instance_id]
        while sleeper is not None:
            self._enqueue(self._soon, sleeper, Paused())
            sleeper, awake = sleeper.other, awake - 1
        self._kick.set()
        if awake > 0:
            self._hinted.add(instance_id)  # it is being read: that may have come too early
        return True

    # ---- the poll ----------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            try:
                await self._once()
            except Exception:  # those who sleep here must go on
                logger.exception("the watch has made a mistake")
                await self._time.asleep(1.0)

    async def _once(self) -> None:
        """One round: whatever is due now, then sleep."""
        now = self._time.monotonic()
        self._wake_those_whose_time_is_over(now)
        polling = self._polling is not None and not self._polling.done()
        if self._sleepers and not polling and now >= self._due:
            self._polling, polling = _task_of_nobody(self._poll(now)), True
        self._grant(now)
        at = self._due if self._sleepers and not polling else now + LONGEST_PAUSE
        if self._deadlines:
            at = min(at, self._deadlines[0][0])
        if self._soon or self._later or self._blind:
            at = min(at, now + GRANT_SECONDS)
        await self._sleep(at - now)

    async def _sleep(self, seconds: float) -> None:
        """Sleep, unless something comes up."""
        if seconds <= 0:
            await asyncio.sleep(0)
        elif not self._kick.is_set():
            pause = asyncio.ensure_future(self._time.asleep(seconds))
            kick = asyncio.ensure_future(self._kick.wait())
            try:
                await asyncio.wait((pause, kick), return_when=asyncio.FIRST_COMPLETED)
            finally:
                pause.cancel()
                kick.cancel()
        self._kick.clear()

    async def _poll(self, now: float) -> None:
        workflow_id = next(iter(self._workflows)) if len(self._workflows) == 1 else None
        some_are_good = self._good_reads > 0
        all_fail = self._bad_reads > 0 and not some_are_good
        self._bad_reads = self._good_reads = 0
        found = None
        try:
            if self._list_is_cheaper(workflow_id, now):
                found = await self._listed(workflow_id, now, some_are_good)
                if found is not None:
                    self._compare(found, now)
                elif self._lists_failed > 1:
                    self._look_without_a_list(now)
            else:
                self._look_without_a_list(now)
        finally:
            if found is not None or some_are_good:
                self._ill = 0
            elif all_fail:
                self._ill += 1  # where nothing came back since, it stays as it was
            self._polled_at = now
            self._schedule(self._time.monotonic() - now if found is not None else 0.0)
            self._kick.set()

    async def _listed(self, workflow_id: str | None, now: float, some_are_good: bool) -> Snapshot | None:
        """A snapshot; None where it cannot be read."""
        try:
            found = await self._read(workflow_id, now + LIST_SECONDS)
        except Exception as error:  # whatever it is: those who sleep here must go on
            self._lists_failed += 1
            if self._lists_failed == 1:
                why = summary(error) if isinstance(error, OrchestrationError) else type(error).__name__
                logger.warning("the list of running instances cannot be read: %s", why)
            if self._lists_failed >= GIVEN_UP_AFTER and some_are_good:
                self._costs[workflow_id] = (float("inf"), now)  # it is the list that is ill
            return None
        if self._lists_failed:
            logger.info("the list of running instances can be read again")
        self._lists_failed = 0
        self._costs[workflow_id] = (found.requests + found.rows * ROW_COST, now)
        return found

    def _schedule(self, took: float) -> None:
        interval = min(self._intervals, default=LONGEST_PAUSE)
        self._pace = min(self._pace * 1.5, interval)
        pause = max(self._pace, min(took / BUSY_SHARE, interval))
        if self._ill:
            pause = min(max(pause, interval) * 2.0 ** min(self._ill, 10), max(LONGEST_PAUSE, interval))
        self._due = self._time.monotonic() + pause * (0.9 + 0.2 * self._jitter())

    def _list_is_cheaper(self, workflow_id: str | None, now: float) -> bool:
        waiting = len(self._sleepers)
        cost, known_at = self._costs.get(workflow_id, (0.0, float("-inf")))
        if now - known_at > RECHECK_SECONDS:
            cost = 1.0 + waiting * ROW_COST
        return cost < waiting

    def _compare(self, found: Snapshot, began: float) -> None:
        """Wake those who are not listed, and let some who are look closer."""
        listed = found.ids
        while self._blind:  # they need not look for themselves any more
            self._blind.popleft()[0].queued = False
        for instance_id in self._sleepers.keys() - listed:
            queue = self._later if instance_id in self._missed else self._soon
            self._missed.add(instance_id)
            sleeper: Sleeper | None = self._sleepers[instance_id]
            while sleeper is not None:
                self._enqueue(queue, sleeper, Absent())
                sleeper = sleeper.other
        self._missed -= listed
        self._listed_at = began
        waiting = len(self._sleepers)
        longest = max(CLOSER_LOOK_SECONDS, waiting / CLOSER_LOOKS_PER_SECOND)
        since = began if self._polled_at is None else self._polled_at
        self._closer = min(self._closer + (began - since) * CLOSER_LOOKS_PER_SECOND, BURST)
        for first in self._sleepers.values():  # the one that has slept longest comes first
            if began - first.since < longest or self._closer < 1.0:
                break
            one: Sleeper | None = first
            while one is not None:
                if not one.queued and began - one.since >= longest:
                    self._closer -= 1.0
                    self._enqueue(self._later, one, Paused())
                one = one.other

    def _look_without_a_list(self, now: float) -> None:
        """Wake whoever has slept its interval."""
        for sleeper in self._sleepers.values():
            one: Sleeper | None = sleeper
            while one is not None:
                interval = min(one.interval, self._pace) if one.hurries else one.interval
                if now - one.since >= 0.8 * interval:
                    self._enqueue(self._blind, one, Paused())
                one = one.other

    # ---- waking ------------------------------------------------------------------------------------

    def _enqueue(self, queue: deque[tuple[Sleeper, Reason]], sleeper: Sleeper, reason: Reason) -> None:
        if not sleeper.queued:
            sleeper.queued = True
            queue.append((sleeper, reason))

    def _grant(self, now: float) -> None:
        """Wake as many as the rate allows."""
        self._tokens = min(self._tokens + max(now - self._filled_at, 0.0) * READS_PER_SECOND, BURST)
        self._filled_at = now
        for queue in (self._soon, self._later, self._blind):
            while queue and self._tokens >= 1.0:
                sleeper, reason = queue.popleft()
                if sleeper.asleep:
                    self._tokens -= 1.0
                    self._wake(sleeper, reason)

    def _wake_those_whose_time_is_over(self, now: float) -> None:
        while self._deadlines and (self._deadlines[0][0] <= now or not self._deadlines[0][2].asleep):
            sleeper = heapq.heappop(self._deadlines)[2]
            if sleeper.asleep:
                self._wake(sleeper, Paused())

    def _wake(self, sleeper: Sleeper, reason: Reason) -> None:
        if not sleeper.asleep:
            return
        self.forget(sleeper)
        at = self._listed_at
        sleeper.wake(reason, at if at is not None and at > sleeper.since else None)


def _task_of_nobody(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task that has nothing of the context of whoever happened to be first."""
    return contextvars.Context().run(asyncio.get_running_loop().create_task, work)

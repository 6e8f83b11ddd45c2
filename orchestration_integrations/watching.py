"""One poll for many waits: whoever waits sleeps here until there is a reason to read its instance.

A wait that asks for itself costs a request each few seconds, whether anything has happened or not. Ten thousand of them
are two thousand requests a second. The list of running instances says the same about all of them in one request. So
the waits of a process that reach one server in the same way sleep in one ``Watch``. It reads the list, and wakes those
that are not in it: they read their instances by id, and that decides. Whoever is listed sleeps on, and costs nothing.

**What the list does not show.** Stages, failing payments and runs that never started are seen by a read by id only. So
each sleeper is woken for a closer look now and then, the one that has slept longest first: by the first poll after
half a minute where few wait, and later where many do, since closer looks have a rate of their own. Whoever needs to see
more than that (a run near a checkpoint, the wait for a stage) does not sleep here.

**What a poll costs.** A row of the list costs the server about a hundredth of a read by id (measured). Where few wait
and many run, reading by id is cheaper: then a poll wakes whoever has slept an interval, and reads no list. The list of
one workflow is read where all sleepers wait for that workflow.

**What goes wrong.** A list that cannot be read wakes nobody for what it lacks. From the second one in a row on, each
sleeper looks for itself. Where these reads fail too, the server is ill: polls become rarer for all, until a read is
good. Where they do not, the list is left alone for five minutes. So is one that takes longer than the
shortest interval, as long as those who wait can be read by id within that; they need not wait for it either.

Whoever is woken has one rate with all others: if a thousand runs end at once, their waiters are told one after the
other. A slow server is not asked for more than it answers: only so many read at once, and the next is woken when one of
them is through. Hints, ends, closer looks and looks without a list take turns, so that none of them starves. Only a
sleeper's deadline does not wait.

A sleeper holds no connection, and nothing is kept of one that left.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import Any

from .api.errors import OrchestrationError, summary
from .clock import Clock
from .late_tasks import begun_later
from .procedures.limits import FIRST_PAUSE, GROWTH
from .procedures.observations import Paused
from .procedures.snapshots import Snapshot
from .sleepers import Reading, Reason, Sleeper, Sleepers, Wake, WakingOrder

ROW_COST = 0.01
"""What a row of the list costs, where a request costs 1."""
RECHECK_SECONDS = 300.0
"""Seconds for which a list counts as too long to be read."""
READS_PER_SECOND = 200.0
"""Sleepers that are woken in a second, at most."""
BURST = 50.0
"""Sleepers that may be woken at once."""
READS_INSTEAD_OF_A_SLOW_LIST = 50.0
"""Reads by id in a second, at most, that take the place of a list that takes longer than the shortest interval."""
CLOSER_LOOK_SECONDS = 30.0
"""Seconds after which a sleeper that is listed is woken for a closer look, where few wait."""
CLOSER_LOOKS_PER_SECOND = 5.0
"""Closer looks in a second, at most."""
LIST_SECONDS = 15.0
"""Seconds that one reading of the list may take."""
BUSY_SHARE = 0.05
"""The share of the time that reading lists may take while polls are quicker than any sleeper's interval."""
LONGEST_PAUSE = 60.0
"""Seconds between two polls of a server that is ill, unless all intervals are longer."""
GIVEN_UP_AFTER = 3
"""Lists in a row that could not be read, after which the list is left alone for a while, if reads by id are good."""
REVIVED_AFTER = 1.0
"""Seconds after which the watch goes on that somebody else has cancelled."""
GRANT_SECONDS = 0.05
"""Seconds between two rounds of waking sleepers that have to wait for their turn."""

logger = logging.getLogger("orchestration_integrations.watching")


@dataclass(frozen=True)
class _Cost:
    """What a list has cost: in requests, and in seconds. ``known_at``: monotonic seconds."""

    requests: float
    seconds: float
    known_at: float


UNKNOWN_COST = _Cost(0.0, 0.0, -inf)


class Watch:
    """The sleepers of one event loop that wait for instances of one server.

    Args:
        read: reads a snapshot of the running instances of a workflow, or of all, by the given monotonic seconds.
        time: the clock.
        jitter: gives a random number from 0 to 1.
        on_empty: called when the last one has left.
        server: its name, for the log.
        reads_at_once: how many of those that were woken may be reading, at most, unless a deadline is due.

    Attributes:
        present: how many wait, asleep or awake.
    """

    def __init__(
        self,
        read: Callable[[str | None, float], Awaitable[Snapshot]],
        time: Clock,
        jitter: Callable[[], float],
        on_empty: Callable[[], object] | None = None,
        server: str = "the server",
        reads_at_once: float = inf,
    ) -> None:
        self._on_empty = on_empty
        self._read = read
        self._time = time
        self._jitter = jitter
        self._server = server
        self._reading = Reading(reads_at_once)
        self.present = 0
        self._present: Counter[str] = Counter()
        self._sleepers = Sleepers()
        self._missed: set[str] = set()
        self._hinted: Counter[str] = Counter()
        """How many wait for an instance who were reading it when a hint came."""
        self._queues = WakingOrder()
        self._tokens = BURST
        self._filled_at = time.monotonic()
        self._closer = 1.0
        self._pace = FIRST_PAUSE
        self._due = self._not_before = self._filled_at
        self._poll_began = self._filled_at
        self._looked_at = -inf
        self._polled_at: float | None = None
        self._listed_at: float | None = None
        self._lists_failed = 0
        self._ill = 0
        self._good_reads = self._bad_reads = 0
        self._costs: dict[str | None, _Cost] = {}
        self._kick = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._polling: asyncio.Task[None] | None = None

    @property
    def remembers(self) -> int:
        """How much is kept: of those that sleep or have just been woken."""
        return (
            self._sleepers.remembers
            + len(self._missed)
            + len(self._hinted)
            + len(self._reading)
            + self._queues.remember
        )

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
            self._hinted.pop(instance_id, None)
        if not self._present:
            self._queues.clear()
            self._reading.clear()
            self._good_reads = self._bad_reads = 0
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
        again_at: float | None = None,
        first_look: float | None = None,
        answered: bool | None = None,
    ) -> Sleeper:
        """Sleep until there is a reason to read the instance. Whoever sleeps has entered.

        Args:
            instance_id: whom it waits for.
            workflow_id: of which workflow; None where that is not known.
            interval: the longest seconds between two polls.
            wake: called when it is woken.
            until: monotonic seconds at which it is woken in any case.
            again_at: monotonic seconds at which it looks again after a hint that came too early.
            first_look: seconds until it would look by itself, while its looks have not slowed down to its interval.
            answered: whether its last read was answered; None where it has read nothing.
        """
        now = self._time.monotonic()
        self._note_read(answered)
        sleeper = Sleeper(instance_id, workflow_id, interval, wake, now, first_look is not None)
        sleeper.missing = instance_id in self._missed
        self._sleepers.add(sleeper)
        for at, is_deadline in ((until, True), (again_at, False)):
            if at is not None and self._sleepers.set_alarm(sleeper, at, is_deadline=is_deadline):
                self._kick.set()
        if self.takes_hint(instance_id):
            self._queues.hint(sleeper)
            self._kick.set()
        latest = now + self._longest_pause(interval)
        begins = self._task is None or self._task.done()
        if first_look is not None and not self._ill:
            self._pace = min(self._pace, max(first_look, FIRST_PAUSE))
            latest = now + (first_look if begins else max(first_look, FIRST_PAUSE, self._not_before - now))
        elif begins:
            self._pace = interval
        if begins:
            self._due = latest
            self._begin()
        elif latest < self._due:
            self._due = latest
            self._kick.set()
        elif len(self._sleepers) == 1:
            self._kick.set()  # while nobody slept, no poll was due
        return sleeper

    def _note_read(self, answered: bool | None) -> None:
        """What the read came to after which somebody falls asleep."""
        if answered is False:
            self._bad_reads += 1
        elif answered:
            self._good_reads += 1
            if self._ill:  # the server is well again: nobody waits out the long pause
                self._ill = 0
                self._due = min(self._due, self._time.monotonic() + self._sleepers.shortest_interval(0.0))
                self._kick.set()

    def has_read(self, sleeper: Sleeper) -> None:
        """Who was woken is through with its read, whatever that came to. Say it whenever it is; again is harmless."""
        if self._reading.end(sleeper) and self._queues:
            self._kick.set()

    def forget(self, sleeper: Sleeper) -> None:
        """A sleeper goes away before it is woken."""
        if sleeper.asleep:
            self._sleepers.remove(sleeper)

    def hint(self, instance_id: str) -> bool:
        """Somebody says that the instance may have ended: its waiters read it now.

        Returns:
            Whether anybody waits for it.
        """
        if instance_id not in self._present:
            return False
        asleep = 0
        for sleeper in self._sleepers.of(instance_id):
            self._queues.hint(sleeper)
            asleep += 1
        if self._present[instance_id] > asleep:  # it is being read: that may have come too early
            self._hinted[instance_id] = self._present[instance_id] - asleep
        self._kick.set()
        return True

    def takes_hint(self, instance_id: str) -> bool:
        """Whether a hint came while the instance was being read. Each who waits for it is told once."""
        if instance_id not in self._hinted:
            return False
        self._hinted[instance_id] -= 1
        if self._hinted[instance_id] <= 0:
            del self._hinted[instance_id]
        return True

    # ---- the poll ----------------------------------------------------------------------------------

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        task = self._task = _task_of_nobody(self._watch())

        def revive() -> None:
            if self._task is task and self._present:
                self._begin()

        # Whoever cancels all tasks of a loop that runs on cancels this one too. Those who sleep here must go on.
        task.add_done_callback(lambda _: None if self._task is not task else loop.call_later(REVIVED_AFTER, revive))

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
        for sleeper, is_deadline in self._sleepers.due(now):
            if is_deadline:
                self._wake(sleeper, Paused())
            else:
                self._queues.look_again(sleeper)
        polling = self._polling is not None and not self._polling.done()
        if self._sleepers and not polling and now >= self._due:
            self._polling, polling = _task_of_nobody(self._poll(now)), True
            self._poll_began = now
        interval = self._sleepers.shortest_interval(LONGEST_PAUSE)
        at = self._due if self._sleepers and not polling else now + LONGEST_PAUSE
        if polling:
            if now >= self._without_a_list_at(interval):
                self._looked_at = now
                self._look_without_a_list(now)
            at = min(at, self._without_a_list_at(interval))
        self._grant(now)
        alarm = self._sleepers.next_alarm()
        if alarm is not None:
            at = min(at, alarm)
        if self._queues:
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
                with suppress(RuntimeError):  # the loop was closed over its tasks
                    pause.cancel()
                    kick.cancel()
        self._kick.clear()

    async def _poll(self, now: float) -> None:
        workflow_id = self._sleepers.only_workflow()
        some_are_good = self._good_reads > 0
        all_fail = self._bad_reads > 0 and not some_are_good
        self._bad_reads = self._good_reads = 0
        found = None
        try:
            if self._list_is_better(workflow_id, now):
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
            self._schedule(self._time.monotonic() - now)
            self._kick.set()

    async def _listed(self, workflow_id: str | None, now: float, some_are_good: bool) -> Snapshot | None:
        """A snapshot; None where it cannot be read."""
        was_told = self._lists_failed > 0
        try:
            found = await self._read(workflow_id, now + LIST_SECONDS)
        except Exception as error:  # whatever it is: those who sleep here must go on
            self._lists_failed += 1
            if not was_told:
                why = summary(error) if isinstance(error, OrchestrationError) else type(error).__name__
                waits = "1 wait that shares it goes" if self.present == 1 else f"{self.present} waits that share it go"
                logger.warning(
                    "the list of running instances on %s cannot be read (%s); %s on", self._server, why, waits
                )
            if self._lists_failed >= GIVEN_UP_AFTER and some_are_good:
                self._costs[workflow_id] = _Cost(inf, 0.0, now)  # it is the list that is ill
            return None
        if self._lists_failed:
            logger.info("the list of running instances on %s can be read again", self._server)
        self._lists_failed = 0
        took = self._time.monotonic() - now
        if len(self._costs) >= 100:  # of workflows that nobody waits for any more
            self._costs.clear()
        self._costs[workflow_id] = _Cost(found.requests + found.rows * ROW_COST, took, now)
        return found

    def _schedule(self, took: float) -> None:
        interval = self._sleepers.shortest_interval(LONGEST_PAUSE)
        self._pace = min(self._pace * GROWTH, interval)
        least = min(took / BUSY_SHARE, interval)
        self._not_before = self._time.monotonic() + least
        pause = max(self._pace, least)
        if self._ill:
            pause = self._longest_pause(max(pause, interval))
        self._due = self._time.monotonic() + pause * (0.9 + 0.2 * self._jitter())

    def _longest_pause(self, interval: float) -> float:
        """Seconds until the next poll for whoever has this interval: the more, the longer the server is ill.

        All together ask it no more often than one alone would, and one alone as often as it wants.
        """
        return min(interval * min(2.0 ** min(self._ill, 10), max(self.present, 1)), max(LONGEST_PAUSE, interval))

    def _list_is_better(self, workflow_id: str | None, now: float) -> bool:
        """Whether the list costs less than a read by id for each sleeper, and is quick enough."""
        waiting = len(self._sleepers.instance_ids)
        known = self._costs.get(workflow_id, UNKNOWN_COST)
        if now - known.known_at > RECHECK_SECONDS:
            return 1.0 + waiting * ROW_COST < waiting
        interval = self._sleepers.shortest_interval(LONGEST_PAUSE)
        if known.seconds > interval and self._may_do_without(interval):
            return False
        return known.requests < waiting

    def _may_do_without(self, interval: float) -> bool:
        """Whether all who sleep can be read by id within an interval, if the list is too slow."""
        return 0 < len(self._sleepers.instance_ids) <= READS_INSTEAD_OF_A_SLOW_LIST * interval

    def _compare(self, found: Snapshot, began: float) -> None:
        """Wake those who are not listed, and let some who are look closer."""
        self._queues.forget_looks_without_a_list()
        listed = found.ids
        for instance_id in self._sleepers.instance_ids - listed:
            again = instance_id in self._missed
            self._missed.add(instance_id)
            for sleeper in self._sleepers.of(instance_id):
                if not sleeper.missing:
                    sleeper.missing, sleeper.listed_at = True, self._listed_at
                self._queues.absent(sleeper, again=again)
        for instance_id in self._missed & listed:
            for sleeper in self._sleepers.of(instance_id):
                sleeper.missing = False
        self._missed -= listed
        self._listed_at = began
        self._look_closer(began)

    def _look_closer(self, began: float) -> None:
        longest = max(CLOSER_LOOK_SECONDS, len(self._sleepers) / CLOSER_LOOKS_PER_SECOND)
        since = began if self._polled_at is None else self._polled_at
        self._closer += (began - since) * CLOSER_LOOKS_PER_SECOND
        for sleeper in self._sleepers:  # the one that has slept longest comes first
            if began - sleeper.since < longest or self._closer < 1.0:
                break
            if not sleeper.queued:
                self._closer -= 1.0
                self._queues.closer_look(sleeper)
        self._closer = min(self._closer, BURST)

    def _without_a_list_at(self, interval: float) -> float:
        """When nobody waits any longer for the list that is being read."""
        return max(self._poll_began + interval, self._looked_at + interval / 2)

    def _look_without_a_list(self, now: float) -> None:
        """Wake whoever has slept its interval."""
        pause = min(self._pace * GROWTH, self._sleepers.shortest_interval(LONGEST_PAUSE))
        for sleeper in self._sleepers:
            interval = min(sleeper.interval, self._pace) if sleeper.is_new else sleeper.interval
            slept = now - sleeper.since
            if slept >= 0.8 * interval or slept + pause >= 1.1 * interval:  # at the next poll it would be late
                self._queues.look_without_a_list(sleeper)

    # ---- waking ------------------------------------------------------------------------------------

    def _grant(self, now: float) -> None:
        """Wake as many as the rate allows."""
        self._tokens = min(self._tokens + max(now - self._filled_at, 0.0) * READS_PER_SECOND, BURST)
        self._filled_at = now
        while self._tokens >= 1.0 and not self._reading.is_full(now):
            turn = self._queues.next()
            if turn is None:
                return
            self._tokens -= 1.0
            self._wake(*turn)

    def _wake(self, sleeper: Sleeper, reason: Reason) -> None:
        wake = sleeper.wake
        self._sleepers.remove(sleeper)
        self._reading.begin(sleeper, self._time.monotonic())
        at = sleeper.listed_at if sleeper.missing else self._listed_at
        wake(sleeper, reason, at if at is not None and at > sleeper.since else None)


def _task_of_nobody(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task that has nothing of the context of whoever happened to be first."""
    return begun_later(work, contextvars.Context())

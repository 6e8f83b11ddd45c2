"""Which runs of a workflow have ended, poll by poll. Knows nothing of Airflow.

A list proves little: it has no order, pages shift, and a row that is missing among the running ones may run. So each
poll reads the running instances, which are few, and asks by id for those that were running before and are no longer
listed (``runs_to_read``). A run that begins and ends between two polls is only in the list of *all* instances, which is
read more rarely (``whole_lists``).

**A repeat rather than a loss**, wherever the truth cannot be known. What the server denies may be another server's, so
nothing is ever taken as told because it was denied. A run that was told and runs again, since the server was restored
from a backup, is told once more when it ends.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

from ..api.errors import NotFoundError, OrchestrationError, is_gateways_404
from ..api.models import Instance
from .runs_to_read import DENIALS_IN_DOUBT, RunsToRead
from .told_ends import MOST_TO_LOOK_AT, ToldEnds
from .whole_lists import CLOCK_SECONDS, LATE_SECONDS, WholeLists

if TYPE_CHECKING:
    from ..http_hook import AsyncOrchestrationHttpHook

READS_AT_ONCE = 10
"""Reads by id that are under way at the same time."""
MANY_TOLD = 1000
"""Ends held after which the whole list is read earlier, so that they need be held no longer."""
JUMP_SECONDS = 30.0
"""Seconds that the server's clock must fall back by, between two polls, to count as set back."""

logger = logging.getLogger("orchestration_integrations.airflow")


class DoubtfulServerError(OrchestrationError):
    """The server denies every run of the workflow that it has shown before: it may be another server."""


@dataclass(frozen=True)
class Poll:
    """What one poll brought.

    Attributes:
        ended: the instances whose end was not told yet, as reads by id give them; at most ``READS_PER_POLL``.
        trouble: what kept the poll from reading all that was to be read; the next poll makes up for it.
    """

    ended: Sequence[Instance]
    trouble: OrchestrationError | None = None


@dataclass
class _Signs:
    """What one poll has seen of the server.

    Attributes:
        denials: how many runs it has denied.
        errors: of reads that brought nothing.
    """

    denials: int
    errors: list[OrchestrationError]


class EndedRuns:
    """The ends of the runs of one workflow since this object was made, by the server's clock.

    An end comes with each poll until ``told`` was called for it.

    Args:
        workflow_id: whose runs.
        now: epoch seconds of this machine.
        elapsed: seconds of this machine that never go back.

    Attributes:
        may_forget: whether ends that lie far enough back need not be held. False while an earlier process's knowledge
            is still to come.
    """

    def __init__(
        self,
        workflow_id: str,
        now: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self.may_forget = True
        self._workflow_id = workflow_id
        self._now = now
        self._elapsed = elapsed
        self._ends = ToldEnds(now())
        self._known = False
        self._running: set[str] = set()
        self._to_read = RunsToRead(elapsed)
        self._ended: dict[str, Instance] = {}
        self._whole_lists = WholeLists(elapsed)
        self._clock_ahead = -inf
        """Seconds by which the server's clock is ahead of ``elapsed``; when ``since`` was set, and now."""
        self._clock_ahead_now = -inf
        self._shows_runs = True
        """Whether the server shows any run of the workflow."""

    def state(self) -> dict[str, Any]:
        """What another process can go on from, as plain JSON of at most 64 kB."""
        return self._ends.state([*self._ended, *self._to_read, *sorted(self._running), *self._to_read.given_up])

    def go_on_from(self, state: Any) -> None:
        """Take over what an earlier process knew.

        Raises:
            UnreadableStateError: ``state`` is nothing that ``state()`` gave. Nothing has changed.
        """
        earlier, look_at = ToldEnds.of_state(state)
        self._ends.merge(earlier)
        self._look_at(one for one in look_at if one not in self._ended and not self._ends.is_told(one))
        self._whole_lists.begin_anew()

    def learn_from(self, state: Any) -> None:
        """Another watcher of the same ends has told some: they need not be told here.

        Raises:
            UnreadableStateError: ``state`` is nothing that ``state()`` gave. Nothing has changed.
        """
        other, _ = ToldEnds.of_state(state)
        self._ends.learn(other)

    def is_told(self, instance: Instance) -> bool:
        """Whether this end was told already, by another watcher for example."""
        return self._ends.is_told(instance.id)

    def told(self, instances: Iterable[Instance]) -> None:
        """These ends need not be told any more."""
        for instance in instances:
            self._ended.pop(instance.id, None)
            self._ends.tell(instance.id, _end(instance))

    async def poll(self, http: AsyncOrchestrationHttpHook) -> Poll:
        """Read what has changed.

        Raises:
            NotFoundError: the server does not know the workflow, and no run of it is known.
            OrchestrationError: the running instances could not be listed. The next poll makes up for it.
        """
        troubles = [await self._see_workflow(http)]
        rows = await http.list_instances(self._workflow_id, running=True)
        self._see_clock(http.plans.clock.server_time())
        self._see_running({row.id for row in rows})
        if self._whole_lists.is_due(many=len(self._ends) > MANY_TOLD):
            troubles.append(await self._read_whole_list(http))
        self._shows_runs = self._shows_runs or bool(rows)
        troubles += (await self._read_by_id(http)).errors[:1]
        troubles.insert(0, self._doubt())
        return Poll(tuple(self._ended.values()), next((one for one in troubles if one is not None), None))

    async def _see_workflow(self, http: AsyncOrchestrationHttpHook) -> OrchestrationError | None:
        """A list of an unknown workflow is just empty, and so is one of a deleted workflow."""
        if self._known:
            return None
        try:
            workflow = await http.get_workflow(self._workflow_id)
        except NotFoundError as error:
            if not self._running and not self._to_read:
                raise
            return error  # deleted on generation 3; its runs go on
        self._known = True
        if workflow.deleted_at is not None:
            logger.warning("workflow %s is deleted: lists show none of its runs any more", self._workflow_id)
        return None

    def _see_clock(self, server_time: float) -> None:
        """Where the server's clock was set back, ends of now have instants that had passed already."""
        self._ends.set_clock(server_time - self._now())
        ahead = self._clock_ahead_now = server_time - self._elapsed()
        first = self._clock_ahead == -inf  # an earlier process may have set ``since``
        back = (self._ends.since or 0.0) - server_time if first else self._clock_ahead - ahead
        if back > JUMP_SECONDS:
            logger.warning(
                "workflow %s: the clock of the server was set back by %.0f s; ends of that time may be told again",
                self._workflow_id,
                back,
            )
            self._ends.set_back(back + LATE_SECONDS)
            self._whole_lists.clock_was_set()
        if back > JUMP_SECONDS or first:
            self._clock_ahead = ahead

    def _see_running(self, listed: set[str]) -> None:
        again = {one for one in listed if self._ends.is_told(one)}
        running = {one for one in listed - again if one not in self._ended}
        self._look_at(sorted(self._running - running))
        for one in running:
            self._to_read.drop(one)
        self._look_at(sorted(again - self._ended.keys()))  # an old answer, or the server was restored from a backup
        self._running = running

    def _look_at(self, ids: Iterable[str]) -> None:
        ids = list(ids)
        self._running.difference_update(ids)
        self._to_read.add(ids)

    async def _read_whole_list(self, http: AsyncOrchestrationHttpHook) -> OrchestrationError | None:
        began = http.plans.clock.server_time()
        try:
            rows = await http.list_instances(self._workflow_id)
        except OrchestrationError as error:
            self._whole_lists.failed()
            return error
        self._shows_runs = bool(rows)
        lost = False
        for row in rows:
            if row.id in self._ended or row.id in self._to_read or self._to_read.shown(row.id):
                continue
            if not row.terminated:
                if not self._ends.is_told(row.id):
                    self._running.add(row.id)
            elif row.id in self._running:
                self._look_at([row.id])
            elif not self._ends.is_told(row.id, _end(row)):
                self._look_at([row.id])
                lost = lost or self._whole_lists.last_began - CLOCK_SECONDS > _end(row)
        newest = max((_end(row) for row in rows if row.terminated), default=None)
        known = self._whole_lists.done(began, len(rows), newest, lost=lost)
        if known is not None and self.may_forget and len(self._to_read) <= MOST_TO_LOOK_AT:
            self._ends.advance(known)
            self._clock_ahead = self._clock_ahead_now
        return None

    async def _read_by_id(self, http: AsyncOrchestrationHttpHook) -> _Signs:
        """Read a limited number at once. Where as many have failed, the rest is left to the next poll."""
        at_once = asyncio.Semaphore(READS_AT_ONCE)
        signs = _Signs(0, [])
        denied_before = self._to_read.denied > 0

        async def read(instance_id: str) -> None:
            async with at_once:
                left = len(signs.errors) >= READS_AT_ONCE
                in_doubt = not self._shows_runs and signs.denials >= DENIALS_IN_DOUBT
                if not left and not (in_doubt and self._to_read.was_denied(instance_id)):
                    await self._read(http, instance_id, signs)

        await asyncio.gather(*(read(one) for one in self._to_read.next()))
        if signs.denials and not denied_before:
            self._whole_lists.want()  # it shows whether this is still the right server
        return signs

    async def _read(self, http: AsyncOrchestrationHttpHook, instance_id: str, signs: _Signs) -> None:
        """A list has no stages, so it can hide a failure: only a read by id decides."""
        try:
            instance = await http.get_instance(instance_id)
        except OrchestrationError as error:
            if not isinstance(error, NotFoundError) or is_gateways_404(error):
                self._to_read.failed(instance_id)
                signs.errors.append(error)
                return
            signs.denials += 1
            if self._to_read.deny(instance_id):
                logger.warning(
                    "instance %s is given up for now, since the server denies it, though it has listed it; its end is "
                    "told when the server shows it again: %s",
                    instance_id,
                    error,
                )
            return
        self._shows_runs = True
        self._to_read.drop(instance_id)
        if not instance.terminated:
            self._ends.take_back(instance_id)
            self._running.add(instance_id)
        elif not self._ends.is_told(instance_id):
            self._ended[instance_id] = instance

    def _doubt(self) -> DoubtfulServerError | None:
        """Where nothing that was known is shown any more, the server is in doubt, and not the runs."""
        denied = self._to_read.denied
        if self._shows_runs or not denied:
            return None
        return DoubtfulServerError(
            f"the server shows no run of the workflow and denies what it has shown before ({denied} so far): it may be "
            "another server, or restored from a backup; their ends are told when it shows them again"
        )


def _end(instance: Instance) -> float:
    return (instance.terminated_at or instance.updated_at).timestamp()

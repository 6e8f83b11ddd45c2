"""Which runs of a workflow have ended, poll by poll. Knows nothing of Airflow.

A list proves little: it has no order, pages shift, and a row that is missing among the running ones may run. So each
poll reads the running instances, which are few, and asks by id for those that were running before and are no longer
listed. A run that begins and ends between two polls is only in the list of *all* instances. That list grows for ever,
has no order that would allow to stop early, and each hundred rows cost a request: it is read once in as many polls as
it has pages. So a poll reads one page of it on average, up to ``MOST_POLLS_BETWEEN_WHOLE_LISTS`` pages.

The instant before which everything was told moves up by two whole lists in a row: what the second shows, the first
would have shown if it lost no row. A row that was lost, or a list that gets shorter, keeps it where it is.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..api.calls import PAGE_SIZE
from ..api.errors import NotFoundError, OrchestrationError, is_gateways_404
from ..api.models import Instance
from .told_ends import MOST_TO_LOOK_AT, ToldEnds

if TYPE_CHECKING:
    from ..http_hook import AsyncOrchestrationHttpHook

MOST_POLLS_BETWEEN_WHOLE_LISTS = 120
READS_AT_ONCE = 10
"""Reads by id that are under way at the same time."""
READS_PER_POLL = 300
"""Reads by id in one poll. The next poll goes on with the rest."""
READS_OF_THE_UNKNOWN = 5
"""Polls in which the server must deny an instance that it has listed, until it is given up."""
LATE_SECONDS = 300.0
"""Seconds by which the instant of an end may lie before the moment at which lists show it."""
CLOCK_SECONDS = 2.0
"""Seconds by which clocks may differ that count as equal."""
MANY_TOLD = 1000
"""Ends held after which the whole list is read earlier, so that they need be held no longer."""
POLLS_BETWEEN_EARLY_LISTS = 10

logger = logging.getLogger("orchestration_integrations.airflow")


@dataclass(frozen=True)
class Poll:
    """What one poll brought.

    Attributes:
        ended: the instances whose end was not told yet, as reads by id give them.
        trouble: what kept the poll from reading all that was to be read; the next poll makes up for it.
    """

    ended: Sequence[Instance]
    trouble: OrchestrationError | None = None


class EndedRuns:
    """The ends of the runs of one workflow since this object was made, by the server's clock.

    An end comes with each poll until ``told`` was called for it.

    Args:
        workflow_id: whose runs.
        now: epoch seconds of this machine.

    Attributes:
        may_forget: whether ends that lie far enough back need not be held. False while an earlier process's knowledge
            is still to come.
    """

    def __init__(self, workflow_id: str, now: Callable[[], float] = time.time) -> None:
        self.may_forget = True
        self._workflow_id = workflow_id
        self._now = now
        self._ends = ToldEnds(now())
        self._known = False
        self._running: set[str] = set()
        self._pending: dict[str, int] = {}
        """Ids to be read, the next one first, and how often the server has denied them."""
        self._ended: dict[str, Instance] = {}
        self._whole_lists = _Turns()
        self._last_whole_list: float | None = None
        self._most_rows = 0

    def state(self) -> dict[str, Any]:
        """What another process can go on from, as plain JSON of at most 64 kB."""
        return self._ends.state([*self._ended, *self._pending, *sorted(self._running)])

    def go_on_from(self, state: Any) -> None:
        """Take over what an earlier process knew.

        Raises:
            UnreadableStateError: ``state`` is nothing that ``state()`` gave. Nothing has changed.
        """
        earlier, look_at = ToldEnds.of_state(state)
        self._ends.merge(earlier)
        self._look_at(one for one in look_at if one not in self._ended and not self._ends.is_told(one))
        self._last_whole_list = None
        self._whole_lists.next_poll()

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
        self._ends.set_clock(http.plans.clock.server_time() - self._now())
        listed = {row.id for row in rows if row.id not in self._ended and not self._ends.is_told(row.id)}
        self._look_at(sorted(self._running - listed))
        for one in listed:
            self._pending.pop(one, None)
        self._running = listed
        if self._whole_lists.is_due(many=len(self._ends) > MANY_TOLD):
            troubles.append(await self._read_whole_list(http))
        troubles.append(await self._read_pending(http))
        return Poll(tuple(self._ended.values()), next((one for one in troubles if one is not None), None))

    async def _see_workflow(self, http: AsyncOrchestrationHttpHook) -> OrchestrationError | None:
        """A list of an unknown workflow is just empty, and so is one of a deleted workflow."""
        if self._known:
            return None
        try:
            workflow = await http.get_workflow(self._workflow_id)
        except NotFoundError as error:
            if not self._running and not self._pending:
                raise
            return error  # deleted on generation 3; its runs go on
        self._known = True
        if workflow.deleted_at is not None:
            logger.warning("workflow %s is deleted: lists show none of its runs any more", self._workflow_id)
        return None

    def _look_at(self, ids: Iterable[str]) -> None:
        for one in ids:
            self._running.discard(one)
            self._pending.setdefault(one, 0)

    async def _read_whole_list(self, http: AsyncOrchestrationHttpHook) -> OrchestrationError | None:
        began = http.plans.clock.server_time()
        try:
            rows = await http.list_instances(self._workflow_id)
        except OrchestrationError as error:
            self._whole_lists.failed()
            return error
        self._whole_lists.done(len(rows))
        lost = False
        for row in rows:
            if row.id in self._ended or row.id in self._pending:
                continue
            if not row.terminated:
                if not self._ends.is_told(row.id):
                    self._running.add(row.id)
            elif row.id in self._running:
                self._look_at([row.id])
            elif not self._ends.is_told(row.id, _end(row)):
                self._look_at([row.id])
                lost = lost or (self._last_whole_list or 0.0) - CLOCK_SECONDS > _end(row)
        self._forget_what_is_certain(began, len(rows), lost)
        return None

    def _forget_what_is_certain(self, began: float, count: int, lost: bool) -> None:
        """Nothing deletes an instance: a whole list that is shorter than an earlier one has lost rows."""
        shrunk = count < self._most_rows
        self._most_rows = max(self._most_rows, count)
        confirmed = None if lost or shrunk else self._last_whole_list
        self._last_whole_list = None if shrunk else began
        if confirmed is not None and self.may_forget and len(self._pending) <= MOST_TO_LOOK_AT:
            self._ends.advance(confirmed - LATE_SECONDS)

    async def _read_pending(self, http: AsyncOrchestrationHttpHook) -> OrchestrationError | None:
        """Read by id, a limited number at once. Where as many have failed, the rest is left to the next poll."""
        at_once = asyncio.Semaphore(READS_AT_ONCE)
        errors: list[OrchestrationError] = []

        async def read(instance_id: str) -> None:
            async with at_once:
                if len(errors) >= READS_AT_ONCE:
                    return
                error = await self._read(http, instance_id)
                if error is not None:
                    errors.append(error)

        await asyncio.gather(*(read(one) for one in list(self._pending)[:READS_PER_POLL]))
        return errors[0] if errors else None

    async def _read(self, http: AsyncOrchestrationHttpHook, instance_id: str) -> OrchestrationError | None:
        """A list has no stages, so it can hide a failure: only a read by id decides."""
        try:
            instance = await http.get_instance(instance_id)
        except OrchestrationError as error:
            denied = isinstance(error, NotFoundError) and not is_gateways_404(error)
            denials = self._pending.pop(instance_id, 0) + denied
            if denials >= READS_OF_THE_UNKNOWN:
                logger.warning("instance %s is given up, since the server denies it: %s", instance_id, error)
                self._ends.tell(instance_id, http.plans.clock.server_time())
                return None
            self._pending[instance_id] = denials  # behind all others
            return None if denied else error
        self._pending.pop(instance_id, None)
        if instance.terminated:
            self._ended[instance_id] = instance
        else:
            self._running.add(instance_id)
        return None


class _Turns:
    """In which polls the whole list is read."""

    def __init__(self) -> None:
        self._since = 0
        self._until = 0
        self._failures = 0

    def is_due(self, *, many: bool) -> bool:
        """Whether this poll is one. ``many``: so much was told that the next list is wanted early."""
        self._since += 1
        self._until -= 1
        return self._until <= 0 or (many and self._since >= POLLS_BETWEEN_EARLY_LISTS and not self._failures)

    def next_poll(self) -> None:
        self._until = 0

    def done(self, rows: int) -> None:
        self._since = self._failures = 0
        self._until = min(MOST_POLLS_BETWEEN_WHOLE_LISTS, rows // PAGE_SIZE)

    def failed(self) -> None:
        """It is tried again, at once and then ever more rarely: it may be long, and the server ill."""
        self._until = min(2**self._failures, POLLS_BETWEEN_EARLY_LISTS)
        self._failures += 1


def _end(instance: Instance) -> float:
    return (instance.terminated_at or instance.updated_at).timestamp()

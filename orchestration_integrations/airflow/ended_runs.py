"""Which runs of a workflow have ended, poll by poll. Knows nothing of Airflow.

A list proves little: it has no order, pages shift, and a row that is missing among the running ones may run. So each
poll reads the running instances, which are few, and asks by id for those that were running before and are no longer
listed. A run that begins and ends between two polls is only in the list of *all* instances. That list grows for ever,
and each hundred rows cost a request: a long one is read once in as many polls as it has pages, at most ten.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..api.calls import PAGE_SIZE
from ..api.errors import NotFoundError, OrchestrationError, is_gateways_404
from ..api.models import Instance

if TYPE_CHECKING:
    from ..http_hook import AsyncOrchestrationHttpHook

MOST_POLLS_BETWEEN_WHOLE_LISTS = 10

logger = logging.getLogger("orchestration_integrations.airflow")


class EndedRuns:
    """The ends of the runs of one workflow since this object was made, by the server's clock.

    Args:
        workflow_id: whose runs.
    """

    def __init__(self, workflow_id: str) -> None:
        self._workflow_id = workflow_id
        self._made_at = time.monotonic()
        self._since: float | None = None
        self._known = False
        self._running: set[str] = set()
        self._over: set[str] = set()
        self._polls_until_whole_list = 0

    async def poll(self, http: AsyncOrchestrationHttpHook) -> Sequence[Instance]:
        """The instances whose end was not known yet, as reads by id give them.

        Raises:
            NotFoundError: the server does not know the workflow.
            OrchestrationError: the list could not be read. The next poll makes up for it.
        """
        if not self._known:
            await http.get_workflow(self._workflow_id)  # a list of an unknown workflow is just empty
            self._known = True
        running = {row.id for row in await http.list_instances(self._workflow_id, running=True)}
        candidates = self._running - running
        self._running |= running
        self._polls_until_whole_list -= 1
        if self._polls_until_whole_list <= 0:
            candidates |= await self._in_whole_list(http)
        ended = [await self._ended(http, instance_id) for instance_id in sorted(candidates - self._over)]
        return [instance for instance in ended if instance is not None]

    async def _in_whole_list(self, http: AsyncOrchestrationHttpHook) -> set[str]:
        """The ids that have ended since this object was made and that no poll has seen."""
        rows = await http.list_instances(self._workflow_id)
        self._polls_until_whole_list = min(MOST_POLLS_BETWEEN_WHOLE_LISTS, len(rows) // PAGE_SIZE)
        if self._since is None:
            self._since = http.plans.clock.server_time() - (time.monotonic() - self._made_at)
        found = set()
        for row in rows:
            if not row.terminated:
                self._running.add(row.id)
            elif (row.terminated_at or row.updated_at).timestamp() < self._since:
                self._over.add(row.id)
            else:
                found.add(row.id)
        return found

    async def _ended(self, http: AsyncOrchestrationHttpHook, instance_id: str) -> Instance | None:
        """The instance if it has ended. A list has no stages, so it can hide a failure: only a read by id decides."""
        try:
            instance = await http.get_instance(instance_id)
        except OrchestrationError as error:
            gone = isinstance(error, NotFoundError) and not is_gateways_404(error)
            (self._over if gone else self._running).add(instance_id)
            logger.warning("instance %s could not be read: %s", instance_id, error)
            return None
        if not instance.terminated:
            self._running.add(instance_id)
            return None
        self._running.discard(instance_id)
        self._over.add(instance_id)
        return instance

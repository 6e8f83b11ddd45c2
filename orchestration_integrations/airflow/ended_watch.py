"""The loop of an ``AssetWatcher``'s trigger: read, tell, keep what was told.

**A repeat rather than a loss.** Airflow takes an event from the trigger's memory into its database a second or two
after it was told. So what was told is kept some seconds after that, and not before: a triggerer that dies in between
tells those ends once more. A DAG recognises a repeat by ``instance_id``; nobody would notice a loss.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from ..api.errors import OrchestrationError, is_passing
from ..api.models import Instance
from .compat import AssetStore
from .ended_memory import EndedMemory, said
from .ended_runs import DoubtfulServerError, EndedRuns
from .hooks import OrchestrationHook

KEEP_AFTER = 5.0
"""Seconds after which Airflow has an event in its database for sure, where it works as it should."""

logger = logging.getLogger("orchestration_integrations.airflow")


class EndedWatch:
    """Tells the ends of a workflow's runs for ever.

    Args:
        workflow_id: whose runs.
        states: only these ends; None for all.
        conn_id: the connection.
        poll_interval: seconds between polls.
        stores: where Airflow keeps the state of the assets that are watched; empty where it keeps none.
        sleep: a pause of so many seconds.
        now: epoch seconds of this machine.
        elapsed: seconds of this machine that never go back.
    """

    def __init__(
        self,
        workflow_id: str,
        states: Sequence[str] | None,
        conn_id: str,
        poll_interval: float,
        stores: Sequence[AssetStore],
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        now: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sleep = sleep
        self._workflow_id = workflow_id
        self._states = states
        self._conn_id = conn_id
        self._poll_interval = poll_interval
        self._runs = EndedRuns(workflow_id, now, elapsed)
        self._memory = EndedMemory(workflow_id, states, conn_id, stores, self._runs, now)
        self._trouble: Any = None

    async def payloads(self) -> AsyncIterator[dict[str, Any]]:
        """The payload of each event."""
        await self._memory.load()
        await self._memory.save()
        while True:
            try:
                async with await OrchestrationHook(self._conn_id).get_async_conn() as http:
                    while True:
                        await self._memory.load()
                        poll = await self._runs.poll(http)
                        self._note(poll.trouble, whole=False)
                        passed = 0.0
                        wanted = await self._wanted(poll.ended)
                        if wanted:
                            yield {"workflow_id": self._workflow_id, "instances": wanted}
                            passed = KEEP_AFTER
                            await self._sleep(passed)
                        self._runs.told(poll.ended)
                        await self._memory.save()
                        if poll.trouble is not None:
                            break  # the connection is read anew
                        await self._sleep(max(self._poll_interval - passed, 0.0))
            except Exception as error:
                # Whatever it is, Airflow would start this trigger again two seconds later, with a traceback each time.
                self._note(error, whole=True)
            await self._sleep(self._poll_interval)

    async def _wanted(self, ended: Sequence[Instance]) -> list[dict[str, Any]]:
        """The ends to be told now: those that are asked for, and that no other watcher has told meanwhile."""
        wanted = [one for one in ended if self._states is None or one.state in self._states]
        if wanted:
            await self._memory.learn()
        return [_end_of(one) for one in wanted if not self._runs.is_told(one)]

    def _note(self, error: Exception | None, *, whole: bool) -> None:
        """Log a trouble when it begins, and its end."""
        if error is None:
            if self._trouble is not None:
                logger.info("the runs of workflow %s can be read again", self._workflow_id)
            self._trouble = None
            return
        trouble = (whole, type(error), getattr(error, "status_code", None))
        if trouble == self._trouble:
            return
        self._trouble = trouble
        passing = isinstance(error, OrchestrationError) and is_passing(error)
        passing = passing or isinstance(error, DoubtfulServerError)
        what = "its runs cannot be read, so no end is told" if whole else "some ends cannot be told yet"
        logger.log(
            logging.WARNING if passing else logging.ERROR, "workflow %s: %s: %s", self._workflow_id, what, said(error)
        )


def _end_of(instance: Instance) -> dict[str, Any]:
    ended = instance.terminated_at
    return {
        "instance_id": instance.id,
        "workflow_id": instance.workflow_id,
        "state": instance.state,
        "terminated_at": None if ended is None else ended.isoformat(),
    }

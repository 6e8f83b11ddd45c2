"""The loop of an ``AssetWatcher``'s trigger: read, tell, keep what was told.

**A repeat rather than a loss.** Airflow takes an event from the trigger's memory into its database a second or two
after it was told. So what was told is kept some seconds after that, and not before: a triggerer that dies in between
tells those ends once more. A DAG recognises a repeat by ``instance_id``; nobody would notice a loss.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from ..api.errors import OrchestrationError, is_passing
from ..api.models import Instance
from .compat import AssetStore
from .ended_runs import EndedRuns
from .hooks import OrchestrationHook
from .told_ends import UnreadableStateError

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
    ) -> None:
        self._sleep = sleep
        self._workflow_id = workflow_id
        self._states = states
        self._conn_id = conn_id
        self._poll_interval = poll_interval
        self._runs = EndedRuns(workflow_id, now)
        self._memory = _Memory(workflow_id, key_of(workflow_id, states, conn_id), stores, self._runs, now)
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
                        wanted = [one for one in poll.ended if self._states is None or one.state in self._states]
                        passed = 0.0
                        if wanted:
                            instances = [_end_of(instance) for instance in wanted]
                            yield {"workflow_id": self._workflow_id, "instances": instances}
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
        what = "its runs cannot be read, so no end is told" if whole else "some ends cannot be told yet"
        logger.log(
            logging.WARNING if passing else logging.ERROR, "workflow %s: %s: %s", self._workflow_id, what, _said(error)
        )


class _Memory:
    """What was told, in the state of each asset that is watched. What cannot be kept there is known until a restart."""

    def __init__(
        self,
        workflow_id: str,
        key: str,
        stores: Sequence[AssetStore],
        runs: EndedRuns,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._now = now
        self._workflow_id = workflow_id
        self._key = key
        self._stores = stores
        self._runs = runs
        self._loaded = not stores
        runs.may_forget = self._loaded
        self._kept: list[Any] = [None for _ in stores]
        self._trouble = False

    async def load(self) -> None:
        """Go on from what is kept. Where it cannot be read, the next poll asks again, and nothing is kept before."""
        if self._loaded:
            return
        try:
            found = [await store.aget(self._key) for store in self._stores]
        except Exception as error:
            self._note(error)
            return
        self._loaded = self._runs.may_forget = True
        # An asset that joined later, or whose state could not be written, knows less.
        known = sorted((one for one in found if isinstance(one, dict)), key=lambda one: _number(one.get("kept_at")))
        if known:
            try:
                self._runs.go_on_from(known[-1].get("ends"))
            except UnreadableStateError as error:
                logger.warning(
                    "workflow %s: what was kept of its ends is of no use, so they are told from now on: %s",
                    self._workflow_id,
                    error,
                )

    async def save(self) -> None:
        """Keep what was told, in each store that has something else."""
        if not self._loaded:
            return
        state = self._runs.state()
        failure: Exception | None = None
        for number, store in enumerate(self._stores):
            if self._kept[number] == state:
                continue
            try:
                await store.aset(self._key, {"kept_at": self._now(), "ends": state})
                self._kept[number] = state
            except Exception as error:
                failure = error
        self._note(failure)

    def _note(self, error: Exception | None) -> None:
        if error is not None and not self._trouble:
            logger.warning(
                "workflow %s: Airflow's state of the asset is out of reach; until it is back, a restart of the "
                "triggerer may repeat ends, or lose those that come while it is down: %s",
                self._workflow_id,
                _said(error),
            )
        elif error is None and self._trouble:
            logger.info("workflow %s: Airflow's state of the asset is kept again", self._workflow_id)
        self._trouble = error is not None


def key_of(workflow_id: str, states: Sequence[str] | None, conn_id: str) -> str:
    """The key in an asset's state: watchers of one asset that tell different ends must not share it."""
    what = json.dumps([workflow_id, None if states is None else sorted(set(states)), conn_id])
    return f"orchestration_ended_{hashlib.blake2b(what.encode(), digest_size=12).hexdigest()}"


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, OrchestrationError) else f"{type(error).__name__}: {error}"


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _end_of(instance: Instance) -> dict[str, Any]:
    ended = instance.terminated_at
    return {
        "instance_id": instance.id,
        "workflow_id": instance.workflow_id,
        "state": instance.state,
        "terminated_at": None if ended is None else ended.isoformat(),
    }

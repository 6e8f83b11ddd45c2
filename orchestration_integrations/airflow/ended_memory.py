"""What a watcher has told, kept in the state of each asset that it watches for.

**Under which key.** Watchers of one asset that tell different ends (other ``states``, another connection) keep them
apart. How often a watcher polls is not in the key, so that it may be changed. Where ``states`` or the connection are
changed, the key is another one, and what came in between must not be lost: so the keys of all watchers of a workflow
are listed in the same state, and a key that holds nothing yet begins with what the watcher that kept last has kept.

**More than one at a time.** Two watchers that differ in ``poll_interval`` alone, or two triggerers of which one was
taken for dead, write under one key. Neither knows what the other tells, and each keeps what it told itself, so nothing
is lost; and each looks before it tells whether the other has kept those ends meanwhile.

**A store that hangs** counts as one that fails: a poll goes on without it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar
from uuid import uuid4

from ..api.errors import OrchestrationError
from ..http_hook.in_time import in_time
from .compat import AssetStore
from .ended_runs import EndedRuns
from .told_ends import UnreadableStateError

T = TypeVar("T")

STORE_SECONDS = 20.0
"""Seconds that one call of a store may take."""
MOST_KEYS = 20
"""Keys of a workflow's watchers that an asset's state lists."""

logger = logging.getLogger("orchestration_integrations.airflow")


class EndedMemory:
    """What was told, in the state of each asset that is watched. What cannot be kept there is known until a restart.

    Args:
        workflow_id: whose runs.
        states: only these ends; None for all.
        conn_id: the connection.
        stores: where Airflow keeps the state of the assets; empty where it keeps none.
        runs: knows what was told, and is told what was kept.
        now: epoch seconds of this machine.
    """

    def __init__(
        self,
        workflow_id: str,
        states: Sequence[str] | None,
        conn_id: str,
        stores: Sequence[AssetStore],
        runs: EndedRuns,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._now = now
        self._workflow_id = workflow_id
        self._key = key_of(workflow_id, states, conn_id)
        self._keys_at = key_of_keys(workflow_id)
        self._stores = stores
        self._runs = runs
        self._writer = uuid4().hex[:12]
        self._loaded = not stores
        runs.may_forget = self._loaded
        self._kept: list[Any] = [None for _ in stores]
        self._listed = [False for _ in stores]
        self._trouble = False

    async def load(self) -> None:
        """Go on from what is kept. Where it cannot be read, the next poll asks again, and nothing is kept before."""
        if self._loaded:
            return
        try:
            newest = await self._newest_kept()
        except Exception as error:
            self._note(error)
            return
        self._loaded = self._runs.may_forget = True
        if newest is None:
            return
        try:
            self._runs.go_on_from(newest.get("ends"))
        except UnreadableStateError as error:
            logger.warning(
                "workflow %s: what was kept of its ends is of no use, so they are told from now on: %s",
                self._workflow_id,
                error,
            )

    async def _newest_kept(self) -> dict[str, Any] | None:
        """What was kept last: an asset that joined later, or whose state could not be written, knows less."""
        own = _newest([await _in_time(store.aget(self._key)) for store in self._stores])
        if own is not None:
            return own
        others: list[Any] = []
        for store in self._stores:
            keys = _keys(await _in_time(store.aget(self._keys_at)))
            others += [await _in_time(store.aget(one)) for one in keys if one != self._key]
        newest = _newest(others)
        if newest is not None:
            logger.info("workflow %s: goes on from what another watcher of the asset has kept", self._workflow_id)
        return newest

    async def learn(self) -> None:
        """Learn what another watcher under this key has told. What cannot be read is left: a repeat does no harm."""
        if not self._loaded:
            return
        for store in self._stores:
            try:
                found = await _in_time(store.aget(self._key))
                if isinstance(found, dict) and found.get("writer") != self._writer:
                    self._runs.learn_from(found.get("ends"))
            except UnreadableStateError:
                continue
            except Exception as error:
                self._note(error)
                return

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
                await self._list_key(number, store)
                value = {"kept_at": self._now(), "writer": self._writer, "ends": state}
                await _in_time(store.aset(self._key, value))
                self._kept[number] = state
            except Exception as error:
                failure = error
                if isinstance(error, TimeoutError):
                    break  # the others would hang as well
        self._note(failure)

    async def _list_key(self, number: int, store: AssetStore) -> None:
        if self._listed[number]:
            return
        keys = _keys(await _in_time(store.aget(self._keys_at)))
        if self._key not in keys:
            await _in_time(store.aset(self._keys_at, {"keys": [*keys, self._key][-MOST_KEYS:]}))
        self._listed[number] = True

    def _note(self, error: Exception | None) -> None:
        if error is not None and not self._trouble:
            logger.warning(
                "workflow %s: Airflow's state of the asset is out of reach; until it is back, a restart of the "
                "triggerer may repeat ends, or lose those that come while it is down: %s",
                self._workflow_id,
                said(error),
            )
        elif error is None and self._trouble:
            logger.info("workflow %s: Airflow's state of the asset is kept again", self._workflow_id)
        self._trouble = error is not None


async def _in_time(call: Awaitable[T]) -> T:
    """What a store answers. Raises TimeoutError where it does not: Airflow 3.3 allows that its calls are cancelled."""
    return await in_time(call, STORE_SECONDS)


def key_of(workflow_id: str, states: Sequence[str] | None, conn_id: str) -> str:
    """The key in an asset's state: watchers of one asset that tell different ends must not share it."""
    return _key("orchestration_ended_", [workflow_id, None if states is None else sorted(set(states)), conn_id])


def key_of_keys(workflow_id: str) -> str:
    """The key in an asset's state under which the keys of all watchers of a workflow are listed."""
    return _key("orchestration_watchers_", [workflow_id])


def _key(prefix: str, what: list[Any]) -> str:
    return prefix + hashlib.blake2b(json.dumps(what).encode(), digest_size=12).hexdigest()


def _keys(value: Any) -> list[str]:
    keys = value.get("keys") if isinstance(value, dict) else None
    return [one for one in keys if isinstance(one, str)] if isinstance(keys, list) else []


def _newest(found: Sequence[Any]) -> dict[str, Any] | None:
    kept = [one for one in found if isinstance(one, dict)]
    return max(kept, key=lambda one: _number(one.get("kept_at")), default=None)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def said(error: Exception) -> str:
    """What an error says, for a log."""
    return str(error) if isinstance(error, OrchestrationError) else f"{type(error).__name__}: {error}"

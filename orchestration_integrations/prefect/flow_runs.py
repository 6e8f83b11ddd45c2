"""What this package asks of Prefect's API: labels of flow runs, their state, and where the caller stands.

Everything here blocks, and asks through Prefect's synchronous client: the same code serves hooks (which
may run in another process), submitted tasks, and asynchronous ones (through a thread). Prefect's own
helpers decide by their caller whether to return a coroutine, and a flow run in a context is stale.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import MissingContextError
from prefect.logging.loggers import get_run_logger
from prefect.runtime import flow_run as runtime_flow_run
from prefect.runtime import task_run as runtime_task_run

from .errors import FlowRunCancelledError

INSTANCE_LABEL = "orchestration.instance."
"""A label of this prefix and an instance's id stands on the flow run that started it, and on those around that."""
STEP_LABEL = "orchestration.step."
"""What is on record of a run key, as JSON; on the outermost flow run, which outlives every retry."""
EVENT_LABEL = "orchestration.event."
"""An event that was to be sent, and whether it was delivered; on the outermost flow run."""
WATCH_SECONDS = 2.0
"""How often a wait looks whether its flow run is being cancelled."""

_labels_lock = threading.Lock()


@dataclass(frozen=True)
class Place:
    """Where the caller stands. ``flow_run_id`` is None outside a flow, ``task_run_id`` outside a task."""

    flow_run_id: UUID | None
    task_run_id: UUID | None
    task_attempt: int


def here() -> Place:
    """The flow run and task run of the caller."""
    flow_run_id, task_run_id = runtime_flow_run.id, runtime_task_run.id
    return Place(
        UUID(flow_run_id) if flow_run_id else None,
        UUID(task_run_id) if task_run_id else None,
        int(runtime_task_run.run_count or 0),
    )


def run_logger() -> Any:
    """The logger of the run that calls, or an ordinary one outside."""
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger("orchestration_integrations.prefect")


def read_flow_run(flow_run_id: UUID) -> FlowRun:
    """A flow run as it is now."""
    with get_client(sync_client=True) as client:
        return client.read_flow_run(flow_run_id)


def lineage(flow_run_id: UUID) -> tuple[FlowRun, ...]:
    """A flow run, the one around it, and so on to the outermost, as they are now."""
    runs: list[FlowRun] = []
    with get_client(sync_client=True) as client:
        following: UUID | None = flow_run_id
        while following is not None:
            run = client.read_flow_run(following)
            runs.append(run)
            following = None
            if run.parent_task_run_id is not None:
                following = client.read_task_run(run.parent_task_run_id).flow_run_id
    return tuple(runs)


def put_labels(flow_run_id: UUID, labels: Mapping[str, str]) -> None:
    """Store labels on a flow run and see that they stand there.

    The API reads, merges and writes, so two writers can lose a label between them: writers of one
    process take turns, and each looks again afterwards.

    Raises:
        RuntimeError: they did not stay.
    """
    with _labels_lock, get_client(sync_client=True) as client:
        for attempt in range(5):
            if attempt:
                time.sleep(0.05 * attempt)
            client.update_flow_run_labels(flow_run_id, dict(labels))
            stored = client.read_flow_run(flow_run_id).labels
            if all(stored.get(name) == value for name, value in labels.items()):
                return
    raise RuntimeError(f"labels of flow run {flow_run_id} could not be stored")


def instance_ids(flow_run: FlowRun) -> tuple[str, ...]:
    """The instances on record of a flow run."""
    return tuple(name[len(INSTANCE_LABEL) :] for name in flow_run.labels if name.startswith(INSTANCE_LABEL))


_ENDED_FROM_OUTSIDE = (StateType.CANCELLING, StateType.CANCELLED, StateType.CRASHED)


class FlowRunWatch:
    """Notices that the flow run of a wait, or one around it, is being cancelled.

    A submitted task is not told otherwise: it would poll on until its process is killed. Waits of one
    flow run share the looking.
    """

    def __init__(self, flow_run_id: UUID) -> None:
        self._flow_run_id = flow_run_id
        self._ids: tuple[UUID, ...] = ()
        self._looked_at = time.monotonic()
        self._ended: str | None = None
        self._lock = threading.Lock()

    def check(self) -> None:
        """Raises FlowRunCancelledError once the flow run is being cancelled. What cannot be read is passed over."""
        with self._lock:
            if self._ended is None and time.monotonic() - self._looked_at >= WATCH_SECONDS:
                self._ended = self._look()
                self._looked_at = time.monotonic()
        if self._ended is not None:
            raise FlowRunCancelledError(self._ended)

    def _look(self) -> str | None:
        try:
            if not self._ids:
                runs = lineage(self._flow_run_id)
                self._ids = tuple(run.id for run in runs)
            else:
                with get_client(sync_client=True) as client:
                    runs = tuple(client.read_flow_run(one) for one in self._ids)
        except Exception:  # it only informs: Prefect's API may be away for a while
            logging.getLogger("orchestration_integrations.prefect").debug("flow run unreadable", exc_info=True)
            return None
        for run in runs:
            if run.state is not None and run.state.type in _ENDED_FROM_OUTSIDE:
                return f"flow run {run.name} is {run.state.name}"
        return None


_watches: dict[UUID, FlowRunWatch] = {}
_watches_lock = threading.Lock()


def watch_here() -> FlowRunWatch | None:
    """The watch on the caller's flow run; None outside a flow."""
    flow_run_id = here().flow_run_id
    if flow_run_id is None:
        return None
    with _watches_lock:
        watch = _watches.get(flow_run_id)
        if watch is None or watch._ended is not None:
            while len(_watches) >= 1000:
                _watches.pop(next(iter(_watches)))
            watch = _watches[flow_run_id] = FlowRunWatch(flow_run_id)
        return watch

"""Prefect's API, as this package asks it: one blocking client for a process.

The same code serves hooks, which may run in another process, submitted tasks, and asynchronous ones, through a thread.
A client costs thirty milliseconds to make and seventy to connect, so it is kept; it may be used by many threads.
"""

from __future__ import annotations

import os
import threading
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL

_clients: dict[tuple[int, str], SyncPrefectClient] = {}
_lock = threading.Lock()


def api() -> SyncPrefectClient:
    """The client of this process, for the API that Prefect's settings name now."""
    name = (os.getpid(), str(PREFECT_API_URL.value()))
    client = _clients.get(name)
    if client is None:
        with _lock:
            client = _clients.get(name)
            if client is None:
                made = get_client(sync_client=True, httpx_settings={})  # never the one of a flow, which closes it
                client = _clients[name] = made.__enter__()
    return client


def read_flow_run(flow_run_id: UUID) -> FlowRun:
    """A flow run as it is now."""
    return api().read_flow_run(flow_run_id)


def read_flow_runs(ids: list[UUID]) -> dict[UUID, FlowRun]:
    """Flow runs as they are now, by id; those that were deleted are left out. One call."""
    found = api().read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=ids)))
    return {one.id: one for one in found}

"""Hooks for ``on_cancellation``, ``on_crashed`` and ``on_failure`` of a flow: cancel what it had started.

Prefect calls such a hook in the runner's process, in a fresh one, or in the flow's own: nothing but what
is stored on the flow run is there, and inside the flow's own process the flow run it passes is stale.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from prefect.logging.loggers import flow_run_logger

from .cancelling import CANCEL_SECONDS, cancel_instances_now
from .credentials import OrchestrationCredentials, settings_of
from .flow_runs import instance_ids, read_flow_run

READS = 4
"""Readings of the flow run before a hook gives up."""


def cancel_instances(
    credentials: OrchestrationCredentials | str, *, timeout: float = CANCEL_SECONDS
) -> Callable[[Any, Any, Any], None]:
    """A hook that cancels all instances that a flow run, its tasks and its subflows had started. Harmless to repeat.

    Args:
        credentials: the block or, best, the name under which it is stored: the hook may run in another process.
        timeout: seconds until an instance counts as not confirmed, default 14. All instances are cancelled at once.

    Returns:
        The hook, for ``@flow(on_cancellation=[hook], on_crashed=[hook], on_failure=[hook])``.
    """

    def cancel_instances_of_flow_run(flow: Any, flow_run: Any, state: Any) -> None:
        logger = flow_run_logger(flow_run, flow)
        for attempt in range(READS):
            try:
                ids = instance_ids(read_flow_run(flow_run.id))
                break
            except Exception as error:
                if attempt == READS - 1:
                    logger.error("%s: instances unknown, none was cancelled: %r", state.name, error)
                    raise
                time.sleep(0.5)
        if ids:
            cancel_instances_now(settings_of(credentials), ids, f"flow run {state.name}", limit=timeout, logger=logger)

    return cancel_instances_of_flow_run

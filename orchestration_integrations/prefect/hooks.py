"""Hooks for ``on_cancellation``, ``on_crashed`` and ``on_failure`` of a flow: cancel what it had started.

Prefect calls such a hook in the runner's process, in a fresh one, or in the flow's own: nothing but what
is stored on the flow run is there, and inside the flow's own process the flow run it passes is stale.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from prefect.client.schemas.objects import FlowRun, StateType
from prefect.logging.loggers import flow_run_logger

from ..api.errors import OrchestrationError
from ..http_hook import OrchestrationHttpHook
from ..ownership.record import RunRecord
from ..settings import Settings
from .api import read_flow_run
from .cancelling import CANCEL_SECONDS, EXCHANGE_SECONDS, Target, cancel_instances_now
from .credentials import FACE, OrchestrationCredentials, settings_of
from .run_records import records_of_flow_run

READS = 4
"""Readings of the records before a hook gives up."""


def cancel_instances(
    credentials: OrchestrationCredentials | str, *, timeout: float = CANCEL_SECONDS
) -> Callable[[Any, Any, Any], None]:
    """A hook that cancels all instances that a flow run, its tasks and its subflows had started. Harmless to repeat.

    Where another attempt of the flow run is at work already, it cancels nothing: the runs belong to that one.

    Args:
        credentials: the block or, best, the name under which it is stored: the hook may run in another process.
        timeout: seconds until an instance counts as not confirmed, default 14. All instances are cancelled at once. In
            less than 12 none is said to be held at a checkpoint.

    Returns:
        The hook, for ``@flow(on_cancellation=[hook], on_crashed=[hook], on_failure=[hook])``.
    """

    def cancel_instances_of_flow_run(flow: Any, flow_run: Any, state: Any) -> None:
        logger = flow_run_logger(flow_run, flow)
        for attempt in range(READS):
            try:
                now = read_flow_run(flow_run.id)
                records = records_of_flow_run(flow_run.id)
                break
            except Exception as error:
                if attempt == READS - 1:
                    logger.error("%s: instances unknown, none was cancelled: %r", state.name, error)
                    raise
                time.sleep(0.5)
        if has_later_attempt(now, flow_run.run_count or 0):
            logger.warning("%s: the flow run is being tried again, so its instances are left to that", state.name)
            return
        if records:
            targets = targets_of(settings_of(credentials), records, logger)
            cancel_instances_now(targets, f"flow run {state.name}", limit=timeout, logger=logger)

    return cancel_instances_of_flow_run


def has_later_attempt(now: FlowRun, run_count: int) -> bool:
    """Whether a flow run, as it was read just now, is at work in a later attempt than this one."""
    again = now.state is not None and now.state.type in (StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING)
    return again and (now.run_count or 0) > run_count


def targets_of(settings: Settings, records: Iterable[RunRecord], logger: logging.Logger | Any) -> list[Target]:
    """The instances on these records that this server has. The others are told, as errors, at once."""
    targets = []
    for record in records:
        if record.instance_id is None:
            _tell_unknown(record, logger)
            continue
        if record.state == "told":
            continue  # it has ended, and that was told
        if record.server == settings.base_url or _is_known_there(settings, record):
            targets.append(Target(settings, record.instance_id, record=record))
        else:
            logger.error(
                "instance %s was started on %s, and the credentials name %s: it was not cancelled and may still run",
                record.instance_id,
                record.server,
                settings.base_url,
            )
    return targets


def _tell_unknown(record: RunRecord, logger: logging.Logger | Any) -> None:
    """A start that was never seen to come back: without a gate a run may be at work, which nobody can name."""
    if record.state == "intended" and not record.gate and not record.settled:
        logger.error(
            "a run of workflow %s with key %s may exist, and pay: its start was under way and no instance is on "
            "record, so nothing was cancelled. Look at the workflow's instances on %s",
            record.workflow_id,
            record.key,
            record.server,
        )


def _is_known_there(settings: Settings, record: RunRecord) -> bool:
    """Whether another address is the same server: it knows the very instance. One call."""
    quick = settings.with_changes(timeout=min(settings.timeout, EXCHANGE_SECONDS), retry_budget=1.0)
    try:
        with OrchestrationHttpHook(quick, face=FACE) as hook:
            found = hook.get_instance(record.instance_id or "")
    except OrchestrationError:
        return False
    return found.created_at == record.created_at and found.workflow_id == record.workflow_id

"""Flows that are ready to use, also as subflows."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

from prefect import flow
from typing_extensions import Unpack

from .api import read_flow_run
from .cancelling import CANCEL_SECONDS, cancel_instances_now
from .credentials import OrchestrationCredentials, settings_of
from .hooks import has_later_attempt, targets_of
from .options import RunAndWaitOptions, start_options, takes, wait_options
from .owning import RunRequest
from .place import run_logger, steps_of_the_caller
from .run_records import records_of_flow_run
from .runs import arun_and_wait, run_and_wait


@flow(name="run-workflow-and-wait", flow_run_name="run-and-wait-{workflow_id}", retries=0)
@takes(RunAndWaitOptions)
def run_workflow_and_wait(
    credentials: OrchestrationCredentials | str,
    workflow_id: str,
    variables: dict[str, Any] | None = None,
    **options: Unpack[RunAndWaitOptions],
) -> dict[str, Any]:
    """Run a workflow and wait for its end, as ``run_workflow`` and ``wait_for_instance`` do.

    If it runs as a subflow, its start counts as a step of the flow that calls it. Give the name of a stored block for
    ``credentials`` if somebody may start the flow run again from its stored parameters: Prefect masks the secrets of a
    block.

    Args:
        credentials: the block, or the name of the stored block.
        workflow_id: what to run.
        variables: as for ``run_workflow``.
        {options}

    Returns:
        ``{"instance_id", "workflow_id", "state", "stages_completed", "transactions", "maybe_repeated"}``.
    """
    request = RunRequest(workflow_id, variables, start_options(options))
    how = wait_options(options)
    with steps_of_the_caller():
        return run_and_wait(settings_of(credentials), request, how)


@flow(name="run-workflow-and-wait", flow_run_name="run-and-wait-{workflow_id}", retries=0)
@takes(RunAndWaitOptions)
async def run_workflow_and_wait_async(
    credentials: OrchestrationCredentials | str,
    workflow_id: str,
    variables: dict[str, Any] | None = None,
    **options: Unpack[RunAndWaitOptions],
) -> dict[str, Any]:
    """As ``run_workflow_and_wait``, for asyncio."""
    request = RunRequest(workflow_id, variables, start_options(options))
    how = wait_options(options)
    settings = await asyncio.to_thread(settings_of, credentials)
    with steps_of_the_caller():
        return await arun_and_wait(settings, request, how)


@flow(name="cancel-instances-of-flow-run", flow_run_name="cancel-instances-of-{flow_run_id}")
def cancel_instances_of_flow_run(
    credentials: OrchestrationCredentials | str,
    flow_run_id: UUID,
    *,
    run_count: int | None = None,
    timeout: float = CANCEL_SECONDS,
) -> dict[str, str]:
    """Cancel all instances that another flow run, its tasks and its subflows had started. You may repeat it.

    Let an automation run it for flow runs that end where no hook runs: those that are cancelled while they are
    suspended, for example, or are lost with their machine. ``example_flows/cancel_by_automation.py`` has the
    automation.

    Args:
        credentials: the block, or (better) the name of the stored block.
        flow_run_id: the id of that flow run.
        run_count: which attempt of it is over, as the event of its end tells. If a later attempt is at work, the runs
            belong to that one, and nothing is cancelled. None (default): whatever attempt is at work.
        timeout: seconds until an instance counts as not confirmed, default 14; all are cancelled at once. In less than
            12 none is said to be held.

    Returns:
        By instance: ``cancelled``, ``already_ended``, ``never_started``, ``held`` (at a checkpoint; nothing of it moves
        any more), ``not_confirmed`` (it may run on) or
        ``failed`` (it could not be cancelled and may run on).
    """
    if run_count is not None and has_later_attempt(read_flow_run(flow_run_id), run_count):
        run_logger().warning("flow run %s is being tried again, so its instances are left to that", flow_run_id)
        return {}
    settings = settings_of(credentials)
    targets = targets_of(settings, records_of_flow_run(flow_run_id), run_logger())
    outcomes = cancel_instances_now(targets, f"flow run {flow_run_id} is over", limit=timeout)
    return {one: outcome.status if outcome is not None else "failed" for one, outcome in outcomes.items()}

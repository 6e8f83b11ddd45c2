"""Flows that are ready to use, also as subflows."""

from __future__ import annotations

import asyncio
from typing import Any, Literal
from uuid import UUID

from prefect import flow

from ..procedures.define import KEY_VARIABLE
from .cancelling import CANCEL_SECONDS, cancel_instances_now
from .credentials import OrchestrationCredentials, settings_of
from .hooks import targets_of
from .owning import RunRequest
from .place import run_logger, steps_of_the_caller
from .run_records import records_of_flow_run
from .runs import WaitOptions, arun_and_wait, run_and_wait


@flow(name="run-workflow-and-wait", flow_run_name="run-and-wait-{workflow_id}", retries=0)
def run_workflow_and_wait(
    credentials: OrchestrationCredentials | str,
    workflow_id: str,
    variables: dict[str, Any] | None = None,
    *,
    timeout: float | None = None,
    cancel_on_interrupt: bool = True,
    poll_interval: float = 5.0,
    on_timeout: Literal["cancel", "leave"] = "cancel",
    fail_after_attempts: int | None = None,
    step: str | None = None,
    run_key: str | None = None,
    rerun_failed: bool = False,
    on_changed: Literal["refuse", "adopt"] = "refuse",
    fingerprint_ignores: list[str] | tuple[str, ...] = (),
    settled: str | None = None,
    key_variable: str = KEY_VARIABLE,
    allow_unbound: bool = False,
    show_progress: bool = True,
) -> dict[str, Any]:
    """Run a workflow and wait for its end. Arguments as for ``run_workflow`` and ``wait_for_instance``.

    As a subflow its start counts as a step of the flow that calls it. Give the name of a stored block for
    ``credentials`` where the flow run may be started again from its stored parameters: Prefect masks the secrets of
    a block.

    Args:
        timeout: seconds to wait for the end, None (default) for no limit.
        cancel_on_interrupt: cancel the run if the flow is interrupted while it starts or waits; default True.

    Returns:
        ``{"instance_id", "workflow_id", "state", "stages_completed", "transactions", "maybe_repeated"}``.
    """
    request = RunRequest(
        workflow_id,
        variables,
        step,
        run_key,
        rerun_failed,
        on_changed,
        fingerprint_ignores,
        settled,
        key_variable,
        allow_unbound,
    )
    options = WaitOptions(timeout, poll_interval, on_timeout, cancel_on_interrupt, fail_after_attempts, show_progress)
    with steps_of_the_caller():
        return run_and_wait(settings_of(credentials), request, options)


@flow(name="run-workflow-and-wait", flow_run_name="run-and-wait-{workflow_id}", retries=0)
async def run_workflow_and_wait_async(
    credentials: OrchestrationCredentials | str,
    workflow_id: str,
    variables: dict[str, Any] | None = None,
    *,
    timeout: float | None = None,
    cancel_on_interrupt: bool = True,
    poll_interval: float = 5.0,
    on_timeout: Literal["cancel", "leave"] = "cancel",
    fail_after_attempts: int | None = None,
    step: str | None = None,
    run_key: str | None = None,
    rerun_failed: bool = False,
    on_changed: Literal["refuse", "adopt"] = "refuse",
    fingerprint_ignores: list[str] | tuple[str, ...] = (),
    settled: str | None = None,
    key_variable: str = KEY_VARIABLE,
    allow_unbound: bool = False,
    show_progress: bool = True,
) -> dict[str, Any]:
    """As ``run_workflow_and_wait``, for asyncio."""
    request = RunRequest(
        workflow_id,
        variables,
        step,
        run_key,
        rerun_failed,
        on_changed,
        fingerprint_ignores,
        settled,
        key_variable,
        allow_unbound,
    )
    options = WaitOptions(timeout, poll_interval, on_timeout, cancel_on_interrupt, fail_after_attempts, show_progress)
    settings = await asyncio.to_thread(settings_of, credentials)
    with steps_of_the_caller():
        return await arun_and_wait(settings, request, options)


@flow(name="cancel-instances-of-flow-run", flow_run_name="cancel-instances-of-{flow_run_id}")
def cancel_instances_of_flow_run(
    credentials: OrchestrationCredentials | str, flow_run_id: UUID, *, timeout: float = CANCEL_SECONDS
) -> dict[str, str]:
    """Cancel all instances that another flow run, its tasks and its subflows had started. Harmless to repeat.

    For an automation on flow runs that end where no hook runs: cancelled while suspended, say, or lost with
    their machine.

    Args:
        credentials: best the name of the stored block.
        flow_run_id: of that flow run.
        timeout: seconds until an instance counts as not confirmed, default 14; all are cancelled at once.

    Returns:
        By instance: ``cancelled``, ``already_ended``, ``never_started``, ``not_confirmed`` (it may run on) or
        ``failed`` (it could not be cancelled and may run on).
    """
    settings = settings_of(credentials)
    targets = targets_of(settings, records_of_flow_run(flow_run_id), run_logger())
    outcomes = cancel_instances_now(targets, f"flow run {flow_run_id} is over", limit=timeout)
    return {one: outcome.status if outcome is not None else "failed" for one, outcome in outcomes.items()}

"""Flows that are ready to use, also as subflows."""

from __future__ import annotations

import asyncio
from typing import Any, Literal
from uuid import UUID

from prefect import flow

from ..procedures.define import KEY_VARIABLE
from .cancelling import CANCEL_SECONDS, acancel_instances_now, cancel_instances_now
from .credentials import OrchestrationCredentials, settings_of
from .flow_runs import instance_ids, read_flow_run
from .runs import instance_id_of
from .steps import steps_of_the_caller
from .tasks import run_workflow, run_workflow_async, wait_for_instance, wait_for_instance_async


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
    with steps_of_the_caller():
        run = run_workflow(
            credentials,
            workflow_id,
            variables,
            step=step,
            run_key=run_key,
            rerun_failed=rerun_failed,
            key_variable=key_variable,
            allow_unbound=allow_unbound,
            cancel_on_interrupt=cancel_on_interrupt,
            show_progress=show_progress,
        )
    try:
        return wait_for_instance(
            credentials,
            run,
            timeout=timeout,
            poll_interval=poll_interval,
            on_timeout=on_timeout,
            cancel_on_interrupt=cancel_on_interrupt,
            fail_after_attempts=fail_after_attempts,
            show_progress=show_progress,
        )
    except Exception:
        raise
    except BaseException:
        if cancel_on_interrupt:  # also where the interrupt came between two tasks
            cancel_instances_now(settings_of(credentials), [instance_id_of(run)], "the flow was interrupted")
        raise


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
    key_variable: str = KEY_VARIABLE,
    allow_unbound: bool = False,
    show_progress: bool = True,
) -> dict[str, Any]:
    """As ``run_workflow_and_wait``, for asyncio."""
    with steps_of_the_caller():
        run = await run_workflow_async(
            credentials,
            workflow_id,
            variables,
            step=step,
            run_key=run_key,
            rerun_failed=rerun_failed,
            key_variable=key_variable,
            allow_unbound=allow_unbound,
            cancel_on_interrupt=cancel_on_interrupt,
            show_progress=show_progress,
        )
    try:
        return await wait_for_instance_async(
            credentials,
            run,
            timeout=timeout,
            poll_interval=poll_interval,
            on_timeout=on_timeout,
            cancel_on_interrupt=cancel_on_interrupt,
            fail_after_attempts=fail_after_attempts,
            show_progress=show_progress,
        )
    except Exception:
        raise
    except BaseException:
        if cancel_on_interrupt:
            settings = await asyncio.to_thread(settings_of, credentials)
            await acancel_instances_now(settings, [instance_id_of(run)], "the flow was interrupted")
        raise


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
    ids = instance_ids(read_flow_run(flow_run_id))
    outcomes = cancel_instances_now(settings_of(credentials), ids, f"flow run {flow_run_id} is over", limit=timeout)
    return {one: outcome.status if outcome is not None else "failed" for one, outcome in outcomes.items()}

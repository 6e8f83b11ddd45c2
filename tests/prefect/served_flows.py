"""Flows that are run in processes of their own, by `serve` and by a worker. All their runs never end by themselves."""

from __future__ import annotations

import os
import time
from pathlib import Path

from prefect import flow, serve

from orchestration_integrations.prefect import (
    OrchestrationCredentials,
    cancel_instances,
    run_workflow,
    run_workflow_async,
    wait_for_instance,
    wait_for_instance_async,
)

BLOCK = "process-tests"
BLOCK_2 = "process-tests-2"
ends = cancel_instances(BLOCK)
ends_2 = cancel_instances(BLOCK_2)


def tell(directory: str) -> None:
    """Where the test finds the process that runs the flow."""
    Path(directory, "pid.new").write_text(str(os.getpid()))
    Path(directory, "pid.new").rename(Path(directory, "pid"))


@flow
def direct(workflow_id: str, directory: str) -> None:
    """No hooks: the wait does it."""
    credentials = OrchestrationCredentials.load(BLOCK)
    run = run_workflow(credentials, workflow_id)
    tell(directory)
    wait_for_instance(credentials, run, poll_interval=60)


@flow(on_cancellation=[ends_2])
def direct_2(workflow_id: str, directory: str) -> None:
    """On generation 2, where no abort takes effect."""
    credentials = OrchestrationCredentials.load(BLOCK_2)
    run = run_workflow(credentials, workflow_id)
    tell(directory)
    wait_for_instance(credentials, run, poll_interval=60)


@flow
def submitted(workflow_id: str, directory: str) -> None:
    """No hooks, and the task is not interrupted: it looks by itself."""
    credentials = OrchestrationCredentials.load(BLOCK)
    run = run_workflow(credentials, workflow_id)
    future = wait_for_instance.submit(credentials, run, poll_interval=60)
    tell(directory)
    future.result()


@flow(timeout_seconds=15)
def timed_out(workflow_id: str, directory: str) -> None:
    """No hooks; Prefect raises in the flow's own thread only."""
    credentials = OrchestrationCredentials.load(BLOCK)
    run = run_workflow(credentials, workflow_id)
    future = wait_for_instance.submit(credentials, run, poll_interval=60)
    tell(directory)
    future.result()


@flow
async def asynchronous(workflow_id: str, directory: str) -> None:
    """No hooks."""
    credentials = await OrchestrationCredentials.aload(BLOCK)
    run = await run_workflow_async(credentials, workflow_id)
    tell(directory)
    await wait_for_instance_async(credentials, run, poll_interval=60)


@flow(on_cancellation=[ends], on_crashed=[ends])
def hooked(workflow_id: str, directory: str) -> None:
    """Nothing waits: only a hook can know."""
    run_workflow(OrchestrationCredentials.load(BLOCK), workflow_id)
    tell(directory)
    time.sleep(600)


@flow(retries=1, on_cancellation=[ends])
def killed_once(workflow_id: str, directory: str) -> None:
    """The process is killed in its first attempt; the second comes back to the run."""
    credentials = OrchestrationCredentials.load(BLOCK)
    run = run_workflow(credentials, workflow_id)
    Path(directory, f"attempt-{run['instance_id']}-{os.getpid()}").touch()
    tell(directory)
    wait_for_instance(credentials, run, poll_interval=60)


FLOWS = (direct, direct_2, submitted, timed_out, asynchronous, hooked, killed_once)

if __name__ == "__main__":
    serve(*[one.to_deployment(name="served") for one in FLOWS], limit=20)

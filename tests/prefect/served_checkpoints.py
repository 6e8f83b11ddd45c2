"""Flows of runs with checkpoints, run in processes of their own by `serve`."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from prefect import flow, serve

from orchestration_integrations.prefect import (
    cancel_instances,
    run_workflow,
    wait_for_instance,
)


def ends(flow: Any, flow_run: Any, state: Any) -> None:
    """The hook for the server of the flow run."""
    cancel_instances(flow_run.parameters["block"])(flow, flow_run, state)


def start(block: str, workflow_id: str, directory: str) -> dict[str, Any]:
    run = run_workflow(block, workflow_id, step="pay", checkpoints=True)
    Path(directory, "pid.new").write_text(str(os.getpid()))
    Path(directory, "pid.new").rename(Path(directory, "pid"))
    return run


@flow(name="cp-direct")
def direct(block: str, workflow_id: str, directory: str) -> None:
    """No hooks: the wait does it."""
    wait_for_instance(block, start(block, workflow_id, directory))


@flow(name="cp-submitted")
def submitted(block: str, workflow_id: str, directory: str) -> None:
    """No hooks: the wait looks."""
    wait_for_instance.submit(block, start(block, workflow_id, directory)).result()


@flow(name="cp-hooked", on_cancellation=[ends], on_crashed=[ends])
def hooked(block: str, workflow_id: str, directory: str) -> None:
    """The wait is killed with its process; or there is none."""
    wait_for_instance(block, start(block, workflow_id, directory))


@flow(name="cp-unwaited", on_cancellation=[ends], on_crashed=[ends])
def unwaited(block: str, workflow_id: str, directory: str) -> None:
    """Nothing waits: only a hook can know."""
    start(block, workflow_id, directory)
    time.sleep(600)


FLOWS = (direct, submitted, hooked, unwaited)

if __name__ == "__main__":
    serve(*[one.to_deployment(name="served") for one in FLOWS], limit=20)

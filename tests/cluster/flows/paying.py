"""Flows that start many runs and wait for them, by threads and by Dask."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from prefect import flow
from prefect_dask import DaskTaskRunner

from orchestration_integrations.prefect import OrchestrationCredentials, run_workflow, wait_for_instance

BLOCK = "cluster"
ON_DASK = DaskTaskRunner(
    cluster_kwargs={"n_workers": 2, "threads_per_worker": 12, "processes": True, "dashboard_address": None}
)


def note(directory: str, name: str, value: Any) -> None:
    """Tell the test something, in a file that is there as a whole or not at all."""
    file = Path(directory, f"{name}.{os.getpid()}")
    file.write_text(json.dumps(value))
    file.rename(Path(directory, f"{name}-{os.getpid()}.json"))


def start_and_wait(workflow_id: str, variables: list[dict[str, str]], how: str) -> list[str]:
    """The instances, once all have ended. A run that fails lets the flow fail, after the others have ended."""
    credentials = OrchestrationCredentials.load(BLOCK)
    if how == "map":
        runs = run_workflow.map(credentials, workflow_id, variables)
        ends = wait_for_instance.map(credentials, runs, poll_interval=2)
    else:
        runs = [
            run_workflow.submit(credentials, workflow_id, one, step=f"pay-{number}")
            for number, one in enumerate(variables)
        ]
        ends = [wait_for_instance.submit(credentials, one, poll_interval=2) for one in runs]
    for end in ends:
        end.wait()
    return [str(end.result()["instance_id"]) for end in ends]


@flow
def by_threads(workflow_id: str, variables: list[dict[str, str]], how: str, directory: str) -> list[str]:
    """Prefect's own task runner: all tasks are threads of the flow's process."""
    note(directory, "flow", os.getpid())
    found = start_and_wait(workflow_id, variables, how)
    note(directory, "result", found)
    return found


@flow(task_runner=ON_DASK, retries=2, retry_delay_seconds=1)
def by_dask(workflow_id: str, variables: list[dict[str, str]], how: str, directory: str) -> list[str]:
    """Two Dask workers, which are processes of their own."""
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    assert context is not None
    client = context.task_runner.client  # type: ignore[attr-defined]
    note(directory, "flow", os.getpid())
    note(directory, "dask", {"scheduler": client.scheduler.address, "workers": client.run(os.getpid)})
    found = start_and_wait(workflow_id, variables, how)
    note(directory, "result", found)
    return found

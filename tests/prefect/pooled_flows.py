"""Flows whose tasks run in other processes, which import them from here."""

from __future__ import annotations

from prefect import flow
from prefect.task_runners import ProcessPoolTaskRunner

from orchestration_integrations.prefect import OrchestrationCredentials, run_workflow


@flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
def several(url: str, workflow_id: str, steps: list[str | None]) -> list[str]:
    """One start for each step, all with the same content: the instance, or the name of the error."""
    credentials = OrchestrationCredentials(base_url=url)
    futures = [run_workflow.submit(credentials, workflow_id, step=step) for step in steps]
    found = []
    for future in futures:
        try:
            found.append(str(future.result()["instance_id"]))
        except Exception as error:
            found.append(type(error).__name__)
    return found

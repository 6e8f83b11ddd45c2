"""DAGs whose runs wait at checkpoints: the twins of those in ``scenarios`` of which an abort is not enough."""

from __future__ import annotations

import os
import time
from datetime import datetime, timedelta
from typing import Any

try:
    from airflow.sdk import DAG, task
except ImportError:  # Airflow 2.11
    from airflow.decorators import task
    from airflow.models.dag import DAG

from orchestration_integrations.airflow.callbacks import cancel_instances_on_failure
from orchestration_integrations.airflow.operators import (
    OrchestrationCancelInstanceOperator,
    OrchestrationRunWorkflowOperator,
)


def note_pid(context: Any) -> None:
    """Tells the test which process runs the task."""
    ti = context["ti"]
    name = f"{ti.dag_id}.{ti.run_id}.{ti.task_id}.{ti.try_number}".replace("/", "_")
    with open(os.path.join(os.environ.get("ORCHESTRATION_E2E_PIDS", "/nonexistent"), name), "w") as file:
        file.write(str(os.getpid()))


def dag(dag_id: str, **arguments: Any) -> DAG:
    return DAG(dag_id=dag_id, schedule=None, start_date=datetime(2024, 1, 1), catchup=False, **arguments)


def run(**arguments: Any) -> OrchestrationRunWorkflowOperator:
    given: dict[str, Any] = {
        "task_id": "pay",
        "definition": "{{ dag_run.conf['definition'] }}",
        "variables": {"to": "merchants:1"},
        "poll_interval": 0.5,
        "checkpoints": True,
        "retry_delay": timedelta(seconds=1),
        **arguments,
    }
    return OrchestrationRunWorkflowOperator(**given)


def failing() -> Any:
    """A sibling that fails once the payment's run has begun."""

    @task
    def check(ti: Any = None) -> None:
        for _ in range(240):
            if ti.xcom_pull(task_ids="pay", key="instance_id"):
                raise ValueError("this check fails")
            time.sleep(0.5)

    return check()


for name, deferrable in (("sync", False), ("deferred", True)):
    with dag(f"checkpoints_{name}"):
        run(retries=2, deferrable=deferrable)

    with dag(f"checkpoints_{name}_slow"):
        run(retries=2, deferrable=deferrable, poll_interval=5)

    with dag(f"checkpoints_{name}_held"):
        run(retries=2, deferrable=deferrable)
        failing()

with dag("checkpoints_none_sync_slow"):
    run(retries=2, checkpoints=False, poll_interval=5)

with dag("checkpoints_deadline"):
    run(retries=0, deferrable=True, timeout=6)

with dag("checkpoints_dagrun_timeout", dagrun_timeout=timedelta(seconds=45)):
    run(retries=0, deferrable=True)

with dag("checkpoints_siblings") as siblings:
    run(retries=0, deferrable=True, hold_on_failure=False)
    failing()
cancel_instances_on_failure(siblings)

with dag("checkpoints_last_resort") as last_resort:
    run(retries=0, on_execute_callback=note_pid)
cancel_instances_on_failure(last_resort)

with dag("checkpoints_trigger_rule"):
    run(retries=0, deferrable=True, hold_on_failure=False)
    failing() >> OrchestrationCancelInstanceOperator(
        task_id="cancel",
        instance_id="{{ ti.xcom_pull(task_ids='pay', key='instance_id') }}",
        trigger_rule="one_failed",
        timeout=60,
    )

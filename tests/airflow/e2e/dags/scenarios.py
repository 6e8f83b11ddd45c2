"""DAGs that the standalone tests drive. What they run comes with the DAG run's conf."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from typing import Any

try:
    from airflow.sdk import DAG, task
except ImportError:  # Airflow 2.11
    from airflow.decorators import task
    from airflow.models.dag import DAG

from orchestration_integrations.airflow.callbacks import cancel_instances_on_failure
from orchestration_integrations.airflow.compat import AIRFLOW_3_3
from orchestration_integrations.airflow.operators import (
    OrchestrationCancelInstanceOperator,
    OrchestrationRunWorkflowOperator,
)
from orchestration_integrations.airflow.sensors import OrchestrationInstanceSensor

PIDS = os.environ.get("ORCHESTRATION_E2E_PIDS", "/nonexistent")


def note_pid(context: Any) -> None:
    """Tells the test which process runs a task."""
    ti = context["ti"]
    with open(
        os.path.join(PIDS, f"{ti.dag_id}.{ti.run_id}.{ti.task_id}.{ti.try_number}".replace("/", "_")), "w"
    ) as file:
        file.write(str(os.getpid()))


def dag(dag_id: str, **arguments: Any) -> DAG:
    return DAG(dag_id=dag_id, schedule=None, start_date=datetime(2024, 1, 1), catchup=False, **arguments)


def run(task_id: str = "pay", **arguments: Any) -> OrchestrationRunWorkflowOperator:
    given: dict[str, Any] = {
        "task_id": task_id,
        "definition": "{{ dag_run.conf['definition'] }}",
        "variables": {"to": "merchants:1"},
        "orchestration_conn_id": "{{ dag_run.conf.get('conn', 'orchestration_default') }}",
        "poll_interval": 0.5,
        "on_execute_callback": note_pid,
        "retry_delay": timedelta(seconds=1),
        **arguments,
    }
    return OrchestrationRunWorkflowOperator(**given)


with dag("sync"):
    run(retries=2)

with dag("sync_once"):
    run(retries=0)

with dag("deferred"):
    run(retries=2, deferrable=True)

with dag("deferred_once"):
    run(retries=0, deferrable=True)

with dag("deadline"):
    run(retries=0, deferrable=True, timeout=6)

with dag("execution_timeout"):
    run(retries=0, deferrable=True, execution_timeout=timedelta(seconds=6))

with dag("execution_timeout_long"):
    run(retries=0, deferrable=True, execution_timeout=timedelta(seconds=20))

with dag("dagrun_timeout", dagrun_timeout=timedelta(seconds=45)):
    run(retries=0, deferrable=True)

with dag("sensor"):
    OrchestrationInstanceSensor(
        task_id="ended",
        instance_id="{{ dag_run.conf['instance_id'] }}",
        deferrable=True,
        start_from_trigger=AIRFLOW_3_3,  # earlier versions fill in no template there
        poke_interval=0.5,
        timeout=300,
        retries=2,
        retry_delay=timedelta(seconds=1),
    )

with dag("siblings") as siblings:
    run(retries=0, deferrable=True)

    @task
    def fail_once_it_runs(ti: Any = None) -> None:
        import time

        for _ in range(240):
            if ti.xcom_pull(task_ids="pay", key="instance_id"):
                raise ValueError("this sibling fails")
            time.sleep(0.5)

    fail_once_it_runs()
cancel_instances_on_failure(siblings)

with dag("last_resort") as last_resort:
    run(retries=0)
cancel_instances_on_failure(last_resort)

with dag("trigger_rule"):
    pay = run(retries=0, deferrable=True)

    @task
    def fail(ti: Any = None) -> None:
        import time

        for _ in range(240):
            if ti.xcom_pull(task_ids="pay", key="instance_id"):
                raise ValueError("this upstream fails")
            time.sleep(0.5)

    cancel = OrchestrationCancelInstanceOperator(
        task_id="cancel",
        instance_id="{{ ti.xcom_pull(task_ids='pay', key='instance_id') }}",
        orchestration_conn_id="{{ dag_run.conf.get('conn', 'orchestration_default') }}",
        trigger_rule="one_failed",
    )
    fail() >> cancel

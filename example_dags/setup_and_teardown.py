"""A run that must not outlive the tasks that use it: started by a setup, cancelled by a teardown."""

from __future__ import annotations

from datetime import datetime

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2.11
    from airflow.models.dag import DAG

from orchestration_integrations.airflow.operators import (
    OrchestrationCancelInstanceOperator,
    OrchestrationRunWorkflowOperator,
    OrchestrationSendEventOperator,
)
from orchestration_integrations.airflow.sensors import OrchestrationStageSensor

ESCROW = {
    "name": "escrow",
    "stages": [
        {
            "send": {
                "source": {"account": {"id": "world"}},
                "destination": {"account": {"id": "escrow:${order}"}},
                "amount": {"amount": "${amount}", "asset": "EUR/2"},
            }
        },
        {"wait_event": {"event": "delivered"}},
        {
            "send": {
                "source": {"account": {"id": "escrow:${order}"}},
                "destination": {"account": {"id": "sellers:${order}"}},
                "amount": {"amount": "${amount}", "asset": "EUR/2"},
            }
        },
    ],
}
INSTANCE_ID = "{{ ti.xcom_pull(task_ids='hold', key='instance_id') }}"

with DAG(
    dag_id="setup_and_teardown", schedule=None, start_date=datetime(2024, 1, 1), catchup=False, tags=["payments"]
) as dag:
    hold = OrchestrationRunWorkflowOperator(
        task_id="hold",
        definition=ESCROW,
        variables={"order": "o1", "amount": "1250"},
        wait_for_termination=False,
        retries=2,
    )
    ready = OrchestrationStageSensor(
        task_id="ready",
        instance_id=INSTANCE_ID,
        stage=2,
        until="listening",
        event="delivered",
        deferrable=True,
        timeout=300,
        retries=1,
    )
    deliver = OrchestrationSendEventOperator(
        task_id="deliver", instance_id=INSTANCE_ID, event="delivered", timeout=300, retries=1
    )
    release = OrchestrationCancelInstanceOperator(task_id="release", instance_id=INSTANCE_ID)
    hold.as_setup() >> ready >> deliver >> release.as_teardown(setups=hold)

if __name__ == "__main__":
    run = dag.test()
    if str(getattr(run.state, "value", run.state)) != "success":
        raise SystemExit(f"the DAG run has ended as {run.state}")

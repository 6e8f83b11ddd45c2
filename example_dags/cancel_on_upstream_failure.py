"""A check fails while a payout is under way: cancel the payout at once, and let the DAG run fail.

``cancel`` runs as soon as the check has failed. The payout's own task then reports that its run was cancelled;
where the server could not cancel it, it goes on waiting and tells how the run ends. ``checked`` keeps the DAG
run from succeeding in that case: a cancel that went well is no success of the DAG.
"""

from __future__ import annotations

from datetime import datetime

try:
    from airflow.sdk import DAG, get_current_context, task
except ImportError:  # Airflow 2.11
    from airflow.decorators import task
    from airflow.models.dag import DAG
    from airflow.operators.python import get_current_context

from orchestration_integrations.airflow.operators import (
    OrchestrationCancelInstanceOperator,
    OrchestrationRunWorkflowOperator,
)
from orchestration_integrations.airflow.sensors import OrchestrationStageSensor

PAYOUT = {
    "name": "checked-payout",
    "stages": [
        {
            "send": {
                "source": {"account": {"id": "world"}},
                "destination": {"account": {"id": "reserved:${merchant}"}},
                "amount": {"amount": "${amount}", "asset": "EUR/2"},
            }
        },
        {"delay": {"duration": "${pause}"}},
        {
            "send": {
                "source": {"account": {"id": "reserved:${merchant}"}},
                "destination": {"account": {"id": "merchants:${merchant}"}},
                "amount": {"amount": "${amount}", "asset": "EUR/2"},
            }
        },
    ],
}
INSTANCE_ID = "{{ ti.xcom_pull(task_ids='pay', key='instance_id') }}"

with DAG(
    dag_id="cancel_on_upstream_failure",
    schedule=None,
    start_date=datetime(2024, 1, 1),
    catchup=False,
    tags=["payments"],
) as dag:
    start = OrchestrationRunWorkflowOperator(
        task_id="pay",
        definition=PAYOUT,
        variables={"merchant": "m1", "amount": "1250", "pause": "{{ dag_run.conf.get('pause', '5s') }}"},
        wait_for_termination=False,
        retries=2,
    )
    reserved = OrchestrationStageSensor(
        task_id="reserved", instance_id=INSTANCE_ID, stage=1, until="ended", poke_interval=1, timeout=300, retries=1
    )

    @task
    def check() -> None:
        """Fails where the conf says so."""
        if (get_current_context()["dag_run"].conf or {}).get("suspicious"):
            raise ValueError("this payout is suspicious")

    @task
    def checked() -> None:
        """A leaf that fails with the check."""

    passed = check()
    cancel = OrchestrationCancelInstanceOperator(task_id="cancel", instance_id=INSTANCE_ID, trigger_rule="one_failed")
    start >> reserved >> passed >> [cancel, checked()]

if __name__ == "__main__":
    run = dag.test()
    if str(getattr(run.state, "value", run.state)) != "success":
        raise SystemExit(f"the DAG run has ended as {run.state}")

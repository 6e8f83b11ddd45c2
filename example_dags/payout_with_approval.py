"""A payout that waits for a human: reserve, ask, then release the money by an event, or cancel.

Where Airflow has human-in-the-loop operators (3.1 and later) the question stands in its UI; before, the
answer comes with the DAG run's conf: ``{"approved": true}``.
"""

from __future__ import annotations

from datetime import datetime, timedelta

try:
    from airflow.sdk.exceptions import AirflowSkipException
except ImportError:  # Airflow below 3.2
    from airflow.exceptions import AirflowSkipException

try:
    from airflow.sdk import DAG, get_current_context, task
except ImportError:  # Airflow 2.11
    from airflow.decorators import task
    from airflow.models.dag import DAG
    from airflow.operators.python import get_current_context

from orchestration_integrations.airflow.operators import (
    OrchestrationCancelInstanceOperator,
    OrchestrationRunWorkflowOperator,
    OrchestrationSendEventOperator,
)
from orchestration_integrations.airflow.sensors import OrchestrationInstanceSensor

try:
    from airflow.providers.standard.operators.hitl import ApprovalOperator
except Exception:  # Airflow below 3.1, or without the standard provider
    ApprovalOperator = None

PAYOUT = {
    "name": "approved-payout",
    "stages": [
        {
            "send": {
                "source": {"account": {"id": "world"}},
                "destination": {"account": {"id": "reserved:${merchant}"}},
                "amount": {"amount": "${amount}", "asset": "EUR/2"},
            }
        },
        {"wait_event": {"event": "approved"}},
        {
            "send": {
                "source": {"account": {"id": "reserved:${merchant}"}},
                "destination": {"account": {"id": "merchants:${merchant}"}},
                "amount": {"amount": "${amount}", "asset": "EUR/2"},
            }
        },
    ],
}
INSTANCE_ID = "{{ ti.xcom_pull(task_ids='reserve', key='instance_id') }}"

with DAG(
    dag_id="payout_with_approval", schedule=None, start_date=datetime(2024, 1, 1), catchup=False, tags=["payments"]
) as dag:
    reserve = OrchestrationRunWorkflowOperator(
        task_id="reserve",
        definition=PAYOUT,
        variables={"merchant": "m1", "amount": "1250"},
        wait_for_termination=False,
        retries=2,
        retry_delay=timedelta(seconds=10),
    )
    if ApprovalOperator is not None:
        ask = ApprovalOperator(task_id="ask", subject="Pay 12.50 EUR to m1?")
    else:

        @task(task_id="ask")
        def answer() -> None:
            """Skips what follows unless the conf says yes."""
            conf = get_current_context()["dag_run"].conf or {}
            if not conf.get("approved"):
                raise AirflowSkipException("not approved")

        ask = answer()

    release = OrchestrationSendEventOperator(
        task_id="release", instance_id=INSTANCE_ID, event="approved", timeout=300, retries=1
    )
    paid = OrchestrationInstanceSensor(task_id="paid", instance_id=INSTANCE_ID, deferrable=True, timeout=300, retries=1)
    # Only where the release was skipped: the reserved money stays where it is, for someone to decide. A server that
    # cannot cancel would leave the run waiting for an approval that was refused: then this task fails, and tells it.
    refused = OrchestrationCancelInstanceOperator(
        task_id="refused", instance_id=INSTANCE_ID, trigger_rule="all_skipped", fail_if_not_confirmed=True
    )
    reserve >> ask >> release >> [paid, refused]

if __name__ == "__main__":
    run = dag.test(run_conf={"approved": True})
    if str(getattr(run.state, "value", run.state)) != "success":
        raise SystemExit(f"the DAG run has ended as {run.state}")

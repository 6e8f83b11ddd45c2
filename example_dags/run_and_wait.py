"""Run a workflow once and wait until the money has arrived.

Needs the connection ``orchestration_default``, for example
``AIRFLOW_CONN_ORCHESTRATION_DEFAULT='{"conn_type": "orchestration", "host": "http://127.0.0.1:8080"}'``.
"""

from __future__ import annotations

from datetime import datetime, timedelta

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2.11
    from airflow.models.dag import DAG

from orchestration_integrations.airflow.operators import OrchestrationRunWorkflowOperator

PAYOUT = {
    "name": "payout",
    "stages": [
        {
            "send": {
                "source": {"account": {"id": "world"}},
                "destination": {"account": {"id": "${merchant}"}},
                "amount": {"amount": "${amount}", "asset": "EUR/2"},
            }
        },
        {"delay": {"duration": "1s"}},
    ],
}

with DAG(
    dag_id="run_and_wait", schedule=None, start_date=datetime(2024, 1, 1), catchup=False, tags=["payments"]
) as dag:
    OrchestrationRunWorkflowOperator(
        task_id="pay",
        # Ensured on the server with a gate before its first stage, so that a retry can never pay twice.
        definition=PAYOUT,
        variables={"merchant": "merchants:{{ dag_run.conf.get('merchant', 'm1') }}", "amount": "1250"},
        timeout=300,
        retries=2,
        retry_delay=timedelta(seconds=10),
    )

if __name__ == "__main__":
    run = dag.test()
    if str(getattr(run.state, "value", run.state)) != "success":
        raise SystemExit(f"the DAG run has ended as {run.state}")

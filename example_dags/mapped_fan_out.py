"""Pay many merchants at once. Each run waits in the triggerer and takes no worker slot meanwhile."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

try:
    from airflow.sdk import DAG, task
except ImportError:  # Airflow 2.11
    from airflow.decorators import task
    from airflow.models.dag import DAG

from orchestration_integrations.airflow.operators import OrchestrationRunWorkflowOperator

PAYOUT = {
    "name": "payout-of-many",
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
    dag_id="mapped_fan_out", schedule=None, start_date=datetime(2024, 1, 1), catchup=False, tags=["payments"]
) as dag:

    @task
    def due() -> list[dict[str, Any]]:
        """Whom to pay what; from a database, say."""
        return [{"merchant": f"merchants:m{number}", "amount": str(100 * number)} for number in (1, 2, 3)]

    OrchestrationRunWorkflowOperator.partial(
        task_id="pay",
        definition=PAYOUT,
        deferrable=True,
        timeout=300,
        retries=2,
        retry_delay=timedelta(seconds=10),
    ).expand(variables=due())

if __name__ == "__main__":
    run = dag.test()
    if str(getattr(run.state, "value", run.state)) != "success":
        raise SystemExit(f"the DAG run has ended as {run.state}")

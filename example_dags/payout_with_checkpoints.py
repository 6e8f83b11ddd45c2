"""A payout in three transfers, with a checkpoint before the second and the third: a check decides about these.

``begin`` makes the first transfer and returns; the run then stands at its checkpoint and moves nothing. Where the check
passes, ``finish`` has the same key, so it goes on with the same run and lets it pass. Where the check fails, nobody
does: ``cancel`` cancels the run, or holds it there on a server that cannot cancel. ``finish`` does not run then, and
the DAG run fails. A held run goes on once ``check`` and ``finish`` were cleared, and ``finish`` once more after it has
told that the run is held.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

try:
    from airflow.sdk import DAG, get_current_context, task
except ImportError:  # Airflow 2.11
    from airflow.decorators import task
    from airflow.models.dag import DAG
    from airflow.operators.python import get_current_context

from orchestration_integrations.airflow.operators import (
    OrchestrationCancelInstanceOperator,
    OrchestrationCreateWorkflowOperator,
    OrchestrationRunWorkflowOperator,
)
from orchestration_integrations.airflow.sensors import OrchestrationStageSensor


def transfer(share: str) -> dict[str, Any]:
    """One of the three transfers."""
    return {
        "send": {
            "source": {"account": {"id": "world"}},
            "destination": {"account": {"id": "merchants:${merchant}"}},
            "amount": {"amount": f"${{{share}}}", "asset": "EUR/2"},
        }
    }


PAYOUT = {"name": "payout-in-three", "stages": [transfer("first"), transfer("second"), transfer("third")]}
VARIABLES = {"merchant": "m1", "first": "100", "second": "400", "third": "750"}
RUN_KEY = "payout-in-three/{{ run_id }}"
INSTANCE_ID = "{{ ti.xcom_pull(task_ids='begin', key='instance_id') }}"

with DAG(
    dag_id="payout_with_checkpoints", schedule=None, start_date=datetime(2024, 1, 1), catchup=False, tags=["payments"]
) as dag:
    workflow = OrchestrationCreateWorkflowOperator(
        task_id="workflow", definition=PAYOUT, gate=True, checkpoints=True, retries=2
    )
    begin = OrchestrationRunWorkflowOperator(
        task_id="begin",
        workflow_id=workflow.output,
        variables=VARIABLES,
        run_key=RUN_KEY,
        wait_for_termination=False,
        retries=2,
    )
    # As the server counts: stage 0 is the gate, stage 1 the first transfer.
    first_made = OrchestrationStageSensor(
        task_id="first_made", instance_id=INSTANCE_ID, stage=1, until="ended", poke_interval=1, timeout=300, retries=1
    )

    @task
    def check() -> None:
        """Fails where the conf says so."""
        if (get_current_context()["dag_run"].conf or {}).get("suspicious"):
            raise ValueError("this payout is suspicious")

    finish = OrchestrationRunWorkflowOperator(
        task_id="finish",
        workflow_id=workflow.output,
        variables=VARIABLES,
        run_key=RUN_KEY,
        retries=2,
        retry_delay=timedelta(seconds=10),
    )
    cancel = OrchestrationCancelInstanceOperator(
        task_id="cancel", instance_id=INSTANCE_ID, trigger_rule="one_failed", fail_if_not_confirmed=True, timeout=30
    )
    workflow >> begin >> first_made >> check() >> [finish, cancel]

if __name__ == "__main__":
    run = dag.test()
    if str(getattr(run.state, "value", run.state)) != "success":
        raise SystemExit(f"the DAG run has ended as {run.state}")

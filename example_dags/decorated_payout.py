"""A function returns what is to be paid, and ``@task.orchestration`` pays it once.

A retry calls the function again: if it returned something else under the same key, the task would fail instead of
paying a second time. The definition is a file beside this one, which Airflow fills in as a template.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

try:
    from airflow.sdk import DAG, task
except ImportError:  # Airflow 2.11
    from airflow.decorators import task
    from airflow.models.dag import DAG

FLOW = "flows/payout.yaml"

with DAG(
    dag_id="decorated_payout",
    schedule=None,
    start_date=datetime(2024, 1, 1),
    catchup=False,
    params={"asset": "EUR/2", "seconds": 300},
    tags=["payments"],
) as dag:

    @task.orchestration(
        definition=FLOW, timeout="{{ params.seconds }}", retries=2, retry_delay=timedelta(seconds=10), deferrable=True
    )
    def pay(order: str, dag_run: Any = None) -> dict[str, str]:
        """``order`` is an argument of the task, ``dag_run`` comes from Airflow's context."""
        return {"merchant": f"merchants:{order}", "amount": str(dag_run.conf.get("amount", 1250))}

    @task
    def orders(paid: dict[str, Any]) -> list[str]:
        return ["o2", "o3"] if paid["state"] == "succeeded" else []

    @task.orchestration(definition=FLOW)
    def pay_each(order: str, amount: int) -> dict[str, Any]:
        return {"merchant": f"merchants:{order}", "amount": amount}

    pay_each.partial(amount=100).expand(order=orders(pay("o1")))

if __name__ == "__main__":
    run = dag.test()
    if str(getattr(run.state, "value", run.state)) != "success":
        raise SystemExit(f"the DAG run has ended as {run.state}")

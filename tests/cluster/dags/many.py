"""Mapped runs: of one DAG they wait in the triggerer, of the other in their worker."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import DAG

from orchestration_integrations.airflow.operators import OrchestrationRunWorkflowOperator
from orchestration_integrations.airflow.retry_policy import OrchestrationRetryPolicy
from tests.cluster.payments import PAYMENT, variables_of_dag

COMMON: dict[str, Any] = {
    "definition": PAYMENT,
    "poll_interval": 2,
    "timeout": 900,
    "retries": 4,
    "retry_delay": timedelta(seconds=1),
    "retry_policy": OrchestrationRetryPolicy(),
}

SETTINGS: dict[str, Any] = {
    "schedule": None,
    "start_date": datetime(2024, 1, 1),
    "catchup": False,
    "max_active_tasks": 100,
}

with DAG("deferred", **SETTINGS):
    OrchestrationRunWorkflowOperator.partial(task_id="pay", deferrable=True, **COMMON).expand(
        variables=variables_of_dag("deferred")
    )

with DAG("held", **SETTINGS):
    OrchestrationRunWorkflowOperator.partial(task_id="pay", **COMMON).expand(variables=variables_of_dag("held"))

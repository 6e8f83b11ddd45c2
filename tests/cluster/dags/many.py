"""Mapped runs, half of them deferred."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import DAG

from orchestration_integrations.airflow.operators import OrchestrationRunWorkflowOperator
from orchestration_integrations.airflow.retry_policy import OrchestrationRetryPolicy
from tests.cluster.payments import PAYMENT, variables

EACH = 30
COMMON: dict[str, Any] = {
    "definition": PAYMENT,
    "poll_interval": 2,
    "timeout": 900,
    "retries": 4,
    "retry_delay": timedelta(seconds=1),
    "retry_policy": OrchestrationRetryPolicy(),
}

with DAG("many", schedule=None, start_date=datetime(2024, 1, 1), catchup=False, max_active_tasks=100):
    OrchestrationRunWorkflowOperator.partial(task_id="deferred", deferrable=True, priority_weight=10, **COMMON).expand(
        variables=variables("deferred", EACH, failing=(3, 11))
    )
    OrchestrationRunWorkflowOperator.partial(task_id="held", **COMMON).expand(
        variables=variables("held", EACH, failing=(2, 7))
    )

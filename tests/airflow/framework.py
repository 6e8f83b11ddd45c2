"""Names of Airflow that only tests need, from where each version has them."""

from __future__ import annotations

import json
from typing import Any

from orchestration_integrations.airflow.compat import first_of

DAG = first_of("DAG", "airflow.sdk", "airflow.models.dag")
Connection = first_of("Connection", "airflow.sdk", "airflow.models.connection")
AirflowRescheduleException = first_of("AirflowRescheduleException", "airflow.sdk.exceptions", "airflow.exceptions")
task_namespace = first_of("task", "airflow.sdk", "airflow.decorators")


def serialized(dag: Any) -> Any:
    """A DAG as Airflow stores it, checked against Airflow's own schema, and read back."""
    from airflow.serialization import serialized_objects

    kind = getattr(serialized_objects, "DagSerialization", None) or serialized_objects.SerializedDAG
    stored = kind.to_dict(dag)
    kind.validate_schema(stored)
    kind.from_dict(json.loads(json.dumps(stored)))
    return stored


__all__ = ["DAG", "AirflowRescheduleException", "Connection", "serialized", "task_namespace"]

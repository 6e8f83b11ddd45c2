"""Names of Airflow that only tests need, from where each version has them."""

from __future__ import annotations

from orchestration_integrations.airflow.compat import first_of

DAG = first_of("DAG", "airflow.sdk", "airflow.models.dag")
Connection = first_of("Connection", "airflow.sdk", "airflow.models.connection")
AirflowRescheduleException = first_of("AirflowRescheduleException", "airflow.sdk.exceptions", "airflow.exceptions")

__all__ = ["DAG", "AirflowRescheduleException", "Connection"]

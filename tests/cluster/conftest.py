"""These tests run in the environments `cluster-airflow` and `cluster-prefect` alone, which have what they need."""

from __future__ import annotations

import importlib.util


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


collect_ignore = []
if not _installed("airflow.providers.celery"):
    collect_ignore += ["test_airflow_cluster.py"]
if not _installed("prefect_dask"):
    collect_ignore += ["test_prefect_cluster.py"]

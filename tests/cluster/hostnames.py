"""The name of a machine, as Airflow asks for it: on one real machine, each part of a cluster has a name of its own."""

from __future__ import annotations

import os


def hostname() -> str:
    return os.environ["CLUSTER_MACHINE"]

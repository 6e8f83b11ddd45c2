"""A DAG that starts as runs of a workflow end, while the triggerer is killed and ended: each end comes once."""

from __future__ import annotations

import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestration_integrations import OrchestrationHttpHook
from orchestration_integrations.airflow.compat import AIRFLOW_VERSION
from orchestration_integrations.airflow.ended_memory import key_of
from orchestration_integrations.server import EmbeddedServer

if AIRFLOW_VERSION < (3, 3):
    pytest.skip("Airflow keeps state of assets from 3.3 on", allow_module_level=True)

from tests.airflow.e2e.standalone import Standalone
from tests.airflow.harness import SHORT
from tests.outside import eventually

EXAMPLE = Path(__file__).parents[3] / "example_dags" / "start_on_end.py"
DAG_ID = "start_on_end"


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer(generation=2) as one:
        yield one


@pytest.fixture(scope="module")
def workflow_id(server: EmbeddedServer) -> str:
    with OrchestrationHttpHook(base_url=server.url) as http:
        return http.ensure_workflow(SHORT).workflow.id


@pytest.fixture(scope="module")
def airflow(server: EmbeddedServer, workflow_id: str) -> Iterator[Standalone]:
    one = Standalone()
    try:
        one.env["PAYOUT_WORKFLOW_ID"] = workflow_id
        shutil.copy(EXAMPLE, one.dags)
        one.start()
        one.connect("orchestration_default", host=server.url)
        yield one
    finally:
        one.stop()


def kept(airflow: Standalone, workflow_id: str) -> Any:
    """What the trigger keeps in the state of the asset; None where there is nothing."""
    assets = airflow.call("GET", "/assets?name_pattern=ended_payouts")["assets"]
    if not assets:
        return None
    rows = airflow.call("GET", f"/assets/{assets[0]['id']}/state-store")["asset_state_store"]
    values = [row["value"] for row in rows if row["key"] == key_of(workflow_id, None, "orchestration_default")]
    return values[0]["ends"] if values else None


def told(airflow: Standalone) -> Counter[str]:
    """The instances that runs of the DAG were told of, and how often."""
    found: Counter[str] = Counter()
    for run in airflow.call("GET", f"/dags/{DAG_ID}/dagRuns?limit=100")["dag_runs"]:
        if run["state"] == "success":
            found.update(airflow.xcom(DAG_ID, run["dag_run_id"], "book"))
    return found


def test_each_end_starts_the_dag_once_across_restarts_of_the_triggerer(
    airflow: Standalone, server: EmbeddedServer, workflow_id: str
) -> None:
    paid: list[str] = []

    def pay() -> None:
        with OrchestrationHttpHook(base_url=server.url) as http:
            ids = [http.run_workflow(workflow_id, {"to": "merchants:1"}).id for _ in range(2)]
            for one in ids:
                http.wait(one, timeout=30)
        paid.extend(ids)

    def all_told() -> bool:
        return set(told(airflow)) == set(paid)

    def all_kept() -> bool:
        state = kept(airflow, workflow_id)
        return sum(len(one) for one in state["told"].values()) == 12 * len(paid)

    eventually(lambda: airflow.client.get(f"/api/v2/dags/{DAG_ID}").status_code == 200, "the DAG is parsed")
    airflow.call("PATCH", f"/dags/{DAG_ID}", {"is_paused": False})
    eventually(lambda: (kept(airflow, workflow_id) or {}).get("since"), "the triggerer watches")
    pay()
    eventually(all_told, "the DAG was told of the first ends")
    eventually(all_kept, "what was told is kept")
    for sign in (signal.SIGKILL, signal.SIGTERM):
        airflow.replace_triggerer(sign)
        pay()  # the new triggerer needs seconds to start
        eventually(all_told, f"the DAG was told of what ended after {sign.name}")
        eventually(all_kept, "what was told is kept")
    assert told(airflow) == dict.fromkeys(paid, 1)

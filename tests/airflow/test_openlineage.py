"""What OpenLineage is told: by its own provider where that is installed, and nothing where it is not."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestration_integrations import InstanceFailedError, KeyReusedError
from orchestration_integrations.airflow import openlineage
from orchestration_integrations.airflow.operators import OrchestrationRunWorkflowOperator
from tests.airflow.conftest import EXAMPLES
from tests.airflow.harness import FAILS, SEND, SHORT, TO, WAITS, Task
from tests.airflow.test_decorator import Counting, DecoratedTask

INSTALLED = importlib.util.find_spec("openlineage") is not None and openlineage.OperatorLineage is not None
with_provider = pytest.mark.skipif(not INSTALLED, reason="needs apache-airflow-providers-openlineage")
SECRET = "s3cret-of-a-variable"
PASSES = {
    "name": "passes",
    "stages": [
        SEND,
        {
            "send": {
                "source": {"account": {"id": "${to}"}},
                "destination": {"account": {"id": "fees"}},
                "amount": {"amount": 30, "asset": "EUR/2"},
            }
        },
    ],
}


def extracted(operator: Any, state: str = "success") -> Any:
    """What the provider's own extractor makes of the operator."""
    from airflow.providers.openlineage.extractors.manager import ExtractorManager

    ti = SimpleNamespace(task=operator, task_id="pay", dag_id="dag", map_index=-1, try_number=1)
    return (
        ExtractorManager()
        ._get_extractor(operator)
        ._get_openlineage_facets(  # type: ignore[union-attr]
            operator.get_openlineage_facets_on_complete
            if state == "success"
            else operator.get_openlineage_facets_on_failure,
            ti,
        )
    )


def as_sent(lineage: Any) -> dict[str, Any]:
    """The facet as it stands in an event."""
    from openlineage.client.serde import Serde

    found: dict[str, Any] = Serde.to_dict(lineage.run_facets["orchestration_run"])
    return found


@with_provider
@pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])
def test_a_success_tells_accounts_and_amounts(server: Any, deferrable: bool) -> None:
    task = Task(definition=PASSES, deferrable=deferrable)
    result = task.attempt()
    lineage = extracted(task.operator)
    namespace = f"formance://{server.url.partition('://')[2]}"
    assert [(one.namespace, one.name) for one in lineage.inputs] == [
        (namespace, "default/world"),
        (namespace, "default/merchants:1"),
    ]
    assert [one.name for one in lineage.outputs] == ["default/merchants:1", "default/fees"]
    facet = as_sent(lineage)
    assert facet["instanceId"] == result["instance_id"]
    assert facet["workflowId"] == result["workflow_id"]
    assert facet["runKey"] == task.record["key"]
    assert (facet["state"], facet["complete"], facet["maybeRepeated"]) == ("succeeded", True, False)
    assert facet["_producer"].startswith("urn:orchestration-integrations:")
    assert facet["_schemaURL"] == openlineage.SCHEMA
    assert [(one["source"], one["destination"], one["asset"], one["amount"]) for one in facet["postings"]] == [
        ("world", "merchants:1", "EUR/2", "100"),
        ("merchants:1", "fees", "EUR/2", "30"),
    ]
    (ours,) = [one for one in facet["totals"] if one["account"] == "merchants:1"]
    assert (ours["ledger"], ours["received"], ours["sent"]) == ("default", "100", "30")


@with_provider
def test_a_failure_tells_what_had_moved(server: Any) -> None:
    task = Task(definition={"name": "broken", "stages": [SEND, FAILS]})
    with pytest.raises(InstanceFailedError):
        task.attempt()
    lineage = extracted(task.operator, "failed")
    facet = as_sent(lineage)
    assert facet["state"] == "failed"
    assert [one["amount"] for one in facet["postings"]] == ["100"]
    assert [one.name for one in lineage.outputs] == ["default/merchants:1"]


@with_provider
def test_what_is_not_known_is_not_told(server: Any) -> None:
    task = Task(definition=WAITS, wait_for_termination=False)
    task.attempt()
    facet = as_sent(extracted(task.operator))
    assert (facet["state"], facet["postings"], facet["complete"]) == ("running", [], False)
    with pytest.raises(KeyReusedError):
        task.attempt(variables={"to": "merchants:2"})
    facet = as_sent(extracted(task.operator, "failed"))
    assert (facet.get("state"), facet["postings"], facet["complete"]) == (None, [], False)


@with_provider
def test_a_decorated_task_tells_the_same(server: Any) -> None:
    task = DecoratedTask(Counting(TO))
    task.try_number = 1
    operator = task.fresh()
    operator.execute(task.context(operator))
    assert as_sent(extracted(operator))["state"] == "succeeded"


@with_provider
def test_no_secret_is_told(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the connection's credentials nor the variables."""
    where = {"conn_type": "orchestration", "host": server.url, "extra": {"token": "t0ken-of-the-connection"}}
    monkeypatch.setenv("AIRFLOW_CONN_ORCHESTRATION_DEFAULT", json.dumps(where))
    task = Task(definition=SHORT, variables={**TO, "memo": SECRET})
    task.attempt()
    told = json.dumps(as_sent(extracted(task.operator)))
    assert SECRET not in told
    assert "t0ken" not in told


def test_a_base_url_loses_its_credentials() -> None:
    hidden = openlineage._without_credentials("https://me:pass@stack.example.com:8443/api/orchestration?x=1")
    assert hidden == "https://stack.example.com:8443/api/orchestration"


def test_without_a_run_nothing_is_told() -> None:
    operator = OrchestrationRunWorkflowOperator(task_id="pay", workflow_id="w")
    assert operator.get_openlineage_facets_on_complete(None) is None
    assert operator.get_openlineage_facets_on_failure(None) is None


def test_without_the_provider_nothing_happens(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openlineage, "OperatorLineage", None)
    task = Task(definition=SHORT)
    task.attempt()
    assert task.operator is not None
    assert task.operator.get_openlineage_facets_on_complete(None) is None


def test_a_dag_file_imports_nothing_of_it() -> None:
    script = (
        "import sys; import orchestration_integrations.airflow.operators;"
        "import orchestration_integrations.airflow.decorators;"
        "print('HERE', 'orchestration_integrations.airflow.openlineage' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240, check=True)
    assert "HERE False" in done.stdout


@with_provider
def test_airflow_sends_it(airflow_home: Path, server: Any, tmp_path: Path) -> None:
    """A whole DAG run, with the provider's listener, whose events go to a file."""
    events = tmp_path / "events.json"
    where = {"type": "file", "log_file_path": str(events), "append": True}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "run_and_wait.py")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(where)},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    sent = [json.loads(line) for line in events.read_text().splitlines()]
    (ours,) = [one for one in sent if one["eventType"] == "COMPLETE" and one["job"]["name"] == "run_and_wait.pay"]
    facet = ours["run"]["facets"]["orchestration_run"]
    assert [one["amount"] for one in facet["postings"]] == ["1250"]
    assert facet["instanceId"] == server.record().started[0]["instance_id"]
    assert [one["name"] for one in ours["outputs"]] == ["default/merchants:m1"]

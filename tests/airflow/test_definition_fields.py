"""Definitions that stand in files: which texts name one, where it is looked for, and what a template may do to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestration_integrations import OrchestrationHttpHook, ValidationError
from orchestration_integrations.airflow.compat import AirflowFailException
from orchestration_integrations.airflow.operators import (
    OrchestrationCreateWorkflowOperator,
    OrchestrationRunWorkflowOperator,
)
from orchestration_integrations.definition_files import names_file
from tests.airflow.framework import DAG
from tests.airflow.harness import SHORT, TO, Task

TEMPLATE = """name: "{{ params.name }}"
stages:
- send:
    source: {account: {id: world}}
    destination: {account: {id: "${to}"}}
    amount: {amount: 100, asset: "{{ params.asset }}"}
# the same as in pay.yaml"""
CONTEXT: dict[str, Any] = {"params": {"name": "of-a-file", "asset": "EUR/2", "file": "pay"}}


@pytest.fixture
def dag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A DAG with flows beside its file and in a search path, on a worker that stands in another folder of flows."""
    for place in ("dags", "shared", "worker"):
        (tmp_path / place / "flows").mkdir(parents=True)
    (tmp_path / "worker/flows/pay.yaml").write_text("name: of-the-worker\nstages: []\n")
    monkeypatch.chdir(tmp_path / "worker")
    with DAG("d", schedule=None, template_searchpath=[str(tmp_path / "shared")]) as made:
        made.fileloc = str(tmp_path / "dags/dag.py")
    return made


def put(dag: Any, place: str, text: str = TEMPLATE, name: str = "flows/pay.yaml") -> None:
    (Path(dag.fileloc).parent.parent / place / name).write_text(text)


def rendered(operator: Any, **more: Any) -> Any:
    operator.render_template_fields({**CONTEXT, **more})
    return operator


def name_of(server: Any, workflow_id: str) -> str:
    with OrchestrationHttpHook(base_url=server.url) as http:
        return http.get_workflow(workflow_id).name


@pytest.mark.parametrize("place", ["dags", "shared"])
@pytest.mark.parametrize("parsed", [False, True], ids=["by the worker", "by the DAG processor too"])
def test_a_file_is_filled_in_as_a_template(server: Any, dag: Any, place: str, parsed: bool) -> None:
    put(dag, place)
    operator = OrchestrationCreateWorkflowOperator(task_id="create", definition="flows/pay.yaml", dag=dag)
    if parsed:
        dag.resolve_template_files()
        assert operator.definition.rstrip() == TEMPLATE
    assert name_of(server, rendered(operator).execute({})) == "of-a-file"
    assert "${to}" in operator.definition


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".json"])
def test_a_run_takes_each_kind_of_file(server: Any, dag: Any, suffix: str) -> None:
    put(dag, "dags", json.dumps(SHORT) if suffix == ".json" else TEMPLATE, f"flows/pay{suffix}")
    operator = rendered(
        OrchestrationRunWorkflowOperator(task_id="pay", definition=f"flows/pay{suffix}", variables=TO, dag=dag)
    )
    task = Task(definition=operator.definition)
    assert task.attempt()["state"] == "succeeded"
    assert server.balance("merchants:1", "EUR/2") == 100


def test_no_other_argument_names_a_file(server: Any, dag: Any) -> None:
    """A memo that says pay.yaml is sent as it is, though it is the very text that names the definition."""
    put(dag, "dags", json.dumps(SHORT), "pay.yaml")
    put(dag, "shared", json.dumps(SHORT), "pay.yaml")
    operator = OrchestrationRunWorkflowOperator(
        task_id="pay",
        definition="pay.yaml",
        path="pay.yaml",
        variables={"memo": "pay.yaml", "many": ["{{ params.file }}.json"]},
        run_key="{{ params.file }}.json",
        dag=dag,
    )
    dag.resolve_template_files()
    rendered(operator)
    assert operator.path == "pay.yaml"
    assert operator.variables == {"memo": "pay.yaml", "many": ["pay.json"]}
    assert operator.run_key == "pay.json"
    assert operator.template_ext == (".yaml", ".yml", ".json")


def test_a_path_takes_a_template_and_its_file_does_not(server: Any, dag: Any) -> None:
    put(dag, "dags", json.dumps({**SHORT, "name": "{{ params.name }}"}))
    operator = OrchestrationCreateWorkflowOperator(task_id="create", path="flows/{{ params.file }}.yaml", dag=dag)
    dag.resolve_template_files()
    assert name_of(server, rendered(operator).execute({})) == "{{ params.name }}"


@pytest.mark.parametrize(
    "text",
    [
        TEMPLATE,
        "{name: of-a-file, stages: [{delay: {duration: 1s}}]} # pay.yaml",
        "name: pay.yaml",
        '["pay.json", "pay.json',
        "name: x\n# pay.json",
        "pay.txt",
        "",
    ],
)
def test_a_text_is_not_taken_for_a_file(text: str) -> None:
    assert not names_file(text)


@pytest.mark.parametrize("text", ["pay.yaml", "flows/pay.yml", "/a b/pay.json", "{{ params.file }}.yaml"])
def test_a_name_is_not_taken_for_a_text(text: str) -> None:
    assert names_file(text)


def test_a_definition_that_ends_like_a_file_is_run(server: Any, dag: Any) -> None:
    operator = OrchestrationCreateWorkflowOperator(task_id="create", definition=TEMPLATE, dag=dag)
    dag.resolve_template_files()
    assert name_of(server, rendered(operator).execute({})) == "of-a-file"


def test_a_missing_file_fails_the_task_and_not_its_templates(server: Any, dag: Any) -> None:
    """Templates are filled in again when a deferred task resumes: an error there would leave its run alone."""
    operator = OrchestrationCreateWorkflowOperator(task_id="create", definition="flows/pay.yaml", dag=dag)
    dag.resolve_template_files()
    rendered(operator)
    with pytest.raises(ValidationError, match=r"dags/flows/pay\.yaml or .*shared/flows/pay\.yaml") as caught:
        operator.execute({})
    assert isinstance(caught.value, AirflowFailException)
    assert caught.value.path == "definition"
    assert not server.record().requests


@pytest.mark.parametrize("name", ["{{ params.file }}.yaml", "flows/{{ params.file }}.yaml"])
def test_the_name_of_a_file_takes_no_template(server: Any, dag: Any, name: str) -> None:
    operator = OrchestrationCreateWorkflowOperator(task_id="create", definition=name, dag=dag)
    with pytest.raises(ValidationError, match=r"path= takes a template"):
        operator.execute({})


def test_what_another_task_returns_names_no_file(server: Any, dag: Any) -> None:
    """A worker's file is not read because an XCom says its name."""
    put(dag, "dags")
    with dag:
        names = OrchestrationCreateWorkflowOperator(task_id="names", path="x")
    operator = OrchestrationCreateWorkflowOperator(task_id="create", definition=names.output, dag=dag)
    operator.definition = "flows/pay.yaml"  # what the reference comes to
    with pytest.raises(ValidationError, match="a name given by another task") as caught:
        operator.execute({})
    assert caught.value.path == "definition"
    assert not server.record().requests


@pytest.mark.parametrize("field", ["path", "definition"])
@pytest.mark.parametrize("where", ["no DAG", "a DAG without a file"])
def test_the_workers_folder_never_decides(server: Any, dag: Any, field: str, where: str) -> None:
    arguments: dict[str, Any] = {field: "flows/pay.yaml"}
    if where == "no DAG":
        operator = OrchestrationCreateWorkflowOperator(task_id="create", **arguments)
    else:
        with DAG("typed", schedule=None) as typed:
            typed.fileloc = "<stdin>"
        operator = OrchestrationCreateWorkflowOperator(task_id="create", dag=typed, **arguments)
    operator.resolve_template_files()
    with pytest.raises(ValidationError, match="give an absolute path") as caught:
        operator.execute({})
    assert caught.value.path == field


def test_a_relative_search_path_lies_beside_the_dag(server: Any, dag: Any) -> None:
    put(dag, "dags", name="flows/pay.yaml")
    dag.template_searchpath = ["flows"]
    operator = OrchestrationCreateWorkflowOperator(task_id="create", definition="pay.yaml", dag=dag)
    assert name_of(server, rendered(operator).execute({})) == "of-a-file"

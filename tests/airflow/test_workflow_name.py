"""Workflows by their name: exactly one may have it, and a run that has begun is bound to the one that had it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from orchestration_integrations import KeyReusedError, NotFoundError, OrchestrationHttpHook, ValidationError
from orchestration_integrations.airflow.compat import AirflowFailException
from orchestration_integrations.procedures.gate import gated
from orchestration_integrations.procedures.gated_start import GatedStart
from tests.airflow.harness import SEND, SHORT, TO, WAITS, Task, define

DURABLE = pytest.mark.parametrize("durable", [True, False], ids=["state store", "Variables"])
GATES = pytest.mark.parametrize("gate", [True, False], ids=["gated", "ungated"])
OTHER = {"name": "short", "stages": [SEND, SEND]}


@pytest.fixture
def http(server: Any) -> Iterator[OrchestrationHttpHook]:
    with OrchestrationHttpHook(base_url=server.url) as hook:
        yield hook


@GATES
@DURABLE
def test_the_one_of_that_name_is_run(server: Any, durable: bool, gate: bool) -> None:
    define(server, WAITS)
    workflow_id = define(server, SHORT, gate=gate)
    task = Task(workflow_name="short", durable=durable)
    result = task.attempt()
    assert result["workflow_id"] == workflow_id
    assert task.attempt() == result
    assert len(server.record().started) == 1


def test_no_such_name(server: Any, http: OrchestrationHttpHook) -> None:
    http.delete_workflow(define(server, SHORT))
    with pytest.raises(NotFoundError, match="no workflow on the server has the name 'short'") as caught:
        Task(workflow_name="short").attempt()
    assert isinstance(caught.value, AirflowFailException)
    assert not server.record().started


def test_several_of_that_name(server: Any, http: OrchestrationHttpHook) -> None:
    found = [http.create_workflow(gated(one)) for one in (SHORT, OTHER, SHORT)]
    with pytest.raises(ValidationError) as caught:
        Task(workflow_name="short").attempt()
    assert isinstance(caught.value, AirflowFailException)
    assert caught.value.path == "workflow_name"
    for one in found:
        assert f"{one.id} (created at {one.created_at.isoformat()})" in str(caught.value)
    assert not server.record().started


def test_it_is_found_on_any_page(server: Any, http: OrchestrationHttpHook) -> None:
    workflow_id = define(server, SHORT)
    for number in range(120):
        http.create_workflow({**WAITS, "name": f"other {number}"})
    assert Task(workflow_name="short").attempt()["workflow_id"] == workflow_id


@GATES
@DURABLE
@pytest.mark.parametrize("ended", [True, False], ids=["ended", "running"])
def test_a_name_that_means_another_workflow_is_other_content(
    server: Any, http: OrchestrationHttpHook, durable: bool, gate: bool, ended: bool
) -> None:
    definition = SHORT if ended else {**WAITS, "name": "short"}
    first = define(server, definition, gate=gate)
    task = Task(workflow_name="short", durable=durable, wait_for_termination=ended)
    instance_id = task.attempt()["instance_id"]
    http.delete_workflow(first)
    define(server, OTHER, gate=gate)
    with pytest.raises(KeyReusedError) as caught:
        task.attempt()
    assert isinstance(caught.value, AirflowFailException)
    assert (caught.value.differs, caught.value.instance_id) == ("workflow", instance_id)
    assert len(server.record().started) == 1


def test_an_equal_workflow_of_that_name_is_another_one_too(server: Any, http: OrchestrationHttpHook) -> None:
    """Only its own runs are looked for in a workflow, so a name that moves could pay twice."""
    task = Task(workflow_name="short")
    first = define(server, SHORT)
    task.attempt()
    http.delete_workflow(first)
    define(server, SHORT)
    with pytest.raises(KeyReusedError):
        task.attempt()


@DURABLE
def test_a_second_one_of_that_name_makes_a_retry_doubtful(
    server: Any, http: OrchestrationHttpHook, durable: bool
) -> None:
    first = define(server, SHORT)
    task = Task(workflow_name="short", durable=durable)
    result = task.attempt()
    other = http.create_workflow(gated(OTHER))
    with pytest.raises(KeyReusedError, match=f"2 workflows have the name 'short'.*{other.id}") as caught:
        task.attempt()
    assert caught.value.differs == "workflow"
    assert first in str(caught.value)
    assert task.attempt(on_changed="adopt") == result
    task.clear()
    with pytest.raises(ValidationError, match="give workflow_id") as refused:
        task.attempt()
    assert not isinstance(refused.value, KeyReusedError)
    assert len(server.record().started) == 1


@GATES
def test_a_run_goes_on_whose_workflow_was_deleted(server: Any, http: OrchestrationHttpHook, gate: bool) -> None:
    workflow_id = define(server, SHORT, gate=gate)
    task = Task(workflow_name="short")
    result = task.attempt()
    http.delete_workflow(workflow_id)
    assert task.attempt() == result
    assert len(server.record().started) == 1


def test_a_name_that_never_was_does_not_go_on(server: Any) -> None:
    define(server, SHORT)
    task = Task(workflow_name="short")
    task.attempt()
    with pytest.raises(NotFoundError, match="'shrot'"):
        task.attempt(workflow_name="shrot")


def test_a_crash_before_the_choice_starts_one_run(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    define(server, SHORT)
    task = Task(workflow_name="short")
    with monkeypatch.context() as patch:

        def dies(*_: Any, **__: Any) -> Any:
            raise RuntimeError("the worker dies")

        patch.setattr(GatedStart, "release", dies)
        with pytest.raises(RuntimeError):
            task.attempt()
    assert task.attempt()["state"] == "succeeded"
    assert server.balance("merchants:1", "EUR/2") == 100
    assert TO["to"] == "merchants:1"


@pytest.mark.parametrize("more", [{"workflow_id": "w"}, {"definition": SHORT}, {"path": "x.yaml"}])
def test_exactly_one_says_what_is_run(server: Any, more: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="exactly one of workflow_id, workflow_name, definition and path"):
        Task(workflow_name="short", **more).attempt()
    with pytest.raises(ValidationError, match="workflow_name must be a string"):
        Task(workflow_name=5).attempt()
    with pytest.raises(ValidationError, match="a template that finds nothing"):
        Task(workflow_name="None").attempt()
    assert not server.record().requests

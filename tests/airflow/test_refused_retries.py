"""A try that is refused before it looks for its run, while an earlier try has left one alive."""

from __future__ import annotations

from typing import Any

import pytest

from orchestration_integrations import AmbiguousRunError, NotFoundError, OrchestrationHttpHook, ValidationError
from orchestration_integrations.airflow.compat import AirflowException, AirflowSkipException
from orchestration_integrations.airflow.run_operator import OrchestrationRunWorkflowOperator
from tests.airflow.harness import LONG, SHORT, Task, define, state_of
from tests.airflow.test_reattach import STORES, dies  # noqa: F401  (a fixture)

WRONG = {
    "timeout": {"timeout": "None"},
    "poll_interval": {"poll_interval": "0"},
    "variables": {"variables": {"to": "None"}},
    "path": {"definition": None, "path": "/nowhere/flow.yaml"},
    "option": {"on_changed": "perhaps"},
}


@STORES
@pytest.mark.parametrize("generation", [1])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_refused_retry_rids_its_owner_of_the_run_of_an_earlier_try(
    server: Any,
    dies: Any,  # noqa: F811
    durable: bool,
    generation: int,
    wrong: str,
) -> None:
    """No try follows an error of the input, so nobody would wait for that run any more."""
    task = Task(definition=LONG, durable=durable)
    dies(task, "wait")
    (started,) = server.record().started
    with pytest.raises(ValidationError, match=rf"instance {started['instance_id']}: it was cancelled"):
        task.attempt(**WRONG[wrong])
    assert state_of(server, started["instance_id"]) == "cancelled"
    assert len(server.record().started) == 1


@pytest.mark.parametrize("generation", [2])
def test_a_cancel_that_is_not_confirmed_is_told(
    server: Any,
    dies: Any,  # noqa: F811
    generation: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("orchestration_integrations.airflow.limits.CANCEL_SECONDS", 1.0)
    task = Task(definition=LONG)
    dies(task, "wait")
    with pytest.raises(ValidationError, match=r"not confirmed"):
        task.attempt(timeout="None")


@pytest.mark.parametrize("generation", [1])
def test_the_run_is_left_where_no_kill_may_cancel_it(server: Any, dies: Any, generation: int) -> None:  # noqa: F811
    task = Task(definition=LONG, cancel_on_kill=False)
    dies(task, "wait")
    (started,) = server.record().started
    with pytest.raises(ValidationError, match=rf"instance {started['instance_id']} is still running"):
        task.attempt(timeout="None")
    assert state_of(server, started["instance_id"]) == "running"


@STORES
@pytest.mark.parametrize("generation", [1])
@pytest.mark.parametrize("shown_by", ["record", "airflow"])
def test_a_refused_try_that_was_overtaken_cancels_nothing(
    server: Any,
    dies: Any,  # noqa: F811
    airflow_says: Any,
    durable: bool,
    generation: int,
    shown_by: str,
) -> None:
    """Its run belongs to a later try, which waits for it."""
    task = Task(definition=LONG, durable=durable)
    dies(task, "wait")
    if shown_by == "record":
        task.put_on_record(attempt="try 10")
        task.try_number = 8  # of which the text would come later
    else:
        airflow_says.task_state = "queued"
    (started,) = server.record().started
    with pytest.raises(ValidationError, match=rf"another try has instance {started['instance_id']} now") as caught:
        task.attempt(timeout="None")
    assert "cancelled nothing" in str(caught.value)
    assert state_of(server, started["instance_id"]) == "running"
    assert not server.record().requests.get("abort_instance")


@pytest.mark.parametrize("generation", [1])
def test_a_refused_try_that_cannot_ask_cancels_nothing(
    server: Any,
    dies: Any,  # noqa: F811
    airflow_says: Any,
    generation: int,
) -> None:
    task = Task(definition=LONG)
    dies(task, "wait")
    airflow_says.away = True
    (started,) = server.record().started
    with pytest.raises(ValidationError, match="was not cancelled and may still run"):
        task.attempt(timeout="None")
    assert state_of(server, started["instance_id"]) == "running"


class Raising(OrchestrationRunWorkflowOperator):
    """Its preparation fails as a user's function may."""

    raised: Exception = KeyError("order")

    def _prepare(self, context: Any) -> None:
        raise self.raised


@pytest.mark.parametrize("generation", [1])
@pytest.mark.parametrize(
    ("error", "tries", "state"),
    [
        (KeyError("order"), 3, "running"),
        (KeyError("order"), 2, "cancelled"),
        (AirflowSkipException("nothing to do"), 3, "cancelled"),
    ],
)
def test_a_function_that_raises_leaves_no_run_alone(
    server: Any,
    dies: Any,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
    generation: int,
    error: Exception,
    tries: int,
    state: str,
) -> None:
    task = Task(definition=LONG, retries=tries - 1)
    dies(task, "wait")
    (started,) = server.record().started
    operator = Raising(task_id="pay", retries=tries - 1, **task.arguments)
    operator.raised = error
    task.try_number += 1
    with caplog.at_level("ERROR"), pytest.raises(type(error)):
        operator.execute(task.context(operator))
    assert state_of(server, started["instance_id"]) == state


class Killed(OrchestrationRunWorkflowOperator):
    """A user marks the task as failed while its function runs."""

    def _prepare(self, context: Any) -> None:
        self.on_kill()
        raise AssertionError("a killed task does not go on")


@pytest.mark.parametrize("generation", [1])
def test_a_kill_before_the_run_was_looked_for_is_not_silent(
    server: Any,
    dies: Any,  # noqa: F811
    airflow_says: Any,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    generation: int,
) -> None:
    task = Task(definition=LONG)
    dies(task, "wait")
    airflow_says.task_state = "failed"
    operator = Killed(task_id="pay", retries=2, **task.arguments)
    task.try_number += 1
    with caplog.at_level("ERROR"), pytest.raises(AirflowException, match="before this try had looked for its run"):
        operator.execute(task.context(operator))
    told = caplog.text + capsys.readouterr().out  # Airflow 3 prints what a task logs
    assert "one that an earlier try has started was not cancelled and may still run" in told
    (started,) = server.record().started
    assert f"instance {started['instance_id']}: it was cancelled" in told, "no further try looks after it"
    assert state_of(server, started["instance_id"]) == "cancelled"


def test_a_first_try_that_is_refused_says_no_more_than_that(server: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        Task(definition=SHORT).attempt(timeout="None")
    assert "earlier" not in str(caught.value)
    assert not server.record().started


@STORES
@pytest.mark.parametrize("generation", [2])
@pytest.mark.parametrize("asked", ["workflow_name", "workflow_id"])
def test_an_unknown_fate_outlives_the_workflow(server: Any, durable: bool, generation: int, asked: str) -> None:
    """Without a gate a run may exist: that its workflow is gone by now does not make it undone."""
    workflow = define(server, SHORT, gate=False)
    arguments = {"workflow_id": workflow} if asked == "workflow_id" else {"workflow_name": SHORT["name"]}
    task = Task(durable=durable, retry_ambiguous=True, **arguments)
    server.fault("run_workflow", "cut_after", 1)
    server.fault("list_instances", "status", 50, code=503)
    with pytest.raises(AmbiguousRunError) as first:
        task.attempt(start_timeout=1.5)
    with OrchestrationHttpHook(base_url=server.url) as http:
        http.delete_workflow(workflow)
    with pytest.raises(AmbiguousRunError) as second:
        task.attempt(start_timeout=1.5)
    assert second.value.token == first.value.token is not None
    assert len(server.record().started) == 1


def test_a_name_that_is_nowhere_is_plainly_not_found(server: Any) -> None:
    with pytest.raises(NotFoundError, match="no workflow"):
        Task(workflow_name="nowhere").attempt()

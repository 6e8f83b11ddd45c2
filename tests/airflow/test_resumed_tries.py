"""A try that goes on in a new process, after its deferral: its run is known although its record may be gone."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from typing import Any

import pytest

from orchestration_integrations import AmbiguousRunError, WaitTimeoutError
from orchestration_integrations.airflow import task_run
from orchestration_integrations.airflow.compat import TaskDeferred
from orchestration_integrations.airflow.operators import OrchestrationRunWorkflowOperator
from tests.airflow.harness import LONG, SHORT, Airflow, Task, define, state_of

PLACES = ("state store", "variables", "none")


class Deferred:
    """The first try of a task that has deferred, and what a worker does next.

    Args:
        place: where the record of its run stands.
    """

    def __init__(self, server: Any, patch: pytest.MonkeyPatch, place: str, **arguments: Any) -> None:
        if place == "none":
            patch.setenv("AIRFLOW__ORCHESTRATION__RECORD_STORE", "none")
        self.task = Task(deferrable=True, durable=place == "state store", **{"definition": LONG, **arguments})
        self.task.try_number = 1
        operator = self._operator()
        with pytest.raises(TaskDeferred) as caught:
            operator.execute(self.task.context(operator))
        self._deferred: Any = caught.value
        (started,) = server.record().started
        self.instance_id: str = started["instance_id"]
        self.operator = self._operator()

    def _operator(self) -> OrchestrationRunWorkflowOperator:
        task = self.task
        return OrchestrationRunWorkflowOperator(task_id=task.task_id, retries=task.retries, **task.arguments)

    def lose_record(self, airflow: Airflow) -> None:
        """As somebody who tidies up."""
        if self.task.store is not None:
            self.task.store.texts.clear()
        for name in airflow.of("run"):
            del airflow.variables[name]

    def resume(self, status: str = "error", **changes: Any) -> Any:
        """Go on with what the triggerer has told."""
        kwargs = json.loads(json.dumps(self._deferred.kwargs))
        event = {"status": status, "message": "late", "instance_id": self.instance_id}
        context = self.task.context(self.operator)
        return self.operator.resume_execution(
            self._deferred.method_name, {**kwargs, "event": event, **changes}, context
        )


@pytest.mark.parametrize("generation", [1])
@pytest.mark.parametrize("place", PLACES)
def test_a_timeout_cancels_the_run_whose_record_is_gone(
    server: Any, airflow_says: Airflow, monkeypatch: pytest.MonkeyPatch, generation: int, place: str
) -> None:
    deferred = Deferred(server, monkeypatch, place, timeout=0.5)
    deferred.lose_record(airflow_says)
    time.sleep(0.5)
    with pytest.raises(WaitTimeoutError, match="it was cancelled"):
        deferred.resume("timeout")
    assert state_of(server, deferred.instance_id) == "cancelled"


@pytest.mark.parametrize("generation", [1])
def test_a_run_whose_record_is_removed_while_its_task_waits_is_cancelled_by_a_timeout(
    server: Any, airflow_says: Airflow, monkeypatch: pytest.MonkeyPatch, generation: int
) -> None:
    task = Task(definition=LONG, timeout=1, retries=0)
    assert task.store is not None
    threading.Timer(0.5, task.store.texts.clear).start()
    with pytest.raises(WaitTimeoutError, match="it was cancelled"):
        task.attempt()
    (started,) = server.record().started
    assert state_of(server, started["instance_id"]) == "cancelled"


@pytest.mark.parametrize("place", ["variables", "state store"])
@pytest.mark.parametrize("gate", [True, False])
def test_a_record_that_was_lost_while_the_try_was_deferred_leads_to_no_second_payment(
    server: Any, airflow_says: Airflow, monkeypatch: pytest.MonkeyPatch, place: str, gate: bool
) -> None:
    """The try that goes on leaves no note that nothing was done before it."""
    workflow = define(server, SHORT, gate=gate)
    arguments: dict[str, Any] = {"definition": None, "workflow_id": workflow, "timeout": 0, "on_timeout": "leave"}
    deferred = Deferred(server, monkeypatch, place, **arguments)
    deferred.lose_record(airflow_says)
    with contextlib.suppress(WaitTimeoutError):
        deferred.resume("timeout")
    with contextlib.suppress(AmbiguousRunError):
        deferred.task.attempt(timeout=None, start_timeout=5)
    assert len(server.record().started) == 1


@pytest.mark.parametrize("generation", [1])
def test_a_run_that_another_try_has_put_on_record_meanwhile_is_left_to_it(
    server: Any, airflow_says: Airflow, monkeypatch: pytest.MonkeyPatch, generation: int
) -> None:
    deferred = Deferred(server, monkeypatch, "state store", timeout=0)
    kept = deferred.task.record
    deferred.lose_record(airflow_says)
    real = task_run.TaskRun._last_look

    def meanwhile(self: Any, *arguments: Any) -> Any:
        assert deferred.task.store is not None
        record = {**kept, "attempt": "try 2", "revision": 1}
        deferred.task.store.set("orchestration_run", {"opened": "1970-01-01T00:00:00+00:00", "record": record})
        return real(self, *arguments)

    monkeypatch.setattr(task_run.TaskRun, "_last_look", meanwhile)
    with pytest.raises(WaitTimeoutError, match="another attempt has it now, so it was not cancelled"):
        deferred.resume("timeout")
    assert state_of(server, deferred.instance_id) == "running"

"""A try that goes on in a new process, after its deferral: its run is known although its record may be gone."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import traceback
from typing import Any

import pytest

from orchestration_integrations import (
    AmbiguousRunError,
    InstanceCancelledError,
    InstanceStuckError,
    OwnerGoneError,
    WaitTimeoutError,
)
from orchestration_integrations.airflow import checkpointing, run_operator, run_records, task_run
from orchestration_integrations.airflow.compat import AIRFLOW_3, AirflowException, TaskDeferred
from orchestration_integrations.airflow.operators import OrchestrationRunWorkflowOperator
from tests.airflow.harness import LONG, SEND, Airflow, Task, define, state_of

SLOW = {"name": "slow", "stages": [SEND, {"delay": {"duration": "3s"}}]}
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
    workflow = define(server, SLOW, gate=gate)
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


# ---- kills ---------------------------------------------------------------------------------------------


def told(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> str:
    """What the task has logged, which Airflow 3 prints."""
    return caplog.text + capsys.readouterr().out


def killed_amid(deferred: Deferred, airflow: Airflow, patch: pytest.MonkeyPatch, amid: str, state: str) -> None:
    """Have the process of the resumed try killed amid a step, once."""
    places: dict[str, Any] = {"ended": task_run.TaskRun, "taken_up": checkpointing.TaskCheckpoints}
    place = places.get(amid, run_records.TaskRecords)
    real = getattr(place, amid)

    def killed(self: Any, *arguments: Any) -> Any:
        patch.setattr(place, amid, real)
        airflow.task_state = state
        deferred.operator.on_kill()
        return real(self, *arguments)

    patch.setattr(place, amid, killed)


@pytest.mark.parametrize("generation", [1])
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("amid", ["stored", "load", "taken_up", "ended"])
def test_a_kill_of_a_resumed_try_cancels_its_run(
    server: Any,
    airflow_says: Airflow,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    generation: int,
    amid: str,
    kept: bool,
) -> None:
    """Also before its record is loaded, and where that is gone. It defers no more."""
    deferred = Deferred(server, monkeypatch, "state store")
    if not kept:
        deferred.lose_record(airflow_says)
    killed_amid(deferred, airflow_says, monkeypatch, amid, "failed")
    with pytest.raises((AirflowException, OwnerGoneError, InstanceCancelledError)) as caught:
        deferred.resume()
    assert "it was cancelled" in str(caught.value) or isinstance(caught.value, InstanceCancelledError)
    assert f"instance {deferred.instance_id}: it was cancelled" in told(caplog, capsys)
    assert state_of(server, deferred.instance_id) == "cancelled"
    if kept and (AIRFLOW_3 or amid not in ("stored", "load")):  # on 2.11 the interrupted call is lost
        assert deferred.task.record["hold"]


@pytest.mark.parametrize("generation", [1])
@pytest.mark.parametrize("amid", ["stored", "ended"])
@pytest.mark.parametrize("state", ["success", "scheduled"])
def test_a_resumed_try_that_is_killed_and_superseded_leaves_its_run_alone_and_defers_no_more(
    server: Any, airflow_says: Airflow, monkeypatch: pytest.MonkeyPatch, generation: int, amid: str, state: str
) -> None:
    deferred = Deferred(server, monkeypatch, "state store", poll_interval=0.1)
    killed_amid(deferred, airflow_says, monkeypatch, amid, state)
    if not AIRFLOW_3 and amid == "stored":
        pytest.skip("nobody can be asked on 2.11 where a call was interrupted")
    with pytest.raises((AirflowException, OwnerGoneError), match="is left alone and may still run"):
        deferred.resume()
    assert state_of(server, deferred.instance_id) == "running"


@pytest.mark.skipif(not AIRFLOW_3, reason="2.11 ends the process itself")
@pytest.mark.parametrize("generation", [1])
def test_a_kill_before_the_resumed_try_has_begun_is_carried_out_as_soon_as_it_knows_its_run(
    server: Any,
    airflow_says: Airflow,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    generation: int,
) -> None:
    deferred = Deferred(server, monkeypatch, "variables")
    airflow_says.task_state = "failed"
    deferred.operator.on_kill()
    assert "killed before this try had looked for its run" in told(caplog, capsys)
    with pytest.raises(AirflowException, match="it was cancelled"):
        deferred.resume()
    assert state_of(server, deferred.instance_id) == "cancelled"


@pytest.mark.parametrize("generation", [1])
def test_a_kill_of_a_try_whose_deferral_failed_finds_its_run(
    server: Any, airflow_says: Airflow, monkeypatch: pytest.MonkeyPatch, generation: int
) -> None:
    """The deferral does not name it any more; its record does."""
    deferred = Deferred(server, monkeypatch, "state store")
    monkeypatch.setattr(run_operator, "DEFERRAL_FAILURES", (RuntimeError,))

    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the trigger has failed")

    monkeypatch.setattr(run_operator.BaseOperator, "resume_execution", fails)
    killed_amid(deferred, airflow_says, monkeypatch, "taken_up", "failed")
    with pytest.raises(AirflowException, match="it was cancelled"):
        deferred.resume()
    assert state_of(server, deferred.instance_id) == "cancelled"


# ---- what a traceback says ---------------------------------------------------------------------------------


@pytest.mark.parametrize("generation", [1])
@pytest.mark.parametrize("status", ["timeout", "stuck"])
def test_a_traceback_says_once_what_became_of_the_run(
    server: Any, airflow_says: Airflow, monkeypatch: pytest.MonkeyPatch, generation: int, status: str
) -> None:
    deferred = Deferred(server, monkeypatch, "state store", timeout=0)
    with pytest.raises((WaitTimeoutError, InstanceStuckError)) as caught:
        deferred.resume(status)
    assert "it was cancelled" in str(caught.value)
    assert "it was not cancelled" not in "".join(traceback.format_exception(caught.value))

"""SIGTERM is not a wish: what a kill means is what Airflow says of the task, and what cannot be asked is not asked."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import pytest

from orchestration_integrations import OwnerGoneError, OwnerUnreachableError
from orchestration_integrations.airflow import killing, owner, run_records, task_run
from orchestration_integrations.airflow.compat import AIRFLOW_3, AirflowException
from orchestration_integrations.airflow.owner import Calls, Interrupted
from orchestration_integrations.ownership import owned_run
from tests.airflow.harness import LONG, WAITS, Task, define, state_of


def aborts(server: Any) -> int:
    return int(server.record().requests.get("abort_instance", 0))


def waiting_task(**arguments: Any) -> Task:
    """A task whose run goes on, and whose process is about to be killed."""
    task = Task(definition=LONG, wait_for_termination=False, **arguments)
    task.attempt()
    assert task.operator is not None
    return task


@pytest.mark.parametrize("generation", [1])
@pytest.mark.parametrize(
    ("state", "cancelled"),
    [("failed", True), ("skipped", True), ("success", False), ("scheduled", False), ("running", False)],
)
def test_the_state_of_the_task_decides(
    server: Any, airflow_says: Any, caplog: pytest.LogCaptureFixture, generation: int, state: str, cancelled: bool
) -> None:
    """R5, R7."""
    task = waiting_task()
    airflow_says.task_state = state
    with caplog.at_level(logging.INFO):
        task.operator.on_kill()  # type: ignore[union-attr]
    assert state_of(server, task.xcoms["instance_id"]) == ("cancelled" if cancelled else "running")
    assert ("is left alone" in caplog.text) is not cancelled or AIRFLOW_3  # 3.x logs past the root logger


@pytest.mark.parametrize("generation", [1])
@pytest.mark.parametrize("retries", [0, 2])
def test_a_drain_leaves_the_run_to_whoever_goes_on_with_it(
    server: Any, airflow_says: Any, generation: int, retries: int
) -> None:
    """R5: on 3.x this process goes on; on 2.11 it ends, and without a retry nobody would look after the run."""
    task = waiting_task(retries=retries)
    task.operator.on_kill()  # type: ignore[union-attr]
    left = AIRFLOW_3 or retries > 0
    assert state_of(server, task.xcoms["instance_id"]) == ("running" if left else "cancelled")
    if left:
        assert aborts(server) == 0
        task.attempt()
        assert len(server.record().started) == 1


@pytest.mark.skipif(not AIRFLOW_3, reason="2.11 ends the process itself")
def test_a_drain_amid_a_start_lets_it_go_on(server: Any, airflow_says: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = task_run.TaskRun._noticed

    def drained(self: Any, instance_id: str, *did: str) -> None:
        real(self, instance_id, *did)
        self.operator.on_kill()

    monkeypatch.setattr(task_run.TaskRun, "_noticed", drained)
    result = Task(definition=WAITS, wait_for_termination=False).attempt()
    assert [row["instance_id"] for row in server.record().released] == [result["instance_id"]]


@pytest.mark.parametrize("generation", [1])
def test_a_timeout_of_airflow_is_no_drain(server: Any, airflow_says: Any, generation: int) -> None:
    """Airflow calls ``on_kill`` then, too, while the task's state reads running."""

    class AirflowTaskTimeout(BaseException):
        pass

    task = waiting_task()
    try:
        raise AirflowTaskTimeout
    except AirflowTaskTimeout:
        task.operator.on_kill()  # type: ignore[union-attr]
    assert state_of(server, task.xcoms["instance_id"]) == "cancelled"


@pytest.mark.parametrize("generation", [1])
@pytest.mark.parametrize("how", ["away", "hangs", "interrupted"])
def test_without_an_answer_the_run_is_cancelled_in_time(
    server: Any, airflow_says: Any, monkeypatch: pytest.MonkeyPatch, generation: int, how: str
) -> None:
    """On Airflow 3 a call from ``on_kill`` hangs for good where the signal has interrupted another."""
    for module in (owner, killing):
        monkeypatch.setattr(module, "ASK_SECONDS", 0.3)
    monkeypatch.setattr(owner, "SAVE_SECONDS", 0.3)
    task = waiting_task(durable=False)
    released = threading.Event()
    real = airflow_says.sight_of_task
    if how == "away":
        airflow_says.away = True
    else:

        def hang(*_: Any, **__: Any) -> Any:
            assert how == "hangs", "nobody may be asked"
            released.wait(30)
            return real(())

        for module, name in ((owner.compat, "sight_of_task"), (run_records.variables, "write")):
            monkeypatch.setattr(module, name, hang)
    began = time.monotonic()
    run = task.operator._active  # type: ignore[union-attr]
    assert run is not None
    if how == "interrupted":

        def amid() -> None:
            """The handler runs amid a call, which doesn't go on before the run is seen cancelled."""
            task.operator.on_kill()  # type: ignore[union-attr]
            while state_of(server, task.xcoms["instance_id"]) != "cancelled":
                assert time.monotonic() - began < killing.KILL_SECONDS + 0.5
                time.sleep(0.05)

        run.calls(amid)
    else:
        task.operator.on_kill()  # type: ignore[union-attr]
    assert time.monotonic() - began < killing.KILL_SECONDS + 0.5
    released.set()
    assert state_of(server, task.xcoms["instance_id"]) == "cancelled"


@pytest.mark.skipif(not AIRFLOW_3, reason="2.11 ends the process itself")
@pytest.mark.parametrize("generation", [1])
@pytest.mark.parametrize(("state", "cancelled"), [("running", False), ("success", False), ("failed", True)])
def test_a_kill_amid_a_call_to_airflow_is_decided_once_the_call_is_through(
    server: Any, airflow_says: Any, generation: int, state: str, cancelled: bool
) -> None:
    """The interrupted call has the supervisor's lock until then; without the wait nobody could be asked."""
    task = waiting_task()
    run = task.operator._active  # type: ignore[union-attr]
    assert run is not None
    airflow_says.task_state = state
    asked = airflow_says.asked

    def amid() -> str:
        task.operator.on_kill()  # type: ignore[union-attr]
        assert airflow_says.asked == asked
        return "its answer"

    assert run.calls(amid) == "its answer"
    assert airflow_says.asked == asked + 1
    assert state_of(server, task.xcoms["instance_id"]) == ("cancelled" if cancelled else "running")


@pytest.mark.skipif(not AIRFLOW_3, reason="2.11 ends the process itself")
def test_a_mark_amid_a_call_of_a_start_releases_nothing(
    server: Any, airflow_says: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = task_run.TaskRun._push

    def marked(self: Any, key: str, value: Any) -> None:
        airflow_says.task_state = "failed"
        self.operator.on_kill()
        real(self, key, value)

    monkeypatch.setattr(task_run.TaskRun, "_push", marked)
    with pytest.raises((AirflowException, OwnerGoneError)):
        Task(definition=WAITS).attempt()
    assert server.record().released == []


@pytest.mark.parametrize("generation", [1])
@pytest.mark.parametrize("amid", ["load", "claim"])
def test_a_kill_before_a_retry_has_taken_its_run_up_is_not_silent(
    server: Any,
    airflow_says: Any,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    generation: int,
    amid: str,
) -> None:
    """The run of the earlier try is not cancelled then, and no other try has it."""
    task = waiting_task()
    (started,) = server.record().started
    name = {"load": "load", "claim": "save"}[amid]
    real = getattr(run_records.TaskRecords, name)

    def killed(self: Any, *arguments: Any) -> Any:
        airflow_says.task_state = "failed"
        monkeypatch.setattr(run_records.TaskRecords, name, real)
        task.operator.on_kill()  # type: ignore[union-attr]
        if amid == "claim":
            raise RuntimeError("the claim did not get through")
        return real(self, *arguments)

    monkeypatch.setattr(run_records.TaskRecords, name, killed)
    with caplog.at_level(logging.INFO), pytest.raises((AirflowException, OwnerGoneError, RuntimeError)):
        task.attempt()
    told = caplog.text + capsys.readouterr().out  # Airflow 3 prints what a task logs
    if amid == "load":
        assert "one that an earlier try has started was not cancelled and may still run" in told
    else:
        assert f"instance {started['instance_id']}: an earlier attempt has started it" in told
        assert "this one had not taken it up: it was not cancelled, and may still run" in told
    assert "another attempt has it now" not in told
    assert state_of(server, started["instance_id"]) == "running"
    assert aborts(server) == 0


def test_a_mark_before_a_retry_has_looked_names_what_an_earlier_try_has_left(
    server: Any, airflow_says: Any, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    task = waiting_task()
    real = run_records.TaskRecords.load

    def marked(self: Any, *arguments: Any) -> Any:
        airflow_says.task_state = "success"
        monkeypatch.setattr(run_records.TaskRecords, "load", real)
        task.operator.on_kill()  # type: ignore[union-attr]
        return real(self, *arguments)

    monkeypatch.setattr(run_records.TaskRecords, "load", marked)
    with caplog.at_level(logging.INFO), pytest.raises((AirflowException, OwnerGoneError)):
        task.attempt()
    told = caplog.text + capsys.readouterr().out
    if AIRFLOW_3:
        assert "this try had started nothing; if an earlier try had started a run, that was left alone" in told
    else:  # which cannot be asked what the kill means
        assert "one that an earlier try has started was not cancelled and may still run" in told


def test_the_owner_is_asked_before_the_release(server: Any, airflow_says: Any) -> None:
    airflow_says.run_state = "failed"
    with pytest.raises(OwnerGoneError, match="no longer wanted"):
        Task(definition=WAITS).attempt()
    assert airflow_says.asked >= 1
    assert server.record().released == []


@pytest.mark.parametrize("state", ["success", "scheduled"])
def test_whoever_is_superseded_releases_nothing_and_cancels_nothing(server: Any, airflow_says: Any, state: str) -> None:
    airflow_says.task_state = state
    with pytest.raises(OwnerGoneError) as caught:
        Task(definition=WAITS).attempt()
    assert caught.value.superseded
    assert server.record().released == []
    assert aborts(server) == 0


def test_an_owner_that_cannot_be_asked_lets_nothing_be_released(
    server: Any, airflow_says: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owned_run, "OWNER_SECONDS", 0.5)

    def away(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the API server is away")

    task = Task(definition=WAITS)
    with monkeypatch.context() as patch:
        patch.setattr(owner.compat, "sight_of_task", away)
        with pytest.raises(OwnerUnreachableError) as caught:
            task.attempt()
    assert not isinstance(caught.value, AirflowException)
    assert server.record().released == []
    task.attempt(wait_for_termination=False)
    assert len(server.record().started) == 1


def test_calls_know_what_a_signal_interrupted() -> None:
    calls = Calls()
    assert calls(lambda: 7) == 7

    def amid() -> None:
        calls.kill()
        with pytest.raises(Interrupted):
            calls.within(1.0, lambda: 7)

    calls(amid)
    calls.go_on()
    assert calls(lambda: 8) == 8
    calls.kill()
    assert calls(lambda: 9) == 9  # nothing was interrupted: a thread of its own may call
    with pytest.raises(ZeroDivisionError):
        calls(lambda: 1 / 0)
    with pytest.raises(Interrupted):
        calls.within(0.05, time.sleep, 0.5)
    with pytest.raises(Interrupted):
        calls(lambda: 9)  # what has not answered once is not asked again


# ---- what the error of a killed start says ------------------------------------------------------------------


@pytest.mark.parametrize("generation", [1, 2])
@pytest.mark.parametrize("step", ["choose", "_push"])
@pytest.mark.parametrize("gate", [True, False])
def test_the_error_of_a_killed_start_says_what_is_true_of_its_run(
    server: Any, airflow_says: Any, monkeypatch: pytest.MonkeyPatch, generation: int, step: str, gate: bool
) -> None:
    """One without a gate runs already; whether it ended is what its cancel has seen."""
    task = Task(workflow_id=define(server, LONG, gate=gate), retries=0)
    place: Any = run_records.TaskRecords if step == "choose" else task_run.TaskRun
    real = getattr(place, step)

    def killed(self: Any, *arguments: Any) -> Any:
        monkeypatch.setattr(place, step, real)
        airflow_says.task_state = "failed"
        task.operator.on_kill()  # type: ignore[union-attr]
        return real(self, *arguments)

    monkeypatch.setattr(place, step, killed)
    with pytest.raises(AirflowException) as caught:
        task.attempt()
    (started,) = server.record().started
    said, instance_id = str(caught.value), started["instance_id"]
    if gate:
        assert server.record().released == []
        assert "is not released" in said if step == "choose" else f"instance {instance_id} was not released" in said
        return
    assert "was not released" not in said
    assert f"instance {instance_id}" in said
    running = state_of(server, instance_id) == "running"
    assert running is (generation == 2)
    assert ("may still run" in said) is running
    assert ("it was cancelled" in said) is not running


@pytest.mark.parametrize("generation", [1])
def test_the_error_of_a_killed_retry_says_that_its_run_was_released_before(
    server: Any, airflow_says: Any, monkeypatch: pytest.MonkeyPatch, generation: int
) -> None:
    task = waiting_task(retries=2)
    (started,) = server.record().started
    real = task_run.TaskRun._noticed

    def killed(self: Any, instance_id: str, *did: str) -> None:
        monkeypatch.setattr(task_run.TaskRun, "_noticed", real)
        airflow_says.task_state = "failed"
        task.operator.on_kill()  # type: ignore[union-attr]

    monkeypatch.setattr(task_run.TaskRun, "_noticed", killed)
    with pytest.raises(AirflowException, match=f"instance {started['instance_id']}: it was cancelled"):
        task.attempt()
    assert state_of(server, started["instance_id"]) == "cancelled"


@pytest.mark.parametrize("generation", [1])
def test_a_retry_that_is_killed_first_of_all_leaves_nothing_to_a_next_one(
    server: Any,
    airflow_says: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    generation: int,
) -> None:
    """It looks after the run of the earlier try: no further one comes."""
    task = waiting_task(retries=2)
    (started,) = server.record().started
    real = run_records.TaskRecords.stored

    def killed(self: Any) -> Any:
        monkeypatch.setattr(run_records.TaskRecords, "stored", real)
        airflow_says.task_state = "failed"
        task.operator.on_kill()  # type: ignore[union-attr]
        return real(self)

    monkeypatch.setattr(run_records.TaskRecords, "stored", killed)
    with pytest.raises(AirflowException):
        task.attempt()
    said = caplog.text + capsys.readouterr().out
    assert "the next try continues with it" not in said
    if AIRFLOW_3:  # on 2.11 nobody can be asked after the interrupted call
        assert state_of(server, started["instance_id"]) == "cancelled"

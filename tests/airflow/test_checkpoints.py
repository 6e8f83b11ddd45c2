"""Checkpoints under Airflow: who is asked before each payment, and what a stop holds. The server's record is the judge.

Generation 2, where an abort does nothing, unless a test says otherwise.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from orchestration_integrations import (
    InstanceStuckError,
    OrchestrationHttpHook,
    OwnerGoneError,
    StateUnknownError,
    ValidationError,
    WaitTimeoutError,
)
from orchestration_integrations.airflow import callbacks, cancelling, checkpointing, marks, one_pass, trigger_passes
from orchestration_integrations.airflow.compat import (
    AIRFLOW_3,
    AIRFLOW_3_3,
    TRIGGERS_REACH_VARIABLES,
    TaskDeferred,
    first_of,
)
from orchestration_integrations.airflow.compat import AirflowFailException as FailException
from orchestration_integrations.airflow.operators import (
    OrchestrationCancelInstanceOperator,
    OrchestrationCreateWorkflowOperator,
    OrchestrationRunWorkflowOperator,
)
from orchestration_integrations.airflow.record_care import gone_of
from orchestration_integrations.airflow.triggers import OrchestrationInstanceTrigger
from orchestration_integrations.api.calls import abort_instance
from orchestration_integrations.procedures import cancel, checkpoint_watch
from tests.airflow.harness import SEND, Task, first_event, rebuilt, state_of

PAYS = {"name": "pays", "stages": [SEND, SEND, SEND]}
SLOW = {"name": "slow", "stages": [SEND, {"delay": {"duration": "2s"}}, SEND, SEND]}
WAYS = pytest.mark.parametrize("deferrable", [False, True])
in_triggers = pytest.mark.skipif(not TRIGGERS_REACH_VARIABLES, reason="triggers of 3.0 to 3.2 must not touch Variables")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds of ten seconds and more are waited for in the tests on real Airflows."""
    monkeypatch.setattr(marks, "OWNER_ANSWER_SECONDS", 0.3)


def paid(server: Any) -> int:
    return len(server.record().money)


def own_passes(server: Any) -> list[str]:
    """The checkpoints that were passed, by the last part of their events."""
    return [row["event"].rpartition(":")[2] for row in server.record().released if row["stage"] > 0]


def with_checkpoints(server: Any, definition: dict[str, Any] = PAYS) -> str:
    with OrchestrationHttpHook(base_url=server.url) as http:
        return http.ensure_workflow(definition, gate=True, checkpoints=True).workflow.id


def until(what: Callable[[], Any], seconds: float = 20.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen")


def standing(server: Any, **arguments: Any) -> Task:
    """A task whose run has paid once and stands at its second payment, without anybody who waits for it."""
    task = Task(workflow_id=with_checkpoints(server), wait_for_termination=False, retries=0, **arguments)
    before = paid(server)
    task.attempt()
    until(lambda: paid(server) == before + 1)
    with OrchestrationHttpHook(base_url=server.url) as http:
        until(lambda: len(http.get_instance(task.xcoms["instance_id"]).status) >= 3)
    return task


def in_background(task: Task, **changes: Any) -> tuple[threading.Thread, list[Any]]:
    """Perform a try in a thread; what it has raised or returned stands in the list."""
    found: list[Any] = []

    def attempt() -> None:
        guard = first_of("ExecutorSafeguard", "airflow.models.baseoperator")
        if not AIRFLOW_3:
            guard._sentinel.callers = {}  # by which 2.11 sees who calls execute: it knows one thread only
        try:
            found.append(task.attempt(**changes))
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    return thread, found


# ---- passing ---------------------------------------------------------------------------------------


@WAYS
def test_each_checkpoint_is_passed_once_and_leaves_no_mark(server: Any, airflow_says: Any, deferrable: bool) -> None:
    task = Task(definition=PAYS, checkpoints=True, deferrable=deferrable)
    result = task.attempt()
    assert result["state"] == "succeeded"
    assert own_passes(server) == ["1", "2"]
    assert paid(server) == 3
    assert server.record().requests["send_event"] == 3
    assert [airflow_says.marks(kind) for kind in marks.KINDS] == [[], [], []]


@WAYS
def test_a_workflow_that_has_checkpoints_is_let_pass_them_in_any_case(
    server: Any, airflow_says: Any, deferrable: bool
) -> None:
    Task(workflow_id=with_checkpoints(server), deferrable=deferrable).attempt()
    assert paid(server) == 3


def test_a_run_without_checkpoints_leaves_nothing_in_variables(server: Any, airflow_says: Any) -> None:
    Task(definition=PAYS).attempt()
    assert airflow_says.variables == {}
    task = Task(definition={"name": "w", "stages": [SEND, {"delay": {"duration": "1h"}}]}, wait_for_termination=False)
    task.attempt()
    cancelled(task.xcoms["instance_id"], timeout=0.2)
    assert airflow_says.variables == {}


def test_without_a_record_the_marks_are_used_all_the_same(
    server: Any, airflow_says: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a cancel could say that the run is held, whose waiter had never looked."""
    monkeypatch.setenv("AIRFLOW__ORCHESTRATION__RECORD_STORE", "none")
    task = Task(definition=SLOW, checkpoints=True)
    thread, found = in_background(task)
    instance_id = until(lambda: task.xcoms.get("instance_id"))
    until(lambda: paid(server) == 1)
    cancelled(instance_id)
    thread.join(30)
    assert isinstance(found[0], InstanceStuckError)
    assert paid(server) == 1


def test_a_worker_passes_one_checkpoint_and_defers_again(
    server: Any, airflow_says: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on 3.0 to 3.2: such passes do not count among the deferrals that failed, of which there may be five."""
    monkeypatch.setattr(trigger_passes, "TRIGGERS_REACH_VARIABLES", False)
    definition = {"name": "many", "stages": [SEND] * 8}
    task = Task(definition=definition, checkpoints=True, deferrable=True)
    deferrals: list[Any] = []
    real = task_deferral()
    monkeypatch.setattr(
        "orchestration_integrations.airflow.task_run.TaskRun._deferral",
        lambda *arguments: deferrals.append(arguments[3]) or real(*arguments),
    )
    task.attempt()
    assert paid(server) == 8
    assert deferrals == [0] * 8
    assert len(server.record().started) == 1


def task_deferral() -> Any:
    from orchestration_integrations.airflow.task_run import TaskRun

    return TaskRun._deferral


def test_a_worker_gives_its_place_back_where_nothing_can_be_passed(
    server: Any, airflow_says: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_pass, "LOOK_SECONDS", 1.0)
    task = Task(definition=SLOW, checkpoints=True, deferrable=True, poll_interval=5)
    with pytest.raises(TaskDeferred) as deferred:
        begin_deferred(task)
    event = {"status": "checkpoint", "instance_id": deferred.value.kwargs["instance_id"], "message": "a checkpoint"}
    assert task.operator is not None
    began = time.monotonic()
    with pytest.raises(TaskDeferred) as again:
        task.operator.execute_complete(task.context(task.operator), event, **deferred.value.kwargs)
    assert time.monotonic() - began < 3
    assert again.value.kwargs["resumed"] == 0
    assert paid(server) == 1


def test_a_worker_stays_until_a_stop_amid_a_pass_has_ended_the_wait(
    server: Any, airflow_says: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the task would go round between triggerer and worker for ever."""
    longer = one_pass.LOOK_SECONDS - checkpoint_watch.UNSURE_SECONDS
    assert longer >= 5  # the wait's own clock starts once it has met the stop
    monkeypatch.setattr(checkpoint_watch, "UNSURE_SECONDS", 1.0)
    monkeypatch.setattr(one_pass, "LOOK_SECONDS", 1.0 + longer)
    task = standing(server)
    instance_id = task.xcoms["instance_id"]
    for mark in (f"passing/{instance_id}/1", f"hold/{instance_id}"):
        marks.VariableMarks().write(mark, "1")
    task.max_tries = 3
    arguments = {**task.arguments, "wait_for_termination": True, "deferrable": True}
    operator = OrchestrationRunWorkflowOperator(task_id="pay", retries=3, **arguments)
    event = {"status": "checkpoint", "instance_id": instance_id, "message": "a checkpoint"}
    began = time.monotonic()
    with pytest.raises(StateUnknownError, match="it may still go on"):
        operator.execute_complete(
            task.context(operator), event, instance_id=instance_id, deadline=None, limited_by="timeout", resumed=0
        )
    assert time.monotonic() - began < 1.0 + longer
    assert paid(server) == 1


def begin_deferred(task: Task) -> None:
    task.try_number += 1
    task.operator = OrchestrationRunWorkflowOperator(task_id=task.task_id, retries=task.retries, **task.arguments)
    task.operator.execute(task.context(task.operator))


# ---- hold_on_failure -------------------------------------------------------------------------------


def fail_after(server: Any, airflow_says: Any, payments: int) -> threading.Thread:
    """A sibling fails once so much was paid."""

    def fail() -> None:
        until(lambda: paid(server) >= payments)
        airflow_says.failed.add("check")

    thread = threading.Thread(target=fail)
    thread.start()
    return thread


@WAYS
@pytest.mark.parametrize("generation", [1, 2])
def test_a_sibling_that_fails_holds_the_run_and_a_clear_lets_it_go_on(
    server: Any, airflow_says: Any, deferrable: bool, generation: int
) -> None:
    airflow_says.failed = {"failed_long_ago"}
    task = Task(definition=SLOW, checkpoints=True, deferrable=deferrable)
    failing = fail_after(server, airflow_says, 1)
    with pytest.raises(
        OwnerGoneError, match=r"a task in the same DAG run has failed: check \(hold_on_failure\)"
    ) as gone:
        task.attempt()
    failing.join()
    assert isinstance(gone.value, FailException)
    assert paid(server) == 1
    instance_id = task.xcoms["instance_id"]
    if generation == 1:
        assert "it was cancelled" in str(gone.value)
        assert state_of(server, instance_id) == "cancelled"
        assert "the same run goes on" not in str(gone.value)
        assert "a cleared task starts a new run, which pays all of it again" in str(gone.value)
        task.clear()
        assert task.attempt()["state"] == "succeeded"
        assert [row["instance_id"] == instance_id for row in server.record().started] == [True, False]
        assert paid(server) == 1 + 3
        return
    assert "the same run goes on" in str(gone.value)
    assert "it is held at the checkpoint before stage 2" in str(gone.value)
    with pytest.raises(InstanceStuckError, match="clear the task, and the same run goes on") as held:
        task.attempt()
    assert held.value.reason == "held"
    assert isinstance(held.value, FailException)
    assert paid(server) == 1
    task.clear()
    assert task.attempt()["state"] == "succeeded"  # the sibling is still failed: it has failed before the clear
    assert paid(server) == 3
    assert [row["instance_id"] for row in server.record().started] == [instance_id]


@pytest.mark.parametrize(
    ("arguments", "held"),
    [
        ({}, True),
        ({"hold_on_failure": False}, False),
        ({"trigger_rule": "one_failed"}, False),
        ({"trigger_rule": "all_done"}, False),
        ({"trigger_rule": "one_failed", "hold_on_failure": True}, True),
        ({"trigger_rule": "none_failed"}, True),
    ],
)
def test_the_trigger_rule_decides_unless_the_task_says(
    server: Any, airflow_says: Any, arguments: dict[str, Any], held: bool
) -> None:
    failing = fail_after(server, airflow_says, 1)
    task = Task(definition=SLOW, checkpoints=True, **arguments)
    if held:
        with pytest.raises(OwnerGoneError):
            task.attempt()
    else:
        task.attempt()
    failing.join()
    assert paid(server) == (1 if held else 3)


def test_every_trigger_rule_has_its_default() -> None:
    rules = {str(one.value) for one in first_of("TriggerRule", "airflow.sdk", "airflow.utils.trigger_rule")}
    on = {"all_success", "all_skipped", "none_failed", "none_failed_min_one_success"}
    assert rules - checkpointing.RUNS_ON_FAILURE - {"none_failed_or_skipped"} == on  # 2.11 has an old name for one


def test_a_teardown_goes_on() -> None:
    operator = OrchestrationRunWorkflowOperator(task_id="t", workflow_id="w")
    assert checkpointing.holds_on_failure(operator)
    operator.is_teardown = True
    assert not checkpointing.holds_on_failure(operator)


def test_a_sibling_that_failed_while_a_try_lay_dead_counts(
    server: Any, airflow_says: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task(definition=PAYS, checkpoints=True, deferrable=True)
    with pytest.raises(TaskDeferred):
        begin_deferred(task)  # which nobody takes up: its process is killed, and the triggerer is away
    airflow_says.failed.add("check")
    with pytest.raises(OwnerGoneError, match="check"):
        task.attempt()
    assert paid(server) <= 1


def test_the_task_itself_does_not_count(server: Any, airflow_says: Any) -> None:
    airflow_says.failed = set()
    assert checkpointing.new_failures(("dag", "run", "pay", 2), ()) == ()
    airflow_says.failed = {"pay_2", "pay_3", "before"}
    assert checkpointing.new_failures(("dag", "run", "pay", 2), ["before"]) == ("pay_3",)


# ---- triggers --------------------------------------------------------------------------------------


def trigger_of(task: Task, **changes: Any) -> Any:
    """The trigger of a task whose run stands at its second payment."""
    made = OrchestrationInstanceTrigger(
        task.xcoms["instance_id"], poll_interval=0.2, cancel_on_kill=True, passes=True, **changes
    )
    return rebuilt(made, task.context(task.operator)["ti"])


@in_triggers
@pytest.mark.parametrize("state", ["failed", "restarting", "success", "scheduled", "queued", None])
def test_a_trigger_whose_task_is_no_longer_deferred_lets_nothing_pass(
    server: Any, airflow_says: Any, state: str | None
) -> None:
    task = standing(server)
    airflow_says.task_state = state
    with pytest.raises(asyncio.TimeoutError):
        first_event(trigger_of(task), 1.5)
    assert paid(server) == 1
    assert airflow_says.marks("passing") == []


@in_triggers
def test_a_trigger_that_cannot_ask_leaves_the_checkpoint_to_a_worker(
    server: Any, airflow_says: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trigger_passes, "UNSURE_SECONDS", 0.5)
    task = standing(server)
    airflow_says.away = True
    event = first_event(trigger_of(task), 10)
    assert event["status"] == "checkpoint"
    assert "Airflow does not say that its task is deferred" in event["message"]
    assert paid(server) == 1


@in_triggers
def test_a_trigger_that_meets_a_hold_announces_nothing(server: Any, airflow_says: Any) -> None:
    task = standing(server)
    cancelled(task.xcoms["instance_id"])
    event = first_event(trigger_of(task), 10)
    assert event["status"] == "checkpoint"
    assert airflow_says.marks("passing") == []
    assert paid(server) == 1


@pytest.mark.skipif(TRIGGERS_REACH_VARIABLES, reason="other triggers pass checkpoints themselves")
def test_a_trigger_that_must_not_touch_variables_touches_none(
    server: Any, airflow_says: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = standing(server)
    for name in ("read_surely", "read", "write", "remove"):
        monkeypatch.setattr(marks.variables, name, None, raising=False)
    assert first_event(trigger_of(task), 10)["status"] == "checkpoint"
    asyncio.run(trigger_of(task)._cancel_instance())


@in_triggers
@pytest.mark.parametrize("passing", [False, True])
def test_a_kill_of_a_deferred_task_holds_its_run(server: Any, airflow_says: Any, passing: bool) -> None:
    task = standing(server)
    instance_id = task.xcoms["instance_id"]
    if passing:
        marks.VariableMarks().write(f"passing/{instance_id}/1", "1")
    trigger = trigger_of(task)
    airflow_says.task_state = "failed"
    outcomes: list[str] = []

    async def killed() -> None:
        running = asyncio.create_task(anext(trigger.run()))
        await asyncio.sleep(0.5)
        running.cancel("__airflow_user_action__" if AIRFLOW_3_3 else "stop")
        try:
            await running
        except asyncio.CancelledError:
            if AIRFLOW_3_3:
                await trigger.on_kill()

    with pytest.MonkeyPatch.context() as patch:
        from orchestration_integrations.http_hook.plans import logger

        patch.setattr(logger, "log", lambda level, text, *told, **_: outcomes.append(str(told[1])))
        patch.setattr("orchestration_integrations.airflow.triggers.KILL_SECONDS", 4.0)
        asyncio.run(killed())
    assert outcomes == ["not_confirmed" if passing else "held"]
    assert airflow_says.marks("hold") == [f"orchestration_hold_{instance_id}"]
    assert paid(server) == 1


def test_a_sensor_waits_until_the_task_lets_the_run_pass(server: Any, airflow_says: Any) -> None:
    """Whoever only watches a run takes its checkpoints for no end."""
    task = standing(server)
    sensed = OrchestrationInstanceTrigger(task.xcoms["instance_id"], poll_interval=0.2)
    found: list[Any] = []
    watching = threading.Thread(target=lambda: found.append(first_event(rebuilt(sensed))))
    watching.start()
    time.sleep(1.0)
    assert found == []
    task.attempt(wait_for_termination=True)
    watching.join(30)
    assert found[0]["status"] == "succeeded"


# ---- stops -----------------------------------------------------------------------------------------


def cancelled(instance_id: Any, timeout: float = 4.0) -> dict[str, Any]:
    """What a cancel task says."""
    operator = OrchestrationCancelInstanceOperator(task_id="cancel", instance_id=instance_id, timeout=timeout)
    context = Task(task_id="cancel").context(operator)
    found: dict[str, Any] = operator.execute(context)
    return found


@pytest.mark.parametrize("generation", [1, 2])
@pytest.mark.parametrize("state", ["failed", "restarting"])
def test_a_killed_task_holds_its_run(server: Any, airflow_says: Any, generation: int, state: str) -> None:
    task = standing(server)
    airflow_says.task_state = state
    began = time.monotonic()
    assert task.operator is not None
    task.operator.on_kill()
    if AIRFLOW_3:
        assert time.monotonic() - began < 4.3
    if generation == 1:
        assert state_of(server, task.xcoms["instance_id"]) == "cancelled"
        return
    assert task.record["hold"]
    assert "killed" in task.record["held_by"]
    airflow_says.task_state = "running"
    task.max_tries = task.retries = 3
    for _ in range(2):
        with pytest.raises(InstanceStuckError, match="killed"):
            task.attempt(wait_for_termination=True, rerun_on_clear=False)
    assert paid(server) == 1


@pytest.mark.parametrize("generation", [1, 2])
def test_a_kill_that_nobody_explains_leaves_a_run_at_its_checkpoint(
    server: Any,
    airflow_says: Any,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    generation: int,
) -> None:
    """It may be a drain. The killed try lets nothing pass, even if Airflow answers again, and a further one goes on."""
    task = Task(definition=SLOW, checkpoints=True, retries=3)
    with caplog.at_level("INFO"):
        thread, found = in_background(task)
        until(lambda: paid(server) == 1)
        assert task.operator is not None
        until(lambda: task.operator._active is not None and not task.operator._active.starting)  # it waits by now
        airflow_says.away = True
        task.operator.on_kill()
        airflow_says.away = False
        thread.join(30)
    instance_id = task.xcoms["instance_id"]
    told = caplog.text + capsys.readouterr().out  # Airflow 3 prints what a task logs
    assert f"instance {instance_id} is left alone and stands still at its next checkpoint" in told
    assert isinstance(found[0], OwnerGoneError)
    assert not isinstance(found[0], FailException)
    assert "until a further try does" in str(found[0])
    assert "another attempt" not in str(found[0])
    assert not server.record().requests.get("abort_instance")
    assert paid(server) == 1
    assert task.attempt()["state"] == "succeeded"
    assert paid(server) == 3
    assert len(server.record().started) == 1


@pytest.mark.parametrize("several", [False, True])
def test_a_cancel_task_says_that_a_run_is_held_and_its_task_tells_it(
    server: Any, airflow_says: Any, several: bool
) -> None:
    task = Task(definition=SLOW, checkpoints=True, deferrable=several)
    thread, found = in_background(task)
    instance_id = until(lambda: task.xcoms.get("instance_id"))
    until(lambda: paid(server) == 1)
    result = cancelled([instance_id] if several else instance_id)
    assert result["status"] == "held"
    thread.join(30)
    assert isinstance(found[0], InstanceStuckError)
    assert found[0].reason == "held"
    assert isinstance(found[0], FailException)
    assert "clear the task" in str(found[0])
    assert paid(server) == 1
    task.clear()
    task.attempt()
    assert paid(server) == 3
    assert len(server.record().started) == 1


def test_a_cancel_before_ten_seconds_are_over_does_not_say_held(
    server: Any, airflow_says: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A waiter that had asked before the hold stood may send until then."""
    monkeypatch.setattr(marks, "OWNER_ANSWER_SECONDS", 10.0)
    task = standing(server)
    assert cancelled(task.xcoms["instance_id"], 3.0)["status"] == "not_confirmed"
    assert cancelled([task.xcoms["instance_id"]], 1.0)["status"] == "not_confirmed"


def test_a_cancel_of_many_that_stand_ends_at_its_limit_and_aborts_each_once(
    server: Any,
    airflow_says: Any,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = [standing(server, run_id=f"run {number}").xcoms["instance_id"] for number in range(12)]
    assert len(set(ids)) == 12
    for instance_id in ids[:9]:
        marks.VariableMarks().write(f"passing/{instance_id}/1", "1")  # which no stop can be said to hold
    further: list[Any] = []
    monkeypatch.setattr(cancel, "abort_instance", lambda *given: further.append(given) or abort_instance(*given))
    began = time.monotonic()
    with caplog.at_level("INFO"):
        told = cancelling.cancel_all(
            {"": OrchestrationHttpHook(base_url=server.url)},
            [("", one) for one in ids],
            4.0,
            marks.VariableMarks(),
            "me",
        )
    assert time.monotonic() - began < 6.0
    assert [bool(told["", one].unseen) for one in ids] == [True] * 9 + [False] * 3
    for one in ids[9:]:
        outcome = told["", one].outcome
        assert (outcome.status, outcome.checkpoint) == ("held", 1)
        assert outcome.abort_answer
        assert len(outcome.moved.transactions) == 1
    assert further == []
    assert "not_confirmed" not in caplog.text + capsys.readouterr().out


@pytest.mark.parametrize("how", ["announced", "no waiter", "away"])
def test_a_cancel_says_held_only_where_that_is_true(server: Any, airflow_says: Any, how: str) -> None:
    task = standing(server)
    instance_id = task.xcoms["instance_id"]
    if how == "announced":
        marks.VariableMarks().write(f"passing/{instance_id}/1", "1")
    elif how == "no waiter":  # whoever waits for the run looks at no mark of this Airflow
        marks.VariableMarks().remove(f"waiter/{instance_id}")
    else:
        airflow_says.away = True
    assert cancelled(instance_id, 3.0)["status"] == "not_confirmed"
    assert cancelled([instance_id], 1.0)["status"] == "not_confirmed"
    assert airflow_says.marks("hold") == ([f"orchestration_hold_{instance_id}"] if how == "announced" else [])


def test_the_callback_of_a_dag_holds_what_stands_at_a_checkpoint(
    server: Any, airflow_says: Any, caplog: pytest.LogCaptureFixture
) -> None:
    task = standing(server)
    instance_id = task.xcoms["instance_id"]
    with caplog.at_level("INFO"):
        callbacks.cancel_wanted([("orchestration_default", instance_id)], "a task has failed", 5.0)
    if not AIRFLOW_3:  # 3.x logs past the root logger
        assert "it is held at the checkpoint before stage 1" in caplog.text
        assert "may still run" not in caplog.text
    text = airflow_says.variables[f"orchestration_hold_{instance_id}"]
    assert "a task has failed" in text
    with pytest.raises(InstanceStuckError):
        task.attempt(wait_for_termination=True)
    assert paid(server) == 1


@WAYS
def test_a_deadline_holds(server: Any, airflow_says: Any, deferrable: bool) -> None:
    """The owner cannot be asked for the pass, so the run stands until the deadline."""
    task = Task(definition=SLOW, checkpoints=True, deferrable=deferrable, timeout=6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpointing.compat, "failed_tasks", lambda *_: frozenset() if paid(server) == 0 else away())
        with pytest.raises(WaitTimeoutError, match="held at the checkpoint before stage 2"):
            task.attempt()
    assert paid(server) == 1
    with pytest.raises(InstanceStuckError):
        task.attempt()
    assert paid(server) == 1


def away(*_: Any) -> Any:
    raise RuntimeError("the API server is away")


# ---- what is refused, and what is kept -------------------------------------------------------------


def test_what_cannot_work_is_refused_before_anything_is_sent(server: Any, airflow_says: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        OrchestrationRunWorkflowOperator(task_id="t", definition=PAYS, checkpoints=True, wait_for_termination=False)
    assert caught.value.path == "checkpoints"
    with pytest.raises(ValidationError) as caught:
        OrchestrationRunWorkflowOperator(task_id="t", definition=PAYS, hold_on_failure="yes")  # type: ignore[arg-type]
    assert caught.value.path == "hold_on_failure"
    with pytest.raises(ValidationError) as caught:
        OrchestrationCreateWorkflowOperator(task_id="t", definition=PAYS, checkpoints=True)
    assert caught.value.path == "checkpoints"
    with OrchestrationHttpHook(base_url=server.url) as http:
        gated = http.ensure_workflow(PAYS, gate=True).workflow.id
    with pytest.raises(ValidationError, match="has none before stage 1"):
        Task(workflow_id=gated, checkpoints=True).attempt()
    assert server.record().started == []


def test_a_created_workflow_has_checkpoints(server: Any, airflow_says: Any) -> None:
    operator = OrchestrationCreateWorkflowOperator(task_id="c", definition=PAYS, gate=True, checkpoints=True)
    created = operator.execute({})
    assert created == with_checkpoints(server)
    assert Task(workflow_id=created, checkpoints=True).attempt()["state"] == "succeeded"


def test_marks_are_removed_with_their_dag_run(server: Any, airflow_says: Any) -> None:
    """A hold of another DAG run belongs to the run that it holds."""
    first = standing(server)
    instance_id = first.xcoms["instance_id"]
    marks.VariableMarks(("another dag", "its run", "cancel", -1)).write(f"hold/{instance_id}", "a stop")
    stored = [(name, text) for name, text in airflow_says.variables.items()]
    ours = {name for kind in marks.KINDS for name in airflow_says.marks(kind)}
    assert ours == {f"orchestration_{name}_{instance_id}" for name in ("waiter", "hold")}
    assert not gone_of(stored, {("dag", "run")}) & ours
    assert gone_of(stored, {("a third", "run")}) >= ours


@pytest.mark.skipif(not AIRFLOW_3, reason="2.11 reads its database itself")
def test_a_variable_that_could_not_be_read_is_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's own ``Variable.get`` says that there is none: a hold would be overlooked."""
    from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import ErrorResponse, VariableResult

    from orchestration_integrations.airflow.compat import asked_variable

    answers: list[Any] = []
    monkeypatch.setattr(
        task_runner, "SUPERVISOR_COMMS", SimpleNamespace(send=lambda message: answered()), raising=False
    )

    def answered() -> Any:
        if isinstance(answers[0], Exception):
            raise answers[0]
        return answers[0]

    missing, broken = ErrorResponse(error=ErrorType.VARIABLE_NOT_FOUND), ErrorResponse(error=ErrorType.API_SERVER_ERROR)
    for answer in (missing, AirflowRuntimeError(missing)):
        answers[:] = [answer]
        assert asked_variable("v") is None
    for answer in (broken, AirflowRuntimeError(broken)):
        answers[:] = [answer]
        with pytest.raises(AirflowRuntimeError):
            asked_variable("v")
    answers[:] = [VariableResult(key="v", value="text")]
    assert asked_variable("v") == "text"


def test_whatever_stands_in_a_mark_is_one(airflow_says: Any) -> None:
    airflow_says.variables["orchestration_hold_i"] = "put up by hand"
    assert marks.VariableMarks().read("hold/i") == "put up by hand"
    marks.VariableMarks(("d", "r", "t", 3)).write("hold/i", "x")
    assert json.loads(airflow_says.variables["orchestration_hold_i"]) == {"of": ["d", "r", "t", 3], "is": "x"}
    assert marks.VariableMarks().read("hold/i") == "x"

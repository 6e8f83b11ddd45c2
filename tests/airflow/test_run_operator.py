"""Waiting, giving up and being killed: sync and in the triggerer alike."""

from __future__ import annotations

import json
import threading
import time
from decimal import Decimal
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from orchestration_integrations import (
    InstanceCancelledError,
    InstanceFailedError,
    InstanceStuckError,
    NotFoundError,
    OrchestrationHttpHook,
    StateUnknownError,
    ValidationError,
    WaitTimeoutError,
)
from orchestration_integrations.airflow import killing, limits, task_run
from orchestration_integrations.airflow.compat import AIRFLOW_3, AIRFLOW_3_3, TaskDeferralError, TaskDeferralTimeout
from orchestration_integrations.airflow.operators import OrchestrationRunWorkflowOperator
from tests.airflow.harness import (
    BROKEN,
    LONG,
    SHORT,
    TO,
    WAITS,
    Task,
    begin,
    define,
    first_event,
    rebuilt,
    state_of,
)

TIMED_OUT = "Trigger timeout" if AIRFLOW_3 else "Trigger/execution timeout"
"""What Airflow says of a deferral that took too long."""
WAYS = pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])
GENERATIONS = pytest.mark.parametrize("generation", [1, 2, 3])


def aborts(server: Any) -> int:
    return int(server.record().requests.get("abort_instance", 0))


def deferred(task: Task, **changes: Any) -> tuple[OrchestrationRunWorkflowOperator, dict[str, Any], TaskDeferred]:
    """A try up to its deferral."""
    task.try_number += 1
    operator = OrchestrationRunWorkflowOperator(
        task_id="pay", retries=task.retries, **{**task.arguments, "deferrable": True, **changes}
    )
    context = task.context(operator)
    with pytest.raises(TaskDeferred) as caught:
        operator.execute(context)
    return operator, context, caught.value


@GENERATIONS
@WAYS
def test_success_returns_a_small_plain_dict(server: Any, deferrable: bool, generation: int) -> None:
    task = Task(definition=SHORT, deferrable=deferrable)
    result = task.attempt()
    assert json.loads(json.dumps(result)) == result
    assert result["state"] == "succeeded"
    assert result["stages_completed"] == 2  # the gate is one
    assert len(result["transactions"]) == 1
    assert result["maybe_repeated"] is False
    assert task.xcoms["orchestration_instance"] == {
        "instance_id": result["instance_id"],
        "conn_id": "orchestration_default",
        "url": f"{server.url}/instances/{result['instance_id']}",
    }


def test_both_ways_return_the_same(server: Any) -> None:
    results = [Task(definition=SHORT, deferrable=way, map_index=way).attempt() for way in (False, True)]
    for one in results:
        del one["instance_id"], one["transactions"]
    assert results[0] == results[1]


@GENERATIONS
@WAYS
def test_failure_is_told_with_its_stage_and_what_had_moved(server: Any, deferrable: bool, generation: int) -> None:
    with pytest.raises(
        InstanceFailedError, match=r"in stage 1 \(send\).* after 1 completed stage and 1 transaction"
    ) as caught:
        Task(definition=BROKEN, deferrable=deferrable).attempt()
    assert len(caught.value.moved.transactions) == 1


@WAYS
def test_a_run_that_has_failed_before_the_first_look_is_no_success(server: Any, deferrable: bool) -> None:
    """It ends while it is being started: nothing is deferred for it."""
    broken = {"name": "at once", "stages": [BROKEN["stages"][1]]}  # type: ignore[index]
    task = Task(definition=broken, deferrable=deferrable)
    with pytest.raises(InstanceFailedError):
        task.attempt()
    with pytest.raises(InstanceFailedError):
        task.attempt()


@pytest.mark.parametrize("generation", [1, 3])
@WAYS
def test_a_run_that_someone_cancels_is_told_as_cancelled(server: Any, deferrable: bool, generation: int) -> None:
    task = Task(definition=LONG, deferrable=deferrable)

    def cancel() -> None:
        until = time.monotonic() + 30
        while "instance_id" not in task.xcoms and time.monotonic() < until:
            time.sleep(0.05)
        with OrchestrationHttpHook(base_url=server.url) as http:
            http.cancel(task.xcoms["instance_id"])

    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        with pytest.raises(InstanceCancelledError):
            task.attempt()
    finally:
        thread.join()


@GENERATIONS
@WAYS
def test_a_timeout_cancels_and_says_what_came_of_it(
    server: Any, monkeypatch: pytest.MonkeyPatch, deferrable: bool, generation: int
) -> None:
    monkeypatch.setattr(limits, "CANCEL_SECONDS", 1.0 if generation == 2 else 15.0)
    task = Task(definition=LONG, deferrable=deferrable, timeout=1)
    expected = "its cancel is not confirmed" if generation == 2 else "it was cancelled"
    with pytest.raises(WaitTimeoutError, match=expected):
        task.attempt()
    assert aborts(server) >= 1
    assert state_of(server, task.xcoms["instance_id"]) == ("running" if generation == 2 else "cancelled")
    if generation == 2:
        return
    with pytest.raises(InstanceCancelledError):
        task.attempt()
    assert len(server.record().started) == 1


@pytest.mark.parametrize("generation", [1])
@WAYS
def test_a_timeout_can_leave_the_run_which_a_retry_takes_up(server: Any, deferrable: bool, generation: int) -> None:
    task = Task(definition=WAITS, deferrable=deferrable, timeout=1, on_timeout="leave")
    with pytest.raises(WaitTimeoutError, match="left running"):
        task.attempt()
    assert aborts(server) == 0
    with OrchestrationHttpHook(base_url=server.url) as http:
        http.send_event_when_ready(task.xcoms["instance_id"], "approve", timeout=30)
    assert task.attempt(timeout=None)["state"] == "succeeded"
    assert len(server.record().started) == 1


def test_a_run_that_ends_between_the_last_look_and_the_cancel_is_a_success(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task(definition=WAITS)
    operator, context, last = deferred(task, timeout=0.5)
    event = first_event(rebuilt(last.trigger))
    assert event["status"] == "timeout"
    with OrchestrationHttpHook(base_url=server.url) as http:
        http.send_event_when_ready(task.xcoms["instance_id"], "approve", timeout=30)
        http.wait(task.xcoms["instance_id"], timeout=30)
    result = operator.resume_execution(last.method_name, {**last.kwargs, "event": event}, context)
    assert result["state"] == "succeeded"
    assert aborts(server) == 0


@pytest.mark.parametrize("generation", [1])
@WAYS
def test_a_payment_that_fails_again_and_again_can_end_the_wait(server: Any, deferrable: bool, generation: int) -> None:
    poor = {
        "name": "poor",
        "stages": [{"send": {**SHORT["stages"][0]["send"], "source": {"account": {"id": "empty:account"}}}}],  # type: ignore[index]
    }
    task = Task(definition=poor, deferrable=deferrable, fail_after_attempts=2)
    with pytest.raises(InstanceStuckError, match=r"insufficient.*it was cancelled"):
        task.attempt()
    assert state_of(server, task.xcoms["instance_id"]) == "cancelled"


@pytest.mark.parametrize("event", [None, {}, "done", {"status": "news"}, {"status": "succeeded"}, 7, ["x"]])
def test_an_event_is_only_a_hint(server: Any, event: Any) -> None:
    task = Task(definition=WAITS)
    operator, context, last = deferred(task)
    with pytest.raises(TaskDeferred) as again:
        operator.resume_execution(last.method_name, {**last.kwargs, "event": event}, context)
    assert again.value.kwargs["instance_id"] == task.xcoms["instance_id"]
    assert again.value.kwargs["deadline"] == last.kwargs["deadline"]
    with OrchestrationHttpHook(base_url=server.url) as http:
        http.send_event_when_ready(task.xcoms["instance_id"], "approve", timeout=30)
        http.wait(task.xcoms["instance_id"], timeout=30)
    first = operator.resume_execution(last.method_name, {**last.kwargs, "event": event}, context)
    assert first["state"] == "succeeded"
    assert operator.resume_execution(last.method_name, {**last.kwargs, "event": event}, context) == first


def test_a_lying_event_does_not_turn_a_failure_into_a_success(server: Any) -> None:
    task = Task(definition=BROKEN)
    try:
        operator, context, last = deferred(task)
    except InstanceFailedError:
        pytest.fail("it should defer")
    instance_id = task.xcoms["instance_id"]
    lie = {
        "status": "succeeded",
        "instance_id": instance_id,
        "result": {"instance_id": instance_id, "stages_completed": 9, "transactions": [], "maybe_repeated": False},
    }
    with OrchestrationHttpHook(base_url=server.url) as http, pytest.raises(InstanceFailedError):
        http.wait(instance_id, timeout=30)
    with pytest.raises(InstanceFailedError):
        operator.resume_execution(last.method_name, {**last.kwargs, "event": lie}, context)


def test_a_trigger_that_fails_for_ever_ends_in_an_error_that_says_so(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task(definition=WAITS, retries=0)
    operator, context, last = deferred(task)
    event = {"status": "error", "instance_id": task.xcoms["instance_id"], "message": "no connection here"}
    kwargs: Any = last.kwargs
    for _ in range(task_run.MOST_DEFERRALS):
        with pytest.raises(TaskDeferred) as again:
            operator.resume_execution(last.method_name, {**kwargs, "event": event}, context)
        kwargs = again.value.kwargs
    monkeypatch.setattr(limits, "CANCEL_SECONDS", 1.0)
    with pytest.raises(StateUnknownError, match="no connection here"):
        operator.resume_execution(last.method_name, {**kwargs, "event": event}, context)
    assert aborts(server) >= 1  # no retry follows, so nobody would look after it


def failed_deferral(operator: Any, context: Any, text: str) -> Any:
    return operator.resume_execution("__fail__", {"error": text}, context)


@GENERATIONS
def test_a_deferral_that_airflow_ends_cancels(server: Any, monkeypatch: pytest.MonkeyPatch, generation: int) -> None:
    monkeypatch.setattr(limits, "CANCEL_SECONDS", 1.0 if generation == 2 else 15.0)
    task = Task(definition=LONG)
    operator, context, _ = deferred(task)
    with pytest.raises(TaskDeferralTimeout):
        failed_deferral(operator, context, TIMED_OUT)
    assert aborts(server) >= 1
    assert state_of(server, task.xcoms["instance_id"]) == ("running" if generation == 2 else "cancelled")


@pytest.mark.parametrize("retries", [0, 2])
def test_a_trigger_that_breaks_down_cancels_only_where_no_retry_follows(
    server: Any, monkeypatch: pytest.MonkeyPatch, retries: int
) -> None:
    monkeypatch.setattr(limits, "CANCEL_SECONDS", 1.0)
    task = Task(definition=WAITS, retries=retries)
    operator, context, _ = deferred(task)
    with pytest.raises(TaskDeferralError):
        failed_deferral(operator, context, "Trigger failure")
    assert (aborts(server) > 0) is (retries == 0)


def test_a_deferral_that_fails_after_the_run_has_ended_reports_the_end(server: Any) -> None:
    task = Task(definition=SHORT)
    operator, context, _ = deferred(task)
    with OrchestrationHttpHook(base_url=server.url) as http:
        http.wait(task.xcoms["instance_id"], timeout=30)
    assert failed_deferral(operator, context, TIMED_OUT)["state"] == "succeeded"


def test_the_deadline_is_anchored_at_the_start_of_the_try(server: Any) -> None:
    task = Task(definition=LONG)
    _, context, last = deferred(task, timeout=100)
    deadline = last.kwargs["deadline"]
    assert deadline == pytest.approx(context["ti"].start_date.timestamp() + 100)
    assert rebuilt(last.trigger).deadline == deadline
    assert last.timeout is not None
    assert last.timeout.total_seconds() > deadline - time.time() + 29


def test_without_a_timeout_nothing_ends_the_deferral(server: Any) -> None:
    _, _, last = deferred(Task(definition=LONG))
    assert last.timeout is None
    assert last.kwargs["deadline"] is None


@GENERATIONS
@pytest.mark.parametrize("cancel_on_kill", [True, False])
def test_on_kill_cancels_where_it_should(
    server: Any, airflow_says: Any, monkeypatch: pytest.MonkeyPatch, cancel_on_kill: bool, generation: int
) -> None:
    monkeypatch.setattr(killing, "KILL_SECONDS", 1.5 if generation == 2 else 15.0)
    task = Task(definition=WAITS, wait_for_termination=False, cancel_on_kill=cancel_on_kill)
    instance_id = task.attempt()["instance_id"]
    assert task.operator is not None
    airflow_says.task_state = "failed"
    task.operator.on_kill()
    assert (aborts(server) > 0) is cancel_on_kill
    cancelled = cancel_on_kill and generation != 2
    assert state_of(server, instance_id) == ("cancelled" if cancelled else "running")


def test_on_kill_before_anything_began_does_nothing(server: Any) -> None:
    OrchestrationRunWorkflowOperator(task_id="pay", workflow_id="w").on_kill()
    assert server.record().requests == {}


def test_no_wait_wins_over_deferrable(server: Any) -> None:
    result = Task(definition=LONG, wait_for_termination=False, deferrable=True).attempt()
    assert result["state"] == "running"


def test_variables_become_texts(server: Any) -> None:
    stages = [{"send": {**SHORT["stages"][0]["send"], "metadata": {k: f"${{{k}}}" for k in "abcd"}}}]  # type: ignore[index]
    variables = {**TO, "a": 10**20, "b": True, "c": Decimal("1.10"), "d": "0012"}
    Task(definition={"name": "typed", "stages": stages}, variables=variables).attempt()
    (started,) = server.record().started
    told = {key: started["variables"][key] for key in "abcd"}
    assert told == {"a": str(10**20), "b": "true", "c": "1.10", "d": "0012"}


@pytest.mark.parametrize("value", [None, 1.5, {"x": 1}, ["a"]])
def test_a_variable_without_an_unambiguous_text_starts_nothing(server: Any, value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        Task(definition=SHORT, variables={"to": value}).attempt()
    assert isinstance(caught.value, AirflowFailException)
    assert server.record().started == []


def test_a_forgotten_variable_starts_nothing(server: Any) -> None:
    with pytest.raises(ValidationError, match="'to'"):
        Task(definition=SHORT, variables={}).attempt()
    assert server.record().started == []


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"workflow_id": "w", "definition": SHORT},
        {"workflow_id": 7},
        {"workflow_id": "w", "on_timeout": "explode"},
        {"workflow_id": "w", "variables": "a=b"},
        {"workflow_id": "w", "run_key": ""},
        {"workflow_id": "w", "timeout": -1},
        {"workflow_id": "w", "timeout": True},
        {"path": "/nonexistent/definition.yaml"},
        {"definition": "stages: [}"},
    ],
)
def test_wrong_arguments_are_told_before_anything_is_sent(server: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        Task(**wrong).attempt()
    assert isinstance(caught.value, AirflowFailException)
    assert server.record().requests == {}


def test_a_typing_mistake_in_the_workflow_is_not_retried(server: Any) -> None:
    with pytest.raises(NotFoundError) as caught:
        Task(workflow_id="0e7f1d7e-0000-4000-8000-000000000000").attempt()
    assert isinstance(caught.value, AirflowFailException)


@pytest.mark.parametrize("kind", ["json", "yaml", "file"])
def test_definitions_come_as_text_and_files_too(server: Any, tmp_path: Any, kind: str) -> None:
    text = json.dumps(SHORT)
    if kind == "yaml":
        sides = "source: {account: {id: world}}, destination: {account: {id: '${to}'}}"
        send = f"{{{sides}, amount: {{amount: 100, asset: EUR/2}}}}"
        text = f"name: short\nstages:\n- send: {send}\n"
    if kind == "file":
        (tmp_path / "short.yaml").write_text(text)
        result = Task(path=str(tmp_path / "short.yaml")).attempt()
    else:
        result = Task(definition=text).attempt()
    assert result["workflow_id"] == define(server, SHORT)


def test_passing_faults_do_not_end_a_wait(server: Any) -> None:
    task = Task(definition=WAITS)
    operator, context, last = deferred(task)
    for kind, options in (("html", {}), ("cut_after", {}), ("truncated", {}), ("status", {"code": 429})):
        server.fault("get_instance", kind, skip=0, **options)
    thread = threading.Thread(target=_approve_later, args=(server, task.xcoms["instance_id"]))
    thread.start()
    try:
        event = first_event(rebuilt(last.trigger))
    finally:
        thread.join()
    assert event["status"] == "succeeded"
    assert operator.resume_execution(last.method_name, {**last.kwargs, "event": event}, context)["state"] == "succeeded"
    assert len(server.record().started) == 1


def _approve_later(server: Any, instance_id: str) -> None:
    time.sleep(1.5)
    with OrchestrationHttpHook(base_url=server.url) as http:
        http.send_event_when_ready(instance_id, "approve", timeout=30)


def test_init_only_assigns() -> None:
    """Anything may stand in any argument at parse time: an XComArg, a template."""
    odd = object()
    operator = OrchestrationRunWorkflowOperator(
        task_id="pay",
        workflow_id=odd,
        definition=odd,
        path=odd,
        variables=odd,
        run_key=odd,
        timeout=odd,  # type: ignore[arg-type]
        settled=odd,  # type: ignore[arg-type]
    )
    for field in operator.template_fields:
        if field != "orchestration_conn_id":
            assert getattr(operator, field) is odd


@pytest.mark.skipif(not AIRFLOW_3_3, reason="retry policies came with Airflow 3.3")
def test_retry_policy(server: Any) -> None:
    from airflow.sdk.definitions.retry_policy import RetryAction

    from orchestration_integrations import AuthenticationError, RateLimitedError, TransportError
    from orchestration_integrations.airflow.retry_policy import OrchestrationRetryPolicy

    policy = OrchestrationRetryPolicy()
    with pytest.raises(InstanceFailedError) as failed:
        Task(definition=BROKEN).attempt()
    assert policy.evaluate(failed.value, 1, 3).action is RetryAction.FAIL
    assert OrchestrationRetryPolicy(rerun_failed=True).evaluate(failed.value, 1, 3).action is RetryAction.DEFAULT
    assert policy.evaluate(AuthenticationError("403"), 1, 3).action is RetryAction.FAIL
    assert policy.evaluate(TransportError("cut"), 1, 3).action is RetryAction.DEFAULT
    slow = policy.evaluate(RateLimitedError("429", retry_after=7.0), 1, 3)
    assert slow.action is RetryAction.RETRY
    assert slow.retry_delay is not None
    assert slow.retry_delay.total_seconds() == 7
    assert OrchestrationRetryPolicy.deserialize(OrchestrationRetryPolicy(True).serialize()).rerun_failed is True
    assert begin(server, SHORT)

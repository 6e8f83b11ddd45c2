"""Waiting, giving up and being killed: sync and in the triggerer alike."""

from __future__ import annotations

import json
import threading
import time
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

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
from orchestration_integrations.airflow import killing, limits
from orchestration_integrations.airflow.compat import (
    AIRFLOW_3,
    AIRFLOW_3_3,
    AirflowFailException,
    TaskDeferralError,
    TaskDeferralTimeout,
    TaskDeferred,
)
from orchestration_integrations.airflow.operators import (
    OrchestrationCreateWorkflowOperator,
    OrchestrationRunWorkflowOperator,
)
from orchestration_integrations.ownership.owned_run import OwnedRun
from orchestration_integrations.procedures.gated_start import GatedStart
from tests.airflow.framework import DAG
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


def test_the_link_opens_what_ui_url_says(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    console = {"ui_url": "https://console.example/{workflow_id}/{instance_id}"}
    connection = {"conn_type": "orchestration", "host": server.url, "extra": console}
    monkeypatch.setenv("AIRFLOW_CONN_ORCHESTRATION_DEFAULT", json.dumps(connection))
    task = Task(definition=SHORT)
    result = task.attempt()
    url = f"https://console.example/{result['workflow_id']}/{result['instance_id']}"
    assert task.xcoms["orchestration_instance"]["url"] == url


def test_both_ways_return_the_same(server: Any) -> None:
    results = [Task(definition=SHORT, deferrable=way, map_index=way).attempt() for way in (False, True)]
    for one in results:
        del one["instance_id"], one["transactions"]
    assert results[0] == results[1]


@GENERATIONS
@WAYS
def test_failure_is_told_with_its_stage_and_what_had_moved(server: Any, deferrable: bool, generation: int) -> None:
    with pytest.raises(
        InstanceFailedError, match=r"in stage 1 \(send; 2 on the server\).* after 1 completed stage and 1 transaction"
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
            # Cancelled before its release, a run is replaced by another one: nothing has moved.
            while len(http.get_instance(task.xcoms["instance_id"]).status) < 2 and time.monotonic() < until:
                time.sleep(0.05)
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
    for _ in range(limits.MOST_DEFERRALS):
        with pytest.raises(TaskDeferred) as again:
            operator.resume_execution(last.method_name, {**kwargs, "event": event}, context)
        kwargs = again.value.kwargs
    monkeypatch.setattr(limits, "CANCEL_SECONDS", 1.0)
    with pytest.raises(StateUnknownError, match="no connection here"):
        operator.resume_execution(last.method_name, {**kwargs, "event": event}, context)
    assert aborts(server) >= 1  # no retry follows, so nobody would look after it


@pytest.mark.parametrize("how", ["trigger", "deferral"])
def test_a_wait_that_breaks_down_leaves_airflow_its_time(
    server: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The cancel ends before Airflow's limit interrupts it, so that its outcome is told."""
    seconds: list[float] = []
    stop = OwnedRun.stop

    def noted(self: OwnedRun, limit: float = limits.CANCEL_SECONDS, **options: Any) -> Any:
        seconds.append(limit)
        return stop(self, limit, **options)

    monkeypatch.setattr(OwnedRun, "stop", noted)
    task = Task(definition=WAITS, retries=0, execution_timeout=timedelta(seconds=9))
    operator, context, last = deferred(task)
    event = {"status": "error", "instance_id": task.xcoms["instance_id"], "message": "no connection here"}
    if how == "trigger":
        with pytest.raises(StateUnknownError):
            operator.resume_execution(
                last.method_name, {**(last.kwargs or {}), "event": event, "resumed": limits.MOST_DEFERRALS}, context
            )
    else:
        with pytest.raises(TaskDeferralError):
            failed_deferral(operator, context, "the trigger broke down")
    (given,) = seconds
    assert given < 9


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
    task = Task(definition=WAITS)
    operator, context, _ = deferred(task)
    with OrchestrationHttpHook(base_url=server.url) as http:
        http.send_event_when_ready(task.xcoms["instance_id"], "approve")
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
        workflow_name=odd,
        definition=odd,
        path=odd,
        variables=odd,
        run_key=odd,
        timeout=odd,  # type: ignore[arg-type]
        poll_interval=odd,  # type: ignore[arg-type]
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


# ---- S8: where a relative path is looked for -----------------------------------------------------------


@pytest.mark.parametrize("place", ["beside the DAG", "template_searchpath", "one folder as text"])
@pytest.mark.parametrize("kind", ["run", "create"])
def test_a_relative_path_is_looked_for_beside_the_dags_file(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, kind: str
) -> None:
    dags, shared, elsewhere = (tmp_path / name for name in ("dags", "shared", "elsewhere"))
    (shared if place != "beside the DAG" else dags).joinpath("flows").mkdir(parents=True)
    folder = next(one for one in (dags, shared) if one.exists())
    (folder / "flows/short.yaml").write_text(json.dumps(SHORT))
    (elsewhere / "flows").mkdir(parents=True)
    (elsewhere / "flows/short.yaml").write_text(json.dumps({**SHORT, "name": "of the worker's folder"}))
    monkeypatch.chdir(elsewhere)
    paths: Any = {"template_searchpath": [str(shared)], "one folder as text": str(shared)}.get(place)
    with DAG("d", schedule=None, template_searchpath=paths) as dag:
        dag.fileloc = str(dags / "dag.py")
        if kind == "create":
            operator: Any = OrchestrationCreateWorkflowOperator(task_id="create", path="flows/short.yaml")
            workflow_id = operator.execute({})
        else:
            task = Task(path="flows/short.yaml")
            workflow_id = task.attempt(dag=dag)["workflow_id"]
    with OrchestrationHttpHook(base_url=server.url) as http:
        assert http.get_workflow(workflow_id).name == "short"


def test_a_path_that_is_not_there_says_where_it_was_looked_for(server: Any, tmp_path: Path) -> None:
    with DAG("d", schedule=None, template_searchpath=["/shared"]) as dag:
        dag.fileloc = str(tmp_path / "dag.py")
        operator = OrchestrationCreateWorkflowOperator(task_id="create", path="short.yaml")
    with pytest.raises(
        ValidationError, match=f"there is no file {tmp_path}/short.yaml or /shared/short.yaml"
    ) as caught:
        operator.execute({})
    assert caught.value.path == "path"


# ---- a variable that nothing asks for -----------------------------------------------------------------


@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("strict", [False, True])
def test_a_variable_that_nothing_asks_for_is_told(
    server: Any, caplog: pytest.LogCaptureFixture, strict: bool, gate: bool
) -> None:
    """U8."""
    workflow = {"definition": SHORT} if gate else {"workflow_id": define(server, SHORT, gate=False)}
    task = Task(**workflow, variables={**TO, "amuont": 7}, strict_variables=strict)
    if strict:
        with pytest.raises(ValidationError, match=r"variables\.amuont") as caught:
            task.attempt()
        assert caught.value.path == "variables.amuont"
        assert isinstance(caught.value, AirflowFailException)
        assert server.record().started == []
        return
    assert task.attempt()["state"] == "succeeded"
    assert "variables.amuont" in caplog.text
    assert "to)" in caplog.text


# ---- W8: the address of the instance ------------------------------------------------------------------


def said(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> str:
    """What a task has logged: Airflow 3 writes to the standard output, 2.11 logs as Python does."""
    output = capsys.readouterr().out
    return output if AIRFLOW_3 else caplog.text


@pytest.mark.parametrize(
    "path", ["waits", "starts only", "ended before the wait", "retry", "defers", "killed amid start"]
)
def test_each_process_names_the_instance_with_its_address_once(
    server: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    path: str,
) -> None:
    caplog.set_level("INFO")
    processes = 1
    if path == "retry":
        task = Task(definition=LONG, timeout=0.5, on_timeout="leave")
        with pytest.raises(WaitTimeoutError):
            task.attempt()
        said(caplog, capsys)
        caplog.clear()
        with pytest.raises(WaitTimeoutError):
            task.attempt()
    elif path == "killed amid start":

        def dies(self: Any, *_: Any, **__: Any) -> Any:
            raise KeyboardInterrupt

        task = Task(definition=SHORT)
        monkeypatch.setattr(GatedStart, "release", dies)
        with pytest.raises(KeyboardInterrupt):
            task.attempt()
    else:
        task = Task(
            definition=SHORT,
            deferrable=path == "defers",
            wait_for_termination=path != "starts only",
        )
        processes = 2 if path == "defers" else 1
        if path == "ended before the wait":
            task.attempt()
            said(caplog, capsys)
            caplog.clear()
        task.attempt()
    instance_id = task.xcoms["instance_id"]
    text = said(caplog, capsys)
    assert text.count(f"instance {instance_id}: {server.url}/instances/{instance_id}") == processes


# ---- S10: how often things are said -------------------------------------------------------------------


@pytest.mark.parametrize("generation", [2, 3])
@pytest.mark.parametrize("deferrable", [False, True])
def test_each_stage_and_the_cancel_are_told_once(
    server: Any, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], generation: int, deferrable: bool
) -> None:
    caplog.set_level("INFO")
    task = Task(definition=LONG, timeout=3, deferrable=deferrable)
    with pytest.raises(WaitTimeoutError) as caught:
        task.attempt()
    output = capsys.readouterr().out
    text = output if AIRFLOW_3 and not deferrable else caplog.text  # a trigger logs as Python does
    head = f"instance {task.xcoms['instance_id']}: "
    for line in ("stage 0 (send) has begun", "stage 0 (send) has ended", "stage 1 (delay) has begun"):
        assert text.count(head + line) == 1
    outcome = "its cancel is not confirmed" if generation == 2 else "it was cancelled"
    assert str(caught.value).count(outcome) == 1
    assert (caplog.text + output).count(outcome) == 0  # the error says it, which Airflow logs

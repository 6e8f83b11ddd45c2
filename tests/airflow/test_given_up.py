"""A wait that is given up: its run is left to a next try only where one follows; else ``on_timeout`` decides.

The synchronous task and the deferrable one come to the same.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from orchestration_integrations import (
    AuthenticationError,
    InstanceStuckError,
    NotFoundError,
    OrchestrationError,
    OrchestrationHttpHook,
    StateUnknownError,
    ValidationError,
    WaitTimeoutError,
)
from orchestration_integrations.airflow import limits, one_pass, task_run
from orchestration_integrations.airflow.compat import (
    AIRFLOW_3_3,
    AirflowFailException,
    TaskDeferralError,
    TaskDeferralTimeout,
    TaskDeferred,
)
from orchestration_integrations.airflow.retry_policy import OrchestrationRetryPolicy
from orchestration_integrations.airflow.triggers import OrchestrationInstanceTrigger
from tests.airflow.harness import WAITS, Task, first_event, rebuilt, state_of
from tests.airflow.test_run_operator import TIMED_OUT, WAYS, aborts, deferred, failed_deferral, said

REFUSED = {400: ValidationError, 401: AuthenticationError, 403: AuthenticationError, 404: NotFoundError}
CODES = pytest.mark.parametrize("code", [*REFUSED, 503])
OPTIONS = pytest.mark.parametrize(("on_timeout", "cancel_on_kill"), [("leave", True), ("cancel", False)])


@pytest.fixture(autouse=True)
def impatient(impatient_in_outages: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CANCEL_SECONDS", 2.0)


@pytest.fixture
def given_up(server: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Perform a try up to its wait, then let something happen, and let the wait be given up."""

    def perform(task: Task, meanwhile: Callable[[Any], object]) -> Any:
        if task.arguments.get("deferrable"):
            operator, context, last = deferred(task)
            task.operator = operator
            operator._active = None
            meanwhile(operator)
            event = {"status": "error", "instance_id": task.xcoms["instance_id"], "message": "it broke down"}
            kwargs = {**(last.kwargs or {}), "event": event, "resumed": limits.MOST_DEFERRALS}
            return operator.resume_execution(last.method_name, kwargs, context)
        real = task_run.TaskRun._attend

        def attend(self: Any, *arguments: Any, **options: Any) -> Any:
            monkeypatch.setattr(task_run.TaskRun, "_attend", real)
            with OrchestrationHttpHook(base_url=server.url) as http:
                while len(http.get_instance(self.instance_id).status) < 2:
                    time.sleep(0.02)
            self.http.perform(self.run.keeper.note_seen(self.http.get_instance(self.instance_id)))
            meanwhile(self.operator)
            return real(self, *arguments, **options)

        monkeypatch.setattr(task_run.TaskRun, "_attend", attend)
        return task.attempt(read_budget=0.5)

    return perform


def refuses(server: Any, code: int) -> Callable[[Any], None]:
    def fault(operator: Any) -> None:
        server.fault("get_instance", "status", -1, code=code)

    return fault


def approve(server: Any, instance_id: str) -> None:
    with OrchestrationHttpHook(base_url=server.url) as http:
        http.send_event_when_ready(instance_id, "approve", timeout=30)
        http.wait(instance_id, timeout=30)


@CODES
@WAYS
def test_an_unread_run_is_left_to_the_next_try_which_goes_on_with_it(
    server: Any, given_up: Any, deferrable: bool, code: int
) -> None:
    """Airflow does retry the error, also one that it would not retry of the input."""
    task = Task(definition=WAITS, deferrable=deferrable)
    with pytest.raises(REFUSED.get(code, StateUnknownError)) as caught:
        given_up(task, refuses(server, code))
    assert not isinstance(caught.value, AirflowFailException)
    told = str(caught.value)
    instance_id = task.xcoms["instance_id"]
    assert instance_id in told
    assert "was left as it is, and may still run" in told
    assert told.endswith("(the next try continues with it)")
    assert aborts(server) == 0
    server.clear_faults()
    approve(server, instance_id)
    assert task.attempt()["state"] == "succeeded"
    assert len(server.record().started) == 1


@pytest.mark.parametrize("generation", [1])
@CODES
@WAYS
def test_without_a_next_try_an_unread_run_is_cancelled(
    server: Any, given_up: Any, deferrable: bool, code: int, generation: int
) -> None:
    task = Task(definition=WAITS, deferrable=deferrable, retries=0)
    with pytest.raises(REFUSED.get(code, StateUnknownError)) as caught:
        given_up(task, refuses(server, code))
    told = str(caught.value)
    assert task.xcoms["instance_id"] in told
    assert "may still run" in told, "nobody has seen what the abort came to"
    assert told.endswith("(no retry follows)")
    assert aborts(server) >= 1
    assert task.record["hold"] is True
    server.clear_faults()
    until = time.monotonic() + 10
    while state_of(server, task.xcoms["instance_id"]) == "running" and time.monotonic() < until:
        time.sleep(0.05)
    assert state_of(server, task.xcoms["instance_id"]) == "cancelled"


@pytest.mark.parametrize(("retries", "on_timeout"), [(1, "cancel"), (1, "leave"), (2, "cancel")])
@pytest.mark.parametrize("code", [400, 403, 503])
def test_the_last_try_gives_up_a_run_that_it_cannot_read_either(
    server: Any, given_up: Any, code: int, retries: int, on_timeout: str
) -> None:
    """It fails while it begins, so it never comes to wait for the run that the try before has left to it."""
    task = Task(definition=WAITS, retries=retries, on_timeout=on_timeout)
    with pytest.raises(OrchestrationError, match="the next try continues with it"):
        given_up(task, refuses(server, code))
    before = task.record
    with pytest.raises(REFUSED.get(code, StateUnknownError)) as caught:
        task.attempt(start_timeout=0.5)
    assert not isinstance(caught.value, AirflowFailException)
    told = str(caught.value)
    assert ("(no retry follows)" in told) is (retries == 1)
    gives_up = retries == 1 and on_timeout == "cancel"
    assert (aborts(server) > 0) is gives_up
    if gives_up:
        assert before["instance_id"] in told.split("(no retry follows)")[1]
        assert task.record["hold"] is True
    else:
        assert task.record == before
        assert told.count("may still run") == 1


@OPTIONS
@pytest.mark.parametrize(("deferrable", "code"), [(False, 403), (False, 503), (True, 403), (True, 503), (True, None)])
def test_on_timeout_and_no_kill_decides_of_a_wait_that_is_given_up(
    server: Any, given_up: Any, deferrable: bool, code: int | None, on_timeout: str, cancel_on_kill: bool
) -> None:
    """Also where the next limit is Airflow's, which counts as a kill. ``code``: None: only the trigger breaks down."""
    task = Task(
        definition=WAITS,
        deferrable=deferrable,
        retries=0,
        on_timeout=on_timeout,
        cancel_on_kill=cancel_on_kill,
        execution_timeout=timedelta(hours=1),
    )
    with pytest.raises(OrchestrationError) as caught:
        given_up(task, (lambda operator: None) if code is None else refuses(server, code))
    assert (aborts(server) > 0) is (on_timeout == "cancel")
    assert ("was left as it is" in str(caught.value)) is (on_timeout == "leave")
    assert str(caught.value).endswith("(no retry follows)")


@OPTIONS
def test_a_trigger_that_fails_comes_to_on_timeout_too(server: Any, on_timeout: str, cancel_on_kill: bool) -> None:
    task = Task(definition=WAITS, retries=0, on_timeout=on_timeout, cancel_on_kill=cancel_on_kill)
    operator, context, _ = deferred(task)
    with pytest.raises(TaskDeferralError):
        failed_deferral(operator, context, "Trigger failure")
    assert (aborts(server) > 0) is (on_timeout == "cancel")


@WAYS
def test_nothing_is_cancelled_that_was_marked_as_a_success(
    server: Any, airflow_says: Any, given_up: Any, deferrable: bool
) -> None:
    task = Task(definition=WAITS, deferrable=deferrable, retries=0)
    real = task_run.TaskRun._given_up

    def marked(operator: Any) -> None:
        airflow_says.task_state = "success"
        refuses(server, 403)(operator)
        if operator._active is not None:
            operator.on_kill()

    def amid(self: Any, *arguments: Any) -> Any:
        self.operator.on_kill()
        return real(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task_run.TaskRun, "_given_up", amid)
        with pytest.raises(AuthenticationError, match="was left as it is"):
            given_up(task, marked)
    assert aborts(server) == 0


@pytest.mark.parametrize("text", [TIMED_OUT, "Trigger failure"])
def test_no_deferral_that_fails_cancels_what_was_marked_as_a_success(
    server: Any, airflow_says: Any, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    task = Task(definition=WAITS, retries=0)
    operator, context, _ = deferred(task)
    real = task_run.TaskRun.ended

    def amid(self: Any, instance_id: str) -> Any:
        airflow_says.task_state = "success"
        self.operator.on_kill()
        return real(self, instance_id)

    monkeypatch.setattr(task_run.TaskRun, "ended", amid)
    with pytest.raises((TaskDeferralError, TaskDeferralTimeout)):
        failed_deferral(operator, context, text)
    assert aborts(server) == 0


@pytest.mark.parametrize("how", ["deferral", "trigger"])
def test_a_run_that_has_ended_when_it_is_cancelled_is_told_as_it_ended(
    server: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    task = Task(definition=WAITS, retries=0)
    operator, context, last = deferred(task)
    instance_id = task.xcoms["instance_id"]
    approve(server, instance_id)
    monkeypatch.setattr(task_run.TaskRun, "ended", lambda self, instance_id: None)  # it ended after this look
    if how == "deferral":
        result = failed_deferral(operator, context, "Trigger failure")
    else:
        event = {"status": "error", "instance_id": instance_id, "message": "it broke down"}
        kwargs = {**(last.kwargs or {}), "event": event, "resumed": limits.MOST_DEFERRALS}
        result = operator.resume_execution(last.method_name, kwargs, context)
    assert result["state"] == "succeeded"


def test_a_run_that_nothing_names_any_more_is_found_by_the_next_try(server: Any) -> None:
    task = Task(definition=WAITS)
    operator, context, last = deferred(task)
    instance_id = last.kwargs["instance_id"]
    assert task.store is not None
    task.store.texts.clear()
    task.xcoms.clear()
    with pytest.raises(NotFoundError, match="may still run") as caught:
        failed_deferral(operator, context, "Trigger failure")
    assert not isinstance(caught.value, AirflowFailException)
    approve(server, instance_id)
    assert task.attempt()["instance_id"] == instance_id
    assert len(server.record().started) == 1


# ---- what is said --------------------------------------------------------------------------------------


@pytest.mark.parametrize("retries", [0, 2])
@pytest.mark.parametrize("text", [TIMED_OUT, "Trigger failure"])
@pytest.mark.parametrize("readable", [True, False])
def test_only_what_was_seen_to_run_is_said_to_run(
    server: Any,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    readable: bool,
    text: str,
    retries: int,
) -> None:
    task = Task(definition=WAITS, retries=retries, on_timeout="leave")
    operator, context, _ = deferred(task)
    if not readable:
        server.fault("get_instance", "status", -1, code=503)
    with caplog.at_level(logging.ERROR), pytest.raises((TaskDeferralError, TaskDeferralTimeout)):
        failed_deferral(operator, context, text)
    told = said(caplog, capsys)
    runs = "is still running" if readable else "may still run"
    assert f"instance {task.xcoms['instance_id']} {runs}" in told
    assert ("the next try continues with it" if retries else "no retry follows") in told
    if not readable:
        assert "running" not in told.split("could not be read", 1)[1]


def test_a_stuck_run_that_cannot_be_read_is_not_said_to_run(server: Any) -> None:
    task = Task(definition=WAITS, retries=0, on_timeout="leave", fail_after_attempts=2)
    operator, context, last = deferred(task)
    server.fault("get_instance", "status", -1, code=503)
    event = {"status": "stuck", "instance_id": task.xcoms["instance_id"], "message": "stuck", "reason": "attempts"}
    with pytest.raises(InstanceStuckError, match="left as it is, and may still run"):
        operator.resume_execution(last.method_name, {**(last.kwargs or {}), "event": event}, context)


# ---- retry policies ------------------------------------------------------------------------------------


def decides(action: str) -> Any:
    """A policy of a user, which decides so, whatever the error is."""
    from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy

    class Own(RetryPolicy):  # type: ignore[misc]
        def evaluate(self, exception: Any, try_number: int, max_tries: int, context: Any = None) -> Any:
            assert (try_number, max_tries) == (1, 2)
            if action == "broken":
                raise RuntimeError("the policy is broken")
            return RetryDecision.fail("no") if action == "fail" else RetryDecision.retry()

    return Own()


@pytest.mark.skipif(not AIRFLOW_3_3, reason="retry policies came with Airflow 3.3")
@pytest.mark.parametrize("code", [400, 403, 503])
@pytest.mark.parametrize("policy", ["ours", "retry", "fail", "broken"])
@WAYS
def test_a_run_is_left_only_to_a_retry_that_the_policy_allows(
    server: Any, given_up: Any, deferrable: bool, policy: str, code: int
) -> None:
    asked = OrchestrationRetryPolicy() if policy == "ours" else decides(policy)
    task = Task(definition=WAITS, deferrable=deferrable, retry_policy=asked)
    with pytest.raises(OrchestrationError) as caught:
        given_up(task, refuses(server, code))
    assert not isinstance(caught.value, AirflowFailException)
    follows = policy != "fail"
    assert (aborts(server) == 0) is follows
    assert ("(the next try continues with it)" in str(caught.value)) is follows
    assert ("(no retry follows)" in str(caught.value)) is not follows
    if policy == "ours":
        assert asked.evaluate(caught.value, 1, 2).action.value != "fail"


# ---- a row without a run -------------------------------------------------------------------------------


def ghost_of(server: Any) -> str:
    """The id of a row without a run, old enough to be told from a late one."""
    server.fault("run_workflow", "ghost", 1)
    with OrchestrationHttpHook(base_url=server.url) as http:
        workflow = http.create_workflow({"name": "ghosts", "stages": [{"delay": {"duration": "1s"}}]})
        with pytest.raises(OrchestrationError):
            http.run_workflow(workflow.id)
        (ghost,) = http.list_instances(workflow.id, running=True)
    server.advance(61)
    return ghost.id


@pytest.mark.parametrize("generation", [1])
@WAYS
def test_a_run_that_never_started_is_told_and_recorded_as_that(
    server: Any, monkeypatch: pytest.MonkeyPatch, deferrable: bool, generation: int
) -> None:
    task = Task(definition=WAITS, retries=0, deferrable=deferrable)
    ghost = ghost_of(server)
    operator, context, last = deferred(task)
    task.put_on_record(instance_id=ghost)
    kwargs = {**(last.kwargs or {}), "instance_id": ghost}
    event: Any = {"status": "stuck", "instance_id": ghost, "reason": "never_started", "message": ""}
    if deferrable:
        event = first_event(rebuilt(OrchestrationInstanceTrigger(ghost)))
        assert event["reason"] == "never_started"
    with pytest.raises(InstanceStuckError) as caught:
        operator.resume_execution(last.method_name, {**kwargs, "event": event}, context)
    assert caught.value.reason == "never_started"
    assert "may still run" not in str(caught.value)
    assert (task.record["state"], task.record["end"]) == ("told", "never_started")
    assert aborts(server) == 0


@pytest.mark.parametrize("late", [False, True])
def test_that_a_run_never_started_is_only_a_hint(server: Any, monkeypatch: pytest.MonkeyPatch, late: bool) -> None:
    monkeypatch.setattr(one_pass, "LOOK_SECONDS", 0.3)
    task = Task(definition=WAITS, retries=0, timeout=1.0 if late else None)
    operator, context, last = deferred(task)
    event = {"status": "stuck", "instance_id": task.xcoms["instance_id"], "reason": "never_started", "message": "no"}
    if late:
        time.sleep(1.0)
    with pytest.raises(WaitTimeoutError if late else TaskDeferred) as caught:
        operator.resume_execution(last.method_name, {**(last.kwargs or {}), "event": event}, context)
    assert task.record["end"] is None
    if isinstance(caught.value, TaskDeferred):
        assert caught.value.kwargs["resumed"] == 1

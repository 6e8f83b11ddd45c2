"""One task pays once: over dying tries, lost answers, clears, and whatever the earlier run did meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orchestration_integrations import (
    AmbiguousRunError,
    InstanceCancelledError,
    InstanceFailedError,
    KeyReusedError,
    OrchestrationHttpHook,
    UnreadableRecordError,
    WaitTimeoutError,
    WrongServerError,
)
from orchestration_integrations.airflow import killing, run_records, task_run
from orchestration_integrations.airflow.compat import AirflowException, AirflowFailException
from orchestration_integrations.http_hook import AsyncOrchestrationHttpHook
from orchestration_integrations.ownership import beginning
from orchestration_integrations.procedures.gate import parsed_text
from tests.airflow.harness import BROKEN, LONG, SHORT, UNFUNDED, WAITS, Task, define, state_of


class Died(BaseException):
    """The worker is gone."""


def die(*_: Any, **__: Any) -> Any:
    raise Died


KEY = "dag/run/pay/-1"


@pytest.fixture
def dies(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let a try die where ``name`` of the hook is called: ``owning`` before the submit, ``wait`` while it waits."""

    def attempt(task: Task, name: str, **changes: Any) -> None:
        with monkeypatch.context() as patch:
            for hook in (OrchestrationHttpHook, AsyncOrchestrationHttpHook):
                patch.setattr(hook, {"wait": "waiting_for"}.get(name, name), die)
            with pytest.raises(Died):
                task.attempt(**changes)

    return attempt


WAYS = pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])
STORES = pytest.mark.parametrize("durable", [True, False], ids=["state store", "variables"])


def rounds(server: Any) -> list[tuple[str, int]]:
    """Key and round of each run that was started, by what its gate says."""
    texts = [parsed_text(one["variables"]["runGate"]) for one in server.record().started]
    return [(one.key, one.round) for one in texts if one is not None]


def refuse(*_: Any, **__: Any) -> None:
    raise RuntimeError("the state store is away")


def amount(server: Any) -> int:
    return int(server.balance("merchants:1", "EUR/2"))


@WAYS
@STORES
def test_a_try_that_dies_while_waiting_is_taken_up(server: Any, dies: Any, deferrable: bool, durable: bool) -> None:
    task = Task(definition=SHORT, durable=durable, deferrable=deferrable)
    dies(task, "wait")
    result = task.attempt()
    record = server.record()
    assert len(record.started) == 1
    assert record.requests["run_workflow"] == 1
    assert result["state"] == "succeeded"
    assert result["instance_id"] == record.started[0]["instance_id"] == task.xcoms["instance_id"]
    assert amount(server) == 100


@STORES
def test_a_try_that_dies_before_the_submit_leaves_nothing(server: Any, dies: Any, durable: bool) -> None:
    task = Task(definition=SHORT, durable=durable)
    dies(task, "owning")
    assert task.attempt()["state"] == "succeeded"
    assert len(server.record().started) == 1


@STORES
def test_a_try_that_dies_between_choice_and_release_is_released_once(
    server: Any, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    task = Task(definition=SHORT, durable=durable)
    with monkeypatch.context() as patch:
        patch.setattr(task_run.TaskRun, "_noticed", die)
        with pytest.raises(Died):
            task.attempt()
    assert server.record().released == []
    result = task.attempt()
    record = server.record()
    assert len(record.started) == 1
    assert [row["instance_id"] for row in record.released] == [result["instance_id"]]
    assert amount(server) == 100


@pytest.mark.parametrize("moment", ["before the submit", "before the release"])
@STORES
def test_a_kill_amid_the_start_releases_nothing(
    server: Any, airflow_says: Any, monkeypatch: pytest.MonkeyPatch, moment: str, durable: bool
) -> None:
    """Airflow 3 lets the interrupted code go on after ``on_kill``: it must stop by itself."""
    monkeypatch.setattr(killing, "KILL_SECONDS", 1.0)
    task = Task(definition=WAITS, durable=durable)
    name = "_request" if moment == "before the submit" else "_noticed"
    real = getattr(task_run.TaskRun, name)

    def killed(self: Any, *arguments: Any) -> Any:
        found = real(self, *arguments)
        airflow_says.task_state = "failed"
        self.operator.on_kill()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(task_run.TaskRun, name, killed)
        with pytest.raises(AirflowException, match="killed"):
            task.attempt()
    assert server.record().released == []
    assert server.record().money == []
    airflow_says.task_state = "running"
    task.clear()
    result = task.attempt(wait_for_termination=False)
    assert [row["instance_id"] for row in server.record().released] == [result["instance_id"]]


@STORES
def test_a_lost_answer_pays_once(server: Any, durable: bool) -> None:
    server.fault("run_workflow", "cut_after")
    task = Task(definition=SHORT, durable=durable)
    assert task.attempt()["state"] == "succeeded"
    record = server.record()
    assert len(record.released) == 1
    assert amount(server) == 100


@WAYS
@STORES
def test_a_run_that_ended_while_nobody_looked_is_reported(
    server: Any, dies: Any, deferrable: bool, durable: bool
) -> None:
    task = Task(definition=BROKEN, durable=durable, deferrable=deferrable)
    dies(task, "wait")
    with pytest.raises(InstanceFailedError):
        task.attempt()
    with pytest.raises(InstanceFailedError):
        task.attempt()
    assert len(server.record().started) == 1
    assert amount(server) == 100


@WAYS
def test_a_reported_success_is_reported_again(server: Any, deferrable: bool) -> None:
    task = Task(definition=SHORT, deferrable=deferrable)
    first = task.attempt()
    assert task.attempt() == first
    assert len(server.record().started) == 1


@WAYS
@STORES
def test_a_failed_run_is_replaced_only_where_it_was_asked_for(server: Any, deferrable: bool, durable: bool) -> None:
    task = Task(definition=BROKEN, durable=durable, deferrable=deferrable, rerun_failed=True)
    for number in range(1, 4):
        with pytest.raises(InstanceFailedError):
            task.attempt()
        assert rounds(server) == [(KEY, 0), (KEY, 1), (KEY, 2)][:number]


def test_a_run_that_is_not_reported_yet_is_not_replaced(server: Any, dies: Any) -> None:
    task = Task(definition=BROKEN, rerun_failed=True)
    dies(task, "wait")
    with pytest.raises(InstanceFailedError):
        task.attempt()
    assert len(server.record().started) == 1


@pytest.mark.parametrize("generation", [1, 3])
@WAYS
@STORES
def test_a_cancelled_run_is_never_a_success(server: Any, dies: Any, deferrable: bool, durable: bool) -> None:
    task = Task(definition=LONG, deferrable=deferrable, durable=durable)
    dies(task, "wait")
    with OrchestrationHttpHook(base_url=server.url) as http:
        assert http.cancel(task.record["instance_id"]).status == "cancelled"
    for _ in range(2):
        with pytest.raises(InstanceCancelledError, match=r"to run anew, clear the task$"):
            task.attempt()
    assert len(server.record().started) == 1


@pytest.mark.parametrize("generation", [1, 3])
@WAYS
@STORES
def test_a_payment_under_way_at_a_cancel_is_made_again_by_a_clear_and_not_by_a_flag(
    server: Any, deferrable: bool, durable: bool
) -> None:
    task = Task(definition=UNFUNDED, deferrable=deferrable, durable=durable, rerun_failed=True, timeout=2)
    with pytest.raises(WaitTimeoutError, match="was under way"):
        task.attempt()
    for _ in range(2):
        with pytest.raises(AmbiguousRunError, match="may have arrived all the same"):
            task.attempt()
    assert len(server.record().started) == 1
    task.clear()
    with pytest.raises(WaitTimeoutError):
        task.attempt()
    assert len(server.record().started) == 2


@STORES
def test_an_id_that_the_server_no_longer_knows_is_a_hard_error(server: Any, dies: Any, durable: bool) -> None:
    task = Task(definition=SHORT, durable=durable)
    dies(task, "wait")
    assert task.record["seen"] is True
    task.put_on_record(instance_id="0e7f1d7e-0000-4000-8000-000000000000")
    with pytest.raises(WrongServerError, match="another server") as caught:
        task.attempt()
    assert isinstance(caught.value, AirflowFailException)
    assert server.record().requests["run_workflow"] == 1


@STORES
def test_a_connection_that_points_elsewhere_is_a_hard_error(server: Any, dies: Any, durable: bool) -> None:
    task = Task(definition=SHORT, durable=durable)
    dies(task, "wait")
    task.put_on_record(server="https://other.example.com", instance_id="0e7f1d7e-0000-4000-8000-000000000000")
    with pytest.raises(WrongServerError, match=r"other\.example\.com") as caught:
        task.attempt()
    assert isinstance(caught.value, AirflowFailException)
    assert server.record().requests["run_workflow"] == 1


@STORES
def test_the_same_server_under_another_address_is_gone_on_with(server: Any, dies: Any, durable: bool) -> None:
    """R9: ``localhost`` for ``127.0.0.1``, or a new gateway path."""
    task = Task(definition=SHORT, durable=durable)
    dies(task, "wait")
    task.put_on_record(server="https://written.otherwise.example.com")
    assert task.attempt()["instance_id"] == server.record().started[0]["instance_id"]
    assert task.record["server"] == server.url
    assert server.record().requests["run_workflow"] == 1


@pytest.mark.parametrize("written", [{"written": "by hand"}, "text", {"opened": "?", "record": None}, 7])
@STORES
def test_a_record_that_cannot_be_read_starts_nothing_and_is_not_retried(
    server: Any, airflow_says: Any, durable: bool, written: Any
) -> None:
    """S12."""
    task = Task(definition=SHORT, durable=durable)
    if task.store is not None and written != {"opened": "?", "record": None}:
        task.store.set("orchestration_run", written)
    elif task.store is not None:
        task.store.set("orchestration_run", {"opened": "1970-01-01T00:00:00+00:00", "record": {"version": 99}})
    else:
        run_records.VariablePlace(("dag", "run", "pay", -1)).write("run", written)
    with pytest.raises(UnreadableRecordError, match="cannot be read") as caught:
        task.attempt()
    assert isinstance(caught.value, AirflowFailException)
    assert server.record().started == []


def test_a_variable_that_someone_else_wrote_starts_nothing(server: Any, airflow_says: Any) -> None:
    name = run_records.VariablePlace(("dag", "run", "pay", -1)).variable("run")
    for text in ("", "{", "null", '"x"', '{"is": 1}'):
        airflow_says.variables[name] = text
        with pytest.raises(UnreadableRecordError):
            Task(definition=SHORT, durable=False).attempt()
    assert server.record().started == []


@WAYS
@STORES
def test_clearing_a_finished_task_runs_anew(server: Any, deferrable: bool, durable: bool) -> None:
    task = Task(definition=SHORT, durable=durable, deferrable=deferrable)
    first = task.attempt()
    task.clear()
    second = task.attempt()
    assert second["instance_id"] != first["instance_id"]
    assert rounds(server) == [(KEY, 0), (KEY, 1)]
    assert amount(server) == 200


def test_clearing_a_failed_task_runs_anew_and_its_retries_do_not(server: Any) -> None:
    task = Task(definition=BROKEN)
    with pytest.raises(InstanceFailedError):
        task.attempt()
    task.clear()
    for _ in range(2):
        with pytest.raises(InstanceFailedError):
            task.attempt()
    assert len(server.record().started) == 2


@STORES
def test_clearing_a_task_whose_run_goes_on_does_not_pay_twice(
    server: Any, dies: Any, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    monkeypatch.setattr(beginning, "CANCEL_FOR_NEW_SECONDS", 0.5)
    task = Task(definition=WAITS, durable=durable)
    dies(task, "wait")
    task.clear()
    with OrchestrationHttpHook(base_url=server.url) as http:
        instance_id = task.xcoms["instance_id"]
        dies(task, "wait")  # attaches, and dies again
        http.send_event_when_ready(instance_id, "approve", timeout=20)
    result = task.attempt()
    assert result["instance_id"] == instance_id
    assert len(server.record().started) == 1


@pytest.mark.parametrize("definition", [SHORT, BROKEN], ids=["succeeded", "failed"])
def test_clearing_a_task_whose_run_ended_unreported_reports_that_first(
    server: Any, dies: Any, definition: dict[str, Any]
) -> None:
    """Whoever cleared it could not know that its run would end by itself: a second one would pay twice."""
    task = Task(definition=definition)
    dies(task, "wait")
    first = task.xcoms["instance_id"]
    with OrchestrationHttpHook(base_url=server.url) as http:
        try:
            http.wait(first, timeout=30)
        except InstanceFailedError:
            assert definition is BROKEN
    task.clear()
    for _ in range(2):
        if definition is BROKEN:
            with pytest.raises(InstanceFailedError):
                task.attempt()
        else:
            assert task.attempt()["instance_id"] == first
    assert len(server.record().started) == 1
    task.clear()
    if definition is BROKEN:
        with pytest.raises(InstanceFailedError):
            task.attempt()
    else:
        assert task.attempt()["instance_id"] != first
    assert len(server.record().started) == 2


def test_clearing_a_task_that_does_not_wait_tells_the_end_first_and_then_runs_anew(server: Any) -> None:
    task = Task(definition=SHORT, wait_for_termination=False)
    first = task.attempt()["instance_id"]
    with OrchestrationHttpHook(base_url=server.url) as http:
        http.wait(first, timeout=30)
    task.clear()
    assert task.attempt()["instance_id"] == first
    task.clear()
    assert task.attempt()["instance_id"] != first


@pytest.mark.parametrize("generation", [1, 2, 3])
@STORES
def test_a_clear_looks_for_what_another_dag_run_has_paid_under_the_key(
    server: Any, monkeypatch: pytest.MonkeyPatch, durable: bool, generation: int
) -> None:
    """Its own run was never released, and its row came too late for the other one to see it."""
    first, second = (Task(definition=SHORT, run_key="daily", run_id=name, durable=durable) for name in "ab")
    server.fault("run_workflow", "late_row", 1, seconds=20)
    with monkeypatch.context() as patch:
        patch.setattr(task_run.TaskRun, "_noticed", die)
        with pytest.raises(Died):
            first.attempt()
    made = second.attempt()["instance_id"]
    server.advance(30)
    first.clear()
    assert first.attempt()["instance_id"] == made
    assert amount(server) == 100
    first.clear()
    assert first.attempt()["instance_id"] != made, "after a success a clear is another payment"


@pytest.mark.parametrize("generation", [1, 3])
@STORES
def test_a_clear_that_cancelled_its_run_runs_anew(server: Any, dies: Any, durable: bool) -> None:
    task = Task(definition=LONG, durable=durable)
    dies(task, "wait")
    first = task.xcoms["instance_id"]
    with OrchestrationHttpHook(base_url=server.url) as http:
        http.cancel(first)
    task.clear()
    dies(task, "wait")
    second = task.xcoms["instance_id"]
    assert second != first
    assert [state_of(server, one) for one in (first, second)] == ["cancelled", "running"]


def test_a_change_of_retries_is_no_clear(server: Any) -> None:
    task = Task(definition=BROKEN, retries=3)
    with pytest.raises(InstanceFailedError):
        task.attempt()
    task.retries = 1  # the DAG was edited; max_tries stays
    with pytest.raises(InstanceFailedError):
        task.attempt()
    assert len(server.record().started) == 1


@pytest.mark.parametrize("generation", [1, 2, 3])
@STORES
def test_a_clear_while_the_task_runs_leaves_a_mark(
    server: Any, airflow_says: Any, dies: Any, monkeypatch: pytest.MonkeyPatch, generation: int, durable: bool
) -> None:
    """R6: such a clear need not move ``max_tries``, and the state store refuses the killed process by then."""
    monkeypatch.setattr(killing, "KILL_SECONDS", 1.5 if generation == 2 else 15.0)
    monkeypatch.setattr(beginning, "CANCEL_FOR_NEW_SECONDS", 0.5)
    task = Task(definition=LONG, durable=durable)
    dies(task, "wait")
    assert task.operator is not None
    airflow_says.task_state = "restarting"
    if task.store is not None:
        with monkeypatch.context() as patch:
            patch.setattr(task.store, "set", refuse)
            patch.setattr(task.store, "get", refuse)
            task.operator.on_kill()
    else:
        task.operator.on_kill()
    assert len(airflow_says.of("mark")) == 1
    airflow_says.task_state = "running"
    task.attempt(wait_for_termination=False)
    ids = [one["instance_id"] for one in server.record().started]
    assert task.xcoms["instance_id"] == ids[-1]
    states = [state_of(server, one) for one in ids]
    assert states == (["running"] if generation == 2 else ["cancelled", "running"])
    task.attempt(wait_for_termination=False)  # a retry: the mark asks once
    assert len(server.record().started) == len(ids)


@pytest.mark.parametrize("state", ["running", "failed"])
def test_a_kill_that_is_no_clear_leaves_no_mark(server: Any, airflow_says: Any, dies: Any, state: str) -> None:
    task = Task(definition=SHORT)
    dies(task, "wait")
    assert task.operator is not None
    airflow_says.task_state = state
    task.operator.on_kill()
    assert airflow_says.of("mark") == {}


def test_a_given_key_is_used_as_it_is_and_adopted_everywhere(server: Any) -> None:
    first = Task(definition=SHORT, run_key="invoice-7").attempt()
    again = Task(definition=SHORT, run_key="invoice-7").attempt()
    assert again["instance_id"] == first["instance_id"]
    assert [one["variables"]["runKey"] for one in server.record().started] == ["invoice-7"]


@STORES
def test_a_clear_with_a_given_key_asks_for_another_run_unless_told_otherwise(server: Any, durable: bool) -> None:
    task = Task(definition=SHORT, run_key="invoice-7", durable=durable)
    first = task.attempt()
    task.clear()
    assert task.attempt(rerun_on_clear=False)["instance_id"] == first["instance_id"]
    assert amount(server) == 100
    task.clear()
    assert task.attempt()["instance_id"] != first["instance_id"]
    assert rounds(server) == [("invoice-7", 0), ("invoice-7", 1)]


def test_mapped_tasks_have_runs_of_their_own(server: Any) -> None:
    results = [Task(definition=SHORT, map_index=index).attempt() for index in range(3)]
    assert len({one["instance_id"] for one in results}) == 3


@pytest.mark.parametrize(
    "fault", [("cut_after", {}), ("status", {"code": 502, "work": True}), ("html", {"work": True})]
)
def test_an_ungated_run_whose_answer_is_lost_is_never_repeated(server: Any, fault: tuple[str, dict[str, Any]]) -> None:
    workflow_id = define(server, SHORT, gate=False)
    kind, options = fault
    server.fault("run_workflow", kind, **options)
    task = Task(workflow_id=workflow_id, start_timeout=2)
    with pytest.raises(AmbiguousRunError) as caught:
        task.attempt()
    assert isinstance(caught.value, AirflowFailException)
    assert caught.value.workflow_id == workflow_id
    assert caught.value.run_key == KEY
    with pytest.raises(AmbiguousRunError):
        task.attempt()
    assert server.record().requests["run_workflow"] == 1


def test_a_retry_of_an_ambiguous_run_can_be_asked_for(server: Any) -> None:
    server.fault("run_workflow", "cut_after")
    task = Task(workflow_id=define(server, SHORT, gate=False), start_timeout=1, retry_ambiguous=True)
    with pytest.raises(AmbiguousRunError) as caught:
        task.attempt()
    assert not isinstance(caught.value, AirflowFailException)


def test_an_ungated_run_that_carries_its_key_is_adopted(server: Any) -> None:
    carries = {"name": "carries", "stages": [{"send": {**SHORT["stages"][0]["send"], "metadata": {"k": "${runKey}"}}}]}  # type: ignore[index]
    server.fault("run_workflow", "cut_after")
    task = Task(workflow_id=define(server, carries, gate=False))
    assert task.attempt()["state"] == "succeeded"
    assert server.record().requests["run_workflow"] == 1


@STORES
def test_a_changed_definition_is_refused_or_adopted_and_never_a_second_run(
    server: Any, dies: Any, durable: bool
) -> None:
    task = Task(definition=SHORT, durable=durable)
    dies(task, "wait")
    first = task.xcoms["instance_id"]
    changed = {**SHORT, "stages": [*SHORT["stages"], {"delay": {"duration": "1s"}}]}  # type: ignore[misc]
    with pytest.raises(KeyReusedError) as caught:
        task.attempt(definition=changed)
    assert caught.value.differs == "workflow"
    assert isinstance(caught.value, AirflowFailException)
    assert task.attempt(definition=changed, on_changed="adopt")["instance_id"] == first
    assert len(server.record().started) == 1


def test_no_wait_attaches_as_well(server: Any) -> None:
    task = Task(definition=LONG, wait_for_termination=False, deferrable=True)
    first, second = task.attempt(), task.attempt()
    assert first["state"] == second["state"] == "running"
    assert first["instance_id"] == second["instance_id"]
    assert len(server.record().started) == 1


def test_a_store_that_fails_lets_nothing_start(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(definition=SHORT)
    monkeypatch.setattr(task.store, "set", refuse)
    with pytest.raises(RuntimeError, match="away"):
        task.attempt()
    assert server.record().started == []


@WAYS
def test_a_row_that_is_late_is_waited_for(server: Any, deferrable: bool) -> None:
    """The server has given the id; until a worker of it writes the row, nobody knows it."""
    server.fault("run_workflow", "late_row", seconds=3)
    task = Task(workflow_id=define(server, SHORT, gate=False), deferrable=deferrable)
    assert task.attempt()["state"] == "succeeded"
    assert len(server.record().started) == 1


def test_a_row_that_is_late_is_no_wrong_server(server: Any, dies: Any) -> None:
    server.fault("run_workflow", "late_row", seconds=3)
    task = Task(workflow_id=define(server, SHORT, gate=False))
    dies(task, "wait")
    assert task.attempt()["state"] == "succeeded"
    assert task.record["seen"] is True
    assert server.record().requests["run_workflow"] == 1

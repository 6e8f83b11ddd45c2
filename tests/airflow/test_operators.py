"""Creating, sending events, cancelling, and cancelling what a failed DAG run left behind."""

from __future__ import annotations

import json
import logging
import time
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from orchestration_integrations import (
    EventNotDeliveredError,
    NotFoundError,
    OrchestrationHttpHook,
    OwnerGoneError,
    OwnerUnreachableError,
    ValidationError,
)
from orchestration_integrations.airflow import callbacks
from orchestration_integrations.airflow.callbacks import cancel_instances, cancel_instances_on_failure
from orchestration_integrations.airflow.compat import AirflowException, AirflowFailException, AirflowSkipException
from orchestration_integrations.airflow.links import OrchestrationInstanceLink
from orchestration_integrations.airflow.operators import (
    OrchestrationCancelInstanceOperator,
    OrchestrationCreateWorkflowOperator,
    OrchestrationRunWorkflowOperator,
    OrchestrationSendEventOperator,
)
from tests.airflow.framework import DAG
from tests.airflow.harness import LONG, SHORT, TO, WAITS, Store, begin, begin_waiting, perform, state_of

TWICE = {"name": "twice", "stages": [{"wait_event": {"event": "go"}}, {"wait_event": {"event": "go"}}]}


def context(*, try_number: int = 1, store: Store | None = None) -> dict[str, Any]:
    ti = SimpleNamespace(
        dag_id="dag",
        run_id="run",
        task_id="event",
        map_index=-1,
        try_number=try_number,
        max_tries=2,
        start_date=datetime.now(timezone.utc),
        task=SimpleNamespace(retries=2),
    )
    return {"ti": ti, **({} if store is None else {"task_state_store": store})}


def cancelled(instance_id: Any, timeout: float) -> Any:
    operator = OrchestrationCancelInstanceOperator(task_id="c", instance_id=instance_id, timeout=timeout)
    return operator.execute(context())


@pytest.mark.parametrize("gate", [False, True])
def test_create_reuses(server: Any, gate: bool) -> None:
    one = OrchestrationCreateWorkflowOperator(task_id="c", definition=SHORT, gate=gate).execute(context())
    assert (
        OrchestrationCreateWorkflowOperator(task_id="c", definition=json.dumps(SHORT), gate=gate).execute(context())
        == one
    )
    with OrchestrationHttpHook(base_url=server.url) as http:
        assert len(http.get_workflow(one).stages) == (2 if gate else 1)
    assert server.record().requests["create_workflow"] == 1


@pytest.mark.parametrize("wrong", [{}, {"definition": SHORT, "path": "x"}, {"definition": {"stages": 1}}])
def test_create_refuses(server: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        OrchestrationCreateWorkflowOperator(task_id="c", **wrong).execute(context())
    assert isinstance(caught.value, AirflowFailException)


WAYS = pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])


@WAYS
@pytest.mark.parametrize("generation", [1, 2, 3])
def test_an_event_is_delivered(server: Any, deferrable: bool, generation: int) -> None:
    instance_id = begin(server, WAITS)
    operator = OrchestrationSendEventOperator(
        task_id="s", instance_id=instance_id, event="approve", deferrable=deferrable, timeout=30, poll_interval=0.2
    )
    result = perform(operator, context())
    assert result["instance_id"] == instance_id
    assert json.loads(json.dumps(result)) == result
    assert [row["event"] for row in server.record().released] == ["approve"]


@WAYS
def test_an_event_waits_for_its_stage(server: Any, deferrable: bool) -> None:
    later = {"name": "later", "stages": [{"delay": {"duration": "2s"}}, *WAITS["stages"]]}  # type: ignore[misc]
    operator = OrchestrationSendEventOperator(
        task_id="s",
        instance_id=begin(server, later),
        event="approve",
        deferrable=deferrable,
        timeout=30,
        poll_interval=0.2,
    )
    perform(operator, context())
    assert len(server.record().released) == 1


@WAYS
@pytest.mark.parametrize(("definition", "reason"), [(SHORT, "no_such_stage"), (TWICE, "repeated_name")])
def test_an_event_that_cannot_be_delivered_is_not_retried(
    server: Any, deferrable: bool, definition: Any, reason: str
) -> None:
    operator = OrchestrationSendEventOperator(
        task_id="s",
        instance_id=begin(server, definition),
        event="go",
        deferrable=deferrable,
        timeout=5,
        poll_interval=0.2,
    )
    with pytest.raises(EventNotDeliveredError) as caught:
        perform(operator, context())
    assert isinstance(caught.value, AirflowFailException)
    assert caught.value.reason == reason
    assert server.record().released == []


def test_an_event_that_comes_too_early_may_be_retried(server: Any) -> None:
    later = {"name": "much later", "stages": [{"delay": {"duration": "1h"}}, *WAITS["stages"]]}  # type: ignore[misc]
    operator = OrchestrationSendEventOperator(task_id="s", instance_id=begin(server, later), event="approve", timeout=1)
    with pytest.raises(EventNotDeliveredError) as caught:
        perform(operator, context())
    assert caught.value.reason == "not_ready"
    assert not isinstance(caught.value, AirflowFailException)


STORES = pytest.mark.parametrize("durable", [True, False], ids=["state store", "variables"])


@STORES
def test_a_retry_after_a_delivery_is_a_success(server: Any, airflow_says: Any, durable: bool) -> None:
    instance_id = begin(server, WAITS)
    store = Store() if durable else None
    operator = OrchestrationSendEventOperator(task_id="s", instance_id=instance_id, event="approve", timeout=30)
    perform(operator, context(store=store))
    assert perform(operator, context(try_number=2, store=store))["instance_id"] == instance_id
    assert server.record().requests["send_event"] == 1
    airflow_says.variables.clear()
    with pytest.raises(EventNotDeliveredError):  # who never sent it cannot claim it, whatever its try number
        perform(operator, context(try_number=3, store=Store() if durable else None))


@STORES
def test_a_try_that_has_sent_nothing_leaves_no_note(server: Any, airflow_says: Any, durable: bool) -> None:
    """S2: the note is written right before the send, so that a later try may still send."""
    twice = {"name": "twice later", "stages": [{"delay": {"duration": "2s"}}, *TWICE["stages"]]}  # type: ignore[misc]
    instance_id = begin(server, twice)
    store = Store() if durable else None
    operator = OrchestrationSendEventOperator(task_id="s", instance_id=instance_id, event="go", stage=1, timeout=0.5)
    with pytest.raises(EventNotDeliveredError) as caught:
        perform(operator, context(store=store))
    assert caught.value.reason == "not_ready"
    operator.timeout = 30
    perform(operator, context(try_number=2, store=store))
    assert [row["stage"] for row in server.record().released] == [1]


@pytest.mark.parametrize("state", ["failed", "success", "restarting", "scheduled", "away"])
def test_an_event_is_sent_only_while_the_task_wants_it(server: Any, airflow_says: Any, state: str) -> None:
    instance_id = begin(server, WAITS)
    store = Store()
    airflow_says.task_state = state
    operator = OrchestrationSendEventOperator(task_id="s", instance_id=instance_id, event="approve")
    if state == "away":
        airflow_says.away = True
    with pytest.raises(OwnerUnreachableError if state == "away" else OwnerGoneError):
        perform(operator, context(store=store))
    assert "send_event" not in server.record().requests
    assert store.texts == {}


def test_a_retry_never_sends_twice_where_several_stages_wait_for_the_name(server: Any) -> None:
    instance_id = begin(server, TWICE)
    store = Store()
    operator = OrchestrationSendEventOperator(task_id="s", instance_id=instance_id, event="go", stage=0, timeout=30)
    perform(operator, context(store=store))
    with pytest.raises(EventNotDeliveredError) as caught:
        perform(operator, context(try_number=2, store=store))
    assert caught.value.reason == "unknown"
    assert [row["stage"] for row in server.record().released] == [0]


@pytest.mark.parametrize("generation", [1, 2, 3])
def test_a_cancel_tells_what_is_true(server: Any, generation: int) -> None:
    instance_id = begin_waiting(server)
    timeout = 1.5 if generation == 2 else 15.0
    operator = OrchestrationCancelInstanceOperator(task_id="c", instance_id=instance_id, timeout=timeout)
    result = operator.execute(context())
    assert json.loads(json.dumps(result)) == result
    assert result["status"] == ("not_confirmed" if generation == 2 else "cancelled")
    assert result["state"] == state_of(server, instance_id)
    assert result["in_flight"] == []


def test_a_cancel_that_is_not_confirmed_can_fail(server: Any) -> None:
    operator = OrchestrationCancelInstanceOperator(
        task_id="c", instance_id=begin(server, WAITS), timeout=0.5, fail_if_not_confirmed=True
    )
    with pytest.raises(AirflowException, match="may still run"):
        operator.execute(context())


@pytest.mark.parametrize("generation", [1, 2, 3])
def test_a_cancel_of_what_has_ended(server: Any, generation: int) -> None:
    instance_id = begin(server, SHORT)
    with OrchestrationHttpHook(base_url=server.url) as http:
        http.wait(instance_id, timeout=30)
    operator = OrchestrationCancelInstanceOperator(task_id="c", instance_id=instance_id, fail_if_not_confirmed=True)
    assert operator.execute(context())["status"] == "already_ended"


@pytest.mark.parametrize("nothing", [None, "", "None", [], [None, "None"]])
def test_nothing_to_cancel_skips(server: Any, nothing: Any) -> None:
    with pytest.raises(AirflowSkipException):
        OrchestrationCancelInstanceOperator(task_id="c", instance_id=nothing).execute(context())
    assert server.record().requests == {}


def test_an_unknown_instance_is_not_confirmed_while_its_row_may_be_late_and_then_an_error(server: Any) -> None:
    unknown = "0e7f1d7e-0000-4000-8000-000000000000"
    result = OrchestrationCancelInstanceOperator(task_id="c", instance_id=unknown, timeout=0.5).execute(context())
    assert (result["status"], result["state"]) == ("not_confirmed", None)
    with pytest.raises(NotFoundError) as caught:
        OrchestrationCancelInstanceOperator(task_id="c", instance_id=unknown).execute(context())
    assert isinstance(caught.value, AirflowFailException)


@pytest.mark.parametrize("generation", [1])
def test_a_list_cancels_each(server: Any, generation: int) -> None:
    ids = [begin(server, WAITS) for _ in range(2)]
    result = OrchestrationCancelInstanceOperator(task_id="c", instance_id=[*ids, None, ids[0]]).execute(context())
    assert result["status"] == "cancelled"
    assert [one["instance_id"] for one in result["instances"]] == ids
    assert all(state_of(server, one) == "cancelled" for one in ids)


@pytest.mark.parametrize("generation", [1, 2])
@pytest.mark.parametrize("spelling", ["python", "json", "tuple", "lazy"])
def test_the_text_of_a_list_cancels_each(server: Any, generation: int, spelling: str) -> None:
    """S7: a mapped task's XComs, as a template renders them."""
    ids = [begin(server, LONG) for _ in range(3)]
    given: Any = {
        "python": str([*ids, None]),
        "json": json.dumps([*ids, None]),
        "tuple": (*ids, None),
        "lazy": iter([*ids, None]),
    }[spelling]
    operator = OrchestrationCancelInstanceOperator(task_id="c", instance_id=given, timeout=2)
    result = operator.execute(context())
    assert json.loads(json.dumps(result)) == result
    assert [one["instance_id"] for one in result["instances"]] == ids
    assert server.record().requests["abort_instance"] >= 3
    wanted = "cancelled" if generation == 1 else "not_confirmed"
    assert {one["status"] for one in result["instances"]} == {wanted}
    operator = OrchestrationCancelInstanceOperator(
        task_id="c", instance_id=str(ids), timeout=1, fail_if_not_confirmed=True
    )
    if generation == 2:
        with pytest.raises(AirflowException) as caught:
            operator.execute(context())
        assert all(one in str(caught.value) for one in ids)


def paid_and_waiting(server: Any, http: OrchestrationHttpHook, *then: Any) -> str:
    """A run that has paid 100."""
    definition = {"name": "paid", "stages": [SHORT["stages"][0], *then]}
    started = http.run_workflow(http.ensure_workflow(definition).workflow.id, {"to": "users:1"})
    while not any(row.terminated_at for row in http.get_instance(started.id).status):
        time.sleep(0.02)
    return started.id


@pytest.mark.parametrize("generation", [1, 2, 3])
def test_a_list_tells_what_each_had_moved_as_one_id_does(server: Any, generation: int) -> None:
    """Also of those that nobody saw to end, which are all of them on generation 2."""
    with OrchestrationHttpHook(base_url=server.url) as http:
        waiting = [paid_and_waiting(server, http, {"delay": {"duration": "1h"}}) for _ in range(2)]
        over = paid_and_waiting(server, http)
        http.wait(over)
        result = cancelled([*waiting, over], 2.0)
        assert [one["status"] for one in result["instances"]] == [
            *(["not_confirmed" if generation == 2 else "cancelled"] * 2),
            "already_ended",
        ]
        for one in result["instances"]:
            alone = cancelled(one["instance_id"], 1.0)
            moved = ("stages_completed", "transactions", "maybe_repeated", "complete", "state")
            assert {name: one.get(name) for name in moved} == {name: alone.get(name) for name in moved}
            assert len(one["transactions"]) == 1


def test_what_nobody_read_is_never_none(server: Any) -> None:
    with OrchestrationHttpHook(base_url=server.url) as http:
        instance_id = paid_and_waiting(server, http, {"delay": {"duration": "1h"}})
    unread = {"stages_completed": None, "transactions": [], "maybe_repeated": None, "complete": False}
    with server.fault("get_instance", "status", 1000, code=403):
        result = cancelled([instance_id, "0e7f1d7e-0000-4000-8000-000000000000"], 1.0)
    for one in result["instances"]:
        assert one["status"] == "not_confirmed"
        assert {name: one[name] for name in unread} == unread


@pytest.mark.parametrize("odd", ["LazyXComSelectSequence([2 items])", "[broken", "a b", "{'x': 1}", 7, ["a b"], [1]])
def test_what_is_no_id_is_never_taken_for_nothing(server: Any, odd: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        OrchestrationCancelInstanceOperator(task_id="c", instance_id=odd).execute(context())
    assert isinstance(caught.value, AirflowFailException)
    assert server.record().requests == {}


def failing_dag() -> Any:
    with DAG("failing", schedule=None, start_date=datetime(2024, 1, 1, tzinfo=timezone.utc)) as dag:
        OrchestrationRunWorkflowOperator(task_id="one", workflow_id="w")
        OrchestrationRunWorkflowOperator.partial(task_id="many", workflow_id="w").expand(variables=[TO, TO])
        OrchestrationCancelInstanceOperator(task_id="other", instance_id="x")
    return dag


def test_the_callback_is_attached_once_beside_others() -> None:
    def mine(_: Any) -> None:
        """A user's own."""

    dag = failing_dag()
    dag.get_task("one").on_failure_callback = mine
    for _ in range(2):
        assert cancel_instances_on_failure(dag) is dag
    assert dag.on_failure_callback == [cancel_instances]
    assert dag.has_on_failure_callback is True
    assert dag.get_task("one").on_failure_callback == [mine, cancel_instances]
    assert dag.get_task("many").partial_kwargs["on_failure_callback"] == [cancel_instances]
    assert dag.get_task("other").on_failure_callback == [cancel_instances]


@pytest.mark.parametrize("generation", [1, 3])
def test_the_callback_cancels_what_runs_and_nothing_else(
    server: Any, generation: int, caplog: pytest.LogCaptureFixture
) -> None:
    running = [begin(server, LONG), begin(server, LONG)]
    ended = begin(server, SHORT)
    with OrchestrationHttpHook(base_url=server.url) as http:
        http.wait(ended, timeout=30)
    ids = {"one": [running[0]], "many": [running[1], ended]}

    def pull(task_ids: Any, key: str, **_: Any) -> Any:
        assert key == "orchestration_instance"
        return [*({"instance_id": one, "conn_id": "orchestration_default"} for one in ids[task_ids[0]]), None]

    ti = SimpleNamespace(run_id="run", xcom_pull=pull)
    with caplog.at_level(logging.INFO, "orchestration_integrations.airflow"):
        cancel_instances({"dag": failing_dag(), "ti": ti, "run_id": "run"})
    assert [state_of(server, one) for one in running] == ["cancelled", "cancelled"]
    assert server.record().requests["abort_instance"] == 2  # once each
    assert "3 instances have ended: 2 cancelled, 1 succeeded, whose money was not rolled back" in caplog.text


def test_the_callback_sends_all_aborts_first_and_names_what_is_left(
    server: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """S13, W2: sixty live runs that no abort ends, and one limit for all of them."""
    ids = [begin(server, LONG) for _ in range(60)]
    monkeypatch.setattr(callbacks, "CANCEL_SECONDS", 6.0)

    def pull(task_ids: Any, key: str, **_: Any) -> Any:
        found = ids if task_ids[0] == "one" else []
        return [{"instance_id": one, "conn_id": "orchestration_default"} for one in found]

    ti = SimpleNamespace(run_id="run", xcom_pull=pull)
    began = time.monotonic()
    cancel_instances({"dag": failing_dag(), "ti": ti, "run_id": "run"})
    assert time.monotonic() - began < 9
    assert server.record().requests["abort_instance"] >= 60
    (line,) = [one.getMessage() for one in caplog.records if "may still run" in one.getMessage()]
    assert all(one in line for one in ids)


def test_a_connection_that_is_gone_is_named_with_its_instances(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    def pull(task_ids: Any, key: str, **_: Any) -> Any:
        return [{"instance_id": "i-7", "conn_id": "no_such_connection"}]

    cancel_instances({"dag": failing_dag(), "ti": SimpleNamespace(run_id="run", xcom_pull=pull)})
    assert "i-7 (connection no_such_connection cannot be used" in caplog.text


def test_the_callback_never_raises(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    def pull(**_: Any) -> Any:
        raise RuntimeError("no XCom here")

    cancel_instances({})
    cancel_instances({"dag": failing_dag(), "ti": SimpleNamespace(run_id="run", xcom_pull=pull)})
    assert "could not be read" in caplog.text


def test_the_link_never_raises() -> None:
    link = OrchestrationInstanceLink()
    assert link.get_link(None, ti_key=object()) == ""

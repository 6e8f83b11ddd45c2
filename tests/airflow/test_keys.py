"""Which payment is meant: one key, one payment, over renamed definitions, lost records, changed lists and amounts."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from orchestration_integrations import (
    AmbiguousRunError,
    AuthenticationError,
    InstanceFailedError,
    KeyReusedError,
    NotFoundError,
    OrchestrationError,
    OrchestrationHttpHook,
    StateUnknownError,
    TransportError,
    ValidationError,
    WaitTimeoutError,
)
from orchestration_integrations.airflow import limits, record_care, task_times
from orchestration_integrations.airflow.compat import AirflowFailException
from orchestration_integrations.airflow.limits import limit_of
from tests.airflow.harness import BROKEN, CARRIES, LONG, SHORT, WAITS, Task, define, first_event, rebuilt
from tests.airflow.test_reattach import STORES, dies, rounds  # noqa: F401  (a fixture)
from tests.airflow.test_run_operator import deferred
from tests.wrong_options import WRONG_OPTIONS


def paid(server: Any, name: str) -> int:
    return int(server.balance(name, "EUR/2"))


TO_M1, TO_M2 = {"to": "merchants:m1"}, {"to": "merchants:m2"}


@STORES
def test_a_renamed_definition_is_the_same_payment(server: Any, dies: Any, durable: bool) -> None:  # noqa: F811
    """R1."""
    task = Task(definition=SHORT, durable=durable)
    dies(task, "wait")
    result = task.attempt(definition={**SHORT, "name": "renamed"})
    assert result["instance_id"] == server.record().started[0]["instance_id"]
    assert len(server.record().started) == 1


@STORES
def test_lowered_retries_are_no_clear(server: Any, dies: Any, durable: bool) -> None:  # noqa: F811
    """R2."""
    task = Task(definition=SHORT, durable=durable)
    dies(task, "wait")
    with OrchestrationHttpHook(base_url=server.url) as http:
        http.wait(task.xcoms["instance_id"], timeout=30)
    task.retries = 1
    task.attempt()
    assert rounds(server) == [("dag/run/pay/-1", 0)]
    assert paid(server, "merchants:1") == 100


@STORES
@pytest.mark.parametrize("how", ["answer cut", "killed amid the submit"])
def test_a_clear_of_an_ungated_run_of_unknown_fate_is_ambiguous_until_it_is_settled(
    server: Any,
    airflow_says: Any,
    dies: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    durable: bool,
    how: str,
) -> None:
    """R3."""
    task = Task(workflow_id=define(server, SHORT, gate=False), durable=durable, start_timeout=1)
    if how == "answer cut":
        server.fault("run_workflow", "cut_after")
        with pytest.raises(AmbiguousRunError):
            task.attempt()
    else:
        with monkeypatch.context() as patch:
            real = OrchestrationHttpHook._attempt

            def killed(self: Any, call: Any, until: Any) -> Any:
                found = real(self, call, until)
                if call.operation == "run_workflow":
                    raise KeyboardInterrupt
                return found

            patch.setattr(OrchestrationHttpHook, "_attempt", killed)
            with pytest.raises(KeyboardInterrupt):
                task.attempt()
    for _ in range(2):
        task.clear()
        with pytest.raises(AmbiguousRunError) as caught:
            task.attempt()
        assert isinstance(caught.value, AirflowFailException)
    assert server.record().requests["run_workflow"] == 1
    token = caught.value.token
    assert token is not None
    # The printed command, the documented call and the parameter do the same.
    told = re.search(r"airflow variables set (orchestration_settled_\w+) (\S+)", str(caught.value))
    assert told is not None
    assert told[2] == token
    record_care.settle_run("dag", "run", "pay", token)
    assert airflow_says.variables[told[1]] == token
    assert task.attempt()["state"] == "succeeded"
    assert server.record().requests["run_workflow"] == 2
    assert task.attempt()["state"] == "succeeded"  # that token settles nothing else
    assert server.record().requests["run_workflow"] == 2


def test_the_parameter_settles_one_fate(server: Any) -> None:
    server.fault("run_workflow", "cut_after", 2)
    task = Task(workflow_id=define(server, SHORT, gate=False), start_timeout=1)
    with pytest.raises(AmbiguousRunError) as caught:
        task.attempt()
    with pytest.raises(AmbiguousRunError) as again:
        task.attempt(settled=caught.value.token)
    assert server.record().requests["run_workflow"] == 2
    assert again.value.token != caught.value.token
    with pytest.raises(AmbiguousRunError):
        task.attempt(settled=caught.value.token)
    assert server.record().requests["run_workflow"] == 2


@STORES
@pytest.mark.parametrize("how", ["parameter", "Variable"])
def test_a_token_does_nothing_once_the_fate_is_known(server: Any, airflow_says: Any, durable: bool, how: str) -> None:
    """The next try finds the run after all, and the one after that must not pay a second time."""
    task = Task(workflow_id=define(server, CARRIES, gate=False), durable=durable, start_timeout=1.5, on_timeout="leave")
    server.fault("run_workflow", "cut_after", 1)
    server.fault("get_instance_history", "status", -1, code=503)
    with pytest.raises(AmbiguousRunError) as caught:
        task.attempt()
    server.clear_faults()
    token = caught.value.token or ""
    given = {"settled": token} if how == "parameter" else {}
    if how == "Variable":
        record_care.settle_run("dag", "run", "pay", token)
    with pytest.raises(WaitTimeoutError, match="left running"):
        task.attempt(timeout=0.5, **given)
    for _ in range(2):
        assert task.attempt(**given)["state"] == "succeeded"
    assert len(server.record().started) == 1
    assert server.balance("merchants:1", "EUR/2") == 100


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize(("changes", "path"), [*WRONG_OPTIONS, ({"start_timeout": -1}, "start_timeout")])
def test_a_wrong_option_is_refused_before_anything_is_sent(
    server: Any, deferrable: bool, changes: dict[str, Any], path: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        Task(definition=SHORT, deferrable=deferrable, **changes).attempt()
    assert caught.value.path == path
    assert isinstance(caught.value, AirflowFailException)
    assert server.record().started == []


@STORES
def test_a_changed_list_never_gives_one_merchant_the_others_success(server: Any, durable: bool) -> None:
    """R4: mapped, the upstream list changed, both cleared."""
    first, second = (Task(definition=SHORT, map_index=index, durable=durable) for index in (0, 1))
    first.attempt(variables=TO_M1)
    second.attempt(variables=TO_M2)
    for task in (first, second):
        task.clear()
    with pytest.raises(KeyReusedError) as caught:
        first.attempt(variables={"to": "merchants:new"})
    assert caught.value.differs == "variables.to"
    assert isinstance(caught.value, AirflowFailException)
    second.attempt(variables=TO_M2)
    assert (paid(server, "merchants:m1"), paid(server, "merchants:m2")) == (100, 200)
    assert paid(server, "merchants:new") == 0


@STORES
def test_another_amount_is_another_payment(server: Any, dies: Any, durable: bool) -> None:  # noqa: F811
    """R4."""
    stages = [{"send": {**SHORT["stages"][0]["send"], "amount": {"amount": "${amount}", "asset": "EUR/2"}}}]  # type: ignore[index]
    task = Task(definition={"name": "amounts", "stages": stages}, durable=durable)
    dies(task, "wait", variables={**TO_M1, "amount": 5})
    with pytest.raises(KeyReusedError) as caught:
        task.attempt(variables={**TO_M1, "amount": 9999})
    assert caught.value.differs == "variables.amount"
    changed = {**TO_M1, "amount": 9999}
    assert task.attempt(variables=changed, fingerprint_ignores=("amount",))["state"] == "succeeded"
    assert task.attempt(variables=changed, on_changed="adopt")["state"] == "succeeded"
    assert paid(server, "merchants:m1") == 5


@STORES
def test_one_key_in_two_tasks_names_one_payment(server: Any, durable: bool) -> None:
    """R4."""
    one = Task(definition=SHORT, task_id="one", run_key="invoice-7", durable=durable).attempt(variables=TO_M1)
    other = Task(definition=SHORT, task_id="other", run_key="invoice-7", durable=durable)
    with pytest.raises(KeyReusedError) as caught:
        other.attempt(variables=TO_M2)
    assert caught.value.differs == "content"
    assert other.attempt(variables=TO_M1)["instance_id"] == one["instance_id"]
    assert (paid(server, "merchants:m1"), paid(server, "merchants:m2")) == (100, 0)


@STORES
def test_a_given_key_that_map_indexes_share_is_refused(server: Any, airflow_says: Any, durable: bool) -> None:
    first, second = (Task(definition=SHORT, map_index=n, run_key="invoice-7", durable=durable) for n in (0, 1))
    first.attempt()
    with pytest.raises(KeyReusedError, match="map index 0") as caught:
        second.attempt()  # the very same content: nothing else could tell them apart
    assert isinstance(caught.value, AirflowFailException)
    assert first.attempt()["state"] == "succeeded"
    assert len(server.record().started) == 1


@STORES
def test_a_key_that_changes_between_tries_is_refused(server: Any, dies: Any, durable: bool) -> None:  # noqa: F811
    """A template with the time of day in it, say."""
    task = Task(definition=SHORT, durable=durable)
    dies(task, "wait", run_key="at-10:00")
    with pytest.raises(KeyReusedError, match="at-10:00"):
        task.attempt(run_key="at-10:05")
    task.clear()
    with pytest.raises(KeyReusedError):
        task.attempt(run_key="at-10:05")  # that run's end was told to nobody
    assert task.attempt(run_key="at-10:00")["state"] == "succeeded"
    assert len(server.record().started) == 1
    task.clear()
    task.attempt(run_key="at-11:00")
    assert [key for key, _ in rounds(server)] == ["at-10:00", "at-11:00"]


@STORES
def test_a_clear_can_be_told_to_report_only(server: Any, durable: bool) -> None:
    """R11: a backfill that reprocesses completed runs."""
    task = Task(definition=SHORT, durable=durable, rerun_on_clear=False)
    first = task.attempt()
    for _ in range(2):
        task.clear()
        assert task.attempt()["instance_id"] == first["instance_id"]
    assert paid(server, "merchants:1") == 100


@pytest.mark.parametrize("gate", [True, False])
def test_a_record_that_was_deleted_is_no_proof(server: Any, airflow_says: Any, dies: Any, gate: bool) -> None:  # noqa: F811
    task = Task(workflow_id=define(server, SHORT, gate=gate), durable=False, start_timeout=10 if gate else 1)
    dies(task, "wait")
    airflow_says.variables.clear()
    if gate:
        assert task.attempt()["instance_id"] == server.record().started[0]["instance_id"]
    else:
        with pytest.raises(AmbiguousRunError):
            task.attempt()
        with pytest.raises(AmbiguousRunError):
            task.attempt()
    assert len(server.record().started) == 1


def test_a_try_that_failed_before_its_submit_does_not_stop_the_next(server: Any) -> None:
    """Ungated, in Variables: the first try's note vouches for the absence of a record."""
    task = Task(workflow_id=define(server, SHORT, gate=False), durable=False, start_timeout=2)
    server.fault("get_workflow", "status", 50, code=503)
    with pytest.raises(OrchestrationError) as caught:
        task.attempt()
    assert not isinstance(caught.value, AirflowFailException)
    server.clear_faults()
    assert task.attempt()["state"] == "succeeded"
    assert server.record().requests["run_workflow"] == 1


@pytest.mark.parametrize("gate", [True, False])
def test_without_any_store_a_retry_never_pays_twice(
    server: Any,
    dies: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    gate: bool,
) -> None:
    monkeypatch.setenv("AIRFLOW__ORCHESTRATION__RECORD_STORE", "none")
    task = Task(workflow_id=define(server, SHORT, gate=gate), durable=False, start_timeout=10 if gate else 1)
    dies(task, "wait")
    if gate:
        assert task.attempt()["instance_id"] == server.record().started[0]["instance_id"]
    else:
        with pytest.raises(AmbiguousRunError):
            task.attempt()
    assert len(server.record().started) == 1
    monkeypatch.setenv("AIRFLOW__ORCHESTRATION__RECORD_STORE", "perhaps")
    with pytest.raises(Exception, match="record_store"):
        task.attempt()


# ---- S6: what a template made of nothing -----------------------------------------------------------


@pytest.mark.parametrize("text", ["None", "merchants:None", " None ", "a/None/b"])
@pytest.mark.parametrize("where", ["variables", "run_key"])
def test_the_text_none_is_refused(server: Any, text: str, where: str) -> None:
    arguments: dict[str, Any] = {"variables": {"to": text}} if where == "variables" else {"run_key": text}
    with pytest.raises(ValidationError, match="None") as caught:
        Task(definition=SHORT, **arguments).attempt()
    assert isinstance(caught.value, AirflowFailException)
    assert server.record().requests == {}


@pytest.mark.parametrize("text", ["NoneSuch", "none", "merchants:Nonemore", "x_None"])
def test_other_texts_pass(server: Any, text: str) -> None:
    stages = [{"send": {**SHORT["stages"][0]["send"], "metadata": {"memo": "${memo}"}}}]  # type: ignore[index]
    definition = {"name": "memo", "stages": stages}
    Task(definition=definition, variables={"to": "merchants:1", "memo": text}).attempt()


def test_the_text_none_can_be_allowed_by_name(server: Any) -> None:
    stages = [{"send": {**SHORT["stages"][0]["send"], "metadata": {"memo": "${memo}"}}}]  # type: ignore[index]
    definition = {"name": "memo", "stages": stages}
    variables = {"to": "merchants:1", "memo": "None of these"}
    assert Task(definition=definition, variables=variables, allow_none_text=["memo"]).attempt()["state"] == "succeeded"


# ---- what a gateway says, and what is said of a run that may go on ----------------------------------

PAGE = {"code": 404, "work": False}


def test_one_gateway_page_after_the_event_fails_nothing(server: Any) -> None:
    """W1 (a)."""
    task = Task(definition=WAITS)
    operator, context, last = deferred(task)
    with OrchestrationHttpHook(base_url=server.url) as http:
        http.send_event_when_ready(task.xcoms["instance_id"], "approve", timeout=30)
    event = first_event(rebuilt(last.trigger))
    assert event["status"] == "succeeded"
    server.fault("get_instance", "html", 1, **PAGE)
    from tests.airflow.harness import perform_from

    assert perform_from(operator, context, last, event)["state"] == "succeeded"


@STORES
def test_one_gateway_page_on_a_retry_fails_nothing(server: Any, dies: Any, durable: bool) -> None:  # noqa: F811
    """W1 (b)."""
    task = Task(definition=SHORT, durable=durable)
    dies(task, "wait")
    server.fault("get_instance", "html", 2, **PAGE)
    assert task.attempt()["state"] == "succeeded"


@pytest.mark.parametrize("generation", [1])
def test_one_gateway_page_at_the_deadline_keeps_no_cancel_back(server: Any, generation: int) -> None:
    """W1 (c)."""
    task = Task(definition=LONG)
    operator, context, last = deferred(task, timeout=0.5)
    event = first_event(rebuilt(last.trigger))
    assert event["status"] == "timeout"
    server.fault("get_instance", "html", 1, **PAGE)
    with pytest.raises(WaitTimeoutError, match="it was cancelled"):
        operator.resume_execution(last.method_name, {**last.kwargs, "event": event}, context)
    assert server.record().requests["abort_instance"] >= 1


@contextlib.contextmanager
def _not_final() -> Iterator[None]:
    try:
        yield
    except AirflowFailException:
        pytest.fail("Airflow must be free to retry this")


@pytest.mark.parametrize("operation", ["get_workflow", "create_workflow", "run_workflow", "list_workflows"])
def test_a_gateway_page_on_a_first_try_may_be_retried(server: Any, operation: str) -> None:
    gated = define(server, SHORT)
    server.fault(operation, "html", 1, **PAGE)
    task = Task(definition={**SHORT, "name": "another"}) if operation != "get_workflow" else Task(workflow_id=gated)
    for _ in range(2):
        with contextlib.suppress(NotFoundError), _not_final():
            assert task.attempt()["state"] == "succeeded"
    assert len(server.record().released) == 1
    assert paid(server, "merchants:1") == 100


@pytest.mark.parametrize("retries", [0, 2])
def test_refused_credentials_name_the_run_that_may_go_on(server: Any, retries: int) -> None:
    """W7."""
    task = Task(definition=LONG, retries=retries)
    operator, context, last = deferred(task)
    event = {"status": "error", "instance_id": task.xcoms["instance_id"], "message": "401"}
    kwargs: Any = {**last.kwargs, "resumed": 5}
    server.fault("get_instance", "status", 50, code=401)
    with pytest.raises(AuthenticationError) as caught:
        operator.resume_execution(last.method_name, {**kwargs, "event": event}, context)
    assert task.xcoms["instance_id"] in str(caught.value)
    follows = "the next try continues with it" if retries else "no retry follows"
    assert "may still run" in str(caught.value)
    assert str(caught.value).endswith(f"({follows})")


def test_a_server_that_is_away_leaves_a_word_about_the_run(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """R10."""
    task = Task(definition=LONG, retries=0)
    operator, context, last = deferred(task)
    event = {"status": "succeeded", "instance_id": task.xcoms["instance_id"]}

    def away(*_: Any, **__: Any) -> Any:
        raise TransportError("connection refused")

    monkeypatch.setattr(OrchestrationHttpHook, "get_instance", away)
    with pytest.raises(StateUnknownError, match=r"may still run.*\(no retry follows\)$") as caught:
        operator.resume_execution(last.method_name, {**last.kwargs, "resumed": 5, "event": event}, context)
    assert f"the state of instance {task.xcoms['instance_id']} is unknown" in str(caught.value)


# ---- S9, S10: what is said, and how often -------------------------------------------------------------


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records]


def test_stages_are_named_as_their_user_wrote_them(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    task = Task(definition=WAITS, deferrable=True)
    _, _, last = deferred(task)
    with OrchestrationHttpHook(base_url=server.url) as http:
        http.send_event_when_ready(task.xcoms["instance_id"], "approve", timeout=30)
    with caplog.at_level(logging.INFO):
        first_event(rebuilt(last.trigger))
    told = [line.partition(": ")[2] for line in lines(caplog) if ": stage " in line]
    assert told[:2] == ["stage 0 (send) has begun", "stage 0 (send) has ended"]
    assert "stage 1 (wait_event) has begun" in told
    assert not any("go:" in line or "stage 3" in line for line in told)


def test_each_thing_is_said_once(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    from orchestration_integrations.airflow.compat import AIRFLOW_3

    with caplog.at_level(logging.INFO), pytest.raises(InstanceFailedError) as caught:
        Task(definition=BROKEN).attempt()
    assert str(caught.value).count("run anew") == 1
    assert str(caught.value).endswith("to run anew, clear the task")
    assert logging.getLogger("httpx").level == logging.WARNING
    assert not any("HTTP Request" in line for line in lines(caplog))
    if not AIRFLOW_3:
        of_the_task = [one.getMessage() for one in caplog.records if one.name.startswith(("airflow", "orchestration"))]
        assert sum("/instances/" in line for line in of_the_task) == 1


@pytest.mark.parametrize("generation", [2])
def test_a_cancel_within_what_airflow_leaves(server: Any, generation: int) -> None:
    """R8: ``execution_timeout=4``: the wait ends, and its end is told, before Airflow's own limit."""
    task = Task(definition=LONG, execution_timeout=timedelta(seconds=4))
    with pytest.raises(WaitTimeoutError, match="its cancel is not confirmed"):
        task.attempt()
    assert server.record().requests["abort_instance"] >= 1


@pytest.mark.parametrize("generation", [1])
def test_a_slow_start_does_not_move_the_end(server: Any, generation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """R8: Airflow's clock starts as it calls the operator, not as the run is started at last."""
    made: list[Any] = []

    def noted(**arguments: Any) -> Any:
        made.append(limit_of(**arguments))
        return made[-1]

    monkeypatch.setattr(task_times, "limit_of", noted)
    server.fault("list_workflows", "stall", 1, seconds=2)
    task = Task(definition=LONG, timeout=0.1, execution_timeout=timedelta(seconds=600))
    called = time.time()
    with pytest.raises(WaitTimeoutError):
        task.attempt()
    assert time.time() - called > 2
    assert made[0].airflow_at - called < 602
    assert limits.RESERVE_SECONDS > limits.CANCEL_SECONDS

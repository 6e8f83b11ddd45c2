"""``@task.orchestration``: the function's result is what is paid, once, whatever happens to the tries."""

from __future__ import annotations

from typing import Any

import pytest

from orchestration_integrations import KeyReusedError, ValidationError
from orchestration_integrations.airflow.compat import AirflowFailException, TaskDeferred
from orchestration_integrations.airflow.decorators import orchestration_task
from tests.airflow.framework import DAG, task_namespace
from tests.airflow.harness import SHORT, TO, WAITS, Task, perform, perform_from

WAYS = pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])


class Counting:
    """A function's calls, and what it returns: the next in turn, the last one again and again."""

    def __init__(self, *returned: Any) -> None:
        self.returned = list(returned)
        self.calls = 0

    def __call__(self) -> Any:
        self.calls += 1
        return self.returned[min(self.calls, len(self.returned)) - 1]


class DecoratedTask(Task):
    """A task of which each try has a fresh operator, as each process parses the DAG anew."""

    def __init__(self, function: Any, **arguments: Any) -> None:
        self.given = {key: arguments.pop(key) for key in ("retries",) if key in arguments}
        super().__init__(**self.given)
        self.function, self.more = function, arguments

    def fresh(self) -> Any:
        called = self.function

        def pay() -> Any:
            return called()

        made = {"definition": SHORT, "poll_interval": 0.2, "retries": self.retries, **self.more}
        return orchestration_task(pay, **made)().operator

    def attempt(self, **changes: Any) -> Any:
        self.try_number += 1
        self.xcoms.clear()
        operator = self.fresh()
        return perform(operator, self.context(operator))


@WAYS
def test_the_function_is_called_once_for_a_payment(server: Any, deferrable: bool) -> None:
    function = Counting(TO, {"to": "merchants:2"})
    result = DecoratedTask(function, deferrable=deferrable).attempt()
    assert result["state"] == "succeeded"
    assert function.calls == 1
    assert server.balance("merchants:1", "EUR/2") == 100


def test_a_task_that_resumes_calls_nothing(server: Any) -> None:
    """Another process takes the run up, with a function that would return other variables by now."""
    function = Counting(TO, {"to": "merchants:2"})
    task = DecoratedTask(function, definition=WAITS, deferrable=True)
    task.try_number = 1
    first = task.fresh()
    with pytest.raises(TaskDeferred) as deferred:
        first.execute(task.context(first))
    server_event(server, task.xcoms["instance_id"])
    resumed = task.fresh()
    event = {"status": "error", "message": "a fault", "instance_id": task.xcoms["instance_id"]}
    assert perform_from(resumed, task.context(resumed), deferred.value, event)["state"] == "succeeded"
    assert function.calls == 1
    assert resumed.variables is None
    assert server.balance("merchants:1", "EUR/2") == 200
    assert len(server.record().started) == 1


def server_event(server: Any, instance_id: str) -> None:
    from orchestration_integrations import OrchestrationHttpHook

    with OrchestrationHttpHook(base_url=server.url) as http:
        http.send_event_when_ready(instance_id, "approve", timeout=30)


@WAYS
def test_a_retry_calls_it_anew_and_pays_nothing_else(server: Any, deferrable: bool) -> None:
    function = Counting(TO, {"to": "merchants:2"})
    task = DecoratedTask(function, deferrable=deferrable)
    task.attempt()
    with pytest.raises(KeyReusedError) as caught:
        task.attempt()
    assert caught.value.differs == "variables.to"
    assert isinstance(caught.value, AirflowFailException)
    assert function.calls == 2
    assert len(server.record().started) == 1


def test_a_retry_that_returns_the_same_reports_the_same(server: Any) -> None:
    task = DecoratedTask(Counting(TO))
    assert task.attempt()["instance_id"] == task.attempt()["instance_id"]


async def _later() -> dict[str, str]:
    return TO


@pytest.mark.parametrize("returned", [None, "to", [("to", "merchants:1")], 5])
def test_what_is_no_mapping_is_refused(server: Any, returned: Any) -> None:
    with pytest.raises(ValidationError, match=r"pay must return the variables .* \(\{\} for none\)") as caught:
        DecoratedTask(Counting(returned)).attempt()
    assert isinstance(caught.value, AirflowFailException)
    assert caught.value.path == "variables"
    assert not server.record().requests


def test_an_asynchronous_function_is_refused_where_the_dag_is_parsed() -> None:
    with pytest.raises(ValidationError, match="leave out async"):
        orchestration_task(_later, definition=SHORT)()


def test_variables_come_from_the_function_alone() -> None:
    with pytest.raises(ValidationError, match="the function pay returns them"):
        DecoratedTask(Counting(TO), variables=TO).fresh()


def test_arguments_templates_and_context(server: Any) -> None:
    @orchestration_task(definition=SHORT, poll_interval="{{ params.pause }}")
    def pay(shop: str, number: int, *, run_id: Any = None, **rest: Any) -> dict[str, str]:
        assert (rest["ti"].task_id, rest["extra"]) == ("pay", "pay.json")
        return {"to": f"{shop}:{number}:{run_id}"}

    with DAG("d", schedule=None):
        operator = pay("{{ params.shop }}", number=7, extra="pay.json").operator
    context = {**Task(run_id="r1").context(operator), "params": {"shop": "shops", "pause": 0.2}}
    operator.render_template_fields(context)
    assert perform(operator, context)["state"] == "succeeded"
    assert server.balance("shops:7:r1", "EUR/2") == 100


def test_what_the_function_returns_is_no_template(server: Any) -> None:
    task = DecoratedTask(Counting({**TO, "memo": "{{x}}"}), wait_for_termination=False)
    operator = task.fresh()
    task.try_number = 1
    context = {**task.context(operator), "x": "7"}
    operator.render_template_fields(context)
    operator.execute(context)
    assert operator.variables == {**TO, "memo": "{{x}}"}


def test_override_partial_and_expand() -> None:
    @orchestration_task(definition=SHORT)
    def pay(to: str, amount: int) -> dict[str, Any]:
        return {"to": to, "amount": amount}

    with DAG("d", schedule=None) as dag:
        again = pay.override(task_id="again", timeout=5)("a", 1).operator
        pay.partial(amount=100).expand(to=["a", "b"])
    assert (again.task_id, again.timeout, again.definition) == ("again", 5, SHORT)
    mapped = dag.get_task("pay")
    one = mapped.unmap({"op_kwargs": {"to": "a", "amount": 100}})
    assert one._returned({}) == {"to": "a", "amount": 100}


def test_the_annotation_speaks_of_variables_and_not_of_the_result() -> None:
    def pay() -> dict[str, str]:
        return TO

    assert orchestration_task(pay, definition=SHORT)().operator.multiple_outputs is False
    assert orchestration_task(pay, definition=SHORT, multiple_outputs=True)().operator.multiple_outputs is True


def test_the_decorator_is_airflows() -> None:
    @task_namespace.orchestration(definition=SHORT)
    def pay() -> dict[str, str]:
        return TO

    operator = pay().operator
    assert operator.custom_operator_name == "@task.orchestration"
    assert "variables" not in operator.template_fields

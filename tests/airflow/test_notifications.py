"""Notifiers: what a callback cancels, and which event it sends."""

from __future__ import annotations

import logging
import time
from types import SimpleNamespace
from typing import Any

import pytest

from orchestration_integrations import OrchestrationHttpHook, ValidationError
from orchestration_integrations.airflow import cancelling
from orchestration_integrations.airflow.arguments import instance_ids
from orchestration_integrations.airflow.callbacks import cancel_instances, cancel_wanted
from orchestration_integrations.airflow.notifications import (
    OrchestrationCancelInstanceNotifier,
    OrchestrationSendEventNotifier,
)
from orchestration_integrations.airflow.operators import OrchestrationRunWorkflowOperator
from orchestration_integrations.airflow.provider_info import get_provider_info
from tests.airflow.framework import DAG
from tests.airflow.harness import CARRIES, LONG, TO, begin, begin_waiting, state_of


def context(found: Any = None, **more: Any) -> dict[str, Any]:
    """What Airflow hands to a callback; an XCom pull finds ``found``."""
    with DAG("d", schedule=None) as dag:
        OrchestrationRunWorkflowOperator(task_id="pay", workflow_id="w")
    ti = SimpleNamespace(run_id="run", xcom_pull=lambda *_, **__: found)
    return {"dag": dag, "ti": ti, "run_id": "run", **more}


def call(notifier: Any, given: dict[str, Any], caplog: pytest.LogCaptureFixture) -> str:
    """What the log says; Airflow logs what a notifier raises, and in later versions raises it again."""
    with caplog.at_level(logging.INFO):
        try:
            notifier(given)
        except Exception as error:
            return f"{caplog.text}\nraised {error}"
    return caplog.text


@pytest.mark.parametrize("generation", [3])
@pytest.mark.parametrize("ids", ["one", "list", "template"])
def test_it_cancels_what_it_names(server: Any, generation: int, ids: str, caplog: pytest.LogCaptureFixture) -> None:
    first, second, other = (begin(server, LONG) for _ in range(3))
    given = {"one": first, "list": [first, second], "template": "{{ params.ids }}"}[ids]
    notifier = OrchestrationCancelInstanceNotifier(instance_ids=given, timeout=10)
    told = call(notifier, context(params={"ids": [first, second]}), caplog)
    assert state_of(server, first) == "cancelled"
    assert state_of(server, second) == ("running" if ids == "one" else "cancelled")
    assert state_of(server, other) == "running"
    assert ("1 instance has ended: 1 cancelled" if ids == "one" else "2 instances have ended: 2 cancelled") in told


@pytest.mark.parametrize("generation", [3])
def test_without_ids_it_cancels_what_the_dag_run_has_started(server: Any, generation: int) -> None:
    instance_id = begin(server, LONG)
    found = [{"instance_id": instance_id, "conn_id": "orchestration_default"}]
    OrchestrationCancelInstanceNotifier()(context(found))
    assert state_of(server, instance_id) == "cancelled"


@pytest.mark.parametrize("generation", [3])
def test_each_callback_fills_in_its_own_templates(server: Any, generation: int) -> None:
    """One notifier stands in default_args, for all tasks."""
    first, second = begin(server, LONG), begin(server, LONG)
    notifier = OrchestrationCancelInstanceNotifier(instance_ids="{{ params.id }}")
    for one in (first, second):
        notifier(context(params={"id": one}))
        assert state_of(server, one) == "cancelled"
    assert notifier.instance_ids == "{{ params.id }}"


@pytest.mark.parametrize("nothing", ["None", "", "[]"])
def test_a_template_that_comes_to_nothing_cancels_nothing(
    server: Any, nothing: str, caplog: pytest.LogCaptureFixture
) -> None:
    instance_id = begin(server, LONG)
    notifier = OrchestrationCancelInstanceNotifier(instance_ids="{{ params.ids }}")
    found = [{"instance_id": instance_id, "conn_id": "orchestration_default"}]
    assert "there is no instance to cancel" in call(notifier, context(found, params={"ids": nothing}), caplog)
    assert not server.record().requests.get("abort_instance")


def test_what_is_not_seen_to_end_is_named(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Generation 2 answers an abort and goes on."""
    instance_id = begin(server, LONG)
    told = call(OrchestrationCancelInstanceNotifier(instance_ids=instance_id, timeout=1), context(), caplog)
    assert "1 of 1 instances may still run" in told
    assert instance_id in told


@pytest.mark.parametrize("bad", ["<xcom of 7>", "('a', 5)"])
def test_ids_that_are_none_are_an_error_that_names_the_field(
    server: Any, bad: str, caplog: pytest.LogCaptureFixture
) -> None:
    told = call(OrchestrationCancelInstanceNotifier(instance_ids=bad), context(), caplog)
    assert "instance_ids" in told
    assert "raised" in told or "Failed to send notification" in told
    assert not server.record().requests


def test_an_event_is_sent_once(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    instance_id = begin_waiting(server)
    notifier = OrchestrationSendEventNotifier(instance_id="{{ params.id }}", event="approve", stage="1", timeout=5)
    assert "has taken the event" in call(notifier, context(params={"id": instance_id}), caplog)
    caplog.clear()
    assert "was not seen to be taken" in call(notifier, context(params={"id": instance_id}), caplog)
    with OrchestrationHttpHook(base_url=server.url) as http:
        http.wait(instance_id, timeout=20)
    assert server.balance(TO["to"], "EUR/2") == 200
    assert server.record().requests["send_event"] == 1


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"instance_id": "None"}, "instance_id"),
        ({"event": ""}, "event"),
        ({"stage": "x"}, "stage"),
        ({"timeout": "y"}, "timeout"),
    ],
)
def test_a_wrong_argument_sends_nothing(
    server: Any, arguments: dict[str, Any], field: str, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = OrchestrationSendEventNotifier(**{"instance_id": "i", "event": "e", **arguments})
    assert field in call(notifier, context(), caplog)
    assert not server.record().requests


def test_airflow_knows_them() -> None:
    from importlib import import_module

    for path in get_provider_info()["notifications"]:
        module, _, name = path.rpartition(".")
        assert callable(getattr(import_module(module), name))


def test_what_pushes_no_xcom_is_named(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    with DAG("d", schedule=None) as dag:
        OrchestrationRunWorkflowOperator(task_id="pay", workflow_id="w", do_xcom_push=False)
        OrchestrationRunWorkflowOperator.partial(task_id="many", workflow_id="w", do_xcom_push=False).expand(
            variables=[TO]
        )
        OrchestrationRunWorkflowOperator(task_id="other", workflow_id="w")
    cancel_instances({**context([]), "dag": dag})
    (line,) = [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]
    assert "those of pay, many are not cancelled" in line


@pytest.mark.parametrize("generation", [1])
def test_a_connection_that_cannot_be_used_hides_neither_the_others_nor_the_reason(
    server: Any, caplog: pytest.LogCaptureFixture, generation: int
) -> None:
    instance_id = begin(server, LONG)
    with caplog.at_level("INFO"):
        cancel_wanted([("nowhere", "i"), ("orchestration_default", instance_id)], "a task has failed", 10)
    assert state_of(server, instance_id) == "cancelled"
    assert "a task has failed; 1 of 2 instances may still run: i (connection nowhere cannot be used" in caplog.text
    assert "a task has failed; 1 instance has ended: 1 cancelled" in caplog.text


@pytest.mark.parametrize("generation", [1])
@pytest.mark.parametrize("end", ["cancelled", "succeeded"])
@pytest.mark.parametrize("history", [True, False])
def test_an_instance_that_was_seen_to_end_has_ended_whatever_fails_after_it(
    server: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    generation: int,
    end: str,
    history: bool,
) -> None:
    """The server answers no further look. A success that nobody wanted any more is said to be one."""
    if end == "succeeded":
        monkeypatch.setattr(OrchestrationHttpHook, "abort_instance", lambda *_: time.sleep(1))
    instance_id = begin_waiting(server) if end == "cancelled" else begin(server, CARRIES)
    real = cancelling._end

    def seen(*arguments: Any) -> Any:
        for operation in ("get_instance", "abort_instance", *(() if history else ("get_instance_history",))):
            server.fault(operation, "status", 50)
        return real(*arguments)

    monkeypatch.setattr(cancelling, "_end", seen)
    with caplog.at_level("INFO"):
        cancel_wanted([("orchestration_default", instance_id)], "a task has failed", 10)
    assert "may still run" not in caplog.text
    assert ("check the ledger" in caplog.text) is (not history and end == "cancelled")
    if end == "succeeded":
        (line,) = [one for one in caplog.records if "its money was not rolled back" in one.getMessage()]
        assert line.levelno == logging.WARNING
        assert "1 instance has ended: 1 succeeded, whose money was not rolled back" in caplog.text
    else:
        assert "1 instance has ended: 1 cancelled" in caplog.text


def test_a_mapping_is_no_list_of_ids() -> None:
    with pytest.raises(ValidationError, match="instance_ids must be an id or a list of ids"):
        instance_ids({"instance_id": "i"}, "instance_ids")

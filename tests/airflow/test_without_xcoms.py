"""``do_xcom_push=False``: nothing is pushed, nothing fails, and tries share their run all the same."""

from __future__ import annotations

from typing import Any

import pytest

from orchestration_integrations.airflow.compat import TaskDeferralTimeout
from orchestration_integrations.airflow.links import OrchestrationInstanceLink
from orchestration_integrations.airflow.operators import (
    OrchestrationCancelInstanceOperator,
    OrchestrationCreateWorkflowOperator,
    OrchestrationSendEventOperator,
)
from orchestration_integrations.airflow.sensors import OrchestrationInstanceSensor
from orchestration_integrations.procedures.gated_start import GatedStart
from tests.airflow.harness import SHORT, WAITS, Task, begin, begin_waiting, first_event, perform, rebuilt, state_of
from tests.airflow.test_run_operator import TIMED_OUT, deferred, failed_deferral

WAYS = pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])
DURABLE = pytest.mark.parametrize("durable", [True, False], ids=["state store", "Variables"])


@WAYS
@DURABLE
def test_a_run_pushes_nothing_and_its_retry_finds_it(server: Any, durable: bool, deferrable: bool) -> None:
    task = Task(definition=SHORT, do_xcom_push=False, deferrable=deferrable, durable=durable)
    result = task.attempt()
    assert task.xcoms == {}
    assert task.attempt() == result
    assert task.xcoms == {}
    assert len(server.record().started) == 1


@DURABLE
def test_a_worker_that_dies_leaves_a_run_that_is_found(
    server: Any, durable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task(definition=SHORT, do_xcom_push=False, durable=durable)

    def dies(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the worker dies")

    with monkeypatch.context() as patch:
        patch.setattr(GatedStart, "release", dies)
        with pytest.raises(RuntimeError):
            task.attempt()
    assert task.attempt()["state"] == "succeeded"
    assert server.balance("merchants:1", "EUR/2") == 100


@pytest.mark.parametrize("generation", [3])
@DURABLE
def test_a_deferral_that_airflow_ends_still_cancels_its_run(server: Any, durable: bool, generation: int) -> None:
    """Airflow hands over no id then: it comes from the record."""
    task = Task(definition=WAITS, do_xcom_push=False, durable=durable, timeout=600, retries=0)
    operator, context, last = deferred(task)
    instance_id = last.kwargs["instance_id"]
    with pytest.raises(TaskDeferralTimeout):
        failed_deferral(operator, context, TIMED_OUT)
    assert state_of(server, instance_id) == "cancelled"


def test_the_others_push_nothing_of_their_own(server: Any) -> None:
    """What they return is pushed, or not, by Airflow."""
    waiting, running = begin_waiting(server), begin(server, SHORT)
    for operator in (
        OrchestrationCreateWorkflowOperator(task_id="create", definition=SHORT, do_xcom_push=False),
        OrchestrationSendEventOperator(task_id="send", instance_id=waiting, event="approve", do_xcom_push=False),
        OrchestrationInstanceSensor(task_id="sense", instance_id=running, poke_interval=0.2, do_xcom_push=False),
        OrchestrationCancelInstanceOperator(task_id="cancel", instance_id=waiting, do_xcom_push=False),
    ):
        task = Task()
        task.try_number = 1
        assert perform(operator, task.context(operator))
        assert task.xcoms == {}


def test_the_link_is_missing_and_nothing_fails() -> None:
    assert OrchestrationInstanceLink().get_link(None, ti_key=object()) == ""


def test_events_come_without_xcoms_too(server: Any) -> None:
    _, _, last = deferred(Task(definition=SHORT, do_xcom_push=False))
    assert first_event(rebuilt(last.trigger))["status"] == "succeeded"

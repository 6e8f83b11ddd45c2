"""Times that are given as templates: they become seconds, or an error before anything is sent."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestration_integrations import ValidationError, WaitTimeoutError
from orchestration_integrations.airflow.arguments import poll_seconds_of, seconds_of
from orchestration_integrations.airflow.compat import AirflowFailException, AirflowSensorTimeout
from orchestration_integrations.airflow.operators import (
    OrchestrationCancelInstanceOperator,
    OrchestrationRunWorkflowOperator,
    OrchestrationSendEventOperator,
)
from orchestration_integrations.airflow.sensors import OrchestrationInstanceSensor, OrchestrationStageSensor
from tests.airflow.framework import DAG, serialized
from tests.airflow.harness import LONG, SHORT, WAITS, Task, begin, begin_waiting, perform, rebuilt, state_of
from tests.airflow.test_run_operator import deferred
from tests.airflow.test_sensors import first_start_below_3, made, sense

__all__ = ["first_start_below_3"]

BAD = ["None", "", "five", "5m", "-1", "1e3", "nan", "inf", "0:05:00", "{{ params.limit }}"]
LIMIT = "{{ params.limit }}"


@pytest.mark.parametrize(
    ("given", "seconds"),
    [(None, None), (5, 5.0), (2.5, 2.5), (timedelta(minutes=1), 60.0), ("300", 300.0), (" 2.5 ", 2.5), ("0", 0.0)],
)
def test_what_is_a_time(given: Any, seconds: float | None) -> None:
    assert seconds_of(given, "timeout") == seconds


@pytest.mark.parametrize("bad", [*BAD, True, [5], float("nan"), timedelta(seconds=-1)])
def test_what_is_none(bad: Any) -> None:
    with pytest.raises(ValidationError, match="number of seconds") as caught:
        seconds_of(bad, "timeout")
    assert caught.value.path == "timeout"


@pytest.mark.parametrize("bad", ["0", 0, None])
def test_a_pause_has_a_length(bad: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        poll_seconds_of(bad)
    assert caught.value.path == "poll_interval"


def filled_in(operator: Any, limit: Any, pause: Any = "0.2") -> Any:
    operator.render_template_fields({"params": {"limit": limit, "pause": pause}})
    return operator


def test_templates_stay_until_they_are_filled_in() -> None:
    operator = OrchestrationRunWorkflowOperator(
        task_id="pay", definition=SHORT, timeout=LIMIT, poll_interval="{{ params.pause }}"
    )
    assert operator.timeout == LIMIT
    filled_in(operator, 300)
    assert (operator.timeout, operator.poll_interval) == ("300", "0.2")


@pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])
@pytest.mark.parametrize("timeout", ["1", timedelta(seconds=1), 1])
def test_a_run_is_given_up_in_time(server: Any, deferrable: bool, timeout: Any) -> None:
    task = Task(
        definition=WAITS, timeout=timeout, poll_interval="0.2", deferrable=deferrable, on_timeout="leave", retries=0
    )
    with pytest.raises(WaitTimeoutError):
        task.attempt()


def test_a_trigger_is_given_numbers(server: Any) -> None:
    _, _, last = deferred(Task(definition=WAITS, timeout="300", poll_interval=timedelta(seconds=2)))
    _, kwargs = rebuilt(last.trigger).serialize()
    assert kwargs["poll_interval"] == 2.0
    assert isinstance(kwargs["deadline"], float)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("field", ["timeout", "poll_interval"])
def test_nothing_is_sent_for_a_bad_time(server: Any, field: str, bad: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Task(definition=SHORT, **{field: bad}).attempt()
    assert isinstance(caught.value, AirflowFailException)
    assert caught.value.path == field
    sending = OrchestrationSendEventOperator(task_id="send", instance_id="i", event="e", **{field: bad})  # type: ignore[arg-type]
    with pytest.raises(ValidationError) as caught:
        sending.execute(Task().context(sending))
    assert caught.value.path == field
    if field == "timeout":
        cancelling = OrchestrationCancelInstanceOperator(task_id="cancel", instance_id="i", timeout=bad)
        with pytest.raises(ValidationError):
            cancelling.execute({})
    assert not server.record().requests


def test_a_template_that_breaks_while_a_task_is_deferred_keeps_it_from_nothing(server: Any) -> None:
    """Airflow fills in templates again when the task resumes: the run must not be left alone for that."""
    task = Task(definition=LONG, timeout="300", poll_interval="0.2")
    operator, context, last = deferred(task)
    operator.timeout = operator.poll_interval = "None"
    running = {"status": "error", "message": "a fault", "instance_id": task.xcoms["instance_id"]}
    with pytest.raises(type(last)) as again:
        operator.resume_execution(last.method_name, {**last.kwargs, "event": running}, context)
    assert again.value.trigger.serialize()[1]["deadline"] == last.kwargs["deadline"]
    assert state_of(server, task.xcoms["instance_id"]) == "running"


@pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])
def test_an_event_is_sent_within_a_time_as_text(server: Any, deferrable: bool) -> None:
    instance_id = begin_waiting(server)
    operator = OrchestrationSendEventOperator(
        task_id="send",
        instance_id=instance_id,
        event="approve",
        timeout=LIMIT,
        poll_interval="{{ params.pause }}",
        deferrable=deferrable,
    )
    filled_in(operator, 30)
    assert perform(operator, Task().context(operator))["event"] == "approve"


@pytest.mark.parametrize("mode", ["poke", "reschedule", "deferrable"])
def test_a_sensor_takes_templates(server: Any, mode: str) -> None:
    sensor = made(
        OrchestrationInstanceSensor,
        mode,
        instance_id=begin(server, SHORT),
        timeout=LIMIT,
        poke_interval="{{ params.pause }}",
    )
    assert sense(filled_in(sensor, 30))["state"] == "succeeded"
    late = made(OrchestrationStageSensor, mode, instance_id=begin(server, LONG), stage=1, timeout=LIMIT)
    with pytest.raises(AirflowSensorTimeout):
        sense(filled_in(late, "0.5"))


@pytest.mark.parametrize("mode", ["poke", "reschedule", "deferrable"])
@pytest.mark.parametrize("field", ["timeout", "poke_interval"])
def test_a_sensor_refuses_a_bad_time(server: Any, mode: str, field: str) -> None:
    sensor = made(OrchestrationInstanceSensor, mode, instance_id="i", **{field: LIMIT})
    with pytest.raises(ValidationError) as caught:
        sense(filled_in(sensor, None))
    assert caught.value.path == field
    assert not server.record().requests


@pytest.mark.parametrize("field", ["timeout", "poke_interval"])
def test_the_triggerer_starts_no_sensor_with_a_time_to_come(field: str) -> None:
    with pytest.raises(ValidationError, match="leave out start_from_trigger") as caught:
        made(OrchestrationInstanceSensor, "deferrable", instance_id="i", start_from_trigger=True, **{field: LIMIT})
    assert caught.value.path == field


def test_airflow_stores_a_dag_with_times_to_come(airflow_home: Path) -> None:
    """The scheduler and the UI have the DAG as JSON."""
    with DAG("d", schedule=None) as dag:
        OrchestrationRunWorkflowOperator(
            task_id="pay", workflow_id="w", timeout=LIMIT, poll_interval=timedelta(seconds=1)
        )
        OrchestrationSendEventOperator(task_id="send", instance_id="i", event="e", timeout=LIMIT)
        OrchestrationInstanceSensor(task_id="sense", instance_id="i", timeout=LIMIT, poke_interval=LIMIT)
        OrchestrationInstanceSensor.partial(task_id="mapped", timeout=LIMIT).expand(instance_id=["a", "b"])
    assert LIMIT in str(serialized(dag))

"""Sensors mean the same in every mode."""

from __future__ import annotations

import json
import threading
import time
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
)

from orchestration_integrations import NotFoundError, OrchestrationHttpHook, ValidationError
from orchestration_integrations.airflow import sensors
from orchestration_integrations.airflow.compat import AIRFLOW_3
from orchestration_integrations.airflow.sensors import OrchestrationInstanceSensor, OrchestrationStageSensor
from tests.airflow.harness import BROKEN, LONG, SHORT, WAITS, begin, perform

if AIRFLOW_3:
    from airflow.sdk.exceptions import AirflowRescheduleException
else:
    from airflow.exceptions import AirflowRescheduleException

MODES = pytest.mark.parametrize("mode", ["poke", "reschedule", "deferrable"])


def sense(sensor: Any) -> Any:
    """Perform a sensor to its end, whatever its mode."""
    first = datetime.now(timezone.utc)
    ti = SimpleNamespace(
        start_date=first,
        dag_id="dag",
        task_id="sense",
        run_id="run",
        map_index=-1,
        try_number=1,
        max_tries=0,
        get_first_reschedule_date=lambda context: first,
    )
    context = {"ti": ti, "task_reschedule_count": 1}
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            return perform(sensor, context)
        except AirflowRescheduleException:
            time.sleep(0.1)
    raise AssertionError("it does not end")


@pytest.fixture(autouse=True)
def _first_start_below_3(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow 2 reads the first start of a rescheduled sensor from its database."""
    from airflow.providers.common.compat.sdk import BaseSensorOperator

    module = __import__(BaseSensorOperator.__module__, fromlist=["x"])
    if hasattr(module, "_orig_start_date"):
        first = datetime.now(timezone.utc)
        monkeypatch.setattr(module, "_orig_start_date", lambda **_: first)
        monkeypatch.setattr(module, "_is_metadatabase_mysql", lambda: False)


def made(kind: Any, mode: str, **arguments: Any) -> Any:
    way = {"deferrable": True} if mode == "deferrable" else {"mode": mode, "deferrable": False}
    return kind(task_id="sense", poke_interval=0.2, **{"timeout": 30, **way, **arguments})


@MODES
def test_an_end_as_expected(server: Any, mode: str) -> None:
    instance_id = begin(server, SHORT)
    result = sense(made(OrchestrationInstanceSensor, mode, instance_id=instance_id))
    assert result["instance_id"] == instance_id
    assert result["state"] == "succeeded"
    assert json.loads(json.dumps(result)) == result


@MODES
@pytest.mark.parametrize("expected", ["failed", ["failed", "succeeded"]])
def test_a_failure_can_be_what_is_expected(server: Any, mode: str, expected: Any) -> None:
    sensor = made(OrchestrationInstanceSensor, mode, instance_id=begin(server, BROKEN), expected=expected)
    assert sense(sensor)["state"] == "failed"


@MODES
@pytest.mark.parametrize("soft_fail", [False, True])
def test_another_end_fails_at_once_or_skips(server: Any, mode: str, soft_fail: bool) -> None:
    sensor = made(OrchestrationInstanceSensor, mode, instance_id=begin(server, BROKEN), soft_fail=soft_fail)
    with pytest.raises(AirflowSkipException if soft_fail else AirflowFailException):
        sense(sensor)


@MODES
@pytest.mark.parametrize("expected", ["failed", "cancelled"])
def test_an_unexpected_success_is_none(server: Any, mode: str, expected: str) -> None:
    sensor = made(OrchestrationInstanceSensor, mode, instance_id=begin(server, SHORT), expected=expected)
    with pytest.raises(AirflowFailException, match="succeeded"):
        sense(sensor)


@MODES
@pytest.mark.parametrize("option", ["soft_fail", "never_fail", "none"])
def test_a_timeout(server: Any, mode: str, option: str) -> None:
    options = {} if option == "none" else {option: True}
    sensor = made(OrchestrationInstanceSensor, mode, instance_id=begin(server, LONG), timeout=0.6, **options)
    if option == "never_fail" and mode != "deferrable":
        expected: Any = (AirflowSkipException, AirflowSensorTimeout)  # Airflow's own poking modes decide
    else:
        expected = AirflowSensorTimeout if option == "none" else AirflowSkipException
    with pytest.raises(expected):
        sense(sensor)
    assert server.record().requests.get("abort_instance", 0) == 0


@MODES
def test_a_fault_of_the_network_is_no_end(server: Any, mode: str) -> None:
    instance_id = begin(server, SHORT)
    server.fault("get_instance", "html", 2)
    assert sense(made(OrchestrationInstanceSensor, mode, instance_id=instance_id))["state"] == "succeeded"


@MODES
@pytest.mark.parametrize(
    "wrong", [{"instance_id": None}, {"instance_id": "None"}, {"instance_id": "i", "expected": "done"}]
)
def test_wrong_arguments(server: Any, mode: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        sense(made(OrchestrationInstanceSensor, mode, **wrong))


def test_an_option_that_a_trigger_cannot_have_is_refused(server: Any) -> None:
    sensor = made(OrchestrationInstanceSensor, "deferrable", instance_id="i", exponential_backoff=True)
    with pytest.raises(ValidationError, match="exponential_backoff"):
        sense(sensor)


@MODES
@pytest.mark.parametrize(
    ("stage", "until", "event"),
    [(0, "begun", None), ("0", "ended", None), (1, "begun", None), (1, "listening", None), (1, "listening", "approve")],
)
def test_stages(server: Any, mode: str, stage: Any, until: Any, event: Any) -> None:
    sensor = made(
        OrchestrationStageSensor, mode, instance_id=begin(server, WAITS), stage=stage, until=until, event=event
    )
    assert sense(sensor)["stage"] == int(stage)


@MODES
def test_a_stage_that_comes_later(server: Any, mode: str) -> None:
    instance_id = begin(server, WAITS)

    def approve() -> None:
        time.sleep(0.7)
        with OrchestrationHttpHook(base_url=server.url) as http:
            http.send_event_when_ready(instance_id, "approve", timeout=30)

    thread = threading.Thread(target=approve)
    thread.start()
    try:
        assert (
            sense(made(OrchestrationStageSensor, mode, instance_id=instance_id, stage=2, until="ended"))["stage"] == 2
        )
    finally:
        thread.join()


@MODES
@pytest.mark.parametrize(
    ("definition", "stage", "until", "event"),
    [
        (BROKEN, 1, "ended", None),
        (BROKEN, 2, "begun", None),
        (SHORT, 0, "listening", None),
        (SHORT, 5, "ended", None),
    ],
)
def test_a_stage_that_can_never_be_so_fails(
    server: Any, mode: str, definition: Any, stage: int, until: Any, event: Any
) -> None:
    sensor = made(
        OrchestrationStageSensor, mode, instance_id=begin(server, definition), stage=stage, until=until, event=event
    )
    with pytest.raises(AirflowFailException):
        sense(sensor)


def test_starting_in_the_triggerer_is_set_up_per_task() -> None:
    one = made(OrchestrationInstanceSensor, "deferrable", instance_id="i1", start_from_trigger=True)
    other = made(OrchestrationStageSensor, "deferrable", instance_id="i2", stage=3, start_from_trigger=True)
    plain = made(OrchestrationInstanceSensor, "deferrable", instance_id="i3")
    assert one.start_trigger_args.trigger_kwargs["instance_id"] == "i1"
    assert other.start_trigger_args.trigger_kwargs["stage"] == 3
    assert plain.start_from_trigger is False
    assert (
        made(OrchestrationInstanceSensor, "poke", instance_id="i", start_from_trigger=True).start_from_trigger is False
    )


UNKNOWN = "0e7f1d7e-0000-4000-8000-000000000000"


@MODES
def test_an_instance_that_is_not_found_may_be_retried(server: Any, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """W5: its row may be late."""
    monkeypatch.setattr(sensors, "ROW_GRACE", 0.0)
    with pytest.raises(NotFoundError) as caught:
        sense(made(OrchestrationInstanceSensor, mode, instance_id=UNKNOWN))
    assert not isinstance(caught.value, AirflowFailException)


@MODES
def test_an_id_that_comes_from_upstream_gets_the_long_patience(
    server: Any, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """W5: the server gave it, so a run stands behind it however late its row is."""
    monkeypatch.setattr(sensors, "ROW_GRACE", 0.0)
    server.fault("run_workflow", "late_row", seconds=3)
    instance_id = begin(server, SHORT)
    sensor = made(OrchestrationInstanceSensor, mode, instance_id="{{ ti.xcom_pull(task_ids='pay') }}")
    sensor.instance_id = instance_id  # as Airflow fills templates in
    assert sense(sensor)["state"] == "succeeded"


@MODES
def test_a_gateways_page_does_not_fail_a_sensor(server: Any, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """W1 (d)."""
    monkeypatch.setattr(sensors, "ROW_GRACE", 0.0)
    instance_id = begin(server, SHORT)
    server.fault("get_instance", "html", 3, code=404)
    sensor = made(OrchestrationInstanceSensor, mode, instance_id=instance_id)
    assert sense(sensor)["state"] == "succeeded"

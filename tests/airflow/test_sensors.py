"""Sensors mean the same in every mode."""

from __future__ import annotations

import json
import sys
import threading
import time
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from orchestration_integrations import (
    AuthenticationError,
    ConfigurationError,
    NotFoundError,
    OrchestrationHttpHook,
    ValidationError,
)
from orchestration_integrations.airflow import compat, poking, sensors
from orchestration_integrations.airflow.compat import (
    AIRFLOW_3,
    AIRFLOW_3_3,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)
from orchestration_integrations.airflow.hooks import OrchestrationHook
from orchestration_integrations.airflow.sensors import OrchestrationInstanceSensor, OrchestrationStageSensor
from tests.airflow.framework import AirflowRescheduleException
from tests.airflow.harness import BROKEN, LONG, SHORT, TO, WAITS, begin, perform

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
            ti.start_date = datetime.now(timezone.utc)  # of the piece that begins
    raise AssertionError("it does not end")


@pytest.fixture(autouse=True)
def first_start_below_3(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow 2 reads the first start of a rescheduled sensor from its database."""
    from orchestration_integrations.airflow.compat import BaseSensorOperator

    module = __import__(BaseSensorOperator.__module__, fromlist=["x"])
    if hasattr(module, "_orig_start_date"):
        first = datetime.now(timezone.utc)
        for reader in (sensors, poking):
            monkeypatch.setattr(reader, "first_start", lambda context: first.timestamp())
        monkeypatch.setattr(module, "_orig_start_date", lambda **_: first)
        monkeypatch.setattr(module, "_is_metadatabase_mysql", lambda: False)


def made(kind: Any, mode: str, **arguments: Any) -> Any:
    way = {"deferrable": True} if mode == "deferrable" else {"mode": mode, "deferrable": False}
    return kind(task_id="sense", **{"poke_interval": 0.2, "timeout": 30, **way, **arguments})


@MODES
def test_an_end_as_expected(server: Any, mode: str) -> None:
    instance_id = begin(server, SHORT)
    result = sense(made(OrchestrationInstanceSensor, mode, instance_id=instance_id))
    assert result["instance_id"] == instance_id
    assert result["state"] == "succeeded"
    assert json.loads(json.dumps(result)) == result


@pytest.mark.parametrize("mode", ["poke", "reschedule"])
def test_airflow_does_not_take_its_own_sensor_for_one_that_is_called_from_outside(
    server: Any, mode: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """As Airflow calls a sensor: with a word that only it knows."""
    names = OrchestrationInstanceSensor.execute.__globals__  # of the guard around it
    word = names["ExecutorSafeguard"].sentinel_value if AIRFLOW_3 else names["_sentinel"]
    sensor = made(
        OrchestrationInstanceSensor, mode, instance_id=begin(server, SHORT), timeout=30, allow_nested_operators=False
    )
    execute = sensor.execute
    object.__setattr__(
        sensor, "execute", lambda context: execute(context, **{"OrchestrationInstanceSensor__sentinel": word})
    )
    assert sense(sensor)["state"] == "succeeded"
    assert "cannot be called outside" not in caplog.text + capsys.readouterr().out


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
    with pytest.raises(AirflowSensorTimeout if option == "none" else AirflowSkipException):
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


@MODES
@pytest.mark.parametrize(
    ("stage", "until", "said"),
    [
        (0, "listening", r"the gate \(0 on the server\) is over and listens no more"),
        (1, "listening", r"stage 0 \(send; 1 on the server\) is over and listens no more"),
        (7, "begun", r"stage 6 \(7 on the server\) never began"),
    ],
)
def test_what_fails_names_the_stage_of_the_definition_and_says_how_stages_count(
    server: Any, mode: str, stage: int, until: Any, said: str
) -> None:
    with OrchestrationHttpHook(base_url=server.url) as http:
        instance = http.start(http.ensure_workflow(SHORT, gate=True).workflow.id, TO)
        http.wait(instance.id, timeout=30)
    sensor = made(OrchestrationStageSensor, mode, instance_id=instance.id, stage=stage, until=until)
    with pytest.raises(AirflowFailException, match=rf"{said}\. stage= counts a gate too"):
        sense(sensor)


def test_without_a_definition_the_number_is_told_to_be_the_servers(server: Any) -> None:
    instance_id = begin(server, SHORT)
    with OrchestrationHttpHook(base_url=server.url) as http:
        http.wait(instance_id, timeout=30)
    server.fault("get_workflow", "status", -1, code=404, error_code="NOT_FOUND")
    sensor = made(OrchestrationStageSensor, "poke", instance_id=instance_id, stage=0, until="listening")
    with pytest.raises(AirflowFailException, match="stage 0 on the server is over and listens no more"):
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


@MODES
def test_an_unknown_id_is_noticed(server: Any, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """S4: each piece of a rescheduled sensor has a start of its own; the patience counts from the first."""
    monkeypatch.setattr(sensors, "ROW_GRACE", 1.5)
    begun = time.monotonic()
    with pytest.raises(NotFoundError):
        sense(made(OrchestrationInstanceSensor, mode, instance_id=UNKNOWN, timeout=3600))
    assert time.monotonic() - begun > 1.4


# ---- W4: options and configuration --------------------------------------------------------------------

OPTIONS = ["none", "soft_fail", "silent_fail", "never_fail"]
WRONG_CONNECTIONS = {
    "missing": None,
    "wrong extra": {"host": "http://127.0.0.1:9", "extra": '{"verify": "perhaps"}'},
    "no host": {"host": ""},
    "missing CA file": {"host": "https://127.0.0.1:9", "extra": '{"verify": "/no/such/bundle.pem"}'},
}


@MODES
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("wrong", WRONG_CONNECTIONS)
def test_a_wrong_configuration_always_fails(
    monkeypatch: pytest.MonkeyPatch, mode: str, option: str, wrong: str
) -> None:
    connection = WRONG_CONNECTIONS[wrong]
    monkeypatch.delenv("AIRFLOW_CONN_ORCHESTRATION_DEFAULT", raising=False)
    conn_id = "orchestration_default" if connection is not None else "orchestration_gone"
    if connection is not None:
        told = json.dumps({"conn_type": "orchestration", **connection})
        monkeypatch.setenv("AIRFLOW_CONN_ORCHESTRATION_DEFAULT", told)
    else:
        monkeypatch.setattr(OrchestrationHook, "get_connection", staticmethod(no_connection))
    options = {} if option == "none" else {option: True}
    sensor = made(OrchestrationInstanceSensor, mode, instance_id="i", orchestration_conn_id=conn_id, **options)
    with pytest.raises(Exception, match=r"orchestration_gone|verify|host") as caught:
        sense(sensor)
    assert isinstance(caught.value, ConfigurationError | AirflowNotFoundException)


def no_connection(conn_id: str) -> Any:
    raise AirflowNotFoundException(f"The conn_id `{conn_id}` isn't defined")


@pytest.mark.parametrize("option", OPTIONS)
def test_a_configuration_that_turns_wrong_during_a_deferral_fails(
    server: Any, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    options = {} if option == "none" else {option: True}
    sensor = made(OrchestrationInstanceSensor, "deferrable", instance_id=begin(server, LONG), **options)
    context = {"ti": SimpleNamespace(start_date=datetime.now(timezone.utc), map_index=-1)}
    with pytest.raises(TaskDeferred) as deferred:
        sensor.execute(context)
    monkeypatch.setenv(
        "AIRFLOW_CONN_ORCHESTRATION_DEFAULT", json.dumps({"conn_type": "orchestration", "host": "ftp://x"})
    )
    resumed = made(OrchestrationInstanceSensor, "deferrable", instance_id="i", **options)
    event = {"status": "error", "instance_id": "i", "message": "away"}
    with pytest.raises(ConfigurationError):
        resumed.resume_execution("execute_complete", {**deferred.value.kwargs, "event": event}, context)


@MODES
@pytest.mark.parametrize(
    ("option", "expected"),
    [("none", "refused"), ("soft_fail", "refused"), ("silent_fail", "looks again"), ("never_fail", "skips")],
)
def test_any_other_error_means_the_same_in_every_mode(
    server: Any, monkeypatch: pytest.MonkeyPatch, mode: str, option: str, expected: str
) -> None:
    instance_id = begin(server, SHORT)
    server.fault("get_instance", "status", 1, code=403)
    options = {} if option == "none" else {option: True}
    sensor = made(OrchestrationInstanceSensor, mode, instance_id=instance_id, **options)
    if expected == "looks again":
        assert sense(sensor)["state"] == "succeeded"
        return
    with pytest.raises(AuthenticationError if expected == "refused" else AirflowSkipException):
        sense(sensor)


@pytest.mark.parametrize("option", OPTIONS)
def test_a_deferral_that_airflow_ended_is_a_timeout(server: Any, option: str) -> None:
    options = {} if option == "none" else {option: True}
    sensor = made(OrchestrationInstanceSensor, "deferrable", instance_id=begin(server, LONG), **options)
    context = {"ti": SimpleNamespace(start_date=datetime.now(timezone.utc), map_index=-1)}
    skips = option in ("soft_fail", "never_fail")
    with pytest.raises(AirflowSkipException if skips else AirflowSensorTimeout):
        sensor.resume_execution(
            "__fail__", {"error": "Trigger timeout" if AIRFLOW_3 else "Trigger/execution timeout"}, context
        )


# ---- S3: a start without a worker ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "template",
    [
        "{{ ti.xcom_pull(task_ids='pay') }}",
        "{{ task_instance.xcom_pull('pay')['instance_id'] }}",
        "x{% set found = ti.xcom_pull('pay') %}{{ found }}",
        "{{ var.value.instance }}",
        "{{ var.json.get('instance') }}",
        "{{ conn.orchestration_default.host }}",
        "{{ prev_start_date_success }}",
        "{{ triggering_asset_events }}",
    ],
)
@pytest.mark.parametrize("field", ["instance_id", "event", "orchestration_conn_id"])
def test_a_template_that_the_triggerer_cannot_fill_in_is_refused(template: str, field: str) -> None:
    given = {"instance_id": "i", "stage": 1, "until": "listening", "event": "e", field: template}
    with pytest.raises(ValidationError, match="leave out start_from_trigger") as caught:
        made(OrchestrationStageSensor, "deferrable", start_from_trigger=True, **given)
    assert caught.value.path == field
    made(OrchestrationStageSensor, "deferrable", **given)


@pytest.mark.parametrize("template", ["{{ dag_run.conf['instance'] }}", "{{ params.instance }}", "{{ ti.run_id }}"])
def test_a_template_that_the_triggerer_can_fill_in_is_taken_from_3_3_on(template: str) -> None:
    if AIRFLOW_3_3:
        sensor = made(OrchestrationInstanceSensor, "deferrable", instance_id=template, start_from_trigger=True)
        assert sensor.start_trigger_args.trigger_kwargs["instance_id"] == template
        return
    with pytest.raises(ValidationError, match="leave out start_from_trigger"):
        made(OrchestrationInstanceSensor, "deferrable", instance_id=template, start_from_trigger=True)


def test_the_output_of_another_task_is_refused_where_no_worker_begins() -> None:
    from orchestration_integrations.airflow.operators import OrchestrationRunWorkflowOperator
    from tests.airflow.framework import DAG

    with DAG("d", schedule=None):
        pay = OrchestrationRunWorkflowOperator(task_id="pay", workflow_id="w")
        with pytest.raises(ValidationError, match="leave out start_from_trigger"):
            OrchestrationInstanceSensor(
                task_id="sense", instance_id=pay.output["instance_id"], deferrable=True, start_from_trigger=True
            )


# ---- W8: where to look --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["poke", "deferrable"])
def test_the_log_names_the_instance_with_its_address(
    server: Any, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    instance_id = begin(server, SHORT)
    sensor = made(OrchestrationInstanceSensor, mode, instance_id=instance_id)
    with caplog.at_level("INFO"):
        sense(sensor)
    line = f"waiting for instance {instance_id}: {server.url}/instances/{instance_id}"
    assert 1 in (caplog.text.count(line), capsys.readouterr().out.count(line))  # Airflow 3 has loggers of its own


def test_in_production_nobody_asks_when_a_rescheduled_try_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test's server has skipped counts from there; a poke beside no such server costs Airflow nothing."""
    asked: list[object] = []
    monkeypatch.setattr(poking, "first_start", asked.append)
    sensor = made(OrchestrationInstanceSensor, "reschedule", instance_id="i")
    context: Any = {"ti": SimpleNamespace(start_date=datetime.now(timezone.utc))}
    assert poking.pokes_of(sensor, context) is not None
    assert asked == [context]
    monkeypatch.delitem(sys.modules, "orchestration_integrations.server.skipping")
    assert poking.pokes_of(sensor, context) is None
    assert asked == [context]


@pytest.mark.skipif(AIRFLOW_3, reason="later versions ask Airflow's API")
def test_the_first_start_of_a_try_is_read_from_the_database(airflow_home: Any) -> None:
    """S4, below Airflow 3: of this try, not of an earlier one."""
    from airflow.models.taskreschedule import TaskReschedule
    from airflow.utils.session import create_session
    from airflow.utils.types import DagRunType

    from tests.airflow.framework import DAG

    starts = [datetime(2030, 1, 1, hour, tzinfo=timezone.utc) for hour in range(4)]
    with DAG("reschedules", schedule=None, start_date=starts[0]) as dag:
        OrchestrationInstanceSensor(task_id="sense", instance_id="i", mode="reschedule")
    dag.sync_to_db()
    run = dag.create_dagrun(
        run_type=DagRunType.MANUAL,
        state="running",
        run_id="r",
        execution_date=starts[0],
        data_interval=(starts[0],) * 2,
    )
    ti = run.get_task_instance("sense")
    ti.try_number = 2
    with create_session() as session:
        for number, started in zip((1, 1, 2, 2), starts, strict=True):
            row = TaskReschedule("sense", "reschedules", "r", number, started, started, started)
            session.add(row)
    assert compat.first_start({"ti": ti}) == starts[2].timestamp()
    ti.try_number = 3
    assert compat.first_start({"ti": ti}) is None

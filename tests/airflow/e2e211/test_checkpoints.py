"""Stops of runs with checkpoints on Airflow 2.11, against a server of generation 2, where an abort does nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestration_integrations.airflow.compat import AIRFLOW_3
from orchestration_integrations.server import EmbeddedServer

if AIRFLOW_3:
    pytest.skip("drives Airflow 2.11", allow_module_level=True)

from tests.airflow.e2e.judging import paid, pays, starts, until_it_stands
from tests.airflow.e2e211.scheduler import Scheduler
from tests.outside import eventually

WAYS = pytest.mark.parametrize("way", ["sync", "deferred"])
HELD = "it is held at the checkpoint before stage 2"


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer(generation=2) as one:
        yield one


@pytest.fixture(scope="module")
def airflow(server: EmbeddedServer) -> Iterator[Scheduler]:
    one = Scheduler({"orchestration_default": server.url})
    try:
        one.start()
        eventually(lambda: one.do("known", "checkpoints_trigger_rule"), "the DAGs are parsed")
        yield one
    finally:
        one.stop()


def begun(airflow: Scheduler, server: EmbeddedServer, dag_id: str, pause: str) -> tuple[str, str]:
    """A run that has paid once and is in its pause."""
    run_id = airflow.trigger(dag_id, definition=pays(pause))
    instance_id = airflow.instance(dag_id, run_id)
    eventually(lambda: len(paid(server, instance_id)) == 1, "it has paid once")
    return run_id, instance_id


def waiting(airflow: Scheduler, server: EmbeddedServer, way: str, pause: str) -> tuple[str, str]:
    """The same; the triggerer waits for it where its task is deferred."""
    run_id, instance_id = begun(airflow, server, f"checkpoints_{way}", pause)
    if way == "deferred":
        eventually(lambda: f"{instance_id}: stage 0 (send) has begun" in airflow.logs(), "the triggerer waits")
    return run_id, instance_id


def held_log(airflow: Scheduler, instance_id: str) -> None:
    def told() -> bool:
        lines = airflow.logs().splitlines()
        return any(instance_id in line and (HELD in line or f"{instance_id}: held" in line) for line in lines)

    eventually(told, "a log tells that it is held", 120)


@WAYS
def test_every_payment_is_let_pass_and_no_mark_stays(airflow: Scheduler, server: EmbeddedServer, way: str) -> None:
    dag_id = f"checkpoints_{way}"
    run_id = airflow.trigger(dag_id, definition=pays("1s"))
    airflow.until(dag_id, run_id, "success")
    (instance_id,) = starts(server, run_id)
    assert len(paid(server, instance_id)) == 2
    assert not [name for name in airflow.do("variables") if instance_id in name]


@WAYS
def test_marking_a_task_failed_holds(airflow: Scheduler, server: EmbeddedServer, way: str) -> None:
    run_id, instance_id = waiting(airflow, server, way, "12s")
    airflow.do("mark", f"checkpoints_{way}", run_id, "pay", "failed")
    held_log(airflow, instance_id)
    until_it_stands(server, instance_id)


@WAYS
def test_a_cleared_task_goes_on_with_the_same_run(airflow: Scheduler, server: EmbeddedServer, way: str) -> None:
    dag_id = f"checkpoints_{way}"
    run_id, instance_id = waiting(airflow, server, way, "12s")
    airflow.do("clear", dag_id, run_id, "pay")
    airflow.until(dag_id, run_id, "success")
    assert starts(server, run_id) == [instance_id]
    assert len(paid(server, instance_id)) == 2


@WAYS
def test_a_sibling_that_fails_holds_and_a_clear_lets_the_run_go_on(
    airflow: Scheduler, server: EmbeddedServer, way: str
) -> None:
    dag_id = f"checkpoints_{way}_held"
    run_id, instance_id = begun(airflow, server, dag_id, "12s")
    tries = airflow.until(dag_id, run_id, "failed")["try_number"]
    until_it_stands(server, instance_id)
    held_log(airflow, instance_id)
    assert "has failed: check (hold_on_failure)" in airflow.logs()
    airflow.do("clear", dag_id, run_id, "pay")
    airflow.until(dag_id, run_id, "success", tries=tries + 1)
    assert starts(server, run_id) == [instance_id]
    assert len(paid(server, instance_id)) == 2


def test_the_time_limit_of_the_operator_holds(airflow: Scheduler, server: EmbeddedServer) -> None:
    run_id, instance_id = begun(airflow, server, "checkpoints_deadline", "10s")
    airflow.until("checkpoints_deadline", run_id, "failed")
    until_it_stands(server, instance_id)
    held_log(airflow, instance_id)


@pytest.mark.parametrize(("dag_id", "pause"), [("checkpoints_trigger_rule", "25s"), ("checkpoints_siblings", "14s")])
def test_whoever_cancels_from_elsewhere_holds(
    airflow: Scheduler, server: EmbeddedServer, dag_id: str, pause: str
) -> None:
    run_id, instance_id = begun(airflow, server, dag_id, pause)
    airflow.until(dag_id, run_id, "failed")
    until_it_stands(server, instance_id)
    if dag_id == "checkpoints_trigger_rule":
        result = eventually(lambda: airflow.do("xcom", dag_id, run_id, "cancel", "return_value"), "what it says")
        assert result["status"] == "held"

"""Stops of runs with checkpoints, done for real against a server of generation 2, where an abort does nothing.

Nothing is paid after any of them. On 3.1 a short round: there a worker lets the runs of deferred tasks pass.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from orchestration_integrations.airflow.compat import AIRFLOW_VERSION
from orchestration_integrations.server import EmbeddedServer

if AIRFLOW_VERSION < (3, 1):
    pytest.skip("drives the REST API of Airflow 3.1 and later", allow_module_level=True)

from tests.airflow.e2e.judging import SEND, paid, pays, starts, until_it_stands
from tests.airflow.e2e.standalone import Standalone
from tests.outside import eventually

newest_only = pytest.mark.skipif(AIRFLOW_VERSION < (3, 3), reason="a short round is enough on older versions")
WAYS = pytest.mark.parametrize("way", ["sync", "deferred"])
HELD = "it is held at the checkpoint before stage 2"


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer(generation=2) as one:
        yield one


@pytest.fixture(scope="module")
def airflow(server: EmbeddedServer) -> Iterator[Standalone]:
    one = Standalone()
    try:
        one.start()
        one.connect("orchestration_default", host=server.url)
        yield one
    finally:
        one.stop()


def begun(airflow: Standalone, server: EmbeddedServer, dag_id: str, pause: str) -> tuple[str, str]:
    """A run that has paid once and is in its pause."""
    run_id = airflow.trigger(dag_id, definition=pays(pause))
    instance_id = airflow.instance(dag_id, run_id)
    eventually(lambda: len(paid(server, instance_id)) == 1, "it has paid once")
    return run_id, instance_id


def held_log(airflow: Standalone, instance_id: str) -> None:
    """A log says that the instance is held."""

    def told() -> bool:
        lines = airflow.logs().splitlines()
        return any(instance_id in line and (HELD in line or f"{instance_id}: held" in line) for line in lines)

    eventually(told, "a log tells that it is held", 120)


@WAYS
def test_every_payment_is_let_pass_and_no_mark_stays(airflow: Standalone, server: EmbeddedServer, way: str) -> None:
    dag_id = f"checkpoints_{way}"
    run_id = airflow.trigger(dag_id, definition=pays("1s"))
    assert airflow.until_run(dag_id, run_id, "success", "failed") == "success"
    (instance_id,) = starts(server, run_id)
    assert len(paid(server, instance_id)) == 2
    names = [row["key"] for row in airflow.call("GET", "/variables?limit=100")["variables"]]
    assert not [name for name in names if instance_id in name]


@WAYS
def test_marking_a_task_failed_holds(airflow: Standalone, server: EmbeddedServer, way: str) -> None:
    dag_id = f"checkpoints_{way}"
    run_id, instance_id = begun(airflow, server, dag_id, "8s")
    airflow.until_waiting(dag_id, run_id, "pay", "running" if way == "sync" else "deferred")
    airflow.mark(dag_id, run_id, "pay", "failed")
    until_it_stands(server, instance_id)
    assert starts(server, run_id) == [instance_id]


@newest_only
def test_a_deferred_task_that_is_marked_tells_that_its_run_is_held(airflow: Standalone, server: EmbeddedServer) -> None:
    run_id, instance_id = begun(airflow, server, "checkpoints_deferred", "6s")
    airflow.until_waiting("checkpoints_deferred", run_id, "pay", "deferred")
    airflow.mark("checkpoints_deferred", run_id, "pay", "failed")
    held_log(airflow, instance_id)
    until_it_stands(server, instance_id)


@newest_only
@WAYS
def test_a_cleared_task_goes_on_with_the_same_run(airflow: Standalone, server: EmbeddedServer, way: str) -> None:
    dag_id = f"checkpoints_{way}"
    run_id, instance_id = begun(airflow, server, dag_id, "8s")
    airflow.until_waiting(dag_id, run_id, "pay", "running" if way == "sync" else "deferred")
    airflow.clear(dag_id, run_id, "pay")
    assert airflow.until_run(dag_id, run_id, "success", "failed") == "success"
    assert starts(server, run_id) == [instance_id]
    assert len(paid(server, instance_id)) == 2
    assert airflow.task(dag_id, run_id, "pay")["try_number"] >= 2


@WAYS
def test_a_sibling_that_fails_holds_and_a_clear_lets_the_run_go_on(
    airflow: Standalone, server: EmbeddedServer, way: str
) -> None:
    dag_id = f"checkpoints_{way}_held"
    run_id, instance_id = begun(airflow, server, dag_id, "8s")
    assert airflow.until_run(dag_id, run_id, "success", "failed") == "failed"
    until_it_stands(server, instance_id)
    tries = airflow.task(dag_id, run_id, "pay")["try_number"]
    log = airflow.log(dag_id, run_id, "pay", tries)
    assert "has failed: check (hold_on_failure)" in log
    assert HELD in log
    airflow.clear(dag_id, run_id, "pay")
    airflow.until(dag_id, run_id, "pay", "success", tries=tries + 1)
    assert starts(server, run_id) == [instance_id]
    assert len(paid(server, instance_id)) == 2


@newest_only
def test_the_time_limit_of_the_operator_holds(airflow: Standalone, server: EmbeddedServer) -> None:
    run_id, instance_id = begun(airflow, server, "checkpoints_deadline", "9s")
    assert airflow.until_run("checkpoints_deadline", run_id, "success", "failed") == "failed"
    until_it_stands(server, instance_id)
    assert HELD in airflow.log("checkpoints_deadline", run_id, "pay", 1)


@newest_only
def test_the_time_limit_of_the_dag_run_holds(airflow: Standalone, server: EmbeddedServer) -> None:
    _, instance_id = begun(airflow, server, "checkpoints_dagrun_timeout", "48s")
    held_log(airflow, instance_id)
    until_it_stands(server, instance_id)


@newest_only
def test_a_cancel_task_holds(airflow: Standalone, server: EmbeddedServer) -> None:
    dag_id = "checkpoints_trigger_rule"
    run_id, instance_id = begun(airflow, server, dag_id, "25s")
    assert airflow.until_run(dag_id, run_id, "success", "failed") in ("success", "failed")
    assert airflow.xcom(dag_id, run_id, "cancel")["status"] == "held"
    assert airflow.task(dag_id, run_id, "pay")["state"] == "failed"
    assert "held by a stop" in airflow.log(dag_id, run_id, "pay", 1)
    until_it_stands(server, instance_id)


@newest_only
def test_the_callback_of_a_sibling_holds(airflow: Standalone, server: EmbeddedServer) -> None:
    dag_id = "checkpoints_siblings"
    run_id, instance_id = begun(airflow, server, dag_id, "13s")
    assert airflow.until_run(dag_id, run_id, "success", "failed") == "failed"
    until_it_stands(server, instance_id)
    assert "held by a stop" in airflow.log(dag_id, run_id, "pay", 1)


@newest_only
def test_the_callback_of_a_dag_holds(airflow: Standalone, server: EmbeddedServer) -> None:
    """Nothing of the task is left: the DAG processor reaches the marks."""
    dag_id = "checkpoints_last_resort"
    run_id, instance_id = begun(airflow, server, dag_id, "15s")
    os.kill(airflow.pid(dag_id, run_id, "pay", 1), signal.SIGKILL)
    assert airflow.until_run(dag_id, run_id, "success", "failed") == "failed"
    until_it_stands(server, instance_id)

    def put_up() -> bool:
        names = [row["key"] for row in airflow.call("GET", "/variables?limit=100")["variables"]]
        return f"orchestration_hold_{instance_id}" in names

    eventually(put_up, "the callback has put up its hold", 60)


@newest_only
def test_what_a_checkpoint_costs(airflow: Standalone, server: EmbeddedServer) -> None:
    """Seconds between payments that follow each other, and requests: figures for the docs."""
    definition = json.dumps({"name": "five", "stages": [SEND] * 5})
    figures: dict[str, Any] = {}
    for way in ("none_sync", "sync", "deferred"):
        dag_id = f"checkpoints_{way}_slow"
        before = dict(server.record().requests)
        run_id = airflow.trigger(dag_id, definition=definition)
        assert airflow.until_run(dag_id, run_id, "success", "failed") == "success"
        (instance_id,) = starts(server, run_id)
        at = paid(server, instance_id)
        assert len(at) == 5
        after = server.record().requests
        figures[way] = {
            "seconds": [round(later - earlier, 2) for earlier, later in pairwise(at)],
            "requests": {
                name: after[name] - before.get(name, 0) for name in after if after[name] > before.get(name, 0)
            },
        }
    print(json.dumps(figures))
    assert max(figures["sync"]["seconds"]) < 3
    assert max(figures["deferred"]["seconds"]) < 10

"""Kills, marks and clears done for real on Airflow 2.11: no state store, the record is a Variable."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from orchestration_integrations import OrchestrationHttpHook
from orchestration_integrations.airflow.compat import AIRFLOW_3
from orchestration_integrations.server import EmbeddedServer

if AIRFLOW_3:
    pytest.skip("drives Airflow 2.11", allow_module_level=True)

from tests.airflow.e2e211.scheduler import Scheduler
from tests.outside import eventually

SEND = {
    "send": {
        "source": {"account": {"id": "world"}},
        "destination": {"account": {"id": "${to}"}},
        "amount": {"amount": 100, "asset": "EUR/2"},
    }
}
ENDLESS = json.dumps({"name": "endless", "stages": [SEND, {"delay": {"duration": "10h"}}, SEND]})
WAITS = json.dumps({"name": "waits", "stages": [SEND, {"wait_event": {"event": "approve"}}, SEND]})
SHORT = json.dumps({"name": "short", "stages": [SEND, {"delay": {"duration": "1s"}}]})


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer(generation=1) as one:
        yield one


@pytest.fixture(scope="module")
def airflow(server: EmbeddedServer) -> Iterator[Scheduler]:
    one = Scheduler({"orchestration_default": server.url})
    try:
        one.start()
        yield one
    finally:
        one.stop()


def starts(server: EmbeddedServer, run_id: str) -> list[str]:
    from urllib.parse import quote

    part = f"/{quote(run_id, safe=' .:+@=,')}/"
    return [row["instance_id"] for row in server.record().started if part in row["variables"].get("runKey", "")]


def end_of(server: EmbeddedServer, instance_id: str) -> str:
    ended = {row["instance_id"]: row["error"] or "succeeded" for row in server.record().ended}
    return str(ended.get(instance_id, "running"))


def aborts(server: EmbeddedServer) -> int:
    return int(server.record().requests.get("abort_instance", 0))


def approve(server: EmbeddedServer, instance_id: str) -> None:
    with OrchestrationHttpHook(base_url=server.url) as http:
        http.send_event_when_ready(instance_id, "approve", timeout=60)


WAYS = pytest.mark.parametrize("dag_id", ["sync", "deferred"])


def waiting(airflow: Scheduler, dag_id: str, definition: str) -> tuple[str, str]:
    run_id = airflow.trigger(dag_id, definition=definition)
    instance_id = airflow.instance(dag_id, run_id)
    airflow.until(dag_id, run_id, "running" if dag_id == "sync" else "deferred")
    if dag_id == "deferred":
        eventually(lambda: f"{instance_id}: stage 0 (send) has begun" in airflow.logs(), "the triggerer waits")
    return run_id, instance_id


@WAYS
def test_success_and_a_clear_of_what_has_ended(airflow: Scheduler, server: EmbeddedServer, dag_id: str) -> None:
    run_id = airflow.trigger(dag_id, definition=SHORT)
    tries = airflow.until(dag_id, run_id, "success")["try_number"]
    assert len(starts(server, run_id)) == 1
    airflow.do("clear", dag_id, run_id, "pay")
    airflow.until(dag_id, run_id, "success", tries=tries + 1)
    assert len(starts(server, run_id)) == 2
    left = airflow.do("variables")
    removed = airflow.do("remove_old", dag_id, run_id)
    assert removed
    assert set(airflow.do("variables")) == set(left) - set(removed)


def test_a_killed_worker_pays_once(airflow: Scheduler, server: EmbeddedServer) -> None:
    run_id, instance_id = waiting(airflow, "sync", WAITS)
    os.kill(airflow.pid("sync", run_id, 1), signal.SIGKILL)
    airflow.until("sync", run_id, "running", tries=2)
    approve(server, instance_id)
    airflow.until("sync", run_id, "success")
    assert starts(server, run_id) == [instance_id]


def test_a_drain_with_a_retry_leaves_the_run(airflow: Scheduler, server: EmbeddedServer) -> None:
    """R5."""
    before = aborts(server)
    run_id, instance_id = waiting(airflow, "sync", WAITS)
    os.kill(airflow.pid("sync", run_id, 1), signal.SIGTERM)
    airflow.until("sync", run_id, "running", tries=2)
    approve(server, instance_id)
    airflow.until("sync", run_id, "success")
    assert starts(server, run_id) == [instance_id]
    assert aborts(server) == before


def test_a_drain_without_a_retry_cancels(airflow: Scheduler, server: EmbeddedServer) -> None:
    """R5."""
    run_id = airflow.trigger("sync_once", definition=ENDLESS)
    instance_id = airflow.instance("sync_once", run_id)
    os.kill(airflow.pid("sync_once", run_id, 1), signal.SIGTERM)
    eventually(lambda: end_of(server, instance_id) == "canceled", "it is cancelled")
    airflow.until("sync_once", run_id, "failed")


@WAYS
def test_marking_failed_cancels(airflow: Scheduler, server: EmbeddedServer, dag_id: str) -> None:
    run_id, instance_id = waiting(airflow, dag_id, ENDLESS)
    airflow.do("mark", dag_id, run_id, "pay", "failed")
    eventually(lambda: end_of(server, instance_id) == "canceled", "it is cancelled")
    assert starts(server, run_id) == [instance_id]


@WAYS
def test_marking_success_leaves_the_run(airflow: Scheduler, server: EmbeddedServer, dag_id: str) -> None:
    """R7."""
    before = aborts(server)
    run_id, instance_id = waiting(airflow, dag_id, WAITS)
    airflow.do("mark", dag_id, run_id, "pay", "success")
    told = "is left alone" if dag_id == "sync" else f"{instance_id} is left to what follows"
    eventually(lambda: told in airflow.logs(), "a log tells it")
    approve(server, instance_id)
    eventually(lambda: end_of(server, instance_id) == "succeeded", "it is paid as a whole")
    assert aborts(server) == before


@WAYS
def test_clearing_a_waiting_task_runs_anew(airflow: Scheduler, server: EmbeddedServer, dag_id: str) -> None:
    """R6: on 2.11 a clear of a running task moves no counter, so the mark is all that tells it."""
    run_id, first = waiting(airflow, dag_id, WAITS)
    airflow.do("clear", dag_id, run_id, "pay")

    def second() -> Any:
        found = starts(server, run_id)
        return found[1] if len(found) == 2 else None

    again = eventually(second, "a second run")
    assert end_of(server, first) == "canceled"
    approve(server, again)
    airflow.until(dag_id, run_id, "success")
    assert len(starts(server, run_id)) == 2


def test_execution_timeout_of_a_deferred_task_cancels(airflow: Scheduler, server: EmbeddedServer) -> None:
    """R8: Airflow 2.11 applies it to the deferral, so ours must be earlier."""
    run_id = airflow.trigger("execution_timeout_long", definition=ENDLESS)
    instance_id = airflow.instance("execution_timeout_long", run_id)
    airflow.until("execution_timeout_long", run_id, "failed")
    assert end_of(server, instance_id) == "canceled"
    assert f"instance {instance_id} was still running at the deadline" in airflow.logs()

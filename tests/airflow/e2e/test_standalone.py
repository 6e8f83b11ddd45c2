"""Kills, marks, clears and timeouts done for real. The embedded server's record is the judge.

On 3.1 a short round: runs, a killed worker, marks, time limits, clears.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import time
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from orchestration_integrations import OrchestrationHttpHook
from orchestration_integrations.airflow.compat import AIRFLOW_VERSION
from orchestration_integrations.server import EmbeddedServer

if AIRFLOW_VERSION < (3, 1):
    pytest.skip("drives the REST API of Airflow 3.1 and later", allow_module_level=True)

from tests.airflow.e2e.standalone import Standalone
from tests.outside import eventually

newest_only = pytest.mark.skipif(AIRFLOW_VERSION < (3, 3), reason="a short round is enough on older versions")

SECRET = "planted-Secret/with+odd=chars&7f3a"
SEND = {
    "send": {
        "source": {"account": {"id": "world"}},
        "destination": {"account": {"id": "${to}"}},
        "amount": {"amount": 100, "asset": "EUR/2"},
    }
}
ENDLESS = json.dumps({"name": "endless", "stages": [SEND, {"delay": {"duration": "10h"}}, SEND]})
WAITS = json.dumps({"name": "waits", "stages": [SEND, {"wait_event": {"event": "approve"}}, SEND]})
SHORT = json.dumps({"name": "short", "stages": [SEND, {"delay": {"duration": "2s"}}]})


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[int, EmbeddedServer]]:
    with (
        EmbeddedServer(generation=1) as one,
        EmbeddedServer(generation=2) as two,
        EmbeddedServer(generation=3) as three,
    ):
        yield {1: one, 2: two, 3: three}


@pytest.fixture(scope="module")
def guarded() -> Iterator[EmbeddedServer]:
    with EmbeddedServer(token=SECRET) as one:
        yield one


@pytest.fixture(scope="module")
def airflow(servers: dict[int, EmbeddedServer], guarded: EmbeddedServer) -> Iterator[Standalone]:
    one = Standalone()
    try:
        one.start()
        one.connect("orchestration_default", host=servers[2].url)
        for number, server in servers.items():
            one.connect(f"gen{number}", host=server.url)
        one.connect("secret", host=guarded.url, login="client", password=SECRET)
        one.connect("token", host=guarded.url, extra=json.dumps({"token": SECRET}))
        yield one
    finally:
        one.stop()


def starts(server: EmbeddedServer, run_id: str) -> list[str]:
    """Instances that were started for a DAG run."""
    return [
        row["instance_id"]
        for row in server.record().started
        if f"/{quote(run_id, safe=' .:+@=,')}/" in row["variables"].get("runKey", "")
    ]


def error_of(server: EmbeddedServer, instance_id: str) -> str | None:
    """How a run has ended on the server; ``running`` where it has not."""
    ended = {row["instance_id"]: row["error"] or "succeeded" for row in server.record().ended}
    return ended.get(instance_id, "running")


def aborts(server: EmbeddedServer) -> int:
    return server.record().requests.get("abort_instance", 0)


def approve(server: EmbeddedServer, instance_id: str) -> None:
    with OrchestrationHttpHook(base_url=server.url) as http:
        http.send_event_when_ready(instance_id, "approve", timeout=60)


@newest_only
def test_connections_are_made_and_tested(airflow: Standalone, guarded: EmbeddedServer) -> None:
    body = {"connection_id": "fresh", "conn_type": "orchestration", "host": guarded.url}
    good = airflow.call("POST", "/connections/test", {**body, "login": "client", "password": SECRET})
    assert good["status"] is True
    assert guarded.url in good["message"]
    assert "server version" in good["message"]
    bad = airflow.call("POST", "/connections/test", {**body, "login": "client", "password": "wrong"})
    assert bad["status"] is False
    assert "refused" in bad["message"]
    nowhere = airflow.call("POST", "/connections/test", {**body, "host": "http://127.0.0.1:9"})
    assert nowhere["status"] is False
    told = json.dumps([airflow.call("GET", f"/connections/{one}") for one in ("secret", "token")])
    assert SECRET not in told
    hooks = airflow.client.get("/ui/connections/hook_meta").json()
    ours = next(one for one in hooks if one["connection_type"] == "orchestration")
    assert "token" in ours["extra_fields"]


@pytest.mark.parametrize("dag_id", ["sync", "deferred"])
def test_a_run_pays_once_and_returns_a_small_result(
    airflow: Standalone, servers: dict[int, EmbeddedServer], dag_id: str
) -> None:
    run_id = airflow.trigger(dag_id, definition=SHORT)
    assert airflow.until_run(dag_id, run_id, "success", "failed") == "success"
    (instance_id,) = starts(servers[2], run_id)
    result = airflow.xcom(dag_id, run_id, "pay")
    assert result["instance_id"] == instance_id
    assert result["state"] == "succeeded"
    assert result["maybe_repeated"] is False
    assert len(result["transactions"]) == 1
    links = airflow.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/pay/links")["extra_links"]
    assert instance_id in links["Orchestration instance"]


def test_a_worker_that_is_killed_amid_the_wait_is_taken_up_by_the_retry(
    airflow: Standalone, servers: dict[int, EmbeddedServer]
) -> None:
    run_id = airflow.trigger("sync", definition=WAITS)
    instance_id = airflow.instance("sync", run_id)
    os.kill(airflow.pid("sync", run_id, "pay", 1), signal.SIGKILL)
    airflow.until("sync", run_id, "pay", "running", tries=2)
    approve(servers[2], instance_id)
    assert airflow.until_run("sync", run_id, "success", "failed") == "success"
    assert starts(servers[2], run_id) == [instance_id]
    assert airflow.xcom("sync", run_id, "pay")["instance_id"] == instance_id


@newest_only
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
def test_a_triggerer_that_ends_cancels_nothing_and_the_wait_goes_on(
    airflow: Standalone, servers: dict[int, EmbeddedServer], sign: signal.Signals
) -> None:
    before = aborts(servers[1])
    run_id = airflow.trigger("deferred", definition=WAITS, conn="gen1")
    instance_id = airflow.instance("deferred", run_id)
    airflow.until_waiting("deferred", run_id, "pay", "deferred")
    airflow.replace_triggerer(sign)
    approve(servers[1], instance_id)
    assert airflow.until_run("deferred", run_id, "success", "failed") == "success"
    assert starts(servers[1], run_id) == [instance_id]
    assert aborts(servers[1]) == before


@pytest.mark.parametrize("generation", [1, 2, 3])
def test_marking_a_deferred_task_failed_cancels(
    airflow: Standalone, servers: dict[int, EmbeddedServer], generation: int
) -> None:
    server = servers[generation]
    before = aborts(server)
    run_id = airflow.trigger("deferred", definition=ENDLESS, conn=f"gen{generation}")
    instance_id = airflow.instance("deferred", run_id)
    airflow.until_waiting("deferred", run_id, "pay", "deferred")
    airflow.mark("deferred", run_id, "pay", "failed")
    eventually(lambda: aborts(server) > before, "an abort is sent")
    if generation == 2:
        eventually(lambda: f"cancel of instance {instance_id}: not_confirmed" in airflow.logs(), "a log tells it")
        assert error_of(server, instance_id) == "running"
    else:
        eventually(lambda: error_of(server, instance_id) == "canceled", "it is cancelled")
    assert starts(server, run_id) == [instance_id]


def test_marking_a_running_task_failed_cancels(airflow: Standalone, servers: dict[int, EmbeddedServer]) -> None:
    run_id = airflow.trigger("sync", definition=ENDLESS, conn="gen1")
    instance_id = airflow.instance("sync", run_id)
    airflow.mark("sync", run_id, "pay", "failed")
    eventually(lambda: error_of(servers[1], instance_id) == "canceled", "it is cancelled")
    assert starts(servers[1], run_id) == [instance_id]


@newest_only
@pytest.mark.parametrize("dag_id", ["sync", "deferred_once"])
def test_marking_the_dag_run_failed_cancels(
    airflow: Standalone, servers: dict[int, EmbeddedServer], dag_id: str
) -> None:
    run_id = airflow.trigger(dag_id, definition=ENDLESS, conn="gen3")
    instance_id = airflow.instance(dag_id, run_id)
    airflow.until_waiting(dag_id, run_id, "pay", "running" if dag_id == "sync" else "deferred")
    airflow.mark_run(dag_id, run_id, "failed")
    eventually(lambda: error_of(servers[3], instance_id) == "canceled", "it is cancelled")


LIMITED = [
    (dag_id, generation) for dag_id in ("deadline", "execution_timeout", "dagrun_timeout") for generation in (1, 2)
]


@pytest.fixture(scope="module")
def limited(airflow: Standalone) -> dict[tuple[str, int], str]:
    """Runs that hit their time limits, all begun at once: deferred, they wait side by side."""
    return {
        (dag_id, generation): airflow.trigger(dag_id, definition=ENDLESS, conn=f"gen{generation}")
        for dag_id, generation in LIMITED
    }


@pytest.mark.parametrize(("dag_id", "generation"), LIMITED)
def test_a_time_limit_amid_the_deferral_cancels(
    airflow: Standalone,
    servers: dict[int, EmbeddedServer],
    limited: dict[tuple[str, int], str],
    dag_id: str,
    generation: int,
) -> None:
    server, run_id = servers[generation], limited[dag_id, generation]
    instance_id = airflow.instance(dag_id, run_id)
    assert airflow.until_run(dag_id, run_id, "success", "failed") == "failed"
    if generation == 1:
        eventually(lambda: error_of(server, instance_id) == "canceled", "it is cancelled")
    else:
        assert error_of(server, instance_id) == "running"
        if dag_id == "dagrun_timeout":
            told = f"cancel of instance {instance_id}: not_confirmed"
            eventually(lambda: told in airflow.logs(), "a log tells that it still runs")
        else:
            eventually(
                lambda: "its cancel is not confirmed" in airflow.log(dag_id, run_id, "pay", 1),
                "its log tells that it may still run",
            )
    assert starts(server, run_id) == [instance_id]


@pytest.mark.parametrize("dag_id", ["sync", "deferred"])
def test_clearing_a_finished_task_runs_anew(
    airflow: Standalone, servers: dict[int, EmbeddedServer], dag_id: str
) -> None:
    run_id = airflow.trigger(dag_id, definition=SHORT)
    assert airflow.until_run(dag_id, run_id, "success", "failed") == "success"
    tries = airflow.task(dag_id, run_id, "pay")["try_number"]
    airflow.clear(dag_id, run_id, "pay")
    airflow.until(dag_id, run_id, "pay", "success", tries=tries + 1)
    assert len(starts(servers[2], run_id)) == 2


@pytest.mark.parametrize("dag_id", ["sync", "deferred"])
@pytest.mark.parametrize("generation", [1, 2])
def test_clearing_a_waiting_task_never_leaves_two_runs(
    airflow: Standalone, servers: dict[int, EmbeddedServer], dag_id: str, generation: int
) -> None:
    """Where the cancel works the cleared task runs anew; where it does not, it goes on with the run that is alive."""
    server = servers[generation]
    run_id = airflow.trigger(dag_id, definition=WAITS, conn=f"gen{generation}")
    first = airflow.instance(dag_id, run_id)
    waiting = "running" if dag_id == "sync" else "deferred"
    airflow.until_waiting(dag_id, run_id, "pay", waiting)
    airflow.clear(dag_id, run_id, "pay")
    airflow.until(dag_id, run_id, "pay", "running", "deferred", tries=2)
    if generation == 1:
        eventually(lambda: error_of(server, first) == "canceled", "the first run is cancelled")
        second = eventually(lambda: (found := starts(server, run_id)) and len(found) == 2 and found[1], "a second run")
    else:
        second = first
    assert isinstance(second, str)
    approve(server, second)
    assert airflow.until_run(dag_id, run_id, "success", "failed") == "success"
    assert airflow.xcom(dag_id, run_id, "pay")["instance_id"] == second
    assert len(starts(server, run_id)) == (2 if generation == 1 else 1)


@newest_only
@pytest.mark.parametrize("dag_id", ["sync", "deferred"])
def test_marking_a_waiting_task_as_a_success_leaves_its_run(
    airflow: Standalone, servers: dict[int, EmbeddedServer], dag_id: str
) -> None:
    """R7: whoever says that the task is done did not ask for half a payment."""
    server = servers[1]
    before = aborts(server)
    run_id = airflow.trigger(dag_id, definition=WAITS, conn="gen1")
    instance_id = airflow.instance(dag_id, run_id)
    airflow.until_waiting(dag_id, run_id, "pay", "running" if dag_id == "sync" else "deferred")
    airflow.mark(dag_id, run_id, "pay", "success")
    eventually(
        lambda: re.search(rf"marked as a success.*{instance_id} is left alone", airflow.logs()), "a log tells it"
    )
    assert aborts(server) == before
    assert error_of(server, instance_id) == "running"
    approve(server, instance_id)
    eventually(lambda: error_of(server, instance_id) == "succeeded", "it is paid as a whole")


@newest_only
@pytest.mark.parametrize("dag_id", ["sync", "sync_once"])
def test_a_drain_leaves_the_run(airflow: Standalone, servers: dict[int, EmbeddedServer], dag_id: str) -> None:
    """R5: SIGTERM to the process of a task that nobody marked. Airflow 3.3 lets ``execute`` go on to its end."""
    server = servers[1]
    before = aborts(server)
    run_id = airflow.trigger(dag_id, definition=WAITS, conn="gen1")
    instance_id = airflow.instance(dag_id, run_id)
    os.kill(airflow.pid(dag_id, run_id, "pay", 1), signal.SIGTERM)
    eventually(lambda: f"instance {instance_id} is left alone" in airflow.logs(), "its log tells it")
    approve(server, instance_id)
    assert airflow.until_run(dag_id, run_id, "success", "failed") == "success"
    assert starts(server, run_id) == [instance_id]
    assert aborts(server) == before


@newest_only
@pytest.mark.parametrize("repeat", range(3))
def test_clearing_a_running_task_runs_anew_each_time(
    airflow: Standalone, servers: dict[int, EmbeddedServer], repeat: int
) -> None:
    """R6: the state store refuses the killed process, and the next try still knows that a user has cleared it."""
    server = servers[3 if repeat else 1]
    run_id = airflow.trigger("sync", definition=ENDLESS, conn=f"gen{3 if repeat else 1}")
    first = airflow.instance("sync", run_id)
    airflow.clear("sync", run_id, "pay")
    second = eventually(lambda: (found := starts(server, run_id)) and len(found) == 2 and found[1], "a second run")
    assert error_of(server, first) == "canceled"
    eventually(lambda: second in {row["instance_id"] for row in server.record().released}, "it is released")
    airflow.mark("sync", run_id, "pay", "failed")
    eventually(lambda: error_of(server, str(second)) == "canceled", "the second is cancelled")
    assert len(starts(server, run_id)) == 2


@newest_only
@pytest.mark.parametrize("dag_id", ["siblings", "trigger_rule"])
def test_an_upstream_failure_cancels(airflow: Standalone, servers: dict[int, EmbeddedServer], dag_id: str) -> None:
    generation = 2 if dag_id == "siblings" else 1
    conn, server = f"gen{generation}", servers[generation]
    before = aborts(server)
    run_id = airflow.trigger(dag_id, definition=WAITS if dag_id == "siblings" else ENDLESS, conn=conn)
    instance_id = airflow.instance(dag_id, run_id)
    eventually(lambda: aborts(server) > before, "an abort is sent")
    if dag_id == "siblings":
        # Generation 2 goes on whatever it was told: its task waits on, and says how it ends.
        approve(server, instance_id)
        airflow.until(dag_id, run_id, "pay", "success")
    else:
        eventually(lambda: error_of(server, instance_id) == "canceled", "it is cancelled")
        airflow.until(dag_id, run_id, "pay", "failed")
        assert "was cancelled" in airflow.log(dag_id, run_id, "pay", 1)
        assert airflow.xcom(dag_id, run_id, "cancel")["status"] == "cancelled"
    assert airflow.until_run(dag_id, run_id, "success", "failed") == "failed"
    assert starts(server, run_id) == [instance_id]


@newest_only
def test_a_run_whose_worker_is_killed_for_good_is_cancelled_by_the_dag(
    airflow: Standalone, servers: dict[int, EmbeddedServer]
) -> None:
    """Nothing of the task is left to cancel it: the DAG's callback does, from the DAG processor."""
    run_id = airflow.trigger("last_resort", definition=ENDLESS, conn="gen1")
    instance_id = airflow.instance("last_resort", run_id)
    os.kill(airflow.pid("last_resort", run_id, "pay", 1), signal.SIGKILL)
    assert airflow.until_run("last_resort", run_id, "success", "failed") == "failed"
    eventually(lambda: error_of(servers[1], instance_id) == "canceled", "it is cancelled")


@newest_only
def test_a_sensor_begins_in_the_triggerer(airflow: Standalone, servers: dict[int, EmbeddedServer]) -> None:
    with OrchestrationHttpHook(base_url=servers[2].url) as http:
        workflow = http.ensure_workflow(json.loads(WAITS)).workflow
        instance_id = http.run_workflow(workflow.id, {"to": "merchants:1"}).id
    run_id = airflow.trigger("sensor", instance_id=instance_id)
    airflow.until("sensor", run_id, "ended", "deferred")
    approve(servers[2], instance_id)
    assert airflow.until_run("sensor", run_id, "success", "failed") == "success"
    assert airflow.xcom("sensor", run_id, "ended")["state"] == "succeeded"


@newest_only
def test_a_human_approves(airflow: Standalone, servers: dict[int, EmbeddedServer]) -> None:
    dag_id = "payout_with_approval"
    run_id = airflow.trigger(dag_id)
    airflow.until(dag_id, run_id, "ask", "awaiting_input", "deferred")
    assert servers[2].balance("merchants:m1", "EUR/2") == 0
    path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/ask/-1/hitlDetails"
    # No human is so quick: an answer before the scheduler has heard that the task waits fails the task in Airflow.
    time.sleep(4)
    airflow.call("PATCH", path, {"chosen_options": ["Approve"], "params_input": {}})
    ended = airflow.until_run(dag_id, run_id, "success", "failed")
    states = airflow.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]
    assert ended == "success", [(one["task_id"], one["state"], one["try_number"]) for one in states]
    assert servers[2].balance("merchants:m1", "EUR/2") == 1250


@newest_only
@pytest.mark.parametrize("conn", ["secret", "token"])
def test_planted_secrets_are_found_nowhere(airflow: Standalone, guarded: EmbeddedServer, conn: str) -> None:
    issued = guarded.record().tokens
    run_id = airflow.trigger("deferred", definition=WAITS, conn=conn)
    instance_id = airflow.instance("deferred", run_id)
    airflow.until_waiting("deferred", run_id, "pay", "deferred")
    database = sqlite3.connect(f"file:{airflow.home / 'airflow.db'}?mode=ro", uri=True)
    try:
        rows = _everything(database)
    finally:
        database.close()
    with OrchestrationHttpHook(base_url=guarded.url, token=SECRET) as http:
        http.send_event_when_ready(instance_id, "approve", timeout=60)
    assert airflow.until_run("deferred", run_id, "success", "failed") == "success"
    if conn == "secret":
        assert guarded.record().tokens > issued  # a token was fetched, so there was one to leak
    tokens = [*guarded.core.tokens._issued, SECRET]
    assert any(instance_id in text for text in rows.values())
    logs = {str(one): one.read_text(errors="replace") for one in airflow.home.rglob("*.log")}
    assert any(instance_id in text for text in logs.values())
    for where, text in {**rows, **logs}.items():
        for token in tokens:
            assert token not in text, where


def _everything(database: sqlite3.Connection) -> dict[str, str]:
    """All rows of all tables but that of the connections themselves."""
    tables = [row[0] for row in database.execute("select name from sqlite_master where type = 'table'")]
    return {
        f"table {name}": repr(database.execute(f'select * from "{name}"').fetchall())
        for name in tables
        if name != "connection"
    }

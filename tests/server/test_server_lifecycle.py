"""Start, stop, restart: over sockets, on a database file, as a command."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from orchestration_integrations.server import Core, EmbeddedServer, RealClock, create_app
from orchestration_integrations.server.exchange import Request

from .conftest import WAIT, delay, send

if TYPE_CHECKING:
    from pathlib import Path

ALL = pytest.mark.parametrize("generation", [1, 2, 3])


@ALL
def test_a_server_starts_answers_and_stops_without_a_trace(generation: Any) -> None:
    threads = threading.active_count()
    with EmbeddedServer(generation) as server:
        assert server.url.startswith("http://127.0.0.1:")
        assert httpx.get(f"{server.url}/_info").status_code == 200
        port = int(server.url.rsplit(":", 1)[1])
    assert threading.active_count() == threads
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    server.stop()


def test_a_stop_cuts_held_requests() -> None:
    seen: list[str] = []
    with EmbeddedServer(1) as server:
        workflow = httpx.post(f"{server.url}/workflows", json={"stages": [WAIT]}).json()["data"]["id"]

        def run() -> None:
            try:
                httpx.post(f"{server.url}/workflows/{workflow}/instances?wait=true", timeout=30)
            except httpx.TransportError as error:
                seen.append(type(error).__name__)

        thread = threading.Thread(target=run)
        thread.start()
        while not server.record().started:
            time.sleep(0.005)
    thread.join(5)
    assert seen == ["RemoteProtocolError"]


def test_a_held_request_ends_when_another_one_ends_its_run() -> None:
    with EmbeddedServer(1) as server:
        workflow = httpx.post(f"{server.url}/workflows", json={"stages": [delay("1h")]}).json()["data"]["id"]
        answers: list[Any] = []
        run = f"{server.url}/workflows/{workflow}/instances?wait=true"
        thread = threading.Thread(target=lambda: answers.append(httpx.post(run, timeout=10).json()))
        thread.start()
        while not server.record().started:
            time.sleep(0.005)
        server.advance(4000)
        thread.join(5)
        assert answers[0]["data"]["terminated"] is True


def test_a_client_that_leaves_amid_a_run_over_a_socket() -> None:
    with EmbeddedServer(1) as server:
        workflow = httpx.post(f"{server.url}/workflows", json={"stages": [WAIT]}).json()["data"]["id"]
        address = ("127.0.0.1", int(server.url.rsplit(":", 1)[1]))
        head = f"POST /workflows/{workflow}/instances HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n"
        request = f"{head}{{}}".encode()
        for pause in (0.0, 0.0, 0.02, 0.02):
            with socket.create_connection(address) as connection:
                connection.sendall(request)
                time.sleep(pause)
        deadline = time.monotonic() + 5
        while len(server.record().started) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert 2 <= len(server.record().started) <= 4
        assert server.record().requests["run_workflow"] >= 2


@ALL
def test_a_restart_on_the_same_file_goes_on(tmp_path: Path, generation: Any) -> None:
    file = str(tmp_path / "server.db")
    ids: dict[str, str] = {}
    with EmbeddedServer(generation, db=file, seed=3) as server, httpx.Client(base_url=server.url) as client:
        stages = {
            "delay": [delay("1h"), send()],
            "wait": [WAIT, send()],
            "poor": [send(source="poor")],
            "stall": [send()],
        }
        for name, given in stages.items():
            workflow = client.post("/workflows", json={"name": name, "stages": given}).json()["data"]["id"]
            if name == "stall":
                server.advance(10)
                server.world("ledger stopped")
            ids[name] = client.post(f"/workflows/{workflow}/instances").json()["data"]["id"]
            server.advance(1)
        server.world("workers stopped")
        client.post(f"/instances/{ids['wait']}/events", json={"name": "wrong"})
        created = client.get(f"/instances/{ids['wait']}").json()["data"]["createdAt"]
    with EmbeddedServer(generation, db=file, seed=4) as server, httpx.Client(base_url=server.url) as client:
        assert client.get(f"/instances/{ids['wait']}").json()["data"]["createdAt"] == created
        assert server.core.engine.parts.up["workers"] is False
        server.world("workers started")
        server.world("ledger started")
        server.advance(1)
        assert server.balance("bank", "USD/2") == 100
        client.post(f"/instances/{ids['wait']}/events", json={"name": "go"})
        server.advance(2)
        server.advance(3600)
        for name in ("delay", "wait", "stall"):
            assert client.get(f"/instances/{ids[name]}").json()["data"]["terminated"] is True, name
        assert server.balance("bank", "USD/2") == 300
        activity = client.get(f"/instances/{ids['poor']}/stages/0/history").json()["data"][0]
        assert activity["attempt"] > 20
        assert len(client.get("/workflows").json()["data"]) == 4


def test_a_killed_server_has_lost_nothing(tmp_path: Path) -> None:
    file = str(tmp_path / "server.db")
    clock = RealClock()
    core = Core(2, db=file, clock=clock)
    body = b'{"stages":[{"wait_event":{"event":"go"}}]}'
    made = core.handle(Request("POST", "/workflows", "", {"content-length": str(len(body))}, body))
    assert made.reply is not None
    assert made.reply.status == 201
    again = Core(2, db=file)  # the first was never closed
    assert [w.name for w in again.engine.workflows.values()] == [""]
    again.close()
    core.close()


async def test_as_an_asgi_app() -> None:
    app = create_app(3)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
        made = await client.post("/workflows", json={"stages": [WAIT]})
        ran = await client.post(f"/workflows/{made.json()['data']['id']}/instances")
        assert ran.status_code == 201
    assert len(app.state.core.record().started) == 1


def command(*arguments: str) -> subprocess.Popen[str]:
    run = [sys.executable, "-m", "orchestration_integrations.cli", "serve", "--port", "0", *arguments]
    return subprocess.Popen(run, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_it_is_told_to_stop(number: signal.Signals) -> None:
    process = command("--generation", "1", "--faults", "--token", "s3cret")
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert httpx.get(f"{url}/workflows").status_code == 401
        told = [sys.executable, "-m", "orchestration_integrations.server.world", url]
        assert subprocess.run([*told, "engine stopped"], check=False).returncode == 0
        assert subprocess.run([*told, "nonsense"], check=False, capture_output=True).returncode == 1
        process.send_signal(number)
        assert process.wait(5) == 0
    finally:
        process.kill()
        process.wait()


WEEK = {"stages": [{"delay": {"duration": "168h"}}, send("1250", "world", "shop")]}


def test_the_commands_time_skips_for_a_client_that_polls_and_for_nobody_else() -> None:
    """The client is another process, as every client of the command is."""
    process = command("--time", "skip", "--faults")
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with httpx.Client(base_url=url, trust_env=False) as client:
            client.get("/_ui/api/instances")  # the page looks at its own server all the time; it waits for nothing
            workflow = client.post("/workflows", json=WEEK).json()["data"]["id"]
            begun = client.post(f"/workflows/{workflow}/instances", json={}).json()["data"]
            time.sleep(1.5)
            assert not client.get(f"/instances/{begun['id']}").json()["data"]["terminated"], "nobody has waited"
            until = time.monotonic() + 20
            while not (run := client.get(f"/instances/{begun['id']}").json()["data"])["terminated"]:
                assert time.monotonic() < until, "its time does not skip"
                time.sleep(0.1)
            record = [json.loads(line) for line in client.get("/_control/record.jsonl").text.splitlines()]
        assert run["terminatedAt"][:10] > begun["createdAt"][:10], "a week has passed"
        assert [one["posting"]["destination"] for one in record if one["kind"] == "money_moved"] == ["shop"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
    finally:
        process.kill()
        process.wait()


def test_the_command_of_this_package_waits_out_a_week_of_the_commands_server(tmp_path: Path) -> None:
    """Its limit is real time: what is skipped in another process counts against nobody here."""
    file = tmp_path / "week.yaml"
    file.write_text(json.dumps({"name": "week", **WEEK}))
    process = command("--time", "skip")
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        run = [sys.executable, "-m", "orchestration_integrations.cli", "run", str(file), "--run-key", "k", "--url", url]
        limits = ["--timeout", "60", "--poll-interval", "0.2", "--store", str(tmp_path / "runs.db")]
        done = subprocess.run([*run, *limits], capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 0, done.stderr
    finally:
        process.kill()
        process.wait()


def test_the_commands_time_is_real_unless_it_is_told_otherwise() -> None:
    process = command()
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with httpx.Client(base_url=url, trust_env=False) as client:
            workflow = client.post("/workflows", json=WEEK).json()["data"]["id"]
            name = client.post(f"/workflows/{workflow}/instances", json={}).json()["data"]["id"]
            until = time.monotonic() + 2
            while time.monotonic() < until:
                assert not client.get(f"/instances/{name}").json()["data"]["terminated"]
                time.sleep(0.1)
    finally:
        process.kill()
        process.wait()


def test_another_time_is_refused() -> None:
    run = [sys.executable, "-m", "orchestration_integrations.cli", "serve", "--port", "0", "--time", "fast"]
    done = subprocess.run(run, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert "time must be 'real' or 'skip', not 'fast'" in done.stderr
    assert "Traceback" not in done.stderr
    with pytest.raises(ValueError, match="time must be"):
        EmbeddedServer(time="fast")  # type: ignore[arg-type]


def test_the_command_says_that_a_port_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        run = [sys.executable, "-m", "orchestration_integrations.cli", "serve", "--port", port]
        done = subprocess.run(run, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert port in done.stderr


def test_the_command_says_that_a_file_is_no_database(tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    file.write_text("not a database, but long enough to be taken for one" * 50)
    run = [sys.executable, "-m", "orchestration_integrations.cli", "serve", "--port", "0", "--db", str(file)]
    done = subprocess.run(run, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert "x.db" in done.stderr
    assert "Traceback" not in done.stderr


@ALL
def test_the_record_goes_on_after_a_restart(generation: Any, tmp_path: Path) -> None:
    """A payment before it counts as one of two."""
    file = str(tmp_path / "server.db")
    with EmbeddedServer(generation, db=file) as server:
        body = {"stages": [send("1250", "bank", "shop")]}
        server.seed_data({"accounts": [{"id": "bank", "balances": {"USD/2": 5000}}]})
        workflow = httpx.post(f"{server.url}/workflows", json=body).json()["data"]["id"]
        httpx.post(f"{server.url}/workflows/{workflow}/instances")
        server.advance(60)
        before = server.record()
    assert (len(before.started), len(before.money), len(before.ended)) == (1, 1, 1)
    with EmbeddedServer(generation, db=file) as server:
        assert server.record() == before
        with pytest.raises(AssertionError, match="was paid once, expected never"):
            server.paid_nothing("shop")
        httpx.post(f"{server.url}/workflows/{workflow}/instances")
        server.advance(60)
        server.started(2)
        with pytest.raises(AssertionError, match="twice, expected once"):
            server.paid("shop", 1250, "USD/2", once=True)
        after = server.record()
    assert Core(generation, db=file).record() == after

"""The endpoint that takes hints, and the command that waits with it."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from orchestration_integrations import (
    ConfigurationError,
    OrchestrationHttpHook,
    ValidationError,
    hint,
    hint_endpoint,
)
from orchestration_integrations.hint_endpoint import HintEndpoint
from orchestration_integrations.server import EmbeddedServer

WAITS = {"name": "waits", "stages": [{"wait_event": {"event": "go"}}]}
COMMAND = [sys.executable, "-c", "from orchestration_integrations.cli import main; main()", "wait"]


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as started:
        yield started


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"payload": [{"instance": "nobody waits for this"}]}', 200),
        (b"not JSON", 400),
        (b"[" * 100_000, 400),
        (b"x" * 1_000_001, 413),
    ],
)
def test_a_strange_hint_is_answered_and_harms_nothing(body: bytes, status: int) -> None:
    with HintEndpoint() as endpoint:
        assert httpx.post(endpoint.url, content=body).status_code == status


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_what_is_no_post_is_told_so(method: str) -> None:
    with HintEndpoint() as endpoint:
        answer = httpx.request(method, endpoint.url)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert method == "HEAD" or "send hints by POST" in answer.text


@pytest.mark.parametrize(
    ("options", "field"),
    [({"port": 70000}, "port"), ({"port": -1}, "port"), ({"port": "8088"}, "port"), ({"port": True}, "port"),
     ({"host": ""}, "host"), ({"host": None}, "host")],
)  # fmt: skip
def test_a_wrong_argument_is_named(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigurationError, match=field) as told:
        HintEndpoint(**options)
    assert told.value.field == field


def test_senders_who_never_finish_shut_nobody_out_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many are served at once, and each for a bounded time, however slowly it sends."""
    monkeypatch.setattr(hint_endpoint, "SENDERS", 3)
    monkeypatch.setattr(hint_endpoint, "SECONDS", 1.0)
    with HintEndpoint() as endpoint, contextlib.ExitStack() as open_ones:
        address = ("127.0.0.1", httpx.URL(endpoint.url).port)
        senders = [open_ones.enter_context(socket.create_connection(address)) for _ in range(3)]
        for one in senders:
            one.sendall(b"POST / HTTP/1.1\r\nX: ")
        time.sleep(0.2)
        with pytest.raises(httpx.TransportError):
            httpx.post(endpoint.url, json=[])
        until = time.monotonic() + 20
        while time.monotonic() < until:
            for one in senders:
                with contextlib.suppress(OSError):
                    one.sendall(b"x")
            time.sleep(0.1)
            with contextlib.suppress(httpx.TransportError):
                assert httpx.post(endpoint.url, json=[]).status_code == 200
                return
    raise AssertionError("it serves nobody any more")


def test_an_endpoint_starts_once_and_stops_for_good() -> None:
    endpoint = HintEndpoint()
    with endpoint:
        endpoint.start()
        assert httpx.post(endpoint.url, json=[]).status_code == 200
    endpoint.stop()
    with pytest.raises(ConfigurationError, match="was stopped"):
        endpoint.start()


@pytest.mark.parametrize("what", [None, "", ["i1", "i2"], 7, b"i1"])
def test_a_hint_is_the_id_of_one_instance(what: Any) -> None:
    with pytest.raises(ValidationError, match="instance_id") as told:
        hint(what)
    assert told.value.path == "instance_id"


def test_the_command_waits_and_is_told_by_a_webhook(server: EmbeddedServer) -> None:
    """A poll would come a minute later."""
    with OrchestrationHttpHook(base_url=server.url) as hook:
        workflow = hook.create_workflow(WAITS)
        ids = [hook.run_workflow(workflow.id).id for _ in range(3)]
        command = [*COMMAND, *ids, "--url", server.url, "--poll-interval", "60", "--hints", "0", "--timeout", "90"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            assert process.stderr is not None
            assert process.stdout is not None
            url = process.stderr.readline().split()[-1]
            time.sleep(12)  # the polls have slowed down
            answers: list[int] = []
            for instance_id in ids:
                hook.send_event(instance_id, "go")
                while not hook.get_instance(instance_id).terminated:
                    time.sleep(0.01)
                hinted_at = time.monotonic()
                answer = httpx.post(url, json={"type": "SUCCEEDED_WORKFLOW", "payload": {"instanceID": instance_id}})
                answers.append(answer.status_code)
                assert process.stdout.readline().split("\t")[:2] == [instance_id, "succeeded"]
                assert time.monotonic() - hinted_at < 5
            assert process.wait(20) == 0
            assert answers.count(204) >= 2, "one may have been told by a poll in the same moment"
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
            process.stderr.close()


def test_the_command_tells_what_it_came_to_by_its_exit_status(server: EmbeddedServer) -> None:
    with OrchestrationHttpHook(base_url=server.url) as hook:
        instance_id = hook.run_workflow(hook.create_workflow(WAITS).id).id
        done = subprocess.run(
            [*COMMAND, instance_id, "--url", server.url, "--timeout", "0.5"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 4
        assert done.stdout.startswith(f"{instance_id}\ttimeout\t")
        done = subprocess.run([*COMMAND, "", "--url", server.url], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "instance_id" in done.stderr

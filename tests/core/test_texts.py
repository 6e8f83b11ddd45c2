"""What users read: who did what to a run, which limit was over, what is to be done next."""

from __future__ import annotations

import logging
import socket
import threading
from typing import Any

import pytest

from orchestration_integrations import (
    MemoryRunStore,
    OwnerGoneError,
    TransportError,
    WaitTimeoutError,
)
from tests.conftest import open_hook
from tests.core.test_answers import PAYMENT, World

LATER = {"name": "later", "stages": [{"delay": {"duration": "1h"}}, PAYMENT]}
APPROVED = {"name": "approved", "stages": [PAYMENT, {"wait_event": {"event": "approve"}}]}


def begun(caplog: pytest.LogCaptureFixture) -> str:
    """The verb of the line that tells how the last attempt began."""
    lines = [one.getMessage() for one in caplog.records if "run key k: " in one.getMessage()]
    caplog.clear()
    assert len(lines) == 1, lines
    return lines[0].removeprefix("run key k: ").partition(" instance ")[0]


def test_each_beginning_says_what_was_done(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world, store = World(kind, generation=3), MemoryRunStore()
    arguments: dict[str, Any] = {"run_key": "k", "store": store, "timeout": 5, "on_timeout": "leave"}
    with pytest.raises(WaitTimeoutError):
        world.hook().run_once(LATER, **arguments)
    assert begun(caplog) == "started"
    with pytest.raises(WaitTimeoutError):
        world.hook().run_once(LATER, **arguments)
    assert begun(caplog) == "goes on with"
    arguments["store"] = MemoryRunStore()
    with pytest.raises(WaitTimeoutError):
        world.hook().run_once(LATER, **arguments)
    assert begun(caplog) == "adopted"
    world.clock.sleep(7200)
    world.hook().run_once(LATER, **arguments)
    assert begun(caplog) == "comes back to"


def test_a_run_that_an_earlier_attempt_left_at_its_gate_is_released(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world, store = World(kind), MemoryRunStore()
    world.core.fault("send_event", "status", count=-1, code=503)
    with pytest.raises(Exception, match=r"its gate is still closed|503"):
        world.hook().run_once(LATER, run_key="k", store=store, start_timeout=10)
    caplog.clear()
    world.core.clear_faults()
    with pytest.raises(WaitTimeoutError):
        world.hook().run_once(LATER, run_key="k", store=store, timeout=5, on_timeout="leave")
    assert begun(caplog) == "released"


def test_a_time_out_names_its_limit_and_the_stage_by_both_numbers(kind: str) -> None:
    world = World(kind)
    with pytest.raises(
        WaitTimeoutError, match=r"at the deadline of timeout=5 s \(it waits for event 'approve'"
    ) as caught:
        world.hook().run_once(APPROVED, run_key="k", store=MemoryRunStore(), timeout=5)
    assert "in stage 1 (wait_event; 2 on the server)" in str(caught.value)
    instance_id = caught.value.instance_id
    assert f"see how it ends before you pay anew (orchestration-integrations wait {instance_id})" in str(caught.value)


def test_without_a_gate_both_numbers_are_one(kind: str) -> None:
    world = World(kind)
    workflow = world.hook().create_workflow(APPROVED)
    instance = world.hook().run_workflow(workflow.id)
    with pytest.raises(WaitTimeoutError, match=r"in stage 1 \(wait_event\)"):
        world.hook().wait(instance.id, timeout=5)


def test_a_run_at_its_gate_names_who_releases_it(kind: str) -> None:
    world = World(kind)
    workflow = world.hook().ensure_workflow(LATER, gate=True).workflow
    instance = world.hook().run_workflow(workflow.id)
    with pytest.raises(WaitTimeoutError, match="submitted without a run key, so nothing will release it"):
        world.hook().wait(instance.id, timeout=5)
    chosen: list[str] = []

    def unwanted() -> bool:
        return False

    with pytest.raises(OwnerGoneError):
        world.hook().start(workflow.id, run_key="k", wants=unwanted, on_chosen=chosen.append)
    with pytest.raises(WaitTimeoutError, match="a run task with run key k releases it") as caught:
        world.hook().wait(chosen[0], timeout=5)
    assert "go:" not in str(caught.value)


def test_https_to_a_plain_port_says_what_may_be_wrong(kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            for _ in range(20):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        hook = open_hook(kind, base_url=f"https://127.0.0.1:{listener.getsockname()[1]}", retry_budget=1.0)
        with pytest.raises(TransportError, match="the server may speak plain http"):
            hook.get_server_info()

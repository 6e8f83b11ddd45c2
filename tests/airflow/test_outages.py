"""A server that is away while a retry begins: Airflow tries again, and the one run goes on."""

from __future__ import annotations

import asyncio
import logging
from contextvars import ContextVar
from typing import Any

import pytest

from orchestration_integrations import (
    AsyncOrchestrationHttpHook,
    InstanceCancelledError,
    OrchestrationError,
    StateUnknownError,
    WaitTimeoutError,
)
from orchestration_integrations.airflow.compat import AirflowFailException
from orchestration_integrations.airflow.triggers import OrchestrationInstanceTrigger
from tests.airflow.harness import SHORT, WAITS, Task, begin_waiting, rebuilt
from tests.airflow.test_reattach import STORES

pytestmark = pytest.mark.usefixtures("impatient_in_outages")


def away(server: Any) -> None:
    server.fault("any", "status", count=-1, code=503)


@STORES
@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize("retries", [1, 4])
def test_an_outage_at_the_start_of_a_retry_is_not_final(
    server: Any, durable: bool, deferrable: bool, retries: int
) -> None:
    task = Task(definition=WAITS, durable=durable, deferrable=deferrable, on_timeout="leave", retries=retries)
    with pytest.raises(WaitTimeoutError):
        task.attempt(timeout=0.5)
    (started,) = server.record().started
    before = task.record
    away(server)
    for _ in range(1 if retries == 1 else 2):
        with pytest.raises(StateUnknownError) as caught:
            task.attempt(start_timeout=0.5)
        assert not isinstance(caught.value, AirflowFailException)
        said = str(caught.value)
        assert started["instance_id"] in said
        assert said.count("may still run") == 1
        assert ("no retry follows" if retries == 1 else "the next try continues with it") in said
        assert "settled" not in said
        assert task.record == before
    server.clear_faults()
    with pytest.raises(WaitTimeoutError):
        task.attempt(timeout=0.5)
    assert [one["instance_id"] for one in server.record().started] == [started["instance_id"]]
    assert task.record["instance_id"] == started["instance_id"]


@pytest.mark.parametrize("generation", [1])
def test_a_try_does_not_contradict_the_cancel_that_an_earlier_one_told(server: Any, generation: int) -> None:
    task = Task(definition=WAITS, retries=3)
    with pytest.raises(WaitTimeoutError, match="it was cancelled"):
        task.attempt(timeout=0.5)
    away(server)
    with pytest.raises(StateUnknownError, match="is on record as cancelled") as caught:
        task.attempt(start_timeout=0.5)
    assert "may" not in str(caught.value)
    server.clear_faults()
    with pytest.raises(InstanceCancelledError):
        task.attempt()


@STORES
@pytest.mark.parametrize("operation", ["list_workflows", "run_workflow", "get_instance", "send_event"])
def test_an_outage_amid_a_start_is_not_final(server: Any, durable: bool, operation: str) -> None:
    task = Task(definition=SHORT, durable=durable)
    server.fault(operation, "status", count=-1, code=503)
    with pytest.raises(OrchestrationError) as caught:
        task.attempt(start_timeout=1.5)
    assert not isinstance(caught.value, AirflowFailException)
    server.clear_faults()
    assert task.attempt()["state"] == "succeeded"
    assert len(server.record().money) == 1


def test_each_deferred_task_is_told_in_its_own_log(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A triggerer sorts what is logged by the context of the trigger that logs it."""
    caplog.set_level(logging.INFO)
    whose: ContextVar[str] = ContextVar("whose", default="nobody's")
    lines: dict[str, list[str]] = {}

    class Sorting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.setdefault(whose.get(), []).append(record.getMessage())

    ids = [begin_waiting(server) for _ in range(3)]

    async def waits(instance_id: str) -> None:
        whose.set(instance_id)
        async for event in rebuilt(OrchestrationInstanceTrigger(instance_id, poll_interval=0.3)).run():
            assert event.payload["status"] == "succeeded"
            return

    async def main() -> None:
        tasks = [asyncio.create_task(waits(one)) for one in ids]
        await asyncio.sleep(1)
        away(server)
        for _ in range(600):
            if all(outage_lines(lines.get(one, [])) for one in ids):
                break
            await asyncio.sleep(0.1)
        server.clear_faults()
        async with AsyncOrchestrationHttpHook(base_url=server.url) as http:
            for one in ids:
                await http.send_event_when_ready(one, "approve")
        await asyncio.gather(*tasks)

    handler = Sorting()
    logging.getLogger().addHandler(handler)
    try:
        asyncio.run(asyncio.wait_for(main(), 90))
    finally:
        logging.getLogger().removeHandler(handler)
    for instance_id in ids:
        began, ended = outage_lines(lines[instance_id])
        assert f"instance {instance_id} of {server.url} cannot be read since" in began
        assert "503" in began
        assert "has a worker look at it after 120 s" in began
        assert f"instance {instance_id} can be read again" in ended


def outage_lines(lines: list[str]) -> list[str]:
    return [one for one in lines if "be read" in one]

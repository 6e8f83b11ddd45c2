"""A server that is away while a retry begins: Airflow tries again, and the one run goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestration_integrations import InstanceCancelledError, OrchestrationError, StateUnknownError, WaitTimeoutError
from orchestration_integrations.airflow.compat import AirflowFailException
from tests.airflow.harness import SHORT, WAITS, Task
from tests.airflow.test_reattach import STORES


@pytest.fixture(autouse=True)
def impatient(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {"conn_type": "orchestration", "host": server.url, "extra": {"retry_budget": 0.5}}
    monkeypatch.setenv("AIRFLOW_CONN_ORCHESTRATION_DEFAULT", json.dumps(connection))


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

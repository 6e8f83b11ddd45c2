"""T6: a server that cannot be read for too long ends a wait; a retry gets the run, else it is cancelled."""

from __future__ import annotations

from typing import Any

import pytest

from orchestration_integrations import StateUnknownError, ValidationError
from orchestration_integrations.airflow import task_run
from tests.airflow.harness import LONG, Task, state_of


@pytest.mark.parametrize("generation", [1])
@pytest.mark.parametrize("retries", [0, 2])
def test_a_run_that_cannot_be_read_is_left_to_a_retry_or_cancelled(
    server: Any, airflow_says: Any, monkeypatch: pytest.MonkeyPatch, generation: int, retries: int
) -> None:
    real = task_run.TaskRun._attend

    def unreadable(self: Any, *arguments: Any, **options: Any) -> Any:
        server.fault("get_instance", "status", count=12, code=503)
        return real(self, *arguments, **options)

    monkeypatch.setattr(task_run.TaskRun, "_attend", unreadable)
    task = Task(definition=LONG, retries=retries, read_budget=0.5)
    with pytest.raises(StateUnknownError):
        task.attempt()
    aborts = server.record().requests.get("abort_instance", 0)
    assert aborts == (0 if retries else 1)
    if retries:
        assert state_of(server, task.xcoms["instance_id"]) == "running"


def test_a_read_budget_is_a_number(server: Any, airflow_says: Any) -> None:
    with pytest.raises(ValidationError, match="read_budget") as caught:
        Task(definition=LONG, read_budget="long").attempt()
    assert caught.value.path == "read_budget"
    assert server.record().started == []

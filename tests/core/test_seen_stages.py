"""A row that names an absurd stage costs one row, in the command and on the page."""

from __future__ import annotations

import json
import tracemalloc
from datetime import datetime, timezone

import pytest

from orchestration_integrations.api.models import Instance, StageRun, StageStatus
from orchestration_integrations.procedures.seen_stages import seen_stages
from orchestration_integrations.ui.definitions import Definition
from orchestration_integrations.ui.instance_view import timeline
from orchestration_integrations.ui.reading import Observed
from tests.commands import invoked
from tests.scripted import Got, ScriptedServer, instance, respond

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
ABSURD = 2_000_000
ID, WORKFLOW = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"


def an_instance(*numbers: int) -> Instance:
    return Instance(
        id=ID,
        workflow_id=WORKFLOW,
        created_at=NOW,
        updated_at=NOW,
        terminated=False,
        terminated_at=None,
        error=None,
        status=[StageStatus(stage=one, started_at=NOW, terminated_at=None, error=None, raw={}) for one in numbers],
        raw={},
    )


def a_run() -> StageRun:
    return StageRun(name="RunSend", input={}, error=None, terminated=True, started_at=NOW, terminated_at=NOW, raw={})


@pytest.mark.parametrize(
    ("rows", "begun", "defined", "numbers"),
    [
        ([], 0, 0, []),
        ([0, 1], 1, 0, [0, 1]),
        ([0], 2, 3, [0, 1, 2]),
        ([4, 1, 1], 0, 0, [1, 4]),
        ([-1, 10**30], 1, 2, [0, 1, 10**30]),
    ],
)
def test_stages_that_were_seen(rows, begun, defined, numbers):
    assert seen_stages(an_instance(*rows), [a_run()] * begun, defined) == numbers


def lying(got: Got):
    """A server whose one instance names an absurd stage, and whose histories and definitions cannot be read."""
    row = {"stage": ABSURD, "instanceID": ID, "startedAt": "2026-01-01T00:00:00Z"}
    if got.target.endswith(f"/instances/{ID}"):
        return respond(200, instance(id=ID, workflowID=WORKFLOW, status=[{**row, "stage": 0}, row]))
    return respond(404, {"errorCode": "NOT_FOUND", "errorMessage": "not found"})


@pytest.fixture
def memory():
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


def test_the_command_shows_what_was_seen(memory):
    with ScriptedServer(lying) as server:
        done = invoked("instances", "show", ID, "--url", server.url, "--json")
    (shown,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert [stage["stage"] for stage in shown["stages"]] == [0, ABSURD]
    assert memory() < 100_000_000


def test_the_page_shows_what_was_seen(memory):
    observed = Observed(
        instance=an_instance(0, ABSURD),
        definition=Definition(),
        history=[a_run()],
        activities={},
        retried=frozenset(),
        ghost=False,
        problems=(),
    )
    assert [stage["number"] for stage in timeline(observed)] == [0, ABSURD]
    assert memory() < 100_000_000

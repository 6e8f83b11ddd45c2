"""Flow runs of runs with checkpoints, in processes of their own: cancelled, terminated, killed between two payments.

The run waits for an event after its first payment. The test ends the flow there and sends the event, so that the run
goes on to its next checkpoint, where nobody is left to let it pass. The record of the orchestration server decides.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.states import Scheduled

from orchestration_integrations import OrchestrationError, OrchestrationHttpHook
from orchestration_integrations.prefect import OrchestrationCredentials, resume_run
from orchestration_integrations.prefect.marks import PrefectMarks
from orchestration_integrations.prefect.run_records import records_of_flow_run
from orchestration_integrations.server import EmbeddedServer

from .conftest import Process, errors_of, newest_only, send, until
from .test_processes import Run, known

pytestmark = newest_only
HERE = Path(__file__).parent
BLOCKS = {2: "checkpoint-tests-2", 3: "checkpoint-tests-3"}
EVENT = "goods are ready"


@pytest.fixture(scope="module")
def servers(prefect_api: str) -> Iterator[dict[int, EmbeddedServer]]:
    with EmbeddedServer(generation=2) as second, EmbeddedServer(generation=3) as third:
        for number, server in ((2, second), (3, third)):
            OrchestrationCredentials(base_url=server.url).save(BLOCKS[number], overwrite=True)
        yield {2: second, 3: third}


@pytest.fixture(scope="module")
def serving(servers: dict[int, EmbeddedServer]) -> Iterator[Process]:
    process = Process("serve-checkpoints", sys.executable, str(HERE / "served_checkpoints.py"))
    try:
        until(lambda: known("cp-unwaited/served"), "deployments served")
        yield process
    finally:
        process.end()


CASES = (
    (2, "cancelled", "direct", "Cancelled"),
    (2, "cancelled", "submitted", "Cancelled"),
    (2, "cancelled", "hooked", "Cancelled"),
    (2, "cancelled", "unwaited", "Cancelled"),
    (2, "terminated", "direct", "Crashed"),
    (2, "killed", "hooked", "Crashed"),
    (2, "killed", "unwaited", "Crashed"),
    (3, "cancelled", "direct", "Cancelled"),
    (3, "killed", "hooked", "Crashed"),
)


@pytest.fixture(scope="module")
def runs(
    serving: Process, servers: dict[int, EmbeddedServer], tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[int, str, str], Run]:
    """All flow runs, begun at once: most of their time is spent importing."""
    directory = tmp_path_factory.mktemp("runs")
    begun = {}
    for generation, how, which, _ in CASES:
        name, server = f"{how}-{which}-{generation}", servers[generation]
        definition = {"name": name, "stages": [send("a"), {"wait_event": {"event": EVENT}}, send("b"), send("c")]}
        with OrchestrationHttpHook(base_url=server.url) as hook:
            workflow_id = hook.ensure_workflow(definition, gate=True, checkpoints=True).workflow.id
        deployment = f"cp-{which}/served"
        begun[generation, how, which] = Run(deployment, server, directory / name, workflow_id, block=BLOCKS[generation])
    return begun


ENDS: dict[str, Callable[[Run], object]] = {
    "cancelled": Run.cancel,
    "terminated": lambda run: run.kill(signal.SIGTERM),
    "killed": lambda run: run.kill(signal.SIGKILL),
}


def paid(run: Run) -> list[str]:
    mine = [row for row in run.server.record().money if row["instance_id"] == run.instance_id]
    return [row["posting"]["destination"] for row in mine]


def go_on(run: Run) -> None:
    with OrchestrationHttpHook(base_url=run.server.url) as hook, suppress(OrchestrationError):
        hook.send_event_when_ready(run.instance_id, EVENT, timeout=20)


def schedule(run: Run) -> None:
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, Scheduled(), force=True)


def said(serving: Process, run: Run) -> list[str]:
    return [line for line in serving.text().splitlines() if run.instance_id in line]


@pytest.mark.parametrize(("generation", "how", "which", "state"), CASES)
def test_nothing_is_paid_after_the_end(
    runs: dict[tuple[int, str, str], Run], serving: Process, generation: int, how: str, which: str, state: str
) -> None:
    run = runs[generation, how, which]
    run.process()
    until(lambda: paid(run) == ["a"], "the first payment is made")
    if which != "unwaited":
        until(lambda: [line for line in said(serving, run) if "stage 0 (send)" in line], "the wait has begun")
    ENDS[how](run)
    mark, instance_id = PrefectMarks(), run.instance_id
    until(lambda: mark.read(f"hold/{instance_id}") or instance_id in errors_of(run.server), "the run is stopped")
    go_on(run)
    assert run.ends() == state
    if generation == 3:
        assert run.end_of_instance() == "canceled"
    else:
        held = "it is held at the checkpoint before stage 2"
        until(lambda: [line for line in said(serving, run) if held in line], "it is told to be held")
        assert run.instance_id not in errors_of(run.server)
    assert not [line for line in said(serving, run) if "may still run" in line]
    assert paid(run) == ["a"]


def test_a_held_run_goes_on_once_it_is_resumed(runs: dict[tuple[int, str, str], Run], serving: Process) -> None:
    """The flow run is run again from Prefect's UI: it reports that the run is held, until the stop is taken back."""
    run = runs[2, "killed", "hooked"]
    assert run.ends() == "Crashed"
    schedule(run)
    assert until(lambda: run.state().is_failed() and run.state().name, "it has failed") == "Failed"
    assert paid(run) == ["a"]
    (record,) = records_of_flow_run(run.id)
    assert [line for line in said(serving, run) if f"resume_run('{record.key}')" in line]
    before: dict[str, Any] = resume_run(record.key)
    assert (before["instance_id"], before["held_by"]) == (run.instance_id, "flow run Crashed")
    schedule(run)
    assert until(lambda: run.state().is_completed() and run.state().name, "it has succeeded") == "Completed"
    assert paid(run) == ["a", "b", "c"]

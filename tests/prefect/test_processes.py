"""Flow runs in processes of their own, cancelled, terminated, killed: by `serve` and by a process worker.

What each way of ending does is decided by the record of the orchestration server.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling, Scheduled

from orchestration_integrations.prefect import OrchestrationCredentials
from orchestration_integrations.server import EmbeddedServer

from .conftest import LONG, Process, defined, endless, errors_of, releases, until
from .served_flows import BLOCK, BLOCK_2

HERE = Path(__file__).parent
POOL = "process-tests"


@pytest.fixture(scope="module")
def servers(prefect_api: str) -> Iterator[dict[int, EmbeddedServer]]:
    """One orchestration server per generation for all of these tests, their addresses in stored blocks."""
    with EmbeddedServer(generation=3) as third, EmbeddedServer(generation=2) as second:
        OrchestrationCredentials(base_url=third.url).save(BLOCK, overwrite=True)
        OrchestrationCredentials(base_url=second.url).save(BLOCK_2, overwrite=True)
        yield {3: third, 2: second}


def known(deployment: str) -> bool:
    with get_client(sync_client=True) as client:
        try:
            client.read_deployment_by_name(deployment)
        except ObjectNotFound:
            return False
        return True


@pytest.fixture(scope="module")
def serving(servers: dict[int, EmbeddedServer]) -> Iterator[Process]:
    process = Process("serve", sys.executable, str(HERE / "served_flows.py"))
    try:
        until(lambda: known("killed-once/served"), "deployments served")
        yield process
    finally:
        process.end()


@pytest.fixture(scope="module")
def working(servers: dict[int, EmbeddedServer]) -> Iterator[Process]:
    prefect = (sys.executable, "-m", "prefect")
    subprocess.run([*prefect, "work-pool", "create", "--type", "process", POOL], check=True, timeout=120)
    deploy = (
        "import sys; from prefect import flow\n"
        "for name in sys.argv[3:]:\n"
        "    flow.from_source(source=sys.argv[1], entrypoint=f'served_flows.py:{name}').deploy(\n"
        "        name='worked', work_pool_name=sys.argv[2], ignore_warnings=True, print_next_steps=False)\n"
    )
    command = [sys.executable, "-c", deploy, str(HERE), POOL, "direct", "submitted", "hooked"]
    subprocess.run(command, check=True, timeout=180)
    worker = [*prefect, "worker", "start", "--pool", POOL, "--type", "process", "--name", "one"]
    process = Process("worker", *worker)
    try:
        yield process
    finally:
        process.end()


class Run:
    """A flow run in another process, of a workflow of its own."""

    def __init__(
        self, deployment: str, server: EmbeddedServer, directory: Path, workflow_id: str = "", **more: str
    ) -> None:
        self.server = server
        self.directory = directory
        directory.mkdir()
        self.workflow_id = workflow_id or defined(server, {**endless(), "name": directory.name})
        parameters = {"workflow_id": self.workflow_id, "directory": str(directory), **more}
        with get_client(sync_client=True) as client:
            found = client.read_deployment_by_name(deployment)
            self.id: UUID = client.create_flow_run_from_deployment(found.id, parameters=parameters).id

    def process(self, *, other_than: int = 0) -> int:
        """The process of the flow, once it has started its run."""

        def written() -> int:
            file = self.directory / "pid"
            pid = int(file.read_text()) if file.exists() else 0
            return pid if pid != other_than else 0

        return int(until(written, f"flow run {self.id} has started its instance", 2 * LONG))

    @property
    def instance_id(self) -> str:
        """The one instance that was started and released."""
        record = self.server.record()
        (found,) = [row["instance_id"] for row in record.started if row["workflow_id"] == self.workflow_id]
        assert releases(self.server).count(found) == 1
        return str(found)

    def state(self) -> Any:
        with get_client(sync_client=True) as client:
            return client.read_flow_run(self.id).state

    def cancel(self) -> None:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(self.id, Cancelling())

    def kill(self, which: signal.Signals) -> int:
        """Send a signal to the flow's process alone."""
        pid = self.process()
        os.kill(pid, which)
        return pid

    def ends(self) -> str:
        return str(until(lambda: self.state().is_final() and self.state().name, f"flow run {self.id} has ended"))

    def end_of_instance(self) -> str | None:
        """Waits for the end of the instance; the error it ended with."""
        until(lambda: self.instance_id in errors_of(self.server), "the instance has ended")
        return errors_of(self.server)[self.instance_id]


@pytest.fixture(scope="module")
def runs(
    serving: Process, working: Process, servers: dict[int, EmbeddedServer], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Run]:
    """All flow runs, begun at once: most of their time is spent importing."""
    directory = tmp_path_factory.mktemp("runs")
    begun = {}
    for name, deployment, generation in RUNS:
        begun[name] = Run(deployment, servers[generation], directory / name.replace(" ", "-"))
    begun["without effect"].process()
    begun["without effect"].cancel()  # it takes its time
    return begun


RUNS = (
    ("without effect", "direct-2/served", 2),
    ("served direct", "direct/served", 3),
    ("served submitted", "submitted/served", 3),
    ("served asynchronous", "asynchronous/served", 3),
    ("served hooked", "hooked/served", 3),
    ("terminated direct", "direct/served", 3),
    ("terminated submitted", "submitted/served", 3),
    ("terminated hooked", "hooked/served", 3),
    ("timed out", "timed-out/served", 3),
    ("killed served", "hooked/served", 3),
    ("killed again", "killed-once/served", 3),
    ("worked direct", "direct/worked", 3),
    ("worked submitted", "submitted/worked", 3),
    ("worked hooked", "hooked/worked", 3),
    ("killed worked", "hooked/worked", 3),
)


@pytest.mark.parametrize("name", [name for name, _, _ in RUNS if name.startswith(("served", "worked"))])
def test_cancelled(runs: dict[str, Run], name: str) -> None:
    run = runs[name]
    run.process()
    run.cancel()
    assert run.end_of_instance() == "canceled"
    assert run.ends() == "Cancelled"


@pytest.mark.parametrize("name", ["terminated direct", "terminated submitted", "terminated hooked"])
def test_terminated(runs: dict[str, Run], name: str) -> None:
    """SIGTERM from outside, as an evicted pod gets it."""
    run = runs[name]
    run.kill(signal.SIGTERM)
    assert run.end_of_instance() == "canceled"
    assert run.ends() == "Crashed"


def test_timed_out(runs: dict[str, Run]) -> None:
    """`timeout_seconds` of the flow, and a submitted wait: it ends, and so does the process."""
    run = runs["timed out"]
    pid = run.process()
    assert run.end_of_instance() == "canceled"
    assert run.ends() == "TimedOut"
    until(lambda: not Path(f"/proc/{pid}").exists(), "the process has ended")


@pytest.mark.parametrize("name", ["killed served", "killed worked"])
def test_killed(runs: dict[str, Run], name: str) -> None:
    """SIGKILL: nothing runs in the process, and who starts the hook knows nothing but what is on the flow run."""
    run = runs[name]
    run.kill(signal.SIGKILL)
    assert run.end_of_instance() == "canceled"
    assert run.ends() == "Crashed"


def test_killed_and_run_again(runs: dict[str, Run]) -> None:
    """The same flow run in a new process comes back to the instance that the killed one had started."""
    run = runs["killed again"]
    pid = run.kill(signal.SIGKILL)
    assert run.ends() == "Crashed"
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, Scheduled(), force=True)
    run.process(other_than=pid)
    attempts = [file.name for file in run.directory.glob("attempt-*")]
    assert len(attempts) == 2
    assert {name.rpartition("-")[0] for name in attempts} == {f"attempt-{run.instance_id}"}
    assert run.instance_id not in errors_of(run.server)
    run.cancel()
    assert run.end_of_instance() == "canceled"
    assert run.ends() == "Cancelled"


def test_abort_without_effect(runs: dict[str, Run], serving: Process) -> None:
    """Generation 2: the flow run ends in time, and nobody says that the instance did."""
    run = runs["without effect"]
    assert run.ends() == "Cancelled"
    assert run.instance_id not in errors_of(run.server)
    said = [line for line in serving.text().splitlines() if run.instance_id in line]
    assert [line for line in said if "may still run" in line]
    assert not [line for line in said if "it was cancelled" in line]

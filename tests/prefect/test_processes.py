"""Flow runs in processes of their own, cancelled, terminated, killed: by `serve` and by a process worker.

What each way of ending does is decided by the record of the orchestration server.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling, Scheduled

from orchestration_integrations.prefect import OrchestrationCredentials
from orchestration_integrations.server import EmbeddedServer

from .conftest import Process, defined, endless, errors_of, releases, until
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
    """A flow run in another process."""

    def __init__(self, deployment: str, server: EmbeddedServer, directory: Path) -> None:
        self.server = server
        self.directory = directory
        self.before = set(self.started())
        parameters = {"workflow_id": defined(server, endless()), "directory": str(directory)}
        with get_client(sync_client=True) as client:
            found = client.read_deployment_by_name(deployment)
            self.id: UUID = client.create_flow_run_from_deployment(found.id, parameters=parameters).id
        self.pid = self.process()

    def process(self, *, other_than: int = 0) -> int:
        """The process of the flow, once it has started its run."""

        def written() -> int:
            file = self.directory / "pid"
            pid = int(file.read_text()) if file.exists() else 0
            return pid if pid != other_than else 0

        return int(until(written, f"flow run {self.id} has started its instance"))

    def started(self) -> list[str]:
        return [row["instance_id"] for row in self.server.record().started]

    @property
    def instance_id(self) -> str:
        """The one instance that was started and released."""
        (found,) = [one for one in self.started() if one not in self.before]
        assert [one for one in releases(self.server) if one not in self.before] == [found]
        return found

    def state(self) -> Any:
        with get_client(sync_client=True) as client:
            return client.read_flow_run(self.id).state

    def cancel(self) -> None:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(self.id, Cancelling())

    def ends(self) -> str:
        return str(until(lambda: self.state().is_final() and self.state().name, f"flow run {self.id} has ended"))

    def is_cancelled(self) -> str | None:
        """Waits for the end of the instance; the error it ended with."""
        until(lambda: self.instance_id in errors_of(self.server), "the instance has ended")
        return errors_of(self.server)[self.instance_id]


Start = Callable[..., Run]


@pytest.fixture
def served(serving: Process, servers: dict[int, EmbeddedServer], tmp_path: Path) -> Start:
    return lambda name, generation=3: Run(f"{name}/served", servers[generation], tmp_path)


@pytest.fixture
def worked(working: Process, servers: dict[int, EmbeddedServer], tmp_path: Path) -> Start:
    return lambda name: Run(f"{name}/worked", servers[3], tmp_path)


@pytest.mark.parametrize("name", ["direct", "submitted", "asynchronous", "hooked"])
def test_served_and_cancelled(served: Start, name: str) -> None:
    run = served(name)
    run.cancel()
    assert run.is_cancelled() == "canceled"
    assert run.ends() == "Cancelled"
    assert len(run.server.record().money) >= 1
    assert run.instance_id


@pytest.mark.parametrize("name", ["direct", "submitted", "hooked"])
def test_worked_and_cancelled(worked: Start, name: str) -> None:
    run = worked(name)
    run.cancel()
    assert run.is_cancelled() == "canceled"
    assert run.ends() == "Cancelled"


@pytest.mark.parametrize("name", ["direct", "hooked"])
def test_served_and_terminated(served: Start, name: str) -> None:
    """SIGTERM from outside, as an evicted pod gets it."""
    run = served(name)
    os.kill(run.pid, signal.SIGTERM)
    assert run.is_cancelled() == "canceled"
    assert run.ends() == "Crashed"


def test_served_and_killed(served: Start) -> None:
    """SIGKILL: nothing runs in the process, and the runner knows nothing but what is on the flow run."""
    run = served("hooked")
    os.kill(run.pid, signal.SIGKILL)
    assert run.is_cancelled() == "canceled"
    assert run.ends() == "Crashed"


def test_worked_and_killed(worked: Start) -> None:
    run = worked("hooked")
    os.kill(run.pid, signal.SIGKILL)
    assert run.is_cancelled() == "canceled"
    assert run.ends() == "Crashed"


def test_killed_and_run_again(served: Start) -> None:
    """The same flow run in a new process comes back to the instance that the killed one had started."""
    run = served("killed_once".replace("_", "-"))
    os.kill(run.pid, signal.SIGKILL)
    assert run.ends() == "Crashed"
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, Scheduled(), force=True)
    run.process(other_than=run.pid)
    assert len({file.name.rpartition("-")[0] for file in run.directory.glob("attempt-*")}) == 1
    assert len(list(run.directory.glob("attempt-*"))) == 2
    instance_id = run.instance_id
    assert errors_of(run.server).get(instance_id, "running") == "running"
    run.cancel()
    assert run.is_cancelled() == "canceled"
    assert run.ends() == "Cancelled"


def test_abort_without_effect(served: Start, serving: Process) -> None:
    """Generation 2: the flow run ends in time, and nobody says that the instance did."""
    run = served("direct-2", generation=2)
    run.cancel()
    assert run.ends() == "Cancelled"
    assert run.instance_id not in errors_of(run.server)
    said = until(lambda: [line for line in serving.text().splitlines() if run.instance_id in line], "told in the log")
    assert [line for line in said if "may still run" in line]
    assert not [line for line in said if "is cancelled" in line]

"""A Prefect server on PostgreSQL, with process workers that can be killed like machines."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx

from ..outside import eventually, free_port
from .processes import Machine, end_all, environment
from .services import MoneyServer, Postgres

ROOT = Path(__file__).parents[2]
FLOWS = Path(__file__).parent / "flows"
POOL = "cluster"
PREFECT = (sys.executable, "-m", "prefect")


class Cluster:
    """All parts, each of them by name. The address of Prefect's API is fixed before Prefect is imported."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="prefect-cluster-"))
        self.port = free_port()
        self.api = f"http://127.0.0.1:{self.port}/api"
        self.env = environment(
            PREFECT_API_URL=self.api,
            PREFECT_HOME=str(self.home / "client"),
            PREFECT_SERVER_ANALYTICS_ENABLED="false",
            PREFECT_WORKER_QUERY_SECONDS="1",
            PREFECT_RUNNER_POLL_FREQUENCY="1",
            PREFECT_LOGGING_LEVEL="INFO",
            DO_NOT_TRACK="1",
            PYTHONPATH=str(ROOT),
        )
        os.environ.update({name: value for name, value in self.env.items() if name.startswith(("PREFECT", "DO_NOT"))})
        self.services: list[Machine] = []
        self.machines: dict[str, Machine] = {}

    def start(self) -> None:
        postgres = Postgres(self.home)
        self.services.append(postgres.machine)
        self.money = MoneyServer(self.home)
        self.services.append(self.money.machine)
        self.add(
            "server",
            *("server", "start", "--host", "127.0.0.1", "--port", str(self.port), "--no-ui"),
            PREFECT_HOME=str(self.home / "server"),
            PREFECT_API_DATABASE_CONNECTION_URL=f"postgresql+asyncpg://{postgres.create('prefect')}",
        )
        eventually(self._healthy, "Prefect's server is healthy", 180)
        self._deploy()

    def add(self, name: str, *command: str, **env: str) -> Machine:
        machine = Machine(name, [*PREFECT, *command], self.home, {**self.env, **env})
        self.machines[name] = machine
        return machine

    def add_worker(self, name: str, limit: int) -> Machine:
        """A process worker with room for so many flow runs."""
        return self.add(
            name, "worker", "start", "--pool", POOL, "--type", "process", "--name", name, "--limit", str(limit)
        )

    def _healthy(self) -> bool:
        server = self.machines["server"]
        assert server.running, server.text()[-3000:]
        try:
            return httpx.get(f"{self.api}/health", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def _deploy(self) -> None:
        pool = [*PREFECT, "work-pool", "create", "--type", "process", POOL]
        subprocess.run(pool, env=self.env, check=True, capture_output=True, timeout=120)
        program = (
            "import sys\nfrom prefect import flow\n"
            "from orchestration_integrations.prefect import OrchestrationCredentials\n"
            "OrchestrationCredentials(base_url=sys.argv[1]).save('cluster', overwrite=True)\n"
            "for name in ('by_threads', 'by_dask'):\n"
            "    flow.from_source(source=sys.argv[2], entrypoint=f'paying.py:{name}').deploy(\n"
            "        name='cluster', work_pool_name=sys.argv[3], ignore_warnings=True, print_next_steps=False)\n"
        )
        command = [sys.executable, "-c", program, self.money.url, str(FLOWS), POOL]
        subprocess.run(command, env=self.env, check=True, timeout=180)

    def stop(self) -> None:
        """End all parts. The folder with their logs stays: who started the cluster decides about it."""
        try:
            end_all(list(self.machines.values()))
        finally:
            end_all(self.services)


class Run:
    """A flow run in a worker."""

    def __init__(self, cluster: Cluster, flow: str, name: str, **parameters: Any) -> None:
        from prefect.client.orchestration import get_client

        self.cluster = cluster
        self.directory = cluster.home / name
        self.directory.mkdir()
        self._client = get_client
        with get_client(sync_client=True) as client:
            found = client.read_deployment_by_name(f"{flow}/cluster")
            given = {**parameters, "directory": str(self.directory)}
            self.id: UUID = client.create_flow_run_from_deployment(found.id, parameters=given, name=name).id

    def read(self) -> Any:
        with self._client(sync_client=True) as client:
            return client.read_flow_run(self.id)

    def again(self) -> None:
        """Have it run once more, whatever Prefect believes of it."""
        from prefect.states import Scheduled

        with self._client(sync_client=True) as client:
            client.set_flow_run_state(self.id, Scheduled(), force=True)

    def notes(self, name: str) -> dict[int, Any]:
        """What processes of the flow have told, by their ids."""
        import json

        found = sorted(self.directory.glob(f"{name}-*.json"), key=lambda one: one.stat().st_mtime)
        return {int(one.stem.rpartition("-")[2]): json.loads(one.read_text()) for one in found}

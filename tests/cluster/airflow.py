"""An Airflow whose parts run as on machines of their own: Celery workers, triggerers and schedulers on PostgreSQL."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg2
import psycopg2.extras

from tests.airflow.e2e.standalone import AIRFLOW, Standalone

from ..outside import eventually
from .processes import Machine, end_all, environment
from .services import MoneyServer, Postgres, Redis

ROOT = Path(__file__).parents[2]

# Seconds after which a part that says nothing any more counts as lost. Airflow's defaults stand in docs/scaling.md.
LOST_TASK = 20
LOST_TRIGGERER = 10
LOST_SCHEDULER = 10
STUCK_IN_QUEUE = 200  # after three times as long Airflow fails a task that no worker had room for
CONCURRENCY = 6

WORKER = """
import airflow.sdk.execution_time.supervisor, airflow.sdk.execution_time.task_runner
import orchestration_integrations.airflow.operators, orchestration_integrations.airflow.triggers
from airflow.__main__ import main
main()
"""

SETTINGS = {
    "CORE__EXECUTOR": "CeleryExecutor",
    "CORE__PARALLELISM": "100",
    "CORE__MAX_ACTIVE_TASKS_PER_DAG": "100",
    "CORE__HOSTNAME_CALLABLE": "tests.cluster.hostnames.hostname",
    "CELERY__WORKER_CONCURRENCY": str(CONCURRENCY),
    "CELERY__WORKER_PREFETCH_MULTIPLIER": "1",
    "CELERY__SYNC_PARALLELISM": "1",
    "SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    "SCHEDULER__JOB_HEARTBEAT_SEC": "2",
    "SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": str(LOST_SCHEDULER),
    "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(LOST_TASK),
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
    "SCHEDULER__TASK_QUEUED_TIMEOUT": str(STUCK_IN_QUEUE),
    "SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "5",
    "WORKERS__MIN_HEARTBEAT_INTERVAL": "3",
    "TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": str(LOST_TRIGGERER),
    "DAG_PROCESSOR__REFRESH_INTERVAL": "5",
}


@dataclass(frozen=True)
class Row:
    """A task instance, as Airflow's database has it."""

    dag_id: str
    map_index: int
    state: str | None
    try_number: int
    worker: str
    scheduler: str
    triggerer: str

    @property
    def name(self) -> tuple[str, int]:
        return self.dag_id, self.map_index


@dataclass
class Sighting:
    """All task instances at one moment."""

    at: float
    rows: dict[tuple[str, int], Row]


class Watch:
    """A thread that looks at the task instances again and again, and keeps what it saw.

    It stops at the first error, which ``check`` tells.
    """

    def __init__(self, database: str, every: float = 0.5) -> None:
        self.seen: list[Sighting] = []
        self.error: str | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, args=(database, every), daemon=True)
        self._thread.start()

    def _look(self, database: str, every: float) -> None:
        try:
            with contextlib.closing(connected(database)) as connection:
                while not self._end.wait(every):
                    self.seen.append(Sighting(time.time(), {one.name: one for one in rows(connection)}))
        except Exception as error:
            self.error = f"after {len(self.seen)} looks: {error!r}"

    def check(self) -> None:
        """Fail with the text of what went wrong, if something did."""
        assert self.error is None, f"the watch of the task instances failed {self.error}"

    def end(self) -> None:
        """Ask the thread to end and wait for it. What went wrong is told by ``check`` alone."""
        self._end.set()
        self._thread.join(30)
        if self._thread.is_alive() and self.error is None:
            self.error = "to end within 30 s"

    def first(self, since: float, name: tuple[str, int], what: Callable[[Row], bool]) -> float | None:
        """Seconds from ``since`` until a task instance was first seen so; None for never."""
        return next(
            (one.at - since for one in self.seen if one.at > since and name in one.rows and what(one.rows[name])), None
        )


def connected(database: str) -> Any:
    connection = psycopg2.connect(f"postgresql://{database}")
    connection.autocommit = True
    return connection


def query(connection: Any, text: str, *values: Any) -> list[dict[str, Any]]:
    with connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
        cursor.execute(text, values)
        return [dict(one) for one in cursor.fetchall()]


def rows(connection: Any) -> list[Row]:
    """All task instances; each DAG has one run and one task."""
    found = query(
        connection,
        """
        SELECT t.dag_id, t.map_index, t.state, t.try_number, coalesce(t.hostname, '') AS worker,
               coalesce(s.hostname, '') AS scheduler, coalesce(j.hostname, '') AS triggerer
        FROM task_instance t
        LEFT JOIN job s ON s.id = t.queued_by_job_id
        LEFT JOIN trigger g ON g.id = t.trigger_id
        LEFT JOIN job j ON j.id = g.triggerer_id
        """,
    )
    return [Row(**one) for one in found]


class Cluster(Standalone):
    """All parts of an Airflow, each of them by name."""

    def __init__(self) -> None:
        super().__init__()
        for file in self.dags.iterdir():
            file.unlink()
        shutil.copy(ROOT / "tests" / "cluster" / "dags" / "many.py", self.dags)
        self.machines: dict[str, Machine] = {}
        self.services: list[Machine] = []
        self.connection: Any = None

    def start(self) -> None:
        postgres, redis = Postgres(self.home), Redis(self.home)
        self.services += [postgres.machine, redis.machine]
        self.money = MoneyServer(self.home)
        self.services.append(self.money.machine)
        self.database = address = postgres.create("airflow")
        self.connection = connected(address)
        kept = {name: value for name, value in self.env.items() if name.startswith("AIRFLOW")}
        own = {
            "PATH": self.env["PATH"],
            "PYTHONPATH": str(ROOT),
            "CLUSTER_MACHINE": "cluster",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{address}",
            "AIRFLOW__CELERY__BROKER_URL": redis.url,
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+postgresql+psycopg2://{address}",
            "AIRFLOW__API_AUTH__JWT_SECRET": base64.b64encode(os.urandom(32)).decode(),
            "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(os.urandom(32)).decode(),
            "AIRFLOW_CONN_ORCHESTRATION_DEFAULT": json.dumps({"conn_type": "orchestration", "host": self.money.url}),
        }
        self.env = environment(**{**kept, **own, **{f"AIRFLOW__{name}": value for name, value in SETTINGS.items()}})
        with self.output.open("wb") as output:
            command = [AIRFLOW, "db", "migrate"]
            subprocess.run(command, env=self.env, check=True, timeout=300, stdout=output, stderr=subprocess.STDOUT)
        self.add("api", "api-server")
        self.add("dag-processor", "dag-processor")
        for number in "12":
            self.add(f"scheduler-{number}", "scheduler")
            self.add(f"triggerer-{number}", "triggerer", "--skip-serve-logs")
            self.add_worker(f"worker-{number}")
        eventually(self._up, "all parts of Airflow are up", 240, 1.0)
        self.sign_in()

    def add(self, name: str, *command: str) -> Machine:
        """Start a part."""
        return self._machine(name, [AIRFLOW, *command])

    def _machine(self, name: str, command: list[str]) -> Machine:
        machine = Machine(name, command, self.home, {**self.env, "CLUSTER_MACHINE": name})
        self.machines[name] = machine
        return machine

    def add_worker(self, name: str) -> Machine:
        """Start a Celery worker. It imports what its tasks need before it forks, or each fork would for itself."""
        command = [sys.executable, "-c", WORKER, "celery", "worker", "--skip-serve-logs"]
        return self._machine(name, [*command, "--celery-hostname", f"{name}@cluster"])

    def ready(self, worker: str) -> bool:
        machine = self.machines[worker]
        assert machine.running, machine.text()[-3000:]
        return f"{worker}@cluster ready" in machine.text()

    def _up(self) -> bool:
        for machine in (*self.services, *self.machines.values()):
            assert machine.running, f"{machine.name}: {machine.text()[-3000:]}"
        with contextlib.suppress(httpx.HTTPError):
            self.client.get("/api/v2/monitor/health").raise_for_status()
            return self._registered()
        return False

    def _registered(self) -> bool:
        found = query(self.connection, "SELECT hostname FROM job WHERE state = 'running'")
        parts = [f"{part}-{number}" for part in ("scheduler", "triggerer") for number in "12"]
        parts.append("dag-processor")
        return {one["hostname"] for one in found} >= set(parts) and all(map(self.ready, ("worker-1", "worker-2")))

    def stop(self) -> None:
        """End all parts. The folder with their logs stays: who started the cluster decides about it."""
        self.client.close()
        try:
            end_all(list(self.machines.values()))
        finally:
            if self.connection is not None:
                self.connection.close()
            end_all(self.services)

    def rows(self) -> list[Row]:
        return rows(self.connection)

    def xcom_of(self, run_id: str, row: Row, key: str) -> Any:
        """What a mapped task instance has told."""
        path = f"/dags/{row.dag_id}/dagRuns/{run_id}/taskInstances/pay/xcomEntries/{key}"
        return self.call("GET", f"{path}?map_index={row.map_index}&deserialize=true")["value"]


def states(rows: list[Row]) -> dict[str, int]:
    """How many task instances are in which state."""
    return dict(Counter(f"{one.dag_id} {one.state}" for one in rows))

"""``airflow standalone`` in a process group of its own, driven over REST."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tests.outside import eventually, free_port

T = TypeVar("T")
HERE = Path(__file__).parent
AIRFLOW = str(Path(sys.executable).parent / "airflow")


class Standalone:
    """All parts of an Airflow with an SQLite database and local workers."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="airflow-standalone-"))
        self.pids = self.home / "pids"
        self.dags = self.home / "dags"
        self.pids.mkdir()
        self.dags.mkdir()
        for one in (HERE / "dags").glob("*.py"):
            shutil.copy(one, self.dags)
        shutil.copy(HERE.parents[2] / "example_dags" / "payout_with_approval.py", self.dags)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.output = self.home / "standalone.log"
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            # Seconds that parts of Airflow wait for a write of another; after the default of 5 a busy machine fails.
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home / 'airflow.db'}?timeout=60",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "2",
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            "ORCHESTRATION_E2E_PIDS": str(self.pids),
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.groups: list[subprocess.Popen[bytes]] = []
        self.client = httpx.Client(base_url=self.url, timeout=120)
        self._file: Any = None

    def start(self) -> None:
        self._file = open(self.output, "wb")  # noqa: SIM115
        output: dict[str, Any] = {"stdout": self._file, "stderr": subprocess.STDOUT}
        subprocess.run([AIRFLOW, "db", "migrate"], env=self.env, check=True, timeout=300, **output)
        with contextlib.closing(sqlite3.connect(self.home / "airflow.db")) as database:
            database.execute("PRAGMA journal_mode=WAL")  # readers don't wait for writers
        self.process = subprocess.Popen(
            [AIRFLOW, "standalone"], env=self.env, stdout=self._file, stderr=subprocess.STDOUT, start_new_session=True
        )
        self.groups.append(self.process)
        eventually(self._healthy, "all parts of Airflow are healthy", 300, 1.0)
        self.sign_in()

    def sign_in(self) -> None:
        generated = self.home / "simple_auth_manager_passwords.json.generated"
        password = eventually(lambda: generated.exists() and json.loads(generated.read_text()), "a password")["admin"]
        token = self.client.post("/auth/token", json={"username": "admin", "password": password}).json()
        self.client.headers["Authorization"] = f"Bearer {token['access_token']}"

    def _healthy(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.output.read_text()[-3000:]
        try:
            health = self.client.get("/api/v2/monitor/health").json()
        except (httpx.HTTPError, ValueError):
            return False
        parts = ("metadatabase", "scheduler", "triggerer", "dag_processor")
        return all((health.get(part) or {}).get("status") == "healthy" for part in parts)

    def stop(self) -> None:
        """End the whole groups, also what was orphaned in them."""
        self.client.close()
        for process in self.groups:
            group = process.pid
            for sign in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, sign)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(5)
                until = time.monotonic() + 5
                while time.monotonic() < until and _alive(group):
                    time.sleep(0.2)
        if self._file is not None:
            self._file.close()
        shutil.rmtree(self.home, ignore_errors=True)

    # REST

    def call(self, method: str, path: str, body: Any = None, *, expect: tuple[int, ...] = (200, 201, 204)) -> Any:
        for _ in range(10):
            response = self.client.request(method, f"/api/v2{path}", json=body)
            if response.status_code < 500:
                break
            time.sleep(1)  # on a busy machine Airflow's own database is locked now and then
        assert response.status_code in expect, f"{method} {path}: {response.status_code} {response.text}"
        return response.json() if response.content else None

    def connect(self, conn_id: str, **fields: Any) -> None:
        self.call("POST", "/connections", {"connection_id": conn_id, "conn_type": "orchestration", **fields})

    def trigger(self, dag_id: str, **conf: Any) -> str:
        def known() -> bool:
            return self.client.get(f"/api/v2/dags/{dag_id}").status_code == 200

        eventually(known, f"the DAG {dag_id} is parsed: {self.call('GET', '/importErrors')}")
        self.call("PATCH", f"/dags/{dag_id}", {"is_paused": False})
        run = self.call("POST", f"/dags/{dag_id}/dagRuns", {"logical_date": None, "conf": conf})
        return str(run["dag_run_id"])

    def task(self, dag_id: str, run_id: str, task_id: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}")
        return found

    def until(self, dag_id: str, run_id: str, task_id: str, *states: str, tries: int = 1) -> Mapping[str, Any]:
        """The task, once it is in one of the states (and has had so many tries)."""
        seen: list[Any] = []

        def look() -> Mapping[str, Any] | None:
            one = self.task(dag_id, run_id, task_id)
            if not seen or seen[-1] != (one["state"], one["try_number"]):
                seen.append((one["state"], one["try_number"]))
            return one if one["state"] in states and one["try_number"] >= tries else None

        return eventually(look, f"{dag_id}.{task_id} is {' or '.join(states)} (it was {seen})")

    def until_waiting(self, dag_id: str, run_id: str, task_id: str, state: str) -> None:
        """The task waits: a running one for its instance, a deferred one in the triggerer that took it up."""
        self.until(dag_id, run_id, task_id, state)
        if state == "deferred":
            folder = self.home / "logs" / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={task_id}"

            def taken_up() -> bool:
                return any("has begun" in one.read_text() for one in folder.glob("*.trigger.*"))

            eventually(taken_up, f"the triggerer waits for {dag_id}.{task_id}")

    def until_run(self, dag_id: str, run_id: str, *states: str) -> str:
        def look() -> str | None:
            state = self.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}")["state"]
            return state if state in states else None

        return eventually(look, f"run of {dag_id} is {' or '.join(states)}")

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        response = self.client.get(f"/api/v2{path}", params={"deserialize": True})
        return response.json()["value"] if response.status_code == 200 else None

    def instance(self, dag_id: str, run_id: str, task_id: str = "pay") -> str:
        """The id of the instance, from the XCom that is there while the task still waits."""
        return str(eventually(lambda: self.xcom(dag_id, run_id, task_id, "instance_id"), f"{dag_id} has an instance"))

    def mark(self, dag_id: str, run_id: str, task_id: str, state: str) -> None:
        """Mark a task; once more where Airflow's own SQLite has lost the mark, and it says that the task still runs."""
        for _ in range(5):
            self.call("PATCH", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}", {"new_state": state})
            for _ in range(4):
                time.sleep(0.5)
                if self.task(dag_id, run_id, task_id)["state"] == "running":
                    break
            else:
                return

    def mark_run(self, dag_id: str, run_id: str, state: str) -> None:
        self.call("PATCH", f"/dags/{dag_id}/dagRuns/{run_id}", {"state": state})

    def clear(self, dag_id: str, run_id: str, task_id: str) -> None:
        self.call(
            "POST",
            f"/dags/{dag_id}/clearTaskInstances",
            {"dry_run": False, "dag_run_id": run_id, "only_failed": False, "task_ids": [task_id]},
        )

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int) -> str:
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        return json.dumps(self.call("GET", path))

    def logs(self) -> str:
        """All logs: those of tasks, and what the parts of Airflow print."""
        return "\n".join(one.read_text(errors="replace") for one in self.home.rglob("*.log"))

    # Processes

    def pid(self, dag_id: str, run_id: str, task_id: str, try_number: int) -> int:
        file = self.pids / f"{dag_id}.{run_id}.{task_id}.{try_number}".replace("/", "_")
        return int(eventually(lambda: file.exists() and file.read_text(), f"{dag_id}.{task_id} runs"))

    def triggerers(self) -> list[Any]:
        """The processes of the triggerer, all of our own groups."""
        import psutil

        found = []
        groups = {process.pid for process in self.groups}
        for one in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if os.getpgid(one.pid) in groups and "triggerer" in " ".join(one.cmdline()):
                    found.append(one)
        return found

    def replace_triggerer(self, sign: signal.Signals) -> None:
        """End the triggerer and start another."""
        gone = self.triggerers()
        assert gone
        for one in gone:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one.pid, sign)
        eventually(lambda: not any(one.is_running() and one.status() != "zombie" for one in gone), "it has ended")
        self.groups.append(
            subprocess.Popen(
                [AIRFLOW, "triggerer"],
                env=self.env,
                stdout=self._file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        )


def _alive(group: int) -> bool:
    import psutil

    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(one.pid) == group and one.status() != "zombie":
                return True
    return False

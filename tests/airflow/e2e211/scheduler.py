"""A scheduler and a triggerer of Airflow 2.11 in process groups of their own, on an SQLite database."""

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
from pathlib import Path
from typing import Any

from tests.airflow.e2e.standalone import AIRFLOW
from tests.outside import eventually

HERE = Path(__file__).parent


class Scheduler:
    """What of Airflow runs tasks: no web server."""

    def __init__(self, connections: dict[str, str]) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="airflow-211-"))
        self.pids = self.home / "pids"
        self.dags = self.home / "dags"
        self.pids.mkdir()
        self.dags.mkdir()
        for one in (HERE.parent / "e2e" / "dags").glob("*.py"):
            shutil.copy(one, self.dags)
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            # Airflow refuses it with SQLite, which in WAL mode bears the few tasks here; one by one they would block
            # the scheduler.
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "_AIRFLOW__SKIP_DATABASE_EXECUTOR_COMPATIBILITY_CHECK": "1",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL": "3600",
            "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
            "AIRFLOW__SCHEDULER__LOCAL_TASK_JOB_HEARTBEAT_SEC": "1",
            "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "2",
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
            "ORCHESTRATION_E2E_PIDS": str(self.pids),
            **{
                f"AIRFLOW_CONN_{name.upper()}": json.dumps({"conn_type": "orchestration", "host": url})
                for name, url in connections.items()
            },
        }
        self.output = self.home / "output.log"
        self.groups: list[subprocess.Popen[Any]] = []
        self.driver: subprocess.Popen[str] | None = None

    def start(self) -> None:
        with open(self.output, "wb") as file:
            subprocess.run([AIRFLOW, "db", "migrate"], env=self.env, stdout=file, stderr=file, check=True, timeout=180)
        with contextlib.closing(sqlite3.connect(self.home / "airflow.db")) as database:
            database.execute("PRAGMA journal_mode=WAL")
        for part in ("scheduler", "triggerer"):
            self._begin(part)
        self.driver = subprocess.Popen(
            [sys.executable, str(HERE / "driver.py")],
            env={**self.env, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=open(self.home / "driver.log", "w"),  # noqa: SIM115
            text=True,
            start_new_session=True,
        )
        self.groups.append(self.driver)
        eventually(lambda: self.do("known", "sync"), "the DAGs are parsed")

    def _begin(self, part: str) -> None:
        file = open(self.output, "ab")  # noqa: SIM115
        self.groups.append(
            subprocess.Popen(
                [AIRFLOW, part], env=self.env, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )
        )

    def do(self, name: str, *arguments: Any) -> Any:
        driver = self.driver
        assert driver is not None
        assert driver.stdin is not None
        assert driver.stdout is not None
        driver.stdin.write(json.dumps([name, arguments]) + "\n")
        driver.stdin.flush()
        answer = json.loads(driver.stdout.readline())
        assert "ok" in answer, answer
        return answer["ok"]

    def stop(self) -> None:
        """End the whole groups, also what was orphaned in them."""
        for process in self.groups:
            for sign in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, sign)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(5)
        shutil.rmtree(self.home, ignore_errors=True)

    # What tests do

    def trigger(self, dag_id: str, **conf: Any) -> str:
        return str(self.do("trigger", dag_id, conf))

    def until(self, dag_id: str, run_id: str, *states: str, tries: int = 1) -> Any:
        def look() -> Any:
            one = self.do("task", dag_id, run_id, "pay")
            return one if one["state"] in states and one["try_number"] >= tries else None

        return eventually(look, f"{dag_id} is {' or '.join(states)}")

    def instance(self, dag_id: str, run_id: str) -> str:
        return str(
            eventually(lambda: self.do("xcom", dag_id, run_id, "pay", "instance_id"), f"{dag_id} has an instance")
        )

    def pid(self, dag_id: str, run_id: str, try_number: int) -> int:
        file = self.pids / f"{dag_id}.{run_id}.pay.{try_number}".replace("/", "_")
        return int(eventually(lambda: file.exists() and file.read_text(), f"{dag_id} runs"))

    def logs(self) -> str:
        return "\n".join(one.read_text(errors="replace") for one in (self.home / "logs").rglob("*.log*"))

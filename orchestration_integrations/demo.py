"""One payment through Apache Airflow and one through Prefect, on an embedded server: ``make demo``.

Runs from a checkout, where the examples are. Each framework gets an environment of its own under
``.cache/demo/``, made at the first run; they cannot share one.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from .api.errors import OrchestrationError
from .api.models import Instance, StageEvent
from .http_hook import OrchestrationHttpHook
from .server import EmbeddedServer

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".cache" / "demo"
LOOK_EVERY = 0.2
"""Seconds between two looks at a running example."""
PATIENCE = 600.0
"""Seconds for one step, an installation included."""
KEEP = "DEMO_KEEP"
"""The variable of the environment that keeps the server up afterwards."""
SOFT, HARD = 3.0, 5.0
"""Seconds that a group of processes has to end, asked and then killed."""


@dataclass(frozen=True)
class Framework:
    """What it takes to run one framework's example."""

    name: str
    title: str
    package: str
    example: str
    prepare: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        """Its virtual environment."""
        return CACHE / self.name

    @property
    def python(self) -> str:
        """Its interpreter."""
        return str(self.home / "bin" / "python")

    @property
    def log(self) -> Path:
        """Everything that its processes print."""
        return CACHE / f"{self.name}.log"

    def variables(self, home: Path, url: str) -> dict[str, str]:
        """The variables of its processes: a home of their own, and where the orchestration server is."""
        places = {"home": str(home), "dags": str(ROOT / "example_dags")}
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PREFECT"))},
            **{name: value.format(**places) for name, value in self.environment.items()},
            "AIRFLOW_CONN_ORCHESTRATION_DEFAULT": json.dumps({"conn_type": "orchestration", "host": url}),
            "ORCHESTRATION_URL": url,
            "PYTHONUNBUFFERED": "1",
        }


FRAMEWORKS = (
    Framework(
        name="airflow",
        title="Airflow 3.3",
        package="apache-airflow==3.3.2",
        example="example_dags/run_and_wait.py",
        prepare=("-m", "airflow", "db", "migrate"),
        environment={
            "AIRFLOW_HOME": "{home}",
            "AIRFLOW__CORE__DAGS_FOLDER": "{dags}",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        },
    ),
    Framework(
        name="prefect",
        title="Prefect 3.9",
        package="prefect==3.9.1",
        example="example_flows/run_and_wait.py",
        environment={
            "PREFECT_HOME": "{home}",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
            "DO_NOT_TRACK": "1",
        },
    ),
)


class StepFailed(Exception):
    """A process of a framework did not succeed."""


class Processes:
    """Runs commands, each in a process group of its own; none outlives this."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    @contextmanager
    def running(self, command: Sequence[str], log: Path, env: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
        """A command with its output in a log; its whole group has ended afterwards."""
        with log.open("ab") as output:
            with self._lock:
                if self._stopped:
                    raise StepFailed("stopped")
                process = subprocess.Popen(  # noqa: S603
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    cwd=ROOT,
                    env=dict(env),
                )
                self._running.add(process)
        try:
            yield process
        finally:
            _end_group(process)
            with self._lock:
                self._running.discard(process)

    def run(self, framework: Framework, command: Sequence[str], env: Mapping[str, str]) -> None:
        """A command to its end. Raises StepFailed unless it succeeds."""
        with self.running(command, framework.log, env) as process:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                raise StepFailed(f"{framework.title}: no end within {PATIENCE:.0f} s") from None
        check(framework, process)

    def stop(self) -> None:
        """End all, and start no more."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            _end_group(process)


def check(framework: Framework, process: subprocess.Popen[bytes]) -> None:
    """Raise StepFailed, with the end of the log, for a process that has failed."""
    if process.returncode != 0:
        lines = framework.log.read_text(errors="replace").splitlines()[-25:]
        raise StepFailed(
            "\n".join([*lines, f"{framework.title}: exit status {process.returncode}, see {framework.log}"])
        )


def _end_group(process: subprocess.Popen[bytes]) -> None:
    for number, patience in ((signal.SIGTERM, SOFT), (signal.SIGKILL, HARD)):
        end = time.monotonic() + patience
        try:
            os.killpg(process.pid, number)
            while time.monotonic() < end:
                process.poll()
                os.killpg(process.pid, 0)
                time.sleep(0.05)
        except (ProcessLookupError, PermissionError):
            break  # the group is empty
    with suppress(subprocess.TimeoutExpired):
        process.wait(1)


class Demo:
    """The demo's progress on a console."""

    def __init__(self, server: EmbeddedServer, hook: OrchestrationHttpHook, console: Console) -> None:
        self.server = server
        self.hook = hook
        self.console = console
        self.processes = Processes()
        self.working = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console, transient=True
        )
        self.seen: set[str] = set()

    def say(self, framework: Framework, text: str, style: str = "") -> None:
        """A line that stays."""
        self.console.print(f"  [bold]{framework.title:<12}[/] {text}", style=style, highlight=False)

    @contextmanager
    def step(self, framework: Framework, text: str) -> Iterator[None]:
        """Tell that something goes on, then how long it took."""
        begun = time.monotonic()
        if not self.console.is_terminal:
            self.say(framework, f"{text} …")
        task = self.working.add_task(f"{framework.title:<12} {text}")
        try:
            yield
        finally:
            self.working.remove_task(task)
        self.say(framework, f"{text} [green]✓[/] {time.monotonic() - begun:.1f} s")

    def prepare_all(self, home: Path) -> None:
        """Prepare all frameworks at once. Raises StepFailed for the first that fails; the others are ended then."""
        with ThreadPoolExecutor() as pool:
            futures = [pool.submit(self.prepare, one, home / one.name) for one in FRAMEWORKS]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                self.processes.stop()
                raise

    def prepare(self, framework: Framework, home: Path) -> None:
        """An environment with the framework and this package, and an empty database."""
        framework.log.unlink(missing_ok=True)
        env = framework.variables(home, self.server.url)
        ready = framework.home / "ready"
        project = (ROOT / "pyproject.toml").read_text()
        if not ready.exists() or ready.read_text() != framework.package + project:
            with self.step(framework, f"installing {framework.package}"):
                uv = _uv()
                if not Path(framework.python).exists():
                    self.processes.run(framework, [uv, "venv", "--python", ">=3.11,<3.14", str(framework.home)], env)
                wanted = [framework.package, "-e", f".[{framework.name}]"]
                self.processes.run(framework, [uv, "pip", "install", "--python", framework.python, *wanted], env)
                ready.write_text(framework.package + project)
        if framework.prepare:
            with self.step(framework, "preparing an empty database"):
                self.processes.run(framework, [framework.python, *framework.prepare], env)

    def run(self, framework: Framework, home: Path) -> list[str]:
        """Run the example; returns the ids of the instances that it started."""
        mine: list[str] = []
        env = framework.variables(home, self.server.url)
        with self.step(framework, f"python {framework.example}"):
            with self.processes.running([framework.python, framework.example], framework.log, env) as process:
                end = time.monotonic() + PATIENCE
                while process.poll() is None:
                    if time.monotonic() > end:
                        raise StepFailed(f"{framework.title}: no end within {PATIENCE:.0f} s")
                    self._look(framework, mine)
                    time.sleep(LOOK_EVERY)
                self._look(framework, mine)
            check(framework, process)
        return mine

    def _look(self, framework: Framework, mine: list[str]) -> None:
        for instance in self.hook.list_instances():
            if instance.id not in self.seen:
                self.seen.add(instance.id)
                mine.append(instance.id)
                self.say(framework, f"instance {instance.id} has started")
                threading.Thread(target=self._follow, args=(framework, instance.id), daemon=True).start()

    def _follow(self, framework: Framework, instance_id: str) -> None:
        def tell(event: StageEvent) -> None:
            name = f" {event.name.removeprefix('Run')}" if event.name else ""
            detail = f": {event.detail}" if event.detail else ""
            self.say(framework, escape(f"  stage {event.stage}{name} {event.kind}{detail}"), style="cyan")

        with suppress(OrchestrationError):
            self.hook.wait(instance_id, timeout=PATIENCE, poll_interval=LOOK_EVERY, on_stage=tell)


def _uv() -> str:
    beside = Path(sys.executable).parent / "uv"
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        raise StepFailed("uv is needed to make the environments: run `make demo`, which installs it")
    return found


def _seconds(begun: datetime | None, ended: datetime | None) -> str:
    return "" if begun is None or ended is None else f"{(ended - begun).total_seconds():.2f} s"


def _stage_name(stage: Mapping[str, Any]) -> str:
    kind, what = next(iter(stage.items()))
    if kind == "wait_event":
        event = str(what.get("event", ""))
        return "gate" if event.startswith("go:") else f"wait_event {event}"
    return f"delay {what['duration']}" if kind == "delay" and "duration" in what else str(kind)


def _moved(server: EmbeddedServer, instance_id: str) -> list[str]:
    """Each account that a run moved money of: what it held before and after."""
    balances: dict[tuple[str, str], int] = {}
    mine: dict[tuple[str, str], tuple[int, int]] = {}
    for row in server.record().money:
        posting = row["posting"]
        for account, sign in ((posting["source"], -1), (posting["destination"], 1)):
            key = (account, posting["asset"])
            before = balances.get(key, 0)
            balances[key] = before + sign * int(posting["amount"])
            if row["instance_id"] == instance_id:
                mine[key] = (mine.get(key, (before,))[0], balances[key])
    return [f"{account} {before} → {after} {asset}" for (account, asset), (before, after) in mine.items()]


def table(demo: Demo, rows: Sequence[tuple[Framework, Instance]]) -> Table:
    """Instance, stages, time of each, balances moved."""
    shown = Table(title="What the server says", title_justify="left", header_style="bold")
    shown.add_column("instance", no_wrap=True)
    shown.add_column("stage", no_wrap=True)
    shown.add_column("time", justify="right", no_wrap=True)
    shown.add_column("balances moved", overflow="fold")
    for framework, instance in rows:
        stages = demo.hook.get_workflow(instance.workflow_id).stages
        lines = [
            (f"{row.stage} {_stage_name(stages[row.stage])}", _seconds(row.started_at, row.terminated_at))
            for row in instance.status
        ]
        lines.append((instance.state, _seconds(instance.created_at, instance.terminated_at)))
        shown.add_row(
            f"{framework.title}\n{instance.id[:8]}…",
            escape("\n".join(name for name, _ in lines)),
            "\n".join(took for _, took in lines),
            escape("\n".join(_moved(demo.server, instance.id))),
            end_section=True,
        )
    return shown


def play(console: Console, home: Path) -> int:
    """The whole demo; 0 if both runs succeeded."""
    with EmbeddedServer() as server, OrchestrationHttpHook(base_url=server.url) as hook:
        demo = Demo(server, hook, console)
        console.print(f"Embedded orchestration server: {server.url}", highlight=False)
        rows: list[tuple[Framework, Instance]] = []
        try:
            with demo.working:
                demo.prepare_all(home)
                for framework in FRAMEWORKS:
                    for instance_id in demo.run(framework, home / framework.name):
                        rows.append((framework, hook.get_instance(instance_id)))
        except StepFailed as failure:
            console.print(str(failure), style="red", markup=False, highlight=False)
            return 1
        finally:
            demo.processes.stop()
        console.print()
        console.print(table(demo, rows))
        told = ", ".join(str(one.log.relative_to(ROOT)) for one in FRAMEWORKS)
        console.print(f"What the frameworks printed: {told}", style="dim", highlight=False)
        missing = [one.title for one in FRAMEWORKS if one not in [framework for framework, _ in rows]]
        if missing:
            console.print(f"no run was seen of {', '.join(missing)}", style="red")
        if os.environ.get(KEEP):
            console.print(f"The live page: {server.url}/  (Ctrl-C ends it)", highlight=False, soft_wrap=True)
            threading.Event().wait()
        return 1 if missing or any(instance.state != "succeeded" for _, instance in rows) else 0


def main() -> int:
    """Play the demo; Ctrl-C or SIGTERM ends it and all that it started."""

    console = Console()

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # once is enough: what was started is being ended
        console.print("stopping …", style="yellow")
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    if not (ROOT / "example_dags").is_dir():
        console.print("The demo runs from a checkout of the project: make demo", style="red")
        return 1
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="orchestration-demo-", ignore_cleanup_errors=True) as home:
        try:
            return play(console, Path(home))
        except KeyboardInterrupt:
            console.print("stopped", style="yellow")
            return 130


if __name__ == "__main__":
    sys.exit(main())

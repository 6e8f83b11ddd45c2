"""A real triggerer of Airflow 3.3 with 500 deferred tasks: our trigger, sharing or not, and the peers'."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .imports import interpreter
from .measuring import Child, Options, Pair, Spread, environment, figure
from .report import Section, Target

COUNT = 500
OURS = "orchestration_integrations.airflow.triggers.OrchestrationInstanceTrigger"
WAYS = {
    "ours, sharing on": OURS,
    "ours, sharing off": "benchmarks.triggers.Alone",
    "as peers": "benchmarks.triggers.AsPeers",
}
"""The switch: which class the rows of the database name. All of them take the same arguments."""


@dataclass
class Seen:
    """What one triggerer did.

    Attributes:
        requests, cpu, stalls: of each interval: requests a second, seconds of CPU a second of the process that runs the
            triggers, the longest time in seconds for which its loop did not come around.
        memory: bytes of that process at the end.
    """

    requests: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    stalls: list[float] = field(default_factory=list)
    memory: int = 0


def airflow_environment(home: Path, url: str) -> dict[str, str]:
    """An Airflow of its own, which knows the server."""
    extra = {"base_url": f"{url}/api/orchestration"}
    return environment(
        AIRFLOW_HOME=str(home),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__CORE__FERNET_KEY="",
        AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{home}/airflow.db",
        AIRFLOW__LOGGING__LOGGING_LEVEL="WARNING",
        AIRFLOW_CONN_ORCHESTRATION_DEFAULT=json.dumps({"conn_type": "orchestration", "host": url, "extra": extra}),
        BENCH_URL=url,
    )


def fill(python: str, home: Path, url: str, ids: list[str], interval: float) -> None:
    """A database with one deferred task for each run, and a probe."""
    home.mkdir()
    rows: list[tuple[str, dict[str, Any]]] = [(OURS, {"instance_id": one, "poll_interval": interval}) for one in ids]
    rows.append(("benchmarks.triggers.LoopProbe", {"path": str(home.parent / "probe.jsonl")}))
    done = subprocess.run(
        [python, "-m", "benchmarks.deferred"],
        input=json.dumps(rows),
        env=airflow_environment(home, url),
        cwd=home,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"the database was not filled:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


@contextmanager
def running(python: str, home: Path, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A triggerer; all of its processes are ended afterwards."""
    with (home / "triggerer.log").open("wb") as log:
        process = subprocess.Popen(
            [python, "-m", "airflow", "triggerer", "--skip-serve-logs", "--capacity", str(2 * COUNT)],
            env=airflow_environment(home, url),
            cwd=home,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            for sign in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(process.pid, sign)
                    process.wait(15)
                except ProcessLookupError:
                    break
                except subprocess.TimeoutExpired:
                    continue


def lines_of(path: Path) -> list[dict[str, float]]:
    """What the probe has written; nothing yet is no line."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def watch(python: str, filled: Path, way: str, server: Child, interval: float, windows: int) -> Seen:
    """One triggerer for some intervals, after its start."""
    url, probe = server.ask("url"), filled.parent / "probe.jsonl"
    home = filled.parent / f"home-{len(list(filled.parent.iterdir()))}"
    shutil.copytree(filled, home)
    probe.unlink(missing_ok=True)
    with sqlite3.connect(home / "airflow.db") as database:
        database.execute("UPDATE trigger SET classpath = ? WHERE classpath = ?", (WAYS[way], OURS))
    database.close()
    seen = Seen()
    with running(python, home, url) as process:
        begun = time.monotonic()
        while not lines_of(probe):
            if process.poll() is not None or time.monotonic() - begun > 120:
                raise RuntimeError(f"the triggerer did not start:\n{(home / 'triggerer.log').read_text()[-4000:]}")
            time.sleep(0.2)
        time.sleep(2 * interval + 3)
        for _ in range(windows):
            before, lines = server.ask("usage"), len(lines_of(probe))
            time.sleep(interval)
            after, new = server.ask("usage"), lines_of(probe)[max(0, lines - 1) :]
            sent = sum(after["requests"].values()) - sum(before["requests"].values())
            seen.requests.append(sent / (after["at"] - before["at"]))
            seen.cpu.append((new[-1]["cpu"] - new[0]["cpu"]) / (new[-1]["at"] - new[0]["at"]))
            seen.stalls.append(max(line["stall"] for line in new[1:]))
            seen.memory = int(new[-1]["memory"])
    if not any(seen.requests):
        raise RuntimeError(f"{way}: no trigger has asked the server:\n{(home / 'triggerer.log').read_text()[-4000:]}")
    return seen


def measure(options: Options) -> list[Section]:
    """All three, one after the other on one server."""
    python = interpreter("BENCH_AIRFLOW33")
    title, columns = (
        "A triggerer with 500 deferred tasks",
        ["trigger", "requests/s", "CPU s/s", "longest stall, ms", "MB"],
    )
    if python is None:
        return [Section("triggerer", title, ["Not measured: the environment was not made."], columns, [])]
    interval, windows, count = (1.0, 2, 50) if options.quick else (5.0, 4, COUNT)
    found: dict[str, Seen] = {}
    with tempfile.TemporaryDirectory() as folder, Child("serving") as server:
        filled = Path(folder) / "filled"
        fill(python, filled, server.ask("url"), server.ask("running", count=count), interval)
        for way in WAYS:
            found[way] = watch(python, filled, way, server, interval, windows)
    rows = [
        [
            way,
            str(Spread.of(seen.requests)),
            str(Spread.of(seen.cpu)),
            str(Spread.of(seen.stalls).scaled(1000)),
            figure(seen.memory / 1e6),
        ]
        for way, seen in found.items()
    ]
    on, off, peers = found.values()
    notes = []
    if Spread.of(on.requests).middle > 0.9 * Spread.of(off.requests).middle:
        notes.append("**Sharing saved nothing: is it there, and is it on?**")
    for name, other in (("Sharing off", off), ("As peers", peers)):
        requests, cpu = Pair(other.requests, on.requests).ratio, Pair(other.cpu, on.cpu).ratio
        notes.append(f"{name}: {requests} times the requests and {cpu} times the CPU of sharing on.")
    text = [
        f"`airflow triggerer` of Airflow 3.3 on an SQLite database with {count} deferred tasks, whose runs stay as "
        f"they are; a poll each {interval:g} s; {windows} intervals. CPU and memory are those of the process that "
        "runs the triggers. A trigger more wakes up a hundred times a second and says how late that was at worst in "
        "each interval. `as peers`: one GET for each poll through an aiohttp session of its own, as in the Databricks "
        "provider.",
    ]
    targets = [Target("longest stall of the loop, sharing on, ms", max(on.stalls) * 1000, 50)]
    return [Section("triggerer", title, text, columns, rows, targets, notes=notes)]

"""One Prefect server for the whole session, in a process group of its own; an orchestration server for each test.

The address of the Prefect server is fixed before Prefect is imported; it is started by the first test that needs it.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.one_generation import keep_one_generation
from tests.outside import free_port

if importlib.util.find_spec("prefect") is None:
    collect_ignore_glob = ["*"]
else:
    _home = Path(tempfile.mkdtemp(prefix="prefect-tests-"))

    _port = free_port()
    os.environ.update(
        PREFECT_HOME=str(_home / "client"),
        PREFECT_API_URL=f"http://127.0.0.1:{_port}/api",
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        PREFECT_RUNNER_POLL_FREQUENCY="1",
        PREFECT_WORKER_QUERY_SECONDS="1",
        PREFECT_LOGGING_LEVEL="INFO",
        DO_NOT_TRACK="1",
    )
    from orchestration_integrations.prefect import OrchestrationCredentials
    from orchestration_integrations.server import EmbeddedServer


LONG = 90.0
"""Seconds that a condition may take on a busy machine."""


def until(condition: Callable[[], Any], what: str, limit: float = LONG) -> Any:
    """Wait until a condition gives something true, and return that."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f"not within {limit} s: {what}")


def pytest_configure(config: pytest.Config) -> None:
    """A session that is told to end ends its processes as an interrupted one does."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


class Process:
    """A process in a group of its own, its output in a file; the whole group is killed at the end."""

    def __init__(self, name: str, *command: str, cwd: Path | None = None, **env: str) -> None:
        self.log = _home / f"{name}.log"
        with self.log.open("wb") as output:
            self.popen = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=cwd,
                env={**os.environ, **env},
            )
        atexit.register(self.end)

    def end(self) -> None:
        for which, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
            try:
                os.killpg(self.popen.pid, which)
            except ProcessLookupError:
                return
            try:
                self.popen.wait(patience)
            except subprocess.TimeoutExpired:
                continue

    def text(self) -> str:
        return self.log.read_text(errors="replace")


@pytest.fixture(scope="session", autouse=True)
def _files() -> Iterator[None]:
    yield
    shutil.rmtree(_home, ignore_errors=True)


@pytest.fixture(scope="session")
def prefect_api(_files: None) -> Iterator[str]:
    """A real Prefect server; returns the URL of its API."""
    import httpx

    url = os.environ["PREFECT_API_URL"]
    server = Process(
        "server",
        sys.executable,
        "-m",
        "prefect",
        "server",
        "start",
        "--host",
        "127.0.0.1",
        "--port",
        str(_port),
        "--no-ui",
        PREFECT_HOME=str(_home / "server"),
    )
    try:

        def healthy() -> bool:
            assert server.popen.poll() is None, server.text()
            try:
                return httpx.get(f"{url}/health", timeout=5).status_code == 200
            except httpx.HTTPError:
                return False

        until(healthy, "Prefect server healthy", 180)
        yield url
    finally:
        server.end()


@pytest.fixture(params=[2])
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    """An orchestration server; give another generation by indirect parametrization."""
    with EmbeddedServer(generation=request.param) as started:
        yield started


@pytest.fixture
def credentials(server: EmbeddedServer) -> OrchestrationCredentials:
    return OrchestrationCredentials(base_url=server.url)


IS_NEWEST = tuple(int(part) for part in version("prefect").split(".")[:2]) >= (3, 9)
newest_only = pytest.mark.skipif(
    not IS_NEWEST,
    reason="it is long, and one version is enough: it does not depend on Prefect's version",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not IS_NEWEST:
        keep_one_generation(config, items, "server")


generations = pytest.mark.parametrize("server", [1, 2, 3], indirect=True)
abortable = pytest.mark.parametrize("server", [1, 3], indirect=True)
"""Generations on which an abort can be seen to take effect."""


def send(payee: str = "users:001", amount: str = "100") -> dict[str, Any]:
    return {
        "send": {
            "source": {"account": {"id": "world"}},
            "destination": {"account": {"id": payee}},
            "amount": {"amount": amount, "asset": "EUR/2"},
        }
    }


def short(payee: str = "users:001") -> dict[str, Any]:
    """A payment."""
    return {"name": "short", "stages": [send(payee)]}


def endless() -> dict[str, Any]:
    """A payment, then a wait for an event that nobody sends."""
    return {"name": "endless", "stages": [send(), {"wait_event": {"event": "never"}}]}


def unfunded() -> dict[str, Any]:
    """A payment from an account that has nothing: it is tried again and again."""
    return {"name": "unfunded", "stages": [{"send": {**send()["send"], "source": {"account": {"id": "empty"}}}}]}


def failing() -> dict[str, Any]:
    """A payment, then a stage that the server refuses."""
    return {"name": "failing", "stages": [send(), {"wait_event": {"event": "${nothing}"}}]}


def defined(server: EmbeddedServer, definition: dict[str, Any], *, gate: bool = True) -> str:
    """The id of a workflow."""
    from orchestration_integrations import OrchestrationHttpHook

    with OrchestrationHttpHook(base_url=server.url) as hook:
        return hook.ensure_workflow(definition, gate=gate).workflow.id


def errors_of(server: EmbeddedServer) -> dict[str, str | None]:
    """How runs ended, by instance."""
    return {row["instance_id"]: row["error"] for row in server.record().ended}


def releases(server: EmbeddedServer) -> list[str]:
    """The instances whose gate was opened."""
    return [row["instance_id"] for row in server.record().released if row["stage"] == 0]

"""An Airflow of its own in a temporary home, an embedded server, and a connection to it."""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from tests.one_generation import keep_one_generation

HERE = Path(__file__).parent
EXAMPLES = HERE.parent.parent / "example_dags"
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d")
HAS_AIRFLOW = importlib.util.find_spec("airflow") is not None
collect_ignore_glob = [] if HAS_AIRFLOW else ["*"]

if HAS_AIRFLOW:
    HOME = tempfile.mkdtemp(prefix="airflow-home-")
    atexit.register(shutil.rmtree, HOME, ignore_errors=True)
    os.environ.update(
        {
            "AIRFLOW_HOME": HOME,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(EXAMPLES),
            "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
            "AIRFLOW__METRICS__TIMER_UNIT_CONSISTENCY": "True",
        }
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not HAS_AIRFLOW:
        return
    from orchestration_integrations.airflow.compat import AIRFLOW_VERSION

    between = (2, 11) < AIRFLOW_VERSION < (3, 3)
    if between:
        keep_one_generation(config, items, "generation")
    for item in items:
        if between and item.get_closest_marker("oldest_and_newest"):
            item.add_marker(pytest.mark.skip(reason="the oldest and the newest Airflow play it"))


@pytest.fixture(scope="session")
def airflow_home() -> Path:
    """The home, with a migrated database."""
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Path(HOME)


@pytest.fixture
def generation() -> int:
    """Which server; tests override it by parametrising ``generation``."""
    return 2


@pytest.fixture
def server(generation: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """A fresh server that the connection ``orchestration_default`` points to."""
    from orchestration_integrations.server import EmbeddedServer

    with EmbeddedServer(generation=generation) as one:  # type: ignore[arg-type]
        monkeypatch.setenv(
            "AIRFLOW_CONN_ORCHESTRATION_DEFAULT", json.dumps({"conn_type": "orchestration", "host": one.url})
        )
        yield one


@pytest.fixture(autouse=True)
def airflow_says(request: pytest.FixtureRequest) -> Iterator[object]:
    """The states and Variables of an Airflow that does not run; tests that run one do without it."""
    if not HAS_AIRFLOW or "airflow_home" in request.fixturenames or {"e2e", "e2e211"} & set(request.path.parts):
        yield None
        return
    from tests.airflow.harness import Airflow

    says = Airflow()
    with pytest.MonkeyPatch.context() as patch:
        says.put_in_place(patch)
        yield says


@pytest.fixture
def impatient_in_outages(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are given up after half a second while the server is told to fail; before and after that, never so soon:
    on a machine with much else to do an answer may take longer."""
    from orchestration_integrations import Settings

    allowed = {"seconds": 60.0}
    fault, clear_faults = server.fault, server.clear_faults

    def failing(*arguments: Any, **options: Any) -> Any:
        if options.get("code", 0) >= 500:
            allowed["seconds"] = 0.5
        return fault(*arguments, **options)

    def cleared() -> None:
        clear_faults()
        allowed["seconds"] = 60.0

    given = vars(Settings)["retry_budget"]

    def budget(settings: Settings) -> float:
        return min(allowed["seconds"], given.__get__(settings))

    monkeypatch.setattr(server, "fault", failing)
    monkeypatch.setattr(server, "clear_faults", cleared)
    monkeypatch.setattr(Settings, "retry_budget", property(budget, given.__set__))


@contextlib.contextmanager
def connection_to(monkeypatch: pytest.MonkeyPatch, **fields: object) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_ORCHESTRATION_DEFAULT", json.dumps({"conn_type": "orchestration", **fields}))
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where a test on a whole Airflow has failed, the end of what Airflow logged meanwhile is told with it."""
    report = yield
    logs = getattr(getattr(item, "funcargs", {}).get("airflow"), "logs", None)
    if logs is not None and report.when == "call" and report.failed:
        began = datetime.fromtimestamp(call.start, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
        lines = [(_INSTANT.search(line), line[:400]) for line in logs().splitlines()]
        told = sorted({(found[0].replace(" ", "T"), line) for found, line in lines if found})
        meanwhile = [line for at, line in told if at >= began]
        report.sections.append(("what Airflow logged", "\n".join(meanwhile[-250:])))
    return report

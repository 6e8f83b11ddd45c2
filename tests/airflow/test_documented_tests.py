"""The tests of a DAG that docs/testing.md shows, as a user runs them: offline, in a pytest of their own."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.documents import files_of

pytest_plugins = ["pytester"]

SECRETS = "airflow.secrets.local_filesystem.LocalFilesystemBackend"


@pytest.fixture
def developer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment of somebody who works with an Airflow of their own: its home, its database, its secrets."""
    home = tmp_path / "developer"
    home.mkdir()
    connections = tmp_path / "connections.json"
    real = {"conn_type": "orchestration", "host": "https://payments.example"}
    connections.write_text(json.dumps({"orchestration_default": real}))
    for name, value in {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW_CONFIG": str(home / "airflow.cfg"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__SECRETS__BACKEND": SECRETS,
        "AIRFLOW__SECRETS__BACKEND_KWARGS": json.dumps({"connections_file_path": str(connections)}),
    }.items():
        monkeypatch.setenv(name, value)
    return home


@pytest.mark.parametrize(
    "arguments", [(), pytest.param(("-n2",), marks=pytest.mark.oldest_and_newest)], ids=["alone", "workers"]
)
def test_the_documented_tests_of_a_dag_pass(
    developer: Path, pytester: pytest.Pytester, arguments: tuple[str, ...]
) -> None:
    if arguments:
        pytest.importorskip("xdist")
    folder = pytester.mkdir("payouts")
    for name, text in files_of("testing.md", "A DAG of Airflow").items():
        (folder / name).write_text(text)
    result = pytester.runpytest_subprocess(
        "--strict-markers", "-p", "no:cacheprovider", *arguments, folder, timeout=400
    )
    result.assert_outcomes(passed=2)
    assert list(developer.iterdir()) == []


def test_another_connection_is_not_paid(developer: Path, pytester: pytest.Pytester) -> None:
    """Airflow asks a backend of secrets before the environment, so a test's DAG can have a real server's address."""
    files = files_of("testing.md", "A DAG of Airflow")
    kept = 'one.startswith("AIRFLOW__") and "SECRETS" not in one'
    files["conftest.py"] = files["conftest.py"].replace('one.startswith("AIRFLOW__")', kept)
    files["payouts.py"] = files["payouts.py"].replace("retries=2", "retries=0")
    files["test_payouts.py"] = (
        files["test_payouts.py"].split("\n\ndef ")[0]
        + """

def test_pays(orchestration_server):
    assert dag.test(run_conf={"merchant": "m1"}).state == "failed"
    assert orchestration_server.calls() == ()
"""
    )
    folder = pytester.mkdir("payouts")
    for name, text in files.items():
        (folder / name).write_text(text)
    result = pytester.runpytest_subprocess("--strict-markers", "-p", "no:cacheprovider", "-rP", folder, timeout=300)
    result.assert_outcomes(passed=1)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", result.stdout.str())  # Airflow 3.0 colours what a task raised, and wraps it
    assert "https://payments.example: nothing was sent: a server for tests runs in this" in plain

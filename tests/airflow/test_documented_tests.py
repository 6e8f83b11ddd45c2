"""The tests of a DAG that docs/testing.md shows, as a user runs them: offline, in a pytest of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.documents import files_of

pytest_plugins = ["pytester"]


def test_the_documented_tests_of_a_dag_pass(airflow_home: Path, pytester: pytest.Pytester) -> None:
    folder = pytester.mkdir("payouts")
    for name, text in files_of("testing.md", "A DAG of Airflow").items():
        (folder / name).write_text(text)
    result = pytester.runpytest_subprocess("--strict-markers", "-p", "no:cacheprovider", folder, timeout=300)
    result.assert_outcomes(passed=2)

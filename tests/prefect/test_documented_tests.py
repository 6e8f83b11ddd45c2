"""The tests of a flow that docs/testing.md shows, as a user runs them: offline, in a pytest of their own."""

from __future__ import annotations

import pytest

from tests.documents import files_of
from tests.prefect.conftest import newest_only

pytest_plugins = ["pytester"]


@newest_only
def test_the_documented_tests_of_a_flow_pass(pytester: pytest.Pytester) -> None:
    for name, text in files_of("testing.md", "A flow of Prefect").items():
        (pytester.path / name).write_text(text)
    result = pytester.runpytest_subprocess("--strict-markers", "-p", "no:cacheprovider", timeout=300)
    result.assert_outcomes(passed=1)

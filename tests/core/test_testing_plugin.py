"""The pytest plugin, in a pytest of its own, found by its entry point."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

PAYOUT = """
    import pytest

    DEFINITION = {"name": "payout", "stages": [{"send": {
        "source": {"account": {"id": "world"}},
        "destination": {"account": {"id": "merchants:1"}},
        "amount": {"amount": "1250", "asset": "EUR/2"},
    }}]}

    def pay(hook):
        workflow = hook.ensure_workflow(DEFINITION, gate=True).workflow
        return hook.wait(hook.start(workflow.id, run_key="once").id, timeout=30)
"""


def ended(pytester: pytest.Pytester, test: str, *arguments: str) -> pytest.RunResult:
    pytester.makepyfile(PAYOUT + test)
    return pytester.runpytest_subprocess("-p", "no:asyncio", "-W", "error", "--strict-markers", *arguments)


def test_fixtures_give_a_server_and_a_hook_to_it(pytester: pytest.Pytester) -> None:
    result = ended(
        pytester,
        """
    def test_pays(orchestration_server, orchestration_hook):
        assert pay(orchestration_hook).instance.state == "succeeded"
        assert orchestration_server.balance("merchants:1", "EUR/2") == 1250

    def test_server_is_fresh(orchestration_server):
        assert orchestration_server.core.generation == 2
        assert orchestration_server.balance("merchants:1", "EUR/2") == 0
        assert orchestration_server.record().started == []
    """,
    )
    result.assert_outcomes(passed=2)


def test_faults_and_clock_are_at_hand(pytester: pytest.Pytester) -> None:
    result = ended(
        pytester,
        """
    def test_lost_answer_pays_once(orchestration_server, orchestration_hook):
        orchestration_server.fault("run_workflow", "cut_after")
        pay(orchestration_hook)
        assert orchestration_server.balance("merchants:1", "EUR/2") == 1250

    def test_days_pass_at_once(orchestration_server, orchestration_hook):
        week = {"name": "week", "stages": [{"delay": {"duration": "168h"}}]}
        instance = orchestration_hook.start(orchestration_hook.ensure_workflow(week, gate=True).workflow.id)
        orchestration_server.advance(7 * 86400 + 60)
        assert orchestration_hook.wait(instance.id, timeout=30).instance.state == "succeeded"
    """,
    )
    result.assert_outcomes(passed=2)


def test_marker_asks_for_generations(pytester: pytest.Pytester) -> None:
    result = ended(
        pytester,
        """
    @pytest.mark.orchestration_generation(1, 3)
    def test_pays(orchestration_server, orchestration_hook):
        pay(orchestration_hook)
        print("generation", orchestration_server.core.generation)

    @pytest.mark.parametrize("orchestration_server", [1], indirect=True)
    def test_parameter(orchestration_server):
        assert orchestration_server.core.generation == 1
    """,
        "-s",
    )
    result.assert_outcomes(passed=3)
    assert [line[-1] for line in result.outlines if "generation " in line and "::" not in line] == ["1", "3"]


def test_a_generation_that_there_is_not_is_refused(pytester: pytest.Pytester) -> None:
    result = ended(
        pytester,
        """
    @pytest.mark.orchestration_generation(4)
    def test_pays(orchestration_server):
        pass
    """,
    )
    assert result.ret != 0
    assert "takes some of 1, 2, 3, not (4,)" in "\n".join(result.outlines + result.errlines)


@pytest.mark.parametrize("excluded", ["", "intranet.example"])
def test_a_proxy_of_the_environment_is_not_used(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, excluded: str
) -> None:
    """U6: neither for the plugin's hook nor for any other client of the server."""
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nobody listens there
    for variable in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(variable, excluded)
    result = ended(
        pytester,
        """
    import os
    import urllib.request

    def test_pays(orchestration_server, orchestration_hook):
        assert pay(orchestration_hook).instance.state == "succeeded"

    def test_another_client(orchestration_server):
        with urllib.request.urlopen(orchestration_server.url + "/_info", timeout=10) as answer:
            assert answer.status == 200
        assert os.environ["NO_PROXY"].startswith(os.environ["EXCLUDED"])
    """.replace('os.environ["EXCLUDED"]', repr(excluded)),
    )
    result.assert_outcomes(passed=2)

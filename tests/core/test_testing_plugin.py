"""The pytest plugin, in a pytest of its own, found by its entry point."""

from __future__ import annotations

import pytest

from tests.documents import files_of

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


def test_the_tests_of_the_documentation_pass(pytester: pytest.Pytester) -> None:
    files = {**files_of("testing.md"), **files_of("testing.md", "Time that skips")}
    for name, text in files.items():
        (pytester.path / name).write_text(text)
    result = pytester.runpytest_subprocess("-p", "no:asyncio", "-W", "error", "--strict-markers")
    result.assert_outcomes(passed=2)
    assert set(files) == {"test_payout.py", "test_a_week.py"}


def test_what_was_paid_instead_is_told(pytester: pytest.Pytester) -> None:
    """In place of the plugin's own code, the test's line is shown."""
    result = ended(
        pytester,
        """
    def test_pays(orchestration_server, orchestration_hook):
        pay(orchestration_hook)
        orchestration_server.paid("merchants:2", 1250, "EUR/2", once=True)
    """,
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            '>       orchestration_server.paid("merchants:2", 1250, "EUR/2", once=True)',
            "E       AssertionError: merchants:2 was never paid 1250 EUR/2, expected once",
            "E       What was paid instead:",
            "E         1250 EUR/2 from world to merchants:1 by run *, stage 1",
            "E       The runs:",
            "E         * of payout (*): succeeded",
        ]
    )
    assert "judging.py" not in result.stdout.str()


WEEK = """
    WEEK = {"name": "week", "stages": [{"delay": {"duration": "168h"}}, *DEFINITION["stages"]]}

    def wait_a_week(hook, **options):
        workflow = hook.ensure_workflow(WEEK, gate=True).workflow
        return hook.wait(hook.start(workflow.id).id, **options)
"""


def test_markers_say_whether_time_skips(pytester: pytest.Pytester) -> None:
    result = ended(
        pytester,
        WEEK
        + """
    pytestmark = pytest.mark.orchestration_server(time="skip", patience=0.1)

    @pytest.mark.orchestration_generation(1, 3)
    def test_skips(orchestration_server, orchestration_hook):
        wait_a_week(orchestration_hook, timeout=8 * 86400)
        orchestration_server.paid("merchants:1", 1250, "EUR/2", once=True)
        assert orchestration_server.skipping.patience == 0.1

    @pytest.mark.orchestration_server(time="real")
    def test_the_closest_marker_counts(orchestration_server, orchestration_hook):
        assert orchestration_server.time == "real"
        assert orchestration_server.skipping.patience == 0.1

    def test_of_another_framework():
        from orchestration_integrations import OrchestrationHttpHook
        from orchestration_integrations.testing import server_for_tests
        with server_for_tests(3, time="skip") as server, OrchestrationHttpHook() as hook:
            wait_a_week(hook)
            server.ended("succeeded", times=1)
    """,
    )
    result.assert_outcomes(passed=4)


@pytest.mark.parametrize(
    ("marker", "told"),
    [
        ('time="fast"', "time must be 'real' or 'skip', not 'fast'"),
        ("tiem='skip'", "orchestration_server takes time and patience, not tiem"),
        ("'skip'", "orchestration_server takes time and patience, not 'skip'"),
        ("patience=-1", "patience must be a number of seconds from 0, not -1"),
    ],
)
def test_a_marker_that_cannot_be_meant_is_refused(pytester: pytest.Pytester, marker: str, told: str) -> None:
    result = ended(
        pytester,
        f"""
    @pytest.mark.orchestration_server({marker})
    def test_pays(orchestration_server):
        pass
    """,
    )
    assert result.ret != 0
    assert told in "\n".join(result.outlines + result.errlines)


def test_the_environment_leads_to_the_server_and_to_no_other(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATION_URL", "https://payments.example")
    monkeypatch.setenv("ORCHESTRATION_TOKEN", "of-the-real-one")
    result = ended(
        pytester,
        """
    import json, os
    from orchestration_integrations import OrchestrationHttpHook

    def test_pays(orchestration_server):
        with OrchestrationHttpHook() as hook:
            pay(hook)
        orchestration_server.paid("merchants:1", 1250, "EUR/2", once=True)
        connection = json.loads(os.environ["AIRFLOW_CONN_ORCHESTRATION_DEFAULT"])
        assert connection == {"conn_type": "orchestration", "host": orchestration_server.url}
        assert "ORCHESTRATION_TOKEN" not in os.environ

    def test_afterwards():
        assert os.environ["ORCHESTRATION_URL"] == "https://payments.example"
        assert os.environ["ORCHESTRATION_TOKEN"] == "of-the-real-one"
        assert "AIRFLOW_CONN_ORCHESTRATION_DEFAULT" not in os.environ
    """,
    )
    result.assert_outcomes(passed=2)


def test_workers_of_xdist_have_servers_of_their_own(pytester: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    result = ended(
        pytester,
        WEEK
        + """
    @pytest.mark.orchestration_server(time="skip")
    @pytest.mark.parametrize("number", range(6))
    def test_pays(orchestration_server, orchestration_hook, number):
        orchestration_server.started(0)
        wait_a_week(orchestration_hook)
        orchestration_server.started(1)
    """,
        "-n2",
    )
    result.assert_outcomes(passed=6)


def test_frozen_time_stops_neither_the_server_nor_who_waits(pytester: pytest.Pytester) -> None:
    pytest.importorskip("freezegun")
    result = ended(
        pytester,
        WEEK
        + """
    import asyncio, datetime, threading
    from freezegun import freeze_time
    from orchestration_integrations import AsyncOrchestrationHttpHook, OrchestrationHttpHook
    from orchestration_integrations.testing import server_for_tests

    SHORT = {"name": "short", "stages": [{"delay": {"duration": "1s"}}, *DEFINITION["stages"]]}

    @freeze_time("2020-02-29")
    @pytest.mark.parametrize("time", ["real", "skip"])
    def test_frozen_inside(orchestration_server, orchestration_hook, time):
        orchestration_server.time = time
        workflow = orchestration_hook.ensure_workflow(SHORT, gate=True).workflow
        orchestration_hook.wait(orchestration_hook.start(workflow.id, run_key="once").id, timeout=30)
        orchestration_server.paid("merchants:1", 1250, "EUR/2", once=True)
        assert datetime.date.today().year == 2020

    @freeze_time("2020-02-29")
    @pytest.mark.orchestration_server(time="skip")
    def test_waits_that_share(orchestration_server, orchestration_hook):
        workflow = orchestration_hook.ensure_workflow(WEEK, gate=True).workflow
        ids = [orchestration_hook.start(workflow.id).id for _ in range(3)]
        threads = [threading.Thread(target=orchestration_hook.wait, args=(one,), daemon=True) for one in ids]
        [thread.start() for thread in threads]
        [thread.join(30) for thread in threads]
        orchestration_server.ended("succeeded", times=3)

    def test_frozen_outside():
        with freeze_time("2020-02-29"), server_for_tests(time="skip"), OrchestrationHttpHook() as hook:
            instance = wait_a_week(hook, timeout=8 * 86400).instance
        assert str(instance.created_at.date()) == "2020-02-29"
        assert str(instance.terminated_at.date()) == "2020-03-07"

    def test_asynchronous():
        async def wait():
            async with AsyncOrchestrationHttpHook() as hook:
                workflow = (await hook.ensure_workflow(WEEK, gate=True)).workflow
                await hook.wait((await hook.start(workflow.id)).id)

        with freeze_time("2020-02-29", real_asyncio=True), server_for_tests(time="skip") as server:
            asyncio.run(asyncio.wait_for(wait(), 30))
            server.ended("succeeded", times=1)
    """,
    )
    result.assert_outcomes(passed=5)

"""The pytest plugin, in a pytest of its own, found by its entry point."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from orchestration_integrations.testing import server_for_tests
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
    result.assert_outcomes(passed=3)
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
        ("tiem='skip'", "orchestration_server takes time, patience, seed and allow, not tiem"),
        ("'skip'", "orchestration_server takes time, patience, seed and allow, not 'skip'"),
        ("patience=-1", "patience must be a number of seconds from 0, not -1"),
        ("seed='x'", "seed must be a whole number, not 'x'"),
        ("allow='https://payments.example'", "allow must be a list of addresses, not 'https://payments.example'"),
        ("allow=['payments.example']", "'payments.example' is no address: give https://host or https://host:port"),
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
    result.assert_outcomes(errors=1)
    assert told in "\n".join(result.outlines + result.errlines)


@pytest.mark.parametrize("workers", [(), ("-n2",)], ids=["alone", "by xdist"])
def test_a_marker_that_cannot_be_meant_is_an_error_of_its_module(
    pytester: pytest.Pytester, workers: tuple[str, ...]
) -> None:
    """The others run, where one says so; a test of unittest is no exception."""
    if workers:
        pytest.importorskip("xdist")
    wrong = {
        "function": "@pytest.mark.orchestration_server('skip')\ndef test_pays(orchestration_server): pass",
        "generation": "@pytest.mark.orchestration_generation(4)\ndef test_pays(orchestration_server): pass",
        "method": "class TestPays:\n    @pytest.mark.orchestration_server(time='fast')\n    def test_it(self): pass",
        "unit": "import unittest\nclass TestPays(unittest.TestCase):\n"
        "    @pytest.mark.orchestration_server(seed='x')\n    def test_it(self): pass",
    }
    pytester.makepyfile(**{f"test_{name}": f"import pytest\n{text}" for name, text in wrong.items()})
    result = ended(
        pytester, "\n    def test_pays(orchestration_server): pass", "--continue-on-collection-errors", *workers
    )
    outcomes = result.parseoutcomes()
    assert outcomes["passed"] == 1
    assert outcomes["errors"] >= len(wrong), "xdist may tell one for each worker"
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()
    for told in (
        "orchestration_server takes time, patience, seed and allow, not 'skip'",
        "orchestration_generation takes some of 1, 2, 3, not (4,)",
        "time must be 'real' or 'skip', not 'fast'",
        "seed must be a whole number, not 'x'",
    ):
        assert told in result.stdout.str()


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
    from orchestration_integrations import AsyncOrchestrationHttpHook, MemoryRunStore, OrchestrationHttpHook
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

    @pytest.mark.parametrize("date", ["2015-05-01", "2034-05-01", "2126-05-01"])
    def test_frozen_amid(orchestration_server, orchestration_hook, date):
        workflow = orchestration_hook.ensure_workflow(SHORT, gate=True).workflow
        plain = orchestration_hook.ensure_workflow(SHORT).workflow
        with freeze_time(date):  # the hook has heard the server's time a moment ago
            orchestration_hook.wait(orchestration_hook.start(workflow.id, run_key="once").id, timeout=30)
            orchestration_hook.run_once(plain.id, run_key="2", store=MemoryRunStore(), timeout=30, first_attempt=True)
        orchestration_server.paid("merchants:1", 1250, "EUR/2", times=2)

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
    result.assert_outcomes(passed=8)


FENCE = """
    import asyncio
    from orchestration_integrations import AsyncOrchestrationHttpHook, ConfigurationError, OrchestrationHttpHook
    from orchestration_integrations.testing import server_for_tests

    REAL = "http://payments.example:8443/api/orchestration"

    def refused(**options):
        with OrchestrationHttpHook(**options) as hook, pytest.raises(ConfigurationError) as caught:
            hook.list_workflows()
        return str(caught.value)
"""


def test_no_hook_of_a_test_reaches_another_machine(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for a call nor for a token, blocking or not, whatever proxy stands in the environment."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        for variable in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        result = ended(
            pytester,
            FENCE
            + """
    def test_an_address_of_its_own(orchestration_server):
        text = refused(base_url=REAL)
        assert text.startswith("http://payments.example:8443: nothing was sent: a server for tests")
        assert "@pytest.mark.orchestration_server(allow=['http://payments.example:8443'])" in text

    def test_a_token(orchestration_server):
        url, token_url = orchestration_server.url, "http://login.example/token"
        text = refused(base_url=url, client_id="me", client_secret="secret-secret", token_url=token_url)
        assert text.startswith("http://login.example: nothing was sent")
        assert orchestration_server.calls() == ()

    def test_asynchronous(orchestration_server):
        async def ask():
            async with AsyncOrchestrationHttpHook(base_url=REAL) as hook:
                with pytest.raises(ConfigurationError, match="nothing was sent"):
                    await hook.list_workflows()
        asyncio.run(ask())

    def test_in_a_block():
        with server_for_tests():
            refused(base_url=REAL)

    @pytest.mark.orchestration_server(allow=["http://other.example", "http://payments.example:8442"])
    def test_another_one_is_allowed(orchestration_server):
        refused(base_url=REAL)
    """,
        )
        result.assert_outcomes(passed=5)
        proxy.setblocking(False)
        with pytest.raises(BlockingIOError):
            proxy.accept()


def test_an_address_that_a_test_allows_is_reached(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the proxy on the way to it, which answers in its place; afterwards nobody is kept from anything."""
    asked: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = b'{"cursor": {"hasMore": false, "pageSize": 15, "data": []}}'
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        for variable in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.server_port}")
        result = ended(
            pytester,
            FENCE
            + """
    @pytest.mark.orchestration_server(allow=["http://payments.example:8443"])
    def test_allowed(orchestration_server):
        with OrchestrationHttpHook(base_url=REAL) as hook:
            assert list(hook.list_workflows()) == []
        with server_for_tests():  # which does not allow it
            refused(base_url=REAL)
        with OrchestrationHttpHook(base_url=REAL) as hook:
            assert list(hook.list_workflows()) == []

    def test_in_a_block():
        with server_for_tests(allow=["http://payments.example:8443"]), OrchestrationHttpHook(base_url=REAL) as hook:
            hook.list_workflows()

    def test_without_a_server():
        with OrchestrationHttpHook(base_url=REAL) as hook:
            hook.list_workflows()
    """,
        )
        proxy.shutdown()
    result.assert_outcomes(passed=3)
    assert [one.partition("?")[0] for one in asked] == [
        "http://payments.example:8443/api/orchestration/v2/workflows"
    ] * 4


def test_a_marker_that_nobody_follows_fails_its_test(pytester: pytest.Pytester) -> None:
    result = ended(
        pytester,
        """
    import unittest
    from orchestration_integrations.testing import server_for_tests

    @pytest.fixture
    def own():
        with server_for_tests() as server:
            yield server

    skips = pytest.mark.orchestration_server(time="skip")

    @skips
    def test_by_a_block():
        with server_for_tests():
            pass

    @skips
    def test_by_a_fixture_with_a_block(own):
        pass

    @pytest.mark.orchestration_generation(1)
    def test_generation(own):
        assert own.core.generation == 2

    class TestOfUnittest(unittest.TestCase):
        @skips
        def test_by_a_block(self):
            with server_for_tests():
                pass

    @skips
    class TestOfAClass:
        def test_by_a_block(self):
            with server_for_tests(3):
                pass

        def test_that_needs_no_server(self):
            pass

        def test_that_says_it(self):
            with server_for_tests(time="real"):
                pass

    @skips
    @pytest.mark.skip
    def test_skipped():
        pass
    """,
    )
    result.assert_outcomes(failed=5, passed=2, skipped=1)
    result.stdout.fnmatch_lines(
        [
            "nobody followed the marker orchestration_server: the test used no fixture orchestration_server. *",
            "nobody followed the marker orchestration_generation: *",
            "nobody followed the marker orchestration_server of the test's class or module: server_for_tests was "
            "started without time=. *",
        ]
    )


def test_markers_reach_whoever_asks_for_the_fixture(pytester: pytest.Pytester) -> None:
    result = ended(
        pytester,
        """
    import unittest

    @pytest.fixture
    def own(orchestration_server):
        return orchestration_server

    skips = pytest.mark.orchestration_server(time="skip")
    three = pytest.mark.orchestration_generation(3)
    first_and_third = pytest.mark.orchestration_generation(1, 3)

    @skips
    @first_and_third
    def test_by_name(request):
        server = request.getfixturevalue("orchestration_server")
        assert server.time == "skip"
        print("by name", server.core.generation)

    @skips
    @first_and_third
    def test_by_an_own_fixture(own):
        assert own.time == "skip"
        print("by own", own.core.generation)

    class TestOfUnittest(unittest.TestCase):
        @pytest.fixture(autouse=True)
        def given(self, orchestration_server):
            self.server = orchestration_server

        @skips
        @three
        def test_by_an_attribute(self):
            assert (self.server.time, self.server.core.generation) == ("skip", 3)

    @first_and_third
    class TestOfAClass:
        @pytest.mark.xfail(raises=pytest.UsageError, strict=True)
        def test_by_name(self, request):
            request.getfixturevalue("orchestration_server")
    """,
        "-s",
    )
    result.assert_outcomes(passed=5, xfailed=1)
    assert [line[-1] for line in result.outlines if "by name " in line or "by own " in line] == ["1", "3", "1", "3"]


def test_the_dice_are_the_same_each_time_and_a_failure_names_their_seed(pytester: pytest.Pytester) -> None:
    test = """
    from orchestration_integrations.testing import server_for_tests

    def throw(server):
        return [server.core.rng.random() for _ in range(3)]

    def test_own(orchestration_server):
        print("dice own", throw(orchestration_server))
        print("ids", orchestration_server.core.engine.agenda.uuid())
        assert False

    def test_another(orchestration_server):
        print("dice another", throw(orchestration_server))

    def test_by_a_block():
        with server_for_tests() as server:
            print("dice block", throw(server))
        assert False

    @pytest.mark.orchestration_server(seed=7)
    def test_given(orchestration_server):
        with server_for_tests(seed=7) as server:
            assert throw(orchestration_server) == throw(server)
        assert False
    """
    first, second = ended(pytester, test, "-s"), ended(pytester, test, "-s")
    first.assert_outcomes(failed=3, passed=1)
    first.stdout.fnmatch_lines(["*- orchestration server -*", "seed=*: @pytest.mark.orchestration_server(seed=*"])
    first.stdout.fnmatch_lines(["seed=7: @pytest.mark.orchestration_server(seed=7) or server_for_tests(seed=7) *"])
    dice = [[line for line in one.outlines if "dice " in line and "print" not in line] for one in (first, second)]
    assert dice[0] == dice[1]
    assert len({line.split("[")[1] for line in dice[0]}) == 3
    ids = [[line for line in one.outlines if "ids " in line and "print" not in line] for one in (first, second)]
    assert ids[0] != ids[1]  # a record that outlives the test knows none of the runs of the next one


@pytest.mark.parametrize(
    "options", [{"patience": -1}, {"patience": float("nan")}, {"seed": True}, {"allow": ["payments"]}, {"time": "fast"}]
)
def test_an_option_that_cannot_be_meant_is_refused(options: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(options)) + " must|is no address"):
        with server_for_tests(**options):
            pass

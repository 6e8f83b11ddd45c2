"""Odd servers, odd environments, odd callers: what once went wrong, or would have."""

import asyncio
import gc
import json
import logging
import os
import time
import traceback
from datetime import datetime, timezone

import pytest

from orchestration_integrations import (
    AmbiguousRunError,
    AsyncOrchestrationHttpHook,
    AuthenticationError,
    ConfigurationError,
    EventNotDeliveredError,
    InstanceFailedError,
    NotFoundError,
    OrchestrationError,
    OrchestrationHttpHook,
    RateLimitedError,
    ServerError,
    Settings,
    TransportError,
    ValidationError,
    telemetry,
)
from orchestration_integrations.procedures.gate import gated
from orchestration_integrations.server import Core, EmbeddedServer, InProcessTransport, VirtualClock
from tests.conftest import open_hook
from tests.scripted import ScriptedServer, cut, drip, instance, respond, stall

WORKFLOW = {"data": {"id": "w", "config": {"stages": [{"wait_event": {"event": "x"}}]}}}
LONG_AGO = datetime(2020, 1, 1, tzinfo=timezone.utc)
PAYMENT = {
    "send": {
        "source": {"account": {"id": "world"}},
        "destination": {"account": {"id": "shop"}},
        "amount": {"amount": "1", "asset": "USD/2"},
    }
}


def posts(server):
    return [got for got in server.got if got.method == "POST" and "token" not in got.target]


@pytest.mark.parametrize("path", ["", "/apé", '/a"{b}', "/a%20b"])
def test_a_stalled_run_is_never_taken_for_unsent(kind, path):
    def script(got):
        if got.method == "POST":
            return stall(1)
        return respond(200, WORKFLOW if "/workflows" in got.target else {"data": []})

    with ScriptedServer(script) as server:
        hook = open_hook(kind, Settings(base_url=server.url + path, timeout=0.2))
        with pytest.raises(AmbiguousRunError):
            hook.run_workflow("w")
        assert len(posts(server)) == 1
        with pytest.raises(AmbiguousRunError):
            hook.start("w", timeout=1.5)
        assert len(posts(server)) == 2


def test_a_stalled_token_is_never_taken_for_a_sent_run(kind, clock):
    def script(got):
        return stall(1) if "token" in got.target else respond(201, instance())

    with ScriptedServer(script) as server:
        settings = Settings(base_url=server.url, client_id="c", client_secret="s", timeout=0.2, retry_budget=0.3)
        with pytest.raises(TransportError) as caught:
            open_hook(kind, settings).run_workflow("w")
        assert caught.value.before_send
        assert posts(server) == []


@pytest.mark.parametrize("when", ["before", "within"])
def test_a_gateways_404_never_hides_runs(when):
    clock = VirtualClock()
    core = Core(3, clock=clock, seed=1)
    hook = OrchestrationHttpHook(
        Settings(base_url="http://orchestration"), clock=clock, transport=InProcessTransport(core, clock)
    )
    workflow = hook.create_workflow(gated({"name": "d", "stages": [PAYMENT]}))
    keys = [f"key-{number}" for number in range(131)]
    for key in keys:
        hook.start(workflow.id, run_key=key, first_attempt=True)
    if when == "before":
        core.fault("list_workflows", "html", 1, code=404)
        hook.list_workflows()
    else:
        core.fault("list_instances", "html", 1, code=404, skip=1)
    for key in keys[::13] + keys[-3:]:
        hook.start(workflow.id, run_key=key)
    released = [one["event"] for one in core.record().released]
    assert len(released) == len(set(released)) == 131
    assert len(hook.list_instances(workflow.id)) == 131


def test_a_wait_that_comes_too_late_still_looks(kind):
    with ScriptedServer(lambda got: respond(200, instance(terminated=True))) as server:
        result = open_hook(kind, base_url=server.url).wait("i", deadline=time.time() - 100)
        assert result.instance.state == "succeeded"


def failing_on_generation_1(seconds, **row):
    moved = {
        "name": "CreateTransaction",
        "input": {"CreateTransaction": {"Ledger": "default"}},
        "output": {"CreateTransaction": {"data": {"id": 1, "postings": []}}},
        "terminated": True,
        "startedAt": "2026-01-01T00:00:00Z",
        "terminatedAt": f"2026-01-01T00:00:{seconds}Z",
    }
    stage = {
        "stage": 0,
        "startedAt": "2026-01-01T00:00:00Z",
        "terminatedAt": "2026-01-01T00:01:00Z",
        "error": "no",
        **row,
    }

    def script(got):
        if "/stages/" in got.target:
            return respond(200, {"data": [moved]})
        if got.target.endswith("/history"):
            return respond(200, {"data": [{"name": "RunSend", "input": {}, "terminated": True, "error": "no"}]})
        return respond(200, instance(terminated=True, error="no", status=[stage]))

    return script


def test_a_failed_stage_of_generation_1_may_have_paid_twice_too(kind, caplog):
    with ScriptedServer(failing_on_generation_1(14)) as server:
        with pytest.raises(InstanceFailedError, match="check the ledger") as caught:
            open_hook(kind, base_url=server.url).wait("i")
    assert [one.maybe_repeated for one in caught.value.moved.transactions] == [True]
    assert "check the ledger" in caplog.text
    for script in (failing_on_generation_1(14, temporalRunID="t"), failing_on_generation_1("05")):
        with ScriptedServer(script) as server, pytest.raises(InstanceFailedError) as caught:
            open_hook(kind, base_url=server.url).wait("i")
        assert [one.maybe_repeated for one in caught.value.moved.transactions] == [False]


def test_an_event_that_was_taken_is_delivered_though_its_row_stays_open(kind):
    row = {"stage": 0, "startedAt": "2026-01-01T00:00:00Z"}
    state = {"sent": False}

    def script(got):
        if got.method == "POST":
            state["sent"] = True
            return respond(204)
        if got.target.startswith("/workflows"):
            return respond(200, WORKFLOW)
        if got.target.endswith("/history"):
            return respond(200, {"data": [{"name": "RunWaitEvent", "input": {"event": "x"}, "terminated": False}]})
        return respond(200, instance(terminated=state["sent"], status=[row]))

    with ScriptedServer(script) as server:
        hook = open_hook(kind, base_url=server.url)
        assert hook.send_event_when_ready("i", "x", timeout=5).state == "succeeded"
        with pytest.raises(EventNotDeliveredError) as caught:
            hook.send_event_when_ready("i", "x", timeout=5)
        assert caught.value.reason == "instance_ended"
        assert len(posts(server)) == 1


def test_no_submit_is_begun_without_time_for_its_answer(kind):
    answers = [respond(429, Retry_After="1"), respond(201, instance())]

    def script(got):
        return respond(200, WORKFLOW) if got.method == "GET" else answers.pop(0)

    with ScriptedServer(script) as server:
        with pytest.raises((TransportError, ServerError, Exception)) as caught:
            open_hook(kind, base_url=server.url).start("w", timeout=1.1)
        assert not isinstance(caught.value, AmbiguousRunError)
        assert len(posts(server)) == 1


def test_callbacks_and_listeners_cannot_turn_a_run_into_nothing(clock):
    def stops(event):
        raise StopIteration

    running = respond(200, instance(status=[{"stage": 0, "startedAt": "2026-01-01T00:00:00Z"}]))
    with ScriptedServer(lambda got: running if got.method == "GET" else respond(201, instance())) as server:
        with OrchestrationHttpHook(base_url=server.url, clock=clock) as hook:
            with pytest.raises(StopIteration):
                hook.wait("i", on_stage=stops)

            def breaks(counter, attributes):
                raise RuntimeError("listener")

            end = telemetry.subscribe(breaks)
            try:
                assert hook.run_workflow("w").id == "i"
            finally:
                end()


def test_a_choice_that_would_not_be_stored_is_not_released():
    async def store(instance_id):
        pass

    with EmbeddedServer(2) as server, OrchestrationHttpHook(base_url=server.url) as hook:
        workflow = hook.ensure_workflow({"name": "d", "stages": [PAYMENT]}, gate=True).workflow
        with pytest.raises(TypeError, match="plain function"):
            hook.start(workflow.id, on_chosen=store)
        assert server.record().released == []


@pytest.mark.parametrize("token", ["with space", "tab\tbed", "line\nbroken", "é", ""])
def test_a_token_that_no_header_can_carry_is_refused_unseen(kind, clock, token):
    with ScriptedServer(lambda got: respond(200, {"access_token": token, "expires_in": 60})) as server:
        settings = Settings(base_url=server.url, client_id="c", client_secret="s", retry_budget=20)
        with pytest.raises(ServerError, match="without a usable token") as caught:
            open_hook(kind, settings, clock=clock).get_instance("i")
        assert not token or token not in str(caught.value)


def test_what_a_server_echoes_is_masked(kind):
    def script(got):
        if "token" in got.target:
            return respond(200, {"access_token": "tok-SECRET", "expires_in": 60})
        return respond(400, {"errorCode": "X", "errorMessage": f"bad header {got.headers['authorization']}"})

    with ScriptedServer(script) as server:
        settings = Settings(base_url=server.url, client_id="c", client_secret="s3cret")
        with pytest.raises(ValidationError) as caught:
            open_hook(kind, settings).get_instance("i")
        assert "bad header" in str(caught.value)
        assert "SECRET" not in str(caught.value) + repr(caught.value.__dict__)


TOKEN = "s3cr3t-TOKEN-abcdef0123456789"
ECHOES = {
    "a header": b"HTTP/1.1 200 OK\r\nBad Header %s\r\n\r\n",
    "the status line": b"%s\r\n\r\n",
    "across the cut of a message": b"HTTP/1.1 400 X\r\nContent-Length: 544\r\n\r\n" + b"x" * 490 + b"%s" + b"y" * 24,
}


@pytest.mark.parametrize("where", ECHOES)
@pytest.mark.parametrize("whose", ["the server", "the token endpoint"])
def test_an_echo_is_masked_wherever_it_stands(kind, where, whose):
    """h11 quotes a line that it cannot read; a message is cut, and must not be cut amid a secret."""

    def script(got):
        if whose == "the server" and "token" in got.target:
            return respond(200, {"access_token": TOKEN, "expires_in": 60})

        def echo(peer, _):
            peer.sendall(ECHOES[where] % TOKEN.encode())
            peer.close()

        return echo

    with ScriptedServer(script) as server:
        settings = Settings(base_url=server.url, client_id="c", client_secret=TOKEN, retry_budget=0.5)
        with pytest.raises(OrchestrationError) as caught:
            open_hook(kind, settings).get_instance("i")
    told = "".join(traceback.format_exception(caught.value))
    assert TOKEN[:20] not in told + repr(vars(caught.value))


def test_an_echo_in_the_error_of_a_run_is_masked(kind):
    ended = {"terminated": True, "terminatedAt": "2026-01-01T00:00:01Z", "error": f"refused {TOKEN}"}

    with ScriptedServer(lambda got: respond(200, instance(**ended))) as server:
        found = open_hook(kind, base_url=server.url, token=TOKEN).get_instance("i")
    assert found.error == "refused **********"
    assert TOKEN not in repr(found)


def test_a_dripping_refusal_keeps_the_time_out(kind):
    def dripping_401(peer, got):
        peer.sendall(b"HTTP/1.1 401 X\r\nContent-Length: 1000\r\n\r\n")
        drip(0.05, 200)(peer, got)

    def script(got):
        return respond(200, {"access_token": "t"}) if "token" in got.target else dripping_401

    with ScriptedServer(script) as server:
        settings = Settings(base_url=server.url, client_id="c", client_secret="s", timeout=0.5, retry_budget=0.5)
        begun = time.monotonic()
        with pytest.raises(TransportError):
            open_hook(kind, settings).get_instance("i")
        assert time.monotonic() - begun < 4


def test_a_release_is_not_hammered(kind, clock):
    gate = {"data": {"id": "w", "config": gated({"stages": [PAYMENT]})}}

    def script(got):
        if got.target.endswith("/events"):
            return respond(429, Retry_After="5")
        if got.method == "POST":
            return respond(201, instance(createdAt=datetime.now(timezone.utc).isoformat()))
        if got.target.startswith("/workflows"):
            return respond(200, gate)
        return respond(200, instance(status=[{"stage": 0, "startedAt": "2026-01-01T00:00:00Z"}]))

    with ScriptedServer(script) as server:
        with pytest.raises(AmbiguousRunError, match="release is not confirmed"):
            open_hook(kind, base_url=server.url, clock=clock).start("w", timeout=60)
        assert len([got for got in server.got if got.target.endswith("/events")]) <= 13


def test_a_gateways_404_does_not_end_a_wait_or_a_cancel(kind, clock):
    gateway = respond(404, b"404 page not found", Content_Type="text/plain")
    for method, status in (("wait", None), ("cancel", "already_ended")):
        gets = [respond(200, instance()), gateway, respond(200, instance(terminated=True))]

        def script(got, gets=gets):
            return respond(204) if got.method == "PUT" else gets.pop(0) if len(gets) > 1 else gets[0]

        with ScriptedServer(script) as server:
            result = getattr(open_hook(kind, base_url=server.url, clock=clock), method)("i")
            assert getattr(result, "status", None) == status


def test_an_error_of_a_waiting_run_is_ambiguous(kind, clock):
    lost = respond(500, {"errorCode": "INTERNAL", "errorMessage": "workflow not found for ID: x"})
    with ScriptedServer(lambda got: lost if got.method == "POST" else respond(200, {"data": []})) as server:
        with pytest.raises(AmbiguousRunError):
            open_hook(kind, base_url=server.url, clock=clock).run_workflow("w", wait=True)
        assert len(posts(server)) == 1


def test_what_was_chosen_needs_its_key(kind):
    gate = {"data": {"id": "w", "config": gated({"stages": [PAYMENT]})}}
    with ScriptedServer(lambda got: respond(200, gate)) as server:
        with pytest.raises(ValidationError) as caught:
            open_hook(kind, base_url=server.url).start("w", chosen="i")
        assert caught.value.path == "run_key"
        assert posts(server) == []


def test_a_refused_read_names_the_instance(kind):
    with ScriptedServer(lambda got: respond(403)) as server:
        with pytest.raises(AuthenticationError, match="instance i-17"):
            open_hook(kind, base_url=server.url).wait("i-17")


def test_an_unlimited_wait_is_not_put_to_sleep_for_a_day(kind, clock):
    answers = [respond(429, Retry_After="86400"), respond(200, instance(terminated=True))]
    with ScriptedServer(lambda got: answers.pop(0) if len(answers) > 1 else answers[0]) as server:
        open_hook(kind, base_url=server.url, clock=clock).wait("i")
    assert max(clock.slept) <= 300


def test_absurd_dates_are_ignored_or_obeyed(kind, clock):
    absurd = "Fri, 31 Dec 9999 23:59:59 -2359"
    with ScriptedServer(lambda got: respond(200, instance(), Date=absurd)) as server:
        assert open_hook(kind, base_url=server.url, clock=clock).get_instance("i").id == "i"
    with ScriptedServer(lambda got: respond(429, Retry_After=absurd)) as server:
        with pytest.raises(RateLimitedError):
            open_hook(kind, base_url=server.url, clock=clock).get_instance("i")


def test_closed_loops_leave_nothing_behind():
    with ScriptedServer(lambda got: respond(200, instance())) as server:
        hook = AsyncOrchestrationHttpHook(base_url=server.url)
        for _ in range(3):
            asyncio.run(hook.get_instance("i"))
        gc.collect()
        before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        for _ in range(10):
            asyncio.run(hook.get_instance("i"))
        gc.collect()
        time.sleep(0.2)  # the server's ends close when it reads that ours are gone
        after = len(os.listdir("/proc/self/fd")) if before else 0
        assert after <= before + 2


def test_a_changed_server_takes_its_token_address_along():
    settings = Settings(base_url="https://a.example", client_id="c", client_secret="s")
    assert settings.with_changes(base_url="https://b.example").token_url == "https://b.example/api/auth/oauth/token"
    own = Settings(base_url="https://a.example", client_id="c", client_secret="s", token_url="https://auth.example/t")
    assert own.with_changes(base_url="https://b.example").token_url == "https://auth.example/t"


def test_odd_input_gets_this_packages_errors(kind, monkeypatch):
    itself: dict = {"stages": []}
    itself["stages"].append(itself)
    with ScriptedServer(lambda got: respond(200, instance())) as server:
        hook = open_hook(kind, base_url=server.url)
        for call in (
            lambda: hook.get_instance("x" * 70_000),
            lambda: hook.get_instance("\ud800"),
            lambda: hook.run_workflow("w", {"a": "\ud800"}),
            lambda: hook.run_workflow("w", {"\ud800": "a"}),
            lambda: hook.send_event("i", "\ud800"),
            lambda: hook.create_workflow(itself),
            lambda: hook.create_workflow({"name": "\ud800", "stages": []}),
        ):
            with pytest.raises(ValidationError):
                call()
        assert server.got == []
        monkeypatch.setenv("HTTP_PROXY", "gopher://proxy")
        monkeypatch.setenv("NO_PROXY", "")
        with pytest.raises(ConfigurationError) as caught:
            open_hook(kind, base_url="http://orchestration.invalid").get_instance("i")
        assert caught.value.field == "proxy"
    with pytest.raises(ConfigurationError):
        Settings(base_url="http://a..bé.c")


def test_a_token_may_live_for_ever(kind):
    def script(got):
        if "token" in got.target:
            return respond(200, json.dumps({"access_token": "t", "expires_in": "9" * 400}).encode())
        return respond(200, instance())

    with ScriptedServer(script) as server:
        assert open_hook(kind, base_url=server.url, client_id="c", client_secret="s").get_instance("i").id == "i"


def test_a_cancel_whose_histories_are_gone_is_no_sure_thing(kind, caplog):
    ended = instance(terminated=True, error="canceled", status=[{"stage": 0, "startedAt": "2026-01-01T00:00:00Z"}])

    def script(got):
        if got.method == "PUT":
            return respond(204)
        return respond(500) if "history" in got.target else respond(200, ended)

    with caplog.at_level(logging.INFO), ScriptedServer(script) as server:
        outcome = open_hook(kind, base_url=server.url).cancel("i")
    assert (outcome.status, outcome.moved.complete) == ("cancelled", False)
    assert [r.levelname for r in caplog.records if "cancel of instance" in r.getMessage()] == ["WARNING"]


def test_a_row_of_unknown_age_is_no_ghost_at_once(kind, clock):
    row = instance(createdAt="yesterday")
    unknown = respond(500, {"errorCode": "INTERNAL", "errorMessage": "workflow not found for ID: i"})

    def script(got):
        return unknown if got.method == "PUT" or "history" in got.target else respond(200, row)

    with ScriptedServer(script) as server:
        assert open_hook(kind, base_url=server.url, clock=clock).cancel("i", timeout=5).status == "not_confirmed"


def test_a_cut_answer_is_told_as_it_is(kind, clock):
    with ScriptedServer(lambda got: cut) as server:
        with pytest.raises(TransportError) as caught:
            open_hook(kind, Settings(base_url=server.url, retry_budget=1), clock=clock).get_instance("i")
        assert caught.value.sent


@pytest.mark.parametrize("code", [None, "NOT_FOUND"])
def test_a_listed_run_that_cannot_be_read_is_never_passed_over(kind, clock, code):
    gate = {"data": {"id": "w", "config": gated({"stages": [PAYMENT]})}}
    missing = respond(404, {"errorCode": code, "errorMessage": "no"} if code else b"404 page not found")

    def script(got):
        if got.target.startswith("/workflows"):
            return respond(200, gate)
        return respond(200, {"data": [instance()["data"]]}) if "?" in got.target else missing

    with ScriptedServer(script) as server:
        with pytest.raises(AmbiguousRunError) as caught:
            open_hook(kind, base_url=server.url, clock=clock).start("w", run_key="k", since=LONG_AGO)
        assert caught.value.candidates == ("i",)
        assert posts(server) == []


def test_a_gateways_404_on_a_retry_does_not_deny_the_earlier_run(kind, clock):
    with ScriptedServer(lambda got: respond(404, b"404 page not found")) as server:
        hook = open_hook(kind, base_url=server.url, clock=clock)
        with pytest.raises(AmbiguousRunError, match="whether an earlier one started a run"):
            hook.start("w", run_key="k")
        with pytest.raises(NotFoundError):
            hook.start("w", run_key="k", first_attempt=True)
        assert posts(server) == []


def test_a_gateways_404_makes_no_ghost(kind, clock):
    def script(got):
        if got.method == "PUT":
            return respond(204)
        return respond(404, b"404 page not found") if "history" in got.target else respond(200, instance())

    with ScriptedServer(script) as server:
        assert open_hook(kind, base_url=server.url, clock=clock).cancel("i", timeout=5).status == "not_confirmed"

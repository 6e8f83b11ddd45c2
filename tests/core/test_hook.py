"""The hook at the socket: what is sent again and what never, how long it takes, who it says it is."""

import asyncio
import json
import logging
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from orchestration_integrations import (
    AmbiguousRunError,
    AmbiguousSubmitError,
    AsyncOrchestrationHttpHook,
    AuthenticationError,
    ConfigurationError,
    MemoryRunStore,
    NotFoundError,
    OrchestrationError,
    OrchestrationHttpHook,
    RateLimitedError,
    ServerError,
    Settings,
    StateUnknownError,
    TransportError,
    ValidationError,
    telemetry,
)
from orchestration_integrations.server import EmbeddedServer
from tests.conftest import open_hook
from tests.scripted import ScriptedServer, cut, drip, instance, respond, stall

GATE = f"k~1{'0' * 16}~0"

DEFINITION = {"name": "d", "stages": [{"wait_event": {"event": "go"}}]}
WORKFLOW = {"data": {"id": "w", "config": DEFINITION, "createdAt": "2026-01-01T00:00:00Z"}}


def in_turn(*answers):
    """Each request gets the next answer; the last one repeats."""
    left = list(answers)
    lock = threading.Lock()

    def script(got):
        with lock:
            return left.pop(0) if len(left) > 1 else left[0]

    return script


# ---- what may be repeated --------------------------------------------------------------------------

GET_TROUBLE = [
    cut,
    respond(502, b"<html>bad gateway</html>", Content_Type="text/html"),
    respond(503),
    respond(504),
    respond(429, Retry_After="1"),
    respond(500, {"errorCode": "INTERNAL", "errorMessage": "dial tcp: connection refused"}),
    respond(500, {"errorCode": "INTERNAL", "errorMessage": "internal server error"}),
    respond(200, b'{"data": {"id": "i", "termin'),
    respond(200, b""),
]


@pytest.mark.parametrize("trouble", GET_TROUBLE)
def test_a_read_survives_trouble(kind, clock, trouble):
    with ScriptedServer(in_turn(trouble, trouble, respond(200, instance()))) as server:
        hook = open_hook(kind, base_url=server.url, clock=clock)
        assert hook.get_instance("i").id == "i"
        assert len(server.got) == 3


def test_an_abort_is_repeated_like_a_read(kind, clock):
    with ScriptedServer(in_turn(cut, respond(503), respond(204))) as server:
        open_hook(kind, base_url=server.url, clock=clock).abort_instance("i")
        assert [got.method for got in server.got] == ["PUT"] * 3


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (respond(500, {"errorCode": "INTERNAL", "errorMessage": "Instance not found"}), NotFoundError),
        (respond(404, {"errorCode": "NOT_FOUND", "errorMessage": "x"}), NotFoundError),
        (respond(400, {"errorCode": "VALIDATION", "errorMessage": "x"}), ValidationError),
        (respond(401), AuthenticationError),
        (respond(403), AuthenticationError),
        (respond(302, Location="http://elsewhere/"), ServerError),
    ],
)
def test_a_final_answer_is_not_asked_for_again(kind, clock, answer, error):
    with ScriptedServer(lambda got: answer) as server:
        with pytest.raises(error):
            open_hook(kind, base_url=server.url, clock=clock).get_instance("i")
        assert len(server.got) == 1


def test_an_unexplained_500_is_asked_a_few_times_and_no_more(kind, clock):
    with ScriptedServer(lambda got: respond(500)) as server:
        with pytest.raises(ServerError):
            open_hook(kind, base_url=server.url, clock=clock).get_instance("i")
        assert len(server.got) == 4


SUBMITS = [
    ("run_workflow", ("w", {"a": "b"}), AmbiguousRunError),
    ("create_workflow", (DEFINITION,), AmbiguousSubmitError),
    ("send_event", ("i", "go"), AmbiguousSubmitError),
    ("delete_workflow", ("w",), AmbiguousSubmitError),
    ("create_trigger", ("SAVED_PAYMENT", "w"), AmbiguousSubmitError),
]
LOST = [
    cut,
    respond(502, b"<html>"),
    respond(500),
    respond(500, {"errorCode": "INTERNAL", "errorMessage": "context deadline exceeded"}),
    respond(503),
    respond(504),
]


def submits(server):
    return [got for got in server.got if got.method in ("POST", "DELETE")]


@pytest.mark.parametrize(("method", "arguments", "error"), SUBMITS)
@pytest.mark.parametrize("trouble", LOST)
def test_an_ambiguous_submit_is_sent_once(kind, clock, method, arguments, error, trouble):
    def script(got):
        return trouble if got.method in ("POST", "DELETE") else respond(200, {"data": []})

    with ScriptedServer(script) as server:
        with pytest.raises(AmbiguousSubmitError) as caught:
            getattr(open_hook(kind, base_url=server.url, clock=clock), method)(*arguments)
        assert type(caught.value) is error
        assert len(submits(server)) == 1


def test_a_submit_whose_answer_cannot_be_read_is_ambiguous(kind, clock):
    def script(got):
        return respond(201, b'{"data": {') if got.method == "POST" else respond(200, {"data": []})

    with ScriptedServer(script) as server:
        with pytest.raises(AmbiguousRunError):
            open_hook(kind, base_url=server.url, clock=clock).run_workflow("w")
        assert len(submits(server)) == 1


def test_a_submit_that_stalls_is_ambiguous_and_names_candidates(kind):
    young = instance(id="mine", createdAt="2999-01-01T00:00:00Z")["data"]
    old = instance(id="old", createdAt="2020-01-01T00:00:00Z")["data"]

    def script(got):
        return stall(2) if got.method == "POST" else respond(200, {"data": [young, old]})

    with ScriptedServer(script) as server:
        with pytest.raises(AmbiguousRunError) as caught:
            open_hook(kind, base_url=server.url, timeout=0.3).run_workflow("w")
        assert caught.value.candidates == ("mine",)
        assert caught.value.workflow_id == "w"
        assert caught.value.window[0] <= caught.value.window[1]
        assert len(submits(server)) == 1


@pytest.mark.parametrize(("method", "arguments", "error"), SUBMITS)
def test_a_submit_that_was_surely_not_taken_is_repeated(kind, clock, method, arguments, error):
    done = (
        respond(204)
        if method in ("send_event", "delete_workflow")
        else respond(201, {"data": {**WORKFLOW["data"], **instance()["data"], "event": "SAVED_PAYMENT"}})
    )
    with ScriptedServer(in_turn(respond(429, Retry_After="2"), respond(429), done)) as server:
        getattr(open_hook(kind, base_url=server.url, clock=clock), method)(*arguments)
        assert len(server.got) == 3
    assert max(clock.slept) >= 2.0


def test_a_refused_connection_is_tried_until_the_budget_ends(kind, clock):
    with ScriptedServer(lambda got: cut) as server:
        url = server.url
    hook = open_hook(kind, Settings(base_url=url, retry_budget=20), clock=clock)
    with pytest.raises(TransportError) as caught:
        hook.run_workflow("w")
    assert caught.value.sent is False
    assert 5 < sum(clock.slept) < 20


@pytest.mark.parametrize("call", [("get_instance", "i"), ("abort_instance", "i")], ids=lambda call: call[0])
def test_a_last_try_that_never_left_does_not_say_that_none_did(kind, clock, call):
    def script(got):
        server.refuse()
        return cut

    with ScriptedServer(script) as server:
        with pytest.raises(TransportError) as caught:
            getattr(open_hook(kind, Settings(base_url=server.url, retry_budget=20), clock=clock), call[0])(call[1])
        assert len(server.got) == 1
    assert len(clock.slept) > 1
    assert caught.value.sent
    assert "could not be reached" not in str(caught.value)


def test_retry_after_beyond_the_budget_ends_at_once(kind, clock):
    with ScriptedServer(lambda got: respond(429, Retry_After="3600")) as server:
        with pytest.raises(RateLimitedError) as caught:
            open_hook(kind, base_url=server.url, clock=clock).get_instance("i")
        assert caught.value.retry_after == 3600.0
        assert len(server.got) == 1
    assert clock.slept == []


def test_submits_go_over_fresh_connections_and_reads_share_one(clock):
    answers = {"GET": respond(200, instance()), "POST": respond(201, instance())}
    with ScriptedServer(lambda got: answers[got.method]) as server:
        with OrchestrationHttpHook(base_url=server.url) as hook:
            for _ in range(3):
                hook.get_instance("i")
                hook.run_workflow("w")
        reads = {got.connection for got in server.got if got.method == "GET"}
        runs = {got.connection for got in server.got if got.method == "POST"}
        assert (len(reads), len(runs)) == (1, 3)


def test_a_stale_keep_alive_connection_costs_a_read_nothing(kind, clock):
    def script(got):
        def once(peer, request):
            respond(200, instance())(peer, request)
            peer.close()

        return once

    with ScriptedServer(script) as server:
        with OrchestrationHttpHook(base_url=server.url, clock=clock) as hook:
            for _ in range(3):
                hook.get_instance("i")


def test_no_redirect_is_followed(kind, clock):
    with ScriptedServer(lambda got: respond(307, Location="/other")) as server:
        with pytest.raises(ServerError, match="redirect"):
            open_hook(kind, base_url=server.url, clock=clock).run_workflow("w")
        assert [got.target for got in server.got] == ["/workflows/w/instances"]


# ---- what is sent ----------------------------------------------------------------------------------


def test_a_run_carries_a_content_length_and_its_variables(kind):
    with ScriptedServer(lambda got: respond(201, instance(workflowID="a/b"))) as server:
        open_hook(kind, base_url=server.url + "/api/orchestration/").run_workflow("a/b", {"n": 5, "yes": True})
        (got,) = server.got
    assert got.target == "/api/orchestration/workflows/a%2Fb/instances"
    assert got.headers["content-length"] == str(len(got.body))
    assert "transfer-encoding" not in got.headers
    assert json.loads(got.body) == {"n": "5", "yes": "true"}
    assert got.headers["user-agent"].startswith("orchestration-integrations/")
    assert "authorization" not in got.headers


def test_bad_input_sends_nothing(kind):
    with ScriptedServer(lambda got: respond(500)) as server:
        hook = open_hook(kind, base_url=server.url)
        for method, arguments in [
            ("run_workflow", ("w", {"x": None})),
            ("run_workflow", ("w", {"x": 1.5})),
            ("run_workflow", ("",)),
            ("run_workflow", (None,)),
            ("get_instance", (None,)),
            ("get_instance", ("",)),
            ("get_stage_history", ("i", -1)),
            ("get_stage_history", ("i", "0")),
            ("create_workflow", ({"stages": [{}]},)),
            ("send_event", ("i", "")),
            ("create_trigger", ("", "w")),
            ("list_instances", ("",)),
        ]:
            with pytest.raises(ValidationError) as caught:
                getattr(hook, method)(*arguments)
            assert caught.value.path
        for call in (
            lambda: hook.wait("i", timeout=-1),
            lambda: hook.wait("i", poll_interval=0),
            lambda: hook.wait("i", timeout=1, deadline=5.0),
            lambda: hook.wait("i", fail_after_attempts=0),
            lambda: hook.wait(None),
            lambda: hook.cancel(None),
            lambda: hook.cancel("i", timeout=None),
            lambda: hook.send_event_when_ready("i", "x", stage=-1),
            lambda: hook.start("w", run_key=""),
            lambda: hook.start("w", {"runKey": "a"}, run_key="a"),
            lambda: hook.run_once("w", run_key=" order-17", store=MemoryRunStore(), first_attempt=True),
            lambda: hook.run_once("w", run_key="order\n17", store=MemoryRunStore(), first_attempt=True),
            lambda: hook.send_event_when_ready("i", f"go:{GATE}"),
            lambda: hook.send_event_when_ready("i", f"go:{GATE}:3", stage=2),
            lambda: hook.start("w", since="yesterday"),
            lambda: hook.ensure_workflow({"stages": [{"delay": {}}]}),
        ):
            with pytest.raises(ValidationError) as caught:
                call()
            assert caught.value.path
        assert server.got == []


def test_waiting_at_the_server_is_never_trusted(kind):
    early = respond(201, instance())
    failed = respond(200, instance(terminated=True, error="boom"))
    with ScriptedServer(lambda got: early if got.method == "POST" else failed) as server:
        result = open_hook(kind, base_url=server.url).run_workflow("w", wait=True)
        assert server.got[0].target.endswith("/instances?wait=true")
    assert (result.state, result.error) == ("failed", "boom")


def test_a_failure_hidden_by_the_waiting_answer_is_found(kind, clock):
    hidden = respond(201, instance(terminated=True))
    with ScriptedServer(lambda got: hidden if got.method == "POST" else respond(503)) as server:
        with pytest.raises(StateUnknownError) as caught:
            open_hook(kind, base_url=server.url, clock=clock).run_workflow("w", wait=True)
    assert caught.value.instance_id == "i"


def test_lists_follow_next_alone_and_drop_repeats(kind):
    def page(ids, following=None, more=True):
        rows = [instance(id=one)["data"] for one in ids]
        return respond(200, {"cursor": {"hasMore": more, "next": following, "data": rows}})

    pages = {None: page("abc", "n1", more=False), "n1": page("cd", "n2"), "n2": page("da", more=False)}

    def script(got):
        query = got.target.partition("?")[2]
        return pages[query.removeprefix("cursor=")] if query.startswith("cursor=") else pages[None]

    with ScriptedServer(script) as server:
        rows = open_hook(kind, base_url=server.url).list_instances("w")
        assert [got.target for got in server.got] == [
            "/v2/instances?pageSize=100&workflowID=w",
            "/v2/instances?cursor=n1",
            "/v2/instances?cursor=n2",
        ]
    assert [row.id for row in rows] == list("abcd")


def test_a_repeating_cursor_stops_loudly(kind):
    looping = respond(200, {"cursor": {"hasMore": True, "next": "again", "data": []}})
    with ScriptedServer(lambda got: looping) as server:
        with pytest.raises(ServerError, match="never end"):
            open_hook(kind, base_url=server.url).list_workflows()
        assert len(server.got) == 2


def test_lists_fall_back_to_v1(kind):
    def script(got):
        if got.target.startswith("/v2"):
            return respond(404, b"404 page not found", Content_Type="text/plain")
        return respond(200, {"data": [instance(id="a")["data"]]})

    with ScriptedServer(script) as server:
        hook = open_hook(kind, base_url=server.url)
        assert [row.id for row in hook.list_instances(running=True)] == ["a"]
        assert [row.id for row in hook.list_instances()] == ["a"]
        assert [got.target.partition("?")[0] for got in server.got] == ["/v2/instances", "/instances", "/instances"]
        assert "running=true" in server.got[1].target


# ---- how long it takes -----------------------------------------------------------------------------


def test_a_stall_ends_at_the_timeout(kind, clock):
    with ScriptedServer(lambda got: stall(5)) as server:
        hook = open_hook(kind, Settings(base_url=server.url, timeout=0.3, retry_budget=0.3))
        begun = time.monotonic()
        with pytest.raises(TransportError):
            hook.get_instance("i")
        assert time.monotonic() - begun < 2


def test_a_dripping_body_ends_at_the_timeout(kind):
    with ScriptedServer(lambda got: drip(0.05, 100)) as server:
        hook = open_hook(kind, Settings(base_url=server.url, timeout=0.4, retry_budget=0.4))
        begun = time.monotonic()
        with pytest.raises(TransportError):
            hook.get_instance("i")
        assert time.monotonic() - begun < 2


def test_an_interrupt_goes_through_at_once_and_is_never_retried(clock):
    class Interrupt(BaseException):
        pass

    calls = []

    def interrupt(seconds):
        calls.append(seconds)
        raise Interrupt

    clock.sleep = interrupt
    with ScriptedServer(lambda got: respond(503)) as server:
        with pytest.raises(Interrupt):
            OrchestrationHttpHook(base_url=server.url, clock=clock).get_instance("i")
        assert (len(server.got), len(calls)) == (1, 1)


def test_cancelling_a_task_during_a_pause_is_not_retried():
    async def main():
        with ScriptedServer(lambda got: respond(503, Retry_After="30")) as server:
            hook = AsyncOrchestrationHttpHook(base_url=server.url)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(hook.get_instance("i"), 0.3)
            await hook.close()
            assert len(server.got) == 1

    asyncio.run(main())


# ---- many at once, many loops ----------------------------------------------------------------------


def test_fifty_calls_share_a_small_pool(kind):
    with EmbeddedServer(2) as server:
        settings = Settings(base_url=server.url, max_connections=1)
        if kind == "sync":
            with OrchestrationHttpHook(settings) as hook, ThreadPoolExecutor(50) as pool:
                assert len(set(pool.map(lambda _: hook.get_server_info().version, range(50)))) == 1
        else:

            async def main():
                async with AsyncOrchestrationHttpHook(settings) as hook:
                    infos = await asyncio.gather(*[hook.get_server_info() for _ in range(50)])
                    assert len(infos) == 50

            asyncio.run(main())


def test_one_async_hook_serves_several_loops_in_turn():
    with EmbeddedServer(2, token="geheim") as server:
        hook = AsyncOrchestrationHttpHook(base_url=server.url, client_id="c", client_secret="geheim")
        for _ in range(3):
            assert asyncio.run(hook.get_server_info()).version


def test_closing_twice_is_fine_and_a_later_call_opens_anew():
    with EmbeddedServer(2) as server:
        hook = OrchestrationHttpHook(base_url=server.url)
        hook.get_server_info()
        hook.close()
        hook.close()
        assert hook.get_server_info().version
        hook.close()


# ---- who is calling --------------------------------------------------------------------------------


class Tokens:
    """A server with a token endpoint whose tokens can be counted and revoked."""

    def __init__(self, expires_in=3600, trouble=()):
        self.issued = 0
        self.valid = set()
        self.expires_in = expires_in
        self.trouble = list(trouble)
        self.lock = threading.Lock()

    def __call__(self, got):
        if got.target.endswith("/api/auth/oauth/token"):
            with self.lock:
                if self.trouble:
                    return self.trouble.pop(0)
                self.issued += 1
                token = f"tok{self.issued}"
                self.valid.add(token)
            self.form = got.body.decode()
            return respond(200, {"access_token": token, "token_type": "bearer", "expires_in": self.expires_in})
        if got.headers.get("authorization", "").removeprefix("Bearer ") not in self.valid:
            return respond(401, {"errorCode": "UNAUTHORIZED", "errorMessage": "no"})
        return respond(201 if got.method == "POST" else 200, instance())


def credentials(server, **more):
    return Settings(base_url=server.url + "/api/orchestration", client_id="me", client_secret="geheim+/=", **more)


def test_a_later_try_without_a_token_does_not_say_that_none_left(kind, clock):
    """The first try left and was answered 503; then no token could be had any more."""
    asked = []

    def script(got):
        if got.target.endswith("/token"):
            asked.append(got)
            good = {"access_token": "t", "token_type": "bearer", "expires_in": 1}
            return respond(200, good if len(asked) == 1 else {"token_type": "bearer"})
        return respond(503)

    with ScriptedServer(script) as server:
        with pytest.raises(OrchestrationError) as caught:
            open_hook(kind, credentials(server, retry_budget=30), clock=clock).abort_instance("i")
    assert not caught.value.before_send
    assert "503" in str(caught.value)
    assert caught.value.__cause__ is not None


def test_fifty_calls_fetch_one_token(kind):
    tokens = Tokens()
    with ScriptedServer(tokens) as server:
        settings = credentials(server, max_connections=50, scope="orchestration:read orchestration:write")
        if kind == "sync":
            with OrchestrationHttpHook(settings) as hook, ThreadPoolExecutor(50) as pool:
                list(pool.map(lambda _: hook.get_instance("i"), range(50)))
        else:

            async def main():
                async with AsyncOrchestrationHttpHook(settings) as hook:
                    await asyncio.gather(*[hook.get_instance("i") for _ in range(50)])

            asyncio.run(main())
    assert tokens.issued == 1
    assert "client_secret=geheim%2B%2F%3D" in tokens.form
    assert "scope=orchestration%3Aread+orchestration%3Awrite" in tokens.form


def test_a_token_is_renewed_before_it_ends(kind, clock):
    tokens = Tokens(expires_in=100)
    with ScriptedServer(tokens) as server:
        hook = open_hook(kind, credentials(server), clock=clock)
        hook.get_instance("i")
        clock.ahead += 70
        hook.get_instance("i")
        assert tokens.issued == 1
        clock.ahead += 10
        hook.get_instance("i")
        assert tokens.issued == 2


def test_a_401_drops_only_the_token_that_was_used_and_replays_once(kind):
    tokens = Tokens()
    with ScriptedServer(tokens) as server:
        hook = open_hook(kind, credentials(server))
        hook.get_instance("i")
        tokens.valid.clear()
        hook.run_workflow("w")
        assert tokens.issued == 2
        assert [got.method for got in server.got if "token" not in got.target] == ["GET", "POST", "POST"]


def test_fifty_calls_with_a_revoked_token_fetch_one_more():
    tokens = Tokens()
    with ScriptedServer(tokens) as server:

        async def main():
            async with AsyncOrchestrationHttpHook(credentials(server, max_connections=50)) as hook:
                await hook.get_instance("i")
                tokens.valid.clear()
                await asyncio.gather(*[hook.get_instance("i") for _ in range(50)])

        asyncio.run(main())
    assert tokens.issued == 2


def test_a_second_401_and_a_403_are_final(kind):
    class Never(Tokens):
        def __call__(self, got):
            answer = super().__call__(got)
            return answer if "token" in got.target else respond(self.status)

    for status, tries in ((401, 2), (403, 1)):
        tokens = Never()
        tokens.status = status
        with ScriptedServer(tokens) as server:
            with pytest.raises(AuthenticationError):
                open_hook(kind, credentials(server)).run_workflow("w")
            assert len([got for got in server.got if "token" not in got.target]) == tries


@pytest.mark.parametrize(
    "trouble", [cut, respond(503), respond(429, Retry_After="1"), respond(500), respond(200, b"{}")]
)
def test_trouble_with_the_token_is_never_ambiguous(kind, clock, trouble):
    tokens = Tokens(trouble=[trouble, trouble])
    with ScriptedServer(tokens) as server:
        hook = open_hook(kind, credentials(server), clock=clock)
        assert hook.run_workflow("w").id == "i"
        assert len([got for got in server.got if "token" not in got.target]) == 1


def test_refused_credentials_are_final_and_nothing_is_sent_without(kind, clock):
    tokens = Tokens(trouble=[respond(401, {"error": "invalid_client", "error_description": "geheim+/= is wrong"})])
    with ScriptedServer(tokens) as server:
        with pytest.raises(AuthenticationError, match="invalid_client") as caught:
            open_hook(kind, credentials(server), clock=clock).get_instance("i")
        assert "geheim" not in str(caught.value)
        assert len(server.got) == 1


def test_a_ready_made_token_is_sent_and_its_401_is_final(kind):
    with ScriptedServer(lambda got: respond(401)) as server:
        with pytest.raises(AuthenticationError):
            open_hook(kind, base_url=server.url, token="ready").get_instance("i")
        assert [got.headers["authorization"] for got in server.got] == ["Bearer ready"]


def test_fetched_tokens_are_told_so_that_they_can_be_masked(kind):
    told = []
    with ScriptedServer(Tokens()) as server:
        open_hook(kind, credentials(server), on_token=told.append).get_instance("i")
    assert told == ["tok1"]


def test_no_secret_reaches_a_log_or_an_error(kind, clock, caplog):
    trouble = [cut, respond(503, b"geheim+/="), respond(400, {"error": "geheim+/="})]
    with caplog.at_level(logging.DEBUG), ScriptedServer(Tokens(trouble=trouble)) as server:
        with pytest.raises(AuthenticationError) as caught:
            open_hook(kind, credentials(server), clock=clock).get_instance("i")
    seen = caplog.text + str(caught.value) + repr(caught.value) + repr(caught.value.__cause__)
    assert "geheim" not in seen


# ---- TLS -------------------------------------------------------------------------------------------


def test_an_object_in_the_place_of_an_id_is_named_with_what_to_give_instead():
    """What a call returned is passed on whole by a natural slip, and it has thirty fields."""
    with EmbeddedServer(2) as server, open_hook("sync", base_url=server.url) as hook:
        ensured = hook.ensure_workflow({"name": "w", "stages": [{"delay": {"duration": "1h"}}]})
        run = hook.start(ensured.workflow.id)
        for given, said in [
            (run, "not Instance: give its .id"),
            (ensured, "not EnsuredWorkflow: give its .workflow.id"),
            ({"instance_id": run.id, "state": "running"}, "not a dict: give its ['instance_id']"),
            (None, "not None"),
        ]:
            call = hook.get_workflow if given is ensured else hook.wait
            with pytest.raises(ValidationError) as caught:
                call(given)
            assert str(caught.value).endswith(f"_id must be a non-empty string, {said}")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout",
            folder / "key.pem",
            "-out",
            folder / "cert.pem",
        ],
        check=True,
        capture_output=True,
    )
    return folder


def test_tls_is_verified_unless_told_otherwise(kind, certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    context.load_verify_locations(certificate / "cert.pem")
    context.verify_mode = ssl.CERT_OPTIONAL
    import http.server

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.peer = self.connection.getpeercert()
            data = json.dumps(instance()).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web.socket = context.wrap_socket(web.socket, server_side=True)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    url = f"https://localhost:{web.server_port}"
    try:
        with pytest.raises(ConfigurationError, match="set verify to the path") as caught:
            open_hook(kind, Settings(base_url=url, retry_budget=60)).get_instance("i")
        assert caught.value.field == "verify"
        assert open_hook(kind, base_url=url, verify=False).get_instance("i").id == "i"
        assert open_hook(kind, base_url=url, verify=str(certificate / "cert.pem")).get_instance("i").id == "i"
        pair = (str(certificate / "cert.pem"), str(certificate / "key.pem"))
        mutual = Settings(base_url=url, verify=pair[0], cert=pair)
        assert open_hook(kind, mutual).get_instance("i").id == "i"
        assert web.peer
    finally:
        web.shutdown()
        web.server_close()


def test_an_unusable_bundle_is_a_configuration_error(kind, tmp_path):
    bundle = tmp_path / "ca.pem"
    bundle.write_text("no certificate")
    with pytest.raises(ConfigurationError) as caught:
        open_hook(kind, base_url="https://localhost:1", verify=str(bundle)).get_instance("i")
    assert caught.value.field == "verify"


def test_a_proxy_of_the_environment_is_used(monkeypatch):
    with ScriptedServer(lambda got: respond(200, instance())) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "")
        with OrchestrationHttpHook(base_url="http://orchestration.invalid/api") as hook:
            assert hook.get_instance("i").id == "i"
        assert proxy.got[0].target == "http://orchestration.invalid/api/instances/i"


# ---- counting --------------------------------------------------------------------------------------


def test_calls_retries_and_ambiguous_submits_are_counted(kind, clock):
    counted = []
    end = telemetry.subscribe(lambda counter, attributes: counted.append((counter, attributes["operation"])))
    try:
        with ScriptedServer(in_turn(respond(503), respond(200, instance()), cut, respond(200, {"data": []}))) as server:
            hook = open_hook(kind, base_url=server.url, clock=clock)
            hook.get_instance("i")
            with pytest.raises(AmbiguousRunError):
                hook.run_workflow("w")
    finally:
        end()
        end()
    assert counted.count(("calls", "get_instance")) == 2
    assert counted.count(("retries", "get_instance")) == 1
    assert counted.count(("ambiguous_submits", "run_workflow")) == 1


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, orchestration_integrations as o\n"
        "assert 'httpx' not in sys.modules\n"
        "o.OrchestrationHttpHook\n"
        "assert 'httpx' in sys.modules\n"
        "heavy = {'airflow', 'prefect', 'starlette', 'uvicorn', 'yaml', 'typer', 'opentelemetry', 'tenacity'}\n"
        "bad = heavy & set(sys.modules)\n"
        "assert not bad, bad\n"
        "[getattr(o, name) for name in o.__all__]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

"""An answer counts only if it is the answer: about what was asked for, and read as a whole where it decides."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import time
from collections.abc import Callable

import httpx
import msgspec
import pytest

from orchestration_integrations import (
    AmbiguousRunError,
    AmbiguousSubmitError,
    AuthenticationError,
    CancelOutcome,
    EnsuredTrigger,
    EnsuredWorkflow,
    EventNotDeliveredError,
    Moved,
    NotFoundError,
    OrchestrationError,
    RunResult,
    ServerError,
    ServerInfo,
    Settings,
    StageEvent,
    StandingRun,
    StateUnknownError,
    Transaction,
    WaitTimeoutError,
)
from orchestration_integrations.api import decoding
from orchestration_integrations.api.errors import (
    UnreadableAnswerError,
    is_ambiguous,
    is_denial,
    is_inconclusive,
    is_passing,
)
from orchestration_integrations.api.models import Page
from orchestration_integrations.procedures.gate import gated
from orchestration_integrations.server import AsyncInProcessTransport, Core, InProcessTransport, VirtualClock
from tests.conftest import open_hook
from tests.scripted import ScriptedServer, instance, respond, stall

SIGN_IN = b"<!DOCTYPE html><html><body>Please sign in</body></html>"
PAYMENT = {
    "send": {
        "source": {"account": {"id": "world"}},
        "destination": {"account": {"id": "shop"}},
        "amount": {"amount": "100", "asset": "USD/2"},
    }
}
STARTED = "2026-01-01T00:00:00Z"
WAITS = {"data": {"id": "w", "config": {"name": "", "stages": [{"wait_event": {"event": "x"}}]}}}

Rewrite = Callable[[httpx.Request, object], bytes | None]


class Misreading(httpx.BaseTransport):
    """A server in this process, some of whose answers are replaced on the way."""

    def __init__(self, core: Core, clock: VirtualClock, rewrite: Rewrite) -> None:
        self._inner = InProcessTransport(core, clock)
        self._rewrite = rewrite

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self._inner.handle_request(request)
        body = response.read()
        return replaced(response, body, self._rewrite(request, as_json(body)))


class AsyncMisreading(httpx.AsyncBaseTransport):
    """The same for the asynchronous hook."""

    def __init__(self, core: Core, clock: VirtualClock, rewrite: Rewrite) -> None:
        self._inner = AsyncInProcessTransport(core, clock)
        self._rewrite = rewrite

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        body = await response.aread()
        return replaced(response, body, self._rewrite(request, as_json(body)))


def as_json(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError:
        return None


def replaced(response: httpx.Response, body: bytes, other: bytes | None) -> httpx.Response:
    if other is None:
        return httpx.Response(response.status_code, headers={"Date": response.headers["Date"]}, content=body)
    return httpx.Response(200, headers={"Date": response.headers["Date"]}, content=other)


class World:
    """One embedded server, and hooks to it through a way that misreads."""

    def __init__(self, kind: str, generation: int = 2) -> None:
        self.kind, self.clock = kind, VirtualClock()
        self.core = Core(generation, clock=self.clock, seed=1)

    def hook(self, rewrite: Rewrite = lambda request, body: None):
        transport = (Misreading if self.kind == "sync" else AsyncMisreading)(self.core, self.clock, rewrite)
        return open_hook(self.kind, Settings(base_url="http://server"), clock=self.clock, transport=transport)

    @property
    def paid(self) -> int:
        return len(self.core.record().money)


def is_list(request: httpx.Request) -> bool:
    return request.method == "GET" and request.url.path.endswith("/instances")


def rows_of(body: object) -> list[dict[str, object]]:
    assert isinstance(body, dict)
    return body["data"] if "data" in body else body["cursor"]["data"]


def encoded(value: object) -> bytes:
    return json.dumps(value).encode()


def changed_rows(**changes: object) -> Callable[[object], bytes]:
    return lambda body: encoded({"data": [{**row, **changes} for row in rows_of(body)]})


NO_LISTS: dict[str, Callable[[object], bytes]] = {
    "the one row itself": lambda body: encoded({"data": rows_of(body)[0]}),
    "a message": lambda body: encoded({"data": {"message": "try again"}}),
    "an empty cursor": lambda body: encoded({"cursor": {}}),
    "more rows and no rows": lambda body: encoded({"cursor": {"hasMore": True, "data": []}}),
    "null": lambda body: encoded({"data": None}),
    "a cursor of null": lambda body: encoded({"cursor": {"data": None}}),
    "ids": lambda body: encoded({"data": ["0b5d"]}),
    "an id that is null": changed_rows(id=None),
    "rows without their workflow": changed_rows(workflowID=None),
    "rows of another workflow": changed_rows(workflowID="0e7f1d7e-0000-4000-8000-000000000000"),
    "an end that is a word": changed_rows(terminated="no"),
    "a number of pages": lambda body: encoded({"cursor": {"hasMore": 1, "data": []}}),
    "another page": lambda body: encoded({"cursor": {"previous": "p", "data": []}}),
    "a page of no version": lambda body: encoded({"data": [], "hasMore": True, "next": "x"}),
    "an error beside no rows": lambda body: encoded({"data": [], "errorCode": "INTERNAL", "errorMessage": "db"}),
    "a page that does not say whether it is the last": lambda body: encoded({"cursor": {"data": []}}),
    "a cursor beside rows": lambda body: encoded({"cursor": {"hasMore": False, "data": []}, "data": rows_of(body)}),
    "a cursor of null beside no rows": lambda body: encoded({"cursor": None, "data": []}),
    "a sign-in page": lambda body: SIGN_IN,
    "nothing": lambda body: b"",
    "an empty object": lambda body: b"{}",
}


@pytest.mark.parametrize("misread", NO_LISTS)
@pytest.mark.parametrize("times", [1, 10_000])
def test_a_list_that_cannot_be_read_is_never_an_empty_one(kind, misread, times):
    world = World(kind)
    workflow = world.hook().create_workflow(gated({"name": "d", "stages": [PAYMENT]}))
    first = world.hook().start(workflow.id, run_key="order-17", first_attempt=True)
    world.hook().wait(first.id)
    assert world.paid == 1
    left = [times]

    def rewrite(request, body):
        if is_list(request) and left[0]:
            left[0] -= 1
            return NO_LISTS[misread](body)
        return None

    hook = world.hook(rewrite)
    if times == 1:
        assert hook.start(workflow.id, run_key="order-17", timeout=20).id == first.id
    else:
        with pytest.raises(AmbiguousRunError):
            hook.start(workflow.id, run_key="order-17", timeout=20)
    world.clock.sleep(60)
    assert world.paid == 1
    assert len(world.core.record().started) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"input": None},
        {"input": {"event": 5}},
        {"name": None},
        {"terminated": "yes"},
        {"error": False},
    ],
)
def test_a_history_that_cannot_be_read_hides_no_run(kind, changes):
    world = World(kind)
    workflow = world.hook().create_workflow(gated({"name": "d", "stages": [PAYMENT]}))
    first = world.hook().start(workflow.id, run_key="order-17", first_attempt=True)
    world.hook().wait(first.id)

    def rewrite(request, body):
        if request.url.path.endswith("/history") and "/stages/" not in request.url.path:
            return encoded({"data": [{**body["data"][0], **changes}, *body["data"][1:]]})
        return None

    with pytest.raises(AmbiguousRunError):
        world.hook(rewrite).start(workflow.id, run_key="order-17", timeout=20)
    world.clock.sleep(60)
    assert world.paid == 1


def test_a_list_of_definitions_that_cannot_be_read_makes_no_second_copy(kind):
    world = World(kind)
    definition = {"name": "d", "stages": [PAYMENT]}
    world.hook().ensure_workflow(definition, gate=True)

    def rewrite(request, body):
        broken = request.method == "GET" and request.url.path.endswith("/workflows")
        return encoded({"data": [{**row, "config": "later"} for row in rows_of(body)]}) if broken else None

    with pytest.raises(ServerError):
        world.hook(rewrite).ensure_workflow(definition, gate=True)
    assert len(world.hook().list_workflows()) == 1


def test_a_wait_takes_no_other_instance_for_its_own(kind, clock):
    other = respond(200, instance(id="other", terminated=True))
    with ScriptedServer(lambda got: other) as server:
        hook = open_hook(kind, base_url=server.url, clock=clock)
        with pytest.raises(StateUnknownError):
            hook.wait("i")
        with pytest.raises(WaitTimeoutError, match="could not be read"):
            hook.wait("i", timeout=5)
        with pytest.raises(ServerError) as caught:
            hook.get_instance("i")
        assert not isinstance(caught.value, NotFoundError)
        outcome = hook.cancel("i", timeout=3)
        assert outcome.status == "not_confirmed"


@pytest.mark.parametrize(
    "status",
    [
        [{"stage": 0, "startedAt": STARTED, "instanceID": "other"}],
        [{"stage": "0", "startedAt": STARTED}],
        ["0"],
        {"stage": 0},
    ],
)
def test_an_end_whose_stages_cannot_be_read_is_no_success(kind, clock, status):
    ended = respond(200, instance(terminated=True, status=status))
    with ScriptedServer(lambda got: ended) as server:
        with pytest.raises(WaitTimeoutError):
            open_hook(kind, base_url=server.url, clock=clock).wait("i", timeout=5)


def test_an_id_may_be_spelled_in_capitals(kind):
    id = "0e7f1d7e-0000-4000-8000-0000000000ab"
    with ScriptedServer(lambda got: respond(200, instance(id=id, terminated=True))) as server:
        assert open_hook(kind, base_url=server.url).wait(id.upper()).instance.id == id


def test_a_run_of_another_workflow_is_no_answer_to_a_submit(kind, clock):
    def script(got):
        return respond(201, instance(workflowID="B")) if got.method == "POST" else respond(200, {"data": []})

    with ScriptedServer(script) as server:
        with pytest.raises(AmbiguousRunError):
            open_hook(kind, base_url=server.url, clock=clock).run_workflow("A")
        assert sum(got.method == "POST" for got in server.got) == 1


def test_a_list_with_rows_of_another_workflow_is_an_error(kind, clock):
    with ScriptedServer(lambda got: respond(200, {"data": [instance(workflowID="B")["data"]]})) as server:
        with pytest.raises(ServerError):
            open_hook(kind, base_url=server.url, clock=clock).list_instances("A")


@pytest.mark.parametrize("page", [SIGN_IN, b'{"data": {}}', b"OK", b"\xef\xbb\xbf"])
def test_only_an_empty_answer_says_that_it_was_done(kind, clock, page):
    with ScriptedServer(lambda got: respond(200, page)) as server:
        hook = open_hook(kind, Settings(base_url=server.url, retry_budget=3), clock=clock)
        for method, arguments in [("send_event", ("i", "x")), ("delete_workflow", ("w",)), ("delete_trigger", ("t",))]:
            with pytest.raises(AmbiguousSubmitError):
                getattr(hook, method)(*arguments)
        with pytest.raises(ServerError):
            hook.abort_instance("i")
    for done in (respond(204), respond(200, b""), respond(202, b"\n")):
        with ScriptedServer(lambda got, done=done: done) as server:
            hook = open_hook(kind, base_url=server.url, clock=clock)
            hook.send_event("i", "x")
            hook.abort_instance("i")
            hook.delete_workflow("w")


def test_a_gate_whose_row_ended_in_the_year_1_is_still_closed(kind):
    world = World(kind)

    def rewrite(request, body):
        one = isinstance(body, dict) and isinstance(body.get("data"), dict) and body["data"].get("status")
        if request.method != "GET" or not one:
            return None
        rows = [{"terminatedAt": "0001-01-01T00:00:00Z", **row} for row in one]
        return encoded({"data": {**body["data"], "terminatedAt": "0001-01-01T00:00:00Z", "status": rows}})

    hook = world.hook(rewrite)
    workflow = hook.create_workflow(gated({"name": "d", "stages": [PAYMENT]}))
    first = hook.start(workflow.id, run_key="order-17", first_attempt=True)
    world.hook().wait(first.id)
    assert world.paid == 1


@pytest.mark.parametrize("more", [{"hasMore": True}, {"hasMore": True, "next": ""}, {"hasMore": True, "next": None}])
def test_more_rows_without_a_way_to_them_are_an_error(kind, clock, more):
    page = respond(200, {"cursor": {**more, "data": [WAITS["data"]] * 100}})
    with ScriptedServer(lambda got: page) as server:
        with pytest.raises(ServerError, match="hasMore"):
            open_hook(kind, base_url=server.url, clock=clock).list_workflows()


def test_pages_of_the_first_version_are_followed_too(kind, clock):
    def script(got):
        if got.target.startswith("/v2"):
            return respond(404)
        first = "cursor=" not in got.target
        row = {**WAITS["data"], "id": "a" if first else "b"}
        return respond(200, {"cursor": {"hasMore": first, "next": "n" if first else None, "data": [row]}})

    with ScriptedServer(script) as server:
        rows = open_hook(kind, base_url=server.url, clock=clock).list_workflows()
    assert [row.id for row in rows] == ["a", "b"]


@pytest.mark.parametrize("generation", [2, 3])
def test_occurrences_of_a_trigger_that_has_fired_are_listed_once(kind, generation):
    row = {"triggerID": "t", "date": STARTED, "workflowInstanceID": "i", "event": {"id": "1"}, "workflowInstance": {}}
    rows = [row, {**row, "event": {"id": "2"}}, {**row, "workflowInstanceID": None, "error": "no"}, dict(row)]
    with ScriptedServer(lambda got: respond(200, {"cursor": {"hasMore": False, "data": rows}})) as server:
        listed = open_hook(kind, base_url=server.url).list_trigger_occurrences("t")
    assert [(one.instance_id, one.event["id"]) for one in listed] == [("i", "1"), ("i", "2"), (None, "1")]


def test_occurrences_of_another_trigger_are_no_answer(kind, clock):
    row = {"triggerID": "other", "date": STARTED, "event": {}}
    with ScriptedServer(lambda got: respond(200, {"data": [row]})) as server:
        with pytest.raises(ServerError):
            open_hook(kind, base_url=server.url, clock=clock).list_trigger_occurrences("t")


def test_one_odd_row_costs_only_itself_where_it_is_shown(kind, caplog):
    rows = [instance(id="a", status="odd", createdAt="soon")["data"], "no row", instance(id="b")["data"]]
    with ScriptedServer(lambda got: respond(200, {"cursor": {"hasMore": False, "data": rows}})) as server:
        with caplog.at_level(logging.WARNING):
            listed = open_hook(kind, base_url=server.url).list_instances()
    assert [row.id for row in listed] == ["a", "b"]
    assert listed[0].raw["status"] == "odd"
    assert len([record for record in caplog.records if "could not read" in record.message]) == 1


def test_a_byte_order_mark_is_read_over(kind):
    marked = b"\xef\xbb\xbf"
    with ScriptedServer(lambda got: respond(200, marked + encoded(instance()))) as server:
        assert open_hook(kind, base_url=server.url).get_instance("i").id == "i"
    denied = marked + encoded({"errorCode": "NOT_FOUND", "errorMessage": "no"})
    with ScriptedServer(lambda got: respond(404, denied)) as server:
        with pytest.raises(NotFoundError) as caught:
            open_hook(kind, base_url=server.url).get_instance("i")
    assert caught.value.error_code == "NOT_FOUND"


@pytest.mark.parametrize(
    "answer",
    [{}, {"data": {"id": "w"}}, {"data": {"id": "w", "config": {}}}, {"data": {"id": "x", "config": {"stages": []}}}],
)
def test_a_workflow_without_its_stages_is_not_one_without_a_gate(kind, clock, answer):
    with ScriptedServer(lambda got: respond(200, answer)) as server:
        with pytest.raises(OrchestrationError):
            open_hook(kind, base_url=server.url, clock=clock).start("w", run_key="k", timeout=5)
        assert not [got for got in server.got if got.method == "POST"]


# ---- errors of reads after something was sent ------------------------------------------------------

GATEWAYS = [502, 503, 504, 507, 520, 522, 524, 525, 529, 530, 598]


@pytest.mark.parametrize("status", GATEWAYS)
def test_a_gateways_own_status_is_passing_for_a_read(kind, clock, status):
    answers = [respond(status), respond(status), respond(200, instance())]
    with ScriptedServer(lambda got: answers.pop(0)) as server:
        assert open_hook(kind, base_url=server.url, clock=clock).get_instance("i").id == "i"
        assert len(server.got) == 3


@pytest.mark.parametrize("status", [501, 505])
def test_what_a_server_cannot_do_is_final_for_a_read(kind, clock, status):
    with ScriptedServer(lambda got: respond(status)) as server:
        with pytest.raises(ServerError):
            open_hook(kind, base_url=server.url, clock=clock).get_instance("i")
        assert len(server.got) == 1


@pytest.mark.parametrize("status", [*GATEWAYS, 500, 501, 505, 302, 418, 404])
def test_a_cancel_whose_reads_fail_is_not_confirmed(kind, clock, status):
    with ScriptedServer(lambda got: respond(204) if got.method == "PUT" else respond(status)) as server:
        outcome = open_hook(kind, base_url=server.url, clock=clock).cancel("i", timeout=4)
    assert (outcome.status, outcome.instance, outcome.abort_answer) == ("not_confirmed", None, "204")


def test_a_refused_read_after_an_abort_tells_of_the_abort(kind, clock):
    with ScriptedServer(lambda got: respond(204) if got.method == "PUT" else respond(403)) as server:
        with pytest.raises(AuthenticationError, match="may still run and move money: the abort was answered 204"):
            open_hook(kind, base_url=server.url, clock=clock).cancel("i", timeout=4)


@pytest.mark.parametrize("status", [*GATEWAYS, 500, 501, 403, 404])
def test_an_event_whose_reads_fail_afterwards_may_have_arrived(kind, clock, status):
    sent = []

    def script(got):
        if got.method == "POST":
            sent.append(got)
            return respond(204)
        if sent:
            return respond(status)
        if got.target.endswith("/history"):
            return respond(200, {"data": [{"name": "RunWaitEvent", "input": {"event": "x"}, "terminated": False}]})
        if got.target.startswith("/workflows"):
            return respond(200, WAITS)
        return respond(200, instance(status=[{"stage": 0, "startedAt": STARTED}]))

    with ScriptedServer(script) as server:
        with pytest.raises(EventNotDeliveredError) as caught:
            open_hook(kind, base_url=server.url, clock=clock).send_event_when_ready("i", "x", timeout=10)
    assert caught.value.reason == "unknown"
    assert sum(json.loads(got.body)["name"] == "x" for got in sent) == 1


def test_a_definition_whose_create_was_lost_may_be_there(kind, clock):
    state = {"sent": False}

    def script(got):
        if got.method == "POST":
            state["sent"] = True
            return respond(201, SIGN_IN)
        return respond(501) if state["sent"] else respond(200, {"data": []})

    with ScriptedServer(script) as server:
        with pytest.raises(AmbiguousSubmitError):
            open_hook(kind, base_url=server.url, clock=clock).ensure_workflow({"name": "d", "stages": [PAYMENT]})


# ---- a gateway's 404 -------------------------------------------------------------------------------


def test_one_404_of_a_gateway_ends_no_wait_and_no_start(kind, clock):
    world = World(kind)
    workflow = world.hook().create_workflow(gated({"name": "d", "stages": [PAYMENT]}))
    for number, operation in enumerate(["get_workflow", "get_instance", "list_instances", "get_instance_history"]):
        world.core.fault(operation, "html", 1, code=404)
        hook = world.hook()
        started = hook.start(workflow.id, run_key=f"key-{number}", first_attempt=operation != "list_instances")
        world.core.fault("get_instance", "html", 2, code=404)
        assert hook.wait(started.id).instance.state == "succeeded"
        assert world.paid == number + 1
        world.core.clear_faults()


def test_a_404_of_a_gateway_never_ends_a_wait_for_an_id_that_was_never_seen(kind, clock):
    answers = [respond(404)] * 60 + [respond(200, instance(terminated=True))] * 5

    def script(got):
        return answers.pop(0) if got.target == "/instances/i" else respond(200, {"data": []})

    with ScriptedServer(script) as server:
        result = open_hook(kind, base_url=server.url, clock=clock).wait("i", poll_interval=1.0)
    assert result.instance.state == "succeeded"


def test_one_classifier_says_what_an_answer_leaves_open():
    unreadable = UnreadableAnswerError("x", status_code=200)
    gateways = NotFoundError("x", status_code=404)
    denial = NotFoundError("x", status_code=404, error_code="NOT_FOUND")
    assert [is_inconclusive(error) for error in (unreadable, gateways, denial)] == [True, True, False]
    assert [is_denial(error) for error in (unreadable, gateways, denial)] == [False, False, True]
    assert is_ambiguous(unreadable)
    assert not is_passing(unreadable)
    assert pickle.loads(pickle.dumps(unreadable)).status_code == 200


# ---- waits -----------------------------------------------------------------------------------------


def unfunded(got):
    failing = {
        "name": "CreateTransaction",
        "input": {"CreateTransaction": {"Ledger": "default"}},
        "terminated": False,
        "startedAt": STARTED,
        "attempt": 4,
        "lastFailure": "account had insufficient funds",
    }
    if "/stages/" in got.target:
        return respond(200, {"data": [failing]})
    if got.target.endswith("/history"):
        return respond(200, {"data": [{"name": "RunSend", "input": {}, "terminated": False}]})
    if got.target.startswith("/workflows"):
        return respond(200, {"data": {"id": "w", "config": {"name": "", "stages": [PAYMENT]}}})
    return respond(200, instance(status=[{"stage": 0, "startedAt": STARTED}]))


def waits_for_event(got):
    if got.target.endswith("/history"):
        return respond(200, {"data": [{"name": "RunWaitEvent", "input": {"event": "x"}, "terminated": False}]})
    return respond(200, WAITS) if got.target.startswith("/workflows") else unfunded(got)


@pytest.mark.parametrize("listener", [None, lambda event: None])
def test_a_time_out_always_has_its_reason(kind, clock, listener):
    for script, reason in [(unfunded, "insufficient funds"), (waits_for_event, "waits for event 'x' in stage 0")]:
        with ScriptedServer(script) as server:
            with pytest.raises(WaitTimeoutError, match=reason):
                open_hook(kind, base_url=server.url, clock=clock).wait("i", timeout=4, on_stage=listener)

    def no_stage(got):
        return respond(200, {"data": []}) if got.target.endswith("/history") else respond(200, instance())

    with ScriptedServer(no_stage) as server:
        with pytest.raises(WaitTimeoutError, match=r"no stage of it has begun|could not be read"):
            open_hook(kind, base_url=server.url, clock=clock).wait("i", timeout=4, on_stage=listener)


@pytest.mark.parametrize("listener", [None, lambda event: None])
def test_a_stalled_history_does_not_outlast_the_time_out(kind, listener):
    def script(got):
        return stall(9) if got.target.endswith("/history") else unfunded(got)

    with ScriptedServer(script) as server:
        begun = time.monotonic()
        with pytest.raises(WaitTimeoutError, match="could not be read"):
            open_hook(kind, base_url=server.url).wait("i", timeout=1, on_stage=listener)
        assert time.monotonic() - begun < 4


# ---- models ----------------------------------------------------------------------------------------


def models():
    bare_instance = decoding.decode_instance(encoded(instance(status=[{"stage": 0}])), "x")
    activity = decoding.decode_activity_runs(b'{"data": [{"name": "A", "terminated": true}]}', "x")[0]
    workflow = decoding.decode_workflow(encoded(WAITS), "x")
    transaction = Transaction(stage=0, id=None, ledger=None, postings=(), maybe_repeated=False)
    moved = Moved(stages_completed=0, transactions=(transaction,), complete=True)
    return [
        decoding.decode_info(b'{"version": "v"}', "x"),
        ServerInfo(version="v"),
        workflow,
        bare_instance,
        decoding.decode_stage_runs(b'{"data": [{"name": "RunDelay"}]}', "x")[0],
        activity,
        decoding.decode_trigger(b'{"data": {"id": "t", "event": "e"}}', "x"),
        *decoding.decode_page("occurrence", b'{"data": [{"triggerID": "t"}]}', "x").rows,
        Page(rows=()),
        moved,
        RunResult(instance=bare_instance, moved=moved),
        CancelOutcome(status="held", instance=bare_instance, abort_answer="", moved=moved, in_flight=(activity,)),
        StandingRun(instance=bare_instance, run_key="k", checkpoint=2, since=bare_instance.created_at),
        EnsuredWorkflow(workflow=workflow, created=True),
        EnsuredTrigger(trigger=decoding.decode_trigger(b'{"data": {"id": "t", "event": "e"}}', "x"), created=True),
        bare_instance.status[0],
        transaction,
        StageEvent(instance_id="i", stage=0, kind="begun", name=None, detail=None),
    ]


@pytest.mark.parametrize("model", models(), ids=lambda model: type(model).__name__)
def test_every_model_can_be_pickled_copied_and_encoded(model):
    assert pickle.loads(pickle.dumps(model)) == model
    assert copy.deepcopy(model) == model
    assert msgspec.json.decode(msgspec.json.encode(model))
    assert msgspec.to_builtins(model)

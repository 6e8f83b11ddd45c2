"""Starting once, on each generation, by either hook: the server's record judges."""

import json
import time
from datetime import datetime, timedelta, timezone

import httpx
import pytest
from typer.testing import CliRunner

from orchestration_integrations import (
    AmbiguousRunError,
    InstanceCancelledError,
    NotFoundError,
    Settings,
    ValidationError,
)
from orchestration_integrations.cli import app
from orchestration_integrations.server import EmbeddedServer
from tests.conftest import open_hook
from tests.gates import releases_of, variables_of
from tests.scripted import ScriptedServer, instance, respond

PAYMENT = {
    "send": {
        "source": {"account": {"id": "world"}},
        "destination": {"account": {"id": "shop"}},
        "amount": {"amount": "100", "asset": "USD/2"},
    }
}
APPROVAL = {"wait_event": {"event": "approve"}}


@pytest.fixture(params=[1, 2, 3])
def server(request):
    with EmbeddedServer(request.param) as running:
        yield running


@pytest.fixture
def hook(kind, server):
    return open_hook(kind, Settings(base_url=server.url, timeout=1.5))


def releases(server, key):
    return releases_of(server.record(), key)


def posts(server):
    return server.record().requests.get("run_workflow", 0)


def listening(hook, workflow, key="k"):
    """A run that was created and not released; its gate listens."""
    one = hook.run_workflow(workflow.id, variables_of(workflow, key)).id
    end = time.monotonic() + 10
    while not hook.get_instance_history(one):
        assert time.monotonic() < end
        time.sleep(0.02)
    return one


def many(server, path, bodies):
    """Many plain posts, quickly."""
    with httpx.Client(base_url=server.url) as client:
        return [client.post(path, json=body).json()["data"] for body in bodies]


# ---- gated -----------------------------------------------------------------------------------------


def test_the_same_key_finds_the_same_run(server, hook):
    workflow = hook.ensure_workflow({"name": "pay", "stages": [PAYMENT]}, gate=True).workflow
    told = []
    first = hook.start(workflow.id, run_key="k", first_attempt=True, on_chosen=told.append)
    assert told == [first.id]
    assert hook.wait(first.id, timeout=20).instance.state == "succeeded"
    for _ in range(2):
        assert hook.start(workflow.id, run_key="k", on_chosen=told.append).id == first.id
    assert (len(releases(server, "k")), posts(server), told) == (1, 1, [first.id])
    assert server.balance("shop", "USD/2") == 100


def test_keys_are_compared_whole(server, hook):
    workflow = hook.ensure_workflow({"name": "pay", "stages": [PAYMENT]}, gate=True).workflow
    ids = {hook.start(workflow.id, run_key=key).id for key in ("run-1", "run-10", "run-", "run-1 ", "RUN-1")}
    assert len(ids) == 5


@pytest.mark.parametrize(
    "trouble", ["cut_before", "cut_after", "stall", "status", "html", "truncated", "ghost", "late_row"]
)
def test_a_lost_submit_never_pays_twice(server, hook, trouble):
    options = {"stall": {"seconds": 3.0}, "status": {"code": 500, "work": True}, "late_row": {"seconds": 1}}
    workflow = hook.ensure_workflow({"name": "pay", "stages": [PAYMENT]}, gate=True).workflow
    server.fault("run_workflow", trouble, 1, **options.get(trouble, {}))
    started = hook.start(workflow.id, run_key="k", first_attempt=True)
    assert hook.wait(started.id, timeout=20).instance.state == "succeeded"
    assert len(releases(server, "k")) == 1
    assert server.balance("shop", "USD/2") == 100


def test_a_stored_choice_is_released_and_no_other(server, hook):
    workflow = hook.ensure_workflow({"name": "pay", "stages": [PAYMENT]}, gate=True).workflow
    first, second = listening(hook, workflow), listening(hook, workflow)
    assert hook.start(workflow.id, run_key="k", chosen=second).id == second
    assert [one["instance_id"] for one in releases(server, "k")] == [second]
    assert hook.start(workflow.id, run_key="k").id == second
    assert hook.get_instance(first).state == "running"


def test_several_unreleased_runs_without_a_choice_are_told_and_left(server, hook):
    workflow = hook.ensure_workflow({"name": "pay", "stages": [PAYMENT]}, gate=True).workflow
    ids = {listening(hook, workflow) for _ in range(2)}
    with pytest.raises(AmbiguousRunError) as caught:
        hook.start(workflow.id, run_key="k", timeout=8)
    assert set(caught.value.candidates) == ids
    assert (caught.value.run_key, caught.value.workflow_id) == ("k", workflow.id)
    assert releases(server, "k") == []


def test_one_unreleased_run_is_gone_on_with(server, hook):
    workflow = hook.ensure_workflow({"name": "pay", "stages": [PAYMENT]}, gate=True).workflow
    waiting = listening(hook, workflow)
    assert hook.start(workflow.id, run_key="k").id == waiting
    assert posts(server) == 1


def test_an_aborted_candidate_counts_as_none_and_a_cancelled_run_is_returned(kind):
    with EmbeddedServer(3) as server:
        hook = open_hook(kind, base_url=server.url)
        workflow = hook.ensure_workflow({"name": "pay", "stages": [APPROVAL, PAYMENT]}, gate=True).workflow
        aborted = listening(hook, workflow)
        assert hook.cancel(aborted).status == "cancelled"
        started = hook.start(workflow.id, run_key="k")
        assert started.id != aborted
        assert hook.cancel(started.id).status == "cancelled"
        again = hook.start(workflow.id, run_key="k")
        assert again.id == started.id
        with pytest.raises(InstanceCancelledError, match="another run key"):
            hook.wait(again.id, timeout=5)
        assert len(releases(server, "k")) == 1


def test_other_lost_submits_are_aborted_where_that_works(kind):
    with EmbeddedServer(3) as server:
        hook = open_hook(kind, base_url=server.url)
        workflow = hook.ensure_workflow({"name": "pay", "stages": [PAYMENT]}, gate=True).workflow
        for _ in range(2):
            server.fault("run_workflow", "late_row", 1, seconds=6)
            server.fault("run_workflow", "cut_after", 1)
        started = hook.start(workflow.id, run_key="k", first_attempt=True, timeout=60)
        hook.wait(started.id, timeout=20)
        states = sorted(row.state for row in hook.list_instances(workflow.id))
        assert len(releases(server, "k")) == 1
        assert states.count("succeeded") == 1


def test_a_history_that_cannot_be_read_may_be_ours(kind):
    stage = {"stage": 0, "startedAt": "2026-01-01T00:00:00Z"}
    gated = {"data": {"id": "w", "config": {"stages": [{"wait_event": {"event": "go:${runGate}"}}]}}}

    def script(got):
        if got.target.startswith("/workflows"):
            return respond(200, gated)
        if got.target.startswith("/instances?"):
            return respond(200, {"data": [instance()["data"]]})
        if got.target.endswith("/history"):
            return respond(404, {"errorCode": "NOT_FOUND", "errorMessage": "resource not found"})
        return respond(200, instance(status=[stage]))

    with ScriptedServer(script) as server:
        since = datetime(2025, 12, 31, tzinfo=timezone.utc)
        with pytest.raises(AmbiguousRunError) as caught:
            open_hook(kind, base_url=server.url).start("w", run_key="k", since=since, timeout=2)
        assert caught.value.candidates == ("i",)
        assert all(got.method == "GET" for got in server.got)


def test_a_run_that_begins_during_a_look_is_no_trouble(kind):
    """Of another key; between the two reads that tell whose it is, its gate opens."""
    passed = {"stage": 0, "startedAt": "2026-01-01T00:00:00Z", "terminatedAt": "2026-01-01T00:00:01Z"}
    gated = {"data": {"id": "w", "config": {"stages": [{"wait_event": {"event": "go:${runGate}"}}]}}}
    theirs = {"name": "RunWaitEvent", "input": {"event": "go:other~100000000~0"}, "terminated": True}
    unread = [respond(200, {"data": []})]

    def script(got):
        if got.method == "POST":
            return respond(403, {"errorCode": "FORBIDDEN", "errorMessage": "no"})
        if got.target.startswith("/workflows"):
            return respond(200, gated)
        if got.target.startswith("/instances?"):
            return respond(200, {"data": [instance()["data"]]})
        if got.target.endswith("/history"):
            return unread.pop() if unread else respond(200, {"data": [theirs]})
        return respond(200, instance(status=[passed]))

    with ScriptedServer(script) as server:
        since = datetime(2025, 12, 31, tzinfo=timezone.utc)
        with pytest.raises(AmbiguousRunError, match="403"):  # the look is over; what is refused is the submit
            open_hook(kind, base_url=server.url).start("w", run_key="k", since=since, timeout=2)
        assert not unread


def test_a_workflow_that_others_run_all_the_time_can_be_looked_at(kind):
    """Each reading of its list brings a row that was not there when the look began."""
    gated = {"data": {"id": "w", "config": {"stages": [{"wait_event": {"event": "go:${runGate}"}}]}}}
    old = [instance(id=f"old-{number}")["data"] for number in range(110)]
    theirs = {"name": "RunWaitEvent", "input": {"event": "go:other~100000000~0"}, "terminated": True}
    readings = []

    def script(got):
        if got.method == "POST":
            return respond(403, {"errorCode": "FORBIDDEN", "errorMessage": "no"})
        if got.target.startswith("/workflows"):
            return respond(200, gated)
        if got.target.startswith("/instances?"):
            return respond(200, {"data": old[:100]})
        if got.target.startswith("/v2/instances?") and "cursor" not in got.target:
            readings.append(instance(id=f"new-{len(readings)}", createdAt="2999-01-01T00:00:00Z")["data"])
            return respond(200, {"cursor": {"hasMore": True, "next": "more", "data": old[:100]}})
        if got.target.startswith("/v2/instances?"):
            return respond(200, {"cursor": {"hasMore": False, "data": [*old[100:], *readings]}})
        return respond(200, {"data": [theirs]})

    with ScriptedServer(script) as server:
        since = datetime(2998, 1, 1, tzinfo=timezone.utc)
        with pytest.raises(AmbiguousRunError, match="403"):  # the look is over; what is refused is the submit
            open_hook(kind, base_url=server.url).start("w", run_key="k", since=since, timeout=5)
    assert len(readings) == 3  # one that brings the rest, and two that bring no row that was there before


def test_old_instances_cost_nothing(server, kind):
    hook = open_hook(kind, base_url=server.url)
    workflow = hook.ensure_workflow({"name": "pay", "stages": [PAYMENT]}, gate=True).workflow
    many(server, f"/workflows/{workflow.id}/instances", [{"runKey": f"old-{number}"} for number in range(130)])
    server.advance(3600)
    before = server.record().history_calls
    since = datetime.now(timezone.utc) + timedelta(hours=1)
    hook.start(workflow.id, run_key="new", first_attempt=True)
    assert server.record().history_calls == before
    hook.start(workflow.id, run_key="newer", since=since)
    assert server.record().history_calls - before <= 1  # that of "new"


# ---- before anything is sent -----------------------------------------------------------------------


def test_a_typing_mistake_is_told_at_once(server, hook):
    with pytest.raises(NotFoundError):
        hook.start("00000000-0000-4000-8000-000000000000")
    assert posts(server) == 0


def test_a_deleted_workflow_is_an_error(server, hook):
    workflow = hook.create_workflow({"name": "d", "stages": [APPROVAL]})
    hook.delete_workflow(workflow.id)
    with pytest.raises(NotFoundError):
        hook.start(workflow.id)
    assert posts(server) == 0


def test_an_unbound_placeholder_is_named(server, hook):
    pays = json.loads(json.dumps(PAYMENT).replace("100", "${amount}"))
    workflow = hook.ensure_workflow({"name": "p", "stages": [pays]}, gate=True).workflow
    with pytest.raises(ValidationError, match=r"stages\[0\].*'amount'") as caught:
        hook.start(workflow.id)
    assert caught.value.path == "variables.amount"
    assert posts(server) == 0
    assert hook.start(workflow.id, {"amount": 5}).id
    assert hook.start(workflow.id, allow_unbound=True).id


def test_two_variables_in_one_string_are_refused_where_they_vanish(kind):
    stages = [{"wait_event": {"event": "${a}:${b}"}}]
    for generation in (1, 2):
        with EmbeddedServer(generation) as server:
            hook = open_hook(kind, base_url=server.url)
            workflow = hook.create_workflow({"name": "two", "stages": stages})
            if generation == 1:
                with pytest.raises(ValidationError, match="two variables"):
                    hook.start(workflow.id, {"a": "x", "b": "y"})
                assert posts(server) == 0
            else:
                assert hook.start(workflow.id, {"a": "x", "b": "y"}).id


def test_a_gate_of_another_form_is_refused(server, hook):
    workflow = hook.create_workflow({"name": "g", "stages": [{"wait_event": {"event": "go:${key}"}}, PAYMENT]})
    with pytest.raises(ValidationError, match="no gate that this version can open") as caught:
        hook.start(workflow.id, {"key": "x"}, run_key="k")
    assert caught.value.path == "stages[0].wait_event.event"
    assert posts(server) == 0


def test_the_variable_that_carries_the_key_can_be_named(server, hook):
    workflow = hook.ensure_workflow({"name": "pay", "stages": [PAYMENT]}, gate=True).workflow
    started = hook.start(workflow.id, run_key="k", key_variable="payment")
    assert server.record().started[0]["variables"]["payment"] == "k"
    assert hook.start(workflow.id, run_key="k", key_variable="payment").id == started.id


def test_a_key_in_the_variables_is_a_key(server, hook):
    workflow = hook.ensure_workflow({"name": "pay", "stages": [PAYMENT]}, gate=True).workflow
    first = hook.start(workflow.id, {"runKey": "k"})
    assert hook.start(workflow.id, {"runKey": "k"}).id == first.id
    assert len(releases(server, "k")) == 1


# ---- ungated ---------------------------------------------------------------------------------------


def test_ungated_submits_once(server, hook):
    workflow = hook.create_workflow({"name": "u", "stages": [PAYMENT]})
    for trouble, options in [
        ("cut_after", {}),
        ("cut_before", {}),
        ("stall", {"seconds": 3.0}),
        ("status", {"code": 502}),
    ]:
        before = posts(server)
        server.fault("run_workflow", trouble, 1, **options)
        with pytest.raises(AmbiguousRunError) as caught:
            hook.start(workflow.id, run_key=f"k-{trouble}", first_attempt=True, timeout=2)
        assert posts(server) - before <= 1
        assert caught.value.window[0] <= caught.value.window[1]


def test_ungated_adopts_what_carries_the_key(server, hook):
    workflow = hook.create_workflow({"name": "u", "stages": [{"wait_event": {"event": "${runKey}"}}, PAYMENT]})
    server.fault("run_workflow", "cut_after", 1)
    started = hook.start(workflow.id, run_key="k", first_attempt=True, timeout=20)
    assert hook.start(workflow.id, run_key="k", timeout=20).id == started.id
    assert posts(server) == 1
    with pytest.raises(AmbiguousRunError, match="earlier attempt"):
        hook.start(workflow.id, run_key="k-never", timeout=1)
    assert posts(server) == 1


def test_a_look_that_the_time_cuts_off_takes_none_back(server, hook):
    workflow = hook.create_workflow({"name": "u", "stages": [{"wait_event": {"event": "${runKey}"}}, PAYMENT]})
    server.fault("list_instances", "stall", -1, seconds=5, skip=1)
    with pytest.raises(AmbiguousRunError, match="an earlier attempt may have submitted it"):
        hook.start(workflow.id, run_key="k", timeout=1)


def test_ungated_goes_on_with_what_is_on_record(server, hook):
    workflow = hook.create_workflow({"name": "u", "stages": [PAYMENT]})
    started = hook.start(workflow.id, run_key="k", first_attempt=True)
    assert hook.start(workflow.id, run_key="k", chosen=started.id).id == started.id
    assert posts(server) == 1


def test_unreleased_runs_are_listed(server, hook):
    workflow = hook.ensure_workflow({"name": "pay", "stages": [PAYMENT]}, gate=True).workflow
    left = listening(hook, workflow, "lost")
    released = hook.start(workflow.id, run_key="fine")
    hook.wait(released.id, timeout=20)
    assert [(row.id, key) for row, key in hook.list_unreleased(workflow.id)] == [(left, "lost")]


def test_the_command_lists_unreleased_runs():
    with EmbeddedServer(2) as server:
        hook = open_hook("sync", base_url=server.url)
        workflow = hook.ensure_workflow({"name": "pay", "stages": [PAYMENT]}, gate=True).workflow
        said = CliRunner().invoke(app, ["unreleased", workflow.id, "--url", server.url])
        assert "no run stands" in said.output
        left = listening(hook, workflow, "lost")
        said = CliRunner().invoke(app, ["unreleased", workflow.id, "--url", server.url], env={"COLUMNS": "120"})
        assert said.exit_code == 0
        assert left in said.output
        assert "lost" in said.output

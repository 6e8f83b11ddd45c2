"""What the commands tell of a run whose outcome they know: what it moved, that it is over, and advice that works."""

from __future__ import annotations

import json
import re
import shlex
import sqlite3
from contextlib import closing

import pytest

from orchestration_integrations import OrchestrationHttpHook, SqliteRunStore
from orchestration_integrations.procedures import waiting
from orchestration_integrations.server import EmbeddedServer
from tests.commands import invoked
from tests.outside import eventually

SEND = {
    "send": {
        "source": {"account": {"id": "world"}},
        "destination": {"account": {"id": "shop"}},
        "amount": {"amount": "5", "asset": "USD/2"},
    }
}
TWICE = {"name": "twice", "stages": [SEND, SEND]}
SLOW = {"name": "slow", "stages": [{"delay": {"duration": "60s"}}]}


@pytest.fixture(params=[2])
def server(request):
    with EmbeddedServer(request.param) as started:
        yield started


@pytest.fixture
def hook(server):
    with OrchestrationHttpHook(base_url=server.url) as made:
        yield made


@pytest.fixture
def store(tmp_path):
    (tmp_path / "twice.json").write_text(json.dumps(TWICE))
    (tmp_path / "of the night").mkdir()
    return SqliteRunStore(tmp_path / "of the night" / "runs.db")


@pytest.fixture
def call(server, store, tmp_path):
    """A command with the settings in the environment: status, objects of the standard output."""
    env = {"ORCHESTRATION_URL": server.url, "ORCHESTRATION_STORE": store.path}

    def call(*arguments):
        done = invoked(
            *[str(tmp_path / "twice.json") if one == "FILE" else one for one in arguments], "--json", env=env
        )
        return done.exit_code, [json.loads(line) for line in done.stdout.splitlines()]

    return call


def held(hook, store, key):
    """A run that has paid its first stage and is held before the second."""
    asked = []
    with pytest.raises(Exception, match="held"):
        hook.run_once(
            TWICE, run_key=key, store=store, checkpoints=True, wants=lambda: asked.append(1) or len(asked) < 2,
            poll_interval=0.2,
        )  # fmt: skip


def test_a_held_run_tells_what_it_has_moved_and_how_to_let_it_go_on(server, hook, store, call):
    held(hook, store, "order 17")
    again = ["run", "FILE", "--run-key", "order 17", "--checkpoints"]
    for arguments in (again, ["cancel", "--run-key", "order 17", "--timeout", "0.2"]):
        _, (told,) = call(*arguments)
        assert (told["complete"], told["stages_completed"], len(told["transactions"])) == (True, 1, 1)
    code, (told,) = call(*again)
    assert (code, told["type"], told["state"]) == (3, "end", "stuck")
    assert "after 1 completed stage and 1 transaction" in told["reason"]
    command = re.search(r"orchestration-integrations (.*) lets the same run go on", told["reason"])[1]
    assert call(*shlex.split(command))[0] == 0, "the advice, followed as it stands"
    assert call(*again)[0] == 0
    assert server.balance("shop", "USD/2") == 10


@pytest.mark.parametrize("server", [1, 2, 3], indirect=True)
def test_a_key_that_has_succeeded_is_neither_stopped_nor_resumed(server, hook, store, call):
    assert call("run", "FILE", "--run-key", "k")[0] == 0
    cancel = ["cancel", "--run-key", "k", "--timeout", "3", "--retry-budget", "1"]
    code, (told,) = call(*cancel)
    assert (code, told["status"], told["state"], len(told["transactions"])) == (6, "already_ended", "succeeded", 2)
    assert not store.load("k").hold, "a run that is over cannot be held"
    code, (refused,) = call("runs", "resume", "k")
    assert (code, refused["exit_status"]) == (2, 2)
    assert re.search("nothing of k is held: instance .* has ended, on record as succeeded", refused["message"])
    server.fault("get_instance", "status", -1, code=503)
    code, (told,) = call(*cancel[:3], "--timeout", "0.2", *cancel[5:])
    assert (code, told["state"], told["complete"], told["stages_completed"]) == (6, "succeeded", False, None)
    assert "on record as succeeded" in told["text"]


def test_a_stop_that_met_the_end_of_its_run_is_no_hold(hook, store, call):
    """The stop is put up while the run pays its last stage: the record says both, and the end counts."""
    hook.run_once(TWICE, run_key="k", store=store)
    store.save(store.load("k").held_by_stop("a cancel from outside", None))
    code, (refused,) = call("runs", "resume", "k")
    assert (code, "has ended, on record as succeeded" in refused["message"]) == (2, True)
    assert call("runs", "resume", "unknown")[0] == 2


def test_what_was_not_read_is_not_known(server, hook, call):
    instance_id = hook.run_workflow(
        hook.create_workflow({"name": "w", "stages": [{"delay": {"duration": "60s"}}]}).id
    ).id
    server.fault("get_instance", "status", -1, code=401)
    code, (told,) = call("cancel", instance_id, "--timeout", "0.2")
    assert (code, told["type"], told["error"]) == (3, "error", "AuthenticationError"), "the abort may have been taken"
    assert (told["complete"], told["stages_completed"], told["transactions"]) == (False, None, [])


@pytest.mark.parametrize("server", [1], indirect=True)
@pytest.mark.parametrize(("how", "status"), [("failed", 1), ("cancelled amid a payment", 3)])
def test_an_event_for_a_run_that_has_ended_tells_what_it_had_moved(server, hook, call, how, status):
    """Only where all of that is known may a script pay by other means."""
    bad = {"send": {**SEND["send"], "destination": {"account": {"id": "bad account!"}}}}
    poor = {"send": {**SEND["send"], "source": {"account": {"id": "poor"}}}}
    approve = {"wait_event": {"event": "approve"}}
    workflow = hook.create_workflow({"name": "w", "stages": [SEND, bad if how == "failed" else poor, approve]})
    instance_id = hook.run_workflow(workflow.id).id
    if how == "failed":
        eventually(lambda: hook.get_instance(instance_id).terminated, "it has failed", every=0.05)
    else:
        eventually(lambda: len(hook.get_instance_history(instance_id)) == 2, "it pays", every=0.05)
        eventually(lambda: hook.get_stage_history(instance_id, 1), "it tries to pay", every=0.05)
        assert hook.cancel(instance_id).in_flight
    code, (told,) = call("events", "send", instance_id, "approve", "--timeout", "5")
    assert (code, told["type"], told["reason"]) == (status, "error", "instance_ended")
    assert (told["stages_completed"], len(told["transactions"]), told["complete"]) == (1, 1, status == 1)


def advised(text, name):
    """The command of that name in an advice."""
    return shlex.split(re.search(rf"(?:orchestration-integrations )?({name} [^;,]*?)(?: names |;|,|$)", text)[1])


def test_a_record_that_cannot_be_read_is_removed_as_the_finding_says(server, call, store):
    with closing(sqlite3.connect(store.path)) as file, file:
        file.execute("INSERT INTO runs VALUES ('the odd one', 'no record')")
    code, (told,) = call("reconcile", "--run-key", "the odd one")
    assert (code, told["finding"]) == (3, "unknown")
    forget = advised(told["advice"], "runs forget")
    assert call(*forget)[0] == 2, "it asks first"
    before = store.complete_since
    assert call(*forget, "--yes")[0] == 0
    assert store.complete_since > before, "the file proves nothing of that key any more"
    assert call("reconcile", "--run-key", "the odd one") == (0, [])
    assert call("run", "FILE", "--run-key", "k")[0] == 0
    assert call("runs", "forget", "k", "--unreadable", "--yes")[0] == 2
    assert store.load("k") is not None


def test_a_cancel_of_a_key_without_an_instance_says_where_to_look(server, hook, call):
    name = hook.create_workflow({"name": "plain", "stages": [SEND]}).name
    with server.fault("run_workflow", "cut_after"):
        assert call("run", name, "--run-key", "the key", "--first-attempt")[0] == 3
    code, (told,) = call("cancel", "--run-key", "the key")
    assert code == 3
    code, (found,) = call(*advised(told["message"], "reconcile"))
    assert (code, found["finding"], len(found["instances"])) == (3, "ambiguous", 1)


def test_a_held_run_is_told_what_is_left_to_do(server, hook, store, call):
    held(hook, store, "order 17")
    (found,) = call("reconcile", "twice")[1]
    assert "moves nothing" in found["advice"]
    assert not re.search(r"\bcancel\b", found["advice"]), "it is held already"
    code, (told,) = call("cancel", "--run-key", "order 17")
    assert (code, told["status"], told["stages_completed"]) == (0, "held", 1)
    settle = advised(found["advice"], "runs settle")
    assert call(*settle)[0] == 2, "it asks first"
    code, (told,) = call(*settle, "--yes")
    assert (code, "its next start is a new run, which pays all of it again" in told["text"]) == (0, True)
    code, (found,) = call("reconcile", "twice")
    assert (code, "resume" in found["advice"], "is settled" in found["reason"]) == (3, False, True)
    assert call(*advised(found["advice"].partition(": ")[2], "cancel"), "--timeout", "0.2")[0] in (0, 3)


@pytest.mark.parametrize("named", ["by its key", "by its id"])
@pytest.mark.parametrize("how", ["the token is refused", "another server answers"])
def test_a_cancel_that_is_refused_says_that_its_stop_is_on_record(server, hook, store, call, monkeypatch, how, named):
    """Not 2: the record was changed, and the run may run. What it says takes the stop back."""
    monkeypatch.setattr(waiting, "ROW_GRACE", 0.5)
    held(hook, store, "order 17")
    assert call("runs", "resume", "order 17")[0] == 0
    record = store.load("order 17")
    refusal = {"code": 401} if how == "the token is refused" else {"code": 404, "error_code": "NOT_FOUND"}
    server.fault("any", "status", -1, **refusal)
    about = ["--run-key", record.key] if named == "by its key" else [record.instance_id]
    code, (told,) = call("cancel", *about, "--timeout", "20", "--retry-budget", "1")
    assert (code, told["type"], told["exit_status"]) == (3, "error", 3)
    assert [told[one] for one in ("instance_id", "run_key", "workflow_id")] == [
        record.instance_id, record.key, record.workflow_id,
    ]  # fmt: skip
    assert "may still run and move money" in told["message"]
    assert store.load(record.key).hold
    back = re.search(r"the stop is on record, .* \(orchestration-integrations (.*) takes it back\)", told["message"])[1]
    assert call(*shlex.split(back))[0] == 0
    assert not store.load(record.key).hold
    server.clear_faults()
    assert call("run", "FILE", "--run-key", record.key, "--checkpoints")[0] == 0


def test_a_cancel_that_changed_nothing_is_no_unknown_run(server, hook, call):
    """No record names the instance, and each call was refused."""
    nobodys = hook.run_workflow(hook.create_workflow({"name": "w", "stages": [{"delay": {"duration": "60s"}}]}).id).id
    server.fault("any", "status", -1, code=401)
    code, (told,) = call("cancel", nobodys, "--timeout", "1")
    assert (code, told["exit_status"], "on record" in told["message"]) == (2, 2, False)


REFUSALS = {
    "401": {"code": 401},
    "403": {"code": 403},
    "400": {"code": 400, "error_code": "VALIDATION"},
    "404": {"code": 404, "error_code": "NOT_FOUND"},
}
NAMES = ("instance_id", "run_key", "workflow_id")


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("reads", [2, 5])
def test_whenever_a_run_may_not_be_read_any_more_its_error_names_it(server, hook, store, call, refusal, reads):
    """In the error of the call that has started it, and of the one that takes it up again."""
    workflow = hook.ensure_workflow(SLOW, gate=True).workflow
    run = ["run", workflow.id, "--run-key", "k", "--poll-interval", "0.2", "--on-timeout", "leave", "--timeout", "2"]
    for skip in (reads, 0):
        server.clear_faults()
        server.fault("get_instance", "status", -1, **REFUSALS[refusal], skip=skip)
        code, (told,) = call(*run)
        assert (code, told["type"], told["exit_status"]) == (3, "error", 3)
        assert [told[one] for one in NAMES] == [store.load("k").instance_id, "k", workflow.id]
        if told["error"] != "WrongServerError":
            assert (told["complete"], told["stages_completed"]) == (False, None)
    server.clear_faults()
    hook.cancel(store.load("k").instance_id, timeout=0)


def test_an_error_before_there_is_a_run_names_what_it_is_about(server, store, call):
    nowhere = "8d2e0b4c-0f0a-4f0e-9d5c-3c1b1f5f0000"
    code, (told,) = call("run", nowhere, "--run-key", "k", "--retry-budget", "1")
    assert (code, [told[one] for one in NAMES]) == (2, [None, "k", nowhere])
    server.fault("any", "status", -1, code=401)
    code, (told,) = call("events", "send", nowhere, "go", "--timeout", "0.2")
    assert (code, told["instance_id"]) == (2, nowhere)


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_run_that_may_not_be_watched_any_more_may_still_run(server, hook, call, refusal):
    """As `wait` says of it; a wrong option is refused all the same."""
    instance_id = hook.run_workflow(hook.create_workflow(SLOW).id).id
    hook.get_instance(instance_id)
    server.fault("get_instance", "status", -1, **REFUSALS[refusal], skip=1)
    code, told = call("instances", "watch", instance_id, "--poll-interval", "0.2", "--timeout", "5")
    assert (code, told[-1]["type"], told[-1]["state"], told[-1]["exit_status"]) == (3, "end", "unknown", 3)
    assert call("instances", "watch", instance_id, "--poll-interval", "0")[0] == 2


def test_a_cancel_of_a_run_at_its_gate_says_so_and_names_no_wait_that_never_ends(call, hook, store):
    """Nothing ends a run at its gate on generation 2, and it has paid nothing."""
    workflow = hook.ensure_workflow(TWICE, gate=True).workflow
    left = hook.run_workflow(workflow.id, {"runKey": "k", "runGate": "k"}).id
    eventually(lambda: hook.get_instance_history(left), "it stands at its gate", every=0.05)
    status, (told,) = call("cancel", left, "--timeout", "0.5")
    assert (status, told["status"], told["at_gate"]) == (3, "not_confirmed", True)
    assert "it stands at its gate" in told["text"]
    assert "--run-key KEY" in told["text"]
    assert "orchestration-integrations wait" not in told["text"]
    assert "may still run and move money" not in told["text"]


def test_a_cancel_of_a_run_beyond_its_gate_does_not_speak_of_the_gate(call, hook, server):
    waits = {"name": "waits", "stages": [{"wait_event": {"event": "go:on"}}]}
    started = hook.start(hook.ensure_workflow(waits, gate=True).workflow.id)
    status, (told,) = call("cancel", started.id, "--timeout", "0.5")
    assert (status, told["status"], told["at_gate"]) == (3, "not_confirmed", False)
    assert "may still run and move money" in told["text"]
    assert f"(orchestration-integrations wait {started.id}), with --timeout SECONDS" in told["text"], (
        "it waits for ever"
    )

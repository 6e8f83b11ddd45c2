"""A server that refuses (401, 403, 400) what a command asks about a run on record: that run may not be read, which is 3
as in an outage. Where nothing is known of any run it is a wrong setting."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from orchestration_integrations import SqliteRunStore, run_store
from orchestration_integrations.server import EmbeddedServer
from tests.commands import invoked

REFUSALS = {"401": {"code": 401}, "403": {"code": 403}, "400": {"code": 400, "error_code": "VALIDATION"}}


def sending(account):
    return {
        "send": {
            "source": {"account": {"id": "world"}},
            "destination": {"account": {"id": account}},
            "amount": {"amount": "5", "asset": "USD/2"},
        }
    }


WELL = {"name": "well", "stages": [sending("shop")]}
BADLY = {"name": "badly", "stages": [sending("no account!")]}
ENDED = {"succeeded": WELL, "failed": BADLY}


@pytest.fixture(scope="module")
def server():
    with EmbeddedServer(3) as started:
        yield started


@pytest.fixture
def store(tmp_path, server):
    yield SqliteRunStore(tmp_path / "runs.db")
    server.clear_faults()


@pytest.fixture
def call(server, store):
    env = {"ORCHESTRATION_URL": server.url, "ORCHESTRATION_STORE": store.path}

    def call(*arguments):
        done = invoked(*arguments, "--json", env=env)
        return done.exit_code, [json.loads(line) for line in done.stdout.splitlines()]

    return call


@pytest.fixture
def run(tmp_path, call):
    """The command that runs a definition, from its file or by its name."""

    def command(definition, key, by="file"):
        file = tmp_path / f"{definition['name']}.json"
        file.write_text(json.dumps(definition))
        return ["run", str(file) if by == "file" else definition["name"], "--run-key", key]

    return command


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("end", ENDED)
@pytest.mark.parametrize("operation", ["get_instance", "list_workflows"])
def test_a_run_on_record_as_ended_may_not_be_read(server, store, run, call, refusal, end, operation):
    command = run(ENDED[end], f"{end} {refusal} {operation}")
    first, ended = call(*command)
    assert first in (0, 1), ended
    assert store.load(command[-1]).state == "told"
    server.fault(operation, "status", -1, **REFUSALS[refusal])
    code, (told,) = call(*command)
    assert (code, told["type"], told["exit_status"]) == (3, "error", 3)
    assert (told["complete"], told["stages_completed"]) == (False, None)
    if operation == "get_instance":
        assert f"is on record as {end}" in told["message"]
    server.clear_faults()
    assert call(*command)[0] == first


@pytest.mark.parametrize("more", [[], ["--no-wait"]], ids=["waits", "does not wait"])
def test_a_run_that_is_asked_for_by_the_name_of_its_workflow(server, store, run, call, more):
    assert call(*run(WELL, "by name"))[0] == 0
    server.fault("list_workflows", "status", -1, code=403)
    assert call(*run(WELL, "by name", by="name"), *more)[0] == 3
    assert call(*run(WELL, "another"))[0] == 2, "nothing is known of any run: the token is wrong"
    server.clear_faults()
    server.fault("get_workflow", "status", -1, code=403)
    workflow = store.load("by name").workflow_id
    assert call("run", workflow, "--run-key", "by name", *more)[0] == 3
    assert call("run", workflow, "--run-key", "another", *more)[0] == 2


@pytest.mark.parametrize("operation", ["list_workflows", "list_instances", "get_workflow"])
def test_reconcile_of_a_key_on_record(server, store, run, call, operation):
    assert call(*run(WELL, f"found {operation}"))[0] == 0
    by_key = ["reconcile", "--run-key", f"found {operation}"]
    server.fault(operation, "status", -1, code=401)
    code, told = call(*by_key)
    if operation != "get_workflow":
        assert (code, told[-1]["type"], told[-1]["exit_status"]) == (3, "error", 3)
        assert call("reconcile", "--run-key", "nobody has it")[0] == 2
    else:
        assert code == 0, "it is not asked for"
    server.clear_faults()
    assert call(*by_key)[0] == 0


@pytest.mark.parametrize("damage", ["it is cut", "it may not be read"])
def test_records_that_cannot_be_read_say_nothing_of_their_runs(store, run, call, monkeypatch, damage):
    """A full disk or a damaged file: a run of the key may be alive. Another file, or none, is a wrong setting."""
    command = run(WELL, "kept")
    assert call(*command)[0] == 0
    with closing(sqlite3.connect(store.path)) as file:
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path = Path(store.path)
    whole = path.read_bytes()
    if damage == "it is cut":
        path.write_bytes(whole[: len(whole) // 2])
    else:
        monkeypatch.setattr(run_store, "set_up", lambda *_: (_ for _ in ()).throw(OSError("disk I/O error")))
    for asked in (command, ["cancel", "--run-key", "kept"], ["runs", "list"], ["reconcile", "--run-key", "kept"]):
        code, (told,) = call(*asked)
        assert (code, told["error"], told["exit_status"]) == (3, "ConfigurationError", 3)
        assert "cannot hold records of runs" in told["message"]
    monkeypatch.undo()
    path.write_text("no database")
    assert call(*command)[0] == 2
    path.unlink()
    assert call("runs", "list")[0] == 2


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize(("end", "status"), [("succeeded", 6), ("failed", 3)])
def test_a_cancel_of_a_run_that_is_over_does_not_say_that_it_may_still_run(server, run, call, refusal, end, status):
    command = run(ENDED[end], f"over {end} {refusal}")
    assert call(*command)[0] in (0, 1)
    server.fault("any", "status", -1, **REFUSALS[refusal])
    code, (told,) = call("cancel", "--run-key", command[-1], "--timeout", "1")
    assert (code, told["type"], told["state"]) == (status, "cancel", end)
    assert f"on record as {end}; what it has moved could not be read ({REFUSALS[refusal]['code']} " in told["text"]
    assert "may still run" not in told["text"]

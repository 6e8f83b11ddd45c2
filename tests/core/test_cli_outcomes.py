"""What the commands tell of a run whose outcome they know: what it moved, that it is over, and advice that works."""

from __future__ import annotations

import json
import re
import shlex

import pytest

from orchestration_integrations import OrchestrationHttpHook, SqliteRunStore
from orchestration_integrations.server import EmbeddedServer
from tests.commands import invoked

SEND = {
    "send": {
        "source": {"account": {"id": "world"}},
        "destination": {"account": {"id": "shop"}},
        "amount": {"amount": "5", "asset": "USD/2"},
    }
}
TWICE = {"name": "twice", "stages": [SEND, SEND]}


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
    cancel = ["cancel", "--run-key", "k", "--timeout", "3", "--retry-budget", "0.2"]
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

"""A call with a definition that is refused leaves no workflow behind: its name would no longer mean one workflow."""

from __future__ import annotations

import json

import pytest

from orchestration_integrations import (
    AuthenticationError,
    KeyReusedError,
    MemoryRunStore,
    OrchestrationHttpHook,
    SqliteRunStore,
    ValidationError,
    WaitTimeoutError,
)
from orchestration_integrations.server import EmbeddedServer
from tests.commands import invoked
from tests.conftest import open_hook
from tests.core.test_answers import World
from tests.gates import variables_of


def paying(amount="100", **more):
    send = {
        "source": {"account": {"id": "world"}},
        "destination": {"account": {"id": "shop"}},
        "amount": {"amount": amount, "asset": "USD/2"},
        **more,
    }
    return {"name": "payout", "stages": [{"send": send}]}


LONG = {"name": "long", "stages": [{"delay": {"duration": "24h"}}]}


@pytest.fixture(params=[1, 2, 3])
def server(request):
    with EmbeddedServer(request.param) as started:
        started.number = request.param
        yield started


@pytest.fixture
def hook(kind, server):
    return open_hook(kind, base_url=server.url)


def made(server):
    with OrchestrationHttpHook(base_url=server.url) as looking:
        return [one.id for one in looking.list_workflows() if one.deleted_at is None]


def refused(hook, kind, definition, **options):
    with pytest.raises(kind) as caught:
        hook.run_once(definition, run_key="k", **options)
    return caught.value


@pytest.mark.parametrize("ended", [True, False], ids=["ended", "runs"])
def test_a_key_that_stands_for_another_payment(server, hook, ended):
    store, first = MemoryRunStore(), paying() if ended else LONG
    if ended:
        hook.run_once(first, run_key="k", store=store)
    else:
        refused(hook, WaitTimeoutError, first, store=store, timeout=1, on_timeout="leave")
    before = made(server)
    error = refused(hook, KeyReusedError, paying("101"), store=store)
    assert (error.differs, error.instance_id) == ("workflow", store.load("k").instance_id)
    assert made(server) == before
    if ended:
        assert hook.run_once(paying("101"), run_key="k", store=store, on_changed="adopt").instance.state == "succeeded"
        assert made(server) == before
        hook.run_once(paying("101"), run_key="another", store=store)
        assert len(made(server)) == 2


def test_what_can_be_checked_is_checked_before(server, hook):
    error = refused(hook, ValidationError, paying("${amount}"), store=MemoryRunStore())
    assert "of workflow 'payout' needs the variable 'amount'" in str(error)
    names = {"first": "1", "second": "2"}
    crowded = paying(metadata={"of": "${first} and ${second}"})
    if server.number == 1:
        error = refused(hook, ValidationError, crowded, variables=names, store=MemoryRunStore())
        assert "has two variables in one string" in str(error)
    error = refused(
        hook, ValidationError, paying(), variables={"x": "1"}, store=MemoryRunStore(), strict_variables=True
    )
    assert "workflow 'payout' has no placeholder for variables.x" in str(error)
    assert made(server) == []


def test_a_token_that_may_create_nothing(server, hook):
    server.fault("create_workflow", "status", -1, code=403)
    store = MemoryRunStore()
    error = refused(hook, AuthenticationError, paying(), store=store)
    assert (error.run_may_exist, store.load("k")) == (False, None)
    server.clear_faults()
    hook.run_once(paying(), run_key="k", store=store)
    server.fault("create_workflow", "status", -1, code=403)
    refused(hook, KeyReusedError, paying("101"), store=store)
    assert server.balance("shop", "USD/2") == 100


def test_a_run_goes_on_though_its_workflow_was_deleted(server, hook):
    """Nothing is created for what is on record."""
    store = MemoryRunStore()
    refused(hook, WaitTimeoutError, LONG, store=store, timeout=1, on_timeout="leave")
    hook.delete_workflow(store.load("k").workflow_id)
    error = refused(hook, WaitTimeoutError, LONG, store=store, timeout=1, on_timeout="leave")
    assert (error.instance_id, made(server)) == (store.load("k").instance_id, [])


@pytest.mark.parametrize("server", [1, 3], indirect=True)
def test_a_new_run_of_a_workflow_that_was_deleted(server, hook):
    """It is created before the old run is cancelled, and the cancel is done once."""
    store = MemoryRunStore()
    first = refused(hook, WaitTimeoutError, LONG, store=store, timeout=1, on_timeout="leave").instance_id
    hook.delete_workflow(store.load("k").workflow_id)
    store.settle("k")
    second = refused(hook, WaitTimeoutError, LONG, store=store, timeout=2, on_timeout="leave").instance_id
    assert second != first
    assert hook.get_instance(first).state == "cancelled"
    assert made(server) == [hook.get_instance(second).workflow_id]
    assert server.record().requests["abort_instance"] == 1


@pytest.mark.parametrize("server", [1], indirect=True)
def test_a_field_that_the_server_drops_makes_no_other_payment(server, hook):
    """What the server keeps of the definition is what is compared."""
    store = MemoryRunStore()
    first = hook.run_once(paying(metadata={"order": "17"}), run_key="k", store=store)
    again = hook.run_once(paying(metadata={"order": "17"}), run_key="k", store=store)
    assert again.instance.id == first.instance.id
    assert server.balance("shop", "USD/2") == 100


@pytest.mark.parametrize("server", [2], indirect=True)
def test_a_field_more_is_another_payment_where_the_server_keeps_it(server, hook):
    store = MemoryRunStore()
    hook.run_once(paying(), run_key="k", store=store)
    refused(hook, KeyReusedError, paying(metadata={"order": "17"}), store=store)


def test_a_run_that_another_call_starts_between_the_look_and_the_creation():
    """Without a record of its own, whoever comes second finds that run in the workflow that is there by then."""
    world, others = World("sync", generation=2), []

    def rewrite(request, body):
        if request.method == "GET" and request.url.path.endswith("/workflows") and not others:
            other = world.hook()
            others.append("begins")
            workflow = other.ensure_workflow(paying(), gate=True).workflow
            variables = variables_of(workflow, "k", {})
            others.append(other.run_workflow(workflow.id, variables).id)
            world.core.advance(1)
            other.send_event(others[1], f"go:{variables['runGate']}")

    mine = world.hook(rewrite).run_once(paying(), run_key="k", store=MemoryRunStore())
    assert mine.instance.id == others[1]
    assert world.core.record().requests["create_workflow"] == 1


def test_the_command_leaves_the_name_of_a_workflow_with_one_meaning(server, tmp_path):
    file, store = tmp_path / "payout.yaml", SqliteRunStore(tmp_path / "runs.db")
    env = {"ORCHESTRATION_URL": server.url, "ORCHESTRATION_STORE": store.path}
    run = ["run", str(file), "--run-key", "order-17", "--json"]
    file.write_text(json.dumps(paying()))
    assert invoked(*run, env=env).exit_code == 0
    file.write_text(json.dumps(paying("101")))
    done = invoked(*run, env=env)
    assert (done.exit_code, json.loads(done.stdout)["error"]) == (2, "KeyReusedError")
    file.write_text(json.dumps(paying("${amount}")))
    assert invoked(*run[:2], "--run-key", "order-18", env=env).exit_code == 2
    for command in (["run", "payout", "--run-key", "order-17"], ["reconcile", "payout"], ["unreleased", "payout"]):
        assert invoked(*command, env=env).exit_code == 0

"""An event that the server refuses, and a stage of which nobody can see whether it listens: the reason of the server is
told, and never that the stage did not wait."""

from __future__ import annotations

import json

import pytest

from orchestration_integrations import (
    AuthenticationError,
    EventNotDeliveredError,
    OrchestrationError,
    ServerError,
    ValidationError,
)
from orchestration_integrations.cli.exit_codes import REFUSED, TIMED_OUT, UNKNOWN, status_of
from orchestration_integrations.procedures import events
from orchestration_integrations.server import EmbeddedServer
from tests.commands import invoked
from tests.conftest import open_hook
from tests.outside import eventually

WAITS = {"name": "waits", "stages": [{"wait_event": {"event": "go"}}]}
REFUSALS = {
    "401": ({"code": 401}, AuthenticationError),
    "403": ({"code": 403}, AuthenticationError),
    "400": ({"code": 400, "error_code": "VALIDATION"}, ValidationError),
    "409": ({"code": 409, "error_code": "CONFLICT"}, ServerError),
}


@pytest.fixture
def server():
    with EmbeddedServer(2) as started:
        yield started


@pytest.fixture
def hook(kind, server):
    return open_hook(kind, base_url=server.url)


@pytest.fixture
def waiting(hook):
    """A run that stands at its wait for ``go``."""
    instance_id = hook.run_workflow(hook.create_workflow(WAITS).id).id
    eventually(lambda: hook.get_instance_history(instance_id), "it waits", every=0.02)
    return instance_id


def told(hook, instance_id, **options):
    with pytest.raises(OrchestrationError) as caught:
        hook.send_event_when_ready(instance_id, "go", **options)
    return caught.value


@pytest.mark.parametrize("refusal", REFUSALS)
def test_an_event_that_is_refused_is_told_with_the_servers_reason(server, hook, waiting, refusal, monkeypatch):
    """At once and not at the deadline: also where there is none. The stage did wait all the time."""
    monkeypatch.setattr(events, "REFUSED_SECONDS", 0.4)
    options, kind = REFUSALS[refusal]
    server.fault("send_event", "status", -1, **options)
    error = told(hook, waiting, timeout=None)
    assert type(error) is kind
    assert error.status_code == options["code"]
    assert f"event 'go' to instance {waiting} was not delivered" in str(error)
    assert "stage 0 waited for it, and the server did not take it" in str(error)
    assert (error.run_may_exist, server.record().events) == (False, [])
    assert status_of(error) == (UNKNOWN if kind is ServerError else REFUSED)


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_look_that_is_refused_does_not_say_that_the_stage_did_not_wait(server, hook, waiting, refusal, monkeypatch):
    monkeypatch.setattr(events, "REFUSED_SECONDS", 0.4)
    options, kind = REFUSALS[refusal]
    server.fault("get_instance_history", "status", -1, **options)
    error = told(hook, waiting, timeout=None)
    assert type(error) is kind
    assert "whether stage 0 waits for it could not be read" in str(error)
    assert (error.run_may_exist, status_of(error)) == (True, UNKNOWN)
    assert server.record().requests.get("send_event", 0) == 0


@pytest.mark.parametrize("operation", ["send_event", "get_instance_history"])
def test_a_refusal_is_told_at_the_deadline_too(server, hook, waiting, operation):
    server.fault(operation, "status", -1, code=403)
    error = told(hook, waiting, timeout=0.5)
    assert isinstance(error, AuthenticationError)


@pytest.mark.parametrize("operation", ["send_event", "get_instance_history"])
def test_a_refusal_that_passes_is_none(server, hook, waiting, operation):
    """A gateway that is being changed."""
    server.fault(operation, "status", 2, code=403)
    assert hook.send_event_when_ready(waiting, "go", timeout=20).id == waiting


@pytest.mark.parametrize(
    ("operation", "code", "said"),
    [
        ("send_event", 429, "stage 0 waited for it, and the server did not take it"),
        ("get_instance_history", 503, "whether stage 0 waits for it could not be read"),
    ],
)
def test_an_outage_to_the_deadline_is_no_stage_that_did_not_wait(server, hook, waiting, operation, code, said):
    server.fault(operation, "status", -1, code=code)
    error = told(hook, waiting, timeout=0.6)
    assert isinstance(error, EventNotDeliveredError)
    assert (error.reason, error.instance, status_of(error)) == ("not_ready", None, UNKNOWN)
    assert said in str(error)


def test_a_stage_that_was_seen_not_to_wait_has_not_waited(server, hook):
    stages = [{"delay": {"duration": "1h"}}, *WAITS["stages"]]
    instance_id = hook.run_workflow(hook.create_workflow({"name": "late", "stages": stages}).id).id
    server.fault("send_event", "status", -1, code=403)
    error = told(hook, instance_id, timeout=0.5)
    assert (error.reason, status_of(error)) == ("not_ready", TIMED_OUT)
    assert "stage 1 did not wait for it in time" in str(error)


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ([*WAITS["stages"], {"wait_event": {"event": "go on"}}], "no stage waits for it; they wait for 'go', 'go on'"),
        ([{"delay": {"duration": "1h"}}], "no stage waits for it; none of them waits for an event"),
    ],
)
def test_a_name_that_nobody_waits_for_is_told_with_those_that_are_waited_for(hook, stages, said):
    workflow = hook.ensure_workflow({"name": "names", "stages": stages}, gate=True, checkpoints=True).workflow
    instance_id = hook.start(workflow.id, run_key=said, first_attempt=True).id
    with pytest.raises(EventNotDeliveredError) as caught:
        hook.send_event_when_ready(instance_id, "og", timeout=5)
    assert (caught.value.reason, status_of(caught.value)) == ("no_such_stage", REFUSED)
    assert str(caught.value).endswith(said)


def test_a_read_that_is_refused_after_the_instance_was_seen_says_that_it_exists(server, hook):
    stages = [{"delay": {"duration": "1h"}}, *WAITS["stages"]]
    instance_id = hook.run_workflow(hook.create_workflow({"name": "late", "stages": stages}).id).id
    hook.get_instance(instance_id)
    server.fault("get_instance", "status", -1, skip=1, code=401)
    error = told(hook, instance_id, timeout=5)
    assert (type(error), error.run_may_exist, status_of(error)) == (AuthenticationError, True, UNKNOWN)
    error = told(hook, instance_id, timeout=5)
    assert (error.run_may_exist, status_of(error)) == (False, REFUSED), "nobody has seen one"


@pytest.mark.parametrize(("operation", "status"), [("send_event", 2), ("get_instance_history", 3)])
def test_the_command_says_why_an_event_was_not_taken(server, hook, waiting, operation, status):
    server.fault(operation, "status", -1, code=403)
    send = ["events", "send", waiting, "go", "--timeout", "0.5", "--json", "--url", server.url]
    done = invoked(*send)
    (error,) = map(json.loads, done.stdout.splitlines())
    assert (done.exit_code, error["exit_status"], error["error"]) == (status, status, "AuthenticationError")
    assert (error["instance_id"], "403" in error["message"]) == (waiting, True)
    server.clear_faults()
    assert invoked(*send).exit_code == 0

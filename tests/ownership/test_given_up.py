"""What is told of a run that its waiter has given up: no more than was seen of it."""

from __future__ import annotations

import pytest

from orchestration_integrations import (
    MemoryRunStore,
    OrchestrationError,
    OrchestrationHttpHook,
    StateUnknownError,
    WaitTimeoutError,
)
from orchestration_integrations.ownership import owned_run
from orchestration_integrations.server import EmbeddedServer

WAITS = {"name": "waits", "stages": [{"wait_event": {"event": "go"}}]}


@pytest.fixture
def server():
    with EmbeddedServer(2) as running:
        yield running


@pytest.fixture
def hook(server):
    with OrchestrationHttpHook(base_url=server.url) as opened:
        yield opened


@pytest.fixture
def store():
    return MemoryRunStore()


def unreadable(server, code=503):
    for operation in ("get_instance", "list_instances"):
        server.fault(operation, "status", 1000, code=code)


@pytest.mark.parametrize("limit", [{"timeout": 2.0}, {"read_budget": 1.0}], ids=lambda one: next(iter(one)))
def test_a_run_that_could_not_be_read_is_not_said_to_run(server, hook, store, limit):
    limit["on_stage"] = lambda _: unreadable(server)
    with pytest.raises((WaitTimeoutError, StateUnknownError)) as caught:
        hook.run_once(WAITS, run_key="k", store=store, poll_interval=0.05, on_timeout="leave", **limit)
    assert "may still run" in str(caught.value)
    assert "left running" not in str(caught.value)


def test_a_run_that_was_seen_to_run_is_said_to(hook, store):
    with pytest.raises(WaitTimeoutError, match="it was left running") as caught:
        hook.run_once(WAITS, run_key="k", store=store, poll_interval=0.05, on_timeout="leave", timeout=1.0)
    assert caught.value.seen_running


def test_a_run_that_was_seen_to_succeed_amid_its_cancel_is_not_said_to_run(server, hook, store, monkeypatch):
    plain = owned_run.cancel

    def succeeds_first(instance_id, **given):
        with OrchestrationHttpHook(base_url=server.url) as other:
            other.send_event_when_ready(instance_id, "go")
            other.wait(instance_id, poll_interval=0.05)
        outcome = yield from plain(instance_id, **given)
        unreadable(server)
        return outcome

    monkeypatch.setattr(owned_run, "cancel", succeeds_first)
    with pytest.raises(WaitTimeoutError) as caught:
        hook.run_once(WAITS, run_key="k", store=store, poll_interval=0.05, timeout=1.0)
    assert "it had already ended by itself (succeeded)" in str(caught.value)
    assert "run" not in str(caught.value).partition("; ")[2].replace("already ended", "")
    assert (caught.value.seen_running, caught.value.outcome.status) == (False, "already_ended")
    assert caught.value.instance.state == "succeeded"


def test_a_time_out_whose_cancel_nobody_saw_is_not_known_to_run(hook, store, monkeypatch):
    """Of generation 2 nobody sees the end of an aborted run that waits for an event."""
    plain = owned_run.cancel
    monkeypatch.setattr(owned_run, "cancel", lambda one, **given: plain(one, **{**given, "timeout": 1.0}))
    with pytest.raises(WaitTimeoutError) as caught:
        hook.run_once(WAITS, run_key="k", store=store, poll_interval=0.05, timeout=1.0)
    assert (caught.value.outcome.status, caught.value.seen_running) == ("not_confirmed", False)


def test_a_time_out_whose_cancel_was_seen_is_no_doubt(store):
    with EmbeddedServer(3) as server, OrchestrationHttpHook(base_url=server.url) as hook:
        with pytest.raises(WaitTimeoutError) as caught:
            hook.run_once(WAITS, run_key="k", store=store, poll_interval=0.05, timeout=1.0)
        assert (caught.value.outcome.status, caught.value.seen_running) == ("cancelled", True)


@pytest.mark.parametrize("code", [400, 401, 403, 503])
def test_a_start_that_cannot_read_the_run_on_record_leaves_nothing_to_settle(server, hook, store, code):
    server.fault("get_instance", "status", 1000, code=code)
    with pytest.raises(OrchestrationError) as caught:
        hook.run_once(WAITS, run_key="k", store=store, start_timeout=1.0)
    assert "settled" not in str(caught.value)
    assert "an attempt with the same key goes on from there" in str(caught.value)
    assert server.record().released == []

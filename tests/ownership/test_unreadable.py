"""An owned run whose state can no longer be read: cancelled or left, as for a time-out, and said so."""

from __future__ import annotations

import pytest

from orchestration_integrations import (
    AuthenticationError,
    MemoryRunStore,
    NotFoundError,
    OwnerGoneError,
    StateUnknownError,
    ValidationError,
    WaitTimeoutError,
)
from orchestration_integrations.cli.exit_codes import UNKNOWN, status_of
from tests.core.test_answers import PAYMENT, SIGN_IN, World

LONG = {"name": "d", "stages": [{"delay": {"duration": "24h"}}]}


@pytest.mark.parametrize(
    ("on_timeout", "said", "ends"), [("cancel", "was cancelled", 1), ("leave", "left as it is, and may still run", 0)]
)
def test_a_run_whose_state_cannot_be_read_is_cancelled_or_left_as_asked(kind, on_timeout, said, ends):
    world = World(kind, generation=3)
    shown: list[str] = []

    def rewrite(request, body):
        if request.method == "PUT":
            shown.clear()
            return None
        if request.method != "GET" or "/history" in request.url.path or "/instances/" not in request.url.path:
            return None
        if len(shown) > 1:
            return SIGN_IN
        if any(row["stage"] > 0 for row in body["data"].get("status") or ()):
            shown.append("released")
        return None

    with pytest.raises(StateUnknownError, match=said) as caught:
        world.hook(rewrite).run_once(LONG, run_key="k", store=MemoryRunStore(), on_timeout=on_timeout, read_budget=30)
    instance = world.hook().get_instance(caught.value.instance_id)
    assert instance.terminated is bool(ends)
    assert world.core.record().requests.get("abort_instance", 0) == ends


REFUSALS = {
    "401": {"code": 401},
    "403": {"code": 403},
    "400": {"code": 400, "error_code": "VALIDATION"},
    "404": {"code": 404, "error_code": "NOT_FOUND"},
}


def refused_amid_its_wait(world, refusal, calls, **options):
    """What ``run_once`` raises where its run is begun and then no call of this name is let in; an abort mends that,
    where it comes through."""
    begun: list[str] = []

    def rewrite(request, body):
        if request.method == "PUT" and calls == "get_instance":
            world.core.clear_faults()
        row = request.method == "GET" and "/instances/" in request.url.path and "/history" not in request.url.path
        if row and not begun and any(one["stage"] > 0 for one in body["data"].get("status") or ()):
            begun.append(body["data"]["id"])
            world.core.fault(calls, "status", -1, **REFUSALS[refusal])

    with pytest.raises((AuthenticationError, ValidationError, NotFoundError)) as caught:
        world.hook(rewrite).run_once(LONG, run_key="k", **options)
    assert status_of(caught.value) == UNKNOWN, "whatever became of it, a script must not pay by other means"
    assert begun[0] in str(caught.value)
    world.core.clear_faults()
    return caught.value, world.hook().get_instance(begun[0])


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_run_whose_state_may_not_be_read_is_cancelled_or_left_as_asked(kind, refusal):
    """A refusal of a read says no more of the run than an outage does."""
    world, store = World(kind, generation=3), MemoryRunStore()
    error, instance = refused_amid_its_wait(world, refusal, "get_instance", store=store, on_timeout="leave")
    assert "it was left as it is, and may still run; an attempt with its key goes on waiting for it" in str(error)
    assert (instance.terminated, store.load("k").hold) == (False, False)
    world = World(kind, generation=3)
    error, instance = refused_amid_its_wait(world, refusal, "get_instance", store=MemoryRunStore())
    assert str(error).endswith("; it was cancelled")
    assert instance.state == "cancelled"


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_run_whose_cancel_is_refused_too_may_still_run(kind, refusal):
    world, store = World(kind, generation=3), MemoryRunStore()
    error, instance = refused_amid_its_wait(world, refusal, "any", store=store)
    assert "its cancel failed, and it may still run; a stop is on record: " in str(error)
    assert (instance.terminated, store.load("k").hold) == (False, True)


def test_a_time_out_stays_one_where_its_cancel_is_refused(kind):
    """The error of the cancel does not take the place of what happened to the run."""
    world = World(kind, generation=3)

    def rewrite(request, body):
        if request.method == "PUT":
            world.core.fault("any", "status", -1, code=401)

    world.core.fault("abort_instance", "status", -1, code=401)
    with pytest.raises(WaitTimeoutError, match="its cancel failed, and it may still run") as caught:
        world.hook(rewrite).run_once(LONG, run_key="k", store=MemoryRunStore(), timeout=30)
    assert status_of(caught.value) == UNKNOWN, "nobody saw what came of the cancel"


def test_a_run_that_is_no_longer_wanted_is_told_of_where_its_cancel_is_refused(kind):
    """At its checkpoint: the error is that of the owner's word, not one of the settings."""
    world, asked = World(kind, generation=3), []

    def wants():
        asked.append(1)
        if len(asked) > 1:
            world.core.fault("any", "status", -1, code=401)
        return len(asked) < 2

    pays = {"name": "pays", "stages": [PAYMENT, PAYMENT]}
    with pytest.raises(OwnerGoneError, match="its cancel failed, and it may still run; a stop is on record") as caught:
        world.hook().run_once(pays, run_key="k", store=MemoryRunStore(), checkpoints=True, wants=wants)
    assert status_of(caught.value) == UNKNOWN
    assert caught.value.outcome is None
    assert world.paid == 1


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_cancel_by_the_record_of_a_run_says_that_it_may_run(kind, refusal):
    """Also where nobody has seen it yet: the server gave its id. Of a run that nobody has on record it says nothing."""
    world, store = World(kind, generation=2), MemoryRunStore()
    with pytest.raises(WaitTimeoutError):
        world.hook().run_once(LONG, run_key="k", store=store, on_timeout="leave", timeout=5)
    instance_id = store.load("k").instance_id
    world.core.fault("any", "status", -1, **REFUSALS[refusal])
    for kept, stands in (({}, False), ({"store": store, "run_key": "k"}, True)):
        with pytest.raises((AuthenticationError, ValidationError, NotFoundError)) as caught:
            world.hook().cancel(instance_id, **kept)
        assert caught.value.run_may_exist is stands
        assert ("the stop is on record, so whoever waits for the run lets it pass no" in str(caught.value)) is stands
    assert store.load("k").hold
    with pytest.raises(ValidationError, match="names instance") as caught:
        world.hook().cancel("another", store=store, run_key="k")
    assert not caught.value.run_may_exist, "nothing was changed and nothing was sent"


@pytest.mark.parametrize("refusal", ["400", "401", "403"])
@pytest.mark.parametrize("times", [1, -1])
def test_a_refused_read_does_not_end_a_cancel_before_its_limit(kind, refusal, times):
    """The abort was taken, and a token that is being renewed is soon right again."""
    world = World(kind, generation=3)

    def rewrite(request, body):
        if request.method == "PUT":
            world.core.fault("get_instance", "status", times, **REFUSALS[refusal])

    hook = world.hook(rewrite)
    workflow = hook.ensure_workflow(LONG, gate=False).workflow
    begun, instance_id = world.clock.time(), hook.run_workflow(workflow.id).id
    if times == 1:
        assert hook.cancel(instance_id, timeout=8).status == "cancelled"
        return
    with pytest.raises((AuthenticationError, ValidationError), match="may still run and move money") as caught:
        hook.cancel(instance_id, timeout=8)
    assert caught.value.run_may_exist
    assert 6 <= world.clock.time() - begun <= 10, "the limit, less a pause"

"""An owned run whose state can no longer be read: cancelled or left, as for a time-out, and said so."""

from __future__ import annotations

import pytest

from orchestration_integrations import (
    AuthenticationError,
    MemoryRunStore,
    NotFoundError,
    StateUnknownError,
    ValidationError,
    WaitTimeoutError,
)
from orchestration_integrations.cli.exit_codes import TIMED_OUT, UNKNOWN, status_of
from tests.core.test_answers import SIGN_IN, World

LONG = {"name": "d", "stages": [{"delay": {"duration": "24h"}}]}


@pytest.mark.parametrize(("on_timeout", "said", "ends"), [("cancel", "was cancelled", 1), ("leave", "left running", 0)])
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
    assert status_of(caught.value) == TIMED_OUT, "the last look saw it run"

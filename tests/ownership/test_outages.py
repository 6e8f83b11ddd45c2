"""A server that cannot be read is a passing trouble: a later attempt finds out, so until then nothing is ambiguous."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from orchestration_integrations import (
    AmbiguousRunError,
    AuthenticationError,
    InstanceCancelledError,
    MemoryRunStore,
    OrchestrationError,
    StateUnknownError,
    WaitTimeoutError,
)
from orchestration_integrations.api.errors import is_mendable
from orchestration_integrations.cli.exit_codes import UNKNOWN, status_of
from tests.core.test_answers import PAYMENT, World

PAYS = {"name": "pays", "stages": [PAYMENT]}
LATER = {"name": "later", "stages": [{"delay": {"duration": "1h"}}, PAYMENT]}
CARRIES = {"name": "carries", "stages": [{"send": {**PAYMENT["send"], "metadata": {"key": "${runKey}"}}}]}
OUTAGES: dict[str, dict[str, Any]] = {
    "503": {"kind": "status", "code": 503},
    "a plain 500": {"kind": "status", "code": 500},
    "a gateway's 404": {"kind": "html", "code": 404},
    "refused": {"kind": "refuse"},
    "401": {"kind": "status", "code": 401},
}
MOST = 40


def begin_outage(world: World, outage: str) -> None:
    world.core.fault("any", count=-1, **OUTAGES[outage])


def away_after(world: World, number: int, outage: str) -> Any:
    """A hook to a server that goes away after so many answers."""
    answered: list[str] = []

    def rewrite(request: httpx.Request, body: object) -> None:
        answered.append(request.url.path)
        if len(answered) == number:
            begin_outage(world, outage)

    if number == 0:
        begin_outage(world, outage)
    return world.hook(rewrite)


def arguments(store: MemoryRunStore) -> dict[str, Any]:
    return {"run_key": "k", "store": store, "start_timeout": 20, "read_budget": 20, "on_timeout": "leave"}


def error_of(hook: Any, store: MemoryRunStore) -> OrchestrationError | None:
    try:
        hook.run_once(PAYS, **arguments(store))
    except OrchestrationError as error:
        return error
    return None


@pytest.mark.parametrize("outage", OUTAGES)
@pytest.mark.parametrize("lost", [False, True])
def test_whenever_an_outage_begins_a_later_attempt_goes_on_with_the_one_run(kind: str, outage: str, lost: bool) -> None:
    for number in range(MOST):
        world, store = World(kind, generation=1), MemoryRunStore()
        if lost:
            world.core.fault("run_workflow", "cut_after")
        first = error_of(away_after(world, number, outage), store)
        if first is None:
            break  # it was done before the outage began
        before = store.load("k")
        error, record = error_of(world.hook(), store), store.load("k")
        for one in (first, error):
            assert isinstance(one, StateUnknownError) or is_mendable(one), f"{number}: {one!r}"
            assert "settled" not in str(one)
            assert record is None or status_of(one) == UNKNOWN, "a script must not pay by other means"
        assert record == before, f"{number}: the attempt could do nothing, so it is not on record"
        if record is not None and record.instance_id is not None:
            assert record.instance_id in str(error) or isinstance(error, AuthenticationError)
        world.core.clear_faults()
        result = world.hook().run_once(PAYS, **arguments(store))
        assert result.instance.state == "succeeded"
        assert record is None or record.instance_id in (None, result.instance.id)
        assert len(world.core.record().money) == 1, number
    else:
        raise AssertionError("it never came to an end")


def test_a_run_on_record_that_cannot_be_read_is_named_with_what_is_known_of_it(kind: str) -> None:
    world, store = World(kind), MemoryRunStore()
    with pytest.raises(WaitTimeoutError, match="left running"):
        world.hook().run_once(LATER, **arguments(store), timeout=5)
    instance_id = store.load("k").instance_id
    begin_outage(world, "503")
    with pytest.raises(StateUnknownError) as caught:
        world.hook().run_once(LATER, **arguments(store))
    assert caught.value.instance_id == instance_id
    for said in (f"instance {instance_id} of key k", "may still run", "503", "goes on"):
        assert said in str(caught.value)


def test_an_attempt_does_not_contradict_the_end_that_an_earlier_one_told(kind: str) -> None:
    world, store = World(kind, generation=3), MemoryRunStore()
    with pytest.raises(WaitTimeoutError, match="it was cancelled"):
        world.hook().run_once(LATER, **{**arguments(store), "on_timeout": "cancel"}, timeout=5)
    begin_outage(world, "503")
    with pytest.raises(StateUnknownError, match="is on record as cancelled") as caught:
        world.hook().run_once(LATER, **arguments(store))
    assert "may" not in str(caught.value)
    world.core.clear_faults()
    with pytest.raises(InstanceCancelledError):
        world.hook().run_once(LATER, **arguments(store))


@pytest.mark.parametrize("reads", ["any", "list_instances", "get_instance_history"])
def test_without_a_gate_too_a_later_attempt_looks_again(kind: str, reads: str) -> None:
    """What cannot be read now may prove tomorrow that the run of an attempt that died is there."""
    world, store = World(kind), MemoryRunStore()
    workflow = world.hook().create_workflow(CARRIES)
    world.core.fault("run_workflow", "cut_after")
    world.core.fault("get_instance_history", "status", count=-1, code=503)
    with pytest.raises(AmbiguousRunError, match="its submit got no answer"):
        world.hook().run_once(workflow.id, first_attempt=True, **arguments(store))
    world.core.fault(reads, "status", count=-1, code=503)
    with pytest.raises(OrchestrationError, match="looks again") as caught:
        world.hook().run_once(workflow.id, **arguments(store))
    assert not isinstance(caught.value, AmbiguousRunError)
    world.core.clear_faults()
    world.hook().run_once(workflow.id, **arguments(store))
    assert len(world.core.record().started) == 1


def test_a_submit_whose_fate_stays_unknown_is_ambiguous_once_the_server_answers(kind: str) -> None:
    world, store = World(kind), MemoryRunStore()
    workflow = world.hook().create_workflow(PAYS)
    world.core.fault("run_workflow", "cut_after")
    for _ in range(2):
        with pytest.raises(AmbiguousRunError, match="settled="):
            world.hook().run_once(workflow.id, run_key="k", store=store, first_attempt=True, start_timeout=20)


@pytest.mark.parametrize("generation", [1, 3])
def test_whether_a_payment_was_under_way_is_read_again(kind: str, generation: int) -> None:
    world, store = World(kind, generation), MemoryRunStore()
    world.core.world("ledger stopped")
    with pytest.raises(WaitTimeoutError, match="was under way"):
        world.hook().run_once(PAYS, run_key="k", store=store, timeout=5)
    for operation in ("get_instance_history", "get_stage_history"):
        world.core.fault(operation, "status", count=-1, code=503)
    with pytest.raises(StateUnknownError, match="under way when it was cancelled could not be read"):
        world.hook().run_once(PAYS, run_key="k", store=store, rerun_failed=True)
    world.core.clear_faults()
    with pytest.raises(AmbiguousRunError, match="may have arrived all the same"):
        world.hook().run_once(PAYS, run_key="k", store=store, rerun_failed=True)
    assert len(world.core.record().started) == 1


def test_a_caller_who_keeps_no_record_is_told_that_a_run_may_exist(kind: str) -> None:
    """``start`` without a store: a plain error would read as "nothing was started"."""
    world = World(kind)
    workflow = world.hook().ensure_workflow(PAYS, gate=True).workflow
    world.core.fault("run_workflow", "cut_after")
    world.core.fault("list_instances", "status", count=-1, code=503)
    with pytest.raises(AmbiguousRunError):
        world.hook().start(workflow.id, run_key="k", first_attempt=True, timeout=20)

"""The answer to a submit that is about another run, or a definition that is another: never taken for one's own."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestration_integrations import AmbiguousRunError, AmbiguousSubmitError, MemoryRunStore
from tests.core.test_answers import PAYMENT, World, encoded

PAYOUT = {"name": "payout", "stages": [PAYMENT]}


def answered(world: World, instance_id: str) -> Any:
    """The first submit is carried out, and its answer is about an instance that was there before."""
    shown: list[str] = []
    other = world.hook().get_instance(instance_id)

    def rewrite(request: Any, body: object) -> bytes | None:
        if request.method != "POST" or not request.url.path.endswith("/instances") or shown:
            return None
        shown.append(instance_id)
        return encoded({"data": other.raw})

    return rewrite


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("how", ["ended", "running", "old and unreleased"])
def test_another_run_is_no_answer_to_a_submit(kind: str, gated: bool, how: str) -> None:
    world = World(kind)
    stages = [PAYMENT] if how == "ended" else [PAYMENT, {"wait_event": {"event": "more"}}]
    workflow = world.hook().ensure_workflow({"name": "payout", "stages": stages}, gate=gated).workflow
    if how == "old and unreleased":
        alices = world.hook().run_workflow(workflow.id, {"runGate": "alice", "runKey": "alice"})
        world.clock.sleep(3600)
    else:
        alices = world.hook().start(workflow.id, run_key="alice", first_attempt=True)
        world.clock.sleep(5)
    hook = world.hook(answered(world, alices.id))
    try:
        bobs = hook.start(workflow.id, run_key="bob", first_attempt=True, timeout=20)
    except AmbiguousRunError:
        assert not gated or how == "running"
    else:
        assert bobs.id != alices.id
        assert gated  # only there a lost answer can be mended


def test_another_run_is_no_answer_to_run_once(kind: str) -> None:
    world = World(kind)
    workflow = world.hook().ensure_workflow(PAYOUT, gate=True).workflow
    alices = world.hook().start(workflow.id, run_key="alice", first_attempt=True)
    world.clock.sleep(5)
    hook = world.hook(answered(world, alices.id))
    result = hook.run_once(workflow.id, run_key="bob", store=MemoryRunStore(), first_attempt=True)
    assert result.instance.id != alices.id
    assert world.paid == 2


def test_a_run_that_was_released_for_another_key_is_not_taken_for_released(kind: str) -> None:
    """Nothing in the answer shows that the run is another one; its gate does."""
    world = World(kind)
    workflow = world.hook().ensure_workflow(
        {"name": "p", "stages": [PAYMENT, {"wait_event": {"event": "x"}}]}, gate=True
    )
    alices = world.hook().start(workflow.workflow.id, run_key="alice", first_attempt=True)

    def rewrite(request: Any, body: Any) -> bytes | None:
        if request.method != "POST" or not request.url.path.endswith("/instances"):
            return None
        return encoded({"data": {**body["data"], "id": alices.id}})

    with pytest.raises(AmbiguousRunError):
        world.hook(rewrite).start(workflow.workflow.id, run_key="bob", first_attempt=True, timeout=20)


def test_another_definition_is_no_answer_to_ensure(kind: str) -> None:
    world = World(kind)

    def dearer(request: Any, body: object) -> bytes | None:
        if request.method != "POST" or not isinstance(body, dict):
            return None
        return json.dumps(body).replace('"100"', '"999900"').replace(": 100", ": 999900").encode()

    def deleted(request: Any, body: object) -> bytes | None:
        if request.method != "POST" or not isinstance(body, dict):
            return None
        return encoded({"data": {**body["data"], "deletedAt": "2026-01-01T00:00:00Z"}})

    for rewrite in (dearer, deleted):
        with pytest.raises(AmbiguousSubmitError, match="another definition"):
            world.hook(rewrite).ensure_workflow({**PAYOUT, "name": rewrite.__name__}, gate=True)


@pytest.mark.parametrize("generation", [1, 3])
def test_a_payment_under_way_stays_so_at_each_telling(kind: str, generation: int) -> None:
    """The first error said that money may have moved; the second said that none had, and how to run anew."""
    world = World(kind, generation)
    store = MemoryRunStore()
    workflow = world.hook().ensure_workflow(PAYOUT, gate=True).workflow
    world.core.world("ledger stopped")
    with pytest.raises(Exception, match="may have moved"):
        world.hook().run_once(workflow.id, run_key="k", store=store, first_attempt=True, timeout=2)
    world.core.world("ledger started")
    world.clock.sleep(120)
    for tell in (
        lambda: world.hook().run_once(workflow.id, run_key="k", store=store),
        lambda: world.hook().wait(store.load("k").instance_id),  # type: ignore[union-attr]
    ):
        with pytest.raises(Exception, match="may have moved, check the ledger") as caught:
            tell()
        assert not caught.value.moved.complete  # type: ignore[attr-defined]
        assert "another run key" not in str(caught.value)


def test_runs_of_an_unknown_workflow_are_not_none(kind: str) -> None:
    """``unreleased payout``, by its name, said that no run waits."""
    from orchestration_integrations import NotFoundError

    world = World(kind)
    with pytest.raises(NotFoundError):
        world.hook().list_unreleased("payout")

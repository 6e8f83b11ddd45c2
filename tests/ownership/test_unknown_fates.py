"""A fate that nobody knows stays unknown: over spoiled answers, and over a change of the workflow that is asked for."""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from orchestration_integrations import (
    AmbiguousRunError,
    KeyReusedError,
    MemoryRunStore,
    SqliteRunStore,
    TransportError,
    WaitTimeoutError,
)
from orchestration_integrations.ownership import observing
from orchestration_integrations.procedures.effects import pause
from orchestration_integrations.server import EmbeddedServer
from tests.conftest import open_hook
from tests.core.test_answers import PAYMENT, World, encoded
from tests.ownership.test_run_once import LATER, PAYS, paid

PAID = {"name": "paid", "stages": [PAYMENT]}


def spoiled(path: str, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> Any:
    """Changes answers about what the path names."""

    def rewrite(request: httpx.Request, body: Any) -> bytes | None:
        if request.method != "GET" or not re.fullmatch(path, request.url.path) or "data" not in (body or {}):
            return None
        changed = change(json.loads(json.dumps(body)))
        return None if changed is None else encoded(changed)

    return rewrite


def without_rows(body: dict[str, Any]) -> dict[str, Any] | None:
    return {"data": {**body["data"], "status": None}} if body["data"]["terminated"] else None


SPOILED = {
    "the instance has no rows": spoiled(r"(/v2)?/instances/[^/]+", without_rows),
    "the history ends at the gate": spoiled(r".*/history", lambda body: {"data": body["data"][:1]}),
    "the history is empty": spoiled(r".*[0-9a-f-]{36}/history", lambda body: {"data": []}),
    "the stage has no payment": spoiled(r".*/stages/1/history", lambda body: {"data": []}),
}


@pytest.mark.parametrize("generation", [1, 3])
@pytest.mark.parametrize("how", SPOILED)
def test_a_payment_under_way_is_not_forgotten_over_a_spoiled_answer(kind: str, generation: int, how: str) -> None:
    world, store = World(kind, generation), MemoryRunStore()
    arguments: dict[str, Any] = {"run_key": "k", "store": store}
    world.core.world("ledger stopped")
    with pytest.raises(WaitTimeoutError, match="was under way"):
        world.hook().run_once(PAID, **arguments, timeout=5)
    world.core.world("ledger started")
    with pytest.raises(AmbiguousRunError):
        world.hook(SPOILED[how]).run_once(PAID, **arguments, timeout=60, rerun_failed=True)
    assert len(world.core.record().started) == 1
    assert world.paid <= 1


def test_a_reading_that_its_time_cuts_off_does_not_undo_the_one_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    world, store = World("sync", 3), MemoryRunStore()
    real, readings = observing.read_moved, []

    def read_moved(*arguments: Any) -> Any:
        readings.append(arguments)
        yield from pause(0 if len(readings) == 1 else 30)  # so long does the server take
        return (yield from real(*arguments))

    arguments: dict[str, Any] = {"run_key": "k", "store": store}
    world.core.world("ledger stopped")
    with pytest.raises(WaitTimeoutError, match="was under way"):
        world.hook().run_once(PAID, **arguments, timeout=5)
    world.core.world("ledger started")
    monkeypatch.setattr(observing, "read_moved", read_moved)
    with pytest.raises(AmbiguousRunError):
        world.hook(SPOILED["the stage has no payment"]).run_once(PAID, **arguments, timeout=60, rerun_failed=True)
    assert len(readings) > 1


@pytest.mark.parametrize("generation", [1, 3])
@pytest.mark.parametrize("how", [name for name in SPOILED if name != "the instance has no rows"])
def test_a_cancel_that_could_not_see_all_says_so(kind: str, generation: int, how: str) -> None:
    world = World(kind, generation)
    workflow = world.hook().ensure_workflow(PAID, gate=True).workflow
    world.core.world("ledger stopped")
    instance = world.hook().start(workflow.id, run_key="k")
    world.clock.sleep(3.0)
    outcome = world.hook(SPOILED[how]).cancel(instance.id, timeout=10)
    assert outcome.status == "cancelled"
    assert not outcome.moved.complete


@pytest.mark.parametrize("amount", [100, 101])
@pytest.mark.parametrize("on_changed", ["refuse", "adopt"])
def test_a_gate_does_not_settle_what_was_submitted_without_one(
    kind: str, tmp_path: Any, amount: int, on_changed: str
) -> None:
    """The user reads that a gate is the cure, and gives the definition instead of the workflow's id."""
    with EmbeddedServer(2) as server:
        hook, store = open_hook(kind, base_url=server.url), SqliteRunStore(tmp_path / "runs.db")
        plain = hook.create_workflow(PAYS)
        server.fault("run_workflow", "cut_after", -1)
        arguments: dict[str, Any] = {"run_key": "k", "store": store, "start_timeout": 1.5, "on_changed": on_changed}
        with pytest.raises(AmbiguousRunError):
            hook.run_once(plain.id, {"amount": 100}, first_attempt=True, **arguments)
        server.clear_faults()
        gated = hook.ensure_workflow({**PAYS, "name": "other"}, gate=True).workflow
        for workflow in (PAYS, {**PAYS, "name": "renamed"}, gated.id):
            with pytest.raises(
                AmbiguousRunError, match=f"submitted it to workflow {plain.id}, without a gate"
            ) as caught:
                hook.run_once(workflow, {"amount": amount}, **arguments)
        assert len(server.record().started) == 1
        hook.run_once(PAYS, {"amount": amount}, **arguments, settled=caught.value.token)
        assert len(server.record().started) == 2


@pytest.mark.parametrize("same", [True, False])
def test_a_success_without_a_gate_stands_when_a_gate_is_asked_for(kind: str, tmp_path: Any, same: bool) -> None:
    with EmbeddedServer(2) as server:
        hook, store = open_hook(kind, base_url=server.url), SqliteRunStore(tmp_path / "runs.db")
        plain = hook.create_workflow(PAYS)
        first = hook.run_once(plain.id, {"amount": 100}, run_key="k", store=store, first_attempt=True)
        if same:
            again = hook.run_once(PAYS, {"amount": 100}, run_key="k", store=store)
            assert again.instance.id == first.instance.id
        else:
            with pytest.raises(KeyReusedError, match=r"variables\.amount differs"):
                hook.run_once(PAYS, {"amount": 101}, run_key="k", store=store)
        assert paid(server) == 100


def test_a_run_without_a_gate_that_goes_on_is_taken_up_when_a_gate_is_asked_for(kind: str, tmp_path: Any) -> None:
    with EmbeddedServer(2) as server:
        hook, store = open_hook(kind, base_url=server.url), SqliteRunStore(tmp_path / "runs.db")
        plain = hook.create_workflow(LATER)
        arguments: dict[str, Any] = {"run_key": "k", "store": store, "first_attempt": True}
        with pytest.raises(WaitTimeoutError, match="left running"):
            hook.run_once(plain.id, {"amount": 100}, **arguments, timeout=0.5, on_timeout="leave")
        arguments.pop("first_attempt")
        assert hook.run_once(LATER, {"amount": 100}, **arguments).instance.state == "succeeded"
        assert (len(server.record().started), paid(server)) == (1, 100)


def test_a_time_out_tells_one_story(kind: str, tmp_path: Any) -> None:
    """Not, in the traceback, first that the run was not cancelled and then that it was."""
    with EmbeddedServer(3) as server:
        hook = open_hook(kind, base_url=server.url)
        store = SqliteRunStore(tmp_path / "runs.db")
        with pytest.raises(WaitTimeoutError, match="it was cancelled") as caught:
            hook.run_once(LATER, {"amount": 100}, run_key="k", store=store, timeout=0.5)
        assert "it was not cancelled" not in "".join(traceback.format_exception(caught.value))


def test_a_server_that_is_away_asks_for_another_call_and_not_for_a_token(kind: str, tmp_path: Any) -> None:
    hook = open_hook(kind, base_url="http://127.0.0.1:1")
    store = SqliteRunStore(tmp_path / "runs.db")
    with pytest.raises(TransportError, match="this call started nothing") as caught:
        hook.run_once("w", {}, run_key="k", store=store, start_timeout=0.5)
    assert "base_url" in str(caught.value)
    assert "settled=" not in str(caught.value)

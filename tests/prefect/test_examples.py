"""Every example flow is run. What the orchestration server recorded decides, and every run must have had its gate."""

from __future__ import annotations

import asyncio
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling

from orchestration_integrations import ValidationError
from orchestration_integrations.server import EmbeddedServer

from .conftest import Process, errors_of, releases, until

EXAMPLES = Path(__file__).parents[2] / "example_flows"
pytestmark = pytest.mark.usefixtures("prefect_api")


@pytest.fixture(params=[3])
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(generation=request.param) as server:
        monkeypatch.setenv("ORCHESTRATION_URL", server.url)
        yield server
        started = [row["instance_id"] for row in server.record().started]
        assert started
        assert sorted(releases(server)) == sorted(started)  # all gated, each released once


def example(name: str, **changes: Any) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / name), **changes)


def test_all_examples_are_run_here() -> None:
    names = {file.name for file in EXAMPLES.glob("*.py")}
    assert names == {
        "asynchronous.py",
        "cancel_by_automation.py",  # in test_automations.py
        "cancel_by_transaction.py",
        "deployment_with_hooks.py",
        "fan_out.py",
        "human_approval.py",
        "payout_with_checkpoints.py",
        "run_and_wait.py",
    }


def test_run_and_wait(world: EmbeddedServer, capsys: pytest.CaptureFixture[str]) -> None:
    example("run_and_wait.py", run_name="__main__")
    assert "succeeded: 1 transactions" in capsys.readouterr().out
    assert world.balance("users:001", "EUR/2") == 100


def test_fan_out(world: EmbeddedServer, capsys: pytest.CaptureFixture[str]) -> None:
    example("fan_out.py", run_name="__main__")
    assert capsys.readouterr().out.count("succeeded") == 3
    assert [world.balance(f"users:00{number}", "EUR/2") for number in (1, 2, 3)] == [100, 250, 75]


def test_a_start_that_is_refused_leaves_the_others_paid_and_says_why(world: EmbeddedServer) -> None:
    pay_all = example("fan_out.py")["pay_all"].with_options(retries=0)
    with pytest.raises(ValidationError, match=r"variables.amount: .* reads '-5'"):
        pay_all({"users:001": 100, "users:002": -5, "users:003": 75})
    assert [world.balance(f"users:00{number}", "EUR/2") for number in (1, 2, 3)] == [100, 0, 75]


def test_asynchronous(world: EmbeddedServer) -> None:
    assert len(asyncio.run(example("asynchronous.py")["side_by_side"]())) == 2
    assert [world.balance(f"users:00{number}", "EUR/2") for number in (1, 2)] == [100, 100]


def test_cancel_by_transaction(world: EmbeddedServer) -> None:
    names = example("cancel_by_transaction.py")
    assert names["order"](1)["state"] == "succeeded"
    assert world.balance("shop", "EUR/2") == 4200
    with pytest.raises(names["OutOfStock"]):
        names["order"](2, in_stock=False, cooling_off="720h")
    assert sorted(map(str, errors_of(world).values())) == ["None", "canceled"]
    assert world.balance("shop", "EUR/2") == 4200


@pytest.mark.parametrize("world", [2, 3], indirect=True)
def test_payout_with_checkpoints(world: EmbeddedServer) -> None:
    names = example("payout_with_checkpoints.py")
    payees = ("reserve:1", "sellers:1", "fees")
    assert names["payout"](1)["state"] == "succeeded"
    assert [world.balance(one, "EUR/2") for one in payees] == [100, 2000, 50]
    with pytest.raises(names["Suspicious"]):
        names["payout"](2, suspicious=True)
    assert len(world.record().money) == 4  # three of the first payout, one of the second
    assert [world.balance(one, "EUR/2") for one in ("reserve:2", "sellers:2", "fees")] == [100, 0, 50]
    ends = sorted(map(str, errors_of(world).values()))
    assert ends == (["None"] if world.core.generation == 2 else ["None", "canceled"])


def run_of(deployment: str, **parameters: Any) -> FlowRun:
    def found() -> Any:
        with get_client(sync_client=True) as client:
            try:
                return client.read_deployment_by_name(deployment)
            except ObjectNotFound:
                return None

    deployed = until(found, f"{deployment} is served")
    with get_client(sync_client=True) as client:
        return client.create_flow_run_from_deployment(deployed.id, parameters=parameters)


def state_of(run: FlowRun) -> str:
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run.id).state
    return str(state.name) if state is not None else ""


def test_human_approval(world: EmbeddedServer) -> None:
    process = Process("approval", sys.executable, str(EXAMPLES / "human_approval.py"))
    try:
        run = run_of("approved-payout/approved-payout", payee="users:9", amount=500)
        until(lambda: state_of(run) == "Suspended", "it is suspended")
        assert world.balance("reserved", "EUR/2") == 500
        with get_client(sync_client=True) as client:
            client.resume_flow_run(run.id, run_input={"approved": True})
        until(lambda: state_of(run) == "Completed", "it is completed")
    finally:
        process.end()
    assert world.balance("reserved", "EUR/2") == 0
    assert world.balance("users:9", "EUR/2") == 500
    assert len(world.record().started) == 1


def test_deployment_with_hooks(world: EmbeddedServer) -> None:
    process = Process("hooks", sys.executable, str(EXAMPLES / "deployment_with_hooks.py"))
    try:
        run = run_of("subscription/subscription", subscriber="7")
        until(lambda: releases(world), "the run is released")
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run.id, Cancelling())
        until(lambda: state_of(run) == "Cancelled", "the flow run is cancelled")
    finally:
        process.end()
    assert list(errors_of(world).values()) == ["canceled"]
    assert world.balance("subscriptions:7", "EUR/2") == 0

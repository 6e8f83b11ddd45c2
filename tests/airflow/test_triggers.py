"""Triggers only read; only a user's kill makes one send a cancel."""

from __future__ import annotations

import asyncio
import importlib
import json
import time
from contextlib import suppress
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest
from asgiref.sync import async_to_sync

from orchestration_integrations import AsyncOrchestrationHttpHook, OrchestrationHttpHook, ValidationError, clock
from orchestration_integrations.airflow import hooks, triggers
from orchestration_integrations.airflow.compat import AIRFLOW_3_3, USER_ACTION, Sight
from orchestration_integrations.airflow.triggers import (
    OrchestrationInstanceEndedTrigger,
    OrchestrationInstanceTrigger,
    OrchestrationStageTrigger,
)
from tests.airflow.harness import BROKEN, LONG, SHORT, WAITS, begin, first_event, rebuilt, state_of

WRITES = ("abort_instance", "send_event", "run_workflow", "create_workflow", "delete_workflow")


def writes(server: Any) -> dict[str, int]:
    requests = server.record().requests
    return {name: requests[name] for name in WRITES if requests.get(name)}


def approve(server: Any, instance_id: str) -> None:
    with OrchestrationHttpHook(base_url=server.url) as http:
        http.send_event_when_ready(instance_id, "approve", timeout=30)


@pytest.mark.parametrize(
    "trigger",
    [
        OrchestrationInstanceTrigger("i"),
        OrchestrationInstanceTrigger("i", "conn", 12.5, 3, 4, True, 60),
        OrchestrationStageTrigger("i", 2, "listening", "go", "conn", 5.0, 1),
        OrchestrationInstanceEndedTrigger("w", ["failed"], "conn", 10),
    ],
)
def test_what_is_stored_is_plain_json_and_rebuilds_the_same(trigger: Any) -> None:
    path, kwargs = trigger.serialize()
    assert json.loads(json.dumps(kwargs)) == kwargs
    assert rebuilt(trigger).serialize() == (path, kwargs)
    assert not {"token", "password", "client_secret"} & set(kwargs)


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"states": "failed"}, "states"),
        ({"states": ["suceeded"]}, "states"),
        ({"states": []}, "states"),
        ({"poll_interval": 0}, "poll_interval"),
        ({"poll_interval": -1}, "poll_interval"),
        ({"workflow_id": ""}, "workflow_id"),
        ({"workflow_id": None}, "workflow_id"),
    ],
)
def test_a_watcher_that_would_never_tell_is_refused(given: dict[str, Any], path: str) -> None:
    with pytest.raises(ValidationError) as caught:
        OrchestrationInstanceEndedTrigger(**{"workflow_id": "w", **given})
    assert caught.value.path == path


def test_kwargs_of_other_releases_are_taken() -> None:
    one = OrchestrationInstanceTrigger(instance_id="i", something_new=1)
    assert one.serialize()[1]["orchestration_conn_id"] == "orchestration_default"
    assert OrchestrationStageTrigger(instance_id="i", something_new=1).until == "ended"


def test_two_copies_tell_the_same_and_change_nothing(server: Any) -> None:
    instance_id = begin(server, WAITS)
    before = writes(server)

    async def both() -> list[Any]:
        async def first() -> Any:
            async for event in OrchestrationInstanceTrigger(instance_id, poll_interval=0.2).run():
                return event.payload
            return None

        tasks = [asyncio.create_task(first()) for _ in range(2)]
        await asyncio.sleep(0.3)
        assert writes(server) == before
        async with AsyncOrchestrationHttpHook(base_url=server.url) as http:
            await http.send_event_when_ready(instance_id, "approve", timeout=30)
        sent = writes(server)
        events = await asyncio.wait_for(asyncio.gather(*tasks), 30)
        assert writes(server) == sent
        return list(events)

    one, other = asyncio.run(both())
    assert one == other
    assert one["status"] == "succeeded"
    assert one["result"]["instance_id"] == instance_id


@pytest.mark.parametrize("generation", [1, 2, 3])
def test_a_failure_is_an_event_not_an_exception(server: Any, generation: int) -> None:
    event = first_event(OrchestrationInstanceTrigger(begin(server, BROKEN), poll_interval=0.2))
    assert event["status"] == "failed"


def test_a_deadline_is_an_event_and_cancels_nothing(server: Any) -> None:
    instance_id = begin(server, LONG)
    event = first_event(OrchestrationInstanceTrigger(instance_id, deadline=time.time() + 0.5, poll_interval=0.2))
    assert event["status"] == "timeout"
    assert writes(server).get("abort_instance") is None


@pytest.mark.parametrize("shift", [1e6, -1e6])
def test_the_deadline_holds_on_a_host_whose_monotonic_clock_is_another(
    server: Any, monkeypatch: pytest.MonkeyPatch, shift: float
) -> None:
    real = time.monotonic
    monkeypatch.setattr(clock.SystemClock, "monotonic", lambda self: real() + shift)
    instance_id = begin(server, SHORT)
    event = first_event(OrchestrationInstanceTrigger(instance_id, deadline=time.time() + 30, poll_interval=0.2))
    assert event["status"] == "succeeded"


def test_an_unknown_instance_is_an_event(server: Any) -> None:
    one = OrchestrationInstanceTrigger("0e7f1d7e-0000-4000-8000-000000000000", row_grace=0)
    event = first_event(one)
    assert event["status"] == "error"
    assert "unknown" in event["message"]


def test_a_connection_that_is_missing_is_an_event(server: Any) -> None:
    assert first_event(OrchestrationInstanceTrigger("i", "no_such_connection"))["status"] == "error"


def killed(trigger: Any, *args: Any) -> None:
    """Run a trigger as a triggerer does, and cancel it."""

    async def run() -> None:
        task = asyncio.create_task(_drain(trigger))
        await asyncio.sleep(0.5)
        await cancelled_by_triggerer(trigger, task, *args)

    asyncio.run(run())


async def cancelled_by_triggerer(trigger: Any, task: asyncio.Task[None], *args: Any) -> None:
    """What a triggerer does: Airflow 3.3 calls ``on_kill`` where its own message arrives."""
    task.cancel(*args)
    with pytest.raises(asyncio.CancelledError):
        await task
    if trigger.arrived[:1] == (USER_ACTION,):
        await trigger.on_kill()
    await trigger.cleanup()


async def _drain(trigger: Any) -> None:
    """Run a trigger, and note a cancellation as it arrives in the task itself, where Airflow looks."""
    trigger.arrived = ()
    try:
        async for _ in trigger.run():
            pass
    except asyncio.CancelledError as error:
        trigger.arrived = error.args
        raise


@pytest.mark.parametrize("generation", [1])
@pytest.mark.parametrize("held", ["get_instance", "get_workflow"])
def test_a_kill_by_a_user_amid_a_request_cancels(
    server: Any, generation: int, held: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triggers, "AIRFLOW_3_3", True)
    instance_id = begin(server, LONG)
    server.fault(held, "stall", 1, seconds=5)
    trigger = OrchestrationInstanceTrigger(instance_id, cancel_on_kill=True)
    killed(trigger, USER_ACTION)
    assert state_of(server, instance_id) == "cancelled"


def test_a_kill_by_a_user_cancels_though_a_layer_below_loses_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggers, "AIRFLOW_3_3", True)
    on_kill = AsyncMock()
    monkeypatch.setattr(OrchestrationInstanceTrigger, "on_kill", on_kill)

    async def wait(self: Any) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise asyncio.CancelledError from None

    monkeypatch.setattr(OrchestrationInstanceTrigger, "_wait", wait)
    killed(OrchestrationInstanceTrigger("i", cancel_on_kill=True), USER_ACTION)
    on_kill.assert_awaited_once()


def test_a_kill_by_a_user_cancels_at_whatever_moment_it_comes(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among them each that the exchange with the server has."""
    monkeypatch.setattr(triggers, "AIRFLOW_3_3", True)
    instance_id = begin(server, LONG)
    on_kill = AsyncMock()
    monkeypatch.setattr(OrchestrationInstanceTrigger, "on_kill", on_kill)

    async def run() -> None:
        for rounds in range(1, 120):
            trigger = OrchestrationInstanceTrigger(instance_id, cancel_on_kill=True, poll_interval=0.01)
            task = asyncio.create_task(_drain(trigger))
            for _ in range(rounds):
                await asyncio.sleep(0.0005 if rounds % 2 else 0)
            await cancelled_by_triggerer(trigger, task, USER_ACTION)
            assert on_kill.await_count == rounds, f"no kill in round {rounds}"

    asyncio.run(run())


@pytest.mark.parametrize("generation", [1, 3])
def test_a_kill_by_a_user_cancels_once(server: Any, generation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggers, "AIRFLOW_3_3", True)
    instance_id = begin(server, LONG)
    killed(OrchestrationInstanceTrigger(instance_id, cancel_on_kill=True), USER_ACTION)
    assert server.record().requests["abort_instance"] == 1
    assert state_of(server, instance_id) == "cancelled"


def test_a_kill_by_a_user_can_be_without_effect(
    server: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(triggers, "AIRFLOW_3_3", True)
    monkeypatch.setattr(triggers, "KILL_SECONDS", 1.0)
    instance_id = begin(server, LONG)
    with caplog.at_level("INFO", "orchestration_integrations"):
        killed(OrchestrationInstanceTrigger(instance_id, cancel_on_kill=True), USER_ACTION)
    told = [one.getMessage() for one in caplog.records if one.name.startswith("orchestration_integrations")]
    assert sum("not_confirmed" in line for line in told) == 1
    assert not any("cancelled" in line for line in told)


@pytest.mark.parametrize("generation", [1])
def test_a_kill_is_carried_out_though_it_is_itself_cancelled(server: Any, generation: int) -> None:
    """As Airflow 3.3.2 does about a second later."""
    server.fault("abort_instance", "status", 2)
    instance_id = begin(server, LONG)

    async def run() -> None:
        task = asyncio.create_task(OrchestrationInstanceTrigger(instance_id, cancel_on_kill=True).on_kill())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(300):
            if not triggers._cancelling:
                break
            await asyncio.sleep(0.05)

    asyncio.run(run())
    assert state_of(server, instance_id) == "cancelled"


@pytest.mark.parametrize("generation", [1])
def test_a_shutdown_cancels_nothing(server: Any, generation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggers, "AIRFLOW_3_3", True)
    killed(OrchestrationInstanceTrigger(begin(server, LONG), cancel_on_kill=True))
    assert "abort_instance" not in server.record().requests


@pytest.mark.parametrize("generation", [1])
def test_a_kill_leaves_the_run_where_that_was_asked_for(server: Any, generation: int) -> None:
    killed(OrchestrationInstanceTrigger(begin(server, LONG), cancel_on_kill=False), USER_ACTION)
    assert "abort_instance" not in server.record().requests


def of_task(trigger: Any) -> Any:
    """The trigger with its task, as a triggerer sets it."""
    trigger.task_instance = SimpleNamespace(dag_id="dag", run_id="run", task_id="pay", map_index=-1, try_number=1)
    return trigger


@pytest.mark.parametrize("generation", [1])
@pytest.mark.parametrize(
    ("state", "cancelled"),
    [
        ("failed", True),
        ("skipped", True),
        ("success", False),  # R7
        ("scheduled", False),  # a clear, whose next try cancels it; or a copy of this trigger has fired
        ("running", False),
        ("deferred", False),
        (None, False),
        ("error", False),
    ],
)
def test_below_3_3_the_state_of_the_task_tells_a_kill_from_a_shutdown(
    server: Any, airflow_says: Any, monkeypatch: pytest.MonkeyPatch, generation: int, state: str, cancelled: bool
) -> None:
    airflow_says.task_state, airflow_says.away = state, state == "error"
    monkeypatch.setattr(triggers, "AIRFLOW_3_3", False)
    instance_id = begin(server, LONG)
    killed(of_task(OrchestrationInstanceTrigger(instance_id, cancel_on_kill=True)))
    assert ("abort_instance" in server.record().requests) is cancelled
    assert state_of(server, instance_id) == ("cancelled" if cancelled else "running")


@pytest.mark.parametrize("generation", [1])
@pytest.mark.parametrize("before_3_3", [True, False])
def test_a_kill_that_comes_anew_each_second_cancels_though_airflow_takes_its_time(
    server: Any, airflow_says: Any, monkeypatch: pytest.MonkeyPatch, generation: int, before_3_3: bool
) -> None:
    """A triggerer cancels at each round until the trigger is gone, and a last time when it ends."""
    monkeypatch.setattr(triggers, "AIRFLOW_3_3", not before_3_3)

    def slow(*arguments: Any, **named: Any) -> Sight:
        time.sleep(0.6)
        return Sight("failed")

    monkeypatch.setattr(triggers, "sight_of_task", slow)
    instance_id = begin(server, LONG)
    trigger = of_task(OrchestrationInstanceTrigger(instance_id, cancel_on_kill=True))

    async def run() -> None:
        task = asyncio.create_task(_drain(trigger))
        await asyncio.sleep(0.5)
        killing = asyncio.create_task(cancelled_by_triggerer(trigger, task, *(() if before_3_3 else (USER_ACTION,))))
        for number in range(3):
            await asyncio.sleep(0.2)
            (task if not task.done() else killing).cancel("shutting down" if number == 2 else "again")
        with suppress(asyncio.CancelledError):
            await killing
        for _ in range(300):
            if not triggers._cancelling:
                break
            await asyncio.sleep(0.05)

    asyncio.run(run())
    assert state_of(server, instance_id) == "cancelled"


@pytest.mark.parametrize("asking", ["state", "secrets", "token"])
def test_a_thread_has_the_triggerers_own_loop_ask_airflow(monkeypatch: pytest.MonkeyPatch, asking: str) -> None:
    """On Airflow 3.0 and 3.1 a question from another loop, which a plain thread gets, hangs the whole triggerer."""
    loops: list[Any] = []

    async def question() -> None:
        loops.append(asyncio.get_running_loop())

    def asks(*arguments: Any, **named: Any) -> Sight:
        async_to_sync(question)()
        return Sight("failed")

    monkeypatch.setattr(triggers, "sight_of_task", asks)
    monkeypatch.setattr(hooks, "mask_secret", asks)

    async def ask() -> Any:
        if asking == "state":
            await of_task(OrchestrationInstanceTrigger("i"))._asked()
        elif asking == "secrets":
            connection = SimpleNamespace(host="h", login="id", password="secret-text", extra="{}", port=None, schema="")
            monkeypatch.setattr(hooks, "get_async_connection", AsyncMock(return_value=connection))
            await hooks.OrchestrationHook().async_settings()
        else:
            await hooks._mask_token.ahear("secret-text")
        return asyncio.get_running_loop()

    own = asyncio.run(asyncio.wait_for(ask(), 20))
    assert loops
    assert all(loop is own for loop in loops)


@pytest.mark.parametrize("generation", [1])
@pytest.mark.parametrize(("state", "cancelled"), [("failed", True), ("success", False), (None, False), ("error", True)])
def test_a_users_kill_of_a_deferred_task_is_told_from_its_mark_as_a_success(
    server: Any, airflow_says: Any, monkeypatch: pytest.MonkeyPatch, generation: int, state: str, cancelled: bool
) -> None:
    """R7, on Airflow 3.3, where ``on_kill`` says that a user acted, and not how."""
    airflow_says.task_state, airflow_says.away = state, state == "error"
    monkeypatch.setattr(triggers, "AIRFLOW_3_3", True)
    instance_id = begin(server, LONG)
    killed(of_task(OrchestrationInstanceTrigger(instance_id, cancel_on_kill=True)), USER_ACTION)
    assert state_of(server, instance_id) == ("cancelled" if cancelled else "running")


def test_a_kill_for_which_airflow_gives_no_connection_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Airflow cancels ``on_kill`` itself meanwhile, so that nobody is left who would hear of the error."""

    async def away(_: Any) -> Any:
        await asyncio.sleep(0.1)
        raise RuntimeError("the API server is away")

    monkeypatch.setattr(hooks.OrchestrationHook, "get_async_conn", away)
    monkeypatch.setattr(OrchestrationInstanceTrigger, "_wish", lambda _: "unwanted")

    async def main() -> None:
        task = asyncio.create_task(OrchestrationInstanceTrigger("inst-1", cancel_on_kill=True).on_kill())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.2)

    asyncio.run(main())
    assert "instance inst-1 was not cancelled and may still run" in caplog.text
    assert "the API server is away" in caplog.text


@pytest.mark.skipif(not AIRFLOW_3_3, reason="triggers have on_kill from Airflow 3.3 on")
def test_airflow_calls_our_on_kill() -> None:
    from airflow.triggers.base import BaseTrigger

    assert OrchestrationInstanceTrigger.on_kill is not BaseTrigger.on_kill
    assert OrchestrationInstanceTrigger.supports_triggerer_queue is True


def test_only_what_asset_watchers_use_counts_as_a_watcher() -> None:
    """A triggerer tells its watchers from its triggers by this class."""
    base = importlib.import_module("airflow.triggers.base")
    watchers = getattr(base, "BaseEventTrigger", base.BaseTrigger)
    assert issubclass(OrchestrationInstanceEndedTrigger, watchers)
    for kind in (OrchestrationInstanceTrigger, OrchestrationStageTrigger):
        assert issubclass(kind, base.BaseTrigger)
        assert watchers is base.BaseTrigger or not issubclass(kind, watchers)


@pytest.mark.parametrize(
    ("stage", "until", "event", "status"),
    [
        (0, "begun", None, "reached"),
        (0, "ended", None, "reached"),
        (1, "listening", None, "reached"),
        (1, "listening", "approve", "reached"),
        (None, "listening", "approve", "reached"),
        (0, "listening", None, "over"),
        (1, "listening", "other", "timeout"),
        (2, "begun", None, "timeout"),
    ],
)
def test_stages(server: Any, stage: int | None, until: str, event: str | None, status: str) -> None:
    instance_id = begin(server, WAITS)
    one = OrchestrationStageTrigger(
        instance_id, stage, until, event, deadline=time.time() + (2 if status == "timeout" else 30), poll_interval=0.2
    )
    assert first_event(rebuilt(one))["status"] == status
    assert writes(server).get("abort_instance") is None


def test_a_stage_that_fails(server: Any) -> None:
    one = OrchestrationStageTrigger(begin(server, BROKEN), 1, "ended", poll_interval=0.2)
    assert first_event(one)["status"] == "failed"

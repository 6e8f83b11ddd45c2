"""A server whose time skips, over a real socket: for whom it moves, how far, and what it must not move past."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Any

import httpx
import pytest

from orchestration_integrations import (
    AsyncOrchestrationHttpHook,
    EventNotDeliveredError,
    InstanceStuckError,
    OrchestrationError,
    OrchestrationHttpHook,
    RunResult,
    ValidationError,
    WaitTimeoutError,
)
from orchestration_integrations.server import EmbeddedServer
from orchestration_integrations.server.skipping import MOST_ATTEMPTS, PATIENCE
from orchestration_integrations.testing import server_for_tests

DAY = 86_400
WEEK = {"delay": {"duration": "168h"}}
SOON = 20.0
"""Real seconds in which a test is over in which nothing waits in real time, on a busy machine; far below a week."""


def send(payee: str = "merchants:m1", source: str = "world") -> dict[str, Any]:
    return {
        "send": {
            "source": {"account": {"id": source}},
            "destination": {"account": {"id": payee}},
            "amount": {"amount": "1250", "asset": "EUR/2"},
        }
    }


def event(name: str) -> dict[str, Any]:
    return {"wait_event": {"event": name}}


@pytest.fixture(params=[2])
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    with server_for_tests(request.param, time="skip") as one:
        yield one


every_generation = pytest.mark.parametrize("server", [1, 2, 3], indirect=True)


@pytest.fixture
def hook(server: EmbeddedServer) -> Iterator[OrchestrationHttpHook]:
    with OrchestrationHttpHook(base_url=server.url) as one:
        yield one


def begun(hook: OrchestrationHttpHook, *stages: dict[str, Any]) -> str:
    workflow = hook.ensure_workflow({"name": "skipping", "stages": list(stages)}, gate=True).workflow
    return hook.start(workflow.id).id


def skipped(server: EmbeddedServer) -> float:
    """Seconds by which the server's clock is ahead."""
    return float(server.core.clock.offset_ns) / 1e9  # type: ignore[attr-defined]


def until(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + SOON
    while not (value := condition()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return value


def waiting(hook: OrchestrationHttpHook, instance_id: str) -> threading.Thread:
    """A thread that waits without a limit, and gives up soon after the server has gone."""

    def wait() -> None:
        with suppress(OrchestrationError):
            hook.wait(instance_id, poll_interval=0.2, read_budget=0)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


# ---- for whom it moves -------------------------------------------------------------------------------


@every_generation
def test_weeks_pass_for_a_wait(server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    began = time.monotonic()
    result = hook.wait(begun(hook, send(), WEEK, send(), WEEK, send()), timeout=15 * DAY)
    assert result.instance.state == "succeeded"
    assert time.monotonic() - began < SOON
    server.paid("merchants:m1", 1250, "EUR/2", times=3)
    instants = [one["at"] for one in server.record().money]
    assert [int((b - a) // DAY) for a, b in pairwise(instants)] == [7, 7]


def test_weeks_pass_for_asynchronous_waits_and_for_many_at_once(
    server: EmbeddedServer, hook: OrchestrationHttpHook
) -> None:
    ids = [begun(hook, WEEK, send(f"merchants:{number}")) for number in range(4)]

    async def wait() -> None:
        async with AsyncOrchestrationHttpHook(base_url=server.url) as one:
            await asyncio.wait_for(asyncio.gather(*(one.wait(instance_id) for instance_id in ids)), SOON)

    asyncio.run(wait())
    more = [begun(hook, WEEK, send("many")) for _ in range(8)]
    assert all(isinstance(result, RunResult) for _, result in hook.wait_many(more, timeout=8 * DAY))
    assert server.balance("many", "EUR/2") == 8 * 1250


def test_weeks_pass_for_threads(server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    ids = [begun(hook, WEEK, send()) for _ in range(5)]
    threads = [threading.Thread(target=hook.wait, args=(one,), daemon=True) for one in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    server.ended("succeeded", times=5)


@every_generation
def test_a_client_that_asks_again_and_again_is_one_that_waits(
    server: EmbeddedServer, hook: OrchestrationHttpHook
) -> None:
    """Another process, another language, a sensor that pokes: nothing is known of it but its requests."""
    instance_id = begun(hook, WEEK, send())
    program = (
        "import json, sys, time, urllib.request\n"
        "while not json.load(urllib.request.urlopen(sys.argv[1]))['data']['terminated']: time.sleep(0.05)"
    )
    url = f"{server.url}/instances/{instance_id}"
    subprocess.run([sys.executable, "-c", program, url], check=True, timeout=SOON)
    server.paid("merchants:m1", 1250, "EUR/2", once=True)


@pytest.mark.parametrize("server", [1, 3], indirect=True)
def test_a_request_that_is_held_until_the_end_is_one_that_waits(
    server: EmbeddedServer, hook: OrchestrationHttpHook
) -> None:
    workflow = hook.ensure_workflow({"name": "held", "stages": [WEEK, send()]}).workflow
    answer = httpx.post(f"{server.url}/workflows/{workflow.id}/instances?wait=true", json={}, timeout=SOON)
    assert answer.json()["data"]["terminated"] is True


def test_an_event_goes_to_a_stage_that_listens_a_week_later(
    server: EmbeddedServer, hook: OrchestrationHttpHook
) -> None:
    instance_id = begun(hook, WEEK, event("approved"), send())
    hook.send_event_when_ready(instance_id, "approved", timeout=8 * DAY)
    hook.wait(instance_id, timeout=SOON)
    server.heard("approved", once=True)


# ---- where it stands still ---------------------------------------------------------------------------


@pytest.mark.parametrize("server", [1, 3], indirect=True)
def test_time_moves_for_nobody_who_does_not_wait(server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    instance_id = begun(hook, WEEK, send())
    time.sleep(0.3)
    assert hook.get_instance(instance_id).state == "running"
    assert hook.cancel(instance_id).status == "cancelled"
    server.paid_nothing()
    assert skipped(server) == 0


def test_whoever_polls_for_the_end_of_a_cancelled_run_moves_nothing(
    server: EmbeddedServer, hook: OrchestrationHttpHook
) -> None:
    """On generation 2 an abort does nothing: a server that skipped meanwhile would pay amid the cancel."""
    instance_id = begun(hook, WEEK, send())
    assert hook.cancel(instance_id, timeout=1.5).status == "not_confirmed"
    server.paid_nothing()
    assert skipped(server) == 0


def test_a_limit_shorter_than_the_delay_is_reached_first(server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    """Or the tests of a flow would be green that times out each time it really runs."""
    server.skipping.patience = 0.3
    instance_id = begun(hook, send(), WEEK, send("later"))
    with pytest.raises(WaitTimeoutError):
        hook.wait(instance_id, timeout=6 * DAY)
    server.paid_nothing("later")
    assert 6 * DAY - 60 < skipped(server) <= 6 * DAY + 60
    hook.wait(instance_id, timeout=2 * DAY)
    server.paid("later", 1250, "EUR/2", once=True)


def test_of_two_waits_the_one_with_the_shorter_limit_gives_up_at_its_time(
    server: EmbeddedServer, hook: OrchestrationHttpHook
) -> None:
    server.skipping.patience = 0.3
    impatient, patient = begun(hook, WEEK, send("a")), begun(hook, WEEK, WEEK, send("b"))
    told: dict[str, Any] = {}

    def wait(instance_id: str, timeout: float) -> None:
        try:
            told[instance_id] = hook.wait(instance_id, timeout=timeout)
        except WaitTimeoutError as error:
            told[instance_id] = (error, skipped(server))

    threads = [
        threading.Thread(target=wait, args=(one, limit), daemon=True)
        for one, limit in ((impatient, DAY), (patient, 15 * DAY))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    error, at = told[impatient]
    assert isinstance(error, WaitTimeoutError)
    assert at < 2 * DAY
    assert told[patient].instance.state == "succeeded"


def test_an_event_that_nobody_sends_ends_a_wait_at_its_limit(
    server: EmbeddedServer, hook: OrchestrationHttpHook
) -> None:
    server.skipping.patience = 0.2
    began = time.monotonic()
    with pytest.raises(WaitTimeoutError, match="waits for event 'approved'"):
        hook.wait(begun(hook, event("approved"), send()), timeout=30 * DAY)
    assert time.monotonic() - began < SOON
    server.paid_nothing()


def test_whoever_sends_an_event_a_little_later_is_in_time(server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    """A thread that is about to act is not seen: limits pass only after a while of nothing but waiting."""
    instance_id = begun(hook, event("approved"), send())
    sender = threading.Timer(PATIENCE / 3, hook.send_event, (instance_id, "approved"))
    sender.start()
    hook.wait(instance_id, timeout=60)
    sender.join()
    assert skipped(server) < 1


def test_a_wait_that_is_awake_holds_the_time(server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    """What a wait tells its caller is the present: no listener hears of a stage that is over for days."""
    seen: list[tuple[int, str, float]] = []

    def slow(stage: Any) -> None:
        time.sleep(0.1)
        seen.append((stage.stage, stage.kind, skipped(server)))

    hook.wait(begun(hook, send(), WEEK, send()), on_stage=slow)
    assert max(at for number, _, at in seen if number < 2) < DAY
    assert [kind for number, kind, _ in seen if number == 2] == ["begun", "ended"]


# ---- payments that fail ------------------------------------------------------------------------------


def test_each_attempt_of_a_failing_payment_is_seen(server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    with pytest.raises(InstanceStuckError, match=r"CreateTransaction failed 5 times \(attempt 6, next try ") as caught:
        hook.wait(begun(hook, send(source="empty")), fail_after_attempts=5)
    assert caught.value.reason == "attempts"
    assert skipped(server) < 60


def test_time_does_not_race_away_for_a_payment_that_fails_for_ever(
    server: EmbeddedServer, hook: OrchestrationHttpHook, caplog: pytest.LogCaptureFixture
) -> None:
    server.skipping.patience = 0.2
    with caplog.at_level(logging.WARNING, "orchestration_integrations.server"):
        thread = waiting(hook, begun(hook, send(source="empty")))
        until(lambda: "time stands still" in caplog.text)
        stands = skipped(server)
        time.sleep(0.5)
    assert skipped(server) == stands < 3600
    assert f"has failed {MOST_ATTEMPTS} times in stage 1 (send)" in caplog.text
    assert "account had insufficient funds" in caplog.text
    assert thread.is_alive()


def test_a_payment_that_fails_holds_nobody_else_up(server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    waiting(hook, begun(hook, send(source="empty")))
    paying = begun(hook, WEEK, send())
    hook.wait(paying, timeout=8 * DAY)
    server.paid("merchants:m1", 1250, "EUR/2", instance_id=paying, once=True)


def test_a_payment_that_is_funded_in_time_goes_through(server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    thread = waiting(hook, begun(hook, send(source="shop")))
    hook.wait(begun(hook, {"delay": {"duration": "10m"}}, send("shop")))
    thread.join(SOON)
    server.paid("merchants:m1", 1250, "EUR/2", source="shop", once=True)


# ---- switching ---------------------------------------------------------------------------------------


def test_time_can_be_switched_while_the_server_runs(server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    server.time = "real"
    instance_id = begun(hook, WEEK, send())
    with pytest.raises(WaitTimeoutError):
        hook.wait(instance_id, timeout=0.5)
    assert skipped(server) == 0
    server.time = "skip"
    hook.wait(instance_id)
    with pytest.raises(ValueError, match="'real' or 'skip'"):
        server.time = "fast"  # type: ignore[assignment]


def test_a_server_outside_pytest_skips_for_those_who_poll() -> None:
    with EmbeddedServer(time="skip") as server, OrchestrationHttpHook(base_url=server.url) as hook:
        hook.wait(begun(hook, WEEK, send()), poll_interval=0.2)
        server.paid("merchants:m1", 1250, "EUR/2", once=True)


def test_on_a_server_outside_pytest_limits_count_too() -> None:
    with EmbeddedServer(time="skip") as server, OrchestrationHttpHook(base_url=server.url) as hook:
        server.skipping.patience = 0.2
        instance_id = begun(hook, WEEK, send())
        with pytest.raises(WaitTimeoutError):
            hook.wait(instance_id, timeout=3600)
        server.paid_nothing()


# ---- who waits, and who only asks ---------------------------------------------------------------------


def ask(server: EmbeddedServer, path: str, times: int, pause: float) -> None:
    """As a client of another language asks, over connections of its own."""
    for _ in range(times):
        httpx.get(f"{server.url}{path}")
        time.sleep(pause)


def test_nobody_waits_any_more_after_a_wait_has_given_up(server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    server.skipping.patience = 0.1
    instance_id = begun(hook, WEEK, send())
    with pytest.raises(WaitTimeoutError):
        hook.wait(instance_id, timeout=DAY, poll_interval=0.05)
    time.sleep(1.5)
    assert skipped(server) < 2 * DAY
    server.paid_nothing()


def test_a_read_that_is_retried_is_one_question(server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    instance_id = begun(hook, WEEK, send())
    server.fault("get_instance", "status", 4)
    hook.get_instance(instance_id)
    for _ in range(4):
        time.sleep(0.1)
        assert hook.get_instance(instance_id).state == "running"
        hook.list_instances()
    time.sleep(0.3)
    assert skipped(server) == 0


def test_questions_in_a_row_are_no_polling(server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    instance_id = begun(hook, WEEK, send())
    for _ in range(3):
        assert httpx.get(f"{server.url}/instances/{instance_id}").json()["data"]["terminated"] is False
    time.sleep(0.3)
    assert skipped(server) == 0


def test_questions_that_fail_are_no_polling(server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    instance_id = begun(hook, WEEK, send())
    server.fault("get_instance", "status", 5)
    ask(server, f"/instances/{instance_id}", 5, 0.1)
    time.sleep(0.2)
    assert skipped(server) == 0


def test_polling_ends(server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    """Who asked thrice and went away waits no more when something comes to be that time could move to."""
    instance_id = begun(hook, WEEK, send())
    server.fault("list_workflows", "stall", 1, seconds=3)
    stalled = threading.Thread(target=lambda: httpx.get(f"{server.url}/workflows", timeout=SOON))
    stalled.start()
    time.sleep(0.1)
    ask(server, f"/instances/{instance_id}", 3, 0.05)
    stalled.join()
    time.sleep(0.3)
    assert skipped(server) == 0


# ---- a wait that cannot read, and an answer under way ---------------------------------------------------


def test_time_stands_while_a_wait_cannot_read(server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    instance_id = begun(hook, WEEK, send())
    before = len(server.calls("get_instance"))
    server.fault("get_instance", "status", 8)
    with OrchestrationHttpHook(base_url=server.url) as other:  # one that did not see it start
        thread = threading.Thread(target=other.wait, args=(instance_id,), daemon=True)
        thread.start()
        until(lambda: len(server.calls("get_instance")) >= before + 6)
        assert skipped(server) == 0
        thread.join(SOON)
    server.paid("merchants:m1", 1250, "EUR/2", once=True)


def test_an_answer_is_under_way_until_its_last_byte(server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    instance_id = begun(hook, WEEK, send())
    server.fault("list_workflows", "slow", 1, bytes_per_second=400)
    seen: list[float] = []

    def read() -> None:
        with httpx.stream("GET", f"{server.url}/workflows", timeout=SOON) as answer:
            for _ in answer.iter_raw():
                seen.append(skipped(server))

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.1)
    hook.wait(instance_id)
    reader.join()
    assert len(seen) > 2
    assert max(seen[:-1]) < DAY, "with the last byte it is over"


# ---- aborts ------------------------------------------------------------------------------------------


def test_an_abort_holds_the_time_for_its_run_whoever_waits(server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    """On generation 2 an abort does nothing, so a server that skipped meanwhile would pay amid the cancel."""
    instance_id, other = begun(hook, WEEK, send()), begun(hook, {"delay": {"duration": "24h"}}, send("other"))
    httpx.put(f"{server.url}/instances/{instance_id}/abort")
    waiting(hook, instance_id)
    assert hook.cancel(instance_id, timeout=1.5).status == "not_confirmed"
    hook.wait(other)
    time.sleep(0.3)
    server.paid("other", 1250, "EUR/2", once=True)
    server.paid_nothing("merchants:m1")
    assert skipped(server) < 2 * DAY


# ---- many at once ------------------------------------------------------------------------------------


def test_many_at_once_see_each_attempt_too(server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    """They share a list; what nobody has read by its id yet is unseen."""
    workflow = hook.ensure_workflow({"name": "empty", "stages": [send(source="empty")]}).workflow
    started = [httpx.post(f"{server.url}/workflows/{workflow.id}/instances", json={}) for _ in range(2)]
    ids = [one.json()["data"]["id"] for one in started]
    told = dict(hook.wait_many(ids, fail_after_attempts=3))
    assert all(isinstance(one, InstanceStuckError) for one in told.values())
    assert skipped(server) < 60


# ---- the delivery of an event ---------------------------------------------------------------------------


def test_an_event_that_would_come_too_late_is_not_sent(server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    server.skipping.patience = 0.2
    instance_id = begun(hook, WEEK, event("approved"), send())
    with pytest.raises(EventNotDeliveredError, match="in time"):
        hook.send_event_when_ready(instance_id, "approved", timeout=3600)
    server.heard("approved", times=0)
    assert skipped(server) < DAY


# ---- a helper that dies -------------------------------------------------------------------------------


def test_a_server_whose_time_can_no_longer_skip_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = EmbeddedServer(time="skip").start()
    with OrchestrationHttpHook(base_url=server.url) as hook:
        instance_id = begun(hook, WEEK, send())
        monkeypatch.setattr(server.skipping, "look", _breaks)
        until(lambda: "no longer skips" in caplog.text)
        with pytest.raises(ValidationError, match=r"no longer skips.*what broke"):
            hook.wait(instance_id)
    with pytest.raises(RuntimeError, match=r"no longer skips.*what broke"):
        server.stop()


def _breaks() -> None:
    raise LookupError("what broke")


@pytest.mark.parametrize("patience", [-1, float("nan"), True, "3"])
def test_patience_is_a_number_of_seconds(patience: Any) -> None:
    with pytest.raises(ValueError, match="patience must be"), server_for_tests(time="skip", patience=patience):
        pass

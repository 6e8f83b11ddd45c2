"""A wish of the caller that comes while his run is being cancelled: the cancel goes on, and the wish is not lost."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time

import pytest

from orchestration_integrations import AsyncOrchestrationHttpHook, MemoryRunStore, OrchestrationHttpHook
from orchestration_integrations.http_hook import interrupts
from orchestration_integrations.server import EmbeddedServer

WAITS = {"name": "waits", "stages": [{"wait_event": {"event": "go"}}]}


@pytest.fixture
def server():
    with EmbeddedServer(3) as running:
        yield running


def raises(*_):
    raise ValueError("the listener has a fault")


def aborting(server):
    return server.record().requests.get("abort_instance", 0) > 0


def state(server, store):
    with OrchestrationHttpHook(base_url=server.url) as hook:
        return hook.get_instance(store.load("k").instance_id).state


def test_a_task_that_is_cancelled_while_its_own_error_cancels_the_run_is_cancelled(server):
    """The loop counts on it: a time limit or a task group that has cancelled the task waits for CancelledError."""
    server.fault("abort_instance", "stall", 1, seconds=1)
    store = MemoryRunStore()

    seen = []

    async def paying(hook):
        try:
            await hook.run_once(WAITS, run_key="k", store=store, on_stage=raises)
        except BaseException as error:
            seen.append(error)
            raise

    async def play():
        async with AsyncOrchestrationHttpHook(base_url=server.url) as hook:
            task = asyncio.ensure_future(paying(hook))
            while not aborting(server):  # noqa: ASYNC110 (the server has threads of its own)
                await asyncio.sleep(0.02)
            task.cancel("the time is over")
            with pytest.raises(asyncio.CancelledError):
                await task
        assert task.cancelled()
        assert any("it was cancelled" in note for note in seen[0].__notes__)

    asyncio.run(play())
    assert state(server, store) == "cancelled"


class SoftLimit(Exception):
    """As Celery's: a plain exception."""


@pytest.mark.parametrize("gap", [0.0, 0.7])
def test_a_time_limit_with_a_signal_of_its_own_does_not_break_a_cancel_off(server, gap):
    """Celery and the recipes with alarms have other signals than those that end a process."""
    server.fault("abort_instance", "stall", 1, seconds=1.5)
    store = MemoryRunStore()

    def over(*_):
        raise SoftLimit("the time is over")

    def alarms():
        while not aborting(server):
            time.sleep(0.02)
        time.sleep(gap)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, over)
    thread = threading.Thread(target=alarms)
    thread.start()
    try:
        with OrchestrationHttpHook(base_url=server.url) as hook, pytest.raises(SoftLimit) as caught:
            hook.run_once(WAITS, run_key="k", store=store, on_stage=raises)
        assert signal.getsignal(signal.SIGUSR1) is over
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    assert any("it was cancelled" in note for note in caught.value.__notes__)
    assert isinstance(caught.value.__cause__, ValueError)
    assert state(server, store) == "cancelled"


def test_without_a_thread_to_be_had_the_run_is_cancelled_all_the_same(server, monkeypatch):
    store = MemoryRunStore()

    def refused(*_, **__):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(interrupts, "in_own_thread", refused)

    async def play():
        async with AsyncOrchestrationHttpHook(base_url=server.url) as hook:
            with pytest.raises(ValueError, match="has a fault") as caught:
                await hook.run_once(WAITS, run_key="k", store=store, on_stage=raises)
        assert any("it was cancelled" in note for note in caught.value.__notes__)

    asyncio.run(play())
    assert state(server, store) == "cancelled"

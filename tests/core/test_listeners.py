"""What each one who takes hints promises to whoever moves the time of a test's server."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from orchestration_integrations import AsyncOrchestrationHttpHook, OrchestrationError, OrchestrationHttpHook
from orchestration_integrations.http_hook.hints import listeners
from orchestration_integrations.server import EmbeddedServer

SOON = 20.0


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as one:
        yield one


def blocking(url: str, instance_id: str) -> None:
    with OrchestrationHttpHook(base_url=url) as hook:
        hook.wait(instance_id, timeout=SOON, read_budget=0)


def asynchronous(url: str, instance_id: str) -> None:
    async def wait() -> None:
        async with AsyncOrchestrationHttpHook(base_url=url) as hook:
            await hook.wait(instance_id, timeout=SOON, read_budget=0)

    asyncio.run(wait())


def many(url: str, instance_id: str) -> None:
    with OrchestrationHttpHook(base_url=url) as hook:
        list(hook.wait_many([instance_id], timeout=SOON, read_budget=0))


def delivering(url: str, instance_id: str) -> None:
    with OrchestrationHttpHook(base_url=url) as hook:
        hook.send_event_when_ready(instance_id, "approved", timeout=SOON)


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.mark.parametrize("wait", [blocking, asynchronous, many, delivering])
def test_who_is_woken_counts_as_awake_and_looks_soon(server: EmbeddedServer, wait: Callable[[str, str], None]) -> None:
    with OrchestrationHttpHook(base_url=server.url) as hook:
        stages = [{"delay": {"duration": "168h"}}, {"wait_event": {"event": "approved"}}]
        instance_id = hook.start(hook.ensure_workflow({"name": "w", "stages": stages}, gate=True).workflow.id).id

        def begin() -> None:
            with suppress(OrchestrationError):
                wait(server.url, instance_id)

        before = set(listeners())
        thread = threading.Thread(target=begin, daemon=True)
        thread.start()
        until(lambda: set(listeners()) - before)
        (listener,) = set(listeners()) - before
        assert list(listener.waits_for({instance_id, "another"})) == [instance_id]
        woken: list[bool] = []
        for _ in range(5):
            until(lambda: listener.asleep(instance_id) is not None)
            asleep = listener.asleep(instance_id)
            assert asleep is None or (asleep.left is not None and 0 < asleep.left <= SOON)
            reads = len(server.calls("get_instance"))
            listener.wake(instance_id)
            woken.append(listener.asleep(instance_id) is None)  # unless it has slept again by now
            at = time.monotonic()
            until(lambda: len(server.calls("get_instance")) > reads)  # noqa: B023
            assert time.monotonic() - at < 1
        assert any(woken)
        server.advance(8 * 86_400)
        hook.send_event(instance_id, "approved")
        thread.join(SOON)
        assert not thread.is_alive()
        assert listener not in listeners()

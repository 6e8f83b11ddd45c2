"""Listeners of tokens: told before the token is sent, and nobody else stands still for them."""

from __future__ import annotations

import asyncio
import logging
import pickle
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from orchestration_integrations import AsyncOrchestrationHttpHook, OrchestrationHttpHook
from orchestration_integrations.api.errors import TransportError
from orchestration_integrations.http_hook.background import background_loop
from orchestration_integrations.server import EmbeddedServer
from tests.core.test_sharing import Server, credentials
from tests.scripted import ScriptedServer

WAITS = {"name": "waits", "stages": [{"wait_event": {"event": "go"}}]}
BLOCKED = 30.0
"""Seconds after which a test that stands still has failed."""


class Blocking:
    """A listener that does not return until it may."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.told: list[str] = []
        self.threads: list[threading.Thread] = []

    def __call__(self, token: str) -> None:
        self.threads.append(threading.current_thread())
        self.may.wait(BLOCKED)
        self.told.append(token)


@contextmanager
def blocked() -> Iterator[Blocking]:
    listener = Blocking()
    try:
        yield listener
    finally:
        listener.may.set()


def sent(server: ScriptedServer) -> list[str]:
    """The tokens that calls came with."""
    return [got.headers["authorization"] for got in server.got if "authorization" in got.headers]


async def until(seen: Any) -> None:
    for _ in range(int(BLOCKED / 0.01)):
        if seen():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come")


def test_a_listener_that_blocks_keeps_its_loop_from_nothing() -> None:
    with ScriptedServer(Server()) as server, ScriptedServer(Server()) as other, blocked() as listener:

        async def main() -> None:
            async with (
                AsyncOrchestrationHttpHook(credentials(server), on_token=listener) as slow,
                AsyncOrchestrationHttpHook(credentials(server)) as same,
                AsyncOrchestrationHttpHook(credentials(other), on_token=lambda token: None) as quick,
            ):
                call = asyncio.create_task(slow.get_instance("i"))
                await until(lambda: listener.threads)
                await quick.get_instance("i")
                await same.get_instance("i")  # of the same server: the token is there, and it has no listener
                assert not call.done()
                assert listener.threads[0] is not threading.current_thread()
                assert len(sent(server)) == 1
                listener.may.set()
                await call
                assert listener.told == ["token-1"]
                assert len(sent(server)) == 2

        asyncio.run(main())


def test_a_listener_that_does_not_return_in_time_fails_its_call_and_is_not_called_again() -> None:
    """It would be one more thread with each call."""
    with ScriptedServer(Server()) as server, blocked() as listener:

        async def main() -> None:
            settings = credentials(server, timeout=0.2, retry_budget=0.2)
            async with AsyncOrchestrationHttpHook(settings, on_token=listener) as hook:
                for _ in range(3):
                    with pytest.raises(TransportError, match="on_token") as caught:
                        await hook.run_workflow("w")
                    assert caught.value.before_send
                assert sent(server) == []
                assert len(listener.threads) == 1
                listener.may.set()
                await until(lambda: listener.told)
                await hook.get_instance("i")
                assert listener.told == ["token-1"]

        asyncio.run(main())


def test_a_cancelled_call_does_not_cut_off_an_asynchronous_listener() -> None:
    with ScriptedServer(Server()) as server:
        steps: list[str] = []

        async def main() -> None:
            may = asyncio.Event()

            async def listener(token: str) -> None:
                steps.append("told")
                await may.wait()
                steps.append("through")

            async with AsyncOrchestrationHttpHook(credentials(server), on_token=listener) as hook:
                call = asyncio.create_task(hook.get_instance("i"))
                await until(lambda: steps)
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
                may.set()
                await hook.get_instance("i")
                assert steps == ["told", "through"]

        asyncio.run(main())


@pytest.mark.parametrize("kind", ["plain", "asynchronous", "blocking hook"])
def test_a_listener_that_raises_does_not_break_the_fetch(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    def plain(token: str) -> None:
        raise RuntimeError(f"cannot mask {token}")

    async def asynchronous(token: str) -> None:
        raise RuntimeError(f"cannot mask {token}")

    with ScriptedServer(Server()) as server, caplog.at_level(logging.DEBUG):
        if kind == "blocking hook":
            with OrchestrationHttpHook(credentials(server), on_token=plain) as hook:
                assert hook.get_instance("i").id == "i"
        else:

            async def main() -> None:
                listener = plain if kind == "plain" else asynchronous
                async with AsyncOrchestrationHttpHook(credentials(server), on_token=listener) as hook:
                    assert (await hook.get_instance("i")).id == "i"

            asyncio.run(main())
    said = [one.getMessage() for one in caplog.records if "on_token" in one.getMessage()]
    assert len(said) == 1
    assert "RuntimeError" in said[0]
    assert "token-1" not in caplog.text


def test_an_asynchronous_listener_is_awaited_before_the_token_is_sent_and_told_once_by_many_tasks() -> None:
    with ScriptedServer(Server()) as server:
        told: list[tuple[str, int]] = []

        async def listener(token: str) -> None:
            await asyncio.sleep(0.05)
            told.append((token, len(sent(server))))

        async def main() -> None:
            async with AsyncOrchestrationHttpHook(credentials(server), on_token=listener) as hook:
                await asyncio.gather(*(hook.get_instance(f"i{number}") for number in range(20)))

        asyncio.run(main())
        assert told == [("token-1", 0)]


def test_threads_tell_a_listener_once() -> None:
    with ScriptedServer(Server()) as server:
        told: list[str] = []

        def listener(token: str) -> None:
            time.sleep(0.05)
            told.append(token)

        hooks = [OrchestrationHttpHook(credentials(server), on_token=listener) for _ in range(8)]
        threads = [threading.Thread(target=hook.get_instance, args=("i",)) for hook in hooks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert told == ["token-1"]
        assert len(sent(server)) == 8


def test_a_blocking_hook_says_that_it_cannot_await(caplog: pytest.LogCaptureFixture) -> None:
    async def listener(token: str) -> None: ...

    with ScriptedServer(Server()) as server, OrchestrationHttpHook(credentials(server), on_token=listener) as hook:
        for _ in range(3):
            hook.get_instance("i")
    assert sum("cannot await" in one.getMessage() for one in caplog.records) == 1


def test_the_waits_of_one_server_go_on_while_the_listener_of_another_blocks_on_their_loop() -> None:
    """One loop of the process serves the waits of all blocking hooks."""
    with ScriptedServer(Server()) as guarded, EmbeddedServer() as other, blocked() as listener:
        hook = OrchestrationHttpHook(base_url=other.url)
        workflow_id = hook.ensure_workflow(WAITS).workflow.id
        ids = [hook.run_workflow(workflow_id).id for _ in range(25)]
        waits = [
            threading.Thread(target=hook.wait, args=(one,), kwargs={"poll_interval": 0.3}, daemon=True) for one in ids
        ]
        for thread in waits:
            thread.start()
        slow = AsyncOrchestrationHttpHook(credentials(guarded), on_token=listener)
        call = asyncio.run_coroutine_threadsafe(slow.get_instance("i"), background_loop())
        asyncio.run(until(lambda: listener.threads))
        for one in ids:
            hook.send_event_when_ready(one, "go", timeout=BLOCKED)
        for thread in waits:
            thread.join(BLOCKED)
            assert not thread.is_alive()
        assert not call.done()
        listener.may.set()
        assert call.result(BLOCKED).id == "i"
        asyncio.run_coroutine_threadsafe(slow.close(), background_loop()).result(BLOCKED)


def test_a_pickled_hook_keeps_its_listener() -> None:
    hook = pickle.loads(pickle.dumps(OrchestrationHttpHook(base_url="http://127.0.0.1:1", on_token=print)))
    assert hook._on_token is print

"""Places for calls of a loop: whoever waits for one loses no time of its exchange, and reads hold up no submit."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

import httpcore
import httpx
import pytest

from orchestration_integrations import AsyncOrchestrationHttpHook
from orchestration_integrations.server import EmbeddedServer

INSTANCE = {
    "id": "0da8594e-4838-406a-a804-39ba7efa76ba",
    "workflowID": "11111111-1111-4111-8111-111111111111",
    "createdAt": "2030-01-01T00:00:00Z",
    "updatedAt": "2030-01-01T00:00:00Z",
    "status": [],
    "terminated": False,
}


class Slow(httpx.AsyncBaseTransport):
    """Answers each read after a while, as long as the exchange may take that long; a submit at once."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.sent: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request.method)
        if request.method == "GET":
            if request.extensions["timeout"]["read"] < self.seconds:
                raise httpx.ReadTimeout("too slow")
            await asyncio.sleep(self.seconds)
        return httpx.Response(200, json={"data": INSTANCE})


def hook_of(transport: Slow) -> AsyncOrchestrationHttpHook:
    return AsyncOrchestrationHttpHook(
        base_url="http://127.0.0.1:9", max_connections=2, timeout=0.3, retry_budget=20.0, transport=transport
    )


def test_a_read_that_waited_for_a_connection_has_all_its_time() -> None:
    transport = Slow(0.15)

    async def main() -> None:
        async with hook_of(transport) as hook:
            await asyncio.gather(*(hook.get_instance(INSTANCE["id"]) for _ in range(10)))

    asyncio.run(main())
    assert transport.sent == ["GET"] * 10, "none was sent in vain"


def test_reads_that_wait_hold_up_no_submit() -> None:
    transport = Slow(0.2)

    async def main() -> None:
        async with hook_of(transport) as hook:
            reads = [asyncio.create_task(hook.get_instance(INSTANCE["id"])) for _ in range(10)]
            await asyncio.sleep(0.05)
            begun = time.monotonic()
            await hook.run_workflow(INSTANCE["workflowID"])
            assert time.monotonic() - begun < 0.2, "before a read has ended"
            assert not any(read.done() for read in reads)
            await asyncio.gather(*reads)

    asyncio.run(main())


class Swallows(httpx.AsyncBaseTransport):
    """Swallows a cancellation, as anyio does now and then, and answers or fails instead."""

    def __init__(self, *, fails: bool) -> None:
        self.fails = fails
        self.asked = asyncio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.set()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(10)
        if self.fails:
            raise httpx.ReadError("gone")
        return httpx.Response(200, json={"data": INSTANCE})


@pytest.mark.parametrize("fails", [False, True])
def test_a_cancellation_that_was_swallowed_below_ends_the_call(fails: bool) -> None:
    async def main() -> None:
        transport = Swallows(fails=fails)
        async with AsyncOrchestrationHttpHook(base_url="http://127.0.0.1:9", transport=transport) as hook:
            call = asyncio.create_task(hook.get_instance(INSTANCE["id"]))
            await transport.asked.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    asyncio.run(main())


def test_a_cancellation_amid_an_exchange_arrives_as_it_was_sent() -> None:
    """Airflow tells a kill by a user from a shutdown by its message."""

    async def main() -> None:
        async with hook_of(Slow(0.25)) as hook:
            arrived: list[object] = []

            async def asks() -> None:
                try:
                    await hook.get_instance(INSTANCE["id"])
                except asyncio.CancelledError as error:
                    arrived.append(error.args)
                    raise

            call = asyncio.create_task(asks())
            await asyncio.sleep(0.05)
            call.cancel("a user acted")
            with pytest.raises(asyncio.CancelledError):
                await call
            assert arrived == [("a user acted",)]

    asyncio.run(main())


def test_a_cancellation_about_the_moment_of_a_connection_is_not_lost() -> None:
    """anyio swallows it there on Python 3.10; a run would be released and paid by a task that was given up."""

    async def main(url: str) -> None:
        for rounds in range(300):
            async with AsyncOrchestrationHttpHook(base_url=url) as hook:
                call = asyncio.create_task(hook.get_server_info())
                for _ in range(rounds % 50):
                    await asyncio.sleep(0)
                if call.done():
                    continue
                call.cancel("a user acted")
                await asyncio.wait({call}, timeout=15)
                assert call.cancelled(), f"round {rounds}"

    with EmbeddedServer(2) as server:
        asyncio.run(main(server.url))


def test_nothing_is_sent_once_a_cancellation_was_swallowed_while_connecting(monkeypatch: pytest.MonkeyPatch) -> None:
    connecting = asyncio.Event()
    real = httpcore.AnyIOBackend.connect_tcp

    async def swallows(self: httpcore.AnyIOBackend, *arguments: Any) -> httpcore.AsyncNetworkStream:
        connecting.set()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(10)
        return await real(self, *arguments)

    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", swallows)

    async def main(url: str) -> None:
        async with AsyncOrchestrationHttpHook(base_url=url) as hook:
            call = asyncio.create_task(hook.create_workflow({"name": "x", "stages": [{"delay": {"duration": "1s"}}]}))
            await connecting.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    with EmbeddedServer(2) as server:
        asyncio.run(main(server.url))
        assert "create_workflow" not in server.record().requests

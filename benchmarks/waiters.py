"""Clients that wait for many runs, each in a process of its own: ``python -m benchmarks.waiters``.

``ours`` is ``AsyncOrchestrationHttpHook.wait_many``. ``peers`` is what the triggers of other providers do: for each run
a loop of its own, which reads the run and sleeps for the interval. It is kinder to the peers than they are: all loops
use one aiohttp session with kept connections (dbt Cloud's trigger opens a session for each read, Databricks' one for
each run), they begin spread over the interval, decode nothing but JSON, and log nothing.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from .measuring import memory, obey

Told = dict[str, float]
"""When the client was told that a run had ended, by its id: epoch seconds."""


async def peers(url: str, ids: Sequence[str], interval: float, told: Told) -> None:
    """One GET for each waiter and interval."""
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=50)) as session:

        async def trigger(instance_id: str, begin: float) -> None:
            await asyncio.sleep(begin)
            while True:
                async with session.get(f"{url}/api/orchestration/instances/{instance_id}") as response:
                    response.raise_for_status()
                    if (await response.json())["data"]["terminated"]:
                        told[instance_id] = time.time()
                        return
                await asyncio.sleep(interval)

        await asyncio.gather(*(trigger(one, interval * at / len(ids)) for at, one in enumerate(ids)))


async def ours(url: str, ids: Sequence[str], interval: float, told: Told) -> None:
    """``wait_many``; where the hook has none, a ``wait`` for each run."""
    from orchestration_integrations import AsyncOrchestrationHttpHook

    async with AsyncOrchestrationHttpHook(base_url=f"{url}/api/orchestration") as hook:
        if shares():
            async for instance_id, _ in hook.wait_many(ids, timeout=None, poll_interval=interval):
                told[instance_id] = time.time()
            return

        async def wait(instance_id: str) -> None:
            await hook.wait(instance_id, poll_interval=interval)
            told[instance_id] = time.time()

        await asyncio.gather(*map(wait, ids))


def shares() -> bool:
    """Whether the hook can wait for many runs at the price of one poll."""
    from orchestration_integrations import AsyncOrchestrationHttpHook

    return hasattr(AsyncOrchestrationHttpHook, "wait_many")


WAYS: dict[str, Callable[[str, Sequence[str], float, Told], Awaitable[None]]] = {"ours": ours, "peers": peers}


def main() -> None:
    """Wait as one of ``WAYS`` on a server, as lines say; the waiting itself has the main thread."""
    way, url = WAYS[sys.argv[1]], sys.argv[2]
    told: Told = {}
    begun: asyncio.Future[tuple[list[str], float]]
    loop = asyncio.new_event_loop()
    begun = loop.create_future()
    ready = threading.Event()
    before = 0

    def orders(do: str, given: dict[str, Any]) -> Any:
        nonlocal before
        if do == "ready":
            return ready.wait(60)
        if do == "wait":
            gc.collect()
            before = memory()
            loop.call_soon_threadsafe(begun.set_result, (given["ids"], given["interval"]))
            return None
        if do == "usage":
            return {"at": time.time(), "cpu": time.process_time(), "grown": memory() - before, "told": len(told)}
        if do == "told":
            return told
        raise ValueError(do)

    def listen() -> None:
        obey(orders)
        loop.call_soon_threadsafe(stopped.cancel)

    async def serve() -> None:
        first: Told = {}
        threading.Thread(target=listen, daemon=True).start()
        # Once with one run that has ended: what is imported and opened for the first wait is no cost of the others.
        if len(sys.argv) > 3:
            await way(url, sys.argv[3:], 0.1, first)
        ready.set()
        ids, interval = await begun
        await way(url, ids, interval, told)
        await asyncio.sleep(3600)

    stopped = loop.create_task(serve())
    try:
        loop.run_until_complete(stopped)
    except asyncio.CancelledError:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))


if __name__ == "__main__":
    main()

"""Triggers for the triggerer that is measured: ours without sharing, one as the peers have it, and a probe."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from orchestration_integrations.airflow import triggers
from orchestration_integrations.airflow.triggers import OrchestrationInstanceTrigger
from orchestration_integrations.procedures.wait_arguments import WaitArguments

from .measuring import memory


def _unshared(**given: Any) -> WaitArguments:
    return WaitArguments(**{**given, "shares": "never"})


class Alone(OrchestrationInstanceTrigger):
    """Ours, with the sharing switched off: neither a stream of Airflow nor a poll of the process serves others.

    A process that runs one of these runs no trigger of ours that shares.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        triggers.WaitArguments = _unshared  # type: ignore[misc, assignment]

    def shared_stream_key(self) -> None:
        """None: this trigger reads by itself."""
        return


class AsPeers(BaseTrigger):  # type: ignore[misc]
    """One GET for each poll, and a session of its own, as the triggers of other providers have it."""

    def __init__(self, instance_id: str, poll_interval: float, **others: Any) -> None:
        super().__init__()
        self.instance_id = instance_id
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and keyword arguments."""
        return "benchmarks.triggers.AsPeers", {"instance_id": self.instance_id, "poll_interval": self.poll_interval}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Read, sleep, read again."""
        import aiohttp

        url = f"{os.environ['BENCH_URL']}/api/orchestration/instances/{self.instance_id}"
        async with aiohttp.ClientSession() as session:
            while True:
                async with session.get(url) as response:
                    response.raise_for_status()
                    if (await response.json())["data"]["terminated"]:
                        yield TriggerEvent({"status": "succeeded", "instance_id": self.instance_id})
                        return
                await asyncio.sleep(self.poll_interval)


class LoopProbe(BaseTrigger):  # type: ignore[misc]
    """Wakes up a hundred times a second; writes each second how late that was at worst, and what the process used."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and keyword arguments."""
        return "benchmarks.triggers.LoopProbe", {"path": self.path}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Never ends."""
        longest, written = 0.0, time.monotonic()
        with Path(self.path).open("a") as file:  # noqa: ASYNC230 (a line a second)
            while True:
                begun = time.monotonic()
                await asyncio.sleep(0.01)
                now = time.monotonic()
                longest = max(longest, now - begun - 0.01)
                if now - written >= 1:
                    said = {"at": time.time(), "cpu": time.process_time(), "stall": longest, "memory": memory()}
                    file.write(json.dumps(said) + "\n")
                    file.flush()
                    longest, written = 0.0, now
        yield TriggerEvent({})

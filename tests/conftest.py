"""Fixtures of the tests that need a hook in both kinds."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from orchestration_integrations import AsyncOrchestrationHttpHook, OrchestrationHttpHook

# How fast examples are made tells how busy the machine is.
settings.register_profile("any machine", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


class Blocking:
    """The asynchronous hook behind the blocking one's face, one event loop per call."""

    def __init__(self, hook: AsyncOrchestrationHttpHook) -> None:
        self.hook = hook

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.hook, name)
        if not inspect.iscoroutinefunction(value):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            async def run() -> Any:
                try:
                    return await value(*args, **kwargs)
                finally:
                    if name != "close":
                        await self.hook.close()

            return asyncio.run(run())

        return call

    def __enter__(self) -> Blocking:
        return self

    def __exit__(self, *exc: object) -> None:
        return None


def open_hook(kind: str, *args: Any, **kwargs: Any) -> Any:
    """A hook of a kind, to be called without await."""
    if kind == "sync":
        return OrchestrationHttpHook(*args, **kwargs)
    return Blocking(AsyncOrchestrationHttpHook(*args, **kwargs))


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    """Both kinds of hook pass the same tests."""
    return str(request.param)


class FastClock:
    """Real time, except that sleeping passes at once (and is remembered)."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.ahead = 0.0

    def time(self) -> float:
        import time

        return time.time() + self.ahead

    def monotonic(self) -> float:
        import time

        return time.monotonic() + self.ahead

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.ahead += seconds

    async def asleep(self, seconds: float) -> None:
        self.sleep(seconds)


@pytest.fixture
def clock() -> FastClock:
    """A clock whose pauses cost nothing."""
    return FastClock()

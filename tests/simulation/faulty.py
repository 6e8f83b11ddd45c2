"""A server in this process, on a virtual clock, with faults at random requests, outages at random times, and crashes.

Everything follows from one seed, so that a history can be played again.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import httpx

from orchestration_integrations.server import AsyncInProcessTransport, Core, InProcessTransport, VirtualClock
from orchestration_integrations.server.clock import SECOND

PARTS = ("workers", "engine", "database", "ledger")


class Crash(BaseException):
    """The process dies here: nothing that the client would still do happens."""


@dataclass
class Plan:
    """When which trouble comes."""

    rng: random.Random
    clock: VirtualClock
    core: Core
    intensity: float
    quiet_at: float
    crash_at: int | None = None
    crash_before: bool = False
    requests: int = 0
    lost_submits: int = 0
    reached_submits: int = 0
    injected: dict[str, int] = field(default_factory=dict)

    def is_quiet(self) -> bool:
        """Whether all faults are over."""
        return self.clock.time() >= self.quiet_at

    def before(self, request: httpx.Request) -> bool:
        """Set a fault for this request, perhaps; tells whether it starts a run. Raises Crash where the plan says so."""
        self.requests += 1
        if self.crash_at is not None and self.requests > self.crash_at and self.crash_before:
            raise Crash
        submits = request.method == "POST" and request.url.path.endswith("/instances")
        if not self.is_quiet() and self.rng.random() < self.intensity:
            self._inject(submits)
        return submits

    def after(self) -> None:
        """The answer is there, and the process may die before it sees it."""
        if self.crash_at is not None and self.requests > self.crash_at:
            raise Crash

    def _inject(self, submits: bool) -> None:
        rng = self.rng
        kinds: list[tuple[str, dict[str, Any]]] = [
            ("refuse", {}),
            ("cut_before", {}),
            ("cut_amid", {}),
            ("cut_after", {}),
            ("stall", {"seconds": rng.choice([0.5, 5, 15, 40])}),
            ("status", {"code": rng.choice([500, 502, 503, 504]), "work": rng.random() < 0.5}),
            ("status", {"code": 429, "retry_after": rng.choice([1, 3])}),
            ("html", {"work": rng.random() < 0.5}),
            ("truncated", {}),
            ("slow", {"bytes_per_second": rng.choice([5, 50])}),
            ("hidden", {}),
            ("unknown_fields", {}),
            ("shuffled", {}),
        ]
        if submits:
            kinds += [("late_row", {"seconds": rng.choice([0.2, 3, 30, 300])})] * 3 + [("ghost", {})] * 2
        kind, options = rng.choice(kinds)
        self.injected[kind] = self.injected.get(kind, 0) + 1
        self.core.fault("any", kind, 1, **options)
        self.lost_submits += submits and kind in ("truncated", "slow")
        if kind == "late_row" and rng.random() < 0.5:
            self.core.fault("any", "cut_after", 1)

    def schedule_outages(self) -> None:
        """Parts of the server go away and come back, all of them before the quiet."""
        now = self.clock.time()
        span = self.quiet_at - now
        events: list[tuple[int, str]] = []
        for _ in range(self.rng.choice([0, 0, 1, 2, 3]) if span > 0 else 0):
            part = self.rng.choice(PARTS)
            begin = now + self.rng.random() * span * 0.8
            end = min(self.quiet_at, begin + self.rng.choice([0.3, 2, 8, 14, 30]))
            events += [(int(begin * SECOND), f"{part} stopped"), (int(end * SECOND), f"{part} started")]
        events.sort()

        def pump(now_ns: int) -> None:
            while events and events[0][0] <= now_ns:
                self.core.world(events.pop(0)[1])

        self.clock.serve(pump, lambda: events[0][0] if events else None)


def _over(plan: Plan, submits: bool, error: BaseException | None, response: httpx.Response | None) -> None:
    if submits:
        plan.reached_submits += not isinstance(error, httpx.ConnectError)
        status = response.status_code if response is not None else 0
        if error is not None or status >= 500 or status == 201:
            plan.lost_submits += status != 201
    plan.core.clear_faults()


class FaultyTransport(httpx.BaseTransport):
    """For the blocking hook."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.inner = InProcessTransport(plan.core, plan.clock)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        submits = self.plan.before(request)
        error: BaseException | None = None
        response: httpx.Response | None = None
        try:
            response = self.inner.handle_request(request)
        except BaseException as caught:
            error = caught
            raise
        finally:
            _over(self.plan, submits, error, response)
        self.plan.after()
        return response


class AsyncFaultyTransport(httpx.AsyncBaseTransport):
    """For the asynchronous hook."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.inner = AsyncInProcessTransport(plan.core, plan.clock)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        submits = self.plan.before(request)
        error: BaseException | None = None
        response: httpx.Response | None = None
        try:
            response = await self.inner.handle_async_request(request)
        except BaseException as caught:
            error = caught
            raise
        finally:
            _over(self.plan, submits, error, response)
        self.plan.after()
        return response

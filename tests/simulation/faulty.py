"""A server in this process, on a virtual clock, with faults at random requests, outages at random times, and crashes.

Everything follows from one seed, so that a history can be played again.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx

from orchestration_integrations.server import AsyncInProcessTransport, Core, InProcessTransport, VirtualClock
from orchestration_integrations.server.clock import SECOND

PARTS = ("workers", "engine", "database", "ledger")
MISREADS = True
"""Whether answers come that are not the answer: the server did what it did, and the client can't read it."""
_ANYTHING = ("null", "ids", "message", "empty_cursor", "empty_page", "empty", "sign_in")
_OF_A_LIST = (*_ANYTHING, "object", "bom", "zero_time")
_HOWS = {
    "run": (*_ANYTHING, "list", "bom", "zero_time", "other_workflow"),
    "create": (*_ANYTHING, "list", "bom", "zero_time"),
    "send": _ANYTHING,
    "instances": (*_OF_A_LIST, "no_next", "other_workflow", "no_filter"),
    "list": (*_OF_A_LIST, "no_next"),
    "history": _OF_A_LIST,
    "thing": (*_ANYTHING, "list", "bom", "zero_time", "other_id", "other_workflow"),
}
"""What can be misread, by what was asked for. Nobody can tell that the id of a new run is another one's."""
_READABLE = ("bom", "zero_time")
IN_A_ROW = 2
"""Unreadable answers to one request, one after another. Nobody can know whether a sign-in page will ever go away, so
whoever gives up after more of them, and says so, breaks no promise."""


def _name_of(request: httpx.Request) -> str:
    return f"{request.method} {request.url.path}"


def _asked_for(request: httpx.Request) -> str:
    """What a request asks for, as a word of `_HOWS`."""
    last = request.url.path.rsplit("/", 1)[1]
    if request.method == "POST" and last in ("instances", "workflows"):
        return "run" if last == "instances" else "create"
    if request.method != "GET":
        return "send"
    if last in ("instances", "workflows"):
        return "instances" if last == "instances" else "list"
    return "history" if last == "history" else "thing"


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
    misreads: random.Random
    """Of its own, so that the rest of a history stays the same with and without misread answers."""
    _is_spoiled: bool = False
    crash_at: int | None = None
    crash_before: bool = False
    requests: int = 0
    lost_submits: int = 0
    reached_submits: int = 0
    injected: dict[str, int] = field(default_factory=dict)
    unreadable: Counter[str] = field(default_factory=Counter)
    """How often each request was answered so since it was last answered well."""

    def is_quiet(self) -> bool:
        """Whether all faults are over."""
        return self.clock.time() >= self.quiet_at

    def before(self, request: httpx.Request) -> bool:
        """Set a fault for this request, perhaps; tells whether it starts a run. Raises Crash where the plan says so."""
        self.requests += 1
        if self.crash_at is not None and self.requests > self.crash_at and self.crash_before:
            raise Crash
        submits = request.method == "POST" and request.url.path.endswith("/instances")
        self._is_spoiled = False
        if not self.is_quiet() and self.rng.random() < self.intensity:
            self._inject(submits)
        if MISREADS and not self.is_quiet():
            self._misread(request, submits)
        return submits

    def answered_well(self, request: httpx.Request) -> None:
        """A success came, unless a fault has spoiled it."""
        if not self._is_spoiled:
            del self.unreadable[_name_of(request)]

    def after(self) -> None:
        """The answer is there, and the process may die before it sees it."""
        if self.crash_at is not None and self.requests > self.crash_at:
            raise Crash

    def _misread(self, request: httpx.Request, submits: bool) -> None:
        asked_for = _asked_for(request)
        # Lists are rare, and most depends on them.
        share = {"instances": 2.0, "list": 2.0, "thing": 0.5, "history": 0.5}.get(asked_for, 1.0)
        if self.misreads.random() >= self.intensity * share:
            return
        how = self.misreads.choice(_HOWS[asked_for])
        if self.unreadable[_name_of(request)] == IN_A_ROW:
            return
        if how not in _READABLE:
            self.unreadable[_name_of(request)] += 1
            self._is_spoiled = True
        self.injected[f"misread {how}"] = self.injected.get(f"misread {how}", 0) + 1
        self.core.fault("any", "misread", 1, how=how)
        self.lost_submits += submits and how not in _READABLE

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
        self._is_spoiled = kind not in ("hidden", "unknown_fields", "shuffled")
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


def _over(
    plan: Plan, request: httpx.Request, submits: bool, error: BaseException | None, response: httpx.Response | None
) -> None:
    if response is not None and response.status_code < 300:
        plan.answered_well(request)
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
            _over(self.plan, request, submits, error, response)
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
            _over(self.plan, request, submits, error, response)
        self.plan.after()
        return response

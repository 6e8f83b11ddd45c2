"""The same promises over real sockets, in real time: two hundred short histories, many at once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from orchestration_integrations import (
    AmbiguousRunError,
    AsyncOrchestrationHttpHook,
    Instance,
    InstanceFailedError,
    OrchestrationError,
    OrchestrationHttpHook,
    RunResult,
    Settings,
)
from orchestration_integrations.procedures.gate import gated
from orchestration_integrations.server import EmbeddedServer
from tests.gates import releases_of

from .histories import KEY, payment

HISTORIES = 200
FAULTS = (
    ("cut_before", {}),
    ("cut_amid", {}),
    ("cut_after", {}),
    ("stall", {"seconds": 2.5}),
    ("status", {"code": 502, "work": True}),
    ("status", {"code": 500}),
    ("status", {"code": 429, "retry_after": 1}),
    ("html", {}),
    ("truncated", {}),
    ("slow", {"bytes_per_second": 30}),
    ("slow_head", {"bytes_per_second": 40}),
    ("interim", {"every": 0.1}),
    ("interim", {"every": 0.1, "times": 3}),
    ("gzip_bomb", {"megabytes": 2}),
    ("status", {"code": 522, "work": True}),
    ("hidden", {}),
    ("unknown_fields", {}),
    *(("misread", {"how": how}) for how in ("message", "null", "empty_page", "empty", "sign_in", "bom", "zero_time")),
)
OPERATIONS = (
    "any",
    "run_workflow",
    "run_workflow",
    "send_event",
    "get_instance",
    "list_instances",
    "get_instance_history",
)


def call(asynchronous: bool, url: str, method: str, *args, **kwargs):
    settings = Settings(base_url=url, timeout=1.5)
    if not asynchronous:
        with OrchestrationHttpHook(settings) as hook:
            return getattr(hook, method)(*args, **kwargs)

    async def main():
        async with AsyncOrchestrationHttpHook(settings) as hook:
            return await getattr(hook, method)(*args, **kwargs)

    return asyncio.run(main())


def play(seed: int) -> Counter[str]:
    rng = random.Random(seed)
    counts: Counter[str] = Counter()
    generation = rng.choice([1, 2, 3])
    asynchronous = rng.random() < 0.3
    is_gated = rng.random() < 0.7
    fails = rng.random() < 0.2
    definition = {"name": "d", "stages": [payment(destination="bad account!" if fails else "shop")]}
    with EmbeddedServer(generation, seed=seed) as server:
        workflow = call(asynchronous, server.url, "create_workflow", gated(definition) if is_gated else definition)
        for _ in range(rng.choice([0, 1, 2, 3])):
            kind, options = rng.choice(FAULTS)
            with suppress(ValueError):  # not each fault can change each operation
                server.fault(rng.choice(OPERATIONS), kind, 1, **options)
        if rng.random() < 0.3:
            server.fault("run_workflow", "late_row", 1, seconds=rng.choice([0.3, 2]))
        instance = None
        fresh = True
        for attempt in range(2):
            try:
                instance = call(
                    asynchronous,
                    server.url,
                    "start",
                    workflow.id,
                    run_key=KEY,
                    first_attempt=fresh,
                    timeout=rng.choice([1.0, 3.0]) if attempt == 0 and is_gated else 20.0 if is_gated else 1.0,
                )
            except OrchestrationError as error:
                counts[type(error).__name__] += 1
                judge_no_start(f"seed {seed}: {error!r}", server, error, is_gated and attempt == 1)
                fresh = fresh and not isinstance(error, AmbiguousRunError)
                continue
            break
        counts["started"] += instance is not None
        if instance is not None:
            counts[judge_end(seed, server, asynchronous, instance, fails)] += 1
        record = server.record()
        released = releases_of(record, KEY)
        assert len(released if is_gated else record.started) <= 1, f"seed {seed}"
        assert server.balance("shop", "USD/2") in (0, 100), f"seed {seed}"
    return counts


def judge_no_start(about: str, server: EmbeddedServer, error: OrchestrationError, last_gated: bool) -> None:
    if isinstance(error, AmbiguousRunError):
        assert error.run_key == KEY, about
        assert not last_gated or len(error.candidates) > 1, about
    else:
        assert server.record().started == [], about
        assert not last_gated, about


def judge_end(seed: int, server: EmbeddedServer, asynchronous: bool, instance: Instance, fails: bool) -> str:
    try:
        result = call(asynchronous, server.url, "wait", instance.id, timeout=30, poll_interval=0.3)
    except InstanceFailedError:
        return judged("failed", fails, seed)
    assert isinstance(result, RunResult)
    assert not fails, f"seed {seed}"
    assert server.balance("shop", "USD/2") == 100, f"seed {seed}"
    return "succeeded"


def judged(how: str, expected: bool, seed: int) -> str:
    assert expected, f"seed {seed} {how}"
    return how


@pytest.mark.proof
def test_short_histories_over_sockets():
    first = random.SystemRandom().randrange(10**9)
    print(f"the first seed is {first}")
    counts: Counter[str] = Counter()
    with ThreadPoolExecutor(16) as pool:
        for some in pool.map(play, range(first, first + HISTORIES)):
            counts.update(some)
    assert counts["started"] > HISTORIES * 0.7
    assert counts["succeeded"] > HISTORIES * 0.4
    assert counts["failed"] > 0

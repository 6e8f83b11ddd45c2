"""Fifty short runs at once, gated and waited for, next to a bare POST and polls: requests for a run, and seconds."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from .measuring import Child, Options, Pair, Spread, figure
from .report import Section, Target

AT_ONCE = 50
FIRST, LONGEST, GROWTH = 0.2, 5.0, 1.5
"""Pauses between the polls of the bare client: as a careful script has them."""

STAGES: list[dict[str, Any]] = [
    {
        "send": {
            "source": {"account": {"id": "world", "ledger": "default"}},
            "destination": {"account": {"id": "bank", "ledger": "default"}},
            "amount": {"amount": 100, "asset": "EUR/2"},
        }
    }
]


async def bare(client: httpx.AsyncClient, workflow: str) -> None:
    """A POST, and polls until the run has ended."""
    answer = await client.post(f"/workflows/{workflow}/instances", json={})
    instance, pause = answer.json()["data"]["id"], FIRST
    while True:
        await asyncio.sleep(pause)
        if (await client.get(f"/instances/{instance}")).json()["data"]["terminated"]:
            return
        pause = min(pause * GROWTH, LONGEST)


async def compare(server: Child, generation: int, rounds: int) -> tuple[Pair, Pair, Counter[str]]:
    """Requests for a run, and seconds for all, of each turn; and our requests by operation, of all turns."""
    from orchestration_integrations import AsyncOrchestrationHttpHook

    url = server.ask("url")
    ungated = server.ask("workflow", stages=STAGES)
    taken: dict[str, list[tuple[float, float]]] = {"ours": [], "theirs": []}
    operations: Counter[str] = Counter()
    limits = httpx.Limits(max_connections=AT_ONCE)
    async with (
        AsyncOrchestrationHttpHook(base_url=url, max_connections=AT_ONCE) as hook,
        httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client,
    ):
        gated = await hook.ensure_workflow({"name": "gated", "stages": STAGES}, gate=True)

        async def ours() -> None:
            started = await hook.start(gated.workflow.id, run_key=uuid.uuid4().hex, first_attempt=True)
            await hook.wait(started.id)

        ways: dict[str, Callable[[], Awaitable[None]]] = {"ours": ours, "theirs": lambda: bare(client, ungated)}
        for number in range(rounds + 1):
            for name in ("ours", "theirs") if number % 2 else ("theirs", "ours"):
                before, begun = server.ask("usage")["requests"], time.perf_counter()
                await asyncio.gather(*(ways[name]() for _ in range(AT_ONCE)))
                seconds = time.perf_counter() - begun
                after = Counter(server.ask("usage")["requests"])
                after.subtract(before)
                if number:  # the first turn opens connections
                    taken[name].append((sum(after.values()) / AT_ONCE, seconds))
                    if name == "ours":
                        operations.update(after)
    requests, seconds_ = (
        Pair([one[at] for one in taken["ours"]], [one[at] for one in taken["theirs"]]) for at in (0, 1)
    )
    return requests, seconds_, operations


def measure(options: Options) -> list[Section]:
    """On each generation of the server."""
    rounds = 2 if options.quick else 3
    rows, targets, notes = [], [], []
    for generation in (1, 2, 3):
        with Child("serving", str(generation)) as server:
            requests, seconds, operations = asyncio.run(compare(server, generation, rounds))
        rows.append(
            [
                str(generation),
                str(Spread.of(requests.ours)),
                str(Spread.of(requests.theirs)),
                str(Spread.of(seconds.ours)),
                str(Spread.of(seconds.theirs)),
                str(seconds.ratio),
            ]
        )
        targets.append(Target(f"requests a run, generation {generation}", Spread.of(requests.ours).middle, 10))
        targets.append(Target(f"seconds over bare, generation {generation}", seconds.ratio.middle, 1.2))
        each = ", ".join(
            f"`{name}` {figure(count / AT_ONCE / rounds)}" for name, count in operations.most_common() if count
        )
        notes.append(f"Our requests a run on generation {generation}: {each}.")
    text = [
        f"{AT_ONCE} runs of one payment at once: `start` with a new key on a gated workflow, and `wait`, next to a "
        f"POST on the same workflow without a gate and polls after {FIRST} s, each pause {GROWTH} times the last, at "
        f"most {LONGEST:g} s. Requests are counted by the server; {rounds} turns.",
    ]
    return [
        Section(
            "short_runs",
            "A gated run",
            text,
            ["server generation", "requests a run", "bare", "seconds for all", "bare ", "ratio of seconds"],
            rows,
            targets,
            notes=notes,
        )
    ]

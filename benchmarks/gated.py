"""What a gated run costs beside a bare POST and polls: requests a run, by operation, and seconds.

Everything runs in processes of its own: the server, our client, the bare client. The bare client starts runs of the
same stages without a gate; it polls first after 0.2 s, and each pause is half as long again, up to 5 s. Requests are
counted by the server. The two clients take turns on one server.

``python -m benchmarks.gated`` prints a Markdown table.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx

FIRST_PAUSE, LONGEST_PAUSE, GROWTH = 0.2, 5.0, 1.5
MODES = ("first", "new key", "retry", "once", "once retry")
"""``first``: start and wait with a key that is known to be new. ``new key``: with one that may have been used.
``retry``: with one whose run an earlier attempt has started. ``once``, ``once retry``: ``run_once`` with a store."""

_PAY: dict[str, Any] = {
    "send": {
        "source": {"account": {"id": "world", "ledger": "default"}},
        "destination": {"account": {"id": "bank", "ledger": "default"}},
        "amount": {"amount": 100, "asset": "EUR/2"},
    }
}
WORKLOADS: dict[str, list[dict[str, Any]]] = {
    "one payment": [_PAY],
    "payment, delay, payment": [_PAY, {"delay": {"duration": "1ms"}}, _PAY],
}


@dataclass(frozen=True)
class Measured:
    """One row of the table.

    Attributes:
        generation: of the server.
        workload: the stages of a run, named in ``WORKLOADS``.
        client: ``sync`` or ``async``.
        mode: one of ``MODES``.
        requests: for one run, by operation; middle of all turns.
        bare_requests: for one run of the bare client.
        seconds: from the first request until the last of all runs had ended; middle of all turns.
        bare_seconds: of the bare client.
        ratios: of the seconds, one for each turn.
    """

    generation: int
    workload: str
    client: str
    mode: str
    requests: dict[str, float]
    bare_requests: float
    seconds: float
    bare_seconds: float
    ratios: tuple[float, ...]

    @property
    def total(self) -> float:
        """Requests for one run."""
        return sum(self.requests.values())


# ---- the clients, each in a process of its own -----------------------------------------------------


def _pauses() -> Iterator[float]:
    pause = FIRST_PAUSE
    while True:
        yield pause
        pause = min(pause * GROWTH, LONGEST_PAUSE)


def _bare_sync(client: httpx.Client, workflow: str, keys: Sequence[str]) -> None:
    def one(key: str) -> None:
        instance = client.post(f"/workflows/{workflow}/instances", json={"runKey": key}).json()["data"]["id"]
        for pause in _pauses():
            time.sleep(pause)
            if client.get(f"/instances/{instance}").json()["data"]["terminated"]:
                return

    with ThreadPoolExecutor(len(keys)) as pool:
        list(pool.map(one, keys))


async def _bare_async(client: httpx.AsyncClient, workflow: str, keys: Sequence[str]) -> None:
    async def one(key: str) -> None:
        answer = await client.post(f"/workflows/{workflow}/instances", json={"runKey": key})
        instance = answer.json()["data"]["id"]
        for pause in _pauses():
            await asyncio.sleep(pause)
            if (await client.get(f"/instances/{instance}")).json()["data"]["terminated"]:
                return

    await asyncio.gather(*map(one, keys))


def _ours_sync(hook: Any, workflow: str, keys: Sequence[str], mode: str, file: str, part: str) -> None:
    from orchestration_integrations import SqliteRunStore, WaitTimeoutError

    store = SqliteRunStore(file)

    def started(key: str) -> str:
        return str(hook.start(workflow, run_key=key, first_attempt=mode == "first").id)

    def one(key: str) -> None:
        if part == "before":
            if mode == "once retry":
                with suppress(WaitTimeoutError):
                    hook.run_once(workflow, run_key=key, store=store, timeout=0, on_timeout="leave")
            elif mode == "retry":
                hook.start(workflow, run_key=key, first_attempt=True)
        elif mode.startswith("once"):
            hook.run_once(workflow, run_key=key, store=store)
        else:
            hook.wait(started(key))

    with ThreadPoolExecutor(len(keys)) as pool:
        list(pool.map(one, keys))


async def _ours_async(hook: Any, workflow: str, keys: Sequence[str], mode: str, file: str, part: str) -> None:
    from orchestration_integrations import SqliteRunStore, WaitTimeoutError

    store = SqliteRunStore(file)

    async def one(key: str) -> None:
        if part == "before" and mode == "once retry":
            with suppress(WaitTimeoutError):
                await hook.run_once(workflow, run_key=key, store=store, timeout=0, on_timeout="leave")
        elif mode.startswith("once"):
            await hook.run_once(workflow, run_key=key, store=store)
        elif part == "before":
            await hook.start(workflow, run_key=key, first_attempt=True)
        else:
            instance = await hook.start(workflow, run_key=key, first_attempt=mode == "first")
            await hook.wait(instance.id)

    if part != "before" or mode.endswith("retry"):
        await asyncio.gather(*map(one, keys))


def _counted(url: str) -> dict[str, int]:
    found: dict[str, int] = httpx.get(f"{url}/_control/record", timeout=60).json()["requests"]
    return found


def _client(work: dict[str, Any]) -> dict[str, Any]:
    """The measured part of a client process: what it printed goes to the process that has started it."""
    url, keys, mode = work["url"], work["keys"], work["mode"]
    ours, blocking = work["ours"], work["client"] == "sync"
    if not ours:
        options: dict[str, Any] = {"base_url": url, "limits": httpx.Limits(max_connections=len(keys)), "timeout": 60}
        if blocking:
            with httpx.Client(**options) as client:
                client.get("/_info")  # what is made with the first request is not measured, here and below
                before, begun = _counted(url), time.perf_counter()
                _bare_sync(client, work["workflow"], keys)
                return _result(url, begun, before)

        async def bare() -> dict[str, Any]:
            async with httpx.AsyncClient(**options) as aclient:
                await aclient.get("/_info")
                before, begun = _counted(url), time.perf_counter()
                await _bare_async(aclient, work["workflow"], keys)
                return _result(url, begun, before)

        return asyncio.run(bare())
    from orchestration_integrations import AsyncOrchestrationHttpHook, OrchestrationHttpHook

    arguments = (work["workflow"], keys, mode, work["file"])
    if blocking:
        # A retry is another process's in truth: it knows nothing of what the earlier attempt has read.
        with OrchestrationHttpHook(base_url=url) as earlier, OrchestrationHttpHook(base_url=url) as hook:
            hook.get_server_info()
            _ours_sync(earlier, *arguments, "before")
            before, begun = _counted(url), time.perf_counter()
            _ours_sync(hook, *arguments, "measured")
            return _result(url, begun, before)

    async def run() -> dict[str, Any]:
        async with (
            AsyncOrchestrationHttpHook(base_url=url) as earlier,
            AsyncOrchestrationHttpHook(base_url=url) as hook,
        ):
            await hook.get_server_info()
            await _ours_async(earlier, *arguments, "before")
            before, begun = _counted(url), time.perf_counter()
            await _ours_async(hook, *arguments, "measured")
            return _result(url, begun, before)

    return asyncio.run(run())


def _result(url: str, begun: float, before: dict[str, int]) -> dict[str, Any]:
    seconds = time.perf_counter() - begun
    after = _counted(url)
    requests = {name: after[name] - before.get(name, 0) for name in after}
    return {"seconds": seconds, "requests": {name: count for name, count in requests.items() if count}}


# ---- measuring -------------------------------------------------------------------------------------


@contextmanager
def _served(generation: int) -> Iterator[str]:
    code = "from orchestration_integrations.cli import main; main()"
    arguments = ["serve", "--port", "0", "--generation", str(generation), "--faults"]
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(20)


def _performed(work: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.gated", "--client"]
    done = subprocess.run(command, input=json.dumps(work), capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(done.stderr)
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def _workflows(url: str, stages: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """(a new workflow with a gate, one of the same stages without)."""
    from orchestration_integrations import OrchestrationHttpHook

    name = uuid.uuid4().hex
    with OrchestrationHttpHook(base_url=url) as hook:
        gated = hook.ensure_workflow({"name": name, "stages": stages}, gate=True).workflow.id
        return gated, hook.create_workflow({"name": f"{name}-bare", "stages": stages}).id


def measure(
    *,
    generations: Sequence[int] = (1, 2, 3),
    workloads: Sequence[str] = tuple(WORKLOADS),
    clients: Sequence[str] = ("sync", "async"),
    modes: Sequence[str] = MODES,
    runs: int = 50,
    turns: int = 3,
) -> list[Measured]:
    """Measure each combination.

    Args:
        generations: of the embedded server.
        workloads: names in ``WORKLOADS``.
        clients: ``sync``, ``async``.
        modes: of ``MODES``.
        runs: how many are started at once.
        turns: how often each combination is measured, on a new workflow each time.
    """
    rows = []
    for generation in generations:
        with _served(generation) as url:
            for workload in workloads:
                for client in clients:
                    rows += [_row(url, generation, workload, client, mode, runs, turns) for mode in modes]
    return rows


def _row(url: str, generation: int, workload: str, client: str, mode: str, runs: int, turns: int) -> Measured:
    ours, bare = [], []
    for turn in range(turns):
        gated, plain = _workflows(url, WORKLOADS[workload])
        with tempfile.TemporaryDirectory() as folder:
            work = {
                "url": url,
                "keys": [uuid.uuid4().hex for _ in range(runs)],
                "client": client,
                "mode": mode,
                "file": os.path.join(folder, "runs.db"),
            }
            for first in (turn % 2 == 0, turn % 2 != 0):
                done = _performed({**work, "ours": first, "workflow": gated if first else plain})
                (ours if first else bare).append(done)
    names = sorted({name for one in ours for name in one["requests"]})
    return Measured(
        generation=generation,
        workload=workload,
        client=client,
        mode=mode,
        requests={name: statistics.median(one["requests"].get(name, 0) for one in ours) / runs for name in names},
        bare_requests=statistics.median(sum(one["requests"].values()) for one in bare) / runs,
        seconds=statistics.median(one["seconds"] for one in ours),
        bare_seconds=statistics.median(one["seconds"] for one in bare),
        ratios=tuple(a["seconds"] / b["seconds"] for a, b in zip(ours, bare, strict=True)),
    )


SHORT = {
    "get_instance": "GET instance",
    "get_instance_history": "history",
    "get_stage_history": "stage history",
    "get_workflow": "GET workflow",
    "list_instances": "list",
    "run_workflow": "POST run",
    "send_event": "event",
}


def table(rows: Sequence[Measured]) -> str:
    """The rows as Markdown."""
    lines = [
        "| generation | run | client | how | requests a run | of them | bare | seconds | bare | ratio (min–max) |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        parts = ", ".join(f"{SHORT.get(name, name)} {count:.2f}" for name, count in row.requests.items())
        lines.append(
            f"| {row.generation} | {row.workload} | {row.client} | {row.mode} | {row.total:.1f} | {parts} "
            f"| {row.bare_requests:.1f} | {row.seconds:.2f} | {row.bare_seconds:.2f} "
            f"| {statistics.median(row.ratios):.2f} ({min(row.ratios):.2f}–{max(row.ratios):.2f}) |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print; or, with ``--client``, be a client."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gated", description=__doc__)
    parser.add_argument("--client", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--generations", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--workloads", nargs="+", default=list(WORKLOADS))
    parser.add_argument("--clients", nargs="+", default=["sync", "async"])
    parser.add_argument("--modes", nargs="+", default=list(MODES))
    parser.add_argument("--runs", type=int, default=50, help="runs that are started at once (50)")
    parser.add_argument("--turns", type=int, default=3, help="how often each row is measured (3)")
    options = parser.parse_args()
    if options.client:
        print(json.dumps(_client(json.load(sys.stdin))))
        return
    given = {name: value for name, value in vars(options).items() if name != "client"}
    print(table(measure(**given)))


if __name__ == "__main__":
    main()

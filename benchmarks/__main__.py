"""Print each ratio with the limit that the project sets itself. Exit status 1 if one is above it.

Only this process's CPU time counts; the server runs in another. What is compared takes turns, so that
whatever else the machine does falls on both, and the middle of the ratios is printed.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx

Call = Callable[[], object]

BARE_IMPORT = "import httpx, tenacity, msgspec"
HOOK_IMPORT = "from orchestration_integrations import OrchestrationHttpHook"


@contextmanager
def served() -> Iterator[tuple[str, str]]:
    """The URL of a server in another process, and an instance on it that has ended after three stages."""
    code = "from orchestration_integrations.cli import main; main()"
    arguments = ["serve", "--port", "0", "--generation", "2"]
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with httpx.Client(base_url=url) as client:
            stages = [{"delay": {"duration": "1ms"}}] * 3
            workflow = client.post("/workflows", json={"name": "short", "stages": stages}).json()["data"]["id"]
            instance_id = client.post(f"/workflows/{workflow}/instances", json={}).json()["data"]["id"]
            while not client.get(f"/instances/{instance_id}").json()["data"]["terminated"]:
                time.sleep(0.05)
            yield url, instance_id
    finally:
        process.terminate()
        process.wait(20)


def cpu(call: Call, count: int) -> float:
    """Seconds of this process's CPU for a number of calls."""
    gc.collect()
    begun = time.process_time()
    for _ in range(count):
        call()
    return (time.process_time() - begun) / count


def ratio(ours: Call, theirs: Call, *, rounds: int, count: int) -> tuple[float, float, float]:
    """The middle ratio, and the middle seconds of each."""
    for call in (ours, theirs):
        cpu(call, count)
    pairs = []
    for number in range(rounds):
        first, second = (ours, theirs) if number % 2 else (theirs, ours)
        taken = {first: cpu(first, count), second: cpu(second, count)}
        pairs.append((taken[ours], taken[theirs]))
    middle = statistics.median(a / b for a, b in pairs)
    return middle, statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def import_cpu(statement: str) -> float:
    """Seconds of CPU that a fresh interpreter takes for a statement, its own start not counted.

    Compiled files are kept, whatever the caller's environment says: compiling is not importing.
    """
    code = f"import time; t = time.process_time()\n{statement}\nprint(time.process_time() - t)"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    return float(done.stdout)


def shown(what: str, measured: tuple[float, float, float], limit: float) -> bool:
    """Print one line; whether the limit is kept."""
    value, ours, theirs = measured
    kept = value <= limit
    said = "" if kept else "  ABOVE ITS LIMIT"
    print(f"{what:<62} {ours * 1e6:8.0f} µs / {theirs * 1e6:8.0f} µs = {value:5.3f}  (limit {limit}){said}", flush=True)
    return kept


def main() -> int:
    """Measure everything."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="turns of each pair (15)")
    parser.add_argument("--calls", type=int, default=300, help="calls in each turn (300)")
    options = parser.parse_args()
    from formance_sdk_python import SDK

    from orchestration_integrations import OrchestrationHttpHook

    kept = []
    with served() as (url, instance_id):
        path = f"{url}/api/orchestration/instances/{instance_id}"
        sdk = SDK(server_url=url).orchestration.v1
        base_url = f"{url}/api/orchestration"
        plain_sockets = OrchestrationHttpHook(base_url=base_url, transport=httpx.HTTPTransport())
        with httpx.Client() as client, OrchestrationHttpHook(base_url=base_url) as hook, plain_sockets:

            def bare() -> object:
                return client.get(path).json()

            def ours() -> object:
                return hook.get_instance(instance_id)

            def official() -> object:
                return sdk.get_instance(request={"instance_id": instance_id})

            def unbounded() -> object:
                return plain_sockets.get_instance(instance_id)

            assert hook.get_instance(instance_id).state == "succeeded"
            measured = ratio(ours, bare, rounds=options.rounds, count=options.calls)
            kept.append(shown("CPU of get_instance / bare httpx.Client.get(...).json()", measured, 1.15))
            measured = ratio(ours, official, rounds=options.rounds, count=options.calls)
            kept.append(shown("CPU of get_instance / the same by formance-sdk-python", measured, 0.5))
            measured = ratio(ours, unbounded, rounds=options.rounds, count=options.calls)
            kept.append(shown("CPU of get_instance / the same without the bounded sockets", measured, 1.1))
    for statement in (BARE_IMPORT, HOOK_IMPORT):
        import_cpu(statement)
    turns = [(import_cpu(HOOK_IMPORT), import_cpu(BARE_IMPORT)) for _ in range(3 * options.rounds)]
    ours_cpu, bare_cpu = (statistics.median(side) for side in zip(*turns, strict=True))
    measured = (ours_cpu / bare_cpu, ours_cpu, bare_cpu)
    kept.append(shown("CPU of importing the hook / httpx, tenacity, msgspec", measured, 1.05))
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())

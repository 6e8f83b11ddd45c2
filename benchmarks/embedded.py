"""How much the embedded server can do, by the number of runs that it holds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import httpx

from . import svg
from .measuring import Child, Options, Pair, Spread
from .report import Section, Target

SIZES = (10, 100, 1_000, 10_000)
STAGES = [
    {
        "send": {
            "source": {"account": {"id": "world", "ledger": "default"}},
            "destination": {"account": {"id": f"bank:{number}", "ledger": "default"}},
            "amount": {"amount": 100, "asset": "EUR/2"},
        }
    }
    for number in range(3)
]
COLUMNS = {
    "runs/s": "three payments each: started over HTTP, ended",
    "GET, ms": "`get_instance`",
    "GET ×": "of a bare starlette app",
    "v2 page, ms": "100 of the running",
    "v1 list, µs a row": "all of the running",
}


def spent(server: Child, call: Callable[[], object], count: int) -> float:
    """Seconds of the server's CPU for one of a number of calls."""
    before = server.ask("usage")["cpu"]
    for _ in range(count):
        call()
    return float(server.ask("usage")["cpu"] - before) / count


async def run_through(url: str, workflow: str, count: int) -> None:
    """Start runs, ten at a time, and look until all have ended."""
    async with httpx.AsyncClient(base_url=url, limits=httpx.Limits(max_connections=10), timeout=60) as client:

        async def some(number: int) -> None:
            for _ in range(number):
                (await client.post(f"/workflows/{workflow}/instances", json={})).raise_for_status()

        await asyncio.gather(*(some(count // 10) for _ in range(10)))
        query = {"workflowID": workflow, "running": "true"}
        while (await client.get("/instances", params=query)).json()["data"]:  # noqa: ASYNC110 (it is another process)
            await asyncio.sleep(0.2)


def measure_one(count: int, rounds: int, calls: int, runs: int) -> dict[str, Spread]:
    """What a server costs that holds so many runs."""
    taken: dict[str, list[float]] = {name: [] for name in COLUMNS}
    with Child("serving") as server, httpx.Client(timeout=60) as client:
        url, ids = server.ask("url"), server.ask("running", count=count)
        workflow = server.ask("workflow", stages=STAGES)
        body = json.dumps(client.get(f"{url}/instances/{ids[0]}").json())
        with Child("bare_server", body) as bare:
            plain = bare.ask("url")
            get, listing = f"{url}/instances/{ids[-1]}", f"{url}/instances?running=true"
            page = f"{url}/v2/instances?running=true&pageSize=100"
            gets, plains = [], []
            for number in range(rounds + 1):
                one = spent(server, lambda: client.get(get), calls)
                two = spent(bare, lambda: client.get(plain), calls)
                three = spent(server, lambda: client.get(page), max(1, calls // 10))
                four = spent(server, lambda: client.get(listing), max(1, min(calls, 2_000 // count)))
                if number:
                    gets.append(one)
                    plains.append(two)
                    taken["GET, ms"].append(one * 1e3)
                    taken["v2 page, ms"].append(three * 1e3)
                    taken["v1 list, µs a row"].append(four * 1e6 / count)
            ratio = Pair(gets, plains).ratio
        for _ in range(min(rounds, 3)):
            before = server.ask("usage")["cpu"]
            asyncio.run(run_through(url, workflow, runs))
            taken["runs/s"].append(runs / (server.ask("usage")["cpu"] - before))
    return {name: ratio if name == "GET ×" else Spread.of(values) for name, values in taken.items()}


def measure(options: Options) -> list[Section]:
    """All sizes."""
    sizes = (10, 100) if options.quick else SIZES
    found = {count: measure_one(count, *((1, 20, 20) if options.quick else (3, 100, 100))) for count in sizes}
    rows = [[f"{count:,}", *(str(one[name]) for name in COLUMNS)] for count, one in found.items()]
    first, last = found[sizes[0]], found[sizes[-1]]
    text = [
        "By the number of runs that wait on the server. All figures are of the CPU of the server's process, so "
        "`runs/s` are those that one core could do. "
        + "; ".join(f"*{name}*: {what}" for name, what in COLUMNS.items())
        + ". What a list without paging costs grows with what it lists, and a v2 page with what the server has to look "
        "through; a GET should stay flat.",
    ]
    flat = last["GET, ms"].middle / first["GET, ms"].middle
    return [
        Section(
            "embedded",
            "The embedded server",
            text,
            ["runs held", *COLUMNS],
            rows,
            [
                Target(f"GET with {sizes[-1]:,} runs over GET with {sizes[0]}", flat, 1.25),
                Target(
                    "runs/s, wherever the fewest", min(one["runs/s"].middle for one in found.values()), 500, "at least"
                ),
            ],
            {
                "embedded": svg.lines(
                    "The embedded server, by the runs that it holds",
                    sizes,
                    {name: [one[name].middle for one in found.values()] for name in COLUMNS if name.endswith("ms")},
                    across="runs held",
                    up="milliseconds of CPU",
                )
            },
        )
    ]

"""What one call costs, next to bare httpx and to the official SDK: blocking, and 50 at once in asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from . import svg
from .measuring import Call, Child, Options, Pair, Spread, figure, in_turns
from .report import Section, Target

AT_ONCE = 50
OVER_HTTPX, OVER_SDK, OVER_SOCKETS = 1.15, 0.4, 1.1

Compared = dict[str, tuple[Pair, Pair]]


def ended_run(server: Child) -> str:
    """The id of a run that has ended after three stages."""
    with httpx.Client(base_url=server.ask("url")) as client:
        stages = [{"delay": {"duration": "1ms"}}] * 3
        workflow = client.post("/workflows", json={"name": "short", "stages": stages}).json()["data"]["id"]
        instance = client.post(f"/workflows/{workflow}/instances", json={}).json()["data"]["id"]
        while not client.get(f"/instances/{instance}").json()["data"]["terminated"]:
            time.sleep(0.05)
    return str(instance)


def blocking(url: str, instance: str, *, rounds: int, count: int) -> Compared:
    """``get_instance`` of a blocking client."""
    from formance_sdk_python import SDK

    from orchestration_integrations import OrchestrationHttpHook

    base_url = f"{url}/api/orchestration"
    sdk = SDK(server_url=url).orchestration.v1
    plain = OrchestrationHttpHook(base_url=base_url, transport=httpx.HTTPTransport())
    with httpx.Client() as client, OrchestrationHttpHook(base_url=base_url) as hook, plain:

        def ours() -> object:
            return hook.get_instance(instance)

        theirs: dict[str, Call] = {
            "httpx": lambda: client.get(f"{base_url}/instances/{instance}").json(),
            "formance-sdk-python": lambda: sdk.get_instance(request={"instance_id": instance}),
            "the hook without its bounded sockets": lambda: plain.get_instance(instance),
        }
        assert hook.get_instance(instance).state == "succeeded"
        return {name: in_turns(ours, call, rounds=rounds, count=count) for name, call in theirs.items()}


async def _at_once(call: Callable[[], Awaitable[Any]]) -> None:
    await asyncio.gather(*(call() for _ in range(AT_ONCE)))


def asynchronous(url: str, instance: str, *, rounds: int, count: int) -> Compared:
    """``get_instance``, 50 at once. As many connections for each client."""
    from formance_sdk_python import SDK

    from orchestration_integrations import AsyncOrchestrationHttpHook

    base_url = f"{url}/api/orchestration"
    with asyncio.Runner() as runner:

        async def opened() -> tuple[Any, Any, Any]:
            limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
            beneath = httpx.AsyncClient(limits=limits, follow_redirects=True)
            hook = AsyncOrchestrationHttpHook(base_url=base_url, max_connections=AT_ONCE)
            return await hook.__aenter__(), httpx.AsyncClient(limits=limits), SDK(server_url=url, async_client=beneath)

        hook, client, sdk = runner.run(opened())
        official = sdk.orchestration.v1

        async def bare() -> Any:
            return (await client.get(f"{base_url}/instances/{instance}")).json()

        def together(call: Callable[[], Awaitable[Any]]) -> Call:
            return lambda: runner.run(_at_once(call))

        ours = together(lambda: hook.get_instance(instance))
        theirs = {
            "httpx": together(bare),
            "formance-sdk-python": together(lambda: official.get_instance_async(request={"instance_id": instance})),
        }
        found = {name: in_turns(ours, call, rounds=rounds, count=count) for name, call in theirs.items()}
        runner.run(hook.__aexit__(None, None, None))
        runner.run(client.aclose())
    return {name: (_each(cpu), _each(wall)) for name, (cpu, wall) in found.items()}


def _each(pair: Pair) -> Pair:
    return Pair([one / AT_ONCE for one in pair.ours], [one / AT_ONCE for one in pair.theirs])


def measure(options: Options) -> list[Section]:
    """Both kinds of client."""
    rounds, count = (3, 20) if options.quick else (25, 120)
    with Child("serving") as server:
        url, instance = server.ask("url"), ended_run(server)
        kinds = {
            "blocking": blocking(url, instance, rounds=rounds, count=count),
            "50 at once": asynchronous(url, instance, rounds=min(rounds, 8), count=1 if options.quick else 3),
        }
    limits = {"httpx": OVER_HTTPX, "formance-sdk-python": OVER_SDK}
    rows: list[list[str]] = []
    targets: list[Target] = []
    shown: dict[str, Spread] = {}
    for kind, compared in kinds.items():
        for peer, (cpu, wall) in compared.items():
            ours, theirs = Spread.of(cpu.ours).scaled(1e6), Spread.of(cpu.theirs).scaled(1e6)
            rows.append([kind, peer, figure(ours.middle), figure(theirs.middle), str(cpu.ratio), str(wall.ratio)])
            targets.append(Target(f"CPU, {kind}, over {peer}", cpu.ratio.middle, limits.get(peer, OVER_SOCKETS)))
            shown[f"ours, {kind}, over {peer if peer in limits else 'its bare sockets'}"] = cpu.ratio
    text = [
        "`get_instance` of a run that has ended, against the embedded server in another process. CPU is that of the "
        f"client's process. {rounds} turns of each pair ({min(rounds, 8)} of 50 at once); a ratio is the middle of "
        "all turns, with the lowest and the highest.",
        "httpx means `client.get(url).json()`. All clients keep their connections; 50 at once have 50 connections "
        "each.",
    ]
    return [
        Section(
            "client",
            "A call",
            text,
            ["how", "compared with", "CPU of ours, µs", "CPU of theirs, µs", "CPU ratio", "wall ratio"],
            rows,
            targets,
            {"client": svg.bars("CPU of a call, ours over theirs", shown, across="ratio; below 1 ours is cheaper")},
        )
    ]

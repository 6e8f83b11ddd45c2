"""Generation 1 answers what a real server of that generation answered, exchange for exchange.

The recordings are replayed with their pauses on a virtual clock, overlapping requests as overlapping
tasks; two of them once more over a socket in real time. Statuses, content types and bodies must be the
same to the letter, error texts included. Only ids, instants, transaction numbers and addresses of hosts
are compared by kind, and where an answer was a matter of milliseconds, not at all.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestration_integrations.server import AsyncInProcessTransport, Core, EmbeddedServer, VirtualClock

RECORDINGS = Path(__file__).parent.parent / "golden"
NOT_OURS = {"triggers"}  # of a later server than generation 1
SCENARIOS = sorted(path.stem for path in RECORDINGS.glob("*.json") if path.stem not in NOT_OURS)
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")
ADDRESS = re.compile(r"dial tcp \S+")
IGNORED = {"version", "timestamp", "reference"}


class Ids:
    """The ids of the recording and ours in their place."""

    def __init__(self) -> None:
        self.ours: dict[str, str] = {}

    def put(self, text: str) -> str:
        def one(found: re.Match[str]) -> str:
            exact = self.ours.get(found[0])
            if exact is not None:
                return exact
            lower = self.ours.get(found[0].lower())
            return found[0] if lower is None else lower.upper()

        return UUID.sub(one, text)


def differences(want: Any, got: Any, ids: Ids, where: str = "", literal: str = "") -> list[str]:
    """How two answers differ."""
    if isinstance(want, dict) and isinstance(got, dict):
        found = [f"{where}: keys {sorted(want)} became {sorted(got)}"] if want.keys() != got.keys() else []
        retried = "lastFailure" in want
        for key in want.keys() & got.keys():
            if key in IGNORED or (key == "id" and isinstance(want[key], int) and isinstance(got[key], int)):
                continue
            if key == "attempt" and retried and abs(want[key] - got[key]) <= 1 < got[key]:
                continue
            found += differences(want[key], got[key], ids, f"{where}.{key}", literal)
        return found
    if isinstance(want, list) and isinstance(got, list):
        if where.endswith(".status"):
            want, got = (sorted(rows, key=lambda row: row["stage"]) for row in [0] for rows in (want, got))
        elif want and isinstance(want[0], dict) and "createdAt" in want[0]:
            return row_differences(want, got, ids, where, literal)
        if len(want) != len(got):
            return [f"{where}: {len(got)} entries, not {len(want)}"]
        return [d for n, (a, b) in enumerate(zip(want, got)) for d in differences(a, b, ids, f"{where}[{n}]", literal)]  # noqa: B905
    if isinstance(want, str) and isinstance(got, str):
        if INSTANT.fullmatch(want) and want not in literal:
            fine = len(INSTANT.fullmatch(want)[1] or "") > 7  # type: ignore[index]
            mine = INSTANT.fullmatch(got)
            if mine is None or (not fine and len(mine[1] or "") > 7):
                return [f"{where}: {got} is no instant like {want}"]
            return []
        if UUID.fullmatch(want) and want not in ids.ours and UUID.fullmatch(got):
            ids.ours[want] = got
            return []
        if ADDRESS.sub("dial tcp", ids.put(want)) != ADDRESS.sub("dial tcp", got):
            return [f"{where}: {got!r}, not {ids.put(want)!r}"]
        return []
    return [] if want == got and type(want) is type(got) else [f"{where}: {got!r}, not {want!r}"]


def row_differences(want: list[Any], got: list[Any], ids: Ids, where: str, literal: str) -> list[str]:
    """Lists have no order, and ours holds only this recording's rows: compare those that it created."""
    mine = {row["id"]: row for row in got}
    known = set(ids.ours.values())
    ours = [w for w in want if w["id"] in ids.ours]
    news = sorted((g for g in got if g["id"] not in known), key=lambda row: row["createdAt"])
    wanted = sorted(
        (w for w in want if w.get("workflowID") in ids.ours and w not in ours), key=lambda row: row["createdAt"]
    )
    for w, g in zip(wanted, news):  # noqa: B905
        ids.ours[w["id"]] = g["id"]
    ours += wanted
    found = [f"{where}: {len(news)} new rows, not {len(wanted)}"] if len(news) != len(wanted) else []
    for w in ours:
        row = mine.get(ids.ours[w["id"]])
        found += [f"{where}: a row is missing"] if row is None else differences(w, row, ids, f"{where}[]", literal)
    extra = {g["id"] for g in got} - {ids.ours[w["id"]] for w in ours}
    return found + ([f"{where}: {len(extra)} rows too many"] if extra else [])


class Replay:
    """One recording against a server, with the clock that the server runs on."""

    def __init__(self, client: httpx.AsyncClient, world: Any, now: Any, sleep: Any) -> None:
        self.client, self.world, self.now, self.sleep = client, world, now, sleep
        self.ids = Ids()
        self.found: list[str] = []
        self.literal = ""

    async def exchange(self, request: dict[str, Any]) -> httpx.Response:
        headers = dict(request["headers"])
        content: Any = None if request["body"] is None else self.ids.put(request["body"]).encode()
        if headers.pop("Transfer-Encoding", None) and content is not None:
            whole = content

            async def parts() -> Any:
                yield whole

            content = parts()
        url = httpx.URL(str(self.client.base_url).rstrip("/") + self.ids.put(request["path"]))
        return await self.client.request(request["method"], url, headers=headers, content=content)

    async def step(self, number: int, step: dict[str, Any]) -> None:
        want = step["response"]
        body = read(want["body"])
        limit = self.now() + 60
        while True:
            answer = await self.exchange(step["request"])
            got = read(answer.text)
            if not step.get("poll") or got["data"]["terminated"] or not body["data"]["terminated"]:
                break
            if self.now() > limit:
                self.found.append(f"{number}: never terminated")
                return
            await self.sleep(0.05)
        if step.get("racy"):
            return
        where = f"{number} {step['request']['method']} {step['request']['path']}"
        if answer.status_code != want["status"]:
            self.found.append(f"{where}: {answer.status_code} {answer.text}, not {want['status']} {want['body']}")
            return
        if step.get("loose"):
            return
        kinds = [h.get("content-type") for h in (want["headers"], answer.headers)]
        if kinds[0] != kinds[1]:
            self.found.append(f"{where}: Content-Type {kinds[1]}, not {kinds[0]}")
        self.found += differences(body, got, self.ids, where, self.literal)

    async def run(self, steps: list[dict[str, Any]]) -> list[str]:
        self.literal = " ".join(s["request"]["body"] or "" for s in steps if "request" in s)
        start, open_steps = self.now(), []
        for number, step in enumerate(steps):
            for task, end in list(open_steps):
                if end <= step["at_ms"]:
                    await task
                    open_steps.remove((task, end))
            await self.sleep(max(0.0, start + step["at_ms"] / 1000 - self.now()))
            start += max(0.0, self.now() - start - step["at_ms"] / 1000)
            if "world" in step:
                self.world(step["world"])
                continue
            end = step["at_ms"] + step["took_ms"]
            following = steps[number + 1]["at_ms"] if number + 1 < len(steps) else end
            if not step.get("poll") and following < end - 2:
                open_steps.append((asyncio.ensure_future(self.step(number, step)), end))
            else:
                await self.step(number, step)
        for task, _ in open_steps:
            await task
        return self.found


def read(text: str) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text.strip()


def steps_of(scenario: str) -> list[dict[str, Any]]:
    return list(json.loads((RECORDINGS / f"{scenario}.json").read_text("utf-8"))["steps"])


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_generation_1_answers_as_recorded(scenario: str, seed: int) -> None:
    clock = VirtualClock()
    core = Core(1, clock=clock, seed=seed)
    async with httpx.AsyncClient(
        transport=AsyncInProcessTransport(core, clock, 0.001), base_url="http://server/api/orchestration", timeout=60
    ) as client:
        found = await Replay(client, core.world, clock.time, clock.asleep).run(steps_of(scenario))
    assert found == []


@pytest.mark.parametrize("scenario", ["create", "run"])
async def test_generation_1_answers_as_recorded_over_a_socket(scenario: str) -> None:
    with EmbeddedServer(1) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            found = await Replay(client, server.world, time.monotonic, asyncio.sleep).run(steps_of(scenario))
    assert found == []


def test_all_recordings_but_those_of_triggers_are_replayed() -> None:
    assert len(SCENARIOS) == 19

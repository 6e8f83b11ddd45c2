"""Random requests, faults and outages: no request breaks the server, no money comes from nowhere, all work ends."""

from __future__ import annotations

import contextlib
import random

import httpx
import pytest

from orchestration_integrations.server.faults import NETWORK, OPERATIONS
from orchestration_integrations.server.parts import PARTS

from .conftest import WAIT, World, delay, send

STAGES = [WAIT, delay("1ms"), delay("30s"), send(), send(source="bank", destination="users:1"), {"wait_event": {}}]


def step(w: World, dice: random.Random, workflows: list[str], ids: list[str]) -> None:
    """One random thing."""
    i = dice.choice(ids) if ids else "nope"
    what = dice.randrange(14)
    if what < 3:
        workflow = dice.choice(workflows)
        wait = dice.choice(["", "?wait=true"])
        answer = w.client.post(
            f"/workflows/{workflow}/instances{wait}", json={"a": "b"}, timeout=dice.choice([0.005, 3])
        )
        if answer.status_code == 201:
            ids.append(answer.json()["data"]["id"])
    elif what < 6:
        w.event(i, dice.choice(["go", "go", "wrong"]))
    elif what == 6:
        w.abort(i)
    elif what == 7:
        w.client.get(f"/instances/{i}/history")
        w.client.get(f"/instances/{i}/stages/{dice.randrange(3)}/history")
    elif what == 8:
        w.client.get("/instances", params={"running": "true"})
    elif what == 9:
        w.client.get(f"/instances/{i}")
    elif what == 10:
        operation = dice.choice([*OPERATIONS, "any"])
        with contextlib.suppress(ValueError):  # not each fault can change each operation
            w.core.fault(operation, dice.choice([*NETWORK, "late_row", "ghost", "shuffled", "hidden"]))
    elif what == 11:
        w.core.world(f"{dice.choice(PARTS)} {dice.choice(['stopped', 'started', 'started'])}")
    else:
        w.clock.sleep(dice.choice([0.001, 0.02, 1, 12, 100]))


@pytest.mark.parametrize("generation", [1, 2, 3])
@pytest.mark.parametrize("seed", range(12))
def test_chaos(generation: int, seed: int) -> None:
    w, dice = World(generation, seed=seed), random.Random(seed * 3 + generation)
    workflows = [w.workflow(*dice.choices(STAGES, k=dice.randrange(4))) for _ in range(6)]
    ids: list[str] = []
    for _ in range(250):
        with contextlib.suppress(httpx.TransportError):
            step(w, dice, workflows, ids)
    w.core.clear_faults()
    for part in PARTS:
        w.core.world(f"{part} started")
    w.core.advance(3600)
    engine, record = w.core.engine, w.core.record()
    assert engine.parts.parked == []
    assert engine.parts.stalled == []
    totals: dict[str, int] = {}
    for accounts in engine.ledger.balances.values():
        for account, held in accounts.items():
            for asset, amount in held.items():
                totals[asset] = totals.get(asset, 0) + amount
                assert amount >= 0 or account == "world"
    assert set(totals.values()) <= {0}
    moved = sum(e["posting"]["amount"] for e in record.money if e["posting"]["source"] == "world")
    assert w.core.balance("world", "USD/2") == -moved
    started = {e["instance_id"] for e in record.started}
    assert len(started) == len(record.started)
    assert {e["instance_id"] for e in record.ended} <= started
    for instance in engine.instances.values():
        assert instance.started == (instance.id in started)
        if not instance.started:
            assert (instance.rows, instance.runs) == ([], {})
        for number, run in instance.runs.items():
            if number + 1 in instance.runs:
                assert run.terminated_ns is not None
        if instance.started and not instance.ended:
            run = instance.runs[max(instance.runs)]
            waits = run.kind == "wait_event" or run.activities[-1].last_failure
            assert waits, run
    # What was released was released by the name that the stage waited for, once.
    released = [(e["instance_id"], e["stage"]) for e in record.released]
    assert len(set(released)) == len(released)
    assert {e["event"] for e in record.released} <= {"go"}
    if generation > 1:
        per_stage = [(e["instance_id"], e["stage"]) for e in record.money]
        assert len(set(per_stage)) == len(per_stage)

"""Waits that share a poll keep every promise in random histories, which would notice if a rule were broken."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter

import pytest

from orchestration_integrations import AsyncOrchestrationHttpHook, RunResult, Settings, watching
from orchestration_integrations.procedures.observations import Absent
from orchestration_integrations.procedures.waiting import Waiting
from orchestration_integrations.server import AsyncInProcessTransport, Core, VirtualClock
from orchestration_integrations.server.exchange import Request
from orchestration_integrations.sleepers import Sleepers
from orchestration_integrations.watching import Watch

from .histories import Violation, approval
from .shared import run_shared_history


@pytest.fixture(autouse=True)
def quiet_and_the_same_randomness_afterwards():
    state = random.getstate()
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
    random.setstate(state)


def play(seeds) -> Counter[str]:
    counts: Counter[str] = Counter()
    for seed in seeds:
        counts.update(run_shared_history(seed))
    return counts


@pytest.mark.parametrize("eighth", range(4))
def test_fixed_histories(eighth):
    counts = play(range(eighth * 8, eighth * 8 + 8))
    assert counts["the same as the direct wait"] > 20
    assert counts["lists"] > 0
    assert counts["reads by id"] < counts["reads by id, each for itself"]


def test_fresh_histories():
    first = random.SystemRandom().randrange(10**6, 10**9)
    print(f"the first seed is {first}")
    play(range(first, first + 8))


# ---- rules, each broken in one place -----------------------------------------------------------------


def absence_is_an_end(patch):
    """A run that is not listed counts as read: its last state, or nothing, stands."""
    feed = Waiting.feed

    def wrong(self, seen, now):
        step = feed(self, seen, now)
        if isinstance(seen, Absent) and self.instance is not None:
            import msgspec

            from orchestration_integrations.procedures.ends import End

            ended = msgspec.structs.replace(self.instance, terminated=True)
            return msgspec.structs.replace(step, next=End("succeeded", ended, ""))
        return step

    patch.setattr(Waiting, "feed", wrong)


def deadlines_are_forgotten(patch):
    set_alarm = Sleepers.set_alarm

    def wrong(self, sleeper, at, *, is_deadline):
        return not is_deadline and set_alarm(self, sleeper, at, is_deadline=is_deadline)

    patch.setattr(Sleepers, "set_alarm", wrong)


def nobody_who_is_missing_is_woken(patch):
    compare = Watch._compare

    def wrong(self, found, began):
        compare(self, watching.Snapshot(frozenset(self._sleepers.instance_ids), found.rows, found.requests), began)

    patch.setattr(Watch, "_compare", wrong)
    patch.setattr(watching, "CLOSER_LOOKS_PER_SECOND", 1e-9)


def a_list_that_fails_is_empty_for_ever(patch):
    patch.setattr(Watch, "_look_without_a_list", lambda self, now: None)


def those_who_left_are_kept(patch):
    patch.setattr(Watch, "forget", lambda self, sleeper: None)


@pytest.mark.parametrize(
    "rule",
    [
        absence_is_an_end,
        deadlines_are_forgotten,
        nobody_who_is_missing_is_woken,
        a_list_that_fails_is_empty_for_ever,
        those_who_left_are_kept,
    ],
)
def test_a_broken_rule_is_noticed(rule, monkeypatch):
    rule(monkeypatch)
    with pytest.raises((Violation, KeyError)):
        play(range(60))


# ---- many --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("generation", [1, 2, 3])
def test_a_thousand_at_once(generation):
    """On the virtual clock: each is told once and rightly, and what it costs is what has changed."""
    clock = VirtualClock()
    core = Core(generation, clock=clock, seed=1, faults=False)
    ended_at: dict[str, float] = {}

    async def main() -> None:
        transport = AsyncInProcessTransport(core, clock)
        async with AsyncOrchestrationHttpHook(
            Settings(base_url="http://orchestration"), clock=clock, transport=transport
        ) as hook:
            workflow = await hook.create_workflow({"name": "w", "stages": [approval()]})
            ids = [(await hook.run_workflow(workflow.id)).id for _ in range(1000)]
            before = Counter(core.record().requests)

            async def end_one_percent_an_interval() -> None:
                for instance_id in ids[:100]:
                    await clock.asleep(0.5)
                    body = b'{"name": "approve"}'
                    headers = {"content-type": "application/json", "content-length": str(len(body))}
                    core.handle(Request("POST", f"/instances/{instance_id}/events", "", headers, body))
                    ended_at[instance_id] = clock.time()

            ending = asyncio.create_task(end_one_percent_an_interval())
            told = {}
            results = hook.wait_many(ids, poll_interval=5.0)
            async for instance_id, result in results:
                assert isinstance(result, RunResult)
                assert instance_id not in told
                told[instance_id] = clock.time() - ended_at[instance_id]
                if len(told) == 100:
                    break
            await results.aclose()
            await ending
            delays = sorted(told.values())
            assert delays[98] <= 7.5
            sent = Counter(core.record().requests) - before
            pages = 10 if generation == 3 else 1
            assert sent["list_instances"] <= (55 / 4.5 + 10) * (pages + 1)
            assert sent["get_instance"] <= 100 + 55 * watching.CLOSER_LOOKS_PER_SECOND + 1

    asyncio.run(main())

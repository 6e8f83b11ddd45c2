"""The triggers of one triggerer share a poll, on every version, and share nothing that could go wrong for all."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import pytest

from orchestration_integrations import AsyncOrchestrationHttpHook, OrchestrationHttpHook
from orchestration_integrations.airflow.triggers import OrchestrationInstanceTrigger
from tests.airflow.harness import WAITS, rebuilt

COUNT = 25


async def told(trigger: Any) -> Any:
    async for event in trigger.run():
        return event.payload
    raise AssertionError("the trigger ended without an event")


def begun(server: Any, count: int) -> list[str]:
    with OrchestrationHttpHook(base_url=server.url) as http:
        workflow = http.create_workflow(WAITS)
        ids = [http.run_workflow(workflow.id, {"to": "u"}).id for _ in range(count)]
        for instance_id in ids:
            while not http.get_instance(instance_id).status:
                time.sleep(0.01)
    return ids


def requests_of(server: Any) -> Counter[str]:
    return Counter(server.record().requests)


def test_deferred_tasks_share_a_poll_and_each_is_told_by_a_read_of_its_own(server: Any) -> None:
    ids = begun(server, COUNT)

    async def main() -> None:
        triggers = [rebuilt(OrchestrationInstanceTrigger(one, poll_interval=0.5)) for one in ids]
        tasks = [asyncio.create_task(told(one)) for one in triggers]
        await asyncio.sleep(3)
        before = requests_of(server)
        await asyncio.sleep(4)
        sent = requests_of(server) - before
        assert sent["list_instances"] >= 4
        assert sent["get_instance"] <= 12, "each for itself, they would have asked some 200 times"
        async with AsyncOrchestrationHttpHook(base_url=server.url) as http:
            for instance_id in ids[:-1]:
                await http.send_event(instance_id, "approve")
        events = await asyncio.wait_for(asyncio.gather(*tasks[:-1]), 30)
        assert [event["instance_id"] for event in events] == ids[:-1]
        assert {event["status"] for event in events} == {"succeeded"}
        assert not tasks[-1].done()
        tasks[-1].cancel()
        await asyncio.gather(tasks[-1], return_exceptions=True)
        await asyncio.sleep(0.1)
        others = [one for one in asyncio.all_tasks() if one is not asyncio.current_task()]
        assert others == [], "nothing goes on once nobody waits"

    asyncio.run(main())


def test_one_that_is_cancelled_or_out_of_time_leaves_the_others_alone(server: Any) -> None:
    ids = begun(server, COUNT)

    async def main() -> None:
        soon = OrchestrationInstanceTrigger(ids[0], deadline=time.time() + 4, poll_interval=0.5)
        tasks = [asyncio.create_task(told(soon))]
        tasks += [asyncio.create_task(told(OrchestrationInstanceTrigger(one, poll_interval=0.5))) for one in ids[1:]]
        await asyncio.sleep(3)
        tasks[1].cancel()
        assert (await asyncio.wait_for(tasks[0], 10))["status"] == "timeout"
        async with AsyncOrchestrationHttpHook(base_url=server.url) as http:
            await http.send_event(ids[2], "approve")
        assert (await asyncio.wait_for(tasks[2], 10))["status"] == "succeeded"
        assert not any(one.done() for one in tasks[3:])
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())


@pytest.mark.parametrize("generation", [1, 2, 3])
def test_a_list_that_fails_ends_no_wait(server: Any, generation: int) -> None:
    """All lists are refused from now on: each looks for itself."""
    ids = begun(server, COUNT)

    async def main() -> None:
        tasks = [asyncio.create_task(told(OrchestrationInstanceTrigger(one, poll_interval=0.5))) for one in ids]
        await asyncio.sleep(2)
        server.fault("list_instances", "status", 10_000, code=503, work=False)
        await asyncio.sleep(2)
        assert not any(one.done() for one in tasks)
        async with AsyncOrchestrationHttpHook(base_url=server.url) as http:
            for instance_id in ids:
                await http.send_event(instance_id, "approve")
        events = await asyncio.wait_for(asyncio.gather(*tasks), 60)
        assert {event["status"] for event in events} == {"succeeded"}

    asyncio.run(main())

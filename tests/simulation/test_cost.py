"""Cost does not grow with what has not changed."""

from __future__ import annotations

from datetime import datetime, timezone

import msgspec
import pytest

from orchestration_integrations import OrchestrationHttpHook, Settings
from orchestration_integrations.procedures.gate import gated
from orchestration_integrations.server import Core, InProcessTransport, VirtualClock
from orchestration_integrations.server.exchange import Request

from .histories import payment

OLD = 10_000


def calls_of_a_start(generation: int, old: int, **how: object) -> dict[str, int]:
    clock = VirtualClock()
    core = Core(generation, clock=clock, seed=1, faults=False)
    settings = Settings(base_url="http://orchestration")
    hook = OrchestrationHttpHook(settings, clock=clock, transport=InProcessTransport(core, clock))
    workflow = hook.create_workflow(gated({"name": "d", "stages": [payment()]}))
    for number in range(old):
        body = msgspec.json.encode({"runKey": f"old-{number}"})
        headers = {"content-length": str(len(body)), "content-type": "application/json"}
        core.handle(Request("POST", f"/workflows/{workflow.id}/instances", "", headers, body))
    clock.sleep(3600)
    if how.pop("since_now", False):
        how["since"] = datetime.fromtimestamp(clock.time(), timezone.utc)
    before = dict(core.record().requests)
    hook.start(workflow.id, run_key="new", **how)
    after = core.record().requests
    return {name: after[name] - before.get(name, 0) for name in after}


@pytest.mark.parametrize("generation", [1, 2, 3])
@pytest.mark.parametrize("how", [{"first_attempt": True}, {"since_now": True}], ids=["first", "retry"])
def test_ten_thousand_old_instances_cost_no_history_call(generation, how):
    few = calls_of_a_start(generation, 0, **how)
    many = calls_of_a_start(generation, OLD, **how)
    assert many.get("get_instance_history", 0) == few.get("get_instance_history", 0) == 0
    assert many["run_workflow"] == few["run_workflow"] == 1


def test_waiting_asks_the_engine_for_details_ever_more_rarely():
    clock = VirtualClock()
    core = Core(2, clock=clock, seed=1, faults=False)
    hook = OrchestrationHttpHook(
        Settings(base_url="http://orchestration"), clock=clock, transport=InProcessTransport(core, clock)
    )
    workflow = hook.create_workflow({"name": "d", "stages": [{"delay": {"duration": "24h"}}]})
    one = hook.run_workflow(workflow.id)
    hook.wait(one.id, poll_interval=5, on_stage=lambda event: None)
    requests = core.record().requests
    assert requests["get_instance"] > 10_000
    assert core.record().history_calls <= 3

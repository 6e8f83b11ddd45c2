"""What a gated run costs in requests, and that what is not asked again is asked where it may have changed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest

from orchestration_integrations import (
    KeyReusedError,
    NotFoundError,
    OrchestrationHttpHook,
    Settings,
    SqliteRunStore,
    WaitTimeoutError,
)
from orchestration_integrations.procedures.gate import gated
from orchestration_integrations.procedures.moved import read_moved
from orchestration_integrations.procedures.remembered import Remembered
from orchestration_integrations.server import Core, InProcessTransport, VirtualClock

from .histories import DELAY, approval, payment

THREE = [payment(), DELAY, payment()]
GENERATIONS = pytest.mark.parametrize("generation", [1, 2, 3])


class World:
    """A server on a virtual clock, its hooks, and the requests since they were last counted."""

    def __init__(self, generation: int) -> None:
        self.clock = VirtualClock()
        self.core = Core(generation, clock=self.clock, seed=1, faults=False)
        self._before: dict[str, int] = {}

    def hook(self) -> OrchestrationHttpHook:
        transport = InProcessTransport(self.core, self.clock)
        return OrchestrationHttpHook(Settings(base_url="http://orchestration"), clock=self.clock, transport=transport)

    def count(self) -> Counter[str]:
        now = dict(self.core.record().requests)
        since = Counter(now) - Counter(self._before)
        self._before = now
        return since


def a_run(world: World, stages: list[dict[str, Any]], **how: Any) -> Counter[str]:
    hook = world.hook()
    workflow = hook.create_workflow(gated({"name": "d", "stages": stages}))
    world.count()
    instance = hook.start(workflow.id, **how)
    result = hook.wait(instance.id)
    assert result.moved.complete
    assert len(result.moved.transactions) == sum("send" in stage for stage in stages)
    assert result.moved.stages_completed == len(stages) + 1
    return world.count()


@GENERATIONS
def test_a_gated_run_with_a_fresh_key(generation):
    short = a_run(World(generation), [payment()])
    assert short == {
        "get_workflow": 1,
        "run_workflow": 1,
        "send_event": 1,
        "get_instance": 3,
        "get_stage_history": 1,
    }
    longer = a_run(World(generation), THREE)
    assert longer["get_instance"] <= 5
    assert longer["get_instance_history"] == 0
    assert longer.total() <= 10


@GENERATIONS
def test_a_gated_run_with_a_key_that_may_have_been_used(generation):
    requests = a_run(World(generation), THREE, run_key="k")
    assert requests["list_instances"] == 1
    assert requests.total() <= 11


@GENERATIONS
def test_a_retry_of_run_once_reads_its_run_once(generation, tmp_path):
    world = World(generation)
    store = SqliteRunStore(tmp_path / "runs.db")
    workflow = world.hook().create_workflow(gated({"name": "d", "stages": [payment()]}))
    with pytest.raises(WaitTimeoutError):
        world.hook().run_once(workflow.id, run_key="k", store=store, timeout=0, on_timeout="leave")
    world.clock.sleep(5)
    world.count()
    world.hook().run_once(workflow.id, run_key="k", store=store)
    assert world.count() == {"get_workflow": 1, "get_instance": 1, "get_stage_history": 1}


@GENERATIONS
def test_a_key_that_stands_for_something_else_is_found_by_the_hook_that_has_read_it(generation):
    world = World(generation)
    hook = world.hook()
    workflow = hook.create_workflow(gated({"name": "d", "stages": [approval(), payment()]}))
    for key in ("a", "b"):
        hook.start(workflow.id, run_key=key)
    one = hook.start(workflow.id, run_key="a")
    assert hook.start(workflow.id, run_key="a").id == one.id
    with pytest.raises(KeyReusedError):
        hook.start(workflow.id, {"other": "content"}, run_key="a")
    assert world.core.record().requests["run_workflow"] == 2


@GENERATIONS
def test_a_workflow_that_was_deleted_is_refused_by_the_hook_that_knows_its_stages(generation):
    world = World(generation)
    hook = world.hook()
    workflow = hook.create_workflow(gated({"name": "d", "stages": [payment()]}))
    hook.wait(hook.start(workflow.id).id)
    world.hook().delete_workflow(workflow.id)
    with pytest.raises(NotFoundError):
        hook.start(workflow.id)
    assert world.core.record().requests["run_workflow"] == 1


@GENERATIONS
def test_a_wait_looks_at_once_where_the_start_was_a_while_ago(generation):
    world = World(generation)
    hook = world.hook()
    workflow = hook.create_workflow(gated({"name": "d", "stages": [payment()]}))
    one = hook.start(workflow.id)
    world.clock.sleep(3)
    begun = world.clock.time()
    assert hook.wait(one.id).instance.state == "succeeded"
    assert world.clock.time() - begun < 0.1


@GENERATIONS
def test_a_wait_without_time_looks_itself(generation):
    world = World(generation)
    hook = world.hook()
    workflow = hook.create_workflow(gated({"name": "d", "stages": [DELAY]}))
    one = hook.start(workflow.id)
    world.count()
    with pytest.raises(WaitTimeoutError):
        hook.wait(one.id, timeout=0)
    assert world.count()["get_instance"] == 1


@GENERATIONS
def test_what_a_run_has_moved_is_the_same_without_its_history(generation):
    world = World(generation)
    hook = world.hook()
    workflow = hook.create_workflow({"name": "d", "stages": THREE})
    instance = hook.run_workflow(workflow.id)
    world.clock.sleep(10)
    instance = hook.get_instance(instance.id)

    def moved(read: Any, stages: Any) -> Any:
        until = world.clock.monotonic() + 5
        return hook.perform(read_moved(read, hook.plans.versions, hook.plans.clock, until, frozenset(), stages)).moved

    world.count()
    long = moved(instance, None)
    assert world.count() == {"get_instance_history": 1, "get_stage_history": 2}
    assert moved(instance, workflow.stages) == long
    assert world.count() == {"get_stage_history": 2}
    # Rows that do not tell of all stages, or a kind that nobody knows: the engine is asked.
    lost = msgspec.structs.replace(instance, status=instance.status[1:])
    assert moved(lost, workflow.stages) == long
    assert world.count()["get_instance_history"] == 1
    assert moved(instance, [*workflow.stages[:2], {"teleport": {}}]) == long
    assert world.count()["get_instance_history"] == 1


def test_the_memory_is_bounded():
    world = World(2)
    hook = world.hook()
    instance = hook.run_workflow(hook.create_workflow({"name": "d", "stages": [payment()]}).id)
    remembered = Remembered()
    for number in range(30_000):
        remembered.note_look(msgspec.structs.replace(instance, id=f"run {number}"), 0.0)
    assert sum(remembered.last_look(f"run {number}", 0.0) is not None for number in range(30_000)) <= 1_000
    for number in range(1_000):
        remembered.note_look(msgspec.structs.replace(instance, id=f"run {number}"), number / 100)
    assert remembered.last_look("run 999", 10.0) is not None
    assert sum(remembered.last_look(f"run {number}", number / 100) is not None for number in range(1_000)) <= 50

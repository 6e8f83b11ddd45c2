"""A wait tells its log of a server that cannot be read: when that begins and when it ends, and not at each poll."""

from __future__ import annotations

import logging

import pytest

from orchestration_integrations import OrchestrationHttpHook, StateUnknownError, WaitTimeoutError
from orchestration_integrations.procedures.outages import MOST_NAMED, OutageLog, OutageNews
from orchestration_integrations.server import EmbeddedServer
from tests.core.test_answers import PAYMENT, World

LATER = {"name": "later", "stages": [{"delay": {"duration": "10m"}}, PAYMENT]}


def waiting(world: World) -> str:
    workflow = world.hook().create_workflow(LATER)
    return str(world.hook().run_workflow(workflow.id).id)


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [
        (one.levelname, one.getMessage()) for one in caplog.records if one.name == "orchestration_integrations.waits"
    ]


def outage(world: World, count: int) -> None:
    world.core.fault("get_instance", "status", count=count, code=503)


@pytest.mark.parametrize("count", [2, 9, 40])
def test_an_outage_is_told_once_and_its_end_once(kind: str, caplog: pytest.LogCaptureFixture, count: int) -> None:
    caplog.set_level(logging.INFO)
    world = World(kind)
    instance_id = waiting(world)
    outage(world, count)
    world.hook().wait(instance_id, read_budget=3600)
    (level, began), (later, ended) = told(caplog)
    assert (level, later) == ("WARNING", "INFO")
    for part in (instance_id, "http://server", "cannot be read since", " UTC (503 unavailable)", "goes on"):
        assert part in began
    assert "gives up after 3600 s and 11 failed reads in a row" in began
    assert f"instance {instance_id} can be read again, after " in ended


def test_one_failed_read_is_no_news(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world = World(kind)
    instance_id = waiting(world)
    outage(world, 1)
    world.hook().wait(instance_id)
    assert told(caplog) == []


def test_what_is_told_of_the_end_is_true(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """It gives up after both: the seconds and the reads."""
    world = World(kind)
    instance_id = waiting(world)
    world.hook().get_instance(instance_id)
    outage(world, 10)  # as many as it bears
    with pytest.raises(WaitTimeoutError):
        world.hook().wait(instance_id, timeout=60, read_budget=0)
    outage(world, -1)
    with pytest.raises(StateUnknownError):
        world.hook().wait(instance_id, timeout=3600, read_budget=0)
    (_, first), (_, second) = [one for one in told(caplog) if one[0] == "WARNING"]
    for line in (first, second):
        assert "after 0 s and 11 failed reads in a row, or at its deadline, " in line
        assert line.endswith(" UTC")


def test_a_row_that_is_late_is_no_outage(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world = World(kind)
    workflow = world.hook().create_workflow(LATER)
    world.core.fault("run_workflow", "late_row", seconds=60)
    hook = world.hook()
    hook.wait(hook.run_workflow(workflow.id).id)
    assert told(caplog) == []


def test_where_many_waits_of_a_hook_fail_not_all_are_named(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log = OutageLog()
    for number in range(3 * MOST_NAMED):
        log.tell(OutageNews(f"i{number}", f"i{number} fails"))
    assert len(told(caplog)) == MOST_NAMED + 1
    for number in range(3 * MOST_NAMED):
        log.tell(OutageNews(f"i{number}", f"i{number} works", over=True))
    assert len(told(caplog)) == 2 * MOST_NAMED + 1
    log.tell(OutageNews("again", "again"))
    assert told(caplog)[-1] == ("WARNING", "again")


def test_a_call_that_is_tried_again_names_why_and_where(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with EmbeddedServer(2) as server, OrchestrationHttpHook(base_url=server.url) as hook:
        server.fault("list_workflows", "html", count=1, code=503)
        hook.list_workflows()
    (line,) = [one.getMessage() for one in caplog.records if "next try in" in one.getMessage()]
    assert line.startswith("list of workflows failed (503 ")
    assert f"; server {server.url}), next try in " in line
    assert "\n" not in line

"""The server's clock comes with every answer and event; what was gone, unread or in doubt is taken back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from orchestration_integrations import AsyncOrchestrationHttpHook, OrchestrationHttpHook, Settings
from orchestration_integrations.server import EmbeddedServer
from orchestration_integrations.ui import definitions, glances, lists, reading, streams
from orchestration_integrations.ui.serving import PageServer
from tests.ui.flows import listening, send
from tests.ui.gateway import Answer, Gateway
from tests.ui.page_client import Json, PageClient

DAYS = 3 * 86400.0
NOT_FOUND = Answer.of({"errorCode": "NOT_FOUND", "errorMessage": "no such workflow"}, status=404)
WAITS: dict[str, Any] = {"name": "waits", "stages": [{"wait_event": {"event": "go"}}]}


@pytest.fixture
def page(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Iterator[PageClient]:
    monkeypatch.setattr(streams, "TELL", 0.1)
    monkeypatch.setattr(reading, "FAILED_PAUSE", 0.1)
    monkeypatch.setattr(definitions, "FAILED_PAUSE", 0.1)
    with PageServer(Settings(base_url=gateway.url, retry_budget=0.5)) as page:
        yield PageClient(page.url)


# ---- the server's clock --------------------------------------------------------------------------------


def soon(events: Iterator[tuple[str, Json]]) -> Iterator[tuple[str, Json]]:
    """What comes within a quarter of a minute."""
    end = time.monotonic() + 15
    for one in events:
        assert time.monotonic() < end, one
        yield one


def moved(now: Any) -> bool:
    return now is not None and abs(now - time.time() - DAYS) < 60


def test_every_event_of_an_instance_carries_the_servers_clock(
    server: EmbeddedServer, hook: OrchestrationHttpHook, gateway: Gateway, page: PageClient
) -> None:
    events = soon(page.events(f"instances/{listening(hook)}/live"))
    assert next(abs(what["now"] - time.time()) < 60 for name, what in events if name == "instance")
    server.advance(DAYS)
    assert next(what for name, what in events if name == "still" and moved(what["now"])), "the view has not changed"
    gateway.rule = lambda method, path: Answer(503)
    assert next(moved(what["now"]) for name, what in events if name == "problem")
    gateway.rule = lambda method, path: None
    assert next(moved(what["now"]) for name, what in events if name == "recovered")


@pytest.mark.parametrize("place", ["instances", "workflows", "triggers", "live", "workflow", "instance"])
def test_every_view_is_told_the_servers_clock(
    server: EmbeddedServer, hook: OrchestrationHttpHook, page: PageClient, place: str
) -> None:
    instance_id = hook.run_workflow(hook.create_workflow(WAITS).id).id
    paths = {
        "workflow": f"workflows/{hook.get_instance(instance_id).workflow_id}",
        "instance": f"instances/{instance_id}",
    }
    page.until("instances", lambda found: found["rows"])
    server.advance(DAYS)
    if place == "live":
        assert next(what for _, what in page.events("live") if moved(what["now"]))
    else:
        page.until(paths.get(place, place), lambda found: moved(found["now"]))


def test_no_clock_is_told_before_the_server_has_told_it(gateway: Gateway, page: PageClient) -> None:
    with PageServer(Settings(base_url="http://127.0.0.1:9", retry_budget=0.5)) as nobody:
        assert PageClient(nobody.url).get("session")["now"] is None


# ---- a definition that is kept -------------------------------------------------------------------------


def workflow_of(page: PageClient, instance_id: str, seen: Callable[[Json], bool]) -> Json:
    view = page.until(f"instances/{instance_id}", lambda view: seen(view["workflow"]))
    found: Json = view["workflow"]
    return found


def test_a_deleted_workflow_of_generation_3_is_said_to_be_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(definitions, "DEFINITION_AGE", 0.0)
    with EmbeddedServer(3) as server, OrchestrationHttpHook(base_url=server.url) as hook:
        page, instance_id = PageClient(server.url), listening(hook)
        shown = workflow_of(page, instance_id, lambda workflow: True)
        assert (shown["unknown"], shown["problem"], shown["asOf"]) == (False, None, None)
        hook.delete_workflow(shown["id"])
        shown = workflow_of(page, instance_id, lambda workflow: workflow["unknown"])
        assert (shown["name"], shown["deleted"]) == ("payout", False)
        assert time.time() - 60 < shown["asOf"] < time.time(), "the definition that is shown was read then"
        assert len(page.get(f"instances/{instance_id}")["stages"]) == 4
        hook.send_event_when_ready(instance_id, "approved", stage=2)
        names = [name for name, _ in page.events(f"instances/{instance_id}/live")]
        assert names[-1] == "over", "a run of a deleted workflow ends"


@pytest.mark.parametrize(
    ("answer", "unknown"),
    [(NOT_FOUND, True), (Answer(503), False), (Answer(403), False), (Answer(404, b"<html></html>"), False)],
)
def test_what_the_last_try_to_read_a_definition_came_to_is_told_and_taken_back(
    hook: OrchestrationHttpHook,
    gateway: Gateway,
    page: PageClient,
    monkeypatch: pytest.MonkeyPatch,
    answer: Answer,
    unknown: bool,
) -> None:
    monkeypatch.setattr(definitions, "DEFINITION_AGE", 0.2)
    instance_id = listening(hook)
    workflow_of(page, instance_id, lambda workflow: workflow["name"] == "payout")
    gateway.rule = lambda method, path: answer if "/workflows/" in path else None
    shown = workflow_of(page, instance_id, lambda workflow: workflow["asOf"] is not None)
    assert (shown["unknown"], shown["problem"] is None) == (unknown, unknown)
    gateway.rule = lambda method, path: None
    shown = workflow_of(page, instance_id, lambda workflow: workflow["asOf"] is None)
    assert (shown["unknown"], shown["problem"]) == (False, None)


def test_an_end_is_not_the_last_reading_while_its_definition_could_not_be_read(
    hook: OrchestrationHttpHook, gateway: Gateway, page: PageClient
) -> None:
    instance_id = hook.run_workflow(hook.create_workflow({"name": "pays", "stages": [send("world", "a", "5")]}).id).id
    hook.wait(instance_id)
    gateway.rule = lambda method, path: Answer(503) if "/workflows/" in path else None
    events = soon(page.events(f"instances/{instance_id}/live"))
    assert next(what for name, what in events if name == "instance")["workflow"]["problem"]
    gateway.rule = lambda method, path: None
    assert next(what for name, what in events if name == "instance")["workflow"]["name"] == "pays"
    assert [name for name, _ in events][-1] == "over"


# ---- a doubt -------------------------------------------------------------------------------------------


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """The histories say that nothing has ended yet, as long as there is something in the list."""
    waits = [True]
    stages, activities = AsyncOrchestrationHttpHook.get_instance_history, AsyncOrchestrationHttpHook.get_stage_history

    async def stages_late(self: Any, asked: str) -> Any:
        return [replace(one, terminated=one.terminated and not waits) for one in await stages(self, asked)]

    async def activities_late(self: Any, asked: str, number: int) -> Any:
        return [replace(one, terminated=one.terminated and not waits) for one in await activities(self, asked, number)]

    monkeypatch.setattr(AsyncOrchestrationHttpHook, "get_instance_history", stages_late)
    monkeypatch.setattr(AsyncOrchestrationHttpHook, "get_stage_history", activities_late)
    return waits


def ended(hook: OrchestrationHttpHook) -> str:
    workflow = hook.ensure_workflow({"name": "pays", "stages": [send("world", "a", "5")]}, gate=True).workflow
    instance_id = hook.start(workflow.id, run_key="order-1").id
    hook.wait(instance_id)
    return instance_id


@pytest.mark.parametrize("part", ["stage", "activity"])
def test_an_end_that_late_histories_contradict_is_read_again(
    hook: OrchestrationHttpHook, page: PageClient, late: list[bool], monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    if part == "activity":
        late.append(True)
        real = AsyncOrchestrationHttpHook.get_instance_history

        async def in_time(self: Any, asked: str) -> Any:
            return [replace(one, terminated=True) for one in await real(self, asked)]

        monkeypatch.setattr(AsyncOrchestrationHttpHook, "get_instance_history", in_time)
    events = soon(page.events(f"instances/{ended(hook)}/live"))
    assert next(what for name, what in events if name == "instance")["standing"] == "unsure"
    late.clear()
    assert next(what for name, what in events if name == "instance")["standing"] == "succeeded"
    assert [name for name, _ in events][-1] == "over"


def test_an_end_that_stays_contradicted_is_not_read_for_ever(
    hook: OrchestrationHttpHook, page: PageClient, late: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "UNSURE_FOR", 0.3)
    told = list(soon(page.events(f"instances/{ended(hook)}/live")))
    assert told[-1][0] == "over"
    assert [what["standing"] for name, what in told if name == "instance"][-1] == "unsure"


def test_the_doubt_of_a_row_goes_with_a_later_reading_and_with_no_other(
    hook: OrchestrationHttpHook, gateway: Gateway, page: PageClient, late: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(glances, "NOTE_AGE", 0.1)
    monkeypatch.setattr(lists, "NOTE_OLD", 0.5)
    ended(hook)
    page.until("instances", lambda found: found["rows"] and found["rows"][0]["kind"] == "unsure")
    gateway.rule = lambda method, path: Answer(503) if path.endswith("/history") else None
    found = page.until("instances", lambda found: found["rows"][0]["noteAsOf"] is not None)
    assert found["rows"][0]["kind"] == "unsure", "what cannot be read says nothing"
    late.clear()
    gateway.rule = lambda method, path: None
    found = page.until("instances", lambda found: found["rows"][0]["kind"] == "succeeded")
    assert (found["rows"][0]["note"], found["rows"][0]["noteAsOf"]) == ("", None)

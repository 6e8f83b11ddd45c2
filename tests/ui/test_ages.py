"""What is shown has the age of its oldest part, from the begin of its reading; a reading has a limit in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from orchestration_integrations import OrchestrationHttpHook, Settings
from orchestration_integrations.server import EmbeddedServer
from orchestration_integrations.ui import ages, catalog, kept, lists, raw, reading, streams
from orchestration_integrations.ui.serving import PageServer
from tests.ui.flows import listening, send
from tests.ui.gateway import Answer, Gateway
from tests.ui.page_client import Json, PageClient

WAITS: dict[str, Any] = {"name": "waits", "stages": [{"wait_event": {"event": "go"}}]}
NOT_FOUND = Answer.of({"errorCode": "NOT_FOUND", "errorMessage": "no such instance"}, status=404)


@pytest.fixture
def page(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Iterator[PageClient]:
    monkeypatch.setattr(streams, "TELL", 0.1)
    with PageServer(Settings(base_url=gateway.url)) as page:
        yield PageClient(page.url)


def endless(part: str) -> Any:
    """A list that has ever more pages, empty ones, each after a while."""
    pages = count()

    def rule(method: str, path: str) -> Answer | None:
        if not path.partition("?")[0].endswith(part):
            return None
        cursor = {"pageSize": 100, "hasMore": True, "previous": "", "next": f"c{next(pages)}", "data": []}
        return Answer.of({"cursor": cursor}, seconds=0.05)

    return rule


def shown(events: Iterator[tuple[str, Json]]) -> Json:
    """The next view of a stream."""
    return next(what for name, what in events if name == "instance")


# ---- one instance ------------------------------------------------------------------------------------


def test_a_view_whose_histories_hang_comes_in_time_and_says_what_was_not_read(
    hook: OrchestrationHttpHook, gateway: Gateway, page: PageClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LONGEST_READING", 0.6)
    stages = [*(send("world", f"a{n}", "1") for n in range(6)), *WAITS["stages"]]
    instance_id = hook.run_workflow(hook.create_workflow({"name": "long", "stages": stages}).id).id
    page.until(f"instances/{instance_id}", lambda view: view["awaits"] is not None)
    gateway.rule = lambda method, path: Answer(503, seconds=5.0) if "/stages/" in path else None
    began = time.monotonic()
    view = shown(page.events(f"instances/{instance_id}/live"))
    assert view["awaits"] == {"event": "go", "stage": 6}
    assert time.monotonic() - began < 4, "not one limit for each history"
    assert view["age"] >= 0.6, "as old as the row, which was read first"
    assert "the history of stage 5 could not be read: no answer within" in view["problems"][0], "the newest first"
    assert "no time was left to read the history of stage 0, 1, 2, 3, 4" in view["problems"][1]
    assert not view["complete"]


def test_a_stage_that_could_not_be_read_is_named_as_the_definition_counts_it(
    hook: OrchestrationHttpHook, gateway: Gateway, page: PageClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LONGEST_READING", 0.6)
    stages = [send("world", "a", "1"), send("world", "b", "1"), send("world", "c", "1"), *WAITS["stages"]]
    workflow = hook.ensure_workflow({"name": "gated", "stages": stages}, gate=True).workflow
    instance_id = hook.start(workflow.id).id
    page.until(f"instances/{instance_id}", lambda view: view["awaits"] is not None)
    gateway.rule = lambda method, path: Answer(503, seconds=5.0) if "/stages/" in path else None
    newest, others = shown(page.events(f"instances/{instance_id}/live"))["problems"]
    assert newest.startswith("the history of stage 2 (send; 3 on the server) could not be read")
    assert "the history of stage 0 (send; 1 on the server), 1 (send; 2 on the server): the server" in others


def test_histories_that_could_not_be_read_do_not_keep_the_others_from_being_read(
    hook: OrchestrationHttpHook, gateway: Gateway, page: PageClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LONGEST_READING", 0.6)
    stages = [*(send("world", f"a{n}", "1") for n in range(4)), *WAITS["stages"]]
    instance_id = hook.run_workflow(hook.create_workflow({"name": "long", "stages": stages}).id).id
    gateway.rule = lambda method, path: Answer(503, seconds=5.0) if "/stages/3/" in path else None
    for _, view in page.events(f"instances/{instance_id}/live"):
        if len(view.get("transactions", ())) == 3:
            break


def test_the_text_of_a_server_whose_histories_hang_comes_in_time(
    hook: OrchestrationHttpHook, gateway: Gateway, page: PageClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw, "LONGEST_READING", 0.6)
    stages = [*(send("world", f"a{n}", "1") for n in range(4)), *WAITS["stages"]]
    instance_id = hook.run_workflow(hook.create_workflow({"name": "long", "stages": stages}).id).id
    page.until(f"instances/{instance_id}", lambda view: view["awaits"] is not None)
    gateway.rule = lambda method, path: Answer(503, seconds=2.0) if "/stages/" in path else None
    began = time.monotonic()
    found = page.get(f"instances/{instance_id}/raw")
    assert time.monotonic() - began < 3
    assert (len(found["parts"]), len(found["problems"])) == (2, 4)


def test_a_view_is_as_old_as_the_begin_of_its_reading(
    server: EmbeddedServer, hook: OrchestrationHttpHook, page: PageClient
) -> None:
    instance_id = listening(hook)
    server.fault("get_instance_history", "stall", seconds=1)
    view = page.get(f"instances/{instance_id}")
    assert view["age"] >= 1
    assert view["readAt"] <= time.time() - 1


def test_a_stream_tells_how_old_the_view_is_while_a_reading_hangs(
    hook: OrchestrationHttpHook, gateway: Gateway, page: PageClient
) -> None:
    instance_id = listening(hook)
    events = page.events(f"instances/{instance_id}/live")
    shown(events)
    gateway.rule = lambda method, path: Answer(503, seconds=3.0)
    told = next(what for name, what in events if name == "still" and what["age"] > 1.5)
    assert told["readingFor"] > 0


def test_an_ended_watch_is_not_said_to_be_over_where_only_the_page_stops(
    hook: OrchestrationHttpHook, gateway: Gateway
) -> None:
    with PageServer(Settings(base_url=gateway.url)) as page:
        events = PageClient(page.url).events(f"instances/{listening(hook)}/live")
        shown(events)
    assert "over" not in {name for name, _ in events}


def test_a_stream_that_is_left_at_the_moment_of_news_is_left() -> None:
    class Reader:
        async def read(self) -> Any:
            await asyncio.sleep(60)

    async def left() -> bool:
        watch = reading.Watch(Reader(), lambda observed: {})  # type: ignore[arg-type]

        async def follow() -> None:
            async for _ in watch.updates():
                pass

        following = asyncio.ensure_future(follow())
        await asyncio.sleep(0.05)
        watch.shown = {}
        watch._tell({}, "news")
        await asyncio.sleep(0)
        following.cancel()
        await asyncio.wait({following}, timeout=1)
        return following.cancelled()

    assert asyncio.run(left())


# ---- the lists ---------------------------------------------------------------------------------------


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """All is read once, and what runs ten times a second."""
    monkeypatch.setattr(catalog, "ALL_EVERY", 60.0)
    monkeypatch.setattr(catalog, "RUNNING_EVERY", 0.1)
    monkeypatch.setattr(catalog, "RUNNING_SHARE", 0.0)


def test_a_list_is_as_old_as_the_begin_of_its_reading(
    server: EmbeddedServer, hook: OrchestrationHttpHook, page: PageClient
) -> None:
    hook.run_workflow(hook.create_workflow(WAITS).id)
    server.fault("list_instances", "stall", seconds=1)
    found = page.until("instances", lambda found: found["readAt"] is not None)
    assert found["age"] >= 1
    server.fault("list_instances", "stall", count=-1, seconds=2)
    told = (what["instances"] for name, what in page.events("live") if name == "still")
    assert next(one for one in told if one["age"] > 2 and one["readingFor"] is not None)


@pytest.mark.parametrize("place", ["instances", "workflows"])
def test_a_list_without_an_end_is_given_up_and_told(
    hook: OrchestrationHttpHook, gateway: Gateway, page: PageClient, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr(catalog, "LONGEST_READING", 0.5)
    monkeypatch.setattr(catalog, "ALL_EVERY", 0.1)
    hook.run_workflow(hook.create_workflow(WAITS).id)
    page.until("instances", lambda found: found["counts"]["running"] == 1)
    gateway.rule = endless(f"/{place}")
    found = page.until(place, lambda found: found["problem"] is not None)
    assert found["problem"] == f"the list of {place} could not be read whole within 0.5 s"
    assert len(found["rows"]) == 1, "as it was last read whole"
    assert found["age"] >= 0.5


@pytest.mark.usefixtures("often")
def test_the_lists_of_what_runs_of_all_and_of_workflows_have_ages_of_their_own(
    hook: OrchestrationHttpHook, page: PageClient
) -> None:
    page.until("instances", lambda found: found["allAge"] is not None and found["allAge"] > 1)
    found, workflows = page.get("instances"), page.get("workflows")
    assert found["age"] < found["allAge"]
    assert workflows["readAt"] <= found["allReadAt"] < found["readAt"]
    hook.create_workflow(WAITS)
    assert page.get("workflows")["rows"] == [], "that list is old, and says so"
    assert page.get("workflows")["age"] > 1


@pytest.mark.usefixtures("often")
def test_runs_whose_end_was_not_read_yet_make_the_list_old(
    hook: OrchestrationHttpHook, page: PageClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "MOST_ENDS", 1)
    workflow = hook.create_workflow(WAITS)
    ids = [hook.run_workflow(workflow.id).id for _ in range(4)]
    page.until("instances", lambda found: found["counts"]["running"] == 4)
    for instance_id in ids:
        hook.send_event_when_ready(instance_id, "go")
    ended = time.time()
    seen: list[Json] = []
    page.until("instances", lambda found: seen.append(found) or found["counts"]["running"] == 0)  # type: ignore[func-returns-value]
    assert all(found["readAt"] <= ended for found in seen[:-1])
    page.until("instances", lambda found: found["readAt"] > ended)


@pytest.mark.usefixtures("often")
def test_a_run_that_left_the_list_and_is_denied_runs_as_of_then(
    hook: OrchestrationHttpHook, gateway: Gateway, page: PageClient
) -> None:
    instance_id = hook.run_workflow(hook.create_workflow(WAITS).id).id
    page.until("instances", lambda found: found["counts"]["running"] == 1)
    empty = Answer.of({"cursor": {"pageSize": 100, "hasMore": False, "data": []}})
    gateway.rule = lambda method, path: (
        NOT_FOUND if path.endswith(instance_id) else empty if "instances?" in path else None
    )
    found = page.until("instances", lambda found: found["age"] > 1)
    assert [row["state"] for row in found["rows"]] == ["running"]
    assert found["problem"] is None


def test_what_a_row_stands_at_is_told_with_its_time_once_that_is_old(
    hook: OrchestrationHttpHook, gateway: Gateway, page: PageClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "NOTE_OLD", 0.5)
    hook.run_workflow(hook.create_workflow(WAITS).id)
    found = page.until("instances", lambda found: found["rows"] and found["rows"][0]["note"])
    assert found["rows"][0]["noteAsOf"] is None
    time.sleep(0.6)
    gateway.rule = lambda method, path: Answer(503, seconds=3.0) if path.endswith("/history") else None
    assert page.get("instances")["rows"][0]["noteAsOf"] < time.time() - 0.5


def test_the_runs_of_a_list_of_occurrences_are_as_old_as_the_list_of_instances(
    server: EmbeddedServer, hook: OrchestrationHttpHook, page: PageClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "EVERY", 0.1)
    trigger = hook.create_trigger("E", hook.create_workflow(WAITS).id)
    server.world('publish {"type": "E", "payload": {}}')
    page.until(f"triggers/{trigger.id}", lambda shown: [row["state"] for row in shown["rows"]] == ["running"])
    server.fault("list_instances", "stall", count=-1, seconds=3)
    page.until(f"triggers/{trigger.id}", lambda shown: shown["age"] > 2)


def test_a_reading_of_triggers_has_a_limit(
    server: EmbeddedServer, page: PageClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "LONGEST_READING", 0.5)
    server.fault("list_triggers", "stall", count=-1, seconds=3)
    began = time.monotonic()
    found = page.until("triggers", lambda found: found["problem"] is not None)
    assert found["problem"] == "no answer within the 0.5 s of a reading"
    assert time.monotonic() - began < 2


def test_a_machine_that_slept_makes_nothing_younger() -> None:
    assert ages.Moment(monotonic=time.monotonic(), epoch=time.time() - 3600).age >= 3600
    assert ages.Moment(monotonic=time.monotonic() - 60, epoch=time.time() + 3600).age >= 60


def test_the_page_tells_its_scripts_what_counts_as_live(page: PageClient) -> None:
    assert page.get("session")["liveFor"] == ages.LIVE_FOR

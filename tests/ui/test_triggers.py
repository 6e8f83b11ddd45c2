"""Triggers on the page: what they listen to, each time that they fired, and the run that each began."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from orchestration_integrations import OrchestrationHttpHook, Settings
from orchestration_integrations.server import EmbeddedServer
from orchestration_integrations.ui import kept
from orchestration_integrations.ui.serving import PageServer
from tests.ui.page_client import PageClient

NOBODY = "00000000-0000-4000-8000-000000000000"
QUICK: dict[str, Any] = {"name": "quick", "stages": []}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "EVERY", 0.1)
    monkeypatch.setattr(kept, "SHARE", 1.0)


def published(server: EmbeddedServer, number: int, kind: str = "SAVED_PAYMENT") -> None:
    message = {"type": kind, "payload": {"id": f"p{number}", "amount": number}}
    server.world(f"publish {json.dumps(message)}")


@pytest.mark.parametrize("generation", [2, 3])
def test_triggers_and_the_runs_that_they_began(generation: Any) -> None:
    with EmbeddedServer(generation) as server, OrchestrationHttpHook(base_url=server.url) as hook:
        workflow = hook.create_workflow(QUICK)
        payment = hook.create_trigger(
            "SAVED_PAYMENT", workflow.id, filter="event.amount > 5", variables={"n": "event.amount"}
        )
        account = hook.create_trigger("SAVED_ACCOUNT", workflow.id)
        with PageServer(Settings(base_url=server.url)) as reading_only:
            page = PageClient(reading_only.url)
            found = page.until("triggers", lambda found: found["rows"] and found["rows"][0]["workflow"]["name"])
            assert [row["id"] for row in found["rows"]] == [account.id, payment.id], "by event"
            row = found["rows"][1]
            assert (row["event"], row["filter"]) == ("SAVED_PAYMENT", "event.amount > 5")
            assert row["variables"] == [{"name": "n", "expression": "event.amount"}]
            assert row["workflow"] == {"id": workflow.id, "name": "quick", "deleted": False, "unlistedAt": None}
            for number in (1, 7, 9):
                published(server, number)
            shown = page.until(f"triggers/{payment.id}", lambda shown: len(shown["rows"]) == 2 and all(
                row["state"] == "succeeded" for row in shown["rows"]
            ))  # fmt: skip
            began = {run.id for run in hook.list_instances()}
            assert {row["instance"] for row in shown["rows"]} == began
            assert {json.loads(row["event"])["payload"]["amount"] for row in shown["rows"]} == {7, 9}
            dates = [row["date"] for row in shown["rows"]]
            assert dates == sorted(dates, reverse=True)
            assert page.get(f"triggers/{account.id}")["total"] == 0


def test_an_occurrence_that_began_nothing_says_why() -> None:
    with EmbeddedServer() as server, OrchestrationHttpHook(base_url=server.url) as hook:
        trigger = hook.create_trigger("E", hook.create_workflow(QUICK).id, variables={"n": "event.a.b.c"})
        published(server, 1, "E")
        page = PageClient(server.url)
        [row] = page.until(f"triggers/{trigger.id}", lambda shown: shown["total"] == 1)["rows"]
        assert row["instance"] is None
        assert row["error"]


def test_generation_1_has_none_and_the_page_says_so_instead_of_none_yet() -> None:
    with EmbeddedServer(1) as server:
        page = PageClient(server.url)
        for path in ("triggers", f"triggers/{NOBODY}"):
            found = page.until(path, lambda found: found["unrouted"])
            assert (found["problem"], found["missing"], found["total"]) == (None, False, None)


def test_what_was_never_read_is_not_said_to_be_empty_and_what_was_stays() -> None:
    with EmbeddedServer() as server, OrchestrationHttpHook(base_url=server.url) as hook:
        page = PageClient(server.url)
        server.fault("list_triggers", "status", count=-1, code=500)
        found = page.until("triggers", lambda found: found["problem"] is not None)
        assert (found["rows"], found["total"], found["readAt"]) == ([], None, None)
        server.clear_faults()
        trigger = hook.create_trigger("E", hook.create_workflow(QUICK).id)
        page.until("triggers", lambda found: found["total"] == 1 and found["problem"] is None)
        page.until(f"triggers/{trigger.id}", lambda shown: shown["total"] == 0)
        server.fault("list_trigger_occurrences", "status", count=-1, code=500)
        shown = page.until(f"triggers/{trigger.id}", lambda shown: shown["problem"] is not None)
        assert (shown["trigger"]["event"], shown["total"]) == ("E", 0)
        assert shown["readAt"] is not None


@pytest.mark.parametrize("generation", [2, 3])
def test_a_trigger_that_is_deleted_or_never_was_is_said_to_be_missing(generation: Any) -> None:
    with EmbeddedServer(generation) as server, OrchestrationHttpHook(base_url=server.url) as hook:
        page = PageClient(server.url)
        assert page.until(f"triggers/{NOBODY}", lambda shown: shown["missing"])["trigger"] is None
        trigger = hook.create_trigger("E", hook.create_workflow(QUICK).id)
        page.until(f"triggers/{trigger.id}", lambda shown: shown["trigger"])
        hook.delete_trigger(trigger.id)
        assert page.until(f"triggers/{trigger.id}", lambda shown: shown["missing"])["trigger"]["event"] == "E"
        page.until("triggers", lambda found: found["total"] == 0)


def test_a_workflow_that_is_not_in_the_list_is_said_to_be_that_and_not_to_be_deleted() -> None:
    with EmbeddedServer() as server, OrchestrationHttpHook(base_url=server.url) as hook:
        page = PageClient(server.url)
        page.until("workflows", lambda found: found["readAt"] is not None)
        workflow = hook.create_workflow(QUICK)  # the list is older
        trigger = hook.create_trigger("E", workflow.id)
        end = time.monotonic() + 20
        while True:
            shown = page.until(f"triggers/{trigger.id}", lambda shown: shown["trigger"])["trigger"]["workflow"]
            rows = page.until("triggers", lambda found: found["rows"])["rows"]
            assert [shown["deleted"], *(row["workflow"]["deleted"] for row in rows)] == [False, False]
            if shown["name"] == rows[0]["workflow"]["name"] == "quick":
                break
            assert time.monotonic() < end
            time.sleep(0.05)
        assert shown["unlistedAt"] is None
        hook.delete_workflow(workflow.id)
        page.until(
            f"triggers/{trigger.id}",
            lambda shown: shown["trigger"]["workflow"]["unlistedAt"] and not shown["trigger"]["workflow"]["deleted"],
        )


def test_triggers_and_occurrences_are_paged() -> None:
    with EmbeddedServer() as server, OrchestrationHttpHook(base_url=server.url) as hook:
        page = PageClient(server.url)
        workflow = hook.create_workflow(QUICK)
        ids = {hook.create_trigger("E", workflow.id).id for _ in range(52)}
        first = page.until("triggers", lambda found: found["total"] == 52)
        assert (len(first["rows"]), first["pages"]) == (50, 2)
        second = page.get("triggers?page=1")
        assert {row["id"] for row in [*first["rows"], *second["rows"]]} == ids
        one = hook.create_trigger("F", workflow.id)
        for number in range(51):
            published(server, number, "F")
        shown = page.until(f"triggers/{one.id}", lambda shown: shown["total"] == 51)
        assert (len(shown["rows"]), len(page.get(f"triggers/{one.id}?page=1")["rows"])) == (50, 1)


def test_those_who_look_at_a_trigger_are_told_of_news() -> None:
    with EmbeddedServer() as server, OrchestrationHttpHook(base_url=server.url) as hook:
        page = PageClient(server.url)
        trigger = hook.create_trigger("E", hook.create_workflow(QUICK).id, variables={"n": "event.a.b.c"})
        page.until(f"triggers/{trigger.id}", lambda shown: shown["total"] == 0)
        page.until("instances", lambda found: found["readAt"] is not None)
        events = page.events("live")
        assert next(events)[0] == "hello"
        published(server, 1, "E")  # begins no run, so no list but that of its occurrences changes
        time.sleep(0.3)
        page.get(f"triggers/{trigger.id}")
        assert next(name for name, _ in events if name == "changed")
        assert page.get(f"triggers/{trigger.id}")["total"] == 1


def test_what_failed_slowly_is_read_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "SHARE", 1000.0)
    answers = iter([OSError("away"), None])

    async def read() -> str:
        await asyncio.sleep(0.05)
        failure = next(answers)
        if failure is not None:
            raise failure
        return "read"

    async def looked() -> kept.Known[str]:
        one = kept.Kept(read, lambda: None)
        assert (await one.look()).problem is not None
        await asyncio.sleep(kept.EVERY + 0.02)
        await one.look()
        await asyncio.sleep(0.1)
        return one.known

    assert asyncio.run(looked()).value == "read"


def test_nothing_of_triggers_is_read_where_nobody_looks_at_them() -> None:
    with EmbeddedServer() as server:
        page = PageClient(server.url)
        page.until("instances", lambda found: found["readAt"] is not None)
        page.get("workflows")
        assert server.calls("list_triggers") == ()
        page.get("triggers")
        assert server.calls("list_triggers")

"""The page over HTTP: what it shows of each generation, live and from lists, and what it does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from orchestration_integrations import OrchestrationHttpHook, Settings
from orchestration_integrations.server import EmbeddedServer
from orchestration_integrations.ui.serving import PageServer
from tests.ui.flows import CHECKPOINTED, PAYOUT, SCRIPT, UNFUNDED, VARIABLES, listening
from tests.ui.page_client import Json, PageClient


@pytest.fixture(params=["embedded-1", "embedded-2", "embedded-3", "proxy-1", "proxy-2"])
def place(request: pytest.FixtureRequest) -> Iterator[tuple[EmbeddedServer, PageClient, OrchestrationHttpHook]]:
    """A server of each generation, its page at its own address or in front of it, and a hook."""
    how, generation = request.param.split("-")
    with EmbeddedServer(int(generation), page=how == "embedded") as server:  # type: ignore[arg-type]
        with OrchestrationHttpHook(base_url=server.url) as hook:
            if how == "embedded":
                yield server, PageClient(server.url), hook
            else:
                with PageServer(Settings(base_url=server.url), actions=True) as page:
                    yield server, PageClient(page.url), hook


def states(view: Json) -> list[str]:
    return [stage["state"] for stage in view["stages"]]


def test_a_run_is_shown_live_until_it_ends(place: Any) -> None:
    server, page, hook = place
    instance_id = listening(hook)
    page.until(f"instances/{instance_id}", lambda view: view["awaits"] is not None)
    events = page.events(f"instances/{instance_id}/live")
    name, view = next(events)
    assert name == "instance"
    assert view["runKey"] == "order-17"
    assert view["workflow"]["name"] == "payout"
    assert view["headline"]["text"] == "Stage 1 · wait_event waits for the event “approved”."
    assert view["awaits"] == {"event": "approved", "stage": 2}
    assert [stage["role"] for stage in view["stages"]] == ["gate", "stage", "stage", "stage"]
    assert states(view) == ["done", "done", "listening", "todo"]
    assert view["stages"][1]["text"] == "12.50 EUR from world to sales"
    assert view["graph"]["edges"] == [{"from": 0, "to": 1, "state": "moved", "amounts": ["12.50 EUR"]}]

    done = page.act(f"instances/{instance_id}/events", {"name": "approved", "stage": 2})
    assert done.status_code == 200, done.text
    seen = list(events)
    assert seen[-1] == ("over", {})
    last = [view for name, view in seen if name == "instance"][-1]
    assert last["state"] == "succeeded"
    assert states(last) == ["done"] * 4
    assert last["headline"] == {"tone": "good", "text": "It succeeded: 2 transactions."}
    assert [node["account"] for node in last["graph"]["nodes"]] == ["world", "sales", "merchants:m1"]
    assert last["complete"]
    assert server.balance("merchants:m1", "EUR/2") == 1050


def test_a_failing_payment_says_why_and_when_it_is_tried_again(place: Any) -> None:
    _, page, hook = place
    workflow = hook.ensure_workflow(UNFUNDED, gate=True).workflow
    instance_id = hook.start(workflow.id, run_key="refund-9").id
    view = page.until(f"instances/{instance_id}", lambda view: states(view)[-1] == "failing")
    last = view["stages"][-1]
    assert view["headline"]["text"].startswith(f"Failing, attempt {last['attempt']}: ")
    assert "insufficient funds" in last["lastFailure"]
    assert last["nextTry"] == view["headline"]["until"] is not None
    assert view["graph"]["edges"][0]["state"] == "open"
    rows = page.until("instances", lambda found: [row["kind"] for row in found["rows"]] == ["failing"])["rows"]
    assert rows[0]["runKey"] == "refund-9"
    assert "insufficient funds" in rows[0]["note"]


def test_a_run_is_started_once_for_its_key(place: Any) -> None:
    server, page, hook = place
    workflow = hook.ensure_workflow(PAYOUT, gate=True).workflow
    shown = page.get(f"workflows/{workflow.id}")
    assert [field["name"] for field in shown["variables"]] == ["amount", "merchant"]
    asked = {"variables": VARIABLES, "runKey": "by-hand"}
    first = page.act(f"workflows/{workflow.id}/runs", asked)
    again = page.act(f"workflows/{workflow.id}/runs", asked)
    assert first.status_code == again.status_code == 200, (first.text, again.text)
    assert first.json()["id"] == again.json()["id"]
    other = page.act(f"workflows/{workflow.id}/runs", {"variables": {**VARIABLES, "amount": "9"}, "runKey": "by-hand"})
    assert (other.status_code, other.json()["error"]) == (409, "KeyReusedError")
    missing = page.act(f"workflows/{workflow.id}/runs", {"variables": {"amount": "1"}, "runKey": "another"})
    assert (missing.status_code, missing.json()["path"]) == (400, "variables.merchant")
    assert len(server.record().started) == 1
    page.until("instances?q=BY-HAND", lambda found: [row["id"] for row in found["rows"]] == [first.json()["id"]])


@pytest.mark.parametrize("generation", [1, 2, 3])
def test_a_cancel_says_what_came_of_it(generation: Any) -> None:
    with EmbeddedServer(generation) as server, OrchestrationHttpHook(base_url=server.url) as hook:
        page = PageClient(server.url)
        instance_id = listening(hook)
        page.until(f"instances/{instance_id}", lambda view: view["awaits"] is not None)
        done = page.act(f"instances/{instance_id}/cancel").json()
        if generation == 2:
            assert done["status"] == "not_confirmed"
            assert "may still run and move money" in done["text"]
            assert done["sure"] is False
            return
        assert (done["status"], done["sure"]) == ("cancelled", True)
        view = page.get(f"instances/{instance_id}")
        assert states(view) == ["done", "done", "cancelled", "skipped"]
        assert view["headline"]["text"] == "It was cancelled; by then: 1 transaction."


def test_a_cancel_that_could_not_read_a_payment_is_no_good_news() -> None:
    with EmbeddedServer(1) as server, OrchestrationHttpHook(base_url=server.url) as hook:
        page = PageClient(server.url)
        instance_id = listening(hook)
        server.fault("get_stage_history", "status", -1, code=500)
        done = page.act(f"instances/{instance_id}/cancel").json()
        assert (done["status"], done["sure"]) == ("cancelled", False)
        assert "whether a payment is under way could not be read" in done["text"]


def test_a_run_key_with_white_space_around_it_is_another_text_and_is_refused(place: Any) -> None:
    server, page, hook = place
    workflow = hook.ensure_workflow(SCRIPT, gate=True).workflow
    done = page.act(f"workflows/{workflow.id}/runs", {"variables": VARIABLES, "runKey": "order-17 "})
    assert (done.status_code, done.json()["path"]) == (400, "run_key")
    assert server.record().started == []


def test_the_lists_count_filter_and_page(place: Any) -> None:
    _, page, hook = place
    quick = hook.create_workflow({"name": "quick", "stages": []})
    waiting = hook.create_workflow(SCRIPT)
    for _ in range(60):
        hook.run_workflow(quick.id)
    for _ in range(3):
        hook.run_workflow(waiting.id)
    found = page.until(
        "instances", lambda found: found["counts"]["succeeded"] == 60 and found["counts"]["running"] == 3
    )
    assert (len(found["rows"]), found["total"], found["pages"]) == (50, 63, 2)
    second = page.get("instances?page=1")
    assert len(second["rows"]) == 13
    assert not {row["id"] for row in found["rows"]} & {row["id"] for row in second["rows"]}
    created = [row["createdAt"] for row in [*found["rows"], *second["rows"]]]
    assert created == sorted(created, reverse=True)
    running = page.get("instances?state=running")
    assert {row["workflow"]["name"] for row in running["rows"]} == {SCRIPT["name"]}
    assert page.get(f"instances?workflow={waiting.id}")["total"] == 3
    one = found["rows"][0]["id"]
    assert [row["id"] for row in page.get(f"instances?q={one[:18]}")["rows"]] == [one]
    names = {row["name"]: row["counts"] for row in page.get("workflows")["rows"]}
    assert names["quick"]["succeeded"] == 60
    assert names[SCRIPT["name"]]["running"] == 3


def test_a_list_tells_of_a_run_that_somebody_else_starts(place: Any) -> None:
    _, page, hook = place
    events = page.events("live")
    assert next(events)[0] == "hello"
    instance_id = listening(hook)
    for name, _ in events:
        if name == "changed" and [row["id"] for row in page.get("instances")["rows"]] == [instance_id]:
            break


def test_a_gate_is_not_opened_by_hand(server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    page = PageClient(server.url)
    workflow = hook.ensure_workflow(PAYOUT, gate=True).workflow
    waits = hook.run_workflow(workflow.id, {**VARIABLES, "runGate": "order-1~1aaaaaaaabbbbbbbb~0"})
    view = page.until(f"instances/{waits.id}", lambda view: states(view)[0] == "gate")
    assert view["awaits"] is None
    assert view["runKey"] == "order-1"
    assert view["headline"]["text"].startswith("It stands at its gate and has moved nothing.")
    refused = page.act(f"instances/{waits.id}/events", {"name": view["stages"][0]["event"]})
    assert (refused.status_code, refused.json()["error"]) == (409, "ActionRefused")
    assert not server.record().released


def test_a_run_at_a_checkpoint_says_so_and_is_not_started_from_the_page(
    server: EmbeddedServer, hook: OrchestrationHttpHook
) -> None:
    page = PageClient(server.url)
    workflow = hook.ensure_workflow(CHECKPOINTED, gate=True, checkpoints=True).workflow
    instance_id = hook.start(workflow.id, run_key="settle").id
    view = page.until(f"instances/{instance_id}", lambda view: "checkpoint" in states(view))
    assert view["headline"]["text"].startswith("It stands at the checkpoint before stage 1.")
    assert view["awaits"] is None
    refused = page.act(f"workflows/{workflow.id}/runs", {"variables": {}, "runKey": "k"})
    assert (refused.status_code, refused.json()["error"]) == (409, "ActionRefused")


def test_what_cannot_be_read_is_said_and_the_rest_is_shown(server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    page = PageClient(server.url)
    instance_id = listening(hook)
    server.fault("get_instance_history", "status", count=-1, code=500)
    view = page.get(f"instances/{instance_id}")
    assert any("the history could not be read" in text for text in view["problems"])
    assert not view["complete"]
    assert view["runKey"] is None
    assert len(view["stages"]) == 4
    server.fault("get_instance", "status", count=-1, code=503)
    with pytest.raises(httpx.HTTPStatusError) as caught:
        page.get(f"instances/{instance_id}")
    assert caught.value.response.status_code == 502
    server.clear_faults()
    with pytest.raises(httpx.HTTPStatusError) as caught:
        page.get("instances/00000000-0000-4000-8000-000000000000")
    assert caught.value.response.status_code == 404


def test_an_outage_is_told_to_those_who_watch_and_so_is_its_end(
    server: EmbeddedServer, hook: OrchestrationHttpHook
) -> None:
    page = PageClient(server.url)
    events = page.events(f"instances/{listening(hook)}/live")
    assert next(events)[0] == "instance"
    server.fault("get_instance", "status", count=-1, code=503)
    assert next(data for name, data in events if name == "problem")["message"]
    server.clear_faults()
    assert next(name for name, _ in events if name in ("recovered", "instance"))


def test_a_row_without_a_run_is_said_never_to_start(server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    page = PageClient(server.url)
    workflow = hook.create_workflow(PAYOUT)
    server.fault("run_workflow", "ghost")
    with pytest.raises(Exception, match="run of workflow"):
        hook.run_workflow(workflow.id, VARIABLES)
    ghost = hook.list_instances()[0].id
    server.advance(120)
    assert page.get(f"instances/{ghost}")["headline"]["text"].startswith("It never started and never will")


def test_the_page_of_an_instance_follows_the_servers_clock(server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    page = PageClient(server.url)
    workflow = hook.create_workflow({"name": "later", "stages": [{"delay": {"duration": "168h"}}]})
    instance_id = hook.run_workflow(workflow.id).id
    view = page.until(f"instances/{instance_id}", lambda view: states(view) == ["waiting"])
    assert view["headline"]["label"] == "goes on"
    assert view["stages"][0]["until"] == view["headline"]["until"]
    server.advance(3600)
    assert page.get(f"instances/{instance_id}")["now"] > time.time() + 3500
    server.advance(7 * 24 * 3600)
    assert page.until(f"instances/{instance_id}", lambda view: view["state"] == "succeeded")["stages"][0]["endedAt"]


def test_open_streams_do_not_keep_a_server_from_stopping(hook: OrchestrationHttpHook) -> None:
    with EmbeddedServer() as server:
        page = PageClient(server.url)
        events = page.events("live")
        next(events)
        began = time.monotonic()
    assert time.monotonic() - began < 5
    assert {name for name, _ in events} <= {"changed", "still"}

"""The page says what is known and no more: what is unread, lost, asked, or no longer so."""

from __future__ import annotations

from typing import Any

import pytest

from orchestration_integrations import OrchestrationHttpHook, Settings
from orchestration_integrations.server import EmbeddedServer
from orchestration_integrations.ui import catalog, definitions, glances, lists, reading, streams
from orchestration_integrations.ui.serving import PageServer
from tests.ui.flows import PAYOUT, VARIABLES, listening, send
from tests.ui.page_client import Json, PageClient

NOBODY = "00000000-0000-4000-8000-000000000000"
TWO_APPROVALS = {
    "name": "two approvals",
    "stages": [{"wait_event": {"event": "approve"}}, {"wait_event": {"event": "approve-large"}}],
}
PLAIN = {"name": "plain", "stages": [send("world", "orders:1", "${amount}")]}
PLAIN["stages"][0]["send"]["metadata"] = {"order": "${runKey}"}  # type: ignore[index]
BIG = 12345678901234567891


@pytest.fixture
def page(server: EmbeddedServer) -> PageClient:
    return PageClient(server.url)


# ---- actions -----------------------------------------------------------------------------------------


def test_an_event_is_sent_where_it_was_seen_to_be_awaited_or_nowhere(
    server: EmbeddedServer, hook: OrchestrationHttpHook, page: PageClient
) -> None:
    instance_id = hook.run_workflow(hook.create_workflow(TWO_APPROVALS).id).id
    seen = page.until(f"instances/{instance_id}", lambda view: view["awaits"] is not None)["awaits"]
    path = f"instances/{instance_id}/events"
    assert page.act(path, {"name": "approve"}).status_code == 400
    hook.send_event_when_ready(instance_id, "approve")
    page.until(f"instances/{instance_id}", lambda view: (view["awaits"] or {}).get("stage") == 1)
    for name in ("approve", "approve-large"):
        refused = page.act(path, {"name": name, "stage": seen["stage"]})
        assert refused.status_code == 409, refused.text
        assert "nothing was sent" in refused.json()["message"]
    assert page.act(path, {"name": "approve", "stage": 1}).status_code == 409
    assert not hook.get_instance(instance_id).terminated
    assert page.act(path, {"name": "approve-large", "stage": 1}).status_code == 200
    ended = page.act(path, {"name": "approve-large", "stage": 1})
    assert (ended.status_code, "has ended" in ended.json()["message"]) == (409, True)


def test_a_workflow_without_a_gate_runs_once_for_a_fresh_key(
    server: EmbeddedServer, hook: OrchestrationHttpHook, page: PageClient
) -> None:
    workflow = hook.create_workflow(PLAIN)
    shown = page.get(f"workflows/{workflow.id}?form=1")
    assert [one["name"] for one in shown["variables"]] == ["amount"]
    assert "freshKey" not in page.get(f"workflows/{workflow.id}")
    path = f"workflows/{workflow.id}/runs"
    asked = {"variables": {"amount": "5"}, "runKey": shown["freshKey"]}
    first = page.act(path, asked)
    assert first.status_code == 200, first.text
    again = page.act(path, asked)
    assert again.status_code == 200, again.text
    assert again.json()["id"] == first.json()["id"]
    assert len(server.record().started) == 1


def test_a_second_press_without_a_proof_says_that_a_run_may_exist(
    server: EmbeddedServer, hook: OrchestrationHttpHook, page: PageClient
) -> None:
    workflow = hook.create_workflow({"name": "nameless", "stages": [send("world", "sales", "5")]})
    key = page.get(f"workflows/{workflow.id}?form=1")["freshKey"]
    path = f"workflows/{workflow.id}/runs"
    assert page.act(path, {"variables": {}, "runKey": key}).status_code == 200
    second = page.act(path, {"variables": {}, "runKey": key})
    assert (second.status_code, second.json()["error"]) == (409, "AmbiguousRunError")
    assert page.act(path, {"variables": {}, "runKey": "a key of somebody's own"}).status_code == 409
    assert len(server.record().started) == 1


# ---- what cannot be read -----------------------------------------------------------------------------


def test_an_unforeseen_exception_ends_no_reading(
    server: EmbeddedServer, hook: OrchestrationHttpHook, page: PageClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance_id = listening(hook)
    monkeypatch.setattr(reading, "FAILED_PAUSE", 0.1)
    monkeypatch.setattr(catalog, "ALL_EVERY", 0.1)
    real = {name: getattr(kind, name) for kind, name in ((catalog.Catalog, "_round"), (reading.InstanceReader, "read"))}

    async def odd_read(self: Any) -> Any:
        raise KeyError("a secret")

    def odd_round(self: Any, hook: Any) -> None:
        raise KeyError("a secret")

    monkeypatch.setattr(reading.InstanceReader, "read", odd_read)
    monkeypatch.setattr(catalog.Catalog, "_round", odd_round)
    found = page.until("instances", lambda found: found["problem"] is not None)
    assert found["problem"] == "the page itself failed: KeyError"
    events = page.events(f"instances/{instance_id}/live")
    name, told = next(events)
    assert (name, told["message"]) == ("problem", "the page itself failed: KeyError")
    answer = page.http.get(f"/_ui/api/instances/{instance_id}")
    assert (answer.status_code, answer.json()["message"]) == (500, "the page itself failed: KeyError")
    monkeypatch.setattr(reading.InstanceReader, "read", real["read"])
    monkeypatch.setattr(catalog.Catalog, "_round", real["_round"])
    assert next(name for name, _ in events if name == "instance")
    page.until("instances", lambda found: found["problem"] is None and found["total"] == 1)


@pytest.mark.parametrize("until", ["9999-12-31T23:59:59-05:00", "9999-12-31T23:59:59Z"])
def test_a_date_at_the_end_of_time_is_shown(hook: OrchestrationHttpHook, page: PageClient, until: str) -> None:
    workflow = hook.create_workflow({"name": "late", "stages": [{"delay": {"until": until}}]})
    instance_id = hook.run_workflow(workflow.id).id
    view = page.until(f"instances/{instance_id}", lambda view: view["stages"][0]["state"] == "waiting")
    assert view["stages"][0]["until"].startswith("9999-12-31T23:59:59")
    assert next(page.events(f"instances/{instance_id}/live"))[0] == "instance"


def test_a_key_that_could_not_be_read_is_read_later(
    server: EmbeddedServer, hook: OrchestrationHttpHook, page: PageClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(glances, "NOTE_AGE", 0.2)
    instance_id = listening(hook)
    hook.send_event_when_ready(instance_id, "approved")
    server.fault("get_instance_history", "status", count=-1, code=500)
    page.until("instances?q=order-17", lambda found: found["keysUnread"] == 1 and found["keysToRead"] == 0)
    row = page.until("instances", lambda found: found["total"] == 1)["rows"][0]
    assert (row["runKey"], row["keyUnread"]) == (None, True)
    server.clear_faults()
    row = page.until("instances", lambda found: not found["rows"][0]["keyUnread"])["rows"][0]
    assert row["runKey"] == "order-17"
    assert page.get("instances?q=order-17")["keysUnread"] == 0


def test_a_search_says_what_it_has_not_read(
    hook: OrchestrationHttpHook, page: PageClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "MOST_SEARCHED", 1)
    listening(hook, "order-1")
    listening(hook, "order-2")
    found = page.until(
        "instances?q=order-1", lambda found: found["counts"]["running"] == 0 and found["keysToRead"] == 0
        and found["keysUnread"] == 1,
    )  # fmt: skip
    assert found["rows"] == []


def test_a_key_is_compared_whole(hook: OrchestrationHttpHook, page: PageClient) -> None:
    ids = {key: listening(hook, key) for key in ("order-17", "order-170", "ORDER-17")}
    page.until("instances?q=order-17", lambda found: found["total"] == 3)
    found = page.get("instances?key=order-17")
    assert [row["id"] for row in found["rows"]] == [ids["order-17"]]
    assert found["counts"]["running"] == 1


def test_an_unknown_id_is_said_to_be_one_and_not_polled_for_ever(
    server: EmbeddedServer, page: PageClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "UNKNOWN_FOR", 0.3)
    monkeypatch.setattr(reading, "FAILED_PAUSE", 0.1)
    told = list(page.events(f"instances/{NOBODY}/live"))
    assert told[0][0] == "missing"
    assert told[0][1]["message"].startswith("the server knows no instance with this id; ")
    assert told[-2][0] == "missing"
    assert told[-1] == ("over", {})


@pytest.mark.parametrize("generation", [1, 2, 3])
def test_a_deleted_workflow_is_noticed_and_its_run_found_by_its_id(
    generation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(definitions, "DEFINITION_AGE", 0.0)
    with EmbeddedServer(generation) as server, OrchestrationHttpHook(base_url=server.url) as hook:
        page = PageClient(server.url)
        instance_id = listening(hook)
        view = page.until(f"instances/{instance_id}", lambda view: view["awaits"] is not None)
        hook.delete_workflow(view["workflow"]["id"])
        page.until("instances", lambda found: found["total"] == 0 and found["readAt"] is not None)
        found = page.get(f"instances?q={instance_id}")
        assert [row["id"] for row in found["rows"]] == [instance_id]
        assert len(page.get(f"instances/{instance_id}")["stages"]) == 4 or generation == 3
        answer = page.http.get(f"/_ui/api/workflows/{view['workflow']['id']}?form=1")
        if generation == 3:
            assert answer.status_code == 404 or answer.json()["deletedAt"]
        else:
            assert answer.json()["deletedAt"]
            page.until(f"instances/{instance_id}", lambda view: view["workflow"]["deleted"])


def test_a_stream_says_how_often_it_speaks(page: PageClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT", 0.2)
    with page.http.stream("GET", "/_ui/api/live") as stream:
        assert stream.headers["x-heartbeat"] == "0.2"
    assert "still" in {name for (name, _), _ in zip(page.events("live"), range(8), strict=False)}


# ---- money -------------------------------------------------------------------------------------------


def view_of_end(page: PageClient, hook: OrchestrationHttpHook, stages: list[Json], **variables: str) -> Json:
    instance_id = hook.run_workflow(hook.create_workflow({"name": "money", "stages": stages}).id, variables).id
    return page.until(f"instances/{instance_id}", lambda view: view["state"] != "running")


def test_digits_that_the_server_has_lost_are_not_invented(hook: OrchestrationHttpHook, page: PageClient) -> None:
    view = view_of_end(page, hook, [send("world", "sales", "${amount}")], amount=str(BIG))
    movement = view["transactions"][0]["movements"][0]
    assert movement["amount"] == "≈ 123,456,789,012,346,000.00 EUR"
    assert movement["raw"].startswith("≈ 1234567890123456")
    assert view["graph"]["edges"][0]["amounts"] == [movement["amount"]]
    assert view["stages"][0]["text"].startswith("≈ 123,456,789,012,346,000.00 EUR")
    small = view_of_end(page, hook, [send("world", "sales", "${amount}")], amount=str(2**53 - 1))
    assert small["transactions"][0]["movements"][0]["amount"] == "90,071,992,547,409.91 EUR"


def test_raw_is_the_servers_text(server: EmbeddedServer, hook: OrchestrationHttpHook, page: PageClient) -> None:
    view = view_of_end(page, hook, [send("world", "sales", "${amount}")], amount=str(BIG))
    raw = page.get(f"instances/{view['id']}/raw")
    for part in raw["parts"]:
        method, path = part["call"].split()
        assert part["text"] == page.http.request(method, path).text
    assert [part["call"].partition("/history")[1] for part in raw["parts"]] == ["", "/history", "/history"]
    [definition] = page.get(f"workflows/{view['workflow']['id']}/raw")["parts"]
    assert definition["text"] == page.http.get(definition["call"].split()[1]).text
    server.fault("get_stage_history", "status", count=-1, code=500)
    assert page.get(f"instances/{view['id']}/raw")["problems"]


def edges(view: Json) -> set[tuple[str, str, str]]:
    nodes = [node["account"] for node in view["graph"]["nodes"]]
    return {(nodes[edge["from"]], nodes[edge["to"]], edge["state"]) for edge in view["graph"]["edges"]}


@pytest.mark.parametrize("generation", [1, 2, 3])
def test_a_payer_pays_once(generation: Any) -> None:
    data = {"wallets": [{"id": "w1", "name": "alice", "ledger": "wallets"}]}
    with EmbeddedServer(generation, data=data) as server, OrchestrationHttpHook(base_url=server.url) as hook:
        page = PageClient(server.url)
        to_wallet = send("sales", "", "100")
        to_wallet["send"]["destination"] = {"wallet": {"id": "w1"}}
        view = view_of_end(page, hook, [send("world", "sales", "100"), to_wallet])
        assert view["state"] == "succeeded", view["headline"]
        assert edges(view) == {
            ("world", "sales", "moved"),
            ("sales", "world", "moved"),
            ("world", "wallet w1", "asked"),
        }
        assert [row["asked"] for row in view["transactions"]] == [False, False, True]


def test_a_payment_under_way_is_drawn_as_its_call_asks(
    server: EmbeddedServer, hook: OrchestrationHttpHook, page: PageClient
) -> None:
    other = send("sales", "merchants:m1", "100")
    other["send"]["destination"]["account"]["ledger"] = "other"
    workflow = hook.create_workflow({"name": "across", "stages": [other]})
    instance_id = hook.run_workflow(workflow.id).id
    view = page.until(f"instances/{instance_id}", lambda view: view["stages"][0]["state"] == "failing")
    assert edges(view) == {("sales", "world", "open")}


def test_a_page_that_only_reads_makes_no_keys(server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    workflow = hook.create_workflow(PAYOUT)
    with PageServer(Settings(base_url=server.url)) as reading_only:
        shown = PageClient(reading_only.url).get(f"workflows/{workflow.id}?form=1")
    assert "freshKey" not in shown
    assert set(VARIABLES) == {one["name"] for one in shown["variables"]}

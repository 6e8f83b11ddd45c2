"""The sentences that judge, the record of calls, and faults that hold inside a block."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from orchestration_integrations.server import EmbeddedServer, call_log
from tests.outside import eventually

TOKEN = "a-very-secret-token"


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer(seed=1) as one:
        yield one


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, trust_env=False) as one:
        yield one


def send(payee: str = "merchants:${merchant}", source: str = "world", amount: str = "1250") -> dict[str, Any]:
    return {
        "send": {
            "source": {"account": {"id": source}},
            "destination": {"account": {"id": payee}},
            "amount": {"amount": amount, "asset": "EUR/2"},
        }
    }


def run(server: EmbeddedServer, client: httpx.Client, *stages: dict[str, Any], **variables: str) -> str:
    """Start a run and let a minute pass; the id of the instance."""
    workflow = client.post("/workflows", json={"name": "payout", "stages": list(stages)}).json()["data"]
    instance = client.post(f"/workflows/{workflow['id']}/instances", json=variables).json()["data"]
    server.advance(60)
    return str(instance["id"])


def told(sentence: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(AssertionError) as caught:
        sentence(*arguments, **options)
    return str(caught.value)


def test_what_is_true_is_returned(server: EmbeddedServer, client: httpx.Client) -> None:
    event = {"wait_event": {"event": "approved"}}
    first = run(server, client, event, send(), merchant="m1")
    client.post(f"/instances/{first}/events", json={"name": "approved"})
    server.advance(60)
    second = run(server, client, send(), send("fees", amount="5"), merchant="m2")
    (paid,) = server.paid("merchants:m1", 1250, "EUR/2", source="world", instance_id=first, once=True)
    assert paid["instance_id"] == first
    assert paid["posting"]["amount"] == 1250
    server.paid("fees", 5, "EUR/2")
    server.paid("fees", 6, "EUR/2", times=0)
    server.paid_nothing("merchants:m3")
    server.paid_nothing("fees", ledger="other")
    assert [one["instance_id"] for one in server.started(2, workflow="payout")] == [first, second]
    server.started(0, workflow="refund")
    server.ended("succeeded", times=2)
    server.ended("succeeded", instance_id=second)
    server.ended("failed", times=0)
    server.heard("approved", instance_id=first, once=True)


def test_a_second_payment_is_not_once(server: EmbeddedServer, client: httpx.Client) -> None:
    for _ in range(2):
        run(server, client, send(), merchant="m1")
    server.paid("merchants:m1", 1250, "EUR/2")
    text = told(server.paid, "merchants:m1", 1250, "EUR/2", once=True)
    assert text.startswith(
        "merchants:m1 was paid 1250 EUR/2 twice, expected once\nWhat moved to and from merchants:m1:\n"
    )
    assert text.count("1250 EUR/2 from world to merchants:m1 by run ") == 2
    assert text.count(" of payout (merchant=m1): succeeded") == 2
    assert told(server.paid_nothing).startswith("somebody was paid twice, expected never\n")
    assert told(server.started, 1).startswith("2 runs started, expected 1\n")


@pytest.mark.parametrize(
    ("arguments", "options", "why"),
    [
        (("merchants:m1", 1251, "EUR/2"), {}, "was never paid 1251 EUR/2, expected at least once"),
        (("merchants:m1", 1250, "USD/2"), {}, "was never paid 1250 USD/2, expected at least once"),
        (("merchants:m1", 1250, "EUR/2"), {"source": "bank"}, "was never paid 1250 EUR/2 from bank,"),
        (("merchants:m1", 1250, "EUR/2"), {"ledger": "other"}, "was never paid 1250 EUR/2 in ledger other,"),
        (("merchants:m1", 1250, "EUR/2"), {"times": 2}, "was paid 1250 EUR/2 once, expected twice"),
    ],
)
def test_another_payment_is_not_this_one(
    server: EmbeddedServer, client: httpx.Client, arguments: Any, options: Any, why: str
) -> None:
    run(server, client, send(), merchant="m1")
    text = told(server.paid, *arguments, **options)
    assert why in text
    assert "  1250 EUR/2 from world to merchants:m1 by run " in text


def test_where_runs_stand_is_told(server: EmbeddedServer, client: httpx.Client) -> None:
    run(server, client, {"wait_event": {"event": "approved"}}, send())
    run(server, client, send(source="empty"), merchant="m1")
    run(server, client, {"delay": {"duration": "1h"}})
    run(server, client, send("no such account!"))
    text = told(server.paid, "merchants:m1", 1250, "EUR/2")
    assert "No money was moved at all.\nThe runs:\n" in text
    assert ": waits for the event 'approved' in stage 0\n" in text
    assert " (merchant=m1): has failed " in text
    assert " in stage 0 (send), and tries again: account had insufficient funds" in text
    assert ": is in stage 0 (delay)" in text
    assert ": failed, " in text
    assert told(server.ended, "succeeded").startswith("no run succeeded, expected at least one\n")


def test_an_event_that_came_too_early_is_told(server: EmbeddedServer, client: httpx.Client) -> None:
    instance_id = run(server, client, {"delay": {"duration": "1h"}}, {"wait_event": {"event": "approved"}})
    client.post(f"/instances/{instance_id}/events", json={"name": "approved"})
    server.advance(2 * 3600)
    text = told(server.heard, "approved", once=True)
    assert text.startswith(
        "the event 'approved' was never heard, expected once; once it came to a stage that did not wait for it\n"
    )


def test_nothing_happened_is_told(server: EmbeddedServer) -> None:
    assert told(server.paid, "m", 1, "EUR/2").endswith("No money was moved at all.\nNo run has started.")


def test_a_long_story_is_cut(server: EmbeddedServer, client: httpx.Client) -> None:
    for number in range(12):
        run(server, client, send(), merchant=f"m{number}")
    text = told(server.paid, "merchants:m99", 1250, "EUR/2")
    assert text.count("  … and 2 more") == 2


def test_what_cannot_be_meant_is_refused(server: EmbeddedServer) -> None:
    for amount in (12.5, "1250", True):
        with pytest.raises(ValueError, match="amount must be a whole number"):
            server.paid("m", amount, "EUR/2")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="once or times, not both"):
        server.paid("m", 1, "EUR/2", once=True, times=2)
    with pytest.raises(ValueError, match="not as 'canceled'"):
        server.ended("canceled")


# ---- calls -------------------------------------------------------------------------------------------


def test_calls_are_kept(server: EmbeddedServer, client: httpx.Client) -> None:
    instance_id = run(server, client, send(), merchant="m1")
    server.fault("get_instance", "status", code=503)
    client.get(f"/instances/{instance_id}?verbose=1")
    started, asked = server.calls("run_workflow")[0], server.calls()[-1]
    assert (started.method, started.json, started.status) == ("POST", {"merchant": "m1"}, 201)
    assert (asked.operation, asked.path, asked.query) == ("get_instance", f"/instances/{instance_id}", {"verbose": "1"})
    assert (asked.status, asked.faults, asked.json) == (503, ("status",), None)
    assert [one.operation for one in server.calls()] == ["create_workflow", "run_workflow", "get_instance"]
    assert asked.at > started.at + 59


def test_a_call_that_was_cut_has_no_status(server: EmbeddedServer, client: httpx.Client) -> None:
    server.fault("info", "cut_before")
    with pytest.raises(httpx.RemoteProtocolError):
        client.get("/_info")
    (call,) = server.calls("info")
    assert (call.status, call.faults) == (None, ("cut_before",))


def test_calls_that_change_something_are_all_kept(
    server: EmbeddedServer, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_log, "MOST", 3)
    first = run(server, client, send(), merchant="m1")
    for _ in range(3):
        client.get(f"/instances/{first}")
    assert [one.operation for one in server.calls()] == ["create_workflow", "run_workflow", *["get_instance"] * 3]
    second = run(server, client, send(), merchant="m2")
    client.get(f"/instances/{second}")
    assert [one.json for one in server.calls("run_workflow")] == [{"merchant": "m1"}, {"merchant": "m2"}]
    for operation in (None, "get_instance"):
        with pytest.raises(ValueError, match="the first 1 of these calls are forgotten"):
            server.calls(operation)
    assert server.calls("list_instances") == ()


def test_a_call_has_its_status_before_its_answer_is_read(
    server: EmbeddedServer, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, forget = threading.Event(), server.core.forget

    def late(exchange: Any) -> None:
        gone.wait(5)
        forget(exchange)

    workflow = client.post("/workflows", json={"name": "payout", "stages": [send()]}).json()["data"]
    eventually(lambda: not server.core.under_way, "nothing of that exchange is left to be done", every=0.01)
    monkeypatch.setattr(server.core, "forget", late)
    client.post(f"/workflows/{workflow['id']}/instances").raise_for_status()
    assert server.calls("run_workflow")[-1].status == 201
    gone.set()


def test_no_secret_is_kept() -> None:
    with EmbeddedServer(token=TOKEN) as server, httpx.Client(base_url=server.url, trust_env=False) as client:
        form = {"grant_type": "client_credentials", "client_id": "me", "client_secret": TOKEN}
        client.post("/api/auth/oauth/token", data=form).raise_for_status()
        client.get("/workflows", headers={"Authorization": f"Bearer {TOKEN}"}).raise_for_status()
        assert [one.operation for one in server.calls()] == ["token", "list_workflows"]
        assert TOKEN not in repr(server.calls())


def test_calls_are_asked_for_by_names_that_exist(server: EmbeddedServer) -> None:
    with pytest.raises(ValueError, match="no operation 'run'; there are info, list_workflows"):
        server.calls("run")
    with EmbeddedServer(faults=False) as other, pytest.raises(ValueError, match="keeps no calls"):
        other.calls()


# ---- faults ------------------------------------------------------------------------------------------


def test_a_fault_holds_inside_its_block(server: EmbeddedServer, client: httpx.Client) -> None:
    with server.fault("info", "status", count=-1, code=503) as fault:
        assert [client.get("/_info").status_code for _ in range(2)] == [503, 503]
    assert fault.met == 2
    assert client.get("/_info").status_code == 200


def test_a_fault_that_met_nobody_fails_its_block(server: EmbeddedServer, client: httpx.Client) -> None:
    with pytest.raises(AssertionError, match="the fault 'cut_after' met no request: nobody sent 'run_workflow'"):
        with server.fault("run_workflow", "cut_after"):
            client.get("/_info")
    with pytest.raises(AssertionError, match="after the first 1 were skipped"):
        with server.fault("info", "cut_after", skip=2):
            client.get("/_info")


def test_what_a_block_raises_is_told_first(server: EmbeddedServer) -> None:
    with pytest.raises(LookupError):
        with server.fault("info", "status", count=-1):
            raise LookupError
    assert not server.core.faults


def test_another_fault_of_the_same_kind_stays(server: EmbeddedServer, client: httpx.Client) -> None:
    server.fault("info", "status", code=500)
    with server.fault("info", "status", code=503):
        assert [client.get("/_info").status_code for _ in range(2)] == [500, 503]
    server.fault("info", "status", code=500)
    with server.fault("any", "misread", count=5, how="bom"):
        assert [client.get("/_info").status_code for _ in range(2)] == [500, 200]
    assert not server.core.faults

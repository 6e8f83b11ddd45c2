"""Sentences that must not be true by chance: about what is still to come, payouts, and names that nobody has."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from orchestration_integrations.server import EmbeddedServer

ALL = pytest.mark.parametrize("generation", [1, 2, 3])
LATER = pytest.mark.parametrize("generation", [2, 3])
WEEK = {"delay": {"duration": "168h"}}
APPROVAL = {"wait_event": {"event": "approved"}}


@pytest.fixture
def generation() -> int:
    return 2


@pytest.fixture
def server(generation: Any) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(generation, seed=1) as one:
        yield one


def pay(payee: str = "merchants:m1", amount: str = "1250", source: str = "world", **more: Any) -> dict[str, Any]:
    return {
        "send": {
            "source": {"account": {"id": source}},
            "destination": {"account": {"id": payee, **more}},
            "amount": {"amount": amount, "asset": "EUR/2"},
        }
    }


def pay_out(psp: str = "stripe", source: str = "bank", **more: Any) -> dict[str, Any]:
    stage = pay(source=source)
    stage["send"]["destination"] = {"payment": {"psp": psp, "metadata": "payee", **more}}
    return stage


def created(server: EmbeddedServer, *stages: Any) -> str:
    answer = httpx.post(f"{server.url}/workflows", json={"name": "payout", "stages": list(stages)}, trust_env=False)
    return str(answer.json()["data"]["id"])


def run(server: EmbeddedServer, workflow_id: str, **variables: str) -> str:
    answer = httpx.post(f"{server.url}/workflows/{workflow_id}/instances", json=variables, trust_env=False)
    return str(answer.json()["data"]["id"])


def started(server: EmbeddedServer, *stages: Any, **variables: str) -> str:
    """A run, a minute later."""
    instance_id = run(server, created(server, *stages), **variables)
    server.advance(60)
    return instance_id


def told(sentence: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(AssertionError) as caught:
        sentence(*arguments, **options)
    return str(caught.value)


# ---- what is still to come -----------------------------------------------------------------------------


@ALL
def test_a_payment_that_is_still_to_come_is_not_once(server: EmbeddedServer) -> None:
    started(server, pay())
    second = started(server, WEEK, pay("merchants:${merchant}"), merchant="m1")
    server.paid("merchants:m1", 1250, "EUR/2")
    text = told(server.paid, "merchants:m1", 1250, "EUR/2", once=True)
    assert text.startswith("merchants:m1 was paid 1250 EUR/2 once, expected once: that is true now, but ")
    assert f"but run {second} will go on by itself: it is in stage 0 (delay), and stage 1 pays\n" in text
    assert told(server.paid, "merchants:m1", 1250, "EUR/2", times=1).startswith("merchants:m1 was paid")
    server.paid("merchants:m1", 1250, "USD/2", times=0)
    server.started(2)
    server.ended("succeeded", times=1)
    server.advance(8 * 24 * 3600)
    server.paid("merchants:m1", 1250, "EUR/2", times=2)


@ALL
@pytest.mark.parametrize(
    "stages",
    [
        (WEEK, pay("merchants:m2")),
        (WEEK, pay(amount="99")),
        (WEEK, pay(ledger="other")),
        (WEEK, APPROVAL, pay()),
        (APPROVAL, WEEK, pay()),
        (WEEK, pay("merchants:${m}")),  # no such variable: it fails there
        (WEEK, {"update": {"account": {"id": "merchants:m1", "metadata": {"a": "b"}}}}),
    ],
)
def test_what_pays_somebody_else_or_waits_may_still_come(server: EmbeddedServer, stages: Any, generation: int) -> None:
    if generation == 1:
        stages = [one for one in stages if "update" not in one]
    started(server, pay())
    started(server, *stages)
    server.paid("merchants:m1", 1250, "EUR/2", once=True)


@ALL
def test_a_payment_that_is_tried_again_is_still_to_come(server: EmbeddedServer) -> None:
    started(server, pay())
    failing = started(server, pay(source="empty"))
    text = told(server.paid, "merchants:m1", 1250, "EUR/2", once=True)
    assert f"run {failing} will go on by itself: it has failed " in text
    server.paid("merchants:m1", 1250, "EUR/2", source="world", once=True)


@ALL
def test_a_payment_in_a_service_that_is_away_is_still_to_come(server: EmbeddedServer, generation: int) -> None:
    started(server, pay())
    server.world("ledger stopped")
    stalled = started(server, pay())
    assert f"run {stalled} will go on" in told(server.paid, "merchants:m1", 1250, "EUR/2", once=True)
    assert "steps that wait for a part that is away (ledger): " in told(server.at_rest)
    httpx.put(f"{server.url}/instances/{stalled}/abort", trust_env=False)
    server.advance(60)
    text = told(server.paid, "merchants:m1", 1250, "EUR/2", once=True)
    assert ("was cancelled, and a call of stage 0 is on its way" in text) is (generation != 2)
    server.world("ledger started")
    server.advance(60)
    assert len(server.paid("merchants:m1", 1250, "EUR/2")) > 1
    server.at_rest()


@ALL
def test_a_run_that_is_about_to_begin_is_still_to_come(server: EmbeddedServer, generation: int) -> None:
    """Whose answer was cut, and whose workers are away."""
    started(server, pay())
    workflow = created(server, pay())
    server.world("workers stopped")
    with server.fault("run_workflow", "cut_amid", after=0.05), pytest.raises(httpx.TransportError):
        run(server, workflow)
    server.started(1 if generation > 1 else 2)
    text = told(server.paid, "merchants:m1", 1250, "EUR/2", once=True)
    assert "will go on by itself: it " in text
    assert told(server.at_rest).startswith("the server is not at rest:\n  ")
    server.world("workers started")
    server.advance(60)
    server.at_rest()
    server.paid("merchants:m1", 1250, "EUR/2", times=2)


@LATER
def test_a_run_of_a_trigger_is_still_to_come(server: EmbeddedServer) -> None:
    workflow = created(server, pay())
    trigger = {"event": "SAVED_PAYMENT", "workflowID": workflow}
    httpx.post(f"{server.url}/triggers", json=trigger, trust_env=False).raise_for_status()
    server.world("workers stopped")
    server.world('publish {"type": "SAVED_PAYMENT", "payload": {"id": "p1"}}')
    assert "a run will go on by itself" in told(server.paid, "merchants:m1", 1250, "EUR/2", times=0)
    assert f"a run of workflow {workflow} is about to begin" in told(server.at_rest)
    server.world("workers started")
    server.advance(60)
    server.paid("merchants:m1", 1250, "EUR/2", once=True)


@ALL
def test_a_payment_that_was_just_made_is_no_other_one(server: EmbeddedServer, generation: int) -> None:
    """At each moment from its effect to the end of its run."""
    workflow = created(server, pay())
    seen = 0
    for number in range(1, 6):
        run(server, workflow)
        until = time.monotonic() + 5
        while len(server.record().money) < number:
            assert time.monotonic() < until
            time.sleep(0.001)
        while len(server.record().ended) < number:
            server.paid("merchants:m1", 1250, "EUR/2", times=number)
            seen += 1
    assert seen


def test_a_request_under_way_is_no_rest(server: EmbeddedServer) -> None:
    workflow = created(server, pay())
    server.at_rest()
    server.world("engine stopped")
    thread = threading.Thread(target=run, args=(server, workflow), daemon=True)
    thread.start()
    until = time.monotonic() + 5
    while not server.core.engine.parts.holding:
        assert time.monotonic() < until
        time.sleep(0.001)
    assert "  requests under way: 1\n" in told(server.at_rest)
    assert "it is asked for by a request that waits for the engine" in told(
        server.paid, "merchants:m1", 1250, "EUR/2", times=0
    )
    server.world("engine started")
    thread.join(10)
    server.advance(60)
    server.at_rest()


@ALL
def test_rest_is_an_end_or_a_wait_for_an_event(server: EmbeddedServer, generation: int) -> None:
    started(server, pay())
    started(server, pay("no such account!"))
    waiting = started(server, APPROVAL, WEEK, pay())
    server.at_rest()
    httpx.post(f"{server.url}/instances/{waiting}/events", json={"name": "approved"}, trust_env=False)
    server.advance(1)
    text = told(server.at_rest)
    assert text.startswith(f"the server is not at rest:\n  run {waiting} is in stage 1 (delay)\n")
    httpx.put(f"{server.url}/instances/{waiting}/abort", trust_env=False)
    server.advance(1)
    if generation == 2:  # a cancel that is not confirmed: the money is still to come
        server.paid("merchants:m1", 1250, "EUR/2")
        assert f"run {waiting} is in stage 1" in told(server.at_rest)
        server.advance(8 * 24 * 3600)
    server.at_rest()


# ---- payouts -------------------------------------------------------------------------------------------


def seeded(server: EmbeddedServer, funds: int = 5000) -> None:
    bank = {"id": "bank", "balances": {"EUR/2": funds}, "metadata": {"payee": "acct_1"}}
    server.seed_data({"accounts": [bank], "connectors": [{"provider": "stripe", "id": "stripe-1"}]})


@ALL
def test_a_payout_is_a_payment(server: EmbeddedServer) -> None:
    seeded(server)
    instance_id = started(server, pay_out())
    for via in ("stripe", "Stripe", "stripe-1"):
        (entry,) = server.paid_out(via, 1250, "EUR/2", destination="acct_1", instance_id=instance_id, once=True)
    assert entry["payout"]["status"] == "PROCESSED"
    assert told(server.paid_out, "stripe", 1251, "EUR/2").startswith(
        "1251 EUR/2 was never paid out through stripe, expected at least once\n"
    )
    assert told(server.paid_out, "stripe", 1250, "EUR/2", destination="acct_2").startswith("1250 EUR/2 was never paid")
    text = told(server.paid_out, "stripe", 1250, "EUR/2", times=2)
    assert text.startswith("1250 EUR/2 was paid out through stripe once, expected twice\n")
    assert (
        f"\nWhat left through providers:\n  1250 EUR/2 through stripe (stripe-1) to acct_1 by run {instance_id}" in text
    )
    assert told(server.paid_nothing).startswith("somebody was paid twice, expected never\n")
    assert told(server.paid_nothing, "acct_1").startswith("acct_1 was paid once, expected never\n")
    server.paid_nothing("acct_2")


@pytest.mark.parametrize("generation", [1])
def test_a_payout_without_funds_has_left(server: EmbeddedServer) -> None:
    seeded(server, 0)
    started(server, pay_out())
    text = told(server.paid_nothing)
    assert text.startswith("somebody was paid once, expected never\nWhat left through providers:\n")
    server.paid_nothing(ledger="default")


@pytest.mark.parametrize("generation", [1])
def test_a_payout_that_a_stalled_service_makes_twice_is_not_once(server: EmbeddedServer) -> None:
    seeded(server)
    server.world("payments stopped")
    started(server, pay_out())
    assert "will go on by itself" in told(server.paid_out, "stripe", 1250, "EUR/2", times=0)
    server.world("payments started")
    server.advance(60)
    assert " times, expected once\n" in told(server.paid_out, "stripe", 1250, "EUR/2", once=True)


@LATER
def test_a_debit_without_a_connector_is_no_payout(server: EmbeddedServer) -> None:
    seeded(server)
    started(server, pay_out("wise"))
    server.paid("world", 1250, "EUR/2", once=True)
    server.paid_out("wise", 1250, "EUR/2", times=0)
    assert told(server.paid_out, "wise", 1250, "EUR/2").startswith("1250 EUR/2 was never paid out through wise")


@ALL
def test_a_payout_that_is_still_to_come_is_not_once(server: EmbeddedServer) -> None:
    seeded(server)
    started(server, pay_out())
    later = started(server, WEEK, pay_out())
    text = told(server.paid_out, "stripe", 1250, "EUR/2", once=True)
    assert f"that is true now, but run {later} will go on by itself: it is in stage 0 (delay)" in text
    server.paid("world", 1250, "EUR/2")


# ---- only ----------------------------------------------------------------------------------------------


def test_another_amount_is_not_only_this_one(server: EmbeddedServer) -> None:
    started(server, pay())
    server.paid("merchants:m1", 1250, "EUR/2", only=True)
    started(server, pay("merchants:m2", "7"))
    server.paid("merchants:m1", 1250, "EUR/2", only=True)
    started(server, pay(amount="1251"))
    server.paid("merchants:m1", 1250, "EUR/2", once=True)
    text = told(server.paid, "merchants:m1", 1250, "EUR/2", only=True)
    assert text.startswith("merchants:m1 was paid 1250 EUR/2 once, and something else once, expected nothing else\n")


@pytest.mark.parametrize("second", [pay(ledger="other"), pay(amount="1")])
def test_nothing_else_is_only_in_any_ledger_and_to_come(server: EmbeddedServer, second: Any) -> None:
    started(server, pay())
    started(server, WEEK, second)
    server.paid("merchants:m1", 1250, "EUR/2", once=True)
    assert "will go on by itself" in told(server.paid, "merchants:m1", 1250, "EUR/2", only=True)
    server.advance(8 * 24 * 3600)
    assert "something else once" in told(server.paid, "merchants:m1", 1250, "EUR/2", only=True)
    server.paid("merchants:m1", 1250, "EUR/2", once=True)


# ---- names that nobody has -----------------------------------------------------------------------------


def test_a_name_that_nobody_has_is_refused(server: EmbeddedServer) -> None:
    started(server, pay("merchants:${merchant}"), merchant="m1")
    started(server, pay("merchants:m2"))
    started(server, pay("held:a"))
    started(server, pay("shops", ledger="retail"))
    started(server, {"wait_event": {"event": "x"}}, pay("reserves:${merchant}"), merchant="a")
    slips: list[tuple[Any, tuple[Any, ...], dict[str, Any], str]] = [
        (server.started, (0,), {"workflow": "payuot"}, "did you mean 'payout'"),
        (server.started, (0,), {"workflow": "Pay-out"}, "did you mean 'payout'"),
        (server.ended, ("failed",), {"times": 0, "instance_id": "nope"}, "the server never had such a run"),
        (server.heard, ("x",), {"times": 0, "instance_id": "nope"}, "the server never had such a run"),
        (server.paid, ("merchants:m1", 1, "EUR/2"), {"times": 0, "instance_id": "nope"}, "never had such a run"),
        (server.paid_out, ("stripe", 1, "EUR/2"), {"times": 0, "instance_id": "nope"}, "never had such a run"),
        (server.paid_nothing, ("merchant:m3",), {}, "did you mean 'merchants:m3'"),
        (server.paid_nothing, ("reserve:m2",), {}, "did you mean 'reserves:m2'"),
        (server.paid_nothing, ("shop",), {}, "did you mean 'shops'"),
        (server.paid_nothing, ("merchants:M2",), {}, "did you mean 'merchants:m2'"),
        (server.paid_nothing, ("merchants-m1",), {}, "did you mean 'merchants:m1'"),
        (server.paid_nothing, ("hled:a",), {}, "did you mean 'held:a'"),
        (server.paid_nothing, ("merchants:m1 ",), {}, "is the name of no account"),
        (server.paid_nothing, ("merchants::m1",), {}, "is the name of no account"),
        (server.paid_nothing, ("",), {}, "is the name of no account"),
        (server.paid_nothing, (), {"ledger": "defualt"}, "did you mean 'default'"),
        (server.paid_nothing, (), {"ledger": "retial"}, "did you mean 'retail'"),
        (server.paid, ("merchant:m1", 1, "EUR/2"), {"times": 0}, "did you mean 'merchants:m1'"),
        (server.paid, ("merchants:m1", 1, "EUR/2"), {"times": 0, "ledger": "defualt"}, "did you mean 'default'"),
        (server.paid, ("merchants:m1", 1, "eur"), {"times": 0}, "is the name of no asset"),
        (
            server.paid,
            ("merchants:m1", 1, "EUR/2"),
            {"times": 0, "source": "the bank"},
            "source 'the bank' is the name",
        ),
    ]
    for sentence, arguments, options, why in slips:
        with pytest.raises(ValueError, match=why):
            sentence(*arguments, **options)


def test_a_name_that_may_be_meant_is_not(server: EmbeddedServer) -> None:
    started(server, pay("merchants:m1"))
    started(server, pay("users:anna"))
    started(server, pay("held:a"))
    started(server, APPROVAL, pay("reserve"))
    for account in ("merchants:m2", "merchants:m10", "users:hanna", "fees", "hold:a", "reserve", "a:b:c", "merch"):
        server.paid_nothing(account)
    for ledger in ("ledger-2", "other"):
        server.paid_nothing(ledger=ledger)
    for workflow in ("refund", "payout-2", "payout2", "payout-of-fees"):
        server.started(0, workflow=workflow)
    server.paid("merchants:m1", 1250, "EUR/2", ledger="other", times=0)


def test_an_object_that_holds_an_id_is_no_id(server: EmbeddedServer) -> None:
    """What a call returned is passed on whole by a natural slip."""
    run = {"id": started(server, pay())}
    for sentence, arguments in ((server.paid, ("merchants:m1", 1250, "EUR/2")), (server.ended, ("succeeded",))):
        with pytest.raises(ValueError, match="instance_id must be the id, a text, not dict"):
            sentence(*arguments, instance_id=run)  # type: ignore[operator]
    with pytest.raises(ValueError, match="workflow must be the id"):
        server.started(1, workflow=run)  # type: ignore[arg-type]


def test_a_sentence_that_comes_too_early_says_what_to_wait_for(server: EmbeddedServer) -> None:
    instance_id = run(server, created(server, pay()))
    with pytest.raises(AssertionError, match=f"; run {instance_id} has not ended: wait for it first"):
        server.paid("merchants:m1", 1250, "EUR/2", once=True)
    with pytest.raises(AssertionError, match="expected once\n"):
        server.paid("merchants:m2", 1250, "EUR/2", once=True)  # nothing of this is to come


@pytest.mark.parametrize("seconds", ["1h", "60", True, None])
def test_seconds_are_a_number(server: EmbeddedServer, seconds: Any) -> None:
    with pytest.raises(ValueError, match="seconds must be a number, not"):
        server.advance(seconds)


@pytest.mark.parametrize("times", [True, "1", 1.0, -1])
def test_times_is_a_number(server: EmbeddedServer, times: Any) -> None:
    started(server, pay())
    for sentence, arguments in (
        (server.paid, ("merchants:m1", 1250, "EUR/2")),
        (server.paid_out, ("stripe", 1250, "EUR/2")),
        (server.ended, ("succeeded",)),
        (server.heard, ("approved",)),
        (server.started, ()),
    ):
        with pytest.raises(ValueError, match="times must be a whole number from 0, not "):
            sentence(*arguments, times=times)


# ---- copies --------------------------------------------------------------------------------------------


def test_an_entry_that_is_changed_changes_nothing(server: EmbeddedServer) -> None:
    seeded(server)
    started(server, pay(), merchant="m1")
    started(server, pay_out())
    before, text = server.record(), server.record().as_json_lines()
    (entry,) = server.paid("merchants:m1", 1250, "EUR/2")
    entry["posting"]["amount"] = 1
    record = server.record()
    record.started[0]["variables"]["merchant"] = "m2"
    record.payouts[0]["payout"]["amount"] = 1
    record.ended.clear()
    assert server.record().as_json_lines() == before.as_json_lines() == text
    assert before.as_dict().keys() == {*before.__slots__, "history_calls"}

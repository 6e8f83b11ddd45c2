"""Amounts, assets and accounts that variables fill in: what no server takes is told before anything is submitted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration_integrations import MemoryRunStore, OrchestrationHttpHook, ValidationError
from orchestration_integrations.api.definitions import filled, validated_definition
from orchestration_integrations.api.money_fields import account_fault, amount_fault, asset_fault
from orchestration_integrations.server import EmbeddedServer
from orchestration_integrations.server.definitions import DefinitionError, requirements, resolve
from orchestration_integrations.server.ledger import Ledger

PAY = {
    "send": {
        "source": {"account": {"id": "world"}},
        "destination": {"account": {"id": "${to}"}},
        "amount": {"amount": "${amount}", "asset": "${asset}"},
    }
}
GOOD = {"to": "merchants:m1", "amount": "1250", "asset": "EUR/2"}


@pytest.fixture(params=[1, 2, 3])
def server(request: Any) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(request.param) as running:
        yield running


@pytest.fixture
def hook(server: EmbeddedServer) -> Iterator[OrchestrationHttpHook]:
    with OrchestrationHttpHook(base_url=server.url) as one:
        yield one


@pytest.mark.parametrize(
    ("name", "value", "place", "says"),
    [
        ("amount", "12.50", "amount.amount", "smallest unit, such as 1250 for EUR/2 12.50"),
        ("amount", Decimal("12.5"), "amount.amount", "smallest unit, such as 1250 for EUR/2 12.5"),
        ("amount", "0.075", "amount.amount", "smallest unit, such as 1250 for EUR/2 12.50"),
        ("amount", True, "amount.amount", "'true', which is no whole number"),
        ("amount", " 5", "amount.amount", "' 5', which is no whole number"),
        ("amount", "", "amount.amount", "'', which is no whole number"),
        ("amount", "abc", "amount.amount", "is no whole number"),
        ("amount", -5, "amount.amount", "'-5', which is no whole number from 0"),
        ("asset", "eur", "amount.asset", "'eur', which is the name of no asset"),
        ("asset", "", "amount.asset", "is the name of no asset"),
        ("to", "", "destination.account.id", "is the name of no account"),
    ],
)
def test_a_value_that_no_server_takes_is_refused_before_anything_is_submitted(
    server: EmbeddedServer, hook: OrchestrationHttpHook, name: str, value: Any, place: str, says: str
) -> None:
    for gate in (True, False):
        workflow = hook.ensure_workflow({"name": "pay", "stages": [PAY]}, gate=gate).workflow
        given = {**GOOD, name: value}
        for start in (
            lambda workflow=workflow, given=given: hook.start(workflow.id, given),
            lambda workflow=workflow, given=given: hook.run_once(
                workflow.id, given, run_key="k", store=MemoryRunStore(), first_attempt=True
            ),
        ):
            with pytest.raises(ValidationError) as caught:
                start()
            assert caught.value.path == f"variables.{name}"
            for text in (f"variables.{name}: with it stages[0].send.{place} of workflow {workflow.id}", says):
                assert text in str(caught.value)
    assert "run_workflow" not in server.record().requests


@pytest.mark.parametrize("amount", [1250, "1250", Decimal(1250), Decimal("1.25E+3"), "01250", "+1250"])
def test_whatever_the_server_takes_is_paid(server: EmbeddedServer, hook: OrchestrationHttpHook, amount: Any) -> None:
    result = hook.run_once(
        {"name": "pay", "stages": [PAY]}, {**GOOD, "amount": amount}, run_key="k", store=MemoryRunStore()
    )
    assert result.instance.state == "succeeded"
    assert server.paid("merchants:m1", 1250, "EUR/2", once=True)


def test_only_the_value_in_its_place_counts(server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    """Text around a placeholder is part of what is read; another field, or a string that nothing fills in, is not."""
    pay = json.loads(json.dumps(PAY).replace("${amount}", "${euros}00").replace("${asset}", "EUR/2"))
    pay["send"]["metadata"] = {"note": "${note}"}
    workflow = hook.ensure_workflow({"name": "pay", "stages": [pay]}, gate=True).workflow
    with pytest.raises(ValidationError, match=r"variables\.euros: with it .* reads '12\.5000', which"):
        hook.start(workflow.id, {"to": "a", "euros": "12.50", "note": "12.50"})
    assert hook.start(workflow.id, {"to": "a", "euros": "12", "note": "12.50"}).id
    assert hook.start(workflow.id, {"note": "12.50", "euros": 12}, allow_unbound=True).id


@pytest.mark.parametrize(("amount", "asset"), [("12.50", "EUR/2"), (Decimal("12.50"), "EUR/2"), (12.5, "EUR/2")])
def test_a_literal_gets_the_same_remedy(amount: Any, asset: str) -> None:
    stage = {"send": {**PAY["send"], "amount": {"amount": amount, "asset": asset}}}
    with pytest.raises(ValidationError, match=r"smallest unit, such as 1250 for EUR/2 12\.50") as caught:
        validated_definition({"stages": [stage]})
    assert caught.value.path == "stages[0].send.amount.amount"


def test_a_float_gets_it_too(server: EmbeddedServer, hook: OrchestrationHttpHook) -> None:
    with pytest.raises(ValidationError, match=r"variables\.amount: .* smallest unit, such as 1250 for EUR/2 12\.50"):
        hook.start("w", {"amount": 12.5})


# ---- never more than the server ------------------------------------------------------------------------

TEXTS = st.text(st.sampled_from("0123456789+-._ eE\u0663x"), max_size=8)


@given(TEXTS, st.sampled_from([1, 2, 3]))
def test_an_amount_is_refused_where_the_server_would_refuse_it(text: str, generation: int) -> None:
    try:
        read = resolve("send", PAY["send"], {**GOOD, "amount": text}, generation)["amount"]["amount"]
    except DefinitionError:
        read = None
    assert bool(amount_fault(text, "EUR/2")) == (read is None or read < 0)


@given(st.from_regex(r"[A-Z][A-Z0-9]{0,16}(_[A-Z]{1,16})?(/[0-9]{1,6})?", fullmatch=True))
def test_no_asset_of_a_ledger_is_refused(asset: str) -> None:
    assert Ledger.is_asset(asset)
    assert asset_fault(asset) == ""


@given(st.text(max_size=5))
def test_an_account_is_refused_where_the_stage_would_miss_it(text: str) -> None:
    for generation in (1, 2, 3):
        stage = resolve("send", PAY["send"], {**GOOD, "to": text}, generation)
        assert bool(account_fault(text)) == bool(requirements("send", stage, generation))


def test_what_is_read_is_not_guessed() -> None:
    assert filled("${a}:${b}", {"a": "x", "b": "y"}) == ("x:y", ("a", "b"))
    assert filled("plain", {}) == ("plain", ())
    for odd in ("${a}", "${b}${a}", "${b}}", "${b}${", "${${b}}"):
        assert filled(odd, {"b": "y"})[0] is None

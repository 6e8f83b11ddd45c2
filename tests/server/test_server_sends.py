"""Every pair of source and destination of a `send`, on each generation that has it: what moves, what fails and how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import World

    MakeWorld = Callable[..., World]

ALL = (1, 2, 3)
LATER = (2, 3)
DATA = {
    "accounts": [
        {
            "id": "users:1",
            "balances": {"EUR/2": 1000},
            "metadata": {"stripeConnectID": "acct_1", "formanceAccountID": "account_1", "none": ""},
        }
    ],
    "wallets": [
        {
            "id": "a-1",
            "name": "ann",
            "balances": {"main": {"EUR/2": 1000}, "coupons": {"EUR/2": 200}},
            "metadata": {"stripeConnectID": "acct_2", "formanceAccountID": "account_2"},
        },
        {"id": "b-1", "name": "bob", "balances": {"coupons": {}}},
        {"id": "d-1", "ledger": "default", "name": "twin", "balances": {"main": {"EUR/2": 1000}}},
        {"id": "d-2", "ledger": "default", "name": "twin"},
    ],
    "payments": [{"id": "pay-1", "amount": 1000, "asset": "EUR/2"}],
    "connectors": [{"provider": "stripe"}, {"provider": "wise", "id": "wise-eu"}],
}
W, D, INNER = "wallets-002", "default", "orchestration-000-internal"
USER, ANN, BOB, PAY = (
    {"account": {"id": "users:1"}},
    {"wallet": {"id": "a-1"}},
    {"wallet": {"id": "b-1"}},
    "payment:pay_1",
)
SHOP = {"account": {"id": "shop"}}
OUT = {"payment": {"psp": "stripe"}}
IN = {"payment": {"id": "pay-1"}}
Movement = tuple[str, str, str]


class Pair(NamedTuple):
    """A pair: what it moves, through which activities, and what it says for want of funds."""

    source: dict[str, Any]
    destination: dict[str, Any]
    moves: list[Movement]
    activities: list[str]
    failing: str = "account had insufficient funds"
    generations: tuple[int, ...] = ALL
    payout: bool = False


T, G, DEBIT, CREDIT = "CreateTransaction", "GetWallet", "DebitWallet", "CreditWallet"
NO_FUND, HIDDEN = "insufficient fund", "internal server error"
SAVED = (INNER, "world", PAY)
LEDGER_2 = {"account": {"id": "shop", "ledger": "second"}}
LEDGER_W = {"account": {"id": "shop", "ledger": W}}
PAIRS = {
    "account to account": Pair(USER, SHOP, [(D, "users:1", "shop")], [T]),
    "account to account of another ledger": Pair(
        USER, LEDGER_2, [(D, "users:1", "world"), ("second", "world", "shop")], [T, T]
    ),
    "account to wallet of its ledger": Pair(
        USER, {"wallet": {"id": "d-1"}}, [(D, "users:1", "wallets:d1:main")], [G, CREDIT], HIDDEN
    ),
    "account to wallet": Pair(USER, ANN, [(D, "users:1", "world"), (W, "world", "wallets:a1:main")], [G, T, CREDIT]),
    "account to a balance of a wallet": Pair(
        USER,
        {"wallet": {"id": "b-1", "balance": "coupons"}},
        [(D, "users:1", "world"), (W, "world", "wallets:b1:coupons")],
        [G, T, CREDIT],
    ),
    "account to payment, first": Pair(
        USER, OUT, [(D, "users:1", "world")], ["GetAccount", "StripeTransfer", T], generations=(1,), payout=True
    ),
    "account to payment": Pair(
        USER,
        OUT,
        [(D, "users:1", "world")],
        ["GetAccount", T, "CreateTransferInitiation"],
        generations=LATER,
        payout=True,
    ),
    "wallet to account of its ledger": Pair(ANN, LEDGER_W, [(W, "wallets:a1:main", "shop")], [G, DEBIT], NO_FUND),
    "wallet to account": Pair(
        ANN, SHOP, [(W, "wallets:a1:main", "world"), (D, "world", "shop")], [G, DEBIT, T], NO_FUND
    ),
    "a balance of a wallet to account": Pair(
        {"wallet": {"id": "a-1", "balance": "coupons"}},
        SHOP,
        [(W, "wallets:a1:coupons", "world"), (D, "world", "shop")],
        [G, DEBIT, T],
        NO_FUND,
    ),
    "wallet to wallet": Pair(ANN, BOB, [(W, "wallets:a1:main", "wallets:b1:main")], [G, G, CREDIT], HIDDEN),
    "wallet to wallet of another ledger": Pair(
        ANN,
        {"wallet": {"id": "d-1"}},
        [(W, "wallets:a1:main", "world"), (D, "world", "wallets:d1:main")],
        [G, G, DEBIT, CREDIT],
        NO_FUND,
    ),
    "wallet by name": Pair(
        {"wallet": {"name": "ann"}}, LEDGER_W, [(W, "wallets:a1:main", "shop")], ["ListWallets", DEBIT], NO_FUND, LATER
    ),
    "wallet to payment, first": Pair(
        ANN, OUT, [(W, "wallets:a1:main", "world")], [G, "StripeTransfer", DEBIT], NO_FUND, (1,), True
    ),
    "wallet to payment": Pair(
        ANN, OUT, [(W, "wallets:a1:main", "world")], [G, DEBIT, "CreateTransferInitiation"], NO_FUND, LATER, True
    ),
    "payment to account": Pair(IN, SHOP, [SAVED, (INNER, PAY, "world"), (D, "world", "shop")], ["GetPayment", T, T, T]),
    "payment to account of its ledger": Pair(
        IN, {"account": {"id": "shop", "ledger": INNER}}, [SAVED, (INNER, PAY, "shop")], ["GetPayment", T, T]
    ),
    "payment to wallet": Pair(
        IN, ANN, [SAVED, (INNER, PAY, "world"), (W, "world", "wallets:a1:main")], ["GetPayment", T, G, T, CREDIT]
    ),
    "payment held in the user's own ledger": Pair(
        {"payment": {"id": "pay-1", "ledger": D, "holdingAccount": "held:1"}},
        SHOP,
        [(D, "world", "held:1"), (D, "held:1", "shop")],
        ["GetPayment", T, T],
        generations=LATER,
    ),
    "account through an account": Pair(
        {"account": {"id": "users:1", "throughAccount": "bridge"}},
        {"account": {"id": "shop", "ledger": "second", "throughAccount": "bridge", "allowOverdraft": True}},
        [(D, "users:1", "bridge"), ("second", "bridge", "shop")],
        [T, T],
        generations=LATER,
    ),
}


CASES = [
    pytest.param(pair, generation, id=f"{name}-{generation}")
    for name, pair in PAIRS.items()
    for generation in pair.generations
]


def stage(source: Any, destination: Any, amount: Any = "100", asset: str = "EUR/2", **more: Any) -> dict[str, Any]:
    given = {} if amount is None else {"amount": {"amount": amount, "asset": asset}}
    return {"send": {"source": source, "destination": destination, **given, **more}}


def moved(w: World) -> list[tuple[str, str, str, int]]:
    """What moved: ledger, source, destination, amount."""
    rows = [(entry["ledger"], entry["posting"]) for entry in w.core.record().money]
    return [(ledger, posting["source"], posting["destination"], posting["amount"]) for ledger, posting in rows]


def ended(w: World, instance_id: str) -> Any:
    """How a run ended: None while it runs, an empty text if well."""
    shown = w.instance(instance_id)
    return shown.get("error") or "" if shown["terminated"] else None


@pytest.mark.parametrize(("pair", "generation"), CASES)
class TestEachPair:
    def test_moves_the_money(self, world: MakeWorld, pair: Pair, generation: int) -> None:
        w = world(generation, data=DATA)
        i = w.start(stage(pair.source, pair.destination))
        assert ended(w, i) == ""
        saved = [(*pair.moves[0], 1000)] if "payment" in pair.source else []
        assert moved(w) == saved + [(*move, 100) for move in pair.moves[len(saved) :]]
        assert [a["name"] for a in w.history(i, 0)] == pair.activities
        payouts = [entry["payout"] for entry in w.core.record().payouts]
        assert [(p["provider"], p["amount"], p["asset"]) for p in payouts] == [("stripe", 100, "EUR/2")] * pair.payout
        for accounts in w.core.engine.ledger.balances.values():
            assert sum(assets.get("EUR/2", 0) for assets in accounts.values()) == 0

    def test_is_tried_for_ever_without_funds(self, world: MakeWorld, pair: Pair, generation: int) -> None:
        w = world(generation, data=DATA)
        i = w.start(stage(pair.source, pair.destination, "5000"), settle=3600)
        assert ended(w, i) is None
        *done, failing = w.history(i, 0)
        assert all(a["terminated"] for a in done)
        assert failing["lastFailure"] == pair.failing
        assert failing["attempt"] > 30
        assert failing["terminated"] is False
        assert moved(w) == [(*pair.moves[0], 1000)] * ("payment" in pair.source)
        # Generation 1 has paid out by then, and goes on trying to debit.
        assert len(w.core.record().payouts) == (pair.payout and generation == 1)

    def test_pays_as_soon_as_there_are_funds(self, world: MakeWorld, pair: Pair, generation: int) -> None:
        w = world(generation, data=DATA)
        i = w.start(stage(pair.source, pair.destination, "5000"))
        assert ended(w, i) is None
        ledger, source, _ = pair.moves[1 if "payment" in pair.source else 0]
        w.core.seed_data({"accounts": [{"id": source, "ledger": ledger, "balances": {"EUR/2": "10000"}}]})
        w.clock.sleep(120)
        assert ended(w, i) == ""
        assert [amount for *_, amount in moved(w)][-1] == 5000

    @pytest.mark.parametrize(("amount", "asset"), [("-1", "EUR/2"), ("1", "euro"), ("${none}", "EUR/2")])
    def test_fails_for_a_bad_amount(
        self, world: MakeWorld, pair: Pair, generation: int, amount: str, asset: str
    ) -> None:
        w = world(generation, data=DATA)
        i = w.start(stage(pair.source, pair.destination, amount, asset), settle=60)
        assert ended(w, i)
        assert moved(w) == [(*pair.moves[0], 1000)] * ("payment" in pair.source)
        if generation > 1:
            assert w.core.record().payouts == []

    def test_needs_what_it_names(self, world: MakeWorld, pair: Pair, generation: int) -> None:
        """Nothing is there: what is read is asked for again and again, and nothing moves."""
        w = world(generation)
        i = w.start(stage(pair.source, pair.destination), settle=60)
        if "account" in pair.source and "account" in pair.destination:
            assert w.history(i, 0)[-1]["lastFailure"] == "account had insufficient funds"
        elif "GetAccount" in pair.activities:
            assert "expected 'formanceAccountID' metadata" in ended(w, i) or "expected 'stripeConnectID'" in ended(w, i)
        elif "ListWallets" in pair.activities:
            assert ended(w, i) == "wallet not found"
        else:
            missing = "payment not found" if "payment" in pair.source else "wallet not found"
            (only,) = w.history(i, 0)
            assert (only["lastFailure"], only["terminated"]) == (missing, False)
            assert only["attempt"] > 4
        assert moved(w) == []


@pytest.mark.parametrize("generation", ALL)
class TestErrors:
    def test_a_payment_to_a_payment(self, world: MakeWorld, generation: int) -> None:
        w = world(generation, data=DATA)
        i = w.start(stage(IN, OUT))
        assert ended(w, i) == "send from payment to payment is not supported"
        assert w.history(i, 0) == []

    @pytest.mark.parametrize(
        ("source", "destination"), [(USER, SHOP), (USER, ANN), (ANN, SHOP), (ANN, BOB), (USER, OUT)]
    )
    def test_no_amount(self, world: MakeWorld, generation: int, source: Any, destination: Any) -> None:
        w = world(generation, data=DATA)
        assert ended(w, w.start(stage(source, destination, None))) == "amount must be specified"
        assert moved(w) == []

    @pytest.mark.parametrize("destination", [SHOP, ANN])
    def test_a_payment_without_an_amount_goes_whole(self, world: MakeWorld, generation: int, destination: Any) -> None:
        w = world(generation, data=DATA)
        assert ended(w, w.start(stage(IN, destination, None))) == ""
        assert [amount for *_, amount in moved(w)] == [1000, 1000, 1000]

    def test_a_payment_is_saved_once(self, world: MakeWorld, generation: int) -> None:
        """The second run finds the payment saved, and can spend what the first has left."""
        w = world(generation, data=DATA)
        first = w.start(stage(IN, SHOP, "600"))
        second = w.start(stage(IN, SHOP, "300"))
        third = w.start(stage(IN, SHOP, "200"))
        assert [ended(w, i) for i in (first, second, third)] == ["", "", None]
        assert [move for move in moved(w) if move[1:3] == ("world", PAY)] == [(INNER, "world", PAY, 1000)]
        saved = w.history(second, 0)[1]
        assert (saved["terminated"], saved["error"]) == (True, "reference already used")
        assert w.history(third, 0)[-1]["lastFailure"] == "account had insufficient funds"

    def test_a_balance_that_is_not_there(self, world: MakeWorld, generation: int) -> None:
        w = world(generation, data=DATA)
        into = w.start(stage(USER, {"wallet": {"id": "d-1", "balance": "savings"}}))
        out = w.start(stage({"wallet": {"id": "a-1", "balance": "savings"}}, SHOP), settle=30)
        assert ended(w, into) == "balance not exists"
        assert ended(w, out) is None
        assert w.history(out, 0)[-1]["lastFailure"] == "internal server error"
        assert moved(w) == []

    def test_within_a_ledger_a_wallet_pays_from_main_whatever_balance_is_named(
        self, world: MakeWorld, generation: int
    ) -> None:
        w = world(generation, data=DATA)
        i = w.start(stage({"wallet": {"id": "a-1", "balance": "coupons"}}, BOB))
        assert ended(w, i) == ""
        assert w.core.wallet("a-1") == {"coupons": {"EUR/2": 200}, "main": {"EUR/2": 900}}
        (credit,) = w.history(i, 0)[2:]
        (source,) = credit["input"]["CreditWallet"]["data"]["sources"]
        assert source == {"balance": "main", "identifier": "a-1", "type": "WALLET"}

    def test_a_payee_that_is_not_known(self, world: MakeWorld, generation: int) -> None:
        w = world(generation, data=DATA)
        for key, error in (("other", "expected 'other' metadata containing"), ("none", "ID empty")):
            assert error in ended(w, w.start(stage(USER, {"payment": {"psp": "stripe", "metadata": key}})))
        assert moved(w) == w.core.record().payouts == []

    @pytest.mark.parametrize("part", ["wallets", "payments", "ledger"])
    def test_a_service_that_stalls(self, world: MakeWorld, generation: int, part: str) -> None:
        """What had reached it takes effect when it is back: twice without an idempotency key."""
        w = world(generation, data=DATA)
        w.core.world(f"{part} stopped")
        source, destination = {"wallets": (ANN, SHOP), "payments": (USER, OUT), "ledger": (USER, SHOP)}[part]
        i = w.start(stage(source, destination), settle=14)
        assert ended(w, i) is None
        w.core.world(f"{part} started")
        w.clock.sleep(30)
        assert ended(w, i) == ""
        if part == "payments":
            assert len(w.core.record().payouts) == (2 if generation == 1 else 1)
        elif part == "ledger":
            assert [amount for *_, amount in moved(w)] == ([100, 100] if generation == 1 else [100])


@pytest.mark.parametrize("generation", LATER)
class TestLaterGenerations:
    @pytest.mark.parametrize(
        ("payment", "error"),
        [
            ({"psp": "modulr"}, 'no connector installed for provider "modulr"'),
            ({"psp": ""}, "either connectorID or provider must be specified"),
            ({"psp": "stripe", "connectorId": "nope"}, "connector not found: nope"),
        ],
    )
    def test_a_provider_that_is_not_installed_is_heard_of_after_the_debit(
        self, world: MakeWorld, generation: int, payment: Any, error: str
    ) -> None:
        w = world(generation, data=DATA)
        i = w.start(stage(USER, {"payment": payment}))
        assert ended(w, i) == error
        assert moved(w) == [(D, "users:1", "world", 100)]
        assert w.core.record().payouts == []

    def test_two_connectors_of_a_provider(self, world: MakeWorld, generation: int) -> None:
        w = world(generation, data={**DATA, "connectors": [{"provider": "wise"}, {"provider": "WISE", "id": "w2"}]})
        text = '2 connectors installed for provider "wise", specify connectorID explicitly'
        assert ended(w, w.start(stage(USER, {"payment": {"psp": "wise"}}))) == text
        assert ended(w, w.start(stage(USER, {"payment": {"psp": "wise", "connectorId": "w2"}}))) == ""
        assert [entry["payout"]["connector"] for entry in w.core.record().payouts] == ["w2"]

    def test_a_payout_of_any_provider(self, world: MakeWorld, generation: int) -> None:
        w = world(generation, data=DATA)
        payment = {"psp": "wise", "type": "payout", "sourceAccount": "${from}", "waitingValidation": True}
        through = {"account": {"id": "users:1", "throughAccount": "payouts:pending", "allowOverdraft": True}}
        i = w.start(stage(through, {"payment": payment}, "5000", metadata={"order": "7"}), **{"from": "acc"})
        assert ended(w, i) == ""
        assert moved(w) == [(D, "users:1", "payouts:pending", 5000)]
        (entry,) = w.core.record().payouts
        assert entry["payout"] == {
            "provider": "wise",
            "connector": "wise-eu",
            "type": "PAYOUT",
            "source": "acc",
            "destination": "account_1",
            "amount": 5000,
            "asset": "EUR/2",
            "reference": f"{i}-0-2",
            "status": "WAITING_FOR_VALIDATION",
        }
        _, transaction, payout = w.history(i, 0)
        assert "allowing unbounded overdraft" in transaction["input"]["CreateTransaction"]["Data"]["script"]["plain"]
        assert payout["input"]["CreateTransferInitiation"] == {
            "amount": 5000,
            "asset": "EUR/2",
            "provider": "wise",
            "type": "payout",
            "source": "acc",
            "destination": "account_1",
            "metadata": {"order": "7"},
            "waitingValidation": True,
        }

    def test_a_type_that_there_is_not_is_tried_for_ever(self, world: MakeWorld, generation: int) -> None:
        w = world(generation, data=DATA)
        i = w.start(stage(USER, {"payment": {"psp": "stripe", "type": "REFUND"}}), settle=60)
        assert ended(w, i) is None
        assert w.history(i, 0)[-1]["lastFailure"] == "invalid transfer type: REFUND (must be TRANSFER or PAYOUT)"
        assert moved(w) == [(D, "users:1", "world", 100)]

    def test_overdraft_counts_between_ledgers_only(self, world: MakeWorld, generation: int) -> None:
        w = world(generation, data=DATA)
        poor = {"account": {"id": "poor", "allowOverdraft": True}}
        within, between = w.start(stage(poor, SHOP)), w.start(stage(poor, LEDGER_2))
        into_wallet = w.start(stage(poor, {"wallet": {"id": "d-1"}}))
        assert [ended(w, i) for i in (within, between, into_wallet)] == [None, "", None]
        assert w.core.balance("poor", "EUR/2") == -100

    def test_an_account_on_the_way_has_a_floor_unless_overdraft_is_allowed(
        self, world: MakeWorld, generation: int
    ) -> None:
        w = world(generation, data=DATA)
        to = {"id": "shop", "ledger": "second", "throughAccount": "bridge"}
        refused = w.start(stage(USER, {"account": to}))
        allowed = w.start(stage(USER, {"account": {**to, "allowOverdraft": True}}))
        assert [ended(w, i) for i in (refused, allowed)] == [None, ""]
        assert w.core.balance("bridge", "EUR/2", "second") == -100

    def test_an_account_on_the_way_to_a_wallet_has_a_floor_whatever_is_allowed(
        self, world: MakeWorld, generation: int
    ) -> None:
        """The first half has gone by then."""
        w = world(generation, data=DATA)
        through = {"account": {"id": "users:1", "throughAccount": "bridge", "allowOverdraft": True}}
        i = w.start(stage(through, ANN), settle=60)
        assert ended(w, i) is None
        assert w.history(i, 0)[-1]["lastFailure"] == HIDDEN
        assert moved(w) == [(D, "users:1", "bridge", 100)]
        w.core.seed_data({"accounts": [{"id": "bridge", "ledger": W, "balances": {"EUR/2": 100}}]})
        w.clock.sleep(120)
        assert ended(w, i) == ""
        assert w.core.wallet("a-1")["main"] == {"EUR/2": 1100}

    def test_two_payments_of_one_holding_account_are_one(self, world: MakeWorld, generation: int) -> None:
        more = {"id": "pay-2", "amount": 50, "asset": "EUR/2"}
        w = world(generation, data={**DATA, "payments": [*DATA["payments"], more]})
        held = {"ledger": D, "holdingAccount": "held"}
        first = w.start(stage({"payment": {"id": "pay-1", **held}}, SHOP, "1000"))
        second = w.start(stage({"payment": {"id": "pay-2", **held}}, SHOP, "50"))
        assert [ended(w, i) for i in (first, second)] == ["", None]
        assert w.core.balance("shop", "EUR/2") == 1000

    def test_a_payment_through_an_account(self, world: MakeWorld, generation: int) -> None:
        w = world(generation, data=DATA)
        source = {"id": "pay-1", "ledger": D, "holdingAccount": "held", "throughAccount": "bank"}
        refused = w.start(stage({"payment": source}, SHOP), settle=30)
        assert ended(w, refused) is None
        allowed = w.start(stage({"payment": {**source, "allowOverdraft": True}}, SHOP))
        assert ended(w, allowed) == ""
        assert moved(w) == [(D, "bank", "held", 1000), (D, "held", "shop", 100)]
        w.clock.sleep(60)
        assert ended(w, refused) == "", "the payment is saved by now, and there is enough of it left"

    @pytest.mark.parametrize(
        ("reference", "error"),
        [
            ({"name": "twin"}, "found multiple wallets with the same name"),
            ({"name": "nobody"}, "wallet not found"),
            ({"id": "a-1", "name": "ann"}, "'id or name' tag"),
            ({}, "'id or name' tag"),
            ({"name": "${forgotten}"}, "'id or name' tag"),
        ],
    )
    def test_a_wallet_that_is_not_one(self, world: MakeWorld, generation: int, reference: Any, error: str) -> None:
        w = world(generation, data=DATA)
        assert error in ended(w, w.start(stage({"wallet": reference}, SHOP)))
        assert error in ended(w, w.start(stage(USER, {"wallet": reference})))
        assert moved(w) == []

    def test_metadata_and_timestamp_reach_every_transaction(self, world: MakeWorld, generation: int) -> None:
        w = world(generation, data=DATA)
        more = {"metadata": {"order": "${n}"}, "timestamp": "2024-01-01T00:00:00Z"}
        i = w.start(stage(USER, ANN, **more), n="7")
        _, transaction, credit = w.history(i, 0)
        data = transaction["input"]["CreateTransaction"]["Data"]
        assert data["metadata"] == {"order": "7", "orchestration/move-to-ledger": W}
        assert transaction["output"]["CreateTransaction"]["data"]["timestamp"] == data["timestamp"] == more["timestamp"]
        asked = credit["input"]["CreditWallet"]["data"]
        assert asked["metadata"] == {"order": "7", "orchestration/move-from-ledger": D}
        assert asked["timestamp"] == more["timestamp"]


class TestGeneration1:
    @pytest.mark.parametrize("source", [USER, ANN])
    def test_knows_stripe_alone_and_says_so_at_once(self, world: MakeWorld, source: Any) -> None:
        w = world(1, data=DATA)
        i = w.start(stage(source, {"payment": {"psp": "wise"}}))
        assert ended(w, i) == "only stripe actually supported"
        assert w.history(i, 0) == []

    @pytest.mark.parametrize("source", [USER, ANN])
    def test_pays_out_although_there_are_no_funds(self, world: MakeWorld, source: Any) -> None:
        w = world(1, data=DATA)
        i = w.start(stage(source, OUT, "5000"), settle=600)
        assert ended(w, i) is None
        assert [entry["payout"]["amount"] for entry in w.core.record().payouts] == [5000]
        assert moved(w) == []

    def test_knows_no_field_of_later_ones(self, world: MakeWorld) -> None:
        w = world(1, data=DATA)
        source = {"account": {"id": "users:1", "throughAccount": "bridge", "allowOverdraft": True}}
        i = w.start(stage(source, LEDGER_2, "5000"))
        assert ended(w, i) is None
        assert w.history(i)[0]["input"]["source"] == {"account": {"id": "users:1", "ledger": "default"}}
        missing = "Key: 'Send.Source.Wallet.ID' Error:Field validation for 'ID' failed on the 'required' tag"
        assert ended(w, w.start(stage({"wallet": {"name": "ann"}}, SHOP))) == missing

    def test_a_payout_shows_what_was_asked_for(self, world: MakeWorld) -> None:
        w = world(1, data=DATA)
        i = w.start(stage(ANN, OUT))
        _, payout, debit = w.history(i, 0)
        assert payout["input"]["StripeTransfer"] == {"amount": 100, "asset": "EUR/2", "destination": "acct_2"}
        data = {"amount": {"amount": 100, "asset": "EUR/2"}, "balances": ["main"], "metadata": None}
        assert debit["input"]["DebitWallet"] == {"id": "a-1", "data": data}

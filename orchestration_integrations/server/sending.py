"""What a `send` or `update` stage does: its activities, one after another, by what came of those before.

Each pair of source and destination is a *program*: a generator that yields steps and is sent their outputs. A program
keeps nothing between two steps, just as in the real engine: for the next one it runs again from its start, with
the outputs that are in the history. So a stage can be stored and taken up again at any moment.

What differs by generation, as read off the public source:

- Generation 1 pays out first and debits then, so a payout can have gone although the account has no funds for
  it. Later generations debit first.
- Generation 1 knows `stripe` alone, and says so before anything is done. Later ones ask for a provider's connector.
- `throughAccount`, `allowOverdraft` and `holdingAccount` are of later generations.

And what is the same on all: within one ledger `allowOverdraft` has no effect, and a send from a wallet to a wallet of
the same ledger takes from the balance `main`, whatever balance the source names. A payment is saved under a
reference, which is its holding account: a second payment that is held in the same account is taken to be saved already.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

from . import steps
from .ledger import INTERNAL_LEDGER
from .steps import Step, Terms

Program = Generator[Step, Any, None]
Amount = Mapping[str, Any]


class StageFailed(Exception):
    """The stage ends here, with this text, without an activity having failed."""


def next_step(kind: str, stage: Mapping[str, Any], generation: int, outputs: Sequence[Any]) -> Step | None:
    """The step that follows those whose outputs are given; None: the stage's work is done. StageFailed."""
    program = _update(stage) if kind == "update" else _send(stage, generation)
    try:
        step = next(program)
        for output in outputs:
            step = program.send(output)
    except StopIteration:
        return None
    return step


def _update(stage: Mapping[str, Any]) -> Program:
    account = stage["account"]
    if account is None:
        raise StageFailed("invalid update specification")
    yield steps.add_account_metadata(account)


def _send(stage: Mapping[str, Any], generation: int) -> Program:
    source, destination, amount = stage["source"], stage["destination"], stage["amount"]
    # The wallet's own program on later generations tells no metadata from an empty one; all others don't.
    metadata = stage.get("metadata")
    terms = Terms(generation, metadata or {}, stage.get("timestamp"))
    if not any(source.values()) or not any(destination.values()):
        raise StageFailed("should not happen")
    if source["account"] is not None:
        if amount is None:
            raise StageFailed("amount must be specified")
        yield from _from_account(source["account"], destination, amount, terms)
    elif source["wallet"] is not None:
        if amount is None:
            raise StageFailed("amount must be specified")
        bare = terms if generation == 1 else terms.bearing(metadata)
        yield from _from_wallet(source["wallet"], destination, amount, terms, bare)
    else:
        yield from _from_payment(source["payment"], destination, amount, terms)


# ---- from an account ---------------------------------------------------------------------------------


def _from_account(source: Mapping[str, Any], destination: Mapping[str, Any], amount: Amount, terms: Terms) -> Program:
    if destination["account"] is not None:
        yield from _account_to_account(source, destination["account"], amount, terms)
    elif destination["payment"] is not None:
        yield from _account_to_payment(source, destination["payment"], amount, terms)
    else:
        yield from _account_to_wallet(source, destination["wallet"], amount, terms)


def _out(source: Mapping[str, Any], amount: Amount, terms: Terms) -> Step:
    """From an account out of its ledger."""
    through = source.get("throughAccount") or "world"
    overdraft = bool(source.get("allowOverdraft"))
    return steps.create_transaction(source["ledger"], source["id"], through, amount, terms, overdraft=overdraft)


def _into(destination: Mapping[str, Any], amount: Amount, terms: Terms) -> Step:
    """Into an account, from outside of its ledger."""
    through = destination.get("throughAccount") or "world"
    overdraft = bool(destination.get("allowOverdraft")) and through != "world"
    ledger, account = destination["ledger"], destination["id"]
    return steps.create_transaction(ledger, through, account, amount, terms, overdraft=overdraft)


def _account_to_account(
    source: Mapping[str, Any], destination: Mapping[str, Any], amount: Amount, terms: Terms
) -> Program:
    here, there = source["ledger"], destination["ledger"]
    if here == there:
        yield steps.create_transaction(there, source["id"], destination["id"], amount, terms)
        return
    yield _out(source, amount, terms.with_metadata(move_to_ledger=there))
    yield _into(destination, amount, terms.with_metadata(move_from_ledger=here))


def _account_to_wallet(
    source: Mapping[str, Any], destination: Mapping[str, Any], amount: Amount, terms: Terms
) -> Program:
    wallet = yield from _wallet(destination)
    here, there = source["ledger"], wallet["ledger"]
    if here == there:
        from_account = [steps.account_subject(source["id"])]
        bare = terms.bearing(None) if terms.generation == 1 else terms
        yield steps.credit_wallet(wallet["id"], destination["balance"], amount, bare, from_account)
        return
    yield _out(source, amount, terms.with_metadata(move_to_ledger=there))
    through = [steps.account_subject(source.get("throughAccount") or "world")]
    moved = terms.with_metadata(move_from_ledger=here)
    yield steps.credit_wallet(wallet["id"], destination["balance"], amount, moved, through)


def _account_to_payment(
    source: Mapping[str, Any], destination: Mapping[str, Any], amount: Amount, terms: Terms
) -> Program:
    _need_stripe(destination, terms)
    account = yield steps.get_account(source["ledger"], source["id"])
    target = _payee(account["data"], destination["metadata"], terms)
    yield from _paid_out(_out(source, amount, terms), amount, target, destination, terms)


# ---- from a wallet ----------------------------------------------------------------------------------


def _from_wallet(
    source: Mapping[str, Any], destination: Mapping[str, Any], amount: Amount, terms: Terms, bare: Terms
) -> Program:
    if destination["account"] is not None:
        if bare.generation == 1:
            bare = bare.bearing(None)
        yield from _wallet_to_account(source, destination["account"], amount, bare)
    elif destination["payment"] is not None:
        yield from _wallet_to_payment(source, destination["payment"], amount, terms)
    else:
        yield from _wallet_to_wallet(source, destination["wallet"], amount, terms)


def _wallet(reference: Mapping[str, Any]) -> Generator[Step, Any, dict[str, Any]]:
    """The wallet that a reference means."""
    if reference["id"]:
        found: dict[str, Any] = yield steps.get_wallet(reference["id"])
        wallet: dict[str, Any] = found["data"]
        return wallet
    listed = yield steps.list_wallets(reference["name"])
    rows: list[dict[str, Any]] = listed["cursor"]["data"]
    if not rows:
        raise StageFailed("wallet not found")
    if len(rows) > 1:
        raise StageFailed("found multiple wallets with the same name")
    return rows[0]


def _wallet_to_account(
    source: Mapping[str, Any], destination: Mapping[str, Any], amount: Amount, terms: Terms
) -> Program:
    wallet = yield from _wallet(source)
    here, there = wallet["ledger"], destination["ledger"]
    if here == there:
        to_account = steps.account_subject(destination["id"])
        yield steps.debit_wallet(wallet["id"], source["balance"], amount, terms, to_account)
        return
    yield steps.debit_wallet(wallet["id"], source["balance"], amount, terms.with_metadata(move_to_ledger=there))
    yield _into(destination, amount, terms.with_metadata(move_from_ledger=here))


def _wallet_to_wallet(
    source: Mapping[str, Any], destination: Mapping[str, Any], amount: Amount, terms: Terms
) -> Program:
    from_wallet = yield from _wallet(source)
    to_wallet = yield from _wallet(destination)
    here, there = from_wallet["ledger"], to_wallet["ledger"]
    target = (to_wallet["id"], destination["balance"], amount)
    if here == there:
        yield steps.credit_wallet(*target, terms, [steps.wallet_subject(from_wallet["id"], "main")])
        return
    moving = terms.with_metadata(move_to_ledger=there)
    yield steps.debit_wallet(from_wallet["id"], source["balance"], amount, moving)
    yield steps.credit_wallet(*target, terms.with_metadata(move_from_ledger=here))


def _wallet_to_payment(
    source: Mapping[str, Any], destination: Mapping[str, Any], amount: Amount, terms: Terms
) -> Program:
    _need_stripe(destination, terms)
    wallet = yield from _wallet(source)
    target = _payee(wallet, destination["metadata"], terms)
    bare = terms.bearing(None) if terms.generation == 1 else terms
    debit = steps.debit_wallet(wallet["id"], source["balance"], amount, bare)
    yield from _paid_out(debit, amount, target, destination, terms)


# ---- payouts ------------------------------------------------------------------------------------------


def _need_stripe(destination: Mapping[str, Any], terms: Terms) -> None:
    if terms.generation == 1 and destination["psp"] != "stripe":
        raise StageFailed("only stripe actually supported")


def _payee(owner: Mapping[str, Any], key: str, terms: Terms) -> str:
    """Whom to pay, from the metadata of the account or wallet that pays."""
    value = owner["metadata"].get(key)
    first = terms.generation == 1
    if value is None:
        raise StageFailed(f"expected '{key}' metadata containing {'connected' if first else 'formance'} account ID")
    if not value:
        raise StageFailed("stripe connect ID empty" if first else "formance account ID empty")
    return str(value)


def _paid_out(debit: Step, amount: Amount, target: str, destination: Mapping[str, Any], terms: Terms) -> Program:
    if terms.generation == 1:
        yield steps.stripe_transfer(amount, target)
        yield debit
    else:
        yield debit
        yield steps.create_transfer_initiation(amount, target, destination, terms)


# ---- from a payment ------------------------------------------------------------------------------------


def _from_payment(
    source: Mapping[str, Any], destination: Mapping[str, Any], amount: Amount | None, terms: Terms
) -> Program:
    if destination["account"] is None and destination["wallet"] is None:
        raise StageFailed("send from payment to payment is not supported")
    found = yield steps.get_payment(source["id"])
    ledger = source.get("ledger") or INTERNAL_LEDGER
    holding = source.get("holdingAccount") or f"payment:{source['id'].replace('-', '_')}"
    through = source.get("throughAccount") or "world"
    payment = found["data"]
    initial = {"amount": payment["initialAmount"], "asset": payment["asset"]}
    yield steps.save_payment(
        ledger,
        through,
        holding,
        initial,
        terms,
        reference=holding,
        overdraft=bool(source.get("allowOverdraft")) and through != "world",
    )
    held = {"id": holding, "ledger": ledger}
    rest = initial if amount is None else amount
    if destination["account"] is not None:
        yield from _account_to_account(held, destination["account"], rest, terms)
    else:
        yield from _account_to_wallet(held, destination["wallet"], rest, terms)

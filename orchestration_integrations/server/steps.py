"""The activities of `send` and `update` stages, as plain data: a name, the input that the history shows, the call.

`input` is what the server's history says, with amounts that went through a float; `call` is what is really done. A step
may be stored, and so may be what comes of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from . import golang

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Step = dict[str, Any]


class Terms(NamedTuple):
    """What all movements of one stage have in common.

    `metadata` None: the stage has none, where that is not the same as an empty one.
    """

    generation: int
    metadata: Mapping[str, str] | None
    timestamp: str | None

    def bearing(self, metadata: Mapping[str, str] | None) -> Terms:
        """The same with other metadata."""
        return self._replace(metadata=metadata)

    def with_metadata(self, **more: str) -> Terms:
        """The same with further metadata; `_` in a name stands for `-`."""
        named = {f"orchestration/{key.replace('_', '-')}": value for key, value in more.items()}
        return self._replace(metadata={**(self.metadata or {}), **named})


def monetary(amount: Mapping[str, Any]) -> dict[str, Any]:
    """An amount as the history shows it."""
    value = amount["amount"]
    return {"amount": value if value is None else golang.lossy(value), "asset": amount["asset"]}


def create_transaction(
    ledger: str,
    source: str,
    destination: str,
    amount: Mapping[str, Any],
    terms: Terms,
    *,
    overdraft: bool = False,
    reference: str = "",
) -> Step:
    """One posting. With `overdraft` it is a script, which has no floor under its source."""
    posting = {**amount, "destination": destination, "source": source}
    metadata = dict(terms.metadata or {})
    data: dict[str, Any] = {}
    if overdraft:
        data["script"] = {
            "plain": (
                f"send [{amount['asset']} {amount['amount']}] (\n  source = @{source} allowing unbounded overdraft\n"
                f"  destination = @{destination}\n)"
            )
        }
    else:
        data["postings"] = [{**posting, **monetary(amount)}]
    if metadata or terms.generation == 1:
        data["metadata"] = metadata
    if reference:
        data["reference"] = reference
    if terms.timestamp:
        data["timestamp"] = terms.timestamp
    call = {
        "ledger": ledger,
        "postings": [posting],
        "metadata": metadata,
        "timestamp": terms.timestamp,
        "overdraft": [source] if overdraft else [],
        "reference": reference,
    }
    return {"name": "CreateTransaction", "input": {"Data": data, "Ledger": ledger}, "call": call}


def save_payment(*args: Any, reference: str, **options: Any) -> Step:
    """As `create_transaction`, and the stage goes on if a transaction with this reference was made before."""
    return {**create_transaction(*args, reference=reference, **options), "tolerates": "CONFLICT"}


def _asked(name: str, call: dict[str, Any]) -> Step:
    return {"name": name, "input": call, "call": call}


def get_account(ledger: str, account: str) -> Step:
    """Read an account."""
    return _asked("GetAccount", {"id": account, "ledger": ledger})


def get_wallet(wallet_id: str) -> Step:
    """Read a wallet."""
    return _asked("GetWallet", {"id": wallet_id})


def list_wallets(name: str) -> Step:
    """The wallets of a name."""
    return _asked("ListWallets", {"name": name})


def get_payment(payment_id: str) -> Step:
    """Read a payment."""
    return _asked("GetPayment", {"id": payment_id})


def account_subject(account: str) -> dict[str, str]:
    """An account as the wallets service names it."""
    return {"identifier": account, "type": "ACCOUNT"}


def wallet_subject(wallet_id: str, balance: str) -> dict[str, str]:
    """A wallet's balance as the wallets service names it."""
    return {"balance": balance, "identifier": wallet_id, "type": "WALLET"}


def debit_wallet(
    wallet_id: str, balance: str, amount: Mapping[str, Any], terms: Terms, destination: Mapping[str, str] | None = None
) -> Step:
    """Take from a wallet's balance, for an account of its ledger; None: for `world`."""
    data: dict[str, Any] = {"amount": monetary(amount), "balances": [balance], "metadata": terms.metadata}
    if destination is not None:
        data["destination"] = destination
    return _wallet_step("DebitWallet", wallet_id, data, amount, terms)


def credit_wallet(
    wallet_id: str,
    balance: str,
    amount: Mapping[str, Any],
    terms: Terms,
    sources: Sequence[Mapping[str, str]] | None = None,
) -> Step:
    """Give to a wallet's balance, from accounts or wallets of its ledger; None: from `world`."""
    data = {"amount": monetary(amount), "balance": balance, "metadata": terms.metadata, "sources": sources}
    return _wallet_step("CreditWallet", wallet_id, data, amount, terms)


def _wallet_step(name: str, wallet_id: str, data: dict[str, Any], amount: Mapping[str, Any], terms: Terms) -> Step:
    if terms.timestamp:
        data["timestamp"] = terms.timestamp
    return {
        "name": name,
        "input": {"id": wallet_id, "data": data},
        "call": {**data, "id": wallet_id, "amount": dict(amount)},
    }


def stripe_transfer(amount: Mapping[str, Any], account: str) -> Step:
    """Generation 1: a payout through Stripe."""
    shown = {**monetary(amount), "destination": account}
    return {"name": "StripeTransfer", "input": shown, "call": {**amount, "destination": account, "provider": "stripe"}}


def create_transfer_initiation(
    amount: Mapping[str, Any], account: str, payment: Mapping[str, Any], terms: Terms
) -> Step:
    """Later generations: a transfer or payout through any provider that is installed."""
    shown: dict[str, Any] = {
        **monetary(amount),
        "provider": payment["psp"],
        "destination": account,
        "metadata": dict(terms.metadata or {}),
        "waitingValidation": payment["waitingValidation"],
    }
    given = {"connectorID": payment["connectorId"], "source": payment["sourceAccount"], "type": payment["type"]}
    shown.update({key: value for key, value in given.items() if value})
    return {"name": "CreateTransferInitiation", "input": shown, "call": {**shown, **amount}}


def add_account_metadata(account: Mapping[str, Any]) -> Step:
    """Add to an account's metadata."""
    call = {"ledger": account["ledger"], "account": account["id"], "metadata": account["metadata"] or {}}
    # The documented name of the account is `id`, the one that the server writes is `account`.
    return {"name": "AddAccountMetadata", "input": {**call, "id": account["id"]}, "call": call}

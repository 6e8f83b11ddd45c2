"""What a `send` or `update` stage does: the activities it runs, one after another, and what each call does.

A step is plain data (a name, the input shown in the history, the call), so that it can be stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import golang
from .ledger import Ledger, Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

Step = dict[str, Any]
TO_LEDGER = "orchestration/move-to-ledger"
FROM_LEDGER = "orchestration/move-from-ledger"


class StageFailed(Exception):
    """The stage ends here, with this text, without an activity having failed."""


def _transaction(
    ledger: str,
    source: str,
    destination: str,
    amount: Mapping[str, Any],
    metadata: Mapping[str, str],
    timestamp: str | None,
    overdraft: bool,
    generation: int,
) -> Step:
    posting = {"amount": amount["amount"], "asset": amount["asset"], "destination": destination, "source": source}
    shown = dict(posting)
    if shown["amount"] is not None:
        shown["amount"] = golang.lossy(shown["amount"])
    data: dict[str, Any] = {"postings": [shown]}
    if metadata or generation == 1:
        data["metadata"] = dict(metadata)
    if timestamp:
        data["timestamp"] = timestamp
    return {
        "name": "CreateTransaction",
        "input": {"Data": data, "Ledger": ledger},
        "call": {
            "ledger": ledger,
            "postings": [posting],
            "metadata": dict(metadata),
            "timestamp": timestamp,
            "overdraft": [source] if overdraft else [],
        },
    }


def _wallet(reference: Mapping[str, Any]) -> Step:
    if reference.get("name") and not reference["id"]:
        return {"name": "ListWallets", "input": {"name": reference["name"]}, "call": {}}
    if not reference["id"]:
        raise StageFailed("wallet not found")
    return {"name": "GetWallet", "input": {"id": reference["id"]}, "call": {}}


def plan(kind: str, stage: Mapping[str, Any], generation: int) -> list[Step]:
    """The stage's steps as far as they are known at its launch. StageFailed: there are none."""
    if kind == "update":
        account = stage["account"]
        if account is None:
            raise StageFailed("invalid update specification")
        call = {"ledger": account["ledger"], "account": account["id"], "metadata": account["metadata"] or {}}
        # The documented name of the account is `id`, the one that the server writes is `account`.
        return [{"name": "AddAccountMetadata", "input": {**call, "id": account["id"]}, "call": call}]
    source, destination, amount = stage["source"], stage["destination"], stage["amount"]
    if not (source["account"] or source["wallet"] or source["payment"]) or not any(destination.values()):
        raise StageFailed("should not happen")
    if source["payment"] and not source["account"] and not source["wallet"]:
        if destination["payment"] and not destination["account"] and not destination["wallet"]:
            raise StageFailed("send from payment to payment is not supported")
        payment = {"id": source["payment"]["id"]}
        return [{"name": "GetPayment", "input": payment, "call": payment}]
    if amount is None:
        raise StageFailed("amount must be specified")
    if source["account"] and destination["account"]:
        return _account_to_account(stage, generation)
    if destination["payment"]:
        if destination["payment"]["psp"] != "stripe":
            raise StageFailed("only stripe actually supported")
        if source["account"]:
            account = {"id": source["account"]["id"], "ledger": source["account"]["ledger"]}
            return [{"name": "GetAccount", "input": account, "call": account}]
    if source["account"]:
        return [_wallet(destination["wallet"])]
    return [_wallet(source["wallet"])]


def _account_to_account(stage: Mapping[str, Any], generation: int) -> list[Step]:
    source, destination = stage["source"]["account"], stage["destination"]["account"]
    amount, metadata, timestamp = stage["amount"], stage.get("metadata") or {}, stage.get("timestamp")
    overdraft = bool(source.get("allowOverdraft"))
    here, there = source["ledger"], destination["ledger"]
    if here == there:
        args = (here, source["id"], destination["id"], amount, metadata, timestamp, overdraft, generation)
        return [_transaction(*args)]
    out, back = source.get("throughAccount", "world"), destination.get("throughAccount", "world")
    first = {**metadata, TO_LEDGER: there}
    second = {**metadata, FROM_LEDGER: here}
    return [
        _transaction(here, source["id"], out, amount, first, timestamp, overdraft, generation),
        _transaction(there, back, destination["id"], amount, second, timestamp, True, generation),
    ]


def perform(step: Step, ledger: Ledger, now_ns: int, key: str | None) -> tuple[Any, list[dict[str, Any]]]:
    """Do what the step asks of the outside. Returns its output and the postings that moved money now. Refused."""
    name, call = step["name"], step["call"]
    if name == "CreateTransaction":
        transaction, made = ledger.create_transaction(
            call["ledger"],
            call["postings"],
            call["metadata"],
            now_ns,
            key=key,
            timestamp=call["timestamp"],
            overdraft=frozenset(call["overdraft"]),
        )
        return {"data": transaction}, [{**p, "ledger": call["ledger"]} for p in call["postings"]] if made else []
    if name == "GetAccount":
        return {"data": ledger.account(call["ledger"], call["id"])}, []
    if name == "AddAccountMetadata":
        ledger.add_metadata(call["ledger"], call["account"], call["metadata"])
        return None, []
    if name == "ListWallets":
        return {"cursor": {"data": [], "hasMore": False, "pageSize": 15}}, []
    if name == "GetWallet":
        raise Refused("NOT_FOUND", "wallet not found")
    if name == "GetPayment":
        raise Refused("NOT_FOUND", "payment not found")
    raise Refused("INTERNAL", "no connector is installed")


def follow(step: Step, output: Any, stage: Mapping[str, Any], generation: int) -> list[Step]:
    """Further steps that a finished one brings. StageFailed: it can't go on."""
    if step["name"] == "ListWallets":
        raise StageFailed("wallet not found")
    if step["name"] != "GetAccount":
        return []
    key = stage["destination"]["payment"]["metadata"]
    value = output["data"]["metadata"].get(key)
    owner = "connected account ID" if generation == 1 else "formance account ID"
    if value is None:
        raise StageFailed(f"expected '{key}' metadata containing {owner}")
    if not value:
        raise StageFailed("stripe connect ID empty" if generation == 1 else "formance account ID empty")
    amount = stage["amount"]
    shown = {"amount": golang.lossy(amount["amount"] or 0), "asset": amount["asset"], "destination": value}
    return [{"name": "StripeTransfer", "input": shown, "call": shown}]

"""Money as the page shows it: amounts as texts, sides of a payment, and what moved between which accounts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..api.models import ActivityRun, StageRun, Transaction

_ASSET = re.compile(r"([A-Z0-9_.-]+)/([0-9]{1,2})", re.ASCII)
_WHOLE = re.compile(r"-?[0-9]+", re.ASCII)
DEFAULT_LEDGER = "default"


def amount_text(amount: object, asset: object) -> str:
    """``12.50 EUR`` for 1250 of ``EUR/2``; what is no whole number of a known precision stands as it is."""
    text, name = _plain(amount), _plain(asset)
    match = _ASSET.fullmatch(name)
    if match is None or not _WHOLE.fullmatch(text):
        return f"{text} {name}".strip()
    digits = int(match[2])
    sign, number = ("-", text[1:]) if text.startswith("-") else ("", text)
    number = number.rjust(digits + 1, "0")
    whole = f"{int(number[: len(number) - digits]):,}"
    return f"{sign}{whole}{'.' + number[len(number) - digits :] if digits else ''} {match[1]}"


def _plain(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return ""
    if isinstance(value, float):  # the server has lost digits of it
        return f"about {value:g}"
    return str(value)


def side_text(side: object) -> str:
    """One side of a payment: ``merchants:m1``, ``wallet alice (main)``, ``payment 5``."""
    if not isinstance(side, Mapping):
        return "?"
    for kind in ("account", "wallet", "payment"):
        body = side.get(kind)
        if not isinstance(body, Mapping):
            continue
        name = str(body.get("id") or body.get("name") or "?")
        if kind == "account":
            return name
        balance = body.get("balance")
        return f"{kind} {name}" + (f" ({balance})" if balance and balance != "main" else "")
    return next((str(kind) for kind in side), "?")


def payment_text(send: Mapping[str, Any]) -> str:
    """``12.50 EUR from world to merchants:m1``: what a ``send`` stage pays."""
    amount = send.get("amount")
    paid = amount_text(amount.get("amount"), amount.get("asset")) if isinstance(amount, Mapping) else "?"
    return f"{paid} from {side_text(send.get('source'))} to {side_text(send.get('destination'))}"


def transaction_rows(transactions: Sequence[Transaction], history: Sequence[StageRun]) -> list[dict[str, Any]]:
    """The transactions of a run, each with the movements that it made."""
    return [
        {
            "stage": each.stage,
            "id": each.id,
            "ledger": each.ledger,
            "maybeRepeated": each.maybe_repeated,
            "movements": [_posting(posting) for posting in each.postings]
            or _asked(history[each.stage] if each.stage < len(history) else None),
        }
        for each in transactions
    ]


def _posting(posting: Mapping[str, Any]) -> dict[str, str]:
    return {
        "source": str(posting.get("source", "?")),
        "destination": str(posting.get("destination", "?")),
        "amount": amount_text(posting.get("amount"), posting.get("asset")),
        "raw": f"{_plain(posting.get('amount'))} {_plain(posting.get('asset'))}",
    }


def _asked(run: StageRun | None) -> list[dict[str, str]]:
    """What a stage was asked to pay, for a service that does not tell its postings."""
    amount = run.input.get("amount") if run is not None else None
    if run is None or not isinstance(amount, Mapping):
        return []
    paid = {"amount": amount.get("amount"), "asset": amount.get("asset")}
    sides = {side: side_text(run.input.get(side)) for side in ("source", "destination")}
    return [_posting({**sides, **paid})]


def graph(
    transactions: Sequence[Mapping[str, Any]], under_way: Sequence[tuple[StageRun, ActivityRun]]
) -> dict[str, list[dict[str, Any]]]:
    """Accounts and what moved between them.

    Args:
        transactions: as ``transaction_rows`` gives them.
        under_way: payments that have not ended.

    Returns:
        ``nodes``: account and ledger; ``edges``: from and to (places in ``nodes``), amounts, and ``state``: ``moved``,
        ``repeated`` (perhaps twice) or ``open``.
    """
    nodes: dict[tuple[str, str], int] = {}
    edges: dict[tuple[int, int, str], list[str]] = {}

    def place(account: str, ledger: str) -> int:
        return nodes.setdefault((account, ledger), len(nodes))

    def add(movement: Mapping[str, str], ledger: str, state: str) -> None:
        ends = place(movement["source"], ledger), place(movement["destination"], ledger)
        edges.setdefault((*ends, state), []).append(movement["amount"])

    for transaction in transactions:
        for movement in transaction["movements"]:
            state = "repeated" if transaction["maybeRepeated"] else "moved"
            add(movement, transaction["ledger"] or DEFAULT_LEDGER, state)
    for run, _ in under_way:
        for movement in _asked(run):
            add(movement, _ledger_of(run), "open")
    return {
        "nodes": [{"account": account, "ledger": ledger} for account, ledger in nodes],
        "edges": [
            {"from": start, "to": end, "state": state, "amounts": amounts}
            for (start, end, state), amounts in edges.items()
        ],
    }


def _ledger_of(run: StageRun) -> str:
    for side in ("source", "destination"):
        body = run.input.get(side)
        account = body.get("account") if isinstance(body, Mapping) else None
        ledger = account.get("ledger") if isinstance(account, Mapping) else None
        if isinstance(ledger, str) and ledger:
            return ledger
    return DEFAULT_LEDGER

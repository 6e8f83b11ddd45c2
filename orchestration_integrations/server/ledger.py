"""The double-entry ledger behind a `send`: accounts, floors, refusals, idempotency keys."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import golang

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ADDRESS = re.compile(r"[a-zA-Z0-9_-]+(:[a-zA-Z0-9_-]+)*", re.ASCII)
_NAME = re.compile(r"[0-9a-zA-Z_-]{1,63}", re.ASCII)
_ASSET = re.compile(r"[A-Z][A-Z0-9]{0,16}(_[A-Z]{1,16})?(/\d{1,6})?", re.ASCII)

INTERNAL_LEDGER = "orchestration-000-internal"
"""Where payments are saved that name no ledger."""


class Refused(Exception):
    """The ledger said no. `code` decides whether the engine tries again."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


FINAL_REFUSALS = frozenset({"VALIDATION", "CONFLICT", "NO_SCRIPT", "COMPILATION_FAILED"})


@dataclass(slots=True)
class Ledger:
    """All ledgers of one server. Each posting takes from one account what it gives to another, so all sums are zero.

    `world` has no floor; every other account has one at 0. A ledger need not be created. But once some are named as
    the ones that exist, any other is refused, as the real service refuses one that nobody created: not for good, so
    that the payment is tried again and again.
    """

    balances: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)  # ledger -> account -> asset
    metadata: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)  # ledger -> account -> key
    transactions: dict[str, int] = field(default_factory=dict)  # ledger -> how many
    references: dict[str, int] = field(default_factory=dict)  # "ledger/reference" -> id
    by_key: dict[str, dict[str, Any]] = field(default_factory=dict)  # idempotency key -> the transaction made
    existing: list[str] = field(default_factory=list)  # the ledgers that exist; empty: whatever is named

    def create_transaction(
        self,
        ledger: str,
        postings: Sequence[Mapping[str, Any]],
        metadata: Mapping[str, str],
        now_ns: int,
        *,
        key: str | None = None,
        reference: str = "",
        timestamp: str | None = None,
        overdraft: Sequence[str] = (),
    ) -> tuple[dict[str, Any], bool]:
        """Move money, all postings or none. Returns the transaction and whether it was made now (False: known key)."""
        self._need(ledger)
        if key is not None and key in self.by_key:
            return self.by_key[key], False
        for p in postings:
            if p["amount"] is None:
                raise Refused("VALIDATION", "no amount defined")
            if p["amount"] < 0:
                raise Refused("VALIDATION", "negative amount")
            if not _ADDRESS.fullmatch(p["source"]):
                raise Refused("VALIDATION", "invalid source address")
            if not _ADDRESS.fullmatch(p["destination"]):
                raise Refused("VALIDATION", "invalid destination address")
            if not _ASSET.fullmatch(p["asset"]):
                raise Refused("VALIDATION", "invalid asset")
        if reference and f"{ledger}/{reference}" in self.references:
            raise Refused("CONFLICT", "reference already used")
        accounts = self.balances.setdefault(ledger, {})
        moved: dict[tuple[str, str], int] = {}
        for p in postings:
            source, asset, amount = (p["source"], p["asset"]), p["asset"], p["amount"]
            left = moved.get(source, accounts.get(p["source"], {}).get(asset, 0)) - amount
            if left < 0 and p["source"] != "world" and p["source"] not in overdraft:
                raise Refused("INSUFFICIENT_FUND", "account had insufficient funds")
            moved[source] = left
            target = (p["destination"], asset)
            moved[target] = moved.get(target, accounts.get(p["destination"], {}).get(asset, 0)) + amount
        for (account, asset), balance in moved.items():
            accounts.setdefault(account, {})[asset] = balance
        number = self.transactions.get(ledger, 0)
        self.transactions[ledger] = number + 1
        transaction = {
            "id": number,
            "metadata": dict(metadata),
            "postings": [{**p, "amount": golang.lossy(p["amount"])} for p in postings],
            "reference": reference,
            "reverted": False,
            "timestamp": timestamp or golang.format_instant_cut(now_ns),
        }
        if reference:
            self.references[f"{ledger}/{reference}"] = number
        if key is not None:
            self.by_key[key] = transaction
        return transaction, True

    def account(self, ledger: str, account: str) -> dict[str, Any]:
        """An account as `GetAccount` shows it."""
        self._need(ledger)
        if not self.is_address(account):
            raise Refused("VALIDATION", "invalid account address")
        return {"address": account, "metadata": dict(self.metadata.get(ledger, {}).get(account, {}))}

    def add_metadata(self, ledger: str, account: str, metadata: Mapping[str, str]) -> None:
        """Add to an account's metadata."""
        self._need(ledger)
        if not self.is_address(account):
            raise Refused("VALIDATION", "invalid account address")
        self.metadata.setdefault(ledger, {}).setdefault(account, {}).update(metadata)

    def _need(self, ledger: str) -> None:
        if self.existing and ledger not in self.existing:
            raise Refused("LEDGER_NOT_FOUND", "not found")

    @staticmethod
    def is_name(text: str) -> bool:
        """Whether a ledger can have this name."""
        return _NAME.fullmatch(text) is not None

    @staticmethod
    def is_address(text: str) -> bool:
        """Whether a text is the address of an account."""
        return _ADDRESS.fullmatch(text) is not None

    @staticmethod
    def is_asset(text: str) -> bool:
        """Whether a text is the name of an asset."""
        return _ASSET.fullmatch(text) is not None

    def balance(self, ledger: str, account: str, asset: str) -> int:
        """What an account holds of an asset; 0 for one never heard of."""
        return self.balances.get(ledger, {}).get(account, {}).get(asset, 0)

"""The wallets service behind a `send`: wallets, their balances, and what a debit or a credit asks of the ledger.

A wallet's balance is an account of the wallets' ledger, `wallets:<id>:<balance>`, with the dashes of both taken out.
The service hides most of its reasons: a credit whose source has no funds fails with `internal server error`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .golang import format_instant, lossy
from .ledger import Ledger, Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

MAIN = "main"
WALLETS_LEDGER = "wallets-002"
"""The ledger of wallets that name no other."""
_PAGE = 15


def balance_account(wallet_id: str, balance: str) -> str:
    """The account of a wallet's balance."""
    return f"wallets:{wallet_id}:{balance}".replace("-", "")


@dataclass(slots=True)
class Wallets:
    """All wallets, by id; each a dict with `id`, `name`, `ledger`, `metadata`, `balances` (names), `created_ns`."""

    by_id: dict[str, dict[str, Any]] = field(default_factory=dict)

    def shown(self, wallet: Mapping[str, Any]) -> dict[str, Any]:
        """A wallet as the service shows it."""
        return {
            "createdAt": format_instant(wallet["created_ns"]),
            "id": wallet["id"],
            "ledger": wallet["ledger"],
            "metadata": dict(wallet["metadata"]),
            "name": wallet["name"],
        }

    def get(self, wallet_id: str, ledger: Ledger) -> dict[str, Any]:
        """`GetWallet`'s output. Refused."""
        wallet = self.by_id.get(wallet_id)
        if wallet is None:
            raise Refused("NOT_FOUND", "wallet not found")
        held = ledger.balances.get(wallet["ledger"], {}).get(balance_account(wallet_id, MAIN), {})
        assets = {asset: lossy(amount) for asset, amount in held.items()}
        return {"data": {**self.shown(wallet), "balances": {MAIN: {"assets": assets}}}}

    def named(self, name: str) -> dict[str, Any]:
        """`ListWallets`' output: the first page of those with a name."""
        rows = [wallet for wallet in self.by_id.values() if wallet["name"] == name]
        data = [self.shown(wallet) for wallet in rows[:_PAGE]]
        return {"cursor": {"data": data, "hasMore": len(rows) > _PAGE, "pageSize": _PAGE}}

    def debit(self, call: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """The ledger and the posting of a debit. Refused."""
        wallet = self._for(call)
        (balance,) = call["balances"]
        if balance not in wallet["balances"]:
            raise Refused("INTERNAL_ERROR", "internal server error")
        destination = call.get("destination")
        target = "world" if destination is None else self._subject(destination)
        return wallet["ledger"], {
            **call["amount"],
            "destination": target,
            "source": balance_account(call["id"], balance),
        }

    def credit(self, call: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """The ledger and the posting of a credit. Refused."""
        wallet = self._for(call)
        if call["balance"] not in wallet["balances"]:
            raise Refused("VALIDATION", "balance not exists")
        sources = call["sources"]
        source = self._subject(sources[0]) if sources else "world"
        return wallet["ledger"], {
            **call["amount"],
            "destination": balance_account(call["id"], call["balance"]),
            "source": source,
        }

    def _for(self, call: Mapping[str, Any]) -> dict[str, Any]:
        wallet = self.by_id.get(call["id"])
        if wallet is None:
            raise Refused("NOT_FOUND", "wallet not found")
        amount = call["amount"]["amount"]
        if amount is None or amount < 0:
            raise Refused("VALIDATION", "negative amount provided")
        return wallet

    @staticmethod
    def _subject(subject: Mapping[str, str]) -> str:
        if subject["type"] == "WALLET":
            return balance_account(subject["identifier"], subject["balance"])
        return subject["identifier"]

"""The payments service behind a `send`: payments that came in, connectors, and payouts.

A payout leaves the ledgers, so no balance tells of it: the record does. Later generations give each a reference, and a
repeated one is the same payout; generation 1 gives none, and a repeated one pays again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .golang import format_instant, lossy
from .ledger import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(slots=True)
class Payments:
    """Payments by id, connectors in the order of their installation, and the references of payouts.

    A payment is a dict with `id`, `amount`, `asset`, `provider`, `status`, `type`, `scheme`, `metadata`, `created_ns`;
    a connector one with `id` and `provider`.
    """

    by_id: dict[str, dict[str, Any]] = field(default_factory=dict)
    connectors: list[dict[str, str]] = field(default_factory=list)
    references: dict[str, bool] = field(default_factory=dict)

    def get(self, payment_id: str) -> dict[str, Any]:
        """`GetPayment`'s output. Refused."""
        payment = self.by_id.get(payment_id)
        if payment is None:
            raise Refused("NOT_FOUND", "payment not found")
        shown = {key: payment[key] for key in ("id", "asset", "provider", "status", "type", "scheme", "metadata")}
        amount = lossy(payment["amount"])
        return {
            "data": {
                **shown,
                "amount": amount,
                "initialAmount": amount,
                "adjustments": [],
                "connectorID": self._connector_of(payment["provider"]),
                "createdAt": format_instant(payment["created_ns"]),
                "destinationAccountID": "",
                "raw": {},
                "reference": payment["id"],
                "sourceAccountID": "",
            }
        }

    def _connector_of(self, provider: str) -> str:
        same = (one["id"] for one in self.connectors if one["provider"].lower() == provider.lower())
        return next(same, "")

    def pay_out(self, call: Mapping[str, Any], reference: str | None) -> dict[str, Any] | None:
        """Initiate a payout: what is new of it, for the record; None: it was there already. Refused."""
        kind = str(call.get("type") or "TRANSFER").upper()
        if reference is not None and kind not in ("TRANSFER", "PAYOUT"):
            raise Refused("", f"invalid transfer type: {call['type']} (must be TRANSFER or PAYOUT)")
        connector = self._connector(call, first=reference is None)
        amount = call["amount"]
        if amount is None or amount <= 0:
            raise Refused("VALIDATION", "amount must be positive")
        if reference is not None:
            if reference in self.references:
                return None
            self.references[reference] = True
        waits = bool(call.get("waitingValidation"))
        return {
            "provider": call["provider"],
            "connector": connector,
            "type": kind,
            "source": call.get("source"),
            "destination": call["destination"],
            "amount": amount,
            "asset": call["asset"],
            "reference": reference,
            "status": "WAITING_FOR_VALIDATION" if waits else "PROCESSED",
        }

    def _connector(self, call: Mapping[str, Any], first: bool) -> str:
        asked, provider = call.get("connectorID"), call["provider"]
        if asked:
            if not any(one["id"] == asked for one in self.connectors):
                raise Refused("VALIDATION", f"connector not found: {asked}")
            return str(asked)
        if first:
            found = self._connector_of(provider)
            if not found:
                raise Refused("INTERNAL", "no connector is installed")
            return found
        if not provider:
            raise Refused("VALIDATION", "either connectorID or provider must be specified")
        same = [one["id"] for one in self.connectors if one["provider"].lower() == provider.lower()]
        if not same:
            raise Refused("VALIDATION", f'no connector installed for provider "{provider}"')
        if len(same) > 1:
            text = f'{len(same)} connectors installed for provider "{provider}", specify connectorID explicitly'
            raise Refused("VALIDATION", text)
        return same[0]

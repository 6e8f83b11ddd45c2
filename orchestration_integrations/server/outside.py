"""What stands behind the server, and what a step does to it: ledgers, wallets, payments."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from .ledger import Ledger, Refused
from .payments import Payments
from .wallets import Wallets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .steps import Step

SERVICES = {
    "GetWallet": "wallets",
    "ListWallets": "wallets",
    "DebitWallet": "wallets",
    "CreditWallet": "wallets",
    "GetPayment": "payments",
    "StripeTransfer": "payments",
    "CreateTransferInitiation": "payments",
}
"""Which part a step calls; all others call the ledger. The wallets call the ledger themselves."""


class Effect(NamedTuple):
    """What came of a step.

    Attributes:
        output: its output; None: it has none.
        ledger: the ledger of `postings`.
        postings: what moved, now and not earlier.
        payout: what left for a provider, now and not earlier.
    """

    output: Any = None
    ledger: str = ""
    postings: Sequence[Mapping[str, Any]] = ()
    payout: dict[str, Any] | None = None


@dataclass(slots=True)
class Outside:
    """The services that a server's steps call."""

    ledger: Ledger = field(default_factory=Ledger)
    wallets: Wallets = field(default_factory=Wallets)
    payments: Payments = field(default_factory=Payments)

    def perform(self, step: Step, now_ns: int, key: str | None) -> Effect:
        """Do what a step asks. Refused.

        Args:
            key: the idempotency key; None: there is none, so that a repetition takes effect again.
        """
        name, call = step["name"], step["call"]
        if name == "CreateTransaction":
            transaction, made = self.ledger.create_transaction(
                call["ledger"],
                call["postings"],
                call["metadata"],
                now_ns,
                key=key,
                reference=call["reference"],
                timestamp=call["timestamp"],
                overdraft=call["overdraft"],
            )
            return Effect({"data": transaction}, call["ledger"], call["postings"] if made else ())
        if name == "DebitWallet":
            return self._move(self.wallets.debit, call, now_ns, key, "INSUFFICIENT_FUND", "insufficient fund")
        if name == "CreditWallet":
            return self._move(self.wallets.credit, call, now_ns, key, "INTERNAL_ERROR", "internal server error")
        if name in ("StripeTransfer", "CreateTransferInitiation"):
            return Effect(payout=self.payments.pay_out(call, key))
        return Effect(self._read_or_note(name, call))

    def _read_or_note(self, name: str, call: Mapping[str, Any]) -> Any:
        if name == "GetAccount":
            return {"data": self.ledger.account(call["ledger"], call["id"])}
        if name == "GetWallet":
            return self.wallets.get(call["id"], self.ledger)
        if name == "ListWallets":
            return self.wallets.named(call["name"])
        if name == "GetPayment":
            return self.payments.get(call["id"])
        if name == "AddAccountMetadata":
            return self.ledger.add_metadata(call["ledger"], call["account"], call["metadata"])
        raise ValueError(f"no step {name!r}")

    def _move(
        self,
        ask: Callable[[Mapping[str, Any]], tuple[str, dict[str, Any]]],
        call: Mapping[str, Any],
        now_ns: int,
        key: str | None,
        code: str,
        message: str,
    ) -> Effect:
        """A wallet's movement; `code` and `message` say what the service makes of missing funds."""
        ledger, posting = ask(call)
        metadata = {"wallets/transaction": "true"} | {
            f"wallets/custom_data_{name}": value for name, value in (call["metadata"] or {}).items()
        }
        try:
            _, made = self.ledger.create_transaction(
                ledger, [posting], metadata, now_ns, key=key, timestamp=call.get("timestamp")
            )
        except Refused as refusal:
            if refusal.code == "INSUFFICIENT_FUND":
                raise Refused(code, message) from None
            raise
        return Effect(ledger=ledger, postings=(posting,) if made else ())

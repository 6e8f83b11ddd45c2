"""What is there before the first run: funded accounts, wallets, payments that came in, connectors of providers.

Seed data is checked as a whole before any of it is applied. Amounts are whole numbers, or decimal strings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from .ledger import Refused
from .outside import Outside
from .wallets import MAIN, WALLETS_LEDGER, balance_account

Assets = dict[str, int | str]
_NAME = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_AMOUNT = re.compile(r"[0-9]{1,4000}", re.ASCII)


class _Seed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Refuses a field that it doesn't know: a misspelt one would be missed in silence."""


class SeedAccount(_Seed, frozen=True):
    """An account with what it holds.

    Attributes:
        id: its address, such as `users:1`. Not `world`.
        ledger: its ledger; `default`.
        balances: amounts by asset, such as `{"EUR/2": 1000}`; they come from `world`.
        metadata: its metadata; a payout looks for the payee there.
    """

    id: str
    ledger: str = "default"
    balances: Assets = {}
    metadata: dict[str, str] = {}


class SeedWallet(_Seed, frozen=True):
    """A wallet with what its balances hold.

    Attributes:
        id: letters, digits, `_` and `-`. The real service gives UUIDs.
        name: need not be unique; empty by default.
        ledger: the wallets' ledger; `wallets-002`. The real service has one for all wallets.
        balances: amounts by balance and asset, such as `{"main": {"EUR/2": 1000}}`; `main` is always there.
        metadata: a payout looks for the payee there.
    """

    id: str
    name: str = ""
    ledger: str = WALLETS_LEDGER
    balances: dict[str, Assets] = {}
    metadata: dict[str, str] = {}


class SeedPayment(_Seed, frozen=True):
    """A payment that came in."""

    id: str
    amount: int | str
    asset: str
    provider: str = "stripe"
    status: str = "SUCCEEDED"
    type: str = "PAY-IN"
    scheme: str = "other"
    metadata: dict[str, str] = {}


class SeedConnector(_Seed, frozen=True):
    """A connector: payouts go through one. `id`: made of the provider and a number by default."""

    provider: str
    id: str = ""


class SeedData(_Seed, frozen=True):
    """All of it."""

    accounts: list[SeedAccount] = []
    wallets: list[SeedWallet] = []
    payments: list[SeedPayment] = []
    connectors: list[SeedConnector] = []


def read(data: Mapping[str, Any] | str | Path) -> SeedData:
    """Seed data from a mapping, or from a file in JSON or YAML.

    Raises:
        ValueError: it has another shape; the text names the field.
        OSError: the file can't be read.
    """
    if isinstance(data, (str, Path)):
        where, data = f"seed data in {data}", _parsed(Path(data))
    else:
        where = "seed data"
    try:
        return msgspec.convert(data, SeedData)
    except msgspec.ValidationError as error:
        raise ValueError(f"{where}: {error}") from None


def _parsed(path: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"seed data in {path}: neither JSON nor YAML: {error}") from None


def apply(data: SeedData, outside: Outside, now_ns: int) -> None:
    """Put seed data in place.

    Raises:
        ValueError: an id is taken, or an address, an asset or an amount is none. Nothing was changed.
    """
    funded = list(_checked(data, outside))
    wallets, payments = outside.wallets, outside.payments
    for account in data.accounts:
        if account.metadata:
            outside.ledger.add_metadata(account.ledger, account.id, account.metadata)
    for wallet in data.wallets:
        wallets.by_id[wallet.id] = {
            "id": wallet.id,
            "name": wallet.name,
            "ledger": wallet.ledger,
            "metadata": dict(wallet.metadata),
            "balances": sorted({MAIN, *wallet.balances}),
            "created_ns": now_ns,
        }
    for payment in data.payments:
        row = msgspec.to_builtins(payment)
        payments.by_id[payment.id] = {**row, "amount": int(payment.amount), "created_ns": now_ns}
    for connector in data.connectors:
        given = connector.id or f"{connector.provider.lower()}-{len(payments.connectors) + 1}"
        payments.connectors.append({"id": given, "provider": connector.provider})
    for ledger, account_id, asset, amount in funded:
        posting = {"amount": amount, "asset": asset, "destination": account_id, "source": "world"}
        outside.ledger.create_transaction(ledger, [posting], {}, now_ns)


def _checked(data: SeedData, outside: Outside) -> Iterator[tuple[str, str, str, int]]:
    """Ledger, account, asset and amount of everything that is funded, once all of the data is found right."""
    found = []
    for account in data.accounts:
        where = f"account {account.id!r}"
        if account.id == "world":
            raise ValueError("account 'world' has no floor and can't be funded")
        _address(outside, account.id, where)
        found += [(account.ledger, account.id, *pair) for pair in _amounts(outside, account.balances, where)]
    taken = {balance_account(wallet_id, "") for wallet_id in outside.wallets.by_id}
    for wallet in data.wallets:
        where = f"wallet {wallet.id!r}"
        if not _NAME.fullmatch(wallet.id):
            raise ValueError(f"{where}: an id is made of letters, digits, _ and -")
        if balance_account(wallet.id, "") in taken:
            raise ValueError(f"{where}: there is one already (ids that differ in dashes alone share their accounts)")
        taken.add(balance_account(wallet.id, ""))
        for balance, assets in wallet.balances.items():
            if not _NAME.fullmatch(balance):
                raise ValueError(f"{where}: balance {balance!r} isn't made of letters, digits, _ and -")
            to = balance_account(wallet.id, balance)
            found += [(wallet.ledger, to, *pair) for pair in _amounts(outside, assets, where)]
    _payments(data, outside)
    yield from found


def _payments(data: SeedData, outside: Outside) -> None:
    known = set(outside.payments.by_id)
    for payment in data.payments:
        where = f"payment {payment.id!r}"
        if payment.id in known:
            raise ValueError(f"{where}: there is one already")
        known.add(payment.id)
        list(_amounts(outside, {payment.asset: payment.amount}, where))
    ids = {one["id"] for one in outside.payments.connectors}
    for connector in data.connectors:
        if not connector.provider:
            raise ValueError("connector: its provider is empty")
        if connector.id and connector.id in ids:
            raise ValueError(f"connector {connector.id!r}: there is one already")
        ids.add(connector.id)


def _address(outside: Outside, account: str, where: str) -> None:
    try:
        outside.ledger.account("", account)
    except Refused:
        raise ValueError(f"{where}: an address is made of letters, digits, _ and -, in parts joined by :") from None


def _amounts(outside: Outside, assets: Assets, where: str) -> Iterator[tuple[str, int]]:
    for asset, amount in assets.items():
        if not outside.ledger.is_asset(asset):
            raise ValueError(f"{where}: {asset!r} is no asset; one reads like USD/2")
        if isinstance(amount, bool) or not _AMOUNT.fullmatch(str(amount)):
            raise ValueError(f"{where}: the amount of {asset} must be a whole number from 0, not {amount!r}")
        yield asset, int(amount)

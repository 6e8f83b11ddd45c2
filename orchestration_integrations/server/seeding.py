"""What is there before the first run: funded accounts, wallets, payments that came in, connectors of providers.

Seed data is checked as a whole before any of it is applied. An amount is a whole number, or a text of its plain digits.
A file in YAML is read without YAML's own numbers, which mean other things than they say: there `01250` is 680 and
`12:30` is 750. What stands in the file is what counts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from .ledger import INTERNAL_LEDGER
from .outside import Outside
from .wallets import MAIN, WALLETS_LEDGER, balance_account

Assets = dict[str, int | str]
_NAME = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_AMOUNT = re.compile(r"0|[1-9][0-9]{0,3999}", re.ASCII)


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
    """A connector: payouts go through one.

    Attributes:
        provider: letters, digits, `_` and `-`.
        id: without spaces; made of the provider and a free number by default.
    """

    provider: str
    id: str = ""


class SeedData(_Seed, frozen=True):
    """All of it.

    Attributes:
        ledgers: the ledgers that exist, but those that wallets and payments have of their own. A payment into any other
            is refused, and tried again for ever. Empty (default): whatever ledger is named exists.
    """

    ledgers: list[str] = []
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
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_loader())  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"seed data in {path}: neither JSON nor YAML: {error}") from None


@lru_cache(maxsize=1)
def _loader() -> Any:
    """A loader that leaves numbers and dates as the text that they are."""
    import yaml

    plain = {"int", "float", "timestamp"}

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = {  # noqa: RUF012 (as in the base class)
            first: [(tag, pattern) for tag, pattern in known if tag.rpartition(":")[2] not in plain]
            for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    return Loader


def fingerprint(data: SeedData) -> str:
    """The same for the same data, however its amounts are written."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [plain(inner) for inner in value]
        return str(value) if isinstance(value, int) else value

    written = msgspec.json.encode(plain(msgspec.to_builtins(data)), order="sorted")
    return hashlib.sha256(written).hexdigest()


def apply(data: SeedData, outside: Outside, now_ns: int) -> None:
    """Put seed data in place.

    Raises:
        ValueError: an id is taken, or a name, an address, an asset or an amount is none. Nothing was changed.
    """
    funded = list(_checked(data, outside))
    outside.ledger.existing = _existing(data, outside)
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
    given = {connector.id for connector in data.connectors}
    for connector in data.connectors:
        taken = given | {one["id"] for one in payments.connectors}
        made = connector.id or _free_id(connector.provider.lower(), len(payments.connectors) + 1, taken)
        payments.connectors.append({"id": made, "provider": connector.provider})
    for ledger, account_id, asset, amount in funded:
        posting = {"amount": amount, "asset": asset, "destination": account_id, "source": "world"}
        outside.ledger.create_transaction(ledger, [posting], {}, now_ns)


def _free_id(provider: str, at_least: int, taken: set[str]) -> str:
    number = at_least
    while f"{provider}-{number}" in taken:
        number += 1
    return f"{provider}-{number}"


def _existing(data: SeedData, outside: Outside) -> list[str]:
    """The ledgers that exist with this data; empty: whatever is named."""
    known = [*outside.ledger.existing, *data.ledgers]
    return list(dict.fromkeys([*known, INTERNAL_LEDGER, WALLETS_LEDGER])) if known else []


def _checked(data: SeedData, outside: Outside) -> Iterator[tuple[str, str, str, int]]:
    """Ledger, account, asset and amount of everything that is funded, once all of the data is found right."""
    found = []
    existing = _existing(data, outside)
    for name in data.ledgers:
        _ledger(outside, name, [], "ledgers")
    for account in data.accounts:
        where = f"account {account.id!r}"
        if account.id == "world":
            raise ValueError("account 'world' has no floor and can't be funded")
        if not outside.ledger.is_address(account.id):
            raise ValueError(f"{where}: an address is made of letters, digits, _ and -, in parts joined by :")
        _ledger(outside, account.ledger, existing, where)
        found += [(account.ledger, account.id, *pair) for pair in _amounts(outside, account.balances, where)]
    taken = {balance_account(wallet_id, "") for wallet_id in outside.wallets.by_id}
    for wallet in data.wallets:
        where = f"wallet {wallet.id!r}"
        if not _NAME.fullmatch(wallet.id):
            raise ValueError(f"{where}: an id is made of letters, digits, _ and -")
        if balance_account(wallet.id, "") in taken:
            raise ValueError(f"{where}: there is one already (ids that differ in dashes alone share their accounts)")
        taken.add(balance_account(wallet.id, ""))
        _ledger(outside, wallet.ledger, existing, where)
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
        if not payment.id:
            raise ValueError("payment: its id is empty")
        if payment.id in known:
            raise ValueError(f"{where}: there is one already")
        known.add(payment.id)
        list(_amounts(outside, {payment.asset: payment.amount}, where))
    ids = {one["id"] for one in outside.payments.connectors}
    for connector in data.connectors:
        if not connector.provider:
            raise ValueError("connector: its provider is empty")
        if not _NAME.fullmatch(connector.provider):
            raise ValueError(f"connector: provider {connector.provider!r} isn't made of letters, digits, _ and -")
        if re.search(r"\s", connector.id):
            raise ValueError(f"connector {connector.id!r}: an id has no spaces")
        if connector.id and connector.id in ids:
            raise ValueError(f"connector {connector.id!r}: there is one already")
        ids.add(connector.id)


def _ledger(outside: Outside, name: str, existing: list[str], where: str) -> None:
    if not outside.ledger.is_name(name):
        raise ValueError(f"{where}: ledger {name!r} isn't made of 1 to 63 letters, digits, _ and -")
    if existing and name not in existing:
        raise ValueError(f"{where}: ledger {name!r} is none of those that exist ({', '.join(existing)}); see `ledgers`")


def _amounts(outside: Outside, assets: Assets, where: str) -> Iterator[tuple[str, int]]:
    for asset, amount in assets.items():
        if not outside.ledger.is_asset(asset):
            raise ValueError(f"{where}: {asset!r} is no asset; one reads like USD/2")
        if isinstance(amount, bool) or not _AMOUNT.fullmatch(str(amount)):
            raise ValueError(
                f"{where}: the amount of {asset} must be a whole number from 0, not {amount!r}; write its plain digits,"
                " such as 1250"
            )
        yield asset, int(amount)

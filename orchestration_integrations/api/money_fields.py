"""What an amount, an asset and an account of a stage must read, so that the server can pay.

It is one rule for a text that stands in the definition and for one that variables fill in.

The server looks when the stage runs, and not before. Then the run has failed, perhaps after other payments, and its key
is spent. So what no server takes is refused before a run is submitted, and no more than that: ledgers differ in the
names that they let an account have.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

SMALLEST_UNIT = "an amount is a whole number of the asset's smallest unit"
EXAMPLE = "1250 for EUR/2 12.50"

_WHOLE = re.compile(r"\+?[0-9]+|-0+", re.ASCII)
_ASSET = re.compile(r"[A-Z][A-Z0-9_]*(/[0-9]+)?", re.ASCII)
_DECIMAL = re.compile(r"([0-9]{1,40})\.([0-9]{1,40})", re.ASCII)
_SCALE = re.compile(r"[^/]+/([0-9]{1,2})", re.ASCII)

Fault = Callable[[str, str], str]
"""What is wrong with a text, given the asset of its stage ("": not known); empty where nothing is."""


def amount_fault(text: str, asset: str = "") -> str:
    """What is wrong with the text of an amount, and what to give instead; empty where nothing is.

    Args:
        text: without placeholders.
        asset: which the amount is of; "" where that is not known.
    """
    if _WHOLE.fullmatch(text):
        return ""
    return f"is no whole number from 0: {SMALLEST_UNIT}, such as {_in_units(text, asset) or EXAMPLE}"


def asset_fault(text: str, asset: str = "") -> str:
    """What is wrong with the text of an asset; empty where nothing is."""
    return "" if _ASSET.fullmatch(text) else "is the name of no asset: that is in capital letters, such as EUR/2"


def account_fault(text: str, asset: str = "") -> str:
    """What is wrong with the text of an account; empty where nothing is."""
    return "" if text else "is the name of no account"


def _in_units(text: str, asset: str) -> str:
    """The whole number that is meant by a decimal one; empty where that is not clear."""
    decimal, scale = _DECIMAL.fullmatch(text), _SCALE.fullmatch(asset)
    if decimal is None or scale is None:
        return ""
    fraction = decimal[2].rstrip("0")
    if len(fraction) > int(scale[1]):
        return ""
    return f"{int(decimal[1] + fraction.ljust(int(scale[1]), '0'))} for {asset} {text}"


_PLACES: tuple[tuple[str, Fault], ...] = (
    ("send.amount.amount", amount_fault),
    ("send.amount.asset", asset_fault),
    ("send.source.account.id", account_fault),
    ("send.destination.account.id", account_fault),
    ("update.account.id", account_fault),
)


def money_fields(stage: Mapping[str, Any]) -> Iterator[tuple[str, str, Fault]]:
    """(place below the stage, text, its rule) of each string that says how much of what is paid, from where and where
    to. An asset comes after its amount."""
    for place, fault in _PLACES:
        found: Any = stage
        for name in place.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
        if isinstance(found, str):
            yield place, found, fault

"""Amounts as texts, and which of their digits are known.

The server keeps an amount exactly, but its history and its definitions pass numbers through a float: one of 2^53 or
more has lost digits before anybody here reads it, and nothing in it tells. So such a number is shown as "about", with
the digits that a float holds for sure. A text of digits was never a number, and is exact.
"""

from __future__ import annotations

import re

_ASSET = re.compile(r"([A-Z0-9_.-]+)/([0-9]{1,2})", re.ASCII)
_WHOLE = re.compile(r"-?[0-9]+", re.ASCII)
EXACT_BELOW = 2**53
"""A float holds each whole number below this."""
SURE_DIGITS = 15
ABOUT = "≈ "


def amount_text(amount: object, asset: object) -> str:
    """``12.50 EUR`` for 1250 of ``EUR/2``; ``≈ …`` for a number that has lost digits.

    What is no whole number of a known precision stands as it is.
    """
    about = is_lossy(amount)
    text, name = _digits(amount), _text(asset)
    match = _ASSET.fullmatch(name)
    if match is None or not _WHOLE.fullmatch(text):
        return f"{ABOUT if about else ''}{text} {name}".strip()
    digits = int(match[2])
    sign, number = ("-", text[1:]) if text.startswith("-") else ("", text)
    number = number.rjust(digits + 1, "0")
    whole = f"{int(number[: len(number) - digits]):,}"
    shown = f"{sign}{whole}{'.' + number[len(number) - digits :] if digits else ''} {match[1]}"
    return ABOUT + shown if about else shown


def sent_text(amount: object, asset: object) -> str:
    """An amount as the server sent it: ``1250 EUR/2``."""
    return f"{ABOUT if is_lossy(amount) else ''}{_text(amount)} {_text(asset)}".strip()


def is_lossy(amount: object) -> bool:
    """Whether a value came as a number that no float holds exactly."""
    if isinstance(amount, bool) or not isinstance(amount, int | float):
        return False
    return abs(amount) >= EXACT_BELOW or amount != int(amount)


def _digits(amount: object) -> str:
    """The digits that are known of an amount, noughts for the rest."""
    if isinstance(amount, float) and amount == int(amount):
        amount = int(amount)
    if isinstance(amount, bool) or not isinstance(amount, int) or not is_lossy(amount):
        return _text(amount)
    sign, text = ("-", str(-amount)) if amount < 0 else ("", str(amount))
    lost = max(0, len(text) - SURE_DIGITS)
    return f"{sign}{round(int(text), -lost)}"


def _text(value: object) -> str:
    return "" if isinstance(value, bool) or value is None else str(value)

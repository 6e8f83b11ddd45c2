"""Keys made of parts, so that no two lists of parts give one text."""

from __future__ import annotations

import unicodedata
from urllib.parse import quote

from ..api.errors import ValidationError


def structured_key(*parts: object) -> str:
    """The parts, each percent-encoded, joined by slashes: ``dag/scheduled__2030-01-01T00%3A00%3A00/pay/-1``.

    A part that contains a slash, a tilde or a percent sign is told apart from several parts.
    """
    return "/".join(quote(str(part), safe=" .:+@=,").replace("~", "%7E") for part in parts)


def checked_run_key(key: str) -> str:
    """A run key as a user gave it. One that the package made of parts is not
    checked, and ``start`` takes any text: it compares keys whole.

    ``"order-17 "`` would be another payment than ``"order-17"``, and nobody could see that.

    Raises:
        ValidationError: it is no text, or empty, or has white space around it or a control character in it.
    """
    if not isinstance(key, str) or not key:
        raise ValidationError(f"run_key must be a non-empty string, not {key!r}", path="run_key")
    if not key.strip():
        raise ValidationError("run_key: is empty", path="run_key")
    if key != key.strip():
        raise ValidationError(f"run_key: {key!r} has white space around it; take that away", path="run_key")
    odd = next((char for char in key if unicodedata.category(char) == "Cc"), None)
    if odd is not None:
        raise ValidationError(f"run_key: {key!r} has the control character {odd!r} in it", path="run_key")
    return key

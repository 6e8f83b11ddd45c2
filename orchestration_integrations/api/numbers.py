"""Numbers that users give."""

from __future__ import annotations

from .errors import ValidationError


def at_least_zero(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e10:
        raise ValidationError(f"{name} must be a number of seconds from 0, not {value!r}", path=name)
    return float(value)


def whole_number(value: object, name: str, *, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValidationError(f"{name} must be a whole number from {least}, not {value!r}", path=name)
    return value


def checked_flag(value: object, name: str) -> bool:
    """True or False; nothing else is taken, since a text such as ``"false"`` would count as true.

    Raises:
        ValidationError: it is neither.
    """
    if not isinstance(value, bool):
        raise ValidationError(f"{name} must be True or False, not {value!r}", path=name)
    return value

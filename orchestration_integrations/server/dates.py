"""The `Date` header."""

from __future__ import annotations

from email.utils import formatdate

from .clock import SECOND

_last: tuple[int, str] = (-1, "")


def http_date(now_ns: int) -> str:
    """An instant as HTTP writes it, to the second."""
    global _last
    seconds = now_ns // SECOND
    if _last[0] != seconds:
        _last = (seconds, formatdate(seconds, usegmt=True))
    return _last[1]

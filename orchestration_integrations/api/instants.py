"""RFC 3339 instants and Go durations, as the server writes and reads them.

``datetime.fromisoformat`` of Python 3.10 takes neither ``Z`` nor nine fraction digits.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Any

_RFC3339 = r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9})\d*)?(?:[Zz]|([+-])(\d\d):(\d\d))"
_GO_DURATION = r"[+-]?(?:0|(?:(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+)"
_GO_PART = r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)"
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}

LONGEST = 64
"""Characters: no text of an instant is longer."""
_YEARS_OF_NONE = ("0000-", "0001-")
UNKNOWN_INSTANT = datetime.min.replace(tzinfo=timezone.utc)
"""Stands where the server sent no readable instant; the text as received is in ``raw``."""


def is_no_instant(text: object) -> bool:
    """Whether a text means "none": Go writes an instant that was never set as one of the year 1."""
    return isinstance(text, str) and (not text or text.startswith(_YEARS_OF_NONE))


def parse_instant(text: object) -> datetime | None:
    """The aware datetime of an RFC 3339 text with 0 to 9 fraction digits, cut to microseconds; None if it is none.

    The year 1 is none: see ``is_no_instant``.
    """
    return _parsed(text) if isinstance(text, str) and len(text) <= LONGEST else None


def is_rfc3339(text: str) -> bool:
    """Whether the server takes a text for an instant: Go wants the letters T and Z where people write a space or t."""
    return parse_instant(text) is not None and text == text.upper() and " " not in text


@lru_cache(maxsize=4096)  # whoever waits reads the same again and again
def _parsed(text: str) -> datetime | None:
    match = None if is_no_instant(text) else re.fullmatch(_RFC3339, text, re.ASCII)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, sign, off_h, off_m = match.groups()
    try:
        if sign is None:
            zone = timezone.utc
        else:
            offset = timedelta(hours=int(off_h), minutes=int(off_m))
            zone = timezone(-offset if sign == "-" else offset)
        micro = int(fraction[:6].ljust(6, "0")) if fraction else 0
        whole, leap = (59, 1) if second == "60" else (int(second), 0)
        instant = datetime(int(year), int(month), int(day), int(hour), int(minute), whole, micro, zone)
        return instant + timedelta(seconds=1) if leap else instant
    except (ValueError, OverflowError):
        return None


def format_instant(instant: datetime) -> str:
    """RFC 3339 text of an aware datetime, ``Z`` for UTC."""
    text = instant.isoformat()
    return text[:-6] + "Z" if text.endswith("+00:00") else text


# msgspec knows ``datetime`` itself and none of its subclasses: those of pendulum and pandas, and what stands for it
# while a test freezes the time. Whoever stores an instant gives msgspec these two.


def stored_instant(value: object) -> str:
    """``enc_hook`` of msgspec: the text of a datetime of whatever class.

    Raises:
        NotImplementedError: it is none.
    """
    if not isinstance(value, datetime):
        raise NotImplementedError(f"{type(value).__name__} is no plain value")
    return format_instant(value)


def instant_in_store(kind: type, stored: object) -> Any:
    """``dec_hook`` of msgspec: a datetime from its stored form, where a subclass of it stood for it when a type was
    read.

    Raises:
        NotImplementedError: no datetime is wanted.
        ValueError: the text is no instant.
    """
    if not issubclass(kind, datetime):
        raise NotImplementedError(f"{kind.__name__} is no plain type")
    if isinstance(stored, datetime):
        return stored
    if not isinstance(stored, str):
        raise ValueError(f"not an instant: {stored!r}")
    return kind.fromisoformat(f"{stored[:-1]}+00:00" if stored.endswith("Z") else stored)


def is_go_duration(text: str) -> bool:
    """Whether Go's ``time.ParseDuration`` takes the text: ``1h30m``, ``5s``, ``0``."""
    return re.fullmatch(_GO_DURATION, text, re.ASCII) is not None


def go_duration_seconds(text: str) -> float:
    """Seconds of a Go duration. Raises ValueError if the text is none."""
    if not is_go_duration(text):
        raise ValueError(f"not a duration: {text!r}")
    total = sum(float(number) * _SECONDS[unit] for number, unit in re.findall(_GO_PART, text, re.ASCII))
    return -total if text.startswith("-") else total

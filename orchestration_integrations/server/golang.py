"""What clients see of the language the real server is written in: durations, instants, numbers and JSON errors."""

from __future__ import annotations

import datetime as dt
import json
import re
import sys
from typing import Any
from urllib.parse import unquote_to_bytes

SECOND = 1_000_000_000
_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": SECOND,
    "m": 60 * SECOND,
    "h": 3600 * SECOND,
}
_PART = re.compile(r"(\d*)(?:\.(\d*))?(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_INSTANT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:[.,](\d+))?(Z|[+-]\d\d:\d\d)",
    re.ASCII,
)
_INT64 = 2**63


def parse_duration(text: str) -> int:
    """Nanoseconds of a duration such as `1h2m3.5s`; ValueError for anything else."""
    rest = text[1:] if text[:1] in ("+", "-") else text
    if rest == "0":
        return 0
    if not rest:
        raise ValueError(f"invalid duration {text!r}")
    total, at = 0, 0
    while at < len(rest):
        part = _PART.match(rest, at)
        if part is None or not (part[1] or part[2]) or len(part[0]) > 60:
            raise ValueError(f"invalid duration {text!r}")
        unit = _UNITS[part[3]]
        total += int(part[1] or 0) * unit
        if part[2]:
            total += int(part[2]) * unit // 10 ** len(part[2])
        at = part.end()
    if total >= _INT64:
        raise ValueError(f"invalid duration {text!r}")
    return -total if text[0] == "-" else total


def format_duration(nanoseconds: int) -> str:
    """As the server writes it: `1m0s`, `1.5s`, `10ms`, `0s`."""
    if nanoseconds == 0:
        return "0s"
    sign, left = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if left < SECOND:
        for unit, size in (("ms", 1_000_000), ("µs", 1_000), ("ns", 1)):
            if left >= size:
                return f"{sign}{_decimal(left, size)}{unit}"
    minutes, seconds = divmod(left, 60 * SECOND)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(seconds, SECOND)}s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    if hours:
        text = f"{hours}h{text}"
    return sign + text


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    if not rest:
        return str(whole)
    return f"{whole}." + str(rest).rjust(len(str(unit)) - 1, "0").rstrip("0")


def parse_instant(text: str) -> int:
    """Nanoseconds since 1970 of an RFC 3339 instant; ValueError for anything else."""
    m = _INSTANT.fullmatch(text)
    if m is None:
        raise ValueError(f"invalid instant {text!r}")
    moment = dt.datetime(*(int(x) for x in m.group(1, 2, 3, 4, 5, 6)), tzinfo=dt.timezone.utc)  # type: ignore[misc,arg-type]
    seconds = (moment - dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)) // dt.timedelta(seconds=1)
    if m[8] != "Z":
        hours, minutes = int(m[8][1:3]), int(m[8][4:6])
        if hours > 23 or minutes > 59:
            raise ValueError(f"invalid instant {text!r}")
        seconds -= (hours * 3600 + minutes * 60) * (-1 if m[8][0] == "-" else 1)
    return seconds * SECOND + int((m[7] or "")[:9].ljust(9, "0"))


_last_second: tuple[int, str] = (-1, "")


def format_instant(nanoseconds: int) -> str:
    """RFC 3339 in UTC with as many fraction digits as there are, at most nine."""
    global _last_second
    seconds, rest = divmod(nanoseconds, SECOND)
    known, text = _last_second
    if known != seconds:
        text = (dt.datetime(1970, 1, 1) + dt.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
        _last_second = (seconds, text)
    if rest:
        return f"{text}.{rest:09d}".rstrip("0") + "Z"
    return text + "Z"


def format_instant_cut(nanoseconds: int) -> str:
    """The same, cut to microseconds: what the database keeps of it."""
    return format_instant(nanoseconds - nanoseconds % 1000)


class JsonError(ValueError):
    """A body that doesn't decode; the text is what the server would say."""


_KINDS = {bool: "bool", int: "number", float: "number", str: "string", list: "array", dict: "object"}
_GO_TYPES = {bool: "bool", int: "float64", float: "float64", str: "string", list: "[]interface {}"}


def json_kind(value: Any) -> str:
    """`string`, `number`, …: as an error message about JSON names it."""
    return _KINDS.get(type(value), "null")


def go_type(value: Any) -> str:
    """`float64`, `<nil>`, …: as an error message about a decoded value names it."""
    if isinstance(value, dict):
        return "map[string]interface {}"
    return _GO_TYPES.get(type(value), "<nil>")


def lossy(value: int | float) -> int | float:
    """A number after a trip through a float, as it is written afterwards. One beyond all floats becomes the largest:
    what a real server makes of it is not known, and the payment has been made."""
    try:
        as_float = float(value)
    except OverflowError:
        as_float = sys.float_info.max if value > 0 else -sys.float_info.max
    if as_float == int(as_float) and abs(as_float) < 1e21:
        return int(as_float)
    return as_float


def to_int64(value: int | float) -> int:
    """A float made a 64-bit integer, out of range included."""
    whole = int(value)
    return whole if -_INT64 <= whole < _INT64 else -_INT64


def _number(text: str) -> int | float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise JsonError(f"json: cannot unmarshal number {text[:40]} into Go value of type float64")
    return lossy(value)


def _constant(text: str) -> Any:
    raise JsonError(f"invalid character '{text[0]}' looking for beginning of value")


_decoder = json.JSONDecoder(parse_int=_number, parse_float=_number, parse_constant=_constant)
_LITERALS = {"n": "null", "t": "true", "f": "false"}
_MAX_DEPTH = 500


def decode_json(body: bytes) -> Any:
    """The first JSON value of a body, numbers as floats lose them; what follows it is ignored. JsonError otherwise."""
    text = body.decode("utf-8", "replace").lstrip(" \t\r\n")
    if not text:
        raise JsonError("EOF")
    try:
        value, _ = _decoder.raw_decode(text)
    except json.JSONDecodeError as error:
        raise JsonError(_syntax_error(text, error)) from None
    except RecursionError:
        raise JsonError("exceeded max depth") from None
    return _clean(value, 0)


def _syntax_error(text: str, error: json.JSONDecodeError) -> str:
    rest = text[error.pos :].lstrip(" \t\r\n")
    if not rest or (error.msg.startswith(("Unterminated string", "Invalid \\escape: ")) and '"' not in rest[1:]):
        return "unexpected EOF"
    literal = _LITERALS.get(rest[0])
    if literal is not None:
        for n, wanted in enumerate(literal[1:], 1):
            if n >= len(rest):
                return "unexpected EOF"
            if rest[n] != wanted:
                return f"invalid character {rest[n]!r} in literal {literal} (expecting {wanted!r})"
    return f"invalid character {rest[0]!r} looking for beginning of value"


def _clean(value: Any, depth: int) -> Any:
    """Without lone surrogates, which no UTF-8 body can carry back."""
    if depth > _MAX_DEPTH:
        raise JsonError("exceeded max depth")
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8", "replace")
    if isinstance(value, list):
        return [_clean(x, depth + 1) for x in value]
    if isinstance(value, dict):
        return {_clean(k, depth): _clean(v, depth + 1) for k, v in value.items()}
    return value


_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~$&+,/:;=@")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def routed_path(raw: str) -> str | None:
    """The path as the router sees it: decoded if that loses nothing, else as sent. None: no valid path.

    An escaped slash stays `%2F` that way and never splits an id in two.
    """
    if "%" not in raw:
        return raw
    if _BAD_ESCAPE.search(raw):
        return None
    decoded = unquote_to_bytes(raw)
    again = "".join(chr(c) if c in _PLAIN else f"%{c:02X}" for c in decoded)
    return decoded.decode("utf-8", "replace") if again == raw else raw

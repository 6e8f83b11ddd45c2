"""What the expressions of triggers do with values: operators, functions, and values as text.

Numbers of an event are floats, as they are after JSON has been read on the real server; those written in an expression
may be whole. The texts of errors name types as the real server does.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from . import go_regexps
from .go_regexps import PatternError

LARGEST = 2**63 - 1
"""The largest whole number of an expression."""
_LONGEST_LIST = 10_000
_WHOLE = re.compile(r"[+-]?[0-9]+", re.ASCII)
_DIGITS, _HEX = "[0-9](?:_?[0-9])*", "[0-9a-f](?:_?[0-9a-f])*"
_REAL = re.compile(
    rf"[+-]?(?:(?:{_DIGITS}(?:\.(?:{_DIGITS})?)?|\.{_DIGITS})(?:e[+-]?{_DIGITS})?|inf(?:inity)?|nan)", re.IGNORECASE
)
_HEX_REAL = re.compile(rf"[+-]?0x(?:_?{_HEX}(?:\.(?:{_HEX})?)?|\.{_HEX})p[+-]?{_DIGITS}", re.IGNORECASE)


class ExpressionError(ValueError):
    """An expression that can't be parsed, or can't be evaluated on this event."""


def from_json(value: Any) -> Any:
    """A JSON value with its numbers as floats."""
    if isinstance(value, dict):
        return {str(key): from_json(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [from_json(inner) for inner in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 10**300 else math.inf
    return value


def type_of(value: Any) -> str:
    """The name of a value's type, as errors have it."""
    if isinstance(value, dict):
        return "map[string]interface {}"
    names = {bool: "bool", int: "int", float: "float64", str: "string", list: "[]interface {}"}
    return names.get(type(value), "<nil>")


def as_condition(value: Any) -> bool:
    """A value where a condition is wanted. ExpressionError."""
    if not isinstance(value, bool):
        shown = "nil" if value is None else type_of(value)
        raise ExpressionError(f"interface conversion: interface {{}} is {shown}, not bool")
    return value


def fetch(owner: Any, key: Any) -> Any:
    """A field of a map, nil where it has none; an item of a list, from the end where it is below 0. ExpressionError."""
    if isinstance(owner, dict) and isinstance(key, str):
        return owner.get(key)
    if isinstance(owner, (list, str)) and _is_number(key) and key == int(key):
        at = int(key)
        if not -len(owner) <= at < len(owner):
            raise ExpressionError(f"index out of range: {at} (array length is {len(owner)})")
        return owner[at]
    raise ExpressionError(f"cannot fetch {text_of(key)} from {type_of(owner)}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _refuse(left: Any, sign: str, right: Any) -> ExpressionError:
    return ExpressionError(f"invalid operation: {type_of(left)} {sign} {type_of(right)}")


def negative(value: Any) -> Any:
    """`-value`. ExpressionError."""
    if not _is_number(value):
        raise ExpressionError(f"invalid operation: - {type_of(value)}")
    return _wrapped(-value)


def _wrapped(value: Any) -> Any:
    """A whole number in 64 bits."""
    return (value + LARGEST + 1) % 2**64 - LARGEST - 1 if isinstance(value, int) else value


def _ordered(sign: str, compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def perform(left: Any, right: Any) -> bool:
        both_numbers = _is_number(left) and _is_number(right)
        if not both_numbers and not (isinstance(left, str) and isinstance(right, str)):
            raise _refuse(left, sign, right)
        return compare(left, right)

    return perform


def _calculated(sign: str, calculate: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def perform(left: Any, right: Any) -> Any:
        joined = sign == "+" and isinstance(left, str) and isinstance(right, str)
        if not joined and not (_is_number(left) and _is_number(right)):
            raise _refuse(left, sign, right)
        try:
            return _wrapped(calculate(left, right)) if _is_number(left) else calculate(left, right)
        except OverflowError:
            return math.inf

    return perform


def _quotient(left: Any, right: Any) -> float:
    if right:
        return float(left) / float(right)
    return math.nan if not left else math.copysign(math.inf, left)


def _rest(left: Any, right: Any) -> int:
    if not (isinstance(left, int) and isinstance(right, int)):
        raise _refuse(left, "%", right)
    if right == 0:
        raise ExpressionError("integer divide by zero")
    return int(math.fmod(left, right))


def _power(left: Any, right: Any) -> float:
    try:
        return math.pow(left, right)
    except ValueError:  # the root of a negative number
        return math.nan


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, bool) != isinstance(right, bool):
        return False
    return bool(left == right)


def _is_in(left: Any, right: Any) -> bool:
    if right is None:
        return False
    if isinstance(right, dict):
        return isinstance(left, str) and left in right
    if isinstance(right, list):
        return any(_same(left, item) for item in right)
    raise ExpressionError(f'operator "in" not defined on {type_of(right)}')


def _on_texts(sign: str, test: Callable[[str, str], bool]) -> Callable[[Any, Any], bool]:
    def perform(left: Any, right: Any) -> bool:
        if left is None or right is None:
            return False
        if not (isinstance(left, str) and isinstance(right, str)):
            raise _refuse(left, sign, right)
        return test(left, right)

    return perform


def _matches(text: str, pattern: str) -> bool:
    try:
        return go_regexps.compiled(pattern).search(text) is not None
    except PatternError as error:
        raise ExpressionError(str(error)) from None


def _range(left: Any, right: Any) -> list[int]:
    left, right = _whole(left), _whole(right)
    if right - left >= _LONGEST_LIST:
        raise ExpressionError("memory budget exceeded")
    return list(range(left, right + 1))


BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "==": _same,
    "!=": lambda left, right: not _same(left, right),
    "<": _ordered("<", operator.lt),
    "<=": _ordered("<=", operator.le),
    ">": _ordered(">", operator.gt),
    ">=": _ordered(">=", operator.ge),
    "+": _calculated("+", operator.add),
    "-": _calculated("-", operator.sub),
    "*": _calculated("*", operator.mul),
    "/": _calculated("/", _quotient),
    "%": _calculated("%", _rest),
    "**": _calculated("**", _power),
    "^": _calculated("^", _power),
    "in": _is_in,
    "contains": _on_texts("contains", lambda left, right: right in left),
    "startsWith": _on_texts("startsWith", str.startswith),
    "endsWith": _on_texts("endsWith", str.endswith),
    "matches": _on_texts("matches", _matches),
    "..": _range,
}
"""What each operator does with two values."""


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ExpressionError(f"interface conversion: interface {{}} is {type_of(value)}, not string")
    return value


def _length(value: Any) -> int:
    if not isinstance(value, (str, list, dict)):
        raise ExpressionError(f"invalid argument for len (type {type_of(value)})")
    return len(value)


def _whole(value: Any) -> int:
    """`int(…)`: of a text only digits with a sign; of a fraction what stands before the point."""
    if isinstance(value, str):
        found = int(value) if len(value) < 100 and _WHOLE.fullmatch(value) else None
        if found is None or not -LARGEST - 1 <= found <= LARGEST:
            raise ExpressionError(f"invalid operation: int({value})")
        return found
    if not _is_number(value):
        raise ExpressionError(f"invalid operation: int({type_of(value)})")
    if isinstance(value, float) and not -LARGEST - 1 <= value < LARGEST + 1:
        return -LARGEST - 1  # so does the processor
    return int(value)


def _real(value: Any) -> float:
    """`float(…)`: of a text a number as Go reads it, `1_0`, `0x1p-2`, `inf` and `nan` too."""
    if not isinstance(value, str):
        return _number("float", value)
    try:
        if _HEX_REAL.fullmatch(value):
            return float.fromhex(value.replace("_", ""))
        found = float(value.replace("_", "")) if _REAL.fullmatch(value) else None
    except OverflowError:
        found = None
    if found is None or (math.isinf(found) and "inf" not in value.lower()):
        raise ExpressionError(f"invalid operation: float({value})")
    return found


def _number(name: str, value: Any) -> float:
    if _is_number(value):
        return float(value)
    if name == "float":
        raise ExpressionError(f"invalid operation: float({type_of(value)})")
    raise ExpressionError(f"invalid argument for {name} (type {type_of(value)})")


def _rounding(name: str, way: Callable[[float], float]) -> Callable[[Any], float]:
    def perform(value: Any) -> float:
        real = _number(name, value)
        return math.copysign(way(real), real) if math.isfinite(real) else real

    return perform


def _nearest(value: float) -> float:
    """The nearest whole number; half way, the one further from 0."""
    whole = float(math.trunc(value))
    return whole + math.copysign(1.0, value) if abs(value - whole) >= 0.5 else whole


def _item(owner: Any, key: Any) -> Any:
    """A field or an item; nil where there is none."""
    try:
        return fetch(owner, key)
    except ExpressionError:
        return None


def _map(what: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ExpressionError(f"cannot get {what} from {type_of(value)}")
    return value


def _as_written(value: Any) -> Any:
    """A value for JSON, with whole numbers without a point."""
    if isinstance(value, dict):
        return {key: _as_written(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_as_written(inner) for inner in value]
    return int(value) if isinstance(value, float) and abs(value) < 1e21 and value.is_integer() else value


def _joined(values: Any, by: Any = "") -> str:
    if not isinstance(values, list):
        raise ExpressionError(f"invalid argument for join (type {type_of(values)})")
    return _text(by).join(_text(value) for value in values)


def _split(text: Any, by: Any, most: Any = -1) -> list[str]:
    whole, separator, limit = _text(text), _text(by), _whole(most)
    if limit == 0:
        return []
    if separator:
        return whole.split(separator, limit - 1 if limit > 0 else -1)
    if limit < 0 or len(whole) < limit:
        return list(whole)
    return [*whole[: limit - 1], whole[limit - 1 :]]


def _replaced(text: Any, old: Any, new: Any, most: Any = -1) -> str:
    return _text(text).replace(_text(old), _text(new), _whole(most))


def _link(*arguments: Any) -> Any:
    """The resource behind a link of the event. Nothing is fetched: as on a server that allows no host."""
    if len(arguments) != 2:
        raise ExpressionError(f"expect two arguments, got {len(arguments)}")
    owner, relation = arguments
    if not isinstance(relation, str):
        raise ExpressionError("second parameter must be a string")
    links = owner.get("links") if isinstance(owner, dict) else None
    found = [one for one in links or [] if isinstance(one, dict) and one.get("name") == relation]
    if not found:
        raise ExpressionError(f"link '{relation}' not defined for object")
    if len(found) > 1:
        raise ExpressionError(f"multiple link '{relation}' found for object")
    host = re.sub(r"^[a-z]+://([^/]*).*", r"\1", str(found[0].get("uri", "")))
    raise ExpressionError(f'link url host not allowed: "{host}"')


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": lambda value: negative(value) if value < 0 else value,
    "ceil": _rounding("ceil", math.ceil),
    "first": lambda values: _item(values, 0),
    "float": _real,
    "floor": _rounding("floor", math.floor),
    "get": _item,
    "hasPrefix": lambda text, start: _text(text).startswith(_text(start)),
    "hasSuffix": lambda text, end: _text(text).endswith(_text(end)),
    "int": _whole,
    "join": _joined,
    "keys": lambda value: list(_map("keys", value)),
    "last": lambda values: _item(values, -1),
    "len": _length,
    "link": _link,
    "lower": lambda text: _text(text).lower(),
    "replace": _replaced,
    "round": _rounding("round", _nearest),
    "split": _split,
    "string": lambda value: text_of(value),
    "toJSON": lambda value: json.dumps(_as_written(value), indent=2, ensure_ascii=False, sort_keys=True),
    "trim": lambda text, *signs: _text(text).strip(*(_text(one) for one in signs)),
    "upper": lambda text: _text(text).upper(),
    "values": lambda value: list(_map("values", value).values()),
}
"""The functions that an expression can call."""


def _number_text(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if value and not 1e-6 <= abs(value) < 1e21:
        return re.sub(r"e-0(\d)$", r"e-\1", repr(value))
    plain = format(Decimal(repr(value)), "f")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def text_of(value: Any) -> str:
    """A value as a run's variable."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "<nil>"
    if isinstance(value, float):
        return _number_text(value)
    if isinstance(value, list):
        return f"[{' '.join(text_of(item) for item in value)}]"
    if isinstance(value, Mapping):
        return f"map[{' '.join(f'{key}:{text_of(value[key])}' for key in sorted(value))}]"
    return str(value)

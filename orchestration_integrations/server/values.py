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

_LONGEST_LIST = 10_000


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
    return -value


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
            return calculate(left, right)
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
        return re.search(pattern, text) is not None
    except re.error as error:
        raise ExpressionError(f"error parsing regexp: {error}") from None


def _range(left: Any, right: Any) -> list[int]:
    if not (isinstance(left, int) and isinstance(right, int)):
        raise _refuse(left, "..", right)
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
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise ExpressionError(f"invalid operation: int({text_of(value)})") from None


def _real(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ExpressionError(f"invalid operation: float({text_of(value)})") from None


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
    "abs": lambda value: abs(negative(value)),
    "ceil": lambda value: float(math.ceil(_real(value))),
    "first": lambda values: values[0] if values else None,
    "float": _real,
    "floor": lambda value: float(math.floor(_real(value))),
    "get": lambda owner, key: owner.get(key) if isinstance(owner, dict) else fetch(owner, key),
    "hasPrefix": lambda text, start: _text(text).startswith(_text(start)),
    "hasSuffix": lambda text, end: _text(text).endswith(_text(end)),
    "int": _whole,
    "join": lambda values, by="": _text(by).join(_text(value) for value in values),
    "keys": lambda value: list(value),
    "last": lambda values: values[-1] if values else None,
    "len": _length,
    "link": _link,
    "lower": lambda text: _text(text).lower(),
    "replace": lambda text, old, new: _text(text).replace(_text(old), _text(new)),
    "round": lambda value: float(math.floor(_real(value) + 0.5)),
    "split": lambda text, by: _text(text).split(_text(by)) if by else list(_text(text)),
    "string": lambda value: text_of(value),
    "toJSON": lambda value: json.dumps(value, indent=2),
    "trim": lambda text, signs=None: _text(text).strip(signs),
    "upper": lambda text: _text(text).upper(),
    "values": lambda value: list(value.values()),
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

"""What the real server knows of an expression's types before it has met an event.

It compiles an expression when a trigger is created, and refuses what can't work whatever the event is: an operator on
values of types that it doesn't take, a call with too many arguments, a field of a number. A field of the event has no
type yet (ANY), and is taken wherever some type would be. So `1 + "a"` and `not 1` are refused, `event.a + 1` isn't.
The literal `nil` is a type of its own, which hardly any operator takes.

Texts are those of expr-lang, which the real server uses; it calls ANY and NIL both "unknown".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .values import ExpressionError


@dataclass(frozen=True, slots=True)
class Type:
    """A type. `item`: what a list holds; None: nobody knows."""

    name: str
    item: Type | None = None

    def __str__(self) -> str:
        return "unknown" if self.name in ("any", "nil") else self.name

    @property
    def is_list(self) -> bool:
        """Whether it is a list of whatever."""
        return self.name.startswith("[]")

    @property
    def item_type(self) -> Type:
        """The type of what a list holds."""
        return self.item or ANY

    @property
    def is_map(self) -> bool:
        """Whether it is a map."""
        return self.name.startswith("map")


ANY, NIL = Type("any"), Type("nil")
BOOL, INT, FLOAT, STRING = Type("bool"), Type("int"), Type("float64"), Type("string")
MAP = Type("map[string]interface {}")
ITEMS = Type("[]interface {}")
STRINGS, INTS = Type("[]string", STRING), Type(ITEMS.name, INT)
_NUMBERS = (INT, FLOAT)
_CONSTANTS: dict[type, Type] = {bool: BOOL, int: INT, float: FLOAT, str: STRING}


class Misused(ExpressionError):
    """A type that isn't taken. `argument`: the place of the argument that has it; None: the whole."""

    def __init__(self, what: str, argument: int | None = None) -> None:
        super().__init__(what)
        self.argument = argument


def of(value: Any) -> Type:
    """The type of a literal."""
    return _CONSTANTS.get(type(value), NIL)


def list_of(items: Sequence[Type]) -> Type:
    """The type of a list with such items."""
    kinds = {str(item) for item in items}
    return Type(ITEMS.name, items[-1]) if len(kinds) == 1 else ITEMS


def _assignable(given: Type, wanted: Type) -> bool:
    if given == NIL:
        return wanted.is_list or wanted.is_map
    return given.name == wanted.name and given != ANY


def _comparable(left: Type, right: Type) -> bool:
    if {left, right} & {ANY, NIL} or (left in _NUMBERS and right in _NUMBERS):
        return True
    return (left.is_list and right.is_list) or _assignable(left, right)


def _either(first: Type, second: Type) -> Type:
    """The type of a value that is one of two."""
    if NIL in (first, second):
        return second if first == NIL else first
    if not _assignable(first, second):
        return ANY
    return first if first.item == second.item else ITEMS


def choice(condition: Type, yes: Type, no: Type) -> Type:
    """`condition ? yes : no`. Misused."""
    if condition not in (BOOL, ANY):
        raise Misused(f"non-bool expression (type {condition}) used as condition", 0)
    return _either(yes, no)


def first_there(left: Type, right: Type) -> Type:
    """`left ?? right`."""
    if NIL in (left, right):
        return _either(left, right)
    return left if _assignable(right, left) else ANY


def unary(sign: str, inner: Type) -> Type:
    """An operator with one side. Misused."""
    negates = sign in ("not", "!")
    if inner != ANY and inner not in ((BOOL,) if negates else _NUMBERS):
        raise Misused(f"invalid operation: {sign} (mismatched type {inner})")
    return BOOL if negates else inner


_TAKES: dict[str, tuple[tuple[Type, ...], ...]] = {
    **dict.fromkeys(("and", "&&", "or", "||"), ((BOOL,),)),
    **dict.fromkeys(("<", "<=", ">", ">=", "+"), (_NUMBERS, (STRING,))),
    **dict.fromkeys(("-", "*", "/", "**", "^"), (_NUMBERS,)),
    **dict.fromkeys(("%", ".."), ((INT,),)),
    **dict.fromkeys(("matches", "contains", "startsWith", "endsWith"), ((STRING,),)),
}
"""The types that both sides of an operator have, one group or another."""
_GIVES = {"/": FLOAT, "**": FLOAT, "^": FLOAT, "%": INT, "..": INTS}


def binary(sign: str, left: Type, right: Type) -> Type:
    """An operator with two sides, but `??`. Misused."""
    if sign == "in":
        return _in(left, right)
    if sign in ("==", "!="):
        fits = _comparable(left, right)
    else:
        fits = any(all(side == ANY or side in group for side in (left, right)) for group in _TAKES[sign])
    if not fits:
        raise _mismatched(sign, left, right)
    if sign in ("+", "-", "*"):
        if ANY in (left, right):
            return ANY
        return FLOAT if FLOAT in (left, right) else left
    return _GIVES.get(sign, BOOL)


def _mismatched(sign: str, left: Type, right: Type) -> Misused:
    return Misused(f"invalid operation: {sign} (mismatched types {left} and {right})")


def _in(left: Type, right: Type) -> Type:
    if right.is_map:
        if left not in (ANY, STRING):
            raise Misused(f"cannot use {left} as type string in map key")
    elif right.is_list:
        if not _comparable(left, right.item_type):
            raise Misused(f"cannot use {left} as type {right.item_type} in array")
    elif right != ANY and not (left == ANY and right == STRING):
        raise _mismatched("in", left, right)
    return BOOL


def field(owner: Type, key: Type, name: str | None) -> Type:
    """`owner.name` or `owner[key]`; `name` is None where the key is no literal string. Misused."""
    if owner == ANY:
        return ANY
    if owner == NIL and name is not None:
        raise Misused(f"type nil has no field {name}")
    if owner.is_map:
        if key not in (STRING, ANY):
            raise Misused(f"cannot use {key} to get an element from {owner}", 1)
        return ANY
    if owner.is_list:
        if key not in (INT, ANY):
            raise Misused(f"array elements can only be selected using an integer (got {key})", 1)
        return owner.item_type
    if name is not None:
        raise Misused(f"type {owner} has no field {name}")
    raise Misused(f"type {owner}[{key}] is undefined")


class _One(NamedTuple):
    """A function with one argument of some kind. `refusal`: what is said of any other; `gives` None: what it got."""

    takes: str
    gives: Type | None
    refusal: str


_ONE: dict[str, _One] = {
    "len": _One("list map string", INT, "invalid argument for len (type {})"),
    "abs": _One("number", None, "invalid argument for abs (type {})"),
    "ceil": _One("number", FLOAT, "invalid argument for ceil (type {})"),
    "floor": _One("number", FLOAT, "invalid argument for floor (type {})"),
    "round": _One("number", FLOAT, "invalid argument for round (type {})"),
    "int": _One("number string", INT, "invalid argument for int (type {})"),
    "float": _One("number string", FLOAT, "invalid argument for float (type {})"),
    "first": _One("list", None, "cannot get first element from {}"),
    "last": _One("list", None, "cannot get last element from {}"),
    "keys": _One("map", ITEMS, "cannot get keys from {}"),
    "values": _One("map", ITEMS, "cannot get values from {}"),
}
_SIGNATURES: dict[str, tuple[tuple[tuple[Type, ...], Type], ...]] = {
    "string": (((ANY,), STRING),),
    "toJSON": (((ANY,), STRING),),
    "trim": (((STRING,), STRING), ((STRING, STRING), STRING)),
    "upper": (((STRING,), STRING),),
    "lower": (((STRING,), STRING),),
    "split": (((STRING, STRING), STRINGS), ((STRING, STRING, INT), STRINGS)),
    "replace": (((STRING, STRING, STRING, INT), STRING), ((STRING, STRING, STRING), STRING)),
    "hasPrefix": (((STRING, STRING), BOOL),),
    "hasSuffix": (((STRING, STRING), BOOL),),
    "join": (
        ((ITEMS, STRING), STRING),
        ((ITEMS,), STRING),
        ((STRINGS, STRING), STRING),
        ((STRINGS,), STRING),
    ),
}
"""What each function takes and gives. Where no way of calling it fits, the last one says why."""


def call(name: str, arguments: Sequence[Type]) -> Type:
    """A call of a function; one that has no rule here takes anything. Misused."""
    if name in _ONE:
        return _call_with_one(name, _ONE[name], arguments)
    if name == "get":
        return _get(arguments)
    refusal: Misused | None = None
    for takes, gives in _SIGNATURES.get(name, ()):
        refusal = _refusal(name, takes, arguments)
        if refusal is None:
            return gives
    if refusal is not None:
        raise refusal
    return ANY


def _number_of(arguments: Sequence[Type], wanted: int) -> None:
    if len(arguments) != wanted:
        raise Misused(f"invalid number of arguments (expected {wanted}, got {len(arguments)})")


def _call_with_one(name: str, rule: _One, arguments: Sequence[Type]) -> Type:
    _number_of(arguments, 1)
    (given,) = arguments
    kinds = {"list": given.is_list, "map": given.is_map, "number": given in _NUMBERS, "string": given == STRING}
    if given != ANY and not any(kinds[kind] for kind in rule.takes.split()):
        raise Misused(rule.refusal.format("%!s(<nil>)" if given == NIL else given))
    if rule.gives is not None:
        return rule.gives
    if name == "abs":
        return given
    return STRING if given == STRINGS else ANY


def _get(arguments: Sequence[Type]) -> Type:
    _number_of(arguments, 2)
    owner, key = arguments
    if owner == ANY:
        return ANY
    if owner.is_list or owner.is_map:
        if key == NIL:
            raise Misused(f"cannot use nil as {'slice' if owner.is_list else 'map'} index", 1)
        if key not in (ANY, INT if owner.is_list else STRING):
            what = f"non-integer slice index {key}"
            raise Misused(what if owner.is_list else f"cannot use {key} to get an element from {owner}", 1)
        return owner.item_type if owner.is_list else ANY
    raise Misused(f"type {owner} does not support indexing", 0)


def _refusal(name: str, takes: Sequence[Type], arguments: Sequence[Type]) -> Misused | None:
    if len(arguments) != len(takes):
        return Misused(f"{'too many' if len(arguments) > len(takes) else 'not enough'} arguments to call {name}")
    for place, (given, wanted) in enumerate(zip(arguments, takes, strict=True)):
        if given == NIL and wanted != ANY:
            return Misused(f"cannot use nil as argument (type {wanted}) to call {name}", place)
        if ANY not in (given, wanted) and not _assignable(given, wanted):
            return Misused(f"cannot use {given} as argument (type {wanted}) to call {name} ", place)
    return None

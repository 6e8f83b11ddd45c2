"""The expression language of triggers: `event.amount > 100 && event.status in ["PAID"]`, `event.id`, `"x"`.

The real server uses expr-lang. Here are its literals (`expression_tokens`), fields (`.`, `?.`, `[…]`), operators,
conditions (`a ? b : c`, `??`) and the plain functions of `values`. Any other function of expr-lang, such as one that
works through a list with a predicate, a pipe, or a `let`, is refused when the trigger is created, with a text that says
so. A name other than `event` is nil, and a function that nobody knows fails when it is called: as on the real server,
which knows no names then. What can't work whatever the event is, is refused at creation too (`expression_types`).

A parsed expression is a function of the event. An operator of a higher rank binds closer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from . import expression_types as types
from . import go_regexps
from .expression_tokens import WORDS, Token, number, placed, string, tokens
from .expression_types import Misused, Type
from .go_regexps import PatternError
from .values import BINARY, FUNCTIONS, ExpressionError, as_condition, fetch, negative, text_of

__all__ = ["ExpressionError", "check", "evaluate", "is_match", "text_of"]

Code = Callable[[Any], Any]
_NO_LITERAL = object()
_RANKS = {
    **dict.fromkeys(("or", "||"), 10),
    **dict.fromkeys(("and", "&&"), 15),
    **dict.fromkeys(("==", "!=", "<", ">", "<=", ">=", "in", "matches", "contains", "startsWith", "endsWith"), 20),
    "..": 25,
    **dict.fromkeys(("+", "-"), 30),
    **dict.fromkeys(("*", "/", "%"), 60),
    **dict.fromkeys(("**", "^"), 100),
    "??": 500,
}
_UNARY = {"not": 50, "!": 50, "-": 90, "+": 90}
_WORDS = {"true": True, "false": False, "nil": None}
_COMPARISONS = ("<", "<=", ">", ">=")
_NOT_HERE = frozenset(
    {"all", "none", "any", "one", "filter", "map", "count", "sum", "groupBy", "sortBy", "reduce"}
    | {"find", "findIndex", "findLast", "findLastIndex", "take", "reverse", "uniq", "concat", "flatten", "sort"}
    | {"type", "trimPrefix", "trimSuffix", "splitAfter", "repeat", "indexOf", "lastIndexOf", "toPairs", "fromPairs"}
    | {"max", "min", "mean", "median", "now", "duration", "date", "timezone", "fromJSON", "toBase64", "fromBase64"}
    | {f"bit{name}" for name in ("and", "or", "xor", "nand", "not", "shl", "shr", "ushr")}
)
_LONGEST, _DEEPEST = 2000, 60


class _Node(NamedTuple):
    """A part of an expression: what it does, its type, its place, and its value if it is a literal."""

    code: Code
    type: Type
    at: int
    literal: Any = _NO_LITERAL


def check(text: str) -> None:
    """Whether the real server would take an expression for a trigger. ExpressionError."""
    _parsed(text)


def evaluate(text: str, event: Mapping[str, Any]) -> Any:
    """The value of an expression on an event's payload. ExpressionError."""
    code = _parsed(text)
    try:
        return code(event)
    except RecursionError:
        raise ExpressionError("expression too complex") from None


def is_match(text: str, event: Mapping[str, Any]) -> bool:
    """Whether an event passes a filter; what is no condition doesn't. ExpressionError."""
    return evaluate(text, event) is True


@lru_cache(maxsize=512)
def _parsed(text: str) -> Code:
    if len(text) > _LONGEST:
        raise ExpressionError("expression too long")
    return _Parser(text).whole()


class _Parser:
    """One pass over an expression."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(tokens(text))
        self._next = 0
        self._depth = 0
        self._misuse: ExpressionError | None = None

    def _error(self, what: str, at: int) -> ExpressionError:
        return placed(what, self._text, at)

    def _typed(self, at: int, find: Callable[[], Type], *arguments: _Node) -> Type:
        """The type that `find` gives. The first refusal is kept: one of the syntax goes before it."""
        try:
            return find()
        except (Misused, PatternError) as error:
            place = error.argument if isinstance(error, Misused) else None
            if self._misuse is None:
                self._misuse = self._error(str(error), at if place is None else arguments[place].at)
            return types.ANY

    @property
    def _token(self) -> Token:
        return self._tokens[self._next]

    def _unexpected(self) -> ExpressionError:
        kind, text, at = self._token
        shown = "EOF" if kind == "end" else f'{"Operator" if kind == "sign" else kind.capitalize()}("{text}")'
        return self._error(f"unexpected token {shown}", at)

    def _take(self, *texts: str) -> Token | None:
        token = self._token
        if token.kind in ("sign", "name") and token.text in texts:
            self._next += 1
            return token
        return None

    def _need(self, text: str) -> None:
        if self._take(text) is None:
            raise self._unexpected()

    def whole(self) -> Code:
        """The whole expression."""
        node = self._condition()
        if self._token.kind != "end":
            if self._token.text == "|":
                raise self._error("the embedded server knows no pipes", self._token.at)
            raise self._unexpected()
        if self._misuse is not None:
            raise self._misuse
        return node.code

    def _condition(self) -> _Node:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ExpressionError("expression too complex")
        node = self._ranked(0)
        while token := self._take("?"):
            yes = node if self._take(":") else None
            if yes is None:
                yes = self._condition()
                self._need(":")
            node = self._choice(token.at, node, yes, self._condition())
        self._depth -= 1
        return node

    def _choice(self, at: int, condition: _Node, yes: _Node, no: _Node) -> _Node:
        def code(event: Any) -> Any:
            return (yes if as_condition(condition.code(event)) else no).code(event)

        return _Node(code, self._typed(at, lambda: types.choice(condition.type, yes.type, no.type), condition), at)

    def _ranked(self, least: int) -> _Node:
        left = self._unary()
        while (token := self._token).kind in ("sign", "name"):
            name, negated = token.text, False
            if name == "not" and _RANKS.get(self._tokens[self._next + 1].text) == 20:
                negated, token = True, self._tokens[self._next + 1]
                name = token.text
            rank = _RANKS.get(name)
            if rank is None or rank < least:
                break
            self._next += 1 + negated
            right = self._ranked(rank if name in ("**", "^") else rank + 1)
            made = self._binary(name, left, right, token.at)
            if name in _COMPARISONS:
                made = self._compared_on(made, right)
            left = self._opposite("not", made, token.at) if negated else made
        return left

    def _compared_on(self, made: _Node, right: _Node) -> _Node:
        """`a < b <= c` is `a < b && b <= c`."""
        while token := self._take(*_COMPARISONS):
            further = self._ranked(_RANKS[token.text] + 1)
            made = self._binary("&&", made, self._binary(token.text, right, further, token.at), token.at)
            right = further
        return made

    def _binary(self, name: str, left: _Node, right: _Node, at: int) -> _Node:
        if name == "??":
            return _Node(_first_there(left.code, right.code), types.first_there(left.type, right.type), at)

        def find() -> Type:
            if name == "matches" and isinstance(right.literal, str):
                go_regexps.compiled(right.literal)
            if name == "%" and left.literal is not _NO_LITERAL and right.literal == 0:
                types.binary(name, left.type, right.type)
                raise Misused("integer divide by zero")
            return types.binary(name, left.type, right.type)

        return _Node(self._performed(name, left.code, right.code, at), self._typed(at, find), at)

    def _performed(self, name: str, left: Code, right: Code, at: int) -> Code:
        if name in ("and", "&&"):
            return lambda event: as_condition(left(event)) and as_condition(right(event))
        if name in ("or", "||"):
            return lambda event: as_condition(left(event)) or as_condition(right(event))
        perform = BINARY[name]

        def code(event: Any) -> Any:
            try:
                return perform(left(event), right(event))
            except ExpressionError as error:
                raise self._placed(error, at) from None

        return code

    def _opposite(self, sign: str, inner: _Node, at: int) -> _Node:
        return _Node(
            lambda event: not as_condition(inner.code(event)),
            self._typed(at, lambda: types.unary(sign, inner.type)),
            at,
        )

    def _placed(self, error: ExpressionError, at: int) -> ExpressionError:
        return error if "\n | " in str(error) else self._error(str(error), at)

    def _unary(self) -> _Node:
        token = self._take(*_UNARY)
        if token is None:
            return self._primary()
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ExpressionError("expression too complex")
        inner = self._ranked(_UNARY[token.text])
        self._depth -= 1
        if token.text in ("not", "!"):
            return self._opposite(token.text, inner, token.at)
        kind = self._typed(token.at, lambda: types.unary(token.text, inner.type))
        code: Code = inner.code if token.text == "+" else lambda event: negative(inner.code(event))
        return self._fields(_Node(code, kind, token.at))

    def _primary(self) -> _Node:
        token = self._token
        self._next += 1
        if token.kind == "number":
            return self._number(token)
        if token.kind == "string":
            return self._fields(_constant(string(token, self._text), token.at))
        if token.kind == "name" and token.text in _WORDS:
            return _constant(_WORDS[token.text], token.at)
        if token.kind == "name":
            return self._fields(self._named(token))
        if token.text == "(" and token.kind == "sign":
            node = self._condition()
            self._need(")")
            return self._fields(node)
        if token.text == "[" and token.kind == "sign":
            items = self._many("]")
            kind = types.list_of([item.type for item in items])
            return self._fields(_Node(lambda event: [item.code(event) for item in items], kind, token.at))
        if token.text == "{" and token.kind == "sign":
            return self._fields(self._map(token.at))
        self._next -= 1
        raise self._unexpected()

    def _number(self, token: Token) -> _Node:
        try:
            return _constant(number(token.text), token.at)
        except ExpressionError as error:
            raise self._error(str(error), self._token.at) from None

    def _named(self, token: Token) -> _Node:
        if token.text == "let" or (token.text in _NOT_HERE and self._token.text == "("):
            raise self._error(f"the embedded server knows no {token.text}", token.at)
        if token.text in WORDS:
            self._next -= 1
            raise self._unexpected()
        if self._take("("):
            return self._call(token, self._many(")"))
        if token.text == "event":
            return _Node(lambda event: event, types.ANY, token.at)
        return _Node(lambda event: None, types.ANY, token.at)

    def _call(self, token: Token, arguments: list[_Node]) -> _Node:
        function = FUNCTIONS.get(token.text)

        def code(event: Any) -> Any:
            if function is None:
                raise self._error("interface conversion: interface {} is nil, not a function", token.at)
            try:
                return function(*(argument.code(event) for argument in arguments))
            except ExpressionError as error:
                raise self._placed(error, token.at) from None
            except (TypeError, AttributeError, LookupError, ArithmeticError, ValueError):
                raise self._error(f"invalid arguments for {token.text}", token.at) from None

        kinds = [argument.type for argument in arguments]
        return _Node(code, self._typed(token.at, lambda: types.call(token.text, kinds), *arguments), token.at)

    def _many(self, end: str) -> list[_Node]:
        found: list[_Node] = []
        while not self._take(end):
            if found:
                self._need(",")
                if self._take(end):
                    break
            found.append(self._condition())
        return found

    def _map(self, at: int) -> _Node:
        pairs: list[tuple[str, _Node]] = []
        while not self._take("}"):
            if pairs:
                self._need(",")
                if self._take("}"):
                    break
            token = self._token
            if token.kind not in ("name", "string", "number"):
                raise self._unexpected()
            self._next += 1
            self._need(":")
            pairs.append((string(token, self._text) if token.kind == "string" else token.text, self._condition()))
        return _Node(lambda event: {key: value.code(event) for key, value in pairs}, types.MAP, at)

    def _fields(self, owner: _Node) -> _Node:
        while True:
            token = self._take(".", "?.", "[")
            if token is None:
                return owner
            if token.text == "[":
                key = self._condition()
                self._need("]")
                owner = self._fetching(owner, key, token.at, False)
                continue
            name = self._token
            if name.kind == "end":
                raise self._error("unexpected end of expression", name.at)
            if name.kind != "name":
                raise self._unexpected()
            self._next += 1
            owner = self._fetching(owner, _constant(name.text, name.at), name.at, token.text == "?.")

    def _fetching(self, owner: _Node, key: _Node, at: int, lenient: bool) -> _Node:
        def code(event: Any) -> Any:
            value = owner.code(event)
            if value is None and lenient:
                return None
            try:
                return fetch(value, key.code(event))
            except ExpressionError as error:
                raise self._placed(error, at) from None

        name = key.literal if isinstance(key.literal, str) else None
        return _Node(code, self._typed(at, lambda: types.field(owner.type, key.type, name), owner, key), at)


def _constant(value: Any, at: int) -> _Node:
    return _Node(lambda event: value, types.of(value), at, value)


def _first_there(left: Code, right: Code) -> Code:
    def code(event: Any) -> Any:
        value = left(event)
        return right(event) if value is None else value

    return code

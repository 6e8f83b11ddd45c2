"""The expression language of triggers: `event.amount > 100 && event.status in ["PAID"]`, `event.id`, `"x"`.

The real server uses expr-lang. Here are its literals, fields (`.`, `?.`, `[…]`), operators, conditions (`a ? b : c`,
`??`) and the plain functions of `values`. A function that works through a list with a predicate, a pipe or a `let`
is refused when the trigger is created, with a text that says so. A name other than `event` is nil, and a function
that nobody knows fails when it is called: as on the real server, which checks the syntax alone.

A parsed expression is a function of the event. An operator of a higher rank binds closer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from .values import BINARY, FUNCTIONS, ExpressionError, as_condition, fetch, negative, text_of

__all__ = ["ExpressionError", "check", "evaluate", "is_match", "text_of"]

Code = Callable[[Any], Any]
_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<number>0[xX][0-9a-fA-F]+|(?:\d[\d_]*)?\.?\d[\d_]*(?:[eE][+-]?\d+)?)
    |(?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`[^`]*`)
    |(?P<name>[A-Za-z_$][A-Za-z0-9_$]*)
    |(?P<sign>\?\?|\?\.|\*\*|\.\.|==|!=|<=|>=|&&|\|\||[-+*/%^<>!?:.,;=()\[\]{}|\#])""",
    re.VERBOSE | re.ASCII,
)
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
_NOT_HERE = frozenset(
    {"all", "none", "any", "one", "filter", "map", "count", "sum", "groupBy", "sortBy", "reduce"}
    | {"find", "findIndex", "findLast", "findLastIndex"}
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v"}
_LONGEST, _DEEPEST = 2000, 60


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


def check(text: str) -> None:
    """Whether an expression can be parsed. ExpressionError."""
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
        self._tokens: list[_Token] = list(self._read())
        self._next = 0
        self._depth = 0

    def _read(self) -> Iterator[_Token]:
        at = 0
        while at < len(self._text):
            found = _TOKEN.match(self._text, at)
            if found is None:
                raise self._error(f"unrecognized character: U+{ord(self._text[at]):04X} '{self._text[at]}'", at)
            kind = str(found.lastgroup)
            if kind != "space":
                yield _Token(kind, found[0], at)
            at = found.end()
        yield _Token("end", "EOF", max(0, len(self._text) - 1))

    def _error(self, what: str, at: int) -> ExpressionError:
        return ExpressionError(f"{what} (1:{at + 1})\n | {self._text}\n | {'.' * at}^")

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _unexpected(self) -> ExpressionError:
        kind, text, at = self._token
        shown = "EOF" if kind == "end" else f'{"Operator" if kind == "sign" else kind.capitalize()}("{text}")'
        return self._error(f"unexpected token {shown}", at)

    def _take(self, *texts: str) -> _Token | None:
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
        code = self._condition()
        if self._token.kind != "end":
            if self._token.text == "|":
                raise self._error("the embedded server knows no pipes", self._token.at)
            raise self._unexpected()
        return code

    def _condition(self) -> Code:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ExpressionError("expression too complex")
        code = self._ranked(0)
        while self._take("?"):
            yes = code if self._take(":") else None
            if yes is None:
                yes = self._condition()
                self._need(":")
            code = _choice(code, yes, self._condition())
        self._depth -= 1
        return code

    def _ranked(self, least: int) -> Code:
        left = self._unary()
        while (token := self._token).kind in ("sign", "name"):
            name, negated = token.text, False
            if name == "not" and _RANKS.get(self._tokens[self._next + 1].text) == 20:
                negated, name = True, self._tokens[self._next + 1].text
            rank = _RANKS.get(name)
            if rank is None or rank < least:
                break
            self._next += 1 + negated
            right = self._ranked(rank if name in ("**", "^") else rank + 1)
            left = self._binary(name, left, right, token.at)
            if negated:
                left = _opposite(left)
        return left

    def _binary(self, name: str, left: Code, right: Code, at: int) -> Code:
        if name in ("and", "&&"):
            return lambda event: as_condition(left(event)) and as_condition(right(event))
        if name in ("or", "||"):
            return lambda event: as_condition(left(event)) or as_condition(right(event))
        if name == "??":
            return lambda event: _first_there(left, right, event)
        perform = BINARY[name]

        def code(event: Any) -> Any:
            try:
                return perform(left(event), right(event))
            except ExpressionError as error:
                raise self._placed(error, at) from None

        return code

    def _placed(self, error: ExpressionError, at: int) -> ExpressionError:
        return error if "\n | " in str(error) else self._error(str(error), at)

    def _unary(self) -> Code:
        token = self._take(*_UNARY)
        if token is None:
            return self._fields(self._primary())
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ExpressionError("expression too complex")
        inner = self._ranked(_UNARY[token.text])
        self._depth -= 1
        if token.text in ("not", "!"):
            return _opposite(inner)
        sign = -1 if token.text == "-" else 1
        return lambda event: negative(inner(event)) if sign < 0 else inner(event)

    def _primary(self) -> Code:
        token = self._token
        self._next += 1
        if token.kind == "number":
            return _constant(_number(token.text))
        if token.kind == "string":
            return _constant(_string(token.text))
        if token.kind == "name":
            return self._named(token)
        if token.text == "(" and token.kind == "sign":
            code = self._condition()
            self._need(")")
            return code
        if token.text == "[" and token.kind == "sign":
            items = self._many("]")
            return lambda event: [item(event) for item in items]
        if token.text == "{" and token.kind == "sign":
            return self._map()
        self._next -= 1
        raise self._unexpected()

    def _named(self, token: _Token) -> Code:
        if token.text in _WORDS:
            return _constant(_WORDS[token.text])
        if token.text == "let" or (token.text in _NOT_HERE and self._token.text == "("):
            raise self._error(f"the embedded server knows no {token.text}", token.at)
        if self._take("("):
            return self._call(token, self._many(")"))
        if token.text == "event":
            return lambda event: event
        return _constant(None)

    def _call(self, token: _Token, arguments: list[Code]) -> Code:
        function = FUNCTIONS.get(token.text)

        def code(event: Any) -> Any:
            if function is None:
                raise self._error("interface conversion: interface {} is nil, not a function", token.at)
            try:
                return function(*(argument(event) for argument in arguments))
            except ExpressionError as error:
                raise self._placed(error, token.at) from None
            except (TypeError, AttributeError, LookupError, ArithmeticError, ValueError):
                raise self._error(f"invalid arguments for {token.text}", token.at) from None

        return code

    def _many(self, end: str) -> list[Code]:
        found: list[Code] = []
        while not self._take(end):
            if found:
                self._need(",")
                if self._take(end):
                    break
            found.append(self._condition())
        return found

    def _map(self) -> Code:
        pairs: list[tuple[str, Code]] = []
        while not self._take("}"):
            if pairs:
                self._need(",")
            token = self._token
            if token.kind not in ("name", "string"):
                raise self._unexpected()
            self._next += 1
            self._need(":")
            pairs.append((token.text if token.kind == "name" else _string(token.text), self._condition()))
        return lambda event: {key: value(event) for key, value in pairs}

    def _fields(self, owner: Code) -> Code:
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
            owner = self._fetching(owner, _constant(name.text), name.at, token.text == "?.")

    def _fetching(self, owner: Code, key: Code, at: int, lenient: bool) -> Code:
        def code(event: Any) -> Any:
            value = owner(event)
            if value is None and lenient:
                return None
            try:
                return fetch(value, key(event))
            except ExpressionError as error:
                raise self._placed(error, at) from None

        return code


def _constant(value: Any) -> Code:
    return lambda event: value


def _choice(condition: Code, yes: Code, no: Code) -> Code:
    return lambda event: (yes if as_condition(condition(event)) else no)(event)


def _opposite(code: Code) -> Code:
    return lambda event: not as_condition(code(event))


def _first_there(left: Code, right: Code, event: Any) -> Any:
    value = left(event)
    return right(event) if value is None else value


def _number(text: str) -> int | float:
    plain = text.replace("_", "")
    if plain[:2].lower() == "0x":
        return int(plain, 16)
    return int(plain) if plain.isdigit() else float(plain)


def _string(text: str) -> str:
    if text[0] == "`":
        return text[1:-1]
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), text[1:-1])

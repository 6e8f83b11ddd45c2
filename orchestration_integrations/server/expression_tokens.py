"""The tokens of a trigger's expression, with the values of its literals as Go reads them.

A number is one of Go's: decimal, `0x…`, `0o…`, `0b…`, with `_` anywhere after the first digit, and a whole one fits
into 64 bits. A string in quotes knows Go's escapes and refuses any other; one in backquotes knows none, and a
backquote in it is written twice.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from .values import LARGEST, ExpressionError

WORDS = frozenset({"in", "or", "and", "not", "matches", "contains", "startsWith", "endsWith", "let", "if", "else"})
"""Names that are operators."""
_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<number>(?:0[xX][0-9a-fA-F_]*|0[oO][0-7_]*|0[bB][01_]*|[0-9][0-9_]*|(?=\.[0-9]))
        (?:\.(?!\.)[0-9_]*)?(?:[eE][+-]?[0-9_]*)?)
    |(?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:``|[^`])*`)
    |(?P<name>[^\W\d]\w*|\$[\w$]*)
    |(?P<sign>\?\?|\?\.|\*\*|\.\.|==|!=|<=|>=|&&|\|\||[-+*/%^<>!?:.,;=()\[\]{}|\#])""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(
    r"\\(?:(?P<plain>[abfnrtv\\'\"])|(?P<octal>[0-3][0-7]{2})|x(?P<x>[0-9a-fA-F]{2})"
    r"|u\{(?P<braces>[0-9a-fA-F]{1,6})\}|u(?P<u>[0-9a-fA-F]{4})|U(?P<long>[0-9a-fA-F]{8}))"
)
_PLAIN = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_BASES = {"0x": (16, "hex"), "0o": (8, "octal"), "0b": (2, "binary")}
_LAST_CHARACTER = 0x10FFFF


class Token(NamedTuple):
    """A word, a sign, a literal, or the end; `at` counts characters from 0."""

    kind: str
    text: str
    at: int


def placed(what: str, text: str, at: int) -> ExpressionError:
    """An error with its place in the expression, as the real server writes it."""
    return ExpressionError(f"{what} (1:{at + 1})\n | {text}\n | {'.' * at}^")


def tokens(text: str) -> Iterator[Token]:
    """The tokens of an expression, and `end` at last. ExpressionError."""
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            if text[at] in "\"'`":
                raise placed("literal not terminated", text, len(text))
            raise placed(f"unrecognized character: U+{ord(text[at]):04X} '{text[at]}'", text, at)
        kind, end = str(found.lastgroup), found.end()
        if kind == "number" and re.match(r"[\w$]", text[end : end + 1]):
            raise placed(f'bad number syntax: "{text[at : end + 1]}"', text, end)
        if kind != "space":
            yield Token(kind, found[0], at)
        at = end
    yield Token("end", "EOF", max(0, len(text) - 1))


def number(text: str) -> int | float:
    """The value of a number. ExpressionError, without its place."""
    plain = text.replace("_", "")
    base, name = _BASES.get(plain[:2].lower(), (10, "integer"))
    if base != 16 and any(sign in plain.lower() for sign in ".e"):
        name = "float"
    reader = "ParseFloat" if name == "float" else "ParseInt"
    try:
        value = float(plain) if name == "float" else int(plain, base)
    except ValueError:
        raise ExpressionError(f'invalid {name} literal: strconv.{reader}: parsing "{plain}": invalid syntax') from None
    if value > LARGEST if isinstance(value, int) else math.isinf(value):
        raise ExpressionError(f'invalid {name} literal: strconv.{reader}: parsing "{plain}": value out of range')
    return value


def string(token: Token, text: str) -> str:
    """The value of a string in an expression `text`. ExpressionError."""
    quote, inner = token.text[0], token.text[1:-1]
    if quote == "`":
        return inner.replace("``", "`")
    parts: list[str] = []
    at = 0
    while at < len(inner):
        if inner[at] != "\\":
            parts.append("\n" if inner[at] == "\r" else inner[at])
            at += 1
            continue
        found = _ESCAPE.match(inner, at)
        if found is None or (found["plain"] in ('"', "'") and found["plain"] != quote):
            raise placed("invalid char escape", text, token.at + at + 2)
        parts.append(_character(found))
        at = found.end()
    return "".join(parts)


def _character(found: re.Match[str]) -> str:
    if found["plain"]:
        return _PLAIN.get(found["plain"], found["plain"])
    digits = found["octal"] or found["x"] or found["braces"] or found["u"] or found["long"]
    code = int(digits, 8 if found["octal"] else 16)
    if code > _LAST_CHARACTER:
        raise ExpressionError("unable to unescape string")
    return "\ufffd" if 0xD800 <= code <= 0xDFFF else chr(code)

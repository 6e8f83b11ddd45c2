"""Regular expressions as Go reads them (RE2's syntax), matched by Python's engine.

The real server's engine never looks back: it has no lookaround, no backreferences, no atomic groups and no possessive
quantifiers, and a pattern with one of them is refused. Much of what both languages have means something else in Python:
`$` is the very end, `\\d` and `\\w` are ASCII, flags hold from where they stand to the end of their group; and `(?U)`,
`\\z`, `\\Q…\\E`, `[[:alpha:]]` and `\\pL` are unknown there. So each pattern is parsed and written anew: every atom
carries its own flags, every class is a list of ranges, and no group captures, as only "does it match" is asked.

Of the Unicode classes the general categories are known. Python has no tables of scripts such as `\\p{Greek}`.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

Ranges = list[tuple[int, int]]

_LAST = sys.maxunicode
_MOST_REPEATS = 1000
_DIGITS: Ranges = [(48, 57)]
_LETTERS: Ranges = [(65, 90), (97, 122)]
_WORD: Ranges = [*_DIGITS, *_LETTERS, (95, 95)]
_PERL = {"d": _DIGITS, "s": [(9, 10), (12, 13), (32, 32)], "w": _WORD}
_POSIX: dict[str, Ranges] = {
    "alnum": [*_DIGITS, *_LETTERS],
    "alpha": _LETTERS,
    "ascii": [(0, 127)],
    "blank": [(9, 9), (32, 32)],
    "cntrl": [(0, 31), (127, 127)],
    "digit": _DIGITS,
    "graph": [(33, 126)],
    "lower": [(97, 122)],
    "print": [(32, 126)],
    "punct": [(33, 47), (58, 64), (91, 96), (123, 126)],
    "space": [(9, 13), (32, 32)],
    "upper": [(65, 90)],
    "word": _WORD,
    "xdigit": [(48, 57), (65, 70), (97, 102)],
}
_CONTROL = {"a": 7, "f": 12, "t": 9, "n": 10, "r": 13, "v": 11}
_CATEGORIES = {"L": "ultmo", "M": "nce", "N": "dlo", "P": "cdseifo", "S": "mcko", "Z": "slp", "C": "cfso"}
"""The general categories of Unicode: a letter, and the small ones that can follow it."""
_COUNT = re.compile(r"\{(0|[1-9][0-9]*)(,(0|[1-9][0-9]*)?)?\}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_]+", re.ASCII)


class PatternError(ValueError):
    """A pattern that the real server refuses; or one that this one can't imitate, which the text says."""


@lru_cache(maxsize=512)
def compiled(pattern: str) -> re.Pattern[str]:
    """A pattern as Python's engine takes it. PatternError."""
    try:
        return re.compile(_Parser(pattern).whole())
    except RecursionError:
        raise _refusal("expression nests too deeply", pattern) from None


def _refusal(what: str, where: str) -> PatternError:
    return PatternError(f"error parsing regexp: {what}: `{where}`")


def _but(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """All characters that are in none of the ranges."""
    left, at = [], 0
    for low, high in sorted(ranges):
        if low > at:
            left.append((at, low - 1))
        at = max(at, high + 1)
    return [*left, (at, _LAST)] if at <= _LAST else left


@lru_cache(maxsize=64)
def _category(name: str) -> tuple[tuple[int, int], ...]:
    codes = (code for code in range(_LAST + 1) if unicodedata.category(chr(code)).startswith(name))
    runs = (list(run) for _, run in groupby(enumerate(codes), lambda pair: pair[1] - pair[0]))
    return tuple((run[0][1], run[-1][1]) for run in runs)


def _class(ranges: Iterable[tuple[int, int]]) -> str:
    merged = sorted(ranges)
    if not merged:
        return r"[^\U00000000-\U0010ffff]"
    return "[" + "".join(rf"\U{low:08x}-\U{high:08x}" for low, high in merged) + "]"


class _Part(NamedTuple):
    """A part for Python, and how often it repeats what is in it: Go limits the product."""

    written: str
    repeats: int = 1


_BAR = _Part("|")


def _number(digits: str) -> int:
    return int(digits) if len(digits) < 5 else _MOST_REPEATS + 1


class _Parser:
    """One pass over a pattern."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._flags = frozenset[str]()
        self._names: set[str] = set()

    @property
    def _rest(self) -> str:
        return self._pattern[self._at :]

    def _next(self) -> str:
        self._at += 1
        return self._pattern[self._at - 1]

    def whole(self) -> str:
        """The pattern for Python."""
        written = self._alternatives().written
        if self._rest:
            raise _refusal("unexpected )", self._pattern)
        return written

    def _alternatives(self) -> _Part:
        """All up to a `)` or the end."""
        parts: list[_Part] = []
        empty, last = True, ""  # `last`: the text of the last repetition; two in a row are refused
        while self._rest and not self._rest.startswith(")"):
            start = self._at
            count = _COUNT.match(self._pattern, self._at)
            if count is not None or self._rest[0] in "*+?":
                if empty:
                    raise self._repeat_of_nothing(start, count)
                parts.append(self._repeated(parts.pop(), count, last))
                last = self._pattern[start : self._at]
                continue
            found, last = self._one(), ""
            if found is None:
                continue  # flags: what stands before them can still be repeated
            parts += found
            empty = found[-1] == _BAR
        return _Part("".join(part.written for part in parts), max((part.repeats for part in parts), default=1))

    def _one(self) -> list[_Part] | None:
        """What stands here, but a repetition. None: flags."""
        if self._rest.startswith("|"):
            self._at += 1
            return [_BAR]
        if self._rest.startswith(r"\Q"):
            return self._quoted()
        if self._rest.startswith("("):
            return self._group()
        return [_Part(self._atom())]

    def _repeat_of_nothing(self, start: int, count: re.Match[str] | None) -> PatternError:
        self._at = start + 1 if count is None else count.end()
        return _refusal("missing argument to repetition operator", self._with_lazy(start))

    def _repeated(self, inner: _Part, count: re.Match[str] | None, last: str) -> _Part:
        """A part with its repetition, which stands here."""
        start, most = self._at, 1
        if count is None:
            self._at += 1
            written = self._pattern[start]
        else:
            self._at = count.end()
            low, high = _number(count[1]), _number(count[3]) if count[3] else None
            if count[2] is None:
                high = low
            if max(low, high or 0) > _MOST_REPEATS or (high is not None and low > high):
                raise _refusal("invalid repeat count", self._with_lazy(start))
            written = f"{{{low},{'' if high is None else high}}}"
            most = low if high is None else high
        lazy = self._rest.startswith("?")
        self._at += lazy
        if last:
            raise _refusal("invalid nested repetition operator", last + self._pattern[start : self._at])
        if most >= 2 and most * inner.repeats > _MOST_REPEATS:
            raise _refusal("invalid repeat count", self._pattern[start : self._at])
        lazily = "?" if lazy != ("U" in self._flags) else ""
        return _Part(f"(?:{inner.written}){written}{lazily}", max(1, most) * inner.repeats)

    def _with_lazy(self, start: int) -> str:
        return self._pattern[start : self._at + self._rest.startswith("?")]

    def _quoted(self) -> list[_Part] | None:
        """`\\Q…\\E`: each character is a part."""
        inner, _, _ = self._rest[2:].partition(r"\E")
        self._at = min(len(self._pattern), self._at + 2 + len(inner) + 2)
        return [_Part(self._flagged(re.escape(one))) for one in inner] or None

    def _flagged(self, written: str) -> str:
        return f"(?i:{written})" if "i" in self._flags else written

    def _atom(self) -> str:
        sign = self._rest[0]
        if sign == "[":
            return self._flagged(self._bracketed())
        if sign == "\\":
            return self._escaped()
        self._at += 1
        if sign == ".":
            return "(?s:.)" if "s" in self._flags else r"[^\n]"
        if sign == "^":
            return "(?m:^)" if "m" in self._flags else r"\A"
        if sign == "$":
            return "(?m:$)" if "m" in self._flags else r"\Z"
        return self._flagged(re.escape(sign))

    def _group(self) -> list[_Part] | None:
        opened, flags = self._at, self._flags
        self._at += 1
        if self._rest.startswith("?") and not self._open(opened):
            return None
        inner = self._alternatives()
        if not self._rest:
            raise _refusal("missing closing )", self._pattern)
        self._at += 1
        self._flags = flags
        return [_Part(f"(?:{inner.written})", inner.repeats)]

    def _open(self, opened: int) -> bool:
        """What stands between `(?` and the inside of a group. False: it was flags alone."""
        for start in ("?P<", "?<"):
            if self._rest.startswith(start):
                name, closed, _ = self._rest[len(start) :].partition(">")
                if not closed:
                    raise _refusal("invalid named capture", self._pattern[opened:])
                self._at += len(start) + len(name) + 1
                if not _NAME.fullmatch(name):
                    raise _refusal("invalid named capture", self._pattern[opened : self._at])
                if name in self._names:
                    raise _refusal("duplicate capture group name", name)
                self._names.add(name)
                return True
        self._at += 1
        flags, on, seen = set(self._flags), True, False
        while self._rest:
            sign = self._next()
            if sign in "imsU":
                (flags.add if on else flags.discard)(sign)
                seen = True
            elif sign == "-" and on:
                on, seen = False, False
            elif sign in ":)" and (on or seen):
                self._flags = frozenset(flags)
                return sign == ":"
            else:
                break
        else:
            raise _refusal("missing closing )", self._pattern)
        raise _refusal("invalid or unsupported Perl syntax", self._pattern[opened : self._at])

    def _escaped(self) -> str:
        sign = self._pattern[self._at + 1 : self._at + 2]
        if sign and sign in "Az":
            self._at += 2
            return r"\A" if sign == "A" else r"\Z"
        if sign and sign in "bB":
            self._at += 2
            return r"(?a:\b)" if sign == "b" else r"(?!(?a:\b))"
        ranges = self._class_escape()
        if ranges is not None:
            return self._flagged(_class(ranges))
        return self._flagged(re.escape(chr(self._character_escape())))

    def _class_escape(self) -> Ranges | None:
        """`\\d`, `\\pL` and the like; None: it is none of them."""
        start, sign = self._at, self._pattern[self._at + 1 : self._at + 2]
        if sign.lower() in _PERL:
            self._at += 2
            return _PERL[sign] if sign.islower() else _but(_PERL[sign.lower()])
        if sign not in ("p", "P"):
            return None
        self._at += 2
        name = self._rest[:1]
        if name == "{":
            name, closed, _ = self._rest[1:].partition("}")
            if not closed:
                raise _refusal("invalid character class range", self._pattern[start:])
            self._at += len(name) + 2
        else:
            self._at += len(name)
        negated = name.startswith("^")
        ranges = self._named(name.removeprefix("^"), self._pattern[start : self._at])
        return ranges if negated == (sign == "P") else _but(ranges)

    def _named(self, name: str, written: str) -> Ranges:
        if name == "Any":
            return [(0, _LAST)]
        if len(name) < 3 and name[:1] in _CATEGORIES and name[1:] in _CATEGORIES[name[0]]:
            return list(_category(name))
        if len(name) > 2 and name.replace("_", "").isalpha():
            raise PatternError(f"the embedded server knows no {written}")
        raise _refusal("invalid character class range", written)

    def _character_escape(self) -> int:
        """The character of an escape sequence."""
        start = self._at
        self._at += 1
        if not self._rest:
            raise _refusal("trailing backslash at end of expression", "")
        sign = self._next()
        found = None
        if sign in "01234567":
            found = re.compile("0[0-7]{0,2}|[1-7][0-7]{1,2}").match(self._pattern, self._at - 1)
            if found is not None:
                self._at = found.end()
                return int(found[0], 8)
        elif sign == "x":
            found = re.compile(r"([0-9a-fA-F]{2})|\{([0-9a-fA-F]+)\}").match(self._pattern, self._at)
            if found is not None and int(found[1] or found[2], 16) <= _LAST:
                self._at = found.end()
                return int(found[1] or found[2], 16)
        elif sign in _CONTROL:
            return _CONTROL[sign]
        elif sign.isascii() and not sign.isalnum():
            return ord(sign)
        raise _refusal("invalid escape sequence", self._pattern[start : self._at])

    def _bracketed(self) -> str:
        opened = self._at
        self._at += 1
        negated = self._rest.startswith("^")
        self._at += negated
        ranges: Ranges = []
        first = True
        while first or not self._rest.startswith("]"):
            if not self._rest:
                raise _refusal("missing closing ]", self._pattern[opened:])
            first = False
            posix = re.compile(r"\[:(\^?)(.*?):\]", re.DOTALL).match(self._pattern, self._at)
            if posix is not None:
                if posix[2] not in _POSIX:
                    raise _refusal("invalid character class range", posix[0])
                self._at = posix.end()
                ranges += _but(_POSIX[posix[2]]) if posix[1] else _POSIX[posix[2]]
                continue
            named = self._class_escape() if self._rest.startswith("\\") else None
            if named is not None:
                ranges += named
                continue
            ranges.append(self._range(opened))
        self._at += 1
        if not negated:
            return _class(ranges)
        # Where the case doesn't count, Python has to fold what isn't in the class.
        return f"[^{_class(ranges)[1:]}" if "i" in self._flags else _class(_but(ranges))

    def _range(self, opened: int) -> tuple[int, int]:
        start = self._at
        low = self._class_character(opened)
        if not (self._rest.startswith("-") and len(self._rest) > 1 and self._rest[1] != "]"):
            return low, low
        self._at += 1
        high = self._class_character(opened)
        if high < low:
            raise _refusal("invalid character class range", self._pattern[start : self._at])
        return low, high

    def _class_character(self, opened: int) -> int:
        if not self._rest:
            raise _refusal("missing closing ]", self._pattern[opened:])
        return self._character_escape() if self._rest.startswith("\\") else ord(self._next())

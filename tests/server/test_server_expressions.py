"""Expressions as the real server's language reads them: what it refuses before any event, its numbers and texts, its
regular expressions. What is expected here was found by asking expr-lang 1.17.7 and Go's `regexp`."""

from __future__ import annotations

import contextlib
import math
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration_integrations.server import expressions, go_regexps
from orchestration_integrations.server.expressions import ExpressionError
from orchestration_integrations.server.go_regexps import PatternError
from orchestration_integrations.server.values import from_json

from .conftest import WAIT

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import World

    MakeWorld = Callable[..., World]


def value(text: str, **event: Any) -> Any:
    expressions.check(text)
    return expressions.evaluate(text, from_json(event))


def refusal(text: str) -> str:
    with pytest.raises(ExpressionError) as found:
        expressions.check(text)
    return str(found.value)


class TestWhatCannotWorkWhateverTheEvent:
    @pytest.mark.parametrize(
        ("text", "error"),
        [
            ('1 + "a"', 'invalid operation: + (mismatched types int and string) (1:3)\n | 1 + "a"\n | ..^'),
            ("not 1", "invalid operation: not (mismatched type int) (1:1)\n | not 1\n | ^"),
            ("len(1)", "invalid argument for len (type int) (1:1)"),
            ("len()", "invalid number of arguments (expected 1, got 0) (1:1)"),
            ("len(nil)", "invalid argument for len (type %!s(<nil>)) (1:1)"),
            ("upper(1)", "cannot use int as argument (type string) to call upper  (1:7)"),
            ("join(nil)", "cannot use nil as argument (type []string) to call join (1:6)"),
            ('split("a")', "not enough arguments to call split (1:1)"),
            ('trim("a", "b", "c")', "too many arguments to call trim (1:1)"),
            ('replace("a", "b", "c", "d")', "too many arguments to call replace (1:1)"),
            ("first(1)", "cannot get first element from int (1:1)"),
            ("keys(1)", "cannot get keys from int (1:1)"),
            ("abs(true)", "invalid argument for abs (type bool) (1:1)"),
            ("get(event)", "invalid number of arguments (expected 2, got 1) (1:1)"),
            ("get([1], 'a')", "non-integer slice index string (1:10)"),
            ("get({a: 1}, 1)", "cannot use int to get an element from map[string]interface {} (1:13)"),
            ("get({a: 1}, nil)", "cannot use nil as map index (1:13)"),
            ("get(1, 2)", "type int does not support indexing (1:5)"),
            ("event.id and 1", "invalid operation: and (mismatched types unknown and int) (1:10)"),
            ("true or 'a'", "invalid operation: or (mismatched types bool and string) (1:6)"),
            ("event.a > nil", "invalid operation: > (mismatched types unknown and unknown) (1:9)"),
            ("1 == true", "invalid operation: == (mismatched types int and bool) (1:3)"),
            ("1 % 2.0", "invalid operation: % (mismatched types int and float64) (1:3)"),
            ("1 % 0", "integer divide by zero (1:3)"),
            ("-'a'", "invalid operation: - (mismatched type string) (1:1)"),
            ("'a' not in 'abc'", "invalid operation: in (mismatched types string and string) (1:9)"),
            ("'x' in [1]", "cannot use string as type int in array (1:5)"),
            ("1 in {a: 1}", "cannot use int as type string in map key (1:3)"),
            ("1 ? 2 : 3", "non-bool expression (type int) used as condition (1:1)"),
            ("(nil ?? 1) + 'a'", "invalid operation: + (mismatched types int and string) (1:12)"),
            ("(event.a ? 1 : 2) + 'a'", "invalid operation: + (mismatched types int and string) (1:19)"),
            ("split('a', ',')[0] + 1", "invalid operation: + (mismatched types string and int) (1:20)"),
            ("{a: [1 + 'a']}", "invalid operation: + (mismatched types int and string) (1:8)"),
            ("'a'.b", "type string has no field b (1:5)"),
            ("'a'[0]", "type string[int] is undefined (1:4)"),
            ("[1].x", "array elements can only be selected using an integer (got string) (1:5)"),
            ("{a: 1}[1]", "cannot use int to get an element from map[string]interface {} (1:8)"),
            ("nil.x", 'unexpected token Operator(".") (1:4)'),
            ("1[0]", 'unexpected token Operator("[") (1:2)'),
            ("event.id matches '('", "error parsing regexp: missing closing ): `(` (1:10)"),
            ("event.id matches '^(?!test-)'", "error parsing regexp: invalid or unsupported Perl syntax: `(?!` (1:10)"),
            ("1 + 'a' +", "unexpected token EOF (1:9)"),
            ("max(1, 2)", "the embedded server knows no max (1:1)"),
        ],
    )
    def test_is_refused(self, text: str, error: str) -> None:
        assert refusal(text).startswith(error)

    @pytest.mark.parametrize(
        "text",
        [
            "event.a + 1",
            "not event.a",
            "len(event.a)",
            "upper(event.a)",
            "event.a and event.b",
            "event.a matches event.b",
            "(event.a ?? 1) + 'a'",
            "(true ? 1 : 'a') + 'a'",
            "[1, 'a'][0] + 1",
            "{a: 1}.a + 'x'",
            "first([1]) + 'a'",
            "nil in [1]",
            "nil == 1",
            "1 == 1.5",
            "[1] == ['a']",
            "unknown(1)",
            "link(1)",
            "event[nil]",
        ],
    )
    def test_is_accepted_where_an_event_may_fit(self, text: str) -> None:
        expressions.check(text)

    def test_comparisons_in_a_row(self) -> None:
        assert value("1 < event.a <= 3", a=3) is True
        assert value("1 < event.a <= 3", a=4) is False

    @pytest.mark.parametrize("generation", [2, 3])
    @pytest.mark.parametrize("field", ["filter", "vars"])
    def test_is_400_at_creation(self, world: MakeWorld, generation: int, field: str) -> None:
        w = world(generation)
        text = 'event.id matches "^(?!test-)"'
        asked = {"event": "E", "workflowID": w.workflow(WAIT), field: text if field == "filter" else {"a": text}}
        status, code, message = w.error(w.client.post("/triggers", json=asked))
        assert (status, code) == (400, "VALIDATION")
        assert message.startswith(f"validating data: error compiling expression '{text}': error parsing regexp: ")


class TestNumbers:
    @pytest.mark.parametrize(
        ("text", "number"),
        [
            ("1_000", 1000),
            ("08", 8),
            ("0x1F", 31),
            ("0b11", 3),
            ("0o17", 15),
            (".5", 0.5),
            ("5.", 5.0),
            ("1.e3", 1000.0),
        ],
    )
    def test_literals(self, text: str, number: float) -> None:
        assert value(text) == number

    @pytest.mark.parametrize("text", ["1a", "1e", "0x", "0x1.5", "0b2", "9223372036854775808", "1e400"])
    def test_literals_that_are_none(self, text: str) -> None:
        assert re.match("bad number syntax|invalid (float|hex|binary|integer) literal", refusal(text))

    @given(st.from_regex(r"[+-]?[0-9]{1,18}", fullmatch=True))
    def test_int_of_digits(self, text: str) -> None:
        assert value("int(event.s)", s=text) == int(text)

    @given(st.text("0123456789+-_. xe\u0661", max_size=8))
    def test_int_of_anything_else(self, text: str) -> None:
        if not re.fullmatch("[+-]?[0-9]+", text):
            with pytest.raises(ExpressionError, match="invalid operation: int"):
                value("int(event.s)", s=text)

    @pytest.mark.parametrize("text", ["9223372036854775808", "-9223372036854775809", "1" * 5000])
    def test_int_of_too_much(self, text: str) -> None:
        with pytest.raises(ExpressionError, match="invalid operation: int"):
            value("int(event.s)", s=text)

    @pytest.mark.parametrize(
        ("text", "number"), [("1_0", 10), ("0x1p-2", 0.25), ("0x_1.8p0", 1.5), ("-inf", -math.inf), ("1e-400", 0)]
    )
    def test_float(self, text: str, number: float) -> None:
        assert value("float(event.s)", s=text) == number

    @pytest.mark.parametrize("text", [" 1", "1 ", "1__0", "_1", "1_", "1_.5", "1e400", "0x1", "0x1p9999", "\u0661", ""])
    def test_float_of_anything_else(self, text: str) -> None:
        with pytest.raises(ExpressionError, match="invalid operation: float"):
            value("float(event.s)", s=text)

    @given(st.integers(-(2**51), 2**51))
    def test_half_way_is_rounded_away_from_zero(self, whole: int) -> None:
        half = whole + math.copysign(0.5, whole)
        assert value("round(event.n)", n=half) == whole + math.copysign(1, whole)

    @given(st.floats(-1e300, 1e300))
    def test_otherwise_to_the_nearest(self, number: float) -> None:
        assert abs(value("round(event.n)", n=number) - number) <= 0.5
        assert value("round(event.n)", n=-number) == -value("round(event.n)", n=number)

    def test_just_below_half(self) -> None:
        assert value("round(0.49999999999999994)") == 0

    def test_what_is_no_number_is_not_rounded(self) -> None:
        with pytest.raises(ExpressionError, match=r"invalid argument for round \(type string\)"):
            value("round(event.s)", s="2.5")
        with pytest.raises(ExpressionError, match=r"invalid operation: int\(bool\)"):
            value("int(event.b)", b=True)

    def test_whole_numbers_have_64_bits(self) -> None:
        assert value("9223372036854775807 + 1") == -(2**63)
        assert value("int(event.n)", n=1e30) == -(2**63)


class TestTexts:
    @pytest.mark.parametrize(
        ("text", "meant"),
        [
            (r'"\x41\u00e9\n"', "Aé\n"),
            (r'"\101\u{1F600}\U0001F600"', "A\U0001f600\U0001f600"),
            (r"'it\'s'", "it's"),
            ("`a\\n``b`", "a\\n`b"),
            (r'"\\d"', r"\d"),
        ],
    )
    def test_escapes(self, text: str, meant: str) -> None:
        assert value(text) == meant

    @pytest.mark.parametrize("text", [r"'\q'", r"'\x4'", r"'\u00e'", r"""'\"'""", r"'\8'", r"'\d'"])
    def test_an_escape_that_nobody_knows(self, text: str) -> None:
        assert refusal(text).startswith("invalid char escape (1:3)")

    def test_one_beyond_unicode(self) -> None:
        assert refusal(r"'\u{110000}'").startswith("unable to unescape string")

    @pytest.mark.parametrize("text", ["'a", '"a\nb"', "`a"])
    def test_one_without_an_end(self, text: str) -> None:
        assert refusal(text).startswith("literal not terminated")

    @given(st.characters(exclude_categories=["Cs"]))
    def test_any_character_by_its_number(self, character: str) -> None:
        assert value(rf'"\U{ord(character):08x}"') == character


class TestPatterns:
    @pytest.mark.parametrize(
        ("pattern", "error"),
        [
            ("(?!a)", "invalid or unsupported Perl syntax: `(?!`"),
            ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
            ("(?<=a)", "invalid named capture: `(?<=a)`"),
            ("(?<!a)", "invalid named capture: `(?<!a)`"),
            ("(?>a)", "invalid or unsupported Perl syntax: `(?>`"),
            ("(?#a)", "invalid or unsupported Perl syntax: `(?#`"),
            ("(?x)a", "invalid or unsupported Perl syntax: `(?x`"),
            ("(?-)a", "invalid or unsupported Perl syntax: `(?-)`"),
            ("(?P=n)", "invalid or unsupported Perl syntax: `(?P`"),
            (r"(a)\1", r"invalid escape sequence: `\1`"),
            (r"a\Z", r"invalid escape sequence: `\Z`"),
            ("a++", "invalid nested repetition operator: `++`"),
            ("a{2}{3}", "invalid nested repetition operator: `{2}{3}`"),
            ("*a", "missing argument to repetition operator: `*`"),
            ("(|+)", "missing argument to repetition operator: `+`"),
            ("a{1001}", "invalid repeat count: `{1001}`"),
            ("a{3,2}", "invalid repeat count: `{3,2}`"),
            ("(a{100}){100}", "invalid repeat count: `{100}`"),
            ("(a", "missing closing ): `(a`"),
            ("a)", "unexpected ): `a)`"),
            ("[a", "missing closing ]: `[a`"),
            ("[b-a]", "invalid character class range: `b-a`"),
            ("[[:foo:]]", "invalid character class range: `[:foo:]`"),
            ("(?P<n>a)(?P<n>b)", "duplicate capture group name: `n`"),
            ("a\\", "trailing backslash at end of expression: ``"),
        ],
    )
    def test_what_is_refused(self, pattern: str, error: str) -> None:
        with pytest.raises(PatternError) as found:
            go_regexps.compiled(pattern)
        assert str(found.value) == f"error parsing regexp: {error}"

    def test_a_class_that_is_not_imitated(self) -> None:
        with pytest.raises(PatternError, match=r"^the embedded server knows no \\p\{Greek\}"):
            go_regexps.compiled(r"\p{Greek}")

    @pytest.mark.parametrize(
        ("pattern", "fits", "fails"),
        [
            ("a$", "a", "a\n"),
            (r"a\z", "a", "a\n"),
            ("(?m)^b$", "a\nb\n", "a\nbc"),
            (r"^\d$", "1", "\u0661"),
            (r"^\w$", "a", "é"),
            (r"^\s$", "\t", "\v"),
            ("a.b", "axb", "a\nb"),
            ("(?s)a.b", "a\nb", "ab"),
            ("a(?i)b|c", "C", "A"),
            ("(a(?i)b)c", "aBc", "aBC"),
            ("(?i:é)", "É", "e"),
            ("(?i)[^a]", "b", "A"),
            (r"^\Qa.b\E+$", "a.bb", "axb"),
            ("^[[:alpha:]_]+$", "a_B", "é"),
            (r"^\p{Lu}$", "É", "é"),
            (r"^\P{Lu}$", "é", "É"),
            (r"^\pN$", "\u0661", "a"),
            (r"^[^\D5]$", "1", "5"),
            ("^[]a]$", "]", "b"),
            ("^[a-]$", "-", "b"),
            ("^a{,2}$", "a{,2}", "aa"),
            ("^a{02}$", "a{02}", "aa"),
            ("^*a", "ba", "b"),
            ("^a{2}(?i)+$", "aaaa", "a"),
            (r"^\x{e9}\101$", "éA", "é"),
            ("^(?P<n>a)(?<m>b)$", "ab", "a"),
            ("(?U)^a+$", "aa", "b"),
            (r"^\B$", "", "a"),
        ],
    )
    def test_what_they_mean(self, pattern: str, fits: str, fails: str) -> None:
        assert go_regexps.compiled(pattern).search(fits)
        assert not go_regexps.compiled(pattern).search(fails)

    @given(st.text(max_size=20), st.text(max_size=20))
    def test_quoted(self, text: str, other: str) -> None:
        inner = text.replace("\\E", "")
        found = go_regexps.compiled(rf"\A\Q{inner}\E\z") if not inner.endswith("\\") else None
        if found is not None:
            assert found.search(inner)
            assert bool(found.search(other)) == (other == inner)

    @given(st.text("ab1(|)[]^$.*+?{},-\\dwsz:iU", max_size=12))
    def test_whatever_is_accepted_can_be_used(self, pattern: str) -> None:
        with contextlib.suppress(PatternError):
            go_regexps.compiled(pattern).search("ab1")

    def test_a_deep_one(self) -> None:
        with pytest.raises(PatternError, match="nests too deeply"):
            go_regexps.compiled("(" * 900 + ")" * 900)

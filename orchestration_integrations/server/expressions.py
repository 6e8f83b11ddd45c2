"""The small expression language of triggers: `event.amount > 100`, `event.id`, `"x"`.

A subset of the real one: literals, `event` and its fields, comparisons, `and`/`or`/`not` (also `&&`, `||`, `!`),
`in`, sums and products. Nothing can be called.
"""

from __future__ import annotations

import ast
import operator
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_STRINGS = re.compile(r"(\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*')")
_WORDS = re.compile(r"&&|\|\||!(?!=)|\btrue\b|\bfalse\b|\bnil\b")
_PYTHON = {"&&": " and ", "||": " or ", "!": " not ", "true": "True", "false": "False", "nil": "None"}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}
_MAX_LENGTH = 2000


class ExpressionError(ValueError):
    """An expression that doesn't compile, or can't be evaluated on this event."""


def compile_expression(text: str) -> ast.expr:
    """Parse an expression. ExpressionError."""
    if len(text) > _MAX_LENGTH:
        raise ExpressionError("expression too long")
    parts = _STRINGS.split(text)
    parts[::2] = [_WORDS.sub(lambda m: _PYTHON[m[0]], part) for part in parts[::2]]
    try:
        tree = ast.parse("".join(parts).strip(), mode="eval").body
        for node in ast.walk(tree):
            _check(node)
    except SyntaxError as error:
        column = error.offset or len(text)
        where = f" (1:{column})\n | {text}\n | {'.' * (column - 1)}^"
        raise ExpressionError(f"unexpected token{' EOF' if column >= len(text) else ''}{where}") from None
    except (RecursionError, MemoryError, ValueError) as error:
        raise ExpressionError(str(error) or "expression too complex") from None
    return tree


def _check(node: ast.AST) -> None:
    if isinstance(node, ast.Name):
        if node.id != "event":
            raise ExpressionError(f"unknown name {node.id}")
    elif not isinstance(
        node,
        (
            ast.Constant,
            ast.Attribute,
            ast.Subscript,
            ast.BoolOp,
            ast.UnaryOp,
            ast.BinOp,
            ast.Compare,
            ast.List,
            ast.expr_context,
            ast.boolop,
            ast.unaryop,
            ast.operator,
            ast.cmpop,
        ),
    ):
        raise ExpressionError(f"unexpected {type(node).__name__.lower()}")


def evaluate(text: str, event: Mapping[str, Any]) -> Any:
    """The value of an expression on an event's payload. ExpressionError."""
    tree = compile_expression(text)
    try:
        return _value(tree, event)
    except ExpressionError:
        raise
    except (TypeError, KeyError, IndexError, ZeroDivisionError, OverflowError, RecursionError) as error:
        raise ExpressionError(f"cannot evaluate {text!r}: {error}") from None


def _value(node: ast.AST, event: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return event
    if isinstance(node, ast.Attribute):
        owner = _value(node.value, event)
        return owner.get(node.attr) if isinstance(owner, dict) else None
    if isinstance(node, ast.Subscript):
        return _value(node.value, event)[_value(node.slice, event)]
    if isinstance(node, ast.List):
        return [_value(item, event) for item in node.elts]
    if isinstance(node, ast.BoolOp):
        values = (_value(item, event) for item in node.values)
        return all(values) if isinstance(node.op, ast.And) else any(values)
    if isinstance(node, ast.UnaryOp):
        inner = _value(node.operand, event)
        return (not inner) if isinstance(node.op, ast.Not) else -inner
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        return _BINARY[type(node.op)](_value(node.left, event), _value(node.right, event))
    if isinstance(node, ast.Compare):
        left = _value(node.left, event)
        for op, right_node in zip(node.ops, node.comparators, strict=True):
            right = _value(right_node, event)
            if type(op) not in _COMPARE or not _COMPARE[type(op)](left, right):
                return False
            left = right
        return True
    raise ExpressionError(f"unexpected {type(node).__name__.lower()}")


def as_text(value: Any) -> str:
    """A value as a run's variable."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return ""
    return str(value)

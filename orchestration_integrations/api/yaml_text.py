"""Definitions as YAML or JSON text: what is read is what stands there, and no text can make reading it dear.

A number means what a person reads. YAML 1.1 takes 0100 for 64, 1:30 for 90 and 1_000 for 1000, and YAML 1.2 takes
0899 for 899 where 1.1 takes it for a text: as an amount each pays another sum than one of its readers thinks. So an
integer is written in plain decimal digits, and whatever else some YAML takes for an integer is refused. A date stays
the text that it is. What is written here is quoted by the same rule, so that it can be read again.

A few lines of nested aliases can stand for gigabytes once they are followed, so nodes are counted as they expand, and
before that as they are read: PyYAML takes seconds for a megabyte of small nodes. A key that stands twice is an error:
the second would silently win.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .errors import ConfigurationError, ValidationError

if TYPE_CHECKING:
    from yaml import SafeDumper
    from yaml.nodes import Node

MAX_NODES = 20_000
"""Nodes that a definition may have once all its aliases are followed."""
MAX_BYTES = 2_000_000
"""Of a definition's text, as UTF-8."""

_DECIMAL = re.compile(r"0|-?[1-9][0-9]*", re.ASCII)
_ODD_INTEGER = re.compile(r"[-+]?0[0-9_]+|0o[0-7_]+", re.ASCII)
"""Integers to YAML 1.2 that are texts to 1.1, beside octal ones of 1.1."""
_INT, _FLOAT, _TIMESTAMP = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp"
_ODD_FLOAT = re.compile(r".*[_:].*", re.ASCII)
"""Digits in groups, and numbers to the base of 60."""


def parse_definition(text: str, where: str = "definition") -> Any:
    """The value that YAML (or JSON, which is YAML) text stands for. Dates stay texts.

    Args:
        text: one document, of at most ``MAX_BYTES`` and ``MAX_NODES``.
        where: what the text is, for messages: a file name.

    Raises:
        ValidationError: no valid YAML, an unsafe tag, a repeated key, too many nodes, or an integer that is not in
            plain decimal digits: then ``path`` is the field, and the message names its line.
        ConfigurationError: PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError:
        raise ConfigurationError("reading YAML needs the package PyYAML", field="definition") from None
    # A character is at least a byte: a long text need not be encoded to be refused.
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise too_long(where, where)
    try:
        loader = _loader()(text)
        loader.where = where
        try:
            node = loader.get_single_node()
            if node is None:
                raise ValidationError(f"{where}: no document", path=where)
            _check(node, where)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        # The message quotes the text: only its kind and place are told.
        mark = getattr(error, "problem_mark", None)
        at = f" in line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or type(error).__name__
        raise ValidationError(f"{where}: no valid YAML{at}: {problem}", path=where) from None
    except RecursionError:
        raise ValidationError(f"{where}: nested too deeply", path=where) from None
    except ValueError as error:
        raise ValidationError(f"{where}: no valid YAML: {error}", path=where) from None


def definition_text(value: object) -> str:
    """YAML text of a JSON value; ``parse_definition`` reads the same value from it, if its texts are printable."""
    import yaml

    return str(yaml.dump(value, Dumper=_dumper(), sort_keys=True, allow_unicode=True, width=110))


def too_long(where: str, path: str) -> ValidationError:
    """The error for a text of more than ``MAX_BYTES``."""
    return ValidationError(f"{where}: has more than {MAX_BYTES // 10**6} MB, too much for a definition", path=path)


def _too_many(where: str) -> ValidationError:
    return ValidationError(
        f"{where}: more than {MAX_NODES:,} nodes (mappings, lists, keys and values) once aliases are followed; that "
        f"is too much for one definition: write fewer stages",
        path=where,
    )


def _resolvers(given: dict[str, list[Any]]) -> dict[str | None, list[Any]]:
    """PyYAML's rules for plain scalars, by their first character; the first that fits is taken."""
    own: dict[str | None, list[Any]] = {
        first: [rule for rule in rules if rule[0] != _TIMESTAMP] for first, rules in given.items()
    }
    for first in "-+0":
        own[first] = [(_INT, re.compile(rf"(?:{_ODD_INTEGER.pattern})$")), *own.get(first, [])]
    return own


@lru_cache(maxsize=1)
def _loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = _resolvers(yaml.SafeLoader.yaml_implicit_resolvers)
        where = "definition"
        nodes = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            self.nodes += 1
            if self.nodes > MAX_NODES:
                raise _too_many(self.where)
            return super().compose_node(parent, index)

    Loader.add_constructor(_TIMESTAMP, Loader.construct_scalar)  # type: ignore[type-var]
    return Loader


@lru_cache(maxsize=1)
def _dumper() -> type[SafeDumper]:
    import yaml

    class Dumper(yaml.SafeDumper):
        yaml_implicit_resolvers = _resolvers(yaml.SafeDumper.yaml_implicit_resolvers)

    return Dumper


def _check(root: Node, where: str) -> None:
    """Look at each node once, and weigh it, children first; an alias weighs what it stands for."""
    from yaml.nodes import MappingNode, ScalarNode, SequenceNode

    weights: dict[int, int] = {}
    open_nodes: set[int] = set()

    def weigh(node: Node, path: str) -> int:
        if id(node) in weights:
            return weights[id(node)]
        if id(node) in open_nodes:
            raise ValidationError(f"{where}: an alias contains itself", path=where)
        open_nodes.add(id(node))
        total = 1
        if isinstance(node, SequenceNode):
            total += sum(weigh(child, f"{path}[{number}]") for number, child in enumerate(node.value))
        elif isinstance(node, MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                below = path
                if isinstance(key, ScalarNode):
                    if key.value in keys:
                        raise ValidationError(
                            f"{where}: the key {key.value!r} stands twice, in line {key.start_mark.line + 1}",
                            path=where,
                        )
                    keys.add(key.value)
                    below = f"{path}.{key.value}" if path else key.value
                total += weigh(key, below) + weigh(value, below)
        elif _is_odd(node):
            raise _no_decimal(node, where, path)
        open_nodes.discard(id(node))
        if total > MAX_NODES:
            raise _too_many(where)
        weights[id(node)] = total
        return total

    weigh(root, "")


def _is_odd(node: Node) -> bool:
    """Whether YAML reads another number than people do."""
    if node.tag == _INT:
        return _DECIMAL.fullmatch(node.value) is None
    return bool(node.tag == _FLOAT and _ODD_FLOAT.fullmatch(node.value))


def _no_decimal(node: Node, where: str, path: str) -> ValidationError:
    line = f"line {node.start_mark.line + 1}"
    return ValidationError(
        f"{where}: {line}{', ' if path else ''}{path}: a number must be in plain decimal digits, without a leading "
        "zero, a plus, underscores or colons, since YAML would read another number (0100 as 64, 1:30 as 90); write it "
        "in quotes to mean a text, or in decimal digits",
        path=path or where,
    )

"""Definitions as YAML or JSON text, read by a safe loader whose aliases cannot blow up.

A few lines of nested aliases can stand for gigabytes once they are followed, so nodes are counted as
they expand. A key that stands twice is an error: the second would silently win.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import ConfigurationError, ValidationError

if TYPE_CHECKING:
    from yaml.nodes import Node

MAX_NODES = 20_000
"""Nodes that a definition may have once all its aliases are followed."""


def parse_definition(text: str, where: str = "definition") -> Any:
    """The value that YAML (or JSON, which is YAML) text stands for.

    Args:
        text: one document.
        where: what the text is, for messages: a file name.

    Raises:
        ValidationError: no valid YAML, an unsafe tag, a repeated key, too many nodes.
        ConfigurationError: PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError:
        raise ConfigurationError("reading YAML needs the package PyYAML", field="definition") from None
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                raise ValidationError(f"{where}: no document", path=where)
            _count(node, where)
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


def _count(root: Node, where: str) -> None:
    """Weigh each node once, children first; an alias weighs what it stands for."""
    from yaml.nodes import MappingNode, ScalarNode, SequenceNode

    weights: dict[int, int] = {}
    open_nodes: set[int] = set()

    def weigh(node: Node) -> int:
        if id(node) in weights:
            return weights[id(node)]
        if id(node) in open_nodes:
            raise ValidationError(f"{where}: an alias contains itself", path=where)
        open_nodes.add(id(node))
        total = 1
        if isinstance(node, SequenceNode):
            total += sum(weigh(child) for child in node.value)
        elif isinstance(node, MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                if isinstance(key, ScalarNode):
                    if key.value in keys:
                        raise ValidationError(
                            f"{where}: the key {key.value!r} stands twice, in line {key.start_mark.line + 1}",
                            path=where,
                        )
                    keys.add(key.value)
                total += weigh(key) + weigh(value)
        open_nodes.discard(id(node))
        if total > MAX_NODES:
            raise ValidationError(f"{where}: more than {MAX_NODES} nodes once aliases are followed", path=where)
        weights[id(node)] = total
        return total

    weigh(root)

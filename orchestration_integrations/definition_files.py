"""Definitions that stand in text or in a file, read in one way for every face."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from .api.errors import ValidationError
from .api.yaml_text import parse_definition


def read_definition(definition: object, path: object, *, folders: Sequence[str] = ()) -> Mapping[str, Any]:
    """A definition that is given as a mapping, as YAML or JSON text, or as a file of one. Exactly one is given.

    Args:
        definition: mapping or text; None or an empty text for none.
        path: of a file; None or an empty text for none.
        folders: where a relative path is looked for, in this order; by default in the process's working folder.

    Raises:
        ValidationError: none or both are given, the file cannot be read, or it holds no definition. ``path`` names the
            argument.
    """
    if (definition in (None, "")) == (path in (None, "")):
        raise ValidationError("give exactly one of definition and path", path="definition")
    found = definition
    if definition in (None, ""):
        found = parse_definition(*_text_of_file(path, folders))
    elif isinstance(definition, str):
        found = parse_definition(definition)
    if not isinstance(found, Mapping) or not found:
        raise ValidationError(
            f"a definition must be a mapping with stages, not a {type(found).__name__}",
            path="definition" if path in (None, "") else "path",
        )
    return found


def _text_of_file(path: object, folders: Sequence[str]) -> tuple[str, str]:
    """The text of a file, and where it was found."""
    if not isinstance(path, str | os.PathLike):
        raise ValidationError(f"path must be the path of a file, not a {type(path).__name__}", path="path")
    name = os.path.expanduser(os.fspath(path))
    places = [name] if os.path.isabs(name) or not folders else [os.path.join(folder, name) for folder in folders]
    place = next((candidate for candidate in places if os.path.exists(candidate)), None)
    if place is None:
        raise ValidationError(f"path: there is no file {' or '.join(places)}", path="path")
    try:
        with open(place, encoding="utf-8-sig") as file:
            return file.read(), place
    except (OSError, UnicodeDecodeError) as error:
        raise ValidationError(f"path: {place} cannot be read: {error}", path="path") from None

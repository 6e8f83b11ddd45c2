"""Definitions that stand in text or in a file, read in one way for every face."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from .api.errors import ValidationError
from .api.yaml_text import MAX_BYTES, parse_definition, too_long
from .bounded_files import bytes_of_file

SUFFIXES = (".yaml", ".yml", ".json")
"""What the name of a file with a definition ends with, where a text could be either."""


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
        found = parse_definition(*text_of_file(path, folders))
    elif isinstance(definition, str):
        found = parse_definition(definition)
    if not isinstance(found, Mapping) or not found:
        raise ValidationError(
            f"a definition must be a mapping with stages, not a {type(found).__name__}; path= names a file",
            path="definition" if path in (None, "") else "path",
        )
    return found


def names_file(text: object, suffixes: Sequence[str] = SUFFIXES) -> bool:
    """Whether a text is the name of a file, and not a definition that happens to end like one.

    A definition has more than one line, or begins as a mapping in braces, or has a key with its colon.
    """
    if not isinstance(text, str) or not text.endswith(tuple(suffixes)) or "\n" in text or ": " in text:
        return False
    begin = text.lstrip()
    return not begin.startswith(("{", "[")) or begin.startswith("{{")


def text_of_file(path: object, folders: Sequence[str] = (), field: str = "path") -> tuple[str, str]:
    """The text of a file, and where it was found.

    Args:
        path: text or path object.
        folders: as of ``read_definition``.
        field: the argument that holds the path, for messages.

    Raises:
        ValidationError: it is no path, there is no such file, it is a device, it is larger than a definition may be, or
            it is no UTF-8 text.
    """
    if not isinstance(path, str | os.PathLike):
        raise ValidationError(f"{field} must be the path of a file, not a {type(path).__name__}", path=field)
    name = os.path.expanduser(os.fspath(path))
    places = [name] if os.path.isabs(name) or not folders else [os.path.join(folder, name) for folder in folders]
    place = next((candidate for candidate in places if os.path.exists(candidate)), None)
    if place is None:
        raise ValidationError(f"{field}: there is no file {' or '.join(places)}", path=field)
    try:
        found = bytes_of_file(place, MAX_BYTES + 1)
        text = found.decode("utf-8-sig") if len(found) <= MAX_BYTES else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ValidationError(f"{field}: {place} cannot be read: {error}", path=field) from None
    if len(found) > MAX_BYTES:
        raise too_long(f"{field}: {place}", field)
    return text.replace("\r\n", "\n").replace("\r", "\n"), place

"""What somebody gave in the place of an id. Calls return objects that hold one, and these are passed on by a slip."""

from __future__ import annotations

from collections.abc import Mapping


def not_an_id(value: object, field: str) -> str:
    """How an error names a value that is no id, with what to give instead.

    Args:
        value: as it was given.
        field: which id is wanted, such as ``instance_id``.
    """
    if isinstance(value, Mapping):
        held = next((name for name in (field, "id") if isinstance(value.get(name), str)), None)
        return f"a {type(value).__name__}" + (f": give its [{held!r}]" if held is not None else "")
    for path in ("id", "instance_id", f"{field.removesuffix('_id')}.id"):
        held_there: object = value
        for name in path.split("."):
            held_there = getattr(held_there, name, None)
        if isinstance(held_there, str):
            return f"{type(value).__name__}: give its .{path}"
    shown = repr(value)
    return shown if len(shown) <= 100 else f"{shown[:100]}…"

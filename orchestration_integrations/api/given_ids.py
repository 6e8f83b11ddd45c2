"""What somebody gave in the place of an id. Calls return objects that hold one, and these are passed on by a slip."""

from __future__ import annotations

import re
from collections.abc import Mapping

_UUID = re.compile(r"[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


def no_workflow_id_text(given: str) -> str:
    """What is to be said where the server knows no such workflow and the text can be no id; empty where it can be one.

    The command line takes a name wherever it takes an id, so people give names elsewhere too.
    """
    if _UUID.fullmatch(given):
        return ""
    return (
        f"{given!r} is no id, which is a UUID. If it is the name of a workflow: list_workflows tells its id, the only "
        "text that is taken here. run_once takes the definition itself too, as a mapping; the command line takes the "
        "name of a workflow and a file, and so do Airflow's operators that run one: workflow_name, path"
    )


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
    if hasattr(value, "__await__"):
        return f"a {type(value).__name__}: await what gives the {field.removesuffix('_id')} first"
    shown = repr(value)
    return shown if len(shown) <= 100 else f"{shown[:100]}…"

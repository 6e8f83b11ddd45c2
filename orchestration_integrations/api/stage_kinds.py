"""The kinds of stage that the server has, and what an error says of another one."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from .closest import did_you_mean

STAGE_FIELDS: Mapping[str, Collection[str]] = {
    "send": {"source", "destination", "amount", "metadata", "timestamp"},
    "delay": {"duration", "until"},
    "wait_event": {"event"},
    "update": {"account"},
}
"""The fields of each kind."""


def unknown_kinds_text(definition: Mapping[str, object]) -> str:
    """What is to be said where the server refuses a definition whose stages are of unknown kinds; empty where none is.

    The server may grow, so this is no reason to refuse it here.
    """
    stages = definition.get("stages")
    kinds = [
        kind
        for stage in (stages if isinstance(stages, list | tuple) else ())
        for kind in (stage if isinstance(stage, Mapping) else ())
        if kind not in STAGE_FIELDS
    ]
    each = (f"{kind}: unknown kind of stage{did_you_mean(kind, STAGE_FIELDS)}" for kind in dict.fromkeys(kinds))
    return "; ".join((*each, f"the known kinds are {', '.join(STAGE_FIELDS)}")) if kinds else ""

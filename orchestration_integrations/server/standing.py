"""Where a run stands that has not ended, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .state import Instance


def where_it_stands(instance: Instance) -> str:
    """What a run does now, as the rest of a sentence that begins with it. Not for one that has ended."""
    run = instance.runs.get(max(instance.runs, default=-1))
    if run is None:
        return "has begun no stage"
    if run.terminated_ns is not None:
        return f"is about to leave stage {run.number} ({run.kind})"
    if run.kind == "wait_event":
        return f"waits for the event {run.resolved['event']!r} in stage {run.number}"
    failing = next((one for one in reversed(run.activities) if one.last_failure), None)
    if failing is not None:
        times = "once" if failing.attempt == 2 else f"{failing.attempt - 1} times"
        return f"has failed {times} in stage {run.number} ({run.kind}), and tries again: {failing.last_failure}"
    return f"is in stage {run.number} ({run.kind})"

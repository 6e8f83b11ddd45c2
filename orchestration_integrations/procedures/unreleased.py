"""Runs that wait at their gate for a release that nobody sent."""

from __future__ import annotations

from ..api.calls import get_instance_history
from ..api.models import Instance
from .effects import Now, Procedure, insist
from .gate import OPENING, parsed_event
from .listing import Versions, snapshot


def unreleased(
    workflow_id: str, versions: Versions, now: Now, until: float
) -> Procedure[tuple[tuple[Instance, str], ...]]:
    """(instance, run key) of each run of a gated workflow that still waits for its release, oldest first.

    Lost submits leave such runs; they move nothing. One history call per running instance.
    """
    waiting: list[tuple[Instance, str]] = []
    for row in (yield from snapshot(workflow_id, versions, now, until)):
        if row.terminated:
            continue
        history = yield from insist(get_instance_history(row.id, versions.plain, strict=True), now, until)
        event = history[0].input.get("event") if history and history[0].name == "RunWaitEvent" else None
        if isinstance(event, str) and event.startswith(OPENING) and not history[0].terminated:
            gate = parsed_event(event)
            waiting.append((row, gate.key if gate is not None else event.removeprefix(OPENING)))
    waiting.sort(key=lambda pair: (pair[0].created_at, pair[0].id))
    return tuple(waiting)

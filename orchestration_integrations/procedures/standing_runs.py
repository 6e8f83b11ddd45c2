"""Runs that stand still: at their gate, for a release that nobody sent, or at a checkpoint."""

from __future__ import annotations

from ..api.calls import get_instance_history
from ..api.instants import UNKNOWN_INSTANT
from ..api.models import Instance, StageRun, StandingRun
from .effects import Now, Procedure, insist
from .gate import OPENING, parsed_checkpoint, parsed_event
from .listing import Versions, snapshot


def standing_runs(workflow_id: str, versions: Versions, now: Now, until: float) -> Procedure[tuple[StandingRun, ...]]:
    """The runs of a gated workflow that stand at their gate or at a checkpoint, the oldest first.

    They move nothing. A lost submit leaves a run at its gate; a stop, or the end of its waiter, leaves one at a
    checkpoint. One history call per running instance.
    """
    found: list[StandingRun] = []
    for row in (yield from snapshot(workflow_id, versions, now, until)):
        if row.terminated:
            continue
        history = yield from insist(get_instance_history(row.id, versions.plain, strict=True), now, until)
        last = history[-1] if history else None
        standing = _standing(row, last) if last is not None and last.name == "RunWaitEvent" else None
        if standing is not None:
            found.append(standing)
    found.sort(key=lambda one: (one.instance.created_at, one.instance.id))
    return tuple(found)


def _standing(row: Instance, last: StageRun) -> StandingRun | None:
    event = last.input.get("event")
    if last.terminated or not isinstance(event, str) or not event.startswith(OPENING):
        return None
    since = None if last.started_at == UNKNOWN_INSTANT else last.started_at
    behind = parsed_checkpoint(event)
    if behind is not None:
        return StandingRun(instance=row, run_key=behind[0].key, checkpoint=behind[1], since=since)
    gate = parsed_event(event)
    key = gate.key if gate is not None else event.removeprefix(OPENING)
    return StandingRun(instance=row, run_key=key, checkpoint=None, since=since)

"""Runs that stand still: at their gate, for a release that nobody sent, or at a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

from ..api.calls import get_instance_history
from ..api.instants import UNKNOWN_INSTANT
from ..api.models import Instance, StageRun, StandingRun
from .effects import Now, Procedure, insist
from .gate import checkpoint_of, gate_of, stands_at_gate
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
        standing = _standing(row, history)
        if standing is not None:
            found.append(standing)
    found.sort(key=lambda one: (one.instance.created_at, one.instance.id))
    return tuple(found)


def _standing(row: Instance, history: Sequence[StageRun]) -> StandingRun | None:
    gate, checkpoint = gate_of(history), checkpoint_of(history)
    if gate is None or (checkpoint is None and not stands_at_gate(history)):
        return None
    since = None if history[-1].started_at == UNKNOWN_INSTANT else history[-1].started_at
    return StandingRun(instance=row, run_key=gate.key, checkpoint=checkpoint, since=since)

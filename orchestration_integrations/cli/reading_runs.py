"""Reading runs for ``reconcile``: which workflows and rows are looked at, and what each row and history say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from ..api.calls import get_instance_history, get_stage_history
from ..api.errors import NotFoundError, OrchestrationError, is_denial, is_gateways_404, summary
from ..api.instants import UNKNOWN_INSTANT
from ..procedures.effects import do
from ..procedures.ends import describe_failing
from ..procedures.gate import is_gate
from ..procedures.ghosts import is_old
from ..procedures.moved import READS, STILL
from ..procedures.start import earliest_of
from ..procedures.wording import in_flight_text
from . import notices
from .findings import Seen, seen_of
from .judging import is_lost_submit
from .targets import workflows_of

if TYPE_CHECKING:
    from ..api.models import Instance, StageRun, Workflow
    from ..http_hook import OrchestrationHttpHook
    from ..ownership.record import RunRecord


class Scope(msgspec.Struct):
    """Which runs of one workflow are looked at, besides those that are on record.

    Attributes:
        gated: they wait at a gate, which names their key.
        since: those that were created since then; None: no other.
        running: those that still run, however old they are.
        hidden: the workflow was deleted or is unknown, so the server shows none of its runs.
    """

    gated: bool
    since: datetime | None
    running: bool
    hidden: bool = False


def scopes_of(
    hook: OrchestrationHttpHook,
    workflow: str | None,
    since: datetime,
    records: Sequence[RunRecord],
    *,
    everywhere: bool,
) -> dict[str, Scope]:
    """What is looked at, by the id of the workflow: what was asked for, and where runs of these records may be.

    A run without a gate shows no key, so a submit whose fate is unknown may be any run since then.

    Args:
        workflow: the id or the name that was given; None: all workflows that have a gate.
        since: how far one wants to look back.
        records: those that are asked for.
        everywhere: their workflows are looked at although another one was given.
    """
    if workflow is not None:
        asked: Sequence[Workflow] = workflows_of(hook, workflow)
    else:
        asked = [one for one in hook.list_workflows() if _is_gated(one)]
    found = {one.id: Scope(_is_gated(one), since, True, one.deleted_at is not None) for one in asked}
    for record in records:
        if record.workflow_id not in found:
            if not record.workflow_id or (workflow is not None and not everywhere):
                continue
            found[record.workflow_id] = Scope(bool(record.gate), None, False, _is_hidden(hook, record.workflow_id))
        if is_lost_submit(record):
            scope = found[record.workflow_id]
            earliest = earliest_of(record.since, hook.plans.clock)
            scope.since = earliest if scope.since is None else min(scope.since, earliest)
    return found


def _is_gated(workflow: Workflow) -> bool:
    return bool(workflow.stages) and is_gate(workflow.stages[0])


def _is_hidden(hook: OrchestrationHttpHook, workflow_id: str) -> bool:
    """Whether the server hides the workflow of a record: it was deleted, or is another server's."""
    try:
        return hook.get_workflow(workflow_id).deleted_at is not None
    except NotFoundError as error:
        if is_gateways_404(error):
            raise
        return True


def runs_of(hook: OrchestrationHttpHook, scopes: Mapping[str, Scope], records: Sequence[RunRecord]) -> Iterator[Seen]:
    """Each run, with what its history says: one call for each, and one more where a payment may be failing."""
    named = {one.instance_id for one in records}
    wanted = [
        (row, scope)
        for workflow_id, scope in scopes.items()
        if not scope.hidden
        for row in hook.list_instances(workflow_id)
        if row.id in named
        or (scope.since is not None and (row.created_at >= scope.since or row.created_at == UNKNOWN_INSTANT))
        or (scope.running and not row.terminated)
    ]
    for number, (row, scope) in enumerate(wanted):
        if notices.on_terminal() and number and number % 200 == 0:
            notices.tell(f"{number} of {len(wanted)} instances are read")
        yield seen_run(hook, row, gated=scope.gated)


def seen_run(hook: OrchestrationHttpHook, row: Instance, *, gated: bool) -> Seen:
    """What a run shows. What decides a finding is read strictly: a part that cannot be read is ``trouble``."""
    call = get_instance_history(row.id, hook.plans.versions.plain, strict=True)
    try:
        history = hook.perform(do(call, retried=True))
    except OrchestrationError as error:
        denied = is_denial(error)
        ghost = denied and not row.terminated and not row.status and is_old(row, hook.plans.clock.server_time(), 0.0)
        if ghost:
            return Seen(instance=row, ghost=True)
        forgotten = denied and row.terminated
        trouble = f"its history cannot be read: {summary(error)}"
        if forgotten:
            trouble = f"it has ended ({row.state}), and the engine keeps no history of it any more"
        return Seen(instance=row, forgotten=forgotten, trouble=trouble)
    try:
        failing = _failing(hook, row, history)
    except OrchestrationError as error:
        trouble = f"whether a payment of it is under way cannot be read: {summary(error)}"
        return seen_of(row, history, trouble=trouble, gated=gated)
    return seen_of(row, history, failing, gated=gated)


def _failing(hook: OrchestrationHttpHook, row: Instance, history: Sequence[StageRun]) -> str:
    """The last failure of a payment that is tried again, or what was under way when the run was cancelled.

    Raises:
        OrchestrationError: it could not be read.
    """
    is_open = not row.terminated or row.state == "cancelled"
    if not history or not is_open or history[-1].name in STILL:
        return ""
    call = get_stage_history(row.id, len(history) - 1, hook.plans.versions.plain, strict=True)
    under_way = [one for one in hook.perform(do(call, retried=True)) if not one.terminated]
    if row.terminated:
        return in_flight_text([one for one in under_way if one.name not in READS])
    tried = [one for one in under_way if one.attempt > 1 or one.last_failure]
    return describe_failing(tried[-1]) if tried else ""

"""What ``run`` is to run: the definition in a file, or the workflow that an id or a name means.

Two first calls of one file at the same moment make two equal workflows. A run of the key may be in either, and whoever
looks for it in one of them alone would pay again. So a name goes on with the one on record; else with the one in which
a run of the key is seen; else with the oldest, which everybody uses from now on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from ..api.errors import StateUnknownError, ValidationError
from ..procedures.gate import is_gate
from ..procedures.moved import NOTHING_READ
from ..procedures.named_workflow import WorkflowName, several_text
from ..procedures.start import CLOCK_SKEW, KEY_AGE
from . import notices
from .reading_runs import Scope, runs_of
from .targets import definition_in, is_file, is_workflow_id, workflows_of

if TYPE_CHECKING:
    from ..api.models import Workflow
    from ..http_hook import OrchestrationHttpHook
    from ..run_store import SqliteRunStore


def target_of(
    hook: OrchestrationHttpHook, text: str, key: str | None, store: SqliteRunStore | None
) -> Mapping[str, Any] | str:
    """The definition in a file, or the id of a workflow.

    Args:
        text: a file, an id or a name.
        key: of the payment; None where it is surely new.
        store: its records; None where no file has any yet.

    Raises:
        NotFoundError, ValidationError: nothing, or nothing sure, is meant.
        StateUnknownError: a run of the key may be in either of two equal workflows, and that could not be read.
    """
    if is_file(text):
        return definition_in(text)
    if is_workflow_id(text):
        return text
    found = workflows_of(hook, text)
    if len(found) == 1:
        return found[0].id
    meant = found[0] if key is None else _with_run_of(hook, WorkflowName(text), found, key, store)
    notices.tell(f"{len(found)} equal workflows have the name {text!r}; this one is meant: {meant.id}")
    return meant.id


def _with_run_of(
    hook: OrchestrationHttpHook, name: WorkflowName, found: Sequence[Workflow], key: str, store: SqliteRunStore | None
) -> Workflow:
    record = None if store is None else store.load(key)
    if record is not None and record.workflow_id:
        return next((one for one in found if one.id == record.workflow_id), found[0])
    if not (found[0].stages and is_gate(found[0].stages[0])):
        return found[0]  # no key shows in any of them, so nothing is started without a record but by one's own word
    earliest = datetime.fromtimestamp(hook.plans.clock.server_time(), timezone.utc) - KEY_AGE - CLOCK_SKEW
    scopes = {one.id: Scope(True, earliest, True) for one in found}
    holding = set()
    for run in runs_of(hook, scopes, ()):
        if run.trouble:
            raise StateUnknownError(
                f"{several_text(name, found)}; whether a run of key {key} is in one of them is not known: instance "
                f"{run.instance.id}: {run.trouble}. Nothing was started; call again",
                instance_id=run.instance.id,
                instance=run.instance,
                moved=NOTHING_READ,
            )
        if run.key == key:
            holding.add(run.instance.workflow_id)
    if len(holding) > 1:
        raise ValidationError(
            f"workflow: {several_text(name, found)}; runs of key {key} are in {', '.join(sorted(holding))}; nothing "
            "was started. reconcile --run-key shows them. Give the id of the one that is meant",
            path="workflow",
        )
    return next((one for one in found if one.id in holding), found[0])

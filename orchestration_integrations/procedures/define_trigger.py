"""Making sure that a trigger is on the server, once: two equal triggers start two runs for each event.

The runs of a trigger are started by the server, with nobody who owns them. So nobody releases one that has a gate, and
nobody is told that a variable has no value: what a start would say of each run is said once, of the trigger.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from functools import partial

from ..api.calls import create_trigger, get_workflow, list_triggers
from ..api.decoding import is_same_id
from ..api.definitions import unused_variables
from ..api.errors import AmbiguousSubmitError, OrchestrationError, is_ambiguous, summary
from ..api.models import EnsuredTrigger, Trigger, Workflow
from ..api.numbers import checked_flag
from .effects import Backoff, Now, Procedure, do, pause
from .gate import is_gate, own_stages
from .listing import Versions, list_all
from .unbound_variables import check_bound, unused_text
from .variables import GATE_VARIABLE

logger = logging.getLogger("orchestration_integrations.procedures")

LOOKS = 4
"""Readings of the list after a create whose answer was lost."""


def ensure_trigger(
    event: str,
    workflow_id: str,
    *,
    filter: str | None,
    variables: Mapping[str, str] | None,
    allow_unbound: bool,
    versions: Versions,
    now: Now,
) -> Procedure[EnsuredTrigger]:
    """Reuse the oldest trigger with this event, workflow, filter and variables, else create one.

    Unlike a definition, a second trigger is no harmless copy, so a create whose answer was lost is never sent again.

    Raises:
        ValidationError: an argument is wrong, or a placeholder of the workflow has no expression; nothing was sent.
        AmbiguousSubmitError: it may have been created, and no list says so.
    """
    create = create_trigger(event, workflow_id, filter=filter, variables=variables, version=versions.plain)
    checked_flag(allow_unbound, "allow_unbound")

    def is_equal(row: Trigger) -> bool:
        return (
            bool(row.id)
            and row.event == event
            and is_same_id(row.workflow_id, workflow_id)
            and row.filter == (filter or None)
            and dict(row.variables) == dict(variables or {})
        )

    def find() -> Procedure[Trigger | None]:
        # Strict: a row that cannot be read may be the very trigger.
        rows = yield from list_all(partial(list_triggers, strict=True), versions)
        equal = [row for row in rows if is_equal(row)]
        return min(equal, key=lambda row: (row.created_at, row.id), default=None)

    found = yield from find()
    # By the server's spelling of its id, where that is known.
    read = get_workflow(workflow_id if found is None else found.workflow_id, versions.plain)
    workflow = yield from do(read, retried=True)
    if not allow_unbound:
        check_bound(workflow, variables or {})
    warnings = tuple(_hardly_meant(workflow, variables or {}))
    for warning in warnings:
        logger.warning("%s", warning)
    if found is not None:
        return EnsuredTrigger(trigger=found, created=False, warnings=warnings)
    try:
        made = yield from do(create, retried=True)
        return EnsuredTrigger(trigger=made, created=True, warnings=warnings)
    except OrchestrationError as error:
        if not is_ambiguous(error):
            raise
        lost = error
    backoff = Backoff(now, first=0.2)
    why = summary(lost)
    try:
        for _ in range(LOOKS):
            yield from pause(backoff.seconds())
            found = yield from find()
            if found is not None:
                return EnsuredTrigger(trigger=found, created=True, warnings=warnings)
    except OrchestrationError as error:
        why = f"{why}; then: {summary(error)}"
    raise AmbiguousSubmitError(
        f"trigger on {event} for workflow {workflow_id} may have been created, but no list shows it: {why}; it was not "
        "sent again"
    ) from lost


def _hardly_meant(workflow: Workflow, expressions: Collection[str]) -> Iterator[str]:
    """What the runs of a trigger would do that nobody means. A gate is no error: whoever opens it by hand may want just
    that."""
    gated = bool(workflow.stages) and is_gate(workflow.stages[0])
    filled = [name for name in expressions if not (gated and name == GATE_VARIABLE)]
    unused = unused_text(workflow, unused_variables(own_stages(workflow.stages), filled))
    if unused:
        yield unused
    if gated:
        yield (
            f"workflow {workflow.id} has a gate, and nobody releases the runs of a trigger: each event starts a run "
            "that stands at its gate and pays nobody; define the workflow without a gate for triggers"
        )

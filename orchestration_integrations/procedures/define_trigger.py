"""Making sure that a trigger is on the server, once: two equal triggers start two runs for each event."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from ..api.calls import create_trigger, list_triggers
from ..api.decoding import is_same_id
from ..api.errors import AmbiguousSubmitError, OrchestrationError, is_ambiguous, summary
from ..api.models import EnsuredTrigger, Trigger
from .effects import Backoff, Now, Procedure, do, pause
from .listing import Versions, list_all

LOOKS = 4
"""Readings of the list after a create whose answer was lost."""


def ensure_trigger(
    event: str,
    workflow_id: str,
    *,
    filter: str | None,
    variables: Mapping[str, str] | None,
    versions: Versions,
    now: Now,
) -> Procedure[EnsuredTrigger]:
    """Reuse the oldest trigger with this event, workflow, filter and variables, else create one.

    Unlike a definition, a second trigger is no harmless copy, so a create whose answer was lost is never sent again.

    Raises:
        ValidationError: an argument is wrong; nothing was sent.
        AmbiguousSubmitError: it may have been created, and no list says so.
    """
    create = create_trigger(event, workflow_id, filter=filter, variables=variables, version=versions.plain)

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
    if found is not None:
        return EnsuredTrigger(trigger=found, created=False)
    try:
        return EnsuredTrigger(trigger=(yield from do(create, retried=True)), created=True)
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
                return EnsuredTrigger(trigger=found, created=True)
    except OrchestrationError as error:
        why = f"{why}; then: {summary(error)}"
    raise AmbiguousSubmitError(
        f"trigger on {event} for workflow {workflow_id} may have been created, but no list shows it: {why}; it was not "
        "sent again"
    ) from lost

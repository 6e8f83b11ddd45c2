"""`triggers`: what runs a workflow on an event of the stack."""

from typing import Annotated

import typer

from .options import AllowUnbound, WorkflowRef, Yes
from .session import Session, confirmed, reaching_server

HELP = "Triggers: they run a workflow when an event arrives on the server's broker (not on generation 1)."
_Id = Annotated[str, typer.Argument(help="The id of the trigger.", show_default=False)]
_FIELDS = ("id", "event", "workflow_id", "filter", "created_at")


@reaching_server
def list_(session: Session) -> None:
    """List the triggers, the oldest first."""
    from . import shapes

    found = sorted(session.hook.list_triggers(), key=lambda one: (one.created_at, one.id))
    session.out.many([shapes.trigger(one) for one in found], _FIELDS, none="the server has no trigger")


@reaching_server
def show(session: Session, trigger_id: _Id) -> None:
    """Show a trigger."""
    from . import shapes

    session.out.one(shapes.trigger(session.hook.get_trigger(trigger_id)))


@reaching_server
def create(
    session: Session,
    event: Annotated[str, typer.Argument(help="The type of the event: SAVED_PAYMENT.", show_default=False)],
    workflow: WorkflowRef,
    filter: Annotated[str | None, typer.Option(help="Expression over event; default: every event.")] = None,
    var: Annotated[list[str] | None, typer.Option("--var", help="NAME=EXPRESSION; may be repeated.")] = None,
    allow_unbound: AllowUnbound = False,
) -> None:
    """Find an equal trigger, or create it. Two equal ones would start two runs for each event.

    Give it a workflow without a gate: nobody releases the runs of a trigger.
    """
    from . import shapes
    from .options import pairs_of
    from .targets import workflow_id_of

    variables = pairs_of(var or (), "--var")
    workflow_id = workflow_id_of(session.hook, workflow)
    ensured = session.hook.ensure_trigger(
        event, workflow_id, filter=filter, variables=variables or None, allow_unbound=allow_unbound
    )
    row = shapes.trigger(ensured.trigger, created=ensured.created, result="created" if ensured.created else "found")
    session.out.line(row, "id", "event", "workflow_id", "result")


@reaching_server
def delete(session: Session, trigger_id: _Id, yes: Yes = False) -> None:
    """Delete a trigger."""
    from . import shapes

    found = session.hook.get_trigger(trigger_id)
    confirmed(f"Delete the trigger of {found.event} for workflow {found.workflow_id}?", yes)
    session.hook.delete_trigger(trigger_id)
    session.out.line(shapes.trigger(found, result="deleted"), "id", "event", "result")


@reaching_server
def occurrences(session: Session, trigger_id: _Id) -> None:
    """List each firing of a trigger, and the instance that it started."""
    from . import shapes

    found = sorted(session.hook.list_trigger_occurrences(trigger_id), key=lambda one: one.date)
    fields = ("date", "instance_id", "error", "event")
    session.out.many([shapes.occurrence(one) for one in found], fields, none="the trigger has not fired")


@reaching_server
def test(
    session: Session,
    trigger_id: _Id,
    event: Annotated[str, typer.Argument(help="The event as JSON, or @FILE.", show_default=False)],
) -> None:
    """Show what filter and variables of a trigger come to for an event. Starts nothing."""
    import json
    from collections.abc import Mapping

    from ..api.errors import ValidationError
    from ..definition_files import text_of_file

    text = text_of_file(event[1:], field="event")[0] if event.startswith("@") else event
    try:
        body = json.loads(text)
    except ValueError as error:
        raise ValidationError(f"event: no JSON: {error}", path="event") from None
    if not isinstance(body, Mapping):
        raise ValidationError("event: must be a JSON object", path="event")
    session.out.one({"type": "trigger_test", **session.hook.test_trigger(trigger_id, body)})


COMMANDS = {
    "list": list_,
    "show": show,
    "create": create,
    "delete": delete,
    "occurrences": occurrences,
    "test": test,
}

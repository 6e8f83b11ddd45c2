"""`events`: what a run waits for."""

from typing import TYPE_CHECKING, Annotated

import typer

from .error_objects import tell_error
from .options import InstanceId
from .session import Session, reaching_server
from .signals import Left

if TYPE_CHECKING:
    from ..api.errors import EventNotDeliveredError

HELP = "Events that instances wait for."
READ_SECONDS = 10.0
"""Seconds for reading what a run has moved that has ended."""


@reaching_server
def send(
    session: Session,
    instance_id: InstanceId,
    name: Annotated[str, typer.Argument(help="The name of the event.", show_default=False)],
    stage: Annotated[
        int | None,
        typer.Option(min=0, help="The stage that is meant, from 0, gate included, where several wait for it."),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds until a stage must wait for the event.")] = 60.0,
) -> int:
    """Send an event once a stage waits for it, and see that this stage ended. An early event would be lost.

    Exit status: 0 the stage has heard it; 4 no stage waited for it in time, and nothing was sent; 3 it was sent, and
    whether it was heard is not known; 2 no stage can hear it, and nothing was sent; 1 the instance failed or was
    cancelled before, and what it moved is known: else 3.
    """
    from ..api.errors import EventNotDeliveredError
    from .options import checked_ids

    (one,) = checked_ids([instance_id])
    session.if_interrupted = Left(
        f"whether instance {one} has heard {name!r} is not known: instances show {one}",
        outcome="unknown",
        instance_id=one,
    )
    try:
        instance = session.hook.send_event_when_ready(one, name, stage=stage, timeout=timeout)
    except EventNotDeliveredError as error:
        return _not_delivered(session, error)
    row = {"type": "event", "instance_id": one, "event": name, "result": "heard", "state": instance.state}
    session.out.line(row, "instance_id", "event", "result")
    return 0


def _not_delivered(session: Session, error: "EventNotDeliveredError") -> int:
    """Where the instance has ended badly, what that means is read, and judged as by ``wait``."""
    from ..api.errors import OrchestrationError
    from .exit_codes import status_of

    ended = error.reason == "instance_ended" and error.instance is not None and error.instance.state != "succeeded"
    if not ended:
        raise error
    try:
        session.hook.wait(error.instance_id, timeout=READ_SECONDS)
        raise error
    except OrchestrationError as read:
        status = status_of(read) if hasattr(read, "moved") else status_of(error)
        text = str(error) if read is error else f"{error}; {read}"
    tell_error(session.out, type(error).__name__, text, status, reason=error.reason, instance_id=error.instance_id)
    return status


COMMANDS = {"send": send}

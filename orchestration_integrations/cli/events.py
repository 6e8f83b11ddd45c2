"""`events`: what a run waits for."""

from typing import Annotated

import typer

from .options import InstanceId
from .session import Session, reaching_server
from .signals import Left

READ_SECONDS = 10.0
"""Seconds for reading what a run that has ended had moved."""
HELP = "Events that instances wait for."


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

    Exit status: 0 the stage has heard it; 4 no stage waited for it in time, and nothing was sent; 3 whether it was
    heard, or whether a stage waits for it, is not known, or the server did not take it in time; 2 no stage can hear it,
    or the server refuses it, and nothing was sent; 1 the instance failed or was cancelled before, and what it had moved
    is known: else 3.
    """
    from ..api.errors import EventNotDeliveredError
    from ..procedures.ends import ended_amid
    from ..procedures.moved import read_moved
    from .options import checked_ids

    (one,) = checked_ids([instance_id])
    session.about["instance_id"] = one
    session.if_interrupted = Left(
        f"whether instance {one} has heard {name!r} is not known: instances show {one}",
        outcome="unknown",
        instance_id=one,
    )
    hook = session.hook
    try:
        instance = hook.send_event_when_ready(one, name, stage=stage, timeout=timeout)
    except EventNotDeliveredError as error:
        if error.reason != "instance_ended" or error.instance is None:
            raise
        until = hook.plans.clock.monotonic() + READ_SECONDS
        reading = hook.perform(read_moved(error.instance, hook.plans.versions, hook.plans.clock, until))
        text = "; ".join(filter(None, [str(error), ended_amid(error.instance, reading)]))
        ended = EventNotDeliveredError(text, reason=error.reason, instance_id=one, instance=error.instance)
        ended.moved = reading.moved
        raise ended from error
    row = {"type": "event", "instance_id": one, "event": name, "result": "heard", "state": instance.state}
    session.out.line(row, "instance_id", "event", "result")
    return 0


COMMANDS = {"send": send}

"""`events`: what a run waits for."""

from typing import Annotated

import typer

from .options import InstanceId
from .session import Session, reaching_server
from .signals import Left

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
) -> None:
    """Send an event once a stage waits for it, and see that this stage ended. An early event would be lost.

    Exit status: 0 the stage has heard it; 4 no stage waited for it in time, and nothing was sent; 3 it was sent, and
    whether it was heard is not known; 2 no stage can hear it, and nothing was sent; 1 the instance failed or was
    cancelled before.
    """
    from .options import checked_ids
    from .outage import told_of_outages

    (one,) = checked_ids([instance_id])
    session.if_interrupted = Left(
        f"whether instance {one} has heard {name!r} is not known: instances show {one}",
        outcome="unknown",
        instance_id=one,
    )
    with told_of_outages(session.settings.base_url):
        instance = session.hook.send_event_when_ready(one, name, stage=stage, timeout=timeout)
    row = {"type": "event", "instance_id": one, "event": name, "result": "heard", "state": instance.state}
    session.out.line(row, "instance_id", "event", "result")


COMMANDS = {"send": send}

"""`instances`: runs of workflows, as the server shows them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import FailAfter, InstanceId, Limit, PollInterval, ReadBudget
from .session import Session, reaching_server
from .signals import Left

if TYPE_CHECKING:
    from ..api.models import Instance, StageRun
    from ..procedures.moved import Reading

HELP = "Runs of workflows."
_STAGE_FIELDS = ("stage", "kind", "state", "begun_at", "ended_at", "error", "input")


@reaching_server
def list_(
    session: Session,
    workflow: Annotated[str | None, typer.Option(help="Only of this workflow: its id or name.")] = None,
    state: Annotated[
        str | None, typer.Option(help="Only in this state: running, succeeded, failed, cancelled or ended.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many, the newest.")] = None,
    keys: Annotated[
        bool, typer.Option("--keys", help="Read the run key of each; costs one call for each instance.")
    ] = False,
) -> None:
    """List instances, the newest first."""
    from ..api.errors import OrchestrationError, ValidationError
    from . import shapes
    from .targets import workflow_ids_of

    if state not in (None, "running", "succeeded", "failed", "cancelled", "ended"):
        raise ValidationError(f"state: there is no state {state!r}", path="state")
    ids = [None] if workflow is None else workflow_ids_of(session.hook, workflow)
    running = None if state is None else state == "running"
    rows = [row for one in ids for row in session.hook.list_instances(one, running)]
    found = [one for one in rows if state in (None, one.state) or (state == "ended" and one.terminated)]
    found.sort(key=lambda one: (one.created_at, one.id), reverse=True)
    shown = []
    for one in found[:limit]:
        more: dict[str, Any] = {}
        if keys:
            try:
                more["run_key"] = shapes.gate_key(session.hook.get_instance_history(one.id))
            except OrchestrationError:
                more["run_key"] = None
        shown.append(shapes.instance(one, **more))
    fields = ("id", *(("run_key",) if keys else ()), "state", "created_at", "ended_at", "workflow_id", "error")
    session.out.many(shown, fields, none="there is no such instance")


def _stages(
    instance: "Instance", history: "Sequence[StageRun]", definition: "Sequence[Mapping[str, Any]] | None"
) -> list[dict[str, Any]]:
    from ..procedures.seen_stages import seen_stages
    from . import shapes

    rows = {row.stage: row for row in instance.status}
    return [
        shapes.stage(
            instance.id, number, rows.get(number), history[number] if number < len(history) else None, definition or ()
        )
        for number in seen_stages(instance, history)
    ]


@reaching_server
def show(session: Session, instance_id: InstanceId) -> int:
    """Show an instance: its state, its run key, its stages, what it has moved, and why it goes no further.

    The exit status is that of the command itself: 0 also where the instance failed.
    """
    from ..api.errors import OrchestrationError
    from ..procedures.moved import read_moved
    from . import notices, shapes
    from .options import checked_ids
    from .targets import stages_of

    (one,) = checked_ids([instance_id])
    session.about["instance_id"] = one
    hook = session.hook
    instance = hook.get_instance(one)
    try:
        history = hook.get_instance_history(one)
    except OrchestrationError as error:
        history = ()
        notices.tell(f"its history cannot be read: {error}")
    reading = hook.perform(
        read_moved(instance, hook.plans.versions, hook.plans.clock, hook.plans.clock.monotonic() + 10)
    )
    definition = stages_of(hook, instance.workflow_id)
    stages = _stages(instance, history, definition)
    row = shapes.instance(
        instance,
        run_key=shapes.gate_key(history),
        why=_why(instance, reading, definition),
        in_flight=[activity.name for activity in reading.in_flight],
        page=session.settings.instance_link(one, instance.workflow_id) if session.settings.ui_url else None,
        **shapes.moved(reading.moved, definition),
    )
    if session.out.as_json:
        session.out.one({**row, "stages": stages})
        return 0
    session.out.one(row)
    session.out.many(stages, _STAGE_FIELDS, none="no stage has begun")
    return 0


def _why(instance: "Instance", reading: "Reading", definition: "Sequence[Mapping[str, Any]] | None") -> str | None:
    """Why a running instance goes no further, or what one must know of one that ended; None where nothing tells."""
    from ..procedures.ends import ended_amid, standing_text

    if instance.terminated:
        return ended_amid(instance, reading) or None
    return standing_text(instance, reading, definition) or None


@reaching_server
def history(
    session: Session,
    instance_id: InstanceId,
    stage: Annotated[
        int | None, typer.Option(min=0, help="What this stage did, from 0, gate included; default: the stages.")
    ] = None,
) -> None:
    """Show the history that the workflow engine keeps of an instance, or of one of its stages."""
    from . import shapes
    from .options import checked_ids
    from .targets import stages_of

    (one,) = checked_ids([instance_id])
    session.about["instance_id"] = one
    if stage is not None:
        activities = [shapes.activity(one, stage, each) for each in session.hook.get_stage_history(one, stage)]
        fields = ("name", "state", "attempt", "begun_at", "ended_at", "next_try_at", "last_failure", "error")
        return session.out.many(activities, fields, none="the stage has called no other service")
    instance = session.hook.get_instance(one)
    found = session.hook.get_instance_history(one)
    stages = _stages(instance, found, stages_of(session.hook, instance.workflow_id))
    return session.out.many(stages, _STAGE_FIELDS, none="no stage has begun")


@reaching_server
def watch(
    session: Session,
    instance_id: InstanceId,
    timeout: Limit = None,
    poll_interval: PollInterval = 5.0,
    read_budget: ReadBudget = 120.0,
    fail_after_attempts: FailAfter = None,
) -> int:
    """Follow the stages of one instance until it ends. In a pipe each change is a line.

    Exit status as of wait.
    """
    from ..api.errors import OrchestrationError, ValidationError
    from ..api.models import StageEvent
    from . import shapes
    from .options import checked_ids
    from .stage_display import StageDisplay
    from .targets import stages_of

    (one,) = checked_ids([instance_id])
    session.about["instance_id"] = one
    session.if_interrupted = Left(f"instance {one} goes on", outcome="left", instance_id=one)

    def told(event: StageEvent) -> None:
        display.told(event)
        if not session.out.on_terminal and (session.out.as_json or shapes.stage_event(event)["text"]):
            session.out.line(shapes.stage_event(event), "instance_id", "kind", "text")

    hook = session.hook  # wrong settings are refused here
    with StageDisplay(f"instance {one}") as display:
        try:
            result: object = hook.wait(
                one,
                timeout=timeout,
                poll_interval=poll_interval,
                read_budget=read_budget,
                fail_after_attempts=fail_after_attempts,
                on_stage=told,
            )
        except OrchestrationError as error:
            if isinstance(error, ValidationError) and error.status_code is None:
                raise  # the options; what the server refuses amid a wait says nothing of the run
            result = error
    known = getattr(result, "instance", None)
    row = shapes.end(one, result, stages_of(hook, None if known is None else known.workflow_id))
    session.out.line(row, "instance_id", "state", "reason")
    return int(row["exit_status"])


COMMANDS = {"list": list_, "show": show, "history": history, "watch": watch}

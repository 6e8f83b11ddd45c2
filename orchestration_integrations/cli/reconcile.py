"""`reconcile`: what stands, by run key, and what to do about it."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import notices
from .options import Store
from .session import Session, reaching_server

if TYPE_CHECKING:
    from ..api.models import Instance
    from ..http_hook import OrchestrationHttpHook
    from ..ownership.record import RunRecord
    from .reconciling import Finding, Seen

ABORT_SECONDS = 5.0
"""Seconds for which the abort of a duplicate is confirmed. Unconfirmed it stands at its gate, and moves nothing."""
_FIELDS = ("run_key", "round", "finding", "instances", "state", "reason", "advice")


@reaching_server
def reconcile(
    session: Session,
    workflow: Annotated[
        str | None, typer.Argument(help="The id or the name of a workflow; default: all.", show_default=False)
    ] = None,
    key_prefix: Annotated[str, typer.Option("--key-prefix", help="Only run keys that begin so.")] = "",
    store: Store = None,
    days: Annotated[float, typer.Option(min=0, help="Look at instances that were created in so many days.")] = 7.0,
    abort_duplicates: Annotated[
        bool, typer.Option("--abort-duplicates", help="Abort the runs that are found to be duplicates.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before the aborts.")] = False,
) -> int:
    """Compare runs with each other and with the records, by run key, and say what to do about each.

    Findings: released; double (two runs of one key were released: check the ledger); duplicate (never released, another
    run has the key); unreleased; ambiguous; waits and held (at a checkpoint); stuck (a payment fails and is tried
    again); never_started; unknown (it could not be read). It changes nothing without --abort-duplicates.

    Exit status: 0 nothing is to be done; 3 something is.
    """
    from ..api.errors import ValidationError
    from .reconciling import ATTENTION, findings_of

    if workflow is None and not key_prefix:
        raise ValidationError("give a workflow, or --key-prefix", path="workflow")
    since = _since(days)
    records = session.store(store)
    on_record = () if records is None else records.records()
    ids = _workflows(session, workflow)
    if workflow is not None:
        on_record = tuple(one for one in on_record if one.workflow_id in ids)
    runs = list(_runs(session, ids, since, on_record))
    found = findings_of(runs, on_record, key_prefix, store)
    rows = [_row(one, one.finding in ATTENTION) for one in found]
    session.out.many(rows, _FIELDS, none="nothing stands there", blocks=True)
    if abort_duplicates:
        _abort(session, [one for one in found if one.finding == "duplicate"], yes)
    return 3 if any(row["attention"] for row in rows) else 0


def _since(days: float) -> datetime:
    from ..api.errors import ValidationError

    try:
        return datetime.now(timezone.utc) - timedelta(days=days)
    except (OverflowError, ValueError):
        raise ValidationError(
            f"--days: {days} days reach back to no date; give a number such as 3650", path="days"
        ) from None


def _workflows(session: Session, workflow: str | None) -> Sequence[str]:
    from ..procedures.gate import is_gate
    from .targets import workflow_of

    if workflow is not None:
        return (workflow_of(session.hook, workflow).id,)
    return tuple(one.id for one in session.hook.list_workflows() if one.stages and is_gate(one.stages[0]))


def _runs(session: Session, ids: Sequence[str], since: datetime, on_record: "Sequence[RunRecord]") -> "Iterator[Seen]":
    """Each run, with what its history says: one call for each, and one more where a payment may be failing."""
    named = {one.instance_id for one in on_record}
    rows = [row for one in ids for row in session.hook.list_instances(one)]
    wanted = [row for row in rows if row.created_at >= since or row.id in named or not row.terminated]
    for number, row in enumerate(wanted):
        if notices.on_terminal() and number and number % 200 == 0:
            notices.tell(f"{number} of {len(wanted)} instances are read")
        yield _seen(session.hook, row)


def _seen(hook: "OrchestrationHttpHook", row: "Instance") -> "Seen":
    from ..api.errors import OrchestrationError, is_denial, summary
    from ..procedures.ends import describe_failing
    from ..procedures.ghosts import is_old
    from ..procedures.wording import in_flight_text
    from .reconciling import Seen, seen_of

    try:
        history = hook.get_instance_history(row.id)
    except OrchestrationError as error:
        denied = is_denial(error)
        ghost = denied and not row.terminated and not row.status and is_old(row, hook.plans.clock.server_time(), 0.0)
        trouble = "" if ghost or (denied and row.terminated) else f"its history cannot be read: {summary(error)}"
        return Seen(instance=row, ghost=ghost, trouble=trouble)
    failing = ""
    open_ended = not row.terminated or row.state == "cancelled"
    if history and open_ended and history[-1].name not in ("RunWaitEvent", "RunDelay"):
        try:
            activities: Sequence[Any] = hook.get_stage_history(row.id, len(history) - 1)
        except OrchestrationError:
            activities = ()
        tried = [one for one in activities if not one.terminated and (one.attempt > 1 or one.last_failure)]
        failing = describe_failing(tried[-1]) if tried else ""
        if row.terminated:
            failing = in_flight_text([one for one in activities if not one.terminated])
    return seen_of(row, history, failing)


def _row(one: "Finding", attention: bool) -> dict[str, Any]:
    import msgspec

    return {"type": "finding", **msgspec.to_builtins(one), "attention": attention}


def _abort(session: Session, duplicates: "Sequence[Finding]", yes: bool) -> None:
    """Abort runs that stand at their gate while another run has their key. Each is looked at once more."""
    from ..api.errors import OrchestrationError
    from . import shapes
    from .session import confirmed, tell_error

    if not duplicates:
        notices.tell("there is no duplicate to abort")
        return
    confirmed(f"Abort {len(duplicates)} runs that stand at their gate while another run has their key?", yes)
    for one in duplicates:
        instance_id = one.instances[0]
        try:
            seen = _seen(session.hook, session.hook.get_instance(instance_id))
            if not seen.waits_at_gate:
                notices.tell(f"instance {instance_id} no longer stands at its gate; it was left alone")
                continue
            outcome = session.hook.cancel(instance_id, timeout=ABORT_SECONDS)
        except OrchestrationError as error:
            tell_error(session.out, type(error).__name__, str(error), 3, instance_id=instance_id)
            continue
        unconfirmed = outcome.status == "not_confirmed"
        row = shapes.cancelled(instance_id, outcome, 3 if unconfirmed else 0)
        session.out.line(row, "instance_id", "status", "text")
        if unconfirmed:
            notices.tell(f"instance {instance_id} stands at its gate, where this server keeps it; it moves nothing")

"""`reconcile`: what stands, by run key, and what to do about it."""

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import notices
from .error_objects import tell_error
from .options import Store
from .session import Session, reaching_server
from .signals import Left

if TYPE_CHECKING:
    from .findings import Finding, Seen

ABORT_SECONDS = 5.0
"""Seconds for which the abort of a duplicate is confirmed. Unconfirmed it stands at its gate, and moves nothing."""
_FIELDS = ("run_key", "round", "finding", "instances", "state", "reason", "advice")


@reaching_server
def reconcile(
    session: Session,
    workflow: Annotated[
        str | None, typer.Argument(help="The id or the name of a workflow; default: all.", show_default=False)
    ] = None,
    run_key: Annotated[str | None, typer.Option("--run-key", help="Only this run key.")] = None,
    key_prefix: Annotated[str, typer.Option("--key-prefix", help="Only run keys that begin so.")] = "",
    store: Store = None,
    days: Annotated[float, typer.Option(min=0, help="Look at instances that were created in so many days.")] = 7.0,
    abort_duplicates: Annotated[
        bool, typer.Option("--abort-duplicates", help="Abort the runs that are found to be duplicates.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before the aborts.")] = False,
) -> int:
    """Compare runs with each other and with the records, by run key, and say what to do about each.

    Findings: released; ungated (it has no gate, so no key can be seen); not_begun; at_gate (no key releases it); double
    (two runs of one key were released: check the ledger); duplicate (never released, another run has the key);
    key_in_several (workflows or contents); unreleased; ambiguous; waits and held (at a checkpoint); stopped (a stop is
    on record, and it goes on); stuck (a payment fails and is tried again); never_started; unknown (it could not be
    read). It changes nothing without --abort-duplicates.

    Exit status: 0 nothing is to be done; 3 something is, also if the abort of a duplicate is not confirmed, or if the
    server refuses to show runs that are on record.
    """
    from ..api.errors import ValidationError
    from ..ownership.keys import checked_run_key
    from .exit_codes import worst_of
    from .on_record import looked_for
    from .reading_runs import runs_of, scopes_of
    from .reconciling import Wanted, findings_of

    if workflow is None and run_key is None and not key_prefix:
        raise ValidationError("give a workflow, --run-key or --key-prefix", path="workflow")
    if run_key is not None and key_prefix:
        raise ValidationError("give --run-key or --key-prefix, not both", path="run_key")
    wanted = Wanted(key=None if run_key is None else checked_run_key(run_key), prefix=key_prefix)
    since = _since(days)
    records = session.store(store)
    on_record = () if records is None else records.records()
    unreadable = {} if records is None else records.unreadable()
    owners = {} if records is None else records.owners()
    asked = [one for one in on_record if wanted.has(one.key)]
    with looked_for(bool(asked)):
        scopes = scopes_of(session.hook, workflow, since, asked, everywhere=run_key is not None)
        if workflow is not None:  # the record of a key is told of in any case
            on_record = tuple(one for one in on_record if one.workflow_id in scopes or one.key == wanted.key)
        runs = list(runs_of(session.hook, scopes, on_record))
    hidden = [one for one, scope in scopes.items() if scope.hidden]
    for one in hidden:
        notices.tell(f"workflow {one} was deleted or is unknown: the server shows none of its runs")
    looked_at = scopes.keys() - hidden
    clock = session.hook.plans.clock
    behind = timedelta(seconds=max(0.0, clock.time() - clock.server_time()))
    found = findings_of(runs, on_record, wanted, store, unreadable, looked_at=looked_at, owners=owners, behind=behind)
    rows = [_row(one) for one in found]
    session.out.many(rows, _FIELDS, none="nothing stands there", blocks=True)
    statuses = [_status(one) for one in found]
    if abort_duplicates:
        statuses += _abort(session, [one for one in found if one.finding == "duplicate"], yes)
    return worst_of(statuses)


def _since(days: float) -> datetime:
    from ..api.errors import ValidationError

    try:
        return datetime.now(timezone.utc) - timedelta(days=days)
    except (OverflowError, ValueError):
        raise ValidationError(
            f"--days: {days} days reach back to no date; give a number such as 3650", path="days"
        ) from None


def _status(one: "Finding") -> int:
    from .exit_codes import OK, UNKNOWN
    from .findings import ATTENTION

    return UNKNOWN if one.finding in ATTENTION else OK


def _row(one: "Finding") -> dict[str, Any]:
    import msgspec

    return {"type": "finding", **msgspec.to_builtins(one), "attention": _status(one) != 0}


def _abort(session: Session, duplicates: "Sequence[Finding]", yes: bool) -> list[int]:
    """Abort runs that stand at their gate while another run has their key. The exit status of each."""
    from .session import confirmed

    if not duplicates:
        notices.tell("there is no duplicate to abort")
        return []
    confirmed(f"Abort {len(duplicates)} runs that stand at their gate while another run has their key?", yes)
    return [_abort_one(session, one) for one in duplicates]


def _abort_one(session: Session, duplicate: "Finding") -> int:
    """Look once more, abort, and look what became of it: it may have been released meanwhile.

    Only a run that is seen to have ended at its gate is done with.
    """
    from ..api.errors import OrchestrationError
    from . import shapes
    from .exit_codes import OK, UNKNOWN, worst_of
    from .targets import stages_of

    instance_id = duplicate.instances[0]
    session.if_interrupted = Left(
        f"instance {instance_id} may or may not be cancelled: instances show {instance_id}",
        "run reconcile again: it looks at every duplicate once more",
        "unknown",
        instance_id,
        duplicate.run_key,
    )
    try:
        seen = _looked_at(session, instance_id)
        if seen.waits_at_gate and not seen.trouble:
            outcome = session.hook.cancel(instance_id, timeout=ABORT_SECONDS)
            row = shapes.cancelled(instance_id, outcome, stages_of(session.hook, duplicate.workflow_id))
            row["exit_status"] = OK if row["exit_status"] == OK else UNKNOWN
            session.out.line(row, "instance_id", "status", "text")
            status = int(row["exit_status"])
            seen = _looked_at(session, instance_id)
            if seen.waits_at_gate:
                notices.tell(f"instance {instance_id} stands at its gate, where this server keeps it; it moves nothing")
                return UNKNOWN
        else:
            status = OK
            if not seen.trouble:
                notices.tell(f"instance {instance_id} no longer stands at its gate; it was left alone")
    except OrchestrationError as error:
        text = f"whether instance {instance_id} still stands at its gate is not known: {error}"
        tell_error(session.out, type(error).__name__, text, UNKNOWN, instance_id=instance_id)
        return UNKNOWN
    return worst_of([status, _told_of_release(session, duplicate, seen)])


def _looked_at(session: Session, instance_id: str) -> "Seen":
    from .reading_runs import seen_run

    return seen_run(session.hook, session.hook.get_instance(instance_id), gated=True)


def _told_of_release(session: Session, duplicate: "Finding", seen: "Seen") -> int:
    """Tell where a duplicate was paid after all, or where nobody can see whether it was; the exit status of that."""
    from .exit_codes import OK
    from .findings import Finding, double

    instance_id = duplicate.instances[0]
    if seen.released:
        ids = [instance_id] if duplicate.other is None else [duplicate.other, instance_id]
        found = double(duplicate.run_key, duplicate.round, ids, duplicate.workflow_id)
        found.reason = (
            f"instance {instance_id} was found to be a duplicate, and was released meanwhile: it may have "
            "been paid more than once"
        )
    elif seen.trouble:
        found = Finding(
            finding="unknown",
            run_key=duplicate.run_key,
            round=duplicate.round,
            instances=(instance_id,),
            workflow_id=duplicate.workflow_id,
            state=seen.instance.state,
            reason=f"whether it still stands at its gate is not known: {seen.trouble}",
            advice=f"look again later: instances show {instance_id}",
        )
    else:
        return OK
    session.out.line(_row(found), *_FIELDS)
    return _status(found)

"""`cancel`: stop runs, and say what came of it."""

from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import notices
from .error_objects import tell_error
from .options import Store
from .session import Session, reaching_server
from .signals import Left

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..api.errors import OrchestrationError
    from ..ownership.record import RunRecord
    from ..run_store import SqliteRunStore


@reaching_server
def cancel(
    session: Session,
    instance_ids: Annotated[
        list[str] | None, typer.Argument(help="The ids of the instances, or none with --run-key.", show_default=False)
    ] = None,
    run_key: Annotated[str | None, typer.Option(help="Cancel the run of this key; needs --store.")] = None,
    store: Store = None,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds for each instance.")] = 15.0,
) -> int:
    """Stop instances, and say what is true of each afterwards.

    With --store the stop is put on record, so that whoever waits for the run lets it pass no further checkpoint.

    Exit status: 0 nothing of it moves any more (cancelled, held, never_started); 1 it had failed by itself; 6 it had
    succeeded by itself; 3 not confirmed, or a payment was under way, or whether one is could not be read: it may move
    money; with a record of it also where the server refuses it or does not know it, for the stop is on record then. 2
    usage or configuration, or an unknown id. Of several the last counts of 0, 1, 2, 6, 3.
    """
    from ..api.errors import OrchestrationError, ValidationError
    from . import shapes
    from .exit_codes import status_of, worst_of
    from .options import checked_ids
    from .targets import stages_of

    records = session.store(store, needed_for="--run-key needs the records" if run_key is not None else "")
    ids = checked_ids(instance_ids or ())
    if (run_key is None) == (not ids):
        raise ValidationError("give the ids of instances, or --run-key", path="instance_ids")
    session.about["run_key"] = run_key
    runs = _records_of(records, ids) if run_key is None else _run_of(records, run_key)
    statuses = []
    for number, (instance_id, record) in enumerate(runs.items(), 1):
        rest = list(runs)[number:]
        session.if_interrupted = Left(
            f"instance {instance_id} may or may not be cancelled, and may still run: instances show {instance_id}",
            f"nothing was sent to {', '.join(rest)}" if rest else "",
            outcome="unknown",
            instance_id=instance_id,
            run_key=None if record is None else record.key,
        )
        row: dict[str, Any] | None = None
        try:
            kept = {} if record is None or records is None else {"store": records, "run_key": record.key}
            outcome = session.hook.cancel(instance_id, timeout=timeout, **kept)  # type: ignore[arg-type]
        except OrchestrationError as error:
            if record is not None and record.end is not None:
                row = shapes.ended_on_record(record, _met(error))
            else:
                status = status_of(error)
                about: dict[str, Any] = {"instance_id": instance_id, **shapes.moved(None, None)}
                if record is not None:
                    about |= {"run_key": record.key, "workflow_id": record.workflow_id or None}
                tell_error(session.out, type(error).__name__, str(error), status, **about)
        else:
            if record is not None and record.end is not None and outcome.instance is None:
                row = shapes.ended_on_record(record, f"the abort was answered with {outcome.abort_answer}")
            else:
                workflow_id = None if outcome.instance is None else outcome.instance.workflow_id
                row = shapes.cancelled(instance_id, outcome, stages_of(session.hook, workflow_id))
        if row is not None:
            session.out.line(row, "instance_id", "status", "text")
            status = int(row["exit_status"])
        statuses.append(status)
    return worst_of(statuses)


def _met(error: "OrchestrationError") -> str:
    """What the server answered, or did not, without what the error says of the run: its record knows more of that."""
    from ..api.errors import OrchestrationError, summary

    while isinstance(error.__cause__, OrchestrationError):
        error = error.__cause__
    return summary(error)


def _records_of(records: "SqliteRunStore | None", ids: "Sequence[str]") -> "dict[str, RunRecord | None]":
    """The record of each instance, None where none names it. No other record matters to a cancel."""
    if records is None:
        return dict.fromkeys(ids)
    for key in records.unreadable():
        notices.tell(
            f"the record of run key {key} cannot be read: if it is of one of these instances, the stop is not on record"
        )
    owners = {one.instance_id: one for one in records.records()}
    return {one: owners.get(one) for one in ids}


def _run_of(records: "SqliteRunStore | None", run_key: str) -> "dict[str, RunRecord | None]":
    from ..api.errors import NotFoundError
    from ..ownership.keys import checked_run_key
    from .runs import record_of

    record = record_of(records, checked_run_key(run_key))
    assert records is not None  # noqa: S101  (else there is no record)
    if record.instance_id is None:
        look = f"orchestration-integrations reconcile --run-key {quote(run_key)} --store {quote(records.path)}"
        missing = NotFoundError(
            f"no instance of run key {run_key} is on record, so there is none to cancel by it; a run may exist all the "
            f"same: {look} names what may be it",
        )
        missing.run_may_exist = not record.settled  # whoever settled it knew what became of that run
        raise missing
    return {record.instance_id: record}

"""`cancel`: stop runs, and say what came of it."""

from typing import TYPE_CHECKING, Annotated

import typer

from .options import Store
from .session import Session, reaching_server

if TYPE_CHECKING:
    from ..api.models import CancelOutcome
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

    Exit status: 0 nothing of it moves any more (cancelled, held, never_started); 1 it had failed by itself; 2 it had
    succeeded by itself; 3 not confirmed, or a payment was under way: it may move money. The highest of them counts.
    """
    from ..api.errors import OrchestrationError, ValidationError
    from . import shapes
    from .exit_codes import status_of
    from .options import checked_ids
    from .session import tell_error

    records = session.store(store, needed_for="--run-key needs the records" if run_key is not None else "")
    ids = checked_ids(instance_ids or ())
    if (run_key is None) == (not ids):
        raise ValidationError("give the ids of instances, or --run-key", path="instance_ids")
    keys = {one: _key_of(records, one) for one in ids} if run_key is None else _run_of(records, run_key)
    worst = 0
    for instance_id, key in keys.items():
        session.if_interrupted = f"instance {instance_id} may or may not be cancelled: instances show {instance_id}"
        try:
            kept = {} if key is None or records is None else {"store": records, "run_key": key}
            outcome = session.hook.cancel(instance_id, timeout=timeout, **kept)  # type: ignore[arg-type]
        except OrchestrationError as error:
            status = status_of(error)
            tell_error(session.out, type(error).__name__, str(error), status, instance_id=instance_id)
        else:
            status = _status(outcome)
            session.out.line(shapes.cancelled(instance_id, outcome, status), "instance_id", "status", "text")
        worst = max(worst, status)
    return worst


def _status(outcome: "CancelOutcome") -> int:
    if outcome.status == "not_confirmed" or outcome.in_flight:
        return 3
    if outcome.status != "already_ended":
        return 0
    return 1 if outcome.instance is not None and outcome.instance.state == "failed" else 2


def _key_of(records: "SqliteRunStore | None", instance_id: str) -> str | None:
    found = () if records is None else records.records()
    return next((one.key for one in found if one.instance_id == instance_id), None)


def _run_of(records: "SqliteRunStore | None", run_key: str) -> dict[str, str | None]:
    from .runs import record_of

    instance_id = record_of(records, run_key).instance_id
    if instance_id is None:
        from ..api.errors import NotFoundError

        raise NotFoundError(
            f"no instance of run key {run_key} is on record, so there is none to cancel by it; a run may exist all the "
            "same: reconcile",
        )
    return {instance_id: run_key}

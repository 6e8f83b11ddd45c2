"""`unreleased`: runs that stand still."""

from typing import TYPE_CHECKING

from .options import Store, WorkflowRef
from .session import Session, reaching_server

if TYPE_CHECKING:
    from ..run_store import SqliteRunStore


@reaching_server
def unreleased(session: Session, workflow_id: WorkflowRef, store: Store = None) -> None:
    """List the runs that stand still and move nothing: at their gate, or held at a checkpoint.

    One line for each run, separated by tabs: instance, run key, when the instance was created, where it stands, since
    when, and who asked for a stop ("-" where that is not known).
    """
    from . import shapes
    from .targets import workflow_ids_of

    records = session.store(store)
    rows = [row for one in workflow_ids_of(session.hook, workflow_id) for row in session.hook.list_standing(one)]
    shown = [shapes.standing(one, stop_of(records, one.instance.id, one.run_key)) for one in rows]
    fields = ("instance_id", "run_key", "created_at", "where", "since", "stopped")
    session.out.many(shown, fields, none="no run stands at its gate or at a checkpoint")


def stop_of(records: "SqliteRunStore | None", instance_id: str, run_key: str) -> str:
    """Who asked for a stop of a run, and when; "-" where no record tells."""
    from ..api.errors import UnreadableRecordError

    try:
        record = None if records is None else records.load(run_key)
    except UnreadableRecordError as error:
        return str(error)
    if record is None or record.instance_id != instance_id:
        return "-"
    if not record.hold:
        return "no stop is on record"
    since = "" if record.held_since is None else f" at {record.held_since.isoformat(timespec='seconds')}"
    return f"stopped{since}: {record.held_by or 'it is not on record by whom'}"

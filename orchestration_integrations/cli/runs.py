"""`runs`: the records that run keys have in a SQLite file."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from .options import InstanceId, Store, Yes
from .session import Session, confirmed, local, reaching_server

if TYPE_CHECKING:
    from ..ownership.record import RunRecord
    from ..run_store import SqliteRunStore

HELP = "The records that run keys have in a SQLite file."
_Key = Annotated[str, typer.Argument(help="The run key.", show_default=False)]
_NEEDS = "the records are in a file"


def record_of(store: "SqliteRunStore | None", key: str) -> "RunRecord":
    """The record of a key.

    Raises:
        ConfigurationError: there is none.
    """
    from ..api.errors import ConfigurationError

    record = None if store is None else store.load(key)
    if record is None:
        raise ConfigurationError(f"there is no record of run key {key}", field="run_key")
    return record


def _store(session: Session, path: str | None) -> "SqliteRunStore":
    store = session.store(path, needed_for=_NEEDS)
    assert store is not None  # noqa: S101  (it is needed, so its absence has raised)
    return store


@local
def list_(session: Session, store: Store = None) -> int:
    """List the keys: one line each, separated by tabs.

    The fields are the key, the state of its record, how its run ended, the instance, and when that was created. States:
    intended (a run may have been submitted), chosen (this instance may have been released; also after --no-wait,
    however it ended), ended (nobody was told yet), told.

    Exit status: 3 where a record cannot be read: its run may exist.
    """
    from . import shapes
    from .exit_codes import UNKNOWN

    rows = []
    kept = _store(session, store)
    for record in kept.records():
        created = record.created_at.isoformat(timespec="seconds") if record.created_at is not None else None
        shown = {"shown_state": f"{record.state}{' (settled)' if record.settled else ''}", "created": created}
        rows.append({**shapes.record(record), **shown})
    unreadable = kept.unreadable()
    rows += [shapes.unreadable_record(key, str(error)) for key, error in unreadable.items()]
    session.out.many(rows, ("key", "shown_state", "end", "instance_id", "created"), none="no key is on record")
    return UNKNOWN if unreadable else 0


@local
def show(session: Session, key: _Key, store: Store = None) -> None:
    """Show all that is on record of a key, as JSON."""
    from . import shapes

    record = record_of(_store(session, store), key)
    if session.out.as_json:
        return session.out.one(shapes.record(record))
    return session.out.text(json.dumps(record.to_json(), indent=2, default=str))


@local
def settle(session: Session, key: _Key, store: Store = None, yes: Yes = False) -> None:
    """Let the next start of a key be a new run: once you know how the one on record ended. Nothing is deleted.

    A run that still goes on is cancelled first by the next start, and waited for where that does not end it.
    """
    found = _store(session, store)
    record = record_of(found, key)
    ended = f"instance {record.instance_id or '(unknown)'}, {record.end or record.state}"
    confirmed(f"The next start of {key} will pay again, and all of it ({ended}). Settle it?", yes)
    found.settle(key)
    text = f"{key} is settled: its next start is a new run, which pays all of it again ({ended})"
    _done(session, found, key, "settled", text)


@reaching_server
def adopt(
    session: Session,
    key: _Key,
    instance_id: InstanceId,
    settled: Annotated[
        str | None, typer.Option(help="The token of the AmbiguousRunError that this settles; with it nothing is asked.")
    ] = None,
    although_it_differs: Annotated[
        bool,
        typer.Option("--although-it-differs", help="It is this payment, although it shows another text of a variable."),
    ] = False,
    store: Store = None,
    yes: Yes = False,
) -> None:
    """Say that an instance is the run of a key whose submit got no answer: run goes on with it and pays no second time.

    For a workflow without a gate; with one, for a run that was released where the call had no record of the key and
    could not tell which of several runs is the payment. The instance must be of the workflow on record, must not be
    older than the submit, must show no other content (else --although-it-differs), and must be the run of no other key.
    While the call that submitted may still run, its AmbiguousRunError and the token in it are needed.

    Exit status: 2 it cannot be, or is not known to be; nothing was changed. 3 it could not be read.
    """
    from ..ownership.adopting import adopt as adopted
    from .options import checked_ids

    (one,) = checked_ids([instance_id])
    session.about |= {"instance_id": one, "run_key": key}
    found = _store(session, store)
    record_of(found, key)
    hook = session.hook
    if settled is None:
        confirmed(f"Is instance {one} the payment of {key}? The key will stand for it and for no other run", yes)
    versions, clock = hook.plans.versions, hook.plans.clock
    hook.perform(adopted(found, key, one, settled, versions, clock, although_it_differs=although_it_differs))
    text = f"instance {one} is the run of {key} now: run with this key goes on with it, and pays no second time"
    _done(session, found, key, "adopted", text)


@local
def resume(session: Session, key: _Key, store: Store = None) -> None:
    """Let a run go on that a stop holds at a checkpoint: the next call with its key lets it pass. Sends nothing.

    Exit status: 2 nothing of the key is held: no stop is on record, its run has ended, or the key is settled.
    """
    from ..api.errors import ValidationError
    from ..ownership.keeping import resume as take_back
    from ..ownership.observing import end_named

    found = _store(session, store)
    record = record_of(found, key)
    if record.end is not None and not record.settled:
        raise ValidationError(
            f"nothing of {key} is held: instance {record.instance_id} has ended, on record as {end_named(record)}",
            path="run_key",
        )
    if not record.hold and not record.settled:
        raise ValidationError(f"nothing of {key} is held: no stop of it is on record", path="run_key")
    take_back(found, key)
    goes_on = f"the next call with this key lets instance {record.instance_id} go on, or tells how it has ended"
    text = f"the stop of {key} is taken back: {goes_on}"
    _done(session, found, key, "resumed", text)


@local
def forget(
    session: Session,
    key: _Key,
    unreadable: Annotated[
        bool, typer.Option("--unreadable", help="Remove a record that cannot be read: its run may exist.")
    ] = False,
    store: Store = None,
    yes: Yes = False,
) -> None:
    """Remove the record of a key whose run is over and was told, or that is settled.

    The file then no longer proves of any key used until now that it was not used: a start of such a key looks at the
    server, and without a gate it needs --first-attempt.
    """
    from ..run_store import refuse_needed, refuse_readable

    found = _store(session, store)
    if unreadable:
        refuse_readable(key, found.unreadable().get(key))
        confirmed(f"Do you know how the run of {key} ended? Its record cannot be read. Remove it?", yes)
        found.forget_unreadable(key)
    else:
        record = record_of(found, key)
        refuse_needed(record)
        confirmed(f"Remove the record of {key} ({record.end or record.state})?", yes)
        found.forget(key)
    row = {"type": "record", "key": key, "result": "forgotten", "text": f"the record of {key} is removed"}
    session.out.line(row, "text")


def _done(session: Session, store: "SqliteRunStore", key: str, result: str, text: str) -> None:
    from . import shapes

    row = {**shapes.record(record_of(store, key)), "result": result, "text": text}
    session.out.line(row, "text")


COMMANDS = {"list": list_, "show": show, "settle": settle, "adopt": adopt, "resume": resume, "forget": forget}

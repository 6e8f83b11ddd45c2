"""The command `orchestration-integrations`."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import threading
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn, cast

try:
    import typer
except ImportError:
    sys.exit("this command needs an extra: pip install 'orchestration-integrations[cli,server]'")

if TYPE_CHECKING:
    from .ownership.record import RunRecord
    from .run_store import SqliteRunStore

app = typer.Typer(
    name="orchestration-integrations",
    help="Run money flows on a Formance Orchestration server.",
    no_args_is_help=True,
    add_completion=False,
)


@app.callback()
def _options() -> None:
    """Run money flows on a Formance Orchestration server."""


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8080,
    generation: Annotated[int, typer.Option(min=1, max=3, help="Which generation of the server to imitate.")] = 2,
    db: Annotated[str | None, typer.Option(help="SQLite file to keep everything in; without, in memory.")] = None,
    token: Annotated[
        str | None,
        typer.Option(help="Demand this bearer token, or one issued for it as a client secret (any client id)."),
    ] = None,
    faults: Annotated[bool, typer.Option("--faults", help="Serve the control calls under /_control/.")] = False,
) -> None:
    """Start the embedded server; prints its URL on a line of its own and serves until SIGINT or SIGTERM."""
    from .server.embedded import EmbeddedServer

    told = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told.set())
    try:
        server = EmbeddedServer(
            cast("Literal[1, 2, 3]", generation), host=host, port=port, db=db, token=token, faults=faults
        )
        server.start()
    except OSError as error:
        typer.echo(f"cannot listen on {host}:{port}: {error}", err=True)
        raise typer.Exit(1) from None
    except sqlite3.Error as error:
        typer.echo(f"cannot use {db} as a database: {error}", err=True)
        raise typer.Exit(1) from None
    sys.stdout.write(server.url + "\n")
    sys.stdout.flush()
    try:
        told.wait()
    finally:
        server.stop()


@app.command()
def unreleased(
    workflow_id: Annotated[str, typer.Argument(help="A gated workflow.")],
    url: Annotated[str | None, typer.Option(help="Base URL of the server; default: ORCHESTRATION_URL.")] = None,
) -> None:
    """List runs that were created and never released: what lost submits leave behind. They move nothing."""
    from rich.console import Console
    from rich.table import Table

    from .api.errors import OrchestrationError
    from .http_hook import OrchestrationHttpHook

    try:
        with OrchestrationHttpHook(base_url=url) as hook:
            rows = hook.list_unreleased(workflow_id)
    except OrchestrationError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    table = Table("instance", "run key", "created")
    for instance, key in rows:
        table.add_row(instance.id, key, instance.created_at.isoformat(timespec="seconds"))
    Console().print(table if rows else "no run waits for its release")


runs = typer.Typer(help="The records that run_once keeps in a SQLite file.", no_args_is_help=True)
app.add_typer(runs, name="runs")
StoreOption = Annotated[str, typer.Option("--store", help="The SQLite file that run_once was given.")]
KeyArgument = Annotated[str, typer.Argument(help="The run key.")]


def _store(path: str) -> SqliteRunStore:
    """The store in a file that is there; a missing one is a typing mistake, and is not made."""
    from .api.errors import ConfigurationError
    from .run_store import SqliteRunStore

    if not os.path.exists(path):
        _fail(f"there is no file {path}")
    try:
        return SqliteRunStore(path)
    except ConfigurationError as error:
        _fail(str(error))


def _record(store: SqliteRunStore, key: str) -> RunRecord:
    from .api.errors import UnreadableRecordError

    try:
        record = store.load(key)
    except UnreadableRecordError as error:
        _fail(str(error))
    if record is None:
        _fail(f"there is no record of run key {key}")
    return record


def _fail(why: str) -> NoReturn:
    typer.echo(why, err=True)
    raise typer.Exit(2)


@runs.command("list")
def list_runs(store: StoreOption) -> None:
    """One line for each key, by tabs: key, state of its record, how it ended, instance, when that was created."""
    from .api.errors import UnreadableRecordError

    try:
        records = _store(store).records()
    except UnreadableRecordError as error:
        _fail(str(error))
    for record in records:
        created = record.created_at.isoformat(timespec="seconds") if record.created_at is not None else "-"
        state = f"{record.state}{' (settled)' if record.settled else ''}"
        typer.echo(f"{record.key}\t{state}\t{record.end or '-'}\t{record.instance_id or '-'}\t{created}")
    if not records:
        typer.echo("no key is on record", err=True)


@runs.command()
def show(key: KeyArgument, store: StoreOption) -> None:
    """All that is on record of a key, as JSON."""
    import json

    typer.echo(json.dumps(_record(_store(store), key).to_json(), indent=2))


@runs.command()
def settle(
    key: KeyArgument,
    store: StoreOption,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Let the next start of a key be a new run: once you know how the one on record ended. Nothing is deleted.

    A run that still goes on is cancelled first by the next start, and waited for where that does not end it.
    """
    found = _store(store)
    record = _record(found, key)
    ended = f"instance {record.instance_id or '(unknown)'}, {record.end or record.state}"
    if not yes:
        typer.confirm(f"The next start of {key} will pay again ({ended}). Settle it?", abort=True)
    found.settle(key)
    typer.echo(f"{key} is settled: its next start is a new run")


def main() -> None:
    """Run the command."""
    app()


if __name__ == "__main__":
    main()

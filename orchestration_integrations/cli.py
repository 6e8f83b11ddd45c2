"""The command `orchestration-integrations`."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn, cast

try:
    import typer
except ImportError:
    sys.exit("this command needs an extra: pip install 'orchestration-integrations[cli]'")

from .version import __version__

if TYPE_CHECKING:
    from .ownership.record import RunRecord
    from .run_store import SqliteRunStore
    from .settings import Settings

app = typer.Typer(
    name="orchestration-integrations",
    help="Run money flows on a Formance Orchestration server.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,  # they may hold a token
)
_NEEDS = "needs an extra: pip install 'orchestration-integrations[cli,server]'"


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Run money flows on a Formance Orchestration server."""


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8080,
    generation: Annotated[int, typer.Option(min=1, max=3, help="Which generation of the server to imitate.")] = 2,
    db: Annotated[str | None, typer.Option(help="SQLite file that keeps everything; default: memory.")] = None,
    token: Annotated[
        str | None,
        typer.Option(help="Demand this bearer token, or one issued for it as a client secret (any client id)."),
    ] = None,
    faults: Annotated[bool, typer.Option("--faults", help="Serve the control calls under /_control/.")] = False,
) -> None:
    """Start the embedded server; prints its URL on a line of its own and serves until SIGINT or SIGTERM."""
    try:
        from .server.embedded import EmbeddedServer
    except ImportError as error:
        _fail(f"serve {_NEEDS} ({error})", 1)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        server = EmbeddedServer(
            cast("Literal[1, 2, 3]", generation), host=host, port=port, db=db, token=token, faults=faults
        )
        server.start()
    except OSError as error:
        _fail(f"cannot listen on {host}:{port}: {error}", 1)
    except sqlite3.Error as error:
        _fail(f"cannot use {db} as a database: {error}", 1)
    sys.stdout.write(server.url + "\n")
    sys.stdout.flush()
    try:
        stop.wait()
    finally:
        server.stop()


@app.command()
def wait(
    instance_ids: Annotated[list[str], typer.Argument(help="The instances.")],
    url: Annotated[str | None, typer.Option(help="Base URL of the server; default: ORCHESTRATION_URL.")] = None,
    timeout: Annotated[float | None, typer.Option(min=0, help="Seconds; default: no limit.")] = None,
    poll_interval: Annotated[float, typer.Option(help="Seconds between polls.")] = 5.0,
    hints: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Take hints on this port, of this machine only; 0: a free one.")
    ] = None,
) -> None:
    """Wait until instances have ended, all by one poll, and print each as it ends.

    One line for each: instance, "succeeded" or what went wrong in a word, and the reason, separated by tabs. With
    --hints a POST whose JSON names an instance has it read at once; the address is printed to the standard error. So
    is a server that cannot be read, when that begins and when it ends.
    Credentials come from the environment.

    Exit status: 0 all have succeeded; 1 one has failed or was cancelled; 3 one stands still, or nobody knows what
    became of it; 4 the time is over. The highest of them counts.
    """
    from .api.errors import OrchestrationError
    from .http_hook import OrchestrationHttpHook

    worst = 0
    try:
        with OrchestrationHttpHook(_settings(url)) as hook, _hint_endpoint(hints), _outages_told():
            for instance_id, result in hook.wait_many(instance_ids, timeout=timeout, poll_interval=poll_interval):
                code, word, why = _end_of(result)
                _line(instance_id, word, why)
                sys.stdout.flush()
                worst = max(worst, code)
    except OrchestrationError as error:
        _fail(str(error), 2)
    raise typer.Exit(worst)


@contextmanager
def _outages_told() -> Iterator[None]:
    """Print to the standard error what waits tell of a server that cannot be read."""
    import logging

    shown = logging.StreamHandler(sys.stderr)
    shown.setFormatter(logging.Formatter("%(message)s"))
    loggers = [logging.getLogger(f"orchestration_integrations.{name}") for name in ("waits", "watching")]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.addHandler(shown)
        one.setLevel(logging.INFO)
    try:
        yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.removeHandler(shown)
            one.setLevel(level)


@contextmanager
def _hint_endpoint(port: int | None) -> Iterator[None]:
    """Take hints on a port, and say where; nothing without one."""
    if port is None:
        yield
        return
    from .hint_endpoint import HintEndpoint

    try:
        endpoint = HintEndpoint(port)
    except OSError as error:
        _fail(f"cannot listen on port {port}: {error}")
    with endpoint:
        typer.echo(f"hints: {endpoint.url}", err=True)
        yield


def _end_of(result: object) -> tuple[int, str, str]:
    """Exit status, a word, and the reason."""
    from .api.errors import InstanceCancelledError, InstanceFailedError, WaitTimeoutError

    if not isinstance(result, Exception):
        return 0, "succeeded", ""
    words = {
        InstanceFailedError: (1, "failed"),
        InstanceCancelledError: (1, "cancelled"),
        WaitTimeoutError: (4, "timeout"),
    }
    code, word = words.get(type(result), (3, "unknown"))  # type: ignore[arg-type]
    return code, word, str(result)


@app.command()
def unreleased(
    workflow_id: Annotated[str, typer.Argument(help="A gated workflow.")],
    url: Annotated[str | None, typer.Option(help="Base URL of the server; default: ORCHESTRATION_URL.")] = None,
    store: Annotated[
        str | None,
        typer.Option("--store", help="The SQLite file that run_once was given: it knows who asked for a stop."),
    ] = None,
) -> None:
    """List the runs that stand still and move nothing: at their gate, or held at a checkpoint.

    One line for each run, separated by tabs: instance, run key, when the instance was created, where it stands, since
    when, and who asked for a stop ("-" where that is not known). Credentials and all other settings come from the
    environment (ORCHESTRATION_TOKEN, ORCHESTRATION_CLIENT_ID …), also with --url.
    """
    from .api.errors import OrchestrationError
    from .http_hook import OrchestrationHttpHook

    records = None if store is None else _store(store)
    try:
        with OrchestrationHttpHook(_settings(url)) as hook:
            rows = hook.list_standing(workflow_id)
    except OrchestrationError as error:
        _fail(str(error), 1)
    for one in rows:
        where = "at its gate" if one.checkpoint is None else f"at the checkpoint before stage {one.checkpoint}"
        created = one.instance.created_at.isoformat(timespec="seconds")
        since = "-" if one.since is None else one.since.isoformat(timespec="seconds")
        _line(one.instance.id, one.run_key, created, where, since, _stop_of(records, one.instance.id, one.run_key))
    if not rows:
        typer.echo("no run stands at its gate or at a checkpoint", err=True)


def _stop_of(records: SqliteRunStore | None, instance_id: str, run_key: str) -> str:
    """Who asked for a stop of a run, and when."""
    from .api.errors import UnreadableRecordError

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


def _settings(url: str | None) -> Settings:
    """The settings of the environment, with the address of the option ``--url`` where it is given."""
    from .api.errors import ConfigurationError
    from .settings import Settings

    if url is None and not os.environ.get("ORCHESTRATION_URL", "").strip():
        _fail("base_url: name the server by --url, or set ORCHESTRATION_URL", 1)
    try:
        return Settings.from_env(base_url=url)
    except ConfigurationError as error:
        _fail(f"{error} (from --url)" if url is not None and error.field == "base_url" else str(error), 1)


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


def _fail(why: str, code: int = 2) -> NoReturn:
    typer.echo(why, err=True)
    raise typer.Exit(code)


def _line(*fields: str) -> None:
    """One line of a list. What a terminal would obey, and what would break the line, is shown and not sent."""
    typer.echo("\t".join(repr(field)[1:-1] if not field.isprintable() else field for field in fields))


@runs.command("list")
def list_runs(store: StoreOption) -> None:
    """List the keys: one line each, separated by tabs.

    The fields are the key, the state of its record, how its run ended, the instance, and when that was created.
    """
    from .api.errors import UnreadableRecordError

    try:
        records = _store(store).records()
    except UnreadableRecordError as error:
        _fail(str(error))
    for record in records:
        created = record.created_at.isoformat(timespec="seconds") if record.created_at is not None else "-"
        state = f"{record.state}{' (settled)' if record.settled else ''}"
        _line(record.key, state, record.end or "-", record.instance_id or "-", created)
    if not records:
        typer.echo("no key is on record", err=True)


@runs.command()
def show(key: KeyArgument, store: StoreOption) -> None:
    """Show all that is on record of a key, as JSON."""
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


@runs.command()
def resume(key: KeyArgument, store: StoreOption) -> None:
    """Let a run go on that a stop holds at a checkpoint: the next call with its key lets it pass. Sends nothing."""
    from .api.errors import RecordConflictError, ValidationError
    from .ownership.keeping import resume as take_back

    found = _store(store)
    record = _record(found, key)
    if not record.hold:
        _fail(f"no stop of {key} is on record", 1)
    try:
        take_back(found, key)
    except (RecordConflictError, ValidationError) as error:
        _fail(str(error), 1)
    typer.echo(f"the stop of {key} is taken back: the next call with this key lets instance {record.instance_id} go on")


def main() -> None:
    """Run the command."""
    app()


if __name__ == "__main__":
    main()

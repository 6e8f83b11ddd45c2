"""`serve`: the embedded server."""

import signal
import sqlite3
import threading
from typing import Annotated, Literal, cast

import typer

from .error_objects import tell_error
from .session import Session, local

_NEEDS = "needs an extra: pip install 'orchestration-integrations[cli,server]'"


@local
def serve(
    session: Session,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8080,
    generation: Annotated[int, typer.Option(min=1, max=3, help="Which generation of the server to imitate.")] = 2,
    db: Annotated[str | None, typer.Option(help="SQLite file that keeps everything; default: memory.")] = None,
    token: Annotated[
        str | None,
        typer.Option(help="Demand this bearer token, or one issued for it as a client secret (any client id)."),
    ] = None,
    faults: Annotated[bool, typer.Option("--faults", help="Serve the control calls under /_control/.")] = False,
    seed: Annotated[
        str | None,
        typer.Option(help="JSON or YAML file of accounts, wallets, payments and connectors that are there at first."),
    ] = None,
    record: Annotated[
        str | None, typer.Option(help="Write what really happened to this file as JSON lines, when the server ends.")
    ] = None,
    time: Annotated[
        str,
        typer.Option(
            help="real, or skip: while all that is left is that clients wait, the clock jumps to what comes next."
        ),
    ] = "real",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="A name of this machine, besides localhost, by which it may be asked for. Repeatable."),
    ] = None,
) -> int:
    """Start the embedded server; print its URL on a line of its own and serve until SIGINT or SIGTERM."""
    try:
        from ..server.embedded import EmbeddedServer
    except ImportError as error:
        return _refused(session, f"serve {_NEEDS} ({error})")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        audit = open(record, "w", encoding="utf-8") if record is not None else None  # noqa: SIM115 (closed at the end)
        server = EmbeddedServer(
            cast("Literal[1, 2, 3]", generation),
            host=host,
            port=port,
            db=db,
            token=token,
            faults=faults,
            data=seed,
            time=cast("Literal['real', 'skip']", time),  # any other text is refused by its name
            allow_hosts=allow_host or (),
        )
    except (OSError, ValueError) as error:
        named = {seed: "--seed: ", record: "--record: "}.get(getattr(error, "filename", None) or "", "")
        return _refused(session, f"{named}{error}")
    except sqlite3.Error as error:
        return _refused(session, f"cannot use {db} as a database: {error}")
    try:
        server.start()
    except OSError as error:
        return _refused(session, f"cannot listen on {host}:{port}: {error}")
    try:
        session.out.line({"type": "server", "url": server.url, "generation": generation}, "url")
        stop.wait()
    finally:
        if audit is not None:
            with audit:
                audit.write(server.record().as_json_lines())
        server.stop()
    return 0


def _refused(session: Session, why: str) -> int:
    tell_error(session.out, "ConfigurationError", why, 2)
    return 2

"""The command `orchestration-integrations`."""

from __future__ import annotations

import signal
import sqlite3
import sys
import threading
from typing import Annotated, Literal, cast

try:
    import typer
except ImportError:
    sys.exit("this command needs an extra: pip install 'orchestration-integrations[cli,server]'")

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


def main() -> None:
    """Run the command."""
    app()


if __name__ == "__main__":
    main()

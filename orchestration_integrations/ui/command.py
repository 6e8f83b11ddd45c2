"""The command `orchestration-integrations ui`: the live page of any server."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Annotated, NoReturn

import typer

_NEEDS = "ui needs an extra: pip install 'orchestration-integrations[cli,server]'"


def ui(
    url: Annotated[str | None, typer.Option(help="Base URL of the server; default: ORCHESTRATION_URL.")] = None,
    token: Annotated[
        str | None,
        typer.Option(
            help="Bearer token for the server; the page demands it too. Default: the credentials of the environment "
            "(ORCHESTRATION_TOKEN, ORCHESTRATION_CLIENT_ID …), and a page that demands nothing."
        ),
    ] = None,
    page_token: Annotated[
        str | None, typer.Option(help="What the page demands, where that is not the server's token.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; another than loopback needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8088,
    allow_actions: Annotated[
        bool,
        typer.Option("--allow-actions", help="Let the page send events, cancel and start runs; else it only reads."),
    ] = False,
    embed_in: Annotated[
        list[str] | None,
        typer.Option(help="Origin whose pages may show this one in a frame: https://airflow.example. Repeatable."),
    ] = None,
) -> None:
    """Serve the live page of a server; prints its address on a line of its own and serves until SIGINT or SIGTERM."""
    try:
        from .serving import PageServer
    except ImportError as error:
        _fail(f"{_NEEDS} ({error})")
    from ..api.errors import ConfigurationError
    from ..settings import Settings
    from .guard import origin_of

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        settings = Settings.from_env(base_url=url, token=token)
        demanded = page_token if page_token is not None else token
        embedders = tuple(origin_of(one) for one in embed_in or ())
        server = PageServer(
            settings, host=host, port=port, token=demanded, actions=allow_actions, embedders=embedders
        ).start()
    except ConfigurationError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"cannot listen on {host}:{port}: {error}")
    sys.stdout.write(server.url + "/\n")
    sys.stdout.flush()
    try:
        stop.wait()
    finally:
        server.stop()


def _fail(why: str) -> NoReturn:
    typer.echo(why, err=True)
    raise typer.Exit(2)

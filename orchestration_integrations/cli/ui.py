"""`ui`: the live page of any server."""

import os
import signal
import threading
from typing import Annotated

import typer

from . import notices
from .error_objects import tell_error
from .session import Session, reaching_server

_NEEDS = "ui needs an extra: pip install 'orchestration-integrations[cli,server]'"
VARIABLE = "ORCHESTRATION_PAGE_TOKEN"


@reaching_server
def ui(
    session: Session,
    page_token: Annotated[
        str | None,
        typer.Option(
            help=f"What the page demands; default: {VARIABLE}, then --token where that is given, else nothing. "
            "Others on this machine can see it: prefer the variable."
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; another than loopback needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8088,
    allow_actions: Annotated[
        bool,
        typer.Option("--allow-actions", help="Let the page send events, cancel and start runs; else it only reads."),
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="A name of this machine, besides localhost, by which the page may be asked for. Repeatable."),
    ] = None,
    embed_in: Annotated[
        list[str] | None,
        typer.Option(help="Origin whose pages may show this one in a frame: https://airflow.example. Repeatable."),
    ] = None,
) -> int:
    """Serve the live page of a server; prints its address on a line of its own and serves until SIGINT or SIGTERM."""
    try:
        from ..ui.guard import demanded_token, origin_of
        from ..ui.serving import PageServer
    except ImportError as error:
        return _refused(session, f"{_NEEDS} ({error})")
    named = {"--page-token": page_token, VARIABLE: os.environ.get(VARIABLE), "--token": session.given_token}
    notices.keep_secret(named.values())
    demanded = next((demanded_token(value, name) for name, value in named.items() if value is not None), None)
    settings = session.settings
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        server = PageServer(
            settings,
            host=host,
            port=port,
            token=demanded,
            actions=allow_actions,
            embedders=tuple(origin_of(one) for one in embed_in or ()),
            hosts=tuple(allow_host or ()),
        ).start()
    except OSError as error:
        return _refused(session, f"cannot listen on {host}:{port}: {error}")
    try:
        row = {"type": "page", "url": f"{server.url}/", "actions": allow_actions, "upstream": settings.base_url}
        session.out.line(row, "url")
        stop.wait()
    finally:
        server.stop()
    return 0


def _refused(session: Session, why: str) -> int:
    tell_error(session.out, "ConfigurationError", why, 2)
    return 2

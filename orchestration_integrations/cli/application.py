"""The commands by their names. A command's own module loads what it needs when it runs, so that help comes at once."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer
import typer.main

from ..version import __version__
from . import cancel, events, info, instances, reconcile, run, runs, serve, standing, triggers, ui, wait, workflows
from .group import CommandGroup, interrupted_before
from .signals import ignore_to_the_end, listen_to_the_end, status_of_interrupt


def _group(help: str, **options: Any) -> typer.Typer:
    return typer.Typer(
        help=help,
        no_args_is_help=True,
        rich_markup_mode=None,  # "[…]" in a help text is text; and help needs no rich, which is slow to import
        pretty_exceptions_enable=False,
        pretty_exceptions_show_locals=False,  # they may hold a token
        **options,
    )


app = _group("Run money flows on a Formance Orchestration server.", name="orchestration-integrations", cls=CommandGroup)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback(
    epilog="Exit status: 0 well; 1 the instance failed or was cancelled; 2 usage or configuration; 3 ambiguous or "
    "unknown; 4 the time is over; 5 this command itself failed, such as a closed pipe; 6 what was to be stopped had "
    "succeeded; 129, 130, 143 interrupted."
)
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Run money flows on a Formance Orchestration server."""


app.command()(serve.serve)
app.command()(ui.ui)
app.command()(info.info)
app.command()(run.run)
app.command()(wait.wait)
app.command()(cancel.cancel)
app.command()(standing.unreleased)
app.command()(reconcile.reconcile)
for name, module in {
    "workflows": workflows,
    "instances": instances,
    "events": events,
    "triggers": triggers,
    "runs": runs,
}.items():
    group = _group(module.HELP)
    for command_name, command in module.COMMANDS.items():
        group.command(command_name)(command)
    app.add_typer(group, name=name)


def main() -> None:
    """Run the command."""
    listen_to_the_end()
    try:
        try:
            command = typer.main.get_command(app)
        except KeyboardInterrupt as interrupt:
            interrupted_before(interrupt)
        command()
    except KeyboardInterrupt as interrupt:  # amid the last words
        os._exit(status_of_interrupt(interrupt))
    finally:  # to the very end of the process: a second signal must not change how it ends
        ignore_to_the_end()

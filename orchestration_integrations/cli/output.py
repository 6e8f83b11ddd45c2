"""The result of a command, on the standard output: a table on a terminal, lines of tabs in a pipe, JSON with --json.

Data is data: nothing in it is markup, nothing in it is obeyed by a terminal, and ids are never cut.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from . import notices
from .notices import printable

Row = Mapping[str, Any]
"""One object of the result. Its field ``type`` says what it is; docs/cli.md lists the types and their fields."""
_STYLES = {
    "succeeded": "green",
    "released": "green",
    "running": "cyan",
    "failed": "bold red",
    "double": "bold red",
    "ambiguous": "bold red",
    "stuck": "bold red",
    "cancelled": "yellow",
    "held": "yellow",
    "unreleased": "yellow",
    "duplicate": "yellow",
}


class OutputLostError(Exception):
    """The standard output takes no more: a closed pipe, a full disk."""


class Output:
    """Writes the result of one command.

    Args:
        as_json: one JSON object a line.
    """

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        with suppress(AttributeError, OSError, ValueError):
            sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]

    @property
    def on_terminal(self) -> bool:
        """Whether somebody reads it as it is written."""
        with suppress(OSError, ValueError, AttributeError):
            return not self.as_json and sys.stdout.isatty() and os.environ.get("TERM", "") != "dumb"
        return False

    def line(self, row: Row, *fields: str) -> None:
        """One object as soon as it is known: its fields that are named, separated by tabs."""
        self._write(_json(row) if self.as_json else "\t".join(text_of(row.get(field)) for field in fields))

    def one(self, row: Row) -> None:
        """One object: a line for each of its fields."""
        if self.as_json:
            return self._write(_json(row))
        shown = {name: value for name, value in row.items() if name != "type"}
        if not self.on_terminal:
            return self._write("\n".join(f"{name}\t{text_of(value)}" for name, value in shown.items()))
        return self._table([{"": name, " ": value} for name, value in shown.items()], ("", " "), heads=False)

    def many(self, rows: Sequence[Row], fields: Sequence[str], none: str) -> None:
        """A list of objects.

        Args:
            rows: objects.
            fields: which of their fields people see. JSON has all.
            none: what is said where there are none.
        """
        if not rows:
            notices.tell(none)
        elif self.as_json or not self.on_terminal:
            for row in rows:
                self.line(row, *fields)
        else:
            self._table(rows, fields)

    def text(self, text: str) -> None:
        """Lines that are what they are: a definition, a difference."""
        self._write("\n".join(printable(line) for line in text.splitlines()))

    def _table(self, rows: Sequence[Row], fields: Sequence[str], *, heads: bool = True) -> None:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, show_header=heads, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for field in fields:
            whole = field.endswith("id")
            table.add_column(Text(field.replace("_", " ")), no_wrap=whole, overflow="fold")
        for row in rows:
            table.add_row(*(Text(text, style=_STYLES.get(text, "")) for text in (text_of(row.get(f)) for f in fields)))
        try:
            console = Console(file=sys.stdout, markup=False, emoji=False, highlight=False)
            console.print(table)
            sys.stdout.flush()
        except (OSError, ValueError) as error:
            raise OutputLostError(str(error)) from error

    def _write(self, text: str) -> None:
        try:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
        except (OSError, ValueError, AttributeError) as error:  # the last: there is no standard output
            raise OutputLostError(str(error)) from error


def _json(row: Row) -> str:
    return json.dumps(row, default=str)


def text_of(value: object) -> str:
    """A field as people read it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        return printable(", ".join(value)) if value else "-"
    if isinstance(value, list | tuple | Mapping):
        return printable(json.dumps(value, default=str, ensure_ascii=False))
    return printable(str(value))

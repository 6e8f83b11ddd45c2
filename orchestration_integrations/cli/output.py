"""The result of a command, on the standard output: a table on a terminal, lines of tabs in a pipe, JSON with --json.

Data is data: nothing in it is markup, nothing in it is obeyed by a terminal, and ids are never cut.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from . import notices
from .notices import printable

if TYPE_CHECKING:
    from rich.console import Console

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


LEAST_COLUMN = 14
"""Characters that a column needs whose texts may be wrapped."""
_FRACTION = re.compile(r"(?<=:\d\d)\.\d+")


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
        if not self.on_terminal:
            return self._write("\n".join(f"{name}\t{text_of(value)}" for name, value in _shown(row).items()))
        return self._blocks([_shown(row)])

    def many(self, rows: Sequence[Row], fields: Sequence[str], none: str, *, blocks: bool = False) -> None:
        """A list of objects.

        Args:
            rows: objects.
            fields: which of their fields people see. JSON has all.
            none: what is said where there are none.
            blocks: on a terminal, a line for each field, since they are long. Default: a table, where it fits.
        """
        if not rows:
            notices.tell(none)
        elif self.as_json or not self.on_terminal:
            for row in rows:
                self.line(row, *fields)
        elif blocks or not self._table(rows, fields):
            self._blocks([{field: row.get(field) for field in fields} for row in rows])

    def text(self, text: str) -> None:
        """Lines that are what they are: a definition, a difference."""
        self._write("\n".join(printable(line) for line in text.splitlines()))

    def _table(self, rows: Sequence[Row], fields: Sequence[str]) -> bool:
        """Whether the rows fit as a table in which no id is cut; then it is written."""
        from rich.table import Table
        from rich.text import Text

        console = self._console()
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        cells = [[_cell(field, row.get(field)) for field in fields] for row in rows]
        least = 0
        for number, field in enumerate(fields):
            longest = max(len(field), *(len(row[number]) for row in cells))
            whole = field.endswith(("id", "_at", "state", "finding"))
            table.add_column(Text(field.replace("_", " ")), no_wrap=whole, overflow="fold")
            least += 2 + (longest if whole else min(longest, LEAST_COLUMN))
        if least - 2 > console.width:
            return False
        for row in cells:
            table.add_row(*(Text(text, style=_STYLES.get(text, "")) for text in row))
        self._print(console, table)
        return True

    def _blocks(self, rows: Sequence[Row]) -> None:
        """A line for each field, and an empty line between two objects."""
        from rich.table import Table
        from rich.text import Text

        console = self._console()
        for number, row in enumerate(rows):
            table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
            table.add_column(no_wrap=True)
            table.add_column(overflow="fold")
            for field, value in row.items():
                text = _cell(field, value)
                if text not in ("", "-"):
                    table.add_row(Text(field.replace("_", " "), style="dim"), Text(text, style=_STYLES.get(text, "")))
            if number:
                self._print(console, "")
            self._print(console, table)

    def _console(self) -> Console:
        from rich.console import Console

        return Console(file=sys.stdout, markup=False, emoji=False, highlight=False)

    def _print(self, console: Console, what: object) -> None:
        try:
            console.print(what)
            sys.stdout.flush()
        except (OSError, ValueError) as error:
            raise OutputLostError(str(error)) from error

    def _write(self, text: str) -> None:
        try:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
        except (OSError, ValueError, AttributeError) as error:  # the last: there is no standard output
            raise OutputLostError(str(error)) from error


def _shown(row: Row) -> Row:
    return {name: value for name, value in row.items() if name != "type"}


def _cell(field: str, value: object) -> str:
    text = text_of(value)
    return _FRACTION.sub("", text) if field.endswith(("_at", "since", "date")) else text


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

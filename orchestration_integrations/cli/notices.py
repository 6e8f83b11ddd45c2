"""What a command says beside its result, on the standard error. Nothing here raises: a notice must not change what a
command does to a payment."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress

SECRET_VARIABLES = ("ORCHESTRATION_TOKEN", "ORCHESTRATION_CLIENT_SECRET")
SHORTEST_SECRET = 4
"""Characters: what is shorter stands in texts by chance."""
_secrets: set[str] = set()
_writers: list[Callable[[str], object]] = []


def printable(text: str) -> str:
    """A text of one line, in which nothing is left that a terminal would obey."""
    return text if text.isprintable() else repr(text)[1:-1]


def keep_secret(values: Iterable[object]) -> None:
    """These texts appear in no notice and in no traceback from now on."""
    _secrets.update(value for value in values if isinstance(value, str) and len(value) >= SHORTEST_SECRET)


def masked(text: str) -> str:
    """A text without the secrets that this command was given."""
    from ..settings import MASK  # slow to import, and not needed for help

    known = {*_secrets, *(os.environ.get(name, "").strip() for name in SECRET_VARIABLES)}
    for secret in sorted((one for one in known if len(one) >= SHORTEST_SECRET), key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


def tell(text: str) -> None:
    """One line on the standard error."""
    line = masked(printable(text))
    if _writers:
        with suppress(Exception):
            _writers[-1](line)
            return
    write(line + "\n")


def write(text: str) -> None:
    """Write to the standard error, and never raise: it may be full or closed.

    A standard error that takes nothing is let go of. Python would try to write the rest as it ends, and would then
    end with a status of its own.
    """
    try:
        if sys.stderr is not None:
            sys.stderr.write(text)
            sys.stderr.flush()
    except (OSError, ValueError):
        with suppress(Exception):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def on_terminal() -> bool:
    """Whether the standard error is a terminal, so that progress can be shown there."""
    with suppress(OSError, ValueError, AttributeError):
        return sys.stderr.isatty() and os.environ.get("TERM", "") != "dumb"
    return False


class Through:
    """While it lasts, notices go through a display that owns the terminal."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write

    def __enter__(self) -> None:
        _writers.append(self._write)

    def __exit__(self, *_: object) -> None:
        _writers.remove(self._write)


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if hasattr(record, "outcome") or record.name.endswith((".watching", ".waits")):
            return  # what came of a cancel, and outages: the command itself tells them
        with suppress(Exception):
            tell(record.getMessage())


def tell_warnings() -> None:
    """What the package logs as a warning is a notice of the command."""
    logger = logging.getLogger("orchestration_integrations")
    if not any(isinstance(one, _Handler) for one in logger.handlers):
        logger.addHandler(_Handler(logging.WARNING))

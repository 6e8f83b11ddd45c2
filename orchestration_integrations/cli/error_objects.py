"""What ended a command before its time: a line on the standard error, and with --json an object of the type ``error``.

Nothing here is slow to load: a mistake in the usage is told this way too.
"""

from __future__ import annotations

from typing import Any

from . import notices
from .output import Output

FACTS = (
    "field", "path", "reason", "instance_id", "workflow_id", "run_key", "token", "candidates", "differs",
    "outcome", "in_flight", "sure",
)  # fmt: skip
"""What one needs to act on an error; the same fields for each kind of error."""
_LISTS = ("candidates", "in_flight")


def tell_error(out: Output, kind: str, text: str, status: int, **facts: Any) -> None:
    """Tell what has ended a command.

    Args:
        out: of the command.
        kind: the class of the error.
        text: a sentence.
        status: the exit status.
        facts: some of ``FACTS``, and what moved, where it tells what became of a run.
    """
    notices.tell(text)
    object_only(out, kind, text, status, **facts)


def object_only(out: Output, kind: str, text: str, status: int, **facts: Any) -> None:
    """As ``tell_error``, where the standard error was told already."""
    if out.as_json:
        told = {**dict.fromkeys(FACTS), **facts}
        told |= {name: list(told[name] or ()) for name in _LISTS}
        out.line({"type": "error", "error": kind, "message": notices.masked(text), "exit_status": status, **told})

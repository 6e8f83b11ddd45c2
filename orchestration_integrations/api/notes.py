"""Notes of an exception: what its reader has to know besides. Python has ``add_note`` from 3.11 on."""

from __future__ import annotations


def add_note(error: BaseException, text: str) -> None:
    """Add a note, which a traceback shows below the error."""
    error.__notes__ = [*getattr(error, "__notes__", ()), text]  # type: ignore[attr-defined]

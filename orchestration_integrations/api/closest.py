"""The name that somebody may have meant by a mistyped one."""

from __future__ import annotations

from collections.abc import Iterable


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """`` (did you mean …?)`` for the known name that is most like this one; empty where none is like it."""
    import difflib  # now: only a mistake needs it

    found = difflib.get_close_matches(str(name), list(known), n=1)
    return f" (did you mean {found[0]}?)" if found else ""

"""Keys that callers of this process are at work on: one caller at a time for each key.

Between processes a store of records keeps callers apart, where it can compare and set. Inside one process this
does, for threads and for asyncio tasks alike: it never blocks, so whoever finds a key held decides what to do.
Reading and writing one entry of a dict is atomic, so no lock is needed.
"""

from __future__ import annotations

import os

_holders: dict[tuple[int, str, str], object] = {}


class KeyLock:
    """Lets one caller work on the key of one server. ``release`` gives it back, and may be called twice."""

    def __init__(self, server: str, key: str) -> None:
        self._name = (os.getpid(), server, key)  # a forked child holds nothing

    def take(self) -> bool:
        """Whether the key is held by this caller now."""
        return _holders.setdefault(self._name, self) is self

    def release(self) -> None:
        """Let the next caller have it."""
        if _holders.get(self._name) is self:
            _holders.pop(self._name, None)

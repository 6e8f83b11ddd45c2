"""Run keys that this page made and that nobody has used.

A workflow without a gate shows no key, so nobody can prove of a key that it was never used before, and a start refuses
it. Of a key that was made here, at random, and that no start was asked for yet, it is known. That holds for one start:
if its answer is lost, the next one with the same key looks for the run instead of starting one.
"""

from __future__ import annotations

import secrets
import time

MOST = 10_000
"""Keys that are known at once; the oldest are forgotten first, and count as used."""


class FreshKeys:
    """The keys of one page."""

    def __init__(self) -> None:
        self._fresh: dict[tuple[str, str], None] = {}

    def make(self, workflow_id: str) -> str:
        """A key for a run of a workflow that nobody has used."""
        key = f"page-{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime())}-{secrets.token_hex(5)}"
        if len(self._fresh) >= MOST:
            del self._fresh[next(iter(self._fresh))]
        self._fresh[workflow_id, key] = None
        return key

    def use(self, workflow_id: str, key: str) -> bool:
        """Whether this is the first use of a key that was made here for this workflow."""
        fresh = (workflow_id, key) in self._fresh
        self._fresh.pop((workflow_id, key), None)
        return fresh

"""Whoever waits is told when the server cannot be read, and when it can be again: one line each, not one a poll."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone

from .. import telemetry
from ..api.errors import OrchestrationError, is_inconclusive, summary
from . import notices

READS = ("get_instance", "list_instances")
FAILURES = 2
"""Reads in a row that must fail: one alone is common, and says little."""


class _Outage:
    def __init__(self, server: str) -> None:
        self._server = server
        self._lock = threading.Lock()
        self._since: datetime | None = None
        self._failures = 0

    def counted(self, counter: telemetry.Counter, attributes: Mapping[str, str]) -> None:
        """Called at each exchange, inside the handler of its error where it failed."""
        if counter != "calls" or attributes.get("operation") not in READS:
            return
        error = sys.exc_info()[1] if attributes["outcome"] != "ok" else None
        with self._lock:
            if error is None:
                self._over()
            elif isinstance(error, OrchestrationError) and is_inconclusive(error):
                self._failed(error)

    def _failed(self, error: OrchestrationError) -> None:
        self._failures += 1
        if self._since is None:
            self._since = datetime.now(timezone.utc)
        if self._failures == FAILURES:
            since = f"{self._since:%H:%M:%S} UTC"
            notices.tell(f"{self._server} cannot be read since {since} ({summary(error)}); the wait goes on")

    def _over(self) -> None:
        if self._since is not None and self._failures >= FAILURES:
            seconds = (datetime.now(timezone.utc) - self._since).total_seconds()
            notices.tell(f"{self._server} can be read again, after {seconds:.0f} s")
        self._since, self._failures = None, 0


@contextmanager
def told_of_outages(server: str) -> Iterator[None]:
    """While it lasts, the standard error is told of outages.

    Args:
        server: its address, for the lines.
    """
    unsubscribe = telemetry.subscribe(_Outage(server).counted)
    try:
        yield
    finally:
        unsubscribe()

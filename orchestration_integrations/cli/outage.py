"""Whoever waits is told when the server cannot be read, and when it can be again: one line each, not one a call.

An outage is told after two failures in a row, since one alone is common and says little, or after a few seconds in
which a call has had no answer at all. Reads of the instances that are waited for count where nothing was learnt by
them; of other calls only those that did not reach the server.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TypeVar

from .. import telemetry
from ..api.calls import Call
from ..api.errors import OrchestrationError, is_inconclusive, is_passing, summary
from ..clock import monotonic
from ..http_hook import OrchestrationHttpHook
from . import notices

T = TypeVar("T")

READS = ("get_instance", "list_instances")
FAILURES = 2
"""Calls in a row that must fail."""
SILENT_SECONDS = 5.0
"""Seconds after which a call that has no answer is told of."""
LOOK_SECONDS = 0.5
"""Seconds between two looks whether a call has no answer."""


class Outage:
    """Tells the standard error of outages of one server, from its making until ``close``.

    Args:
        server: its address, for the lines.
    """

    def __init__(self, server: str) -> None:
        self._server = server
        self._lock = threading.RLock()  # an interrupt's handler may come while its own thread holds it
        self._since: datetime | None = None
        self._failures = {True: 0, False: 0}
        self._told = False
        self._asked: dict[object, float] = {}
        self._closed = threading.Event()
        self._watches = False
        self._unsubscribe = telemetry.subscribe(self._counted)

    def close(self) -> None:
        """Tell nothing any more. May be called twice."""
        self._unsubscribe()
        self._closed.set()

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Around one exchange."""
        one = object()
        with self._lock:
            self._asked[one] = monotonic()
            begins, self._watches = not self._watches, True
        if begins:
            threading.Thread(target=self._watch, name="orchestration-outage", daemon=True).start()
        try:
            yield
        finally:
            self._asked.pop(one, None)

    def _watch(self) -> None:
        while not self._closed.wait(LOOK_SECONDS):
            with self._lock:
                begun = min(list(self._asked.values()), default=None)
                if begun is not None and monotonic() - begun >= SILENT_SECONDS:
                    self._begun()
                    self._tell(f"{self._server} has not answered for {SILENT_SECONDS:.0f} s")

    def _counted(self, counter: telemetry.Counter, attributes: Mapping[str, str]) -> None:
        """Called at each exchange, inside the handler of its error where it failed."""
        if counter != "calls":
            return
        reads = attributes.get("operation") in READS
        error = sys.exc_info()[1] if attributes["outcome"] != "ok" else None
        with self._lock:
            if error is None:
                self._answered(reads)
            elif isinstance(error, OrchestrationError) and (is_inconclusive(error) if reads else is_passing(error)):
                self._failed(reads, error)

    def _failed(self, reads: bool, error: OrchestrationError) -> None:
        self._begun()
        self._failures[reads] += 1
        if self._failures[reads] >= FAILURES:
            self._tell(f"{self._server} cannot be read since {self._since:%H:%M:%S} UTC ({summary(error)})")

    def _begun(self) -> None:
        if self._since is None:
            self._since = datetime.now(timezone.utc)

    def _tell(self, what: str) -> None:
        if not self._told and not self._closed.is_set():
            self._told = True
            notices.tell(f"{what}; the command goes on trying")

    def _answered(self, reads: bool) -> None:
        self._failures[False] = 0
        if reads:
            self._failures[True] = 0
        if self._failures[True]:
            return
        if self._told and self._since is not None:
            seconds = (datetime.now(timezone.utc) - self._since).total_seconds()
            notices.tell(f"{self._server} can be read again, after {seconds:.0f} s")
        self._since, self._told = None, False


class ToldHook(OrchestrationHttpHook):
    """A hook whose calls are watched."""

    outage: Outage

    def _attempt(self, call: Call[T], until: float | None) -> T:
        with self.outage.asking():
            return super()._attempt(call, until)

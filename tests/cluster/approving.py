"""Sends each released run the event that it waits for, as an application of the company would."""

from __future__ import annotations

import threading

from orchestration_integrations import OrchestrationHttpHook

from .payments import APPROVAL, approved, released
from .services import MoneyServer


class Approver:
    """A thread that approves all runs that have been released, at most so many in a second.

    It stops at the first error, which ``check`` tells.
    """

    def __init__(self, server: MoneyServer, pace: float = 4.0) -> None:
        self.server = server
        self.pace = pace
        self.error: str | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        doing = "reads the record"
        try:
            with OrchestrationHttpHook(base_url=self.server.url) as hook:
                while not self._end.wait(0.5):
                    doing = "reads the record"
                    record = self.server.record()
                    done = approved(record)
                    for instance_id in dict.fromkeys(released(record)):
                        if instance_id in done or self._end.wait(1 / self.pace):
                            continue
                        doing = f"approves {instance_id}"
                        hook.send_event_when_ready(instance_id, APPROVAL, timeout=60)
        except Exception as error:
            self.error = f"while it {doing}: {error!r}"

    def check(self) -> None:
        """Fail with the text of what went wrong, if something did."""
        assert self.error is None, f"the approver failed {self.error}"

    def end(self) -> None:
        """Ask the thread to end and wait for it. What went wrong is told by ``check`` alone."""
        self._end.set()
        if self._thread.ident is None:
            return
        self._thread.join(60)
        if self._thread.is_alive() and self.error is None:
            self.error = "to end within 60 s"

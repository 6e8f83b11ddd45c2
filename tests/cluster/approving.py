"""Sends each released run the event that it waits for, as an application of the company would."""

from __future__ import annotations

import threading

from orchestration_integrations import OrchestrationHttpHook

from .payments import APPROVAL, approved, released
from .services import MoneyServer


class Approver:
    """A thread that approves all runs that have been released, at most so many in a second."""

    def __init__(self, server: MoneyServer, pace: float = 4.0) -> None:
        self.server = server
        self.pace = pace
        self.errors: list[str] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        with OrchestrationHttpHook(base_url=self.server.url) as hook:
            while not self._end.wait(0.5):
                record = self.server.record()
                done = approved(record)
                for instance_id in dict.fromkeys(released(record)):
                    if instance_id in done or self._end.wait(1 / self.pace):
                        continue
                    try:
                        hook.send_event(instance_id, APPROVAL)
                    except Exception as error:
                        self.errors.append(f"{instance_id}: {error!r}")

    def end(self) -> None:
        self._end.set()
        self._thread.join(60)

"""Who owns a run in Prefect: the flow runs around the call, as Prefect's API shows them now.

Asked before each release and each event, and looked at by waits: a submitted task is not told otherwise that its flow
run was cancelled, timed out, or is tried again.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import OrderedDict
from uuid import UUID

from ..clock import AttentiveClock
from .api import read_flow_runs
from .attempt import Enclosure, FlowState, OwnerSays, owner_says
from .errors import FlowRunCancelledError
from .place import Place

WATCH_SECONDS = 2.0
"""How often waits look whether their flow run still wants what they wait for."""
ENDED = {"unwanted": "is over", "superseded": "is tried again, and the new attempt goes on with the run"}


class Owner:
    """The owner of what is done at one place.

    Args:
        place: of the call.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._flow_runs = place.facts.flow_runs
        self._shared = _shared_look(self._flow_runs)

    def __call__(self) -> OwnerSays:
        """Ask now. One call; none outside a flow, where nobody can end what the task does.

        Raises:
            Exception: what Prefect's client raises.
        """
        return self._shared.ask(self._place.left())

    def at_checkpoint(self) -> OwnerSays:
        """Ask now, before a wait lets its run go on. What ends the wait is raised again where it sleeps next, and dealt
        with as any other interrupt is.

        Raises:
            FlowRunCancelledError: the run is no longer wanted, or another attempt has it.
            Exception: what Prefect's client raises.
        """
        says = self()
        if says != "yes":
            self._shared.found(says)
            raise self._ended(says)
        return says

    def check(self) -> None:
        """For waits. What cannot be read is passed over.

        Raises:
            FlowRunCancelledError: the run is no longer wanted, or another attempt has it.
        """
        says = self._shared.seen(self._place.left())
        if says != "yes":
            raise self._ended(says)

    def _ended(self, says: OwnerSays) -> FlowRunCancelledError:
        return FlowRunCancelledError(
            f"the flow run {self._shared.described}{ENDED[says]}", superseded=says == "superseded"
        )


class _Look:
    """Looks at the flow runs of one attempt, for all that waits in it."""

    def __init__(self, flow_runs: tuple[Enclosure, ...]) -> None:
        self._flow_runs = flow_runs
        self._lock = threading.Lock()
        self._says: OwnerSays = "yes"
        self._at = time.monotonic()
        self.described = ""

    def ask(self, left: bool) -> OwnerSays:
        if not self._flow_runs:
            return "yes"
        found = read_flow_runs([UUID(one.id) for one in self._flow_runs])
        now: list[FlowState | None] = []
        for one in self._flow_runs:
            run = found.get(UUID(one.id))
            state = run.state if run is not None else None
            if run is None or state is None:
                now.append(None)
                continue
            now.append(FlowState(state.type.value, run.run_count or 0, str(state.name)))
            if state.name != "Running":
                self.described = f"{run.name} ({state.name}) "
        return owner_says(self._flow_runs, now, left=left)

    def found(self, says: OwnerSays) -> None:
        """Somebody has asked, and it is over."""
        with self._lock:
            self._says = says

    def seen(self, left: bool) -> OwnerSays:
        if not self._lock.acquire(blocking=False):
            return self._says  # somebody looks just now, and Prefect's API may take its time
        try:
            due = time.monotonic() - self._at >= WATCH_SECONDS or (left and self._says == "yes")
            if self._says == "yes" and due:
                try:
                    self._says = self.ask(left)
                except Exception:  # it only informs: Prefect's API may be away for a while
                    logging.getLogger("orchestration_integrations.prefect").debug("flow run unread", exc_info=True)
                self._at = time.monotonic()
            return self._says
        finally:
            self._lock.release()


_looks: OrderedDict[tuple[Enclosure, ...], _Look] = OrderedDict()
_lock = threading.Lock()


def _shared_look(flow_runs: tuple[Enclosure, ...]) -> _Look:
    with _lock:
        look = _looks.get(flow_runs)
        if look is None:
            look = _looks[flow_runs] = _Look(flow_runs)
        _looks.move_to_end(flow_runs)
        while len(_looks) > 1000:
            _looks.popitem(last=False)
        return look


def _leave_to_the_parent() -> None:
    global _lock
    _lock = threading.Lock()
    _looks.clear()


os.register_at_fork(after_in_child=_leave_to_the_parent)


class WatchingClock(AttentiveClock):
    """Lets whatever sleeps look up: is the run still wanted?"""

    def __init__(self, owner: Owner | None) -> None:
        super().__init__(owner.check if owner is not None else None, WATCH_SECONDS)

"""The lists that the page shows: read in the background while somebody looks, answered from memory.

A server has lists without an order, pages that shift, and no filter but "running". So the whole list is read now and
then, sorted and filtered here, and what runs is read more often. A reading that takes long is repeated more rarely: at
most one twentieth of the time goes into reading all, and a fifth into reading what runs. All of it happens in a thread
of its own, so that no request of the page waits for it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import msgspec

from ..api.errors import NotFoundError
from ..api.models import Instance, State, Workflow
from ..http_hook import OrchestrationHttpHook
from ..settings import Settings
from .problems import problem_text

IDLE = 20.0
"""Seconds without a look after which nothing is read any more."""
ALL_EVERY, RUNNING_EVERY = 3.0, 1.5
"""Seconds at least between two readings of everything, and of what runs."""
ALL_SHARE, RUNNING_SHARE = 20.0, 5.0
"""How many times as long as a reading took the pause after it is at least."""
MOST_ENDS = 50
"""Runs at once whose end is read by their id after they have left the list of what runs."""


class Row(msgspec.Struct, frozen=True):
    """One instance in a list."""

    id: str
    workflow_id: str
    created_at: datetime
    ended_at: datetime | None
    state: State
    error: str | None


class Listed(msgspec.Struct, frozen=True):
    """What the lists show, at one moment.

    Attributes:
        rows: the newest first.
        workflows: by id.
        counts: of the instances, by (workflow id, state).
        read_at: epoch seconds; None while nothing was read yet.
        problem: why the last reading failed; None where it did not.
    """

    rows: Sequence[Row] = ()
    workflows: Mapping[str, Workflow] = msgspec.field(default_factory=dict)
    counts: Mapping[tuple[str, str], int] = msgspec.field(default_factory=dict)
    read_at: float | None = None
    problem: str | None = None


class Catalog:
    """Reads the lists of one server while somebody looks.

    Args:
        settings: of the server.
        on_change: called in the reading thread when there is something new to see.
    """

    def __init__(self, settings: Settings, on_change: Callable[[], None]) -> None:
        self._settings = settings
        self._on_change = on_change
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._looked = 0.0
        self._all_due = self._running_due = 0.0
        self._rows: dict[str, Row] = {}
        self.listed = Listed()

    def look(self) -> Listed:
        """What is known now; has it kept up to date for a while."""
        with self._lock:
            self._looked = time.monotonic()
            if self._thread is None and not self._stopped:
                self._thread = threading.Thread(target=self._run, name="orchestration-page-lists", daemon=True)
                self._thread.start()
            return self.listed

    def refresh(self) -> None:
        """Read everything anew, soon."""
        self._all_due = self._running_due = 0.0
        self._wake.set()

    def stop(self) -> None:
        """End the thread; again is harmless."""
        with self._lock:
            self._stopped, thread = True, self._thread
        self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(2)

    def _run(self) -> None:
        with OrchestrationHttpHook(self._settings, face="page") as hook:
            while self._is_wanted():
                self._wake.clear()
                try:
                    self._round(hook)
                except Exception as error:
                    self._publish(problem=problem_text(error))
                    self._all_due = self._running_due = time.monotonic() + ALL_EVERY
                pause = min(self._all_due, self._running_due) - time.monotonic()
                self._wake.wait(min(max(pause, 0.05), IDLE))

    def _is_wanted(self) -> bool:
        with self._lock:
            wanted = not self._stopped and time.monotonic() - self._looked < IDLE
            if not wanted:
                self._thread = None
            return wanted

    def _round(self, hook: OrchestrationHttpHook) -> None:
        began = time.monotonic()
        if began >= self._all_due:
            workflows = {workflow.id: workflow for workflow in hook.list_workflows()}
            rows = {row.id: row for row in map(row_of, hook.list_instances())}
            self._rows = rows
            took = time.monotonic() - began
            self._all_due = time.monotonic() + max(ALL_EVERY, ALL_SHARE * took)
            self._running_due = time.monotonic() + RUNNING_EVERY
            self._publish(workflows=workflows)
        elif began >= self._running_due:
            running = {row.id: row for row in map(row_of, hook.list_instances(running=True))}
            left = [row.id for row in self._rows.values() if row.state == "running" and row.id not in running]
            self._rows = {**self._rows, **running, **_ends(hook, left[:MOST_ENDS])}
            self._running_due = time.monotonic() + max(RUNNING_EVERY, RUNNING_SHARE * (time.monotonic() - began))
            self._publish()

    def _publish(self, *, workflows: Mapping[str, Workflow] | None = None, problem: str | None = None) -> None:
        before = self.listed
        rows = before.rows
        if problem is None:
            rows = tuple(sorted(self._rows.values(), key=_age, reverse=True))
        self.listed = Listed(
            rows=rows,
            workflows=before.workflows if workflows is None else workflows,
            counts=Counter((row.workflow_id, row.state) for row in rows),
            read_at=before.read_at if problem is not None else time.time(),
            problem=problem,
        )
        news = (self.listed.rows, self.listed.workflows.keys(), problem)
        if before.read_at is None or news != (before.rows, before.workflows.keys(), before.problem):
            self._on_change()


def _age(row: Row) -> tuple[datetime, str]:
    return row.created_at, row.id


def _ends(hook: OrchestrationHttpHook, ids: Sequence[str]) -> dict[str, Row]:
    """The rows of instances that have left the list of what runs. Leaving it means nothing by itself."""
    found = {}
    for instance_id in ids:
        try:
            found[instance_id] = row_of(hook.get_instance(instance_id))
        except NotFoundError:
            continue
    return found


def row_of(instance: Instance) -> Row:
    """The row of an instance."""
    return Row(
        id=instance.id,
        workflow_id=instance.workflow_id,
        created_at=instance.created_at,
        ended_at=instance.terminated_at,
        state=instance.state,
        error=instance.failure,
    )

"""The lists that the page shows: read in the background while somebody looks, answered from memory.

A server has lists without an order, pages that shift, and no filter but "running". So the whole list is read now and
then, sorted and filtered here, and what runs is read more often. A reading that takes long is repeated more rarely: at
most one twentieth of the time goes into reading all, and a fifth into reading what runs. All of it happens in a thread
of its own, so that no request of the page waits for it.

Three things that are shown have ages of their own: the workflows; all instances, so which of them there are; and what
state those have that were not seen to end. Of the last, the oldest counts: a run that has left the list of what runs
says nothing until it was read by its id.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from ..api import calls
from ..api.errors import NotFoundError, OrchestrationError
from ..api.models import Instance, State, Workflow
from ..http_hook import OrchestrationHttpHook
from ..procedures.effects import Effect, Procedure
from ..settings import Settings
from .ages import Moment, told
from .problems import problem_text
from .server_clock import ServerClock

IDLE = 20.0
"""Seconds without a look after which nothing is read any more."""
ALL_EVERY, RUNNING_EVERY = 3.0, 1.5
"""Seconds at least between two readings of everything, and of what runs."""
ALL_SHARE, RUNNING_SHARE = 20.0, 5.0
"""How many times as long as a reading took the pause after it is at least."""
MOST_ENDS = 50
"""Runs at once whose end is read by their id after they have left the list of what runs; others have to wait."""
LONGEST_READING = 60.0
"""Seconds of one reading of a list, of all its pages together. One that takes longer is given up, and told."""

T = TypeVar("T")


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
        read: when the reading of all instances began; None while nothing was read yet.
        states_read: when the reading began that told the states of the runs that have not ended; the oldest of them.
        workflows_read: when the reading of the workflows began. What is not in that list may be there all the same.
        problem: why the last reading failed; None where it did not.
    """

    rows: Sequence[Row] = ()
    workflows: Mapping[str, Workflow] = msgspec.field(default_factory=dict)
    counts: Mapping[tuple[str, str], int] = msgspec.field(default_factory=dict)
    read: Moment | None = None
    states_read: Moment | None = None
    workflows_read: Moment | None = None
    problem: str | None = None


class Catalog:
    """Reads the lists of one server while somebody looks.

    Args:
        settings: of the server.
        on_change: called in the reading thread when there is something new to see.
        clock: is told that a reading has succeeded.
    """

    def __init__(self, settings: Settings, on_change: Callable[[], None], clock: ServerClock) -> None:
        self._settings = settings
        self._clock = clock
        self._on_change = on_change
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._looked = 0.0
        self._all_due = self._running_due = 0.0
        self._rows: dict[str, Row] = {}
        self._begun: Moment | None = None
        self.listed = Listed()

    def look(self) -> Listed:
        """What is known now; has it kept up to date for a while."""
        with self._lock:
            self._looked = time.monotonic()
            if self._thread is None and not self._stopped:
                self._thread = threading.Thread(target=self._run, name="orchestration-page-lists", daemon=True)
                self._thread.start()
            return self.listed

    def ages(self) -> dict[str, Any]:
        """How old the list of instances and that of workflows is: ``ages.told`` of each."""
        listed, begun = self.listed, self._begun
        return {"instances": instances_age(listed, begun), "workflows": told(listed.workflows_read, begun)}

    @property
    def begun(self) -> Moment | None:
        """When the reading under way began; None where there is none."""
        return self._begun

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
                    self._publish(self.listed, problem=problem_text(error))
                    self._all_due = self._running_due = time.monotonic() + ALL_EVERY
                finally:
                    self._begun = None
                pause = min(self._all_due, self._running_due) - time.monotonic()
                self._wake.wait(min(max(pause, 0.05), IDLE))

    def _is_wanted(self) -> bool:
        with self._lock:
            wanted = not self._stopped and time.monotonic() - self._looked < IDLE
            if not wanted:
                self._thread = None
            return wanted

    def _round(self, hook: OrchestrationHttpHook) -> None:
        now = time.monotonic()
        if now >= self._all_due:
            self._begun = begun = Moment.now()
            workflows = hook.perform(limited(hook.plans.listing(calls.list_workflows), "workflows"))
            self._begun = rows_begun = Moment.now()
            rows = hook.perform(limited(hook.plans.list_instances(None, None), "instances"))
            self._clock.heard(hook.plans)
            self._rows = {row.id: row for row in map(row_of, rows)}
            self._all_due = time.monotonic() + max(ALL_EVERY, ALL_SHARE * begun.took)
            self._running_due = time.monotonic() + RUNNING_EVERY
            self._publish(
                Listed(
                    workflows={workflow.id: workflow for workflow in workflows},
                    read=rows_begun,
                    states_read=rows_begun,
                    workflows_read=begun,
                )
            )
        elif now >= self._running_due:
            self._begun = begun = Moment.now()
            rows = hook.perform(limited(hook.plans.list_instances(None, True), "instances"))
            self._clock.heard(hook.plans)
            running = {row.id: row for row in map(row_of, rows)}
            left = [row.id for row in self._rows.values() if row.state == "running" and row.id not in running]
            ends = _ends(hook, left[:MOST_ENDS])
            self._rows = {**self._rows, **running, **ends}
            self._running_due = time.monotonic() + max(RUNNING_EVERY, RUNNING_SHARE * begun.took)
            read_all = len(ends) == len(left)
            before = self.listed
            self._publish(msgspec.structs.replace(before, states_read=begun if read_all else before.states_read))

    def _publish(self, listed: Listed, problem: str | None = None) -> None:
        before = self.listed
        rows = before.rows
        if problem is None:
            rows = tuple(sorted(self._rows.values(), key=_age, reverse=True))
        counts = Counter((row.workflow_id, row.state) for row in rows)
        self.listed = msgspec.structs.replace(listed, rows=rows, counts=counts, problem=problem)
        news = (self.listed.rows, self.listed.workflows.keys(), problem)
        if before.read is None or news != (before.rows, before.workflows.keys(), before.problem):
            self._on_change()


def instances_age(listed: Listed, begun: Moment | None) -> dict[str, Any]:
    """``ages.told`` of the states that the list of instances shows; ``allReadAt``, ``allAge``: of the whole list."""
    whole = told(listed.read)
    return {**told(listed.states_read, begun), "allReadAt": whole["readAt"], "allAge": whole["age"]}


def limited(reading: Procedure[T], what: str) -> Procedure[T]:
    """The reading of a list, given up before the first page after ``LONGEST_READING``: a list may have ever more.

    Raises:
        OrchestrationError: it was not read whole by then. Besides, what the reading raises.
    """
    until = time.monotonic() + LONGEST_READING
    try:
        effect: Effect = reading.send(None)
        while True:
            if time.monotonic() >= until:
                raise OrchestrationError(f"the list of {what} could not be read whole within {LONGEST_READING:g} s")
            try:
                result = yield effect
            except OrchestrationError as error:
                effect = reading.throw(error)
            else:
                effect = reading.send(result)
    except StopIteration as ended:
        whole: T = ended.value
        return whole
    finally:
        reading.close()


def _age(row: Row) -> tuple[datetime, str]:
    return row.created_at, row.id


def _ends(hook: OrchestrationHttpHook, ids: Sequence[str]) -> dict[str, Row]:
    """The rows of instances that have left the list of what runs. Leaving it means nothing by itself, and a 404 as
    little: nothing deletes an instance."""
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

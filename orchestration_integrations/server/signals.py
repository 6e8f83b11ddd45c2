"""What reaches a run from outside: events for the stage begun last, and aborts.

An event wakes the stage up. Up to generation 2 a wake-up takes *one* event from the stage's queue and leaves the
others lying there, heard by nobody until a further event wakes the stage again. Events that come while a wake-up is
under way wait for the next one. The engine lets a stage end only with all of its events before it: one that comes
while the stage is about to end has the end put off to another wake-up. So a burst of events lands in one stage,
however many stages wait for the same name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .clock import SECOND
from .stages import CANCELED

if TYPE_CHECKING:
    from .agenda import Agenda
    from .memory import Memory
    from .stages import Stages
    from .state import Instance, StageRun

COMPLETED = "workflow execution already completed"


class SignalError(Exception):
    """An event or an abort that the engine refuses; the text is what it would say."""


class Signals:
    """Events and aborts."""

    def __init__(self, agenda: Agenda, memory: Memory, stages: Stages) -> None:
        self._agenda = agenda
        self._memory = memory
        self._stages = stages

    def signal(self, instance: Instance, name: str) -> None:
        """Deliver an event to the stage whose row is the last. SignalError."""
        number = max(row.stage for row in instance.rows)
        run = instance.runs.get(number)
        if run is None:
            raise SignalError(f"workflow not found for ID: {instance.id}-{number}")
        if run.terminated_ns is not None:
            raise SignalError(COMPLETED)
        if run.kind != "wait_event":
            self._heard(instance, number, name, False)
            return
        if run.waking:
            run.later.append(name)
        else:
            run.batch = [name]
            self._wake_soon(instance, run)
        self._memory.store.touch(instance)

    def _wake_soon(self, instance: Instance, run: StageRun) -> None:
        run.waking = True
        self._agenda.after(self._agenda.timing.wake, "wake", instance.id, run.number)

    def wake(self, instance_id: str, number: int) -> None:
        """A wake-up of a stage is over."""
        found = self._memory.open_run(instance_id, number)
        if found is None:
            return
        instance, run = found
        run.queue += run.batch
        run.batch = []
        takes = 1 if self._memory.generation < 3 else len(run.queue)
        for _ in range(min(takes, len(run.queue))):
            if run.queue[0] == run.resolved["event"]:
                self._agenda.after(self._agenda.timing.release, "release", instance_id, number)
                return
            self._heard(instance, number, run.queue.pop(0), False)
        run.waking = False
        self._go_on(instance, run)

    def release(self, instance_id: str, number: int) -> None:
        """A stage that has heard its event ends, unless further events have come."""
        found = self._memory.open_run(instance_id, number)
        if found is None:
            return
        instance, run = found
        if run.later:
            self._go_on(instance, run)
            return
        self._heard(instance, number, run.queue.pop(0), True)
        self._stages.finish(instance, run, "", "")

    def _go_on(self, instance: Instance, run: StageRun) -> None:
        """Take in what came meanwhile."""
        run.batch, run.later = run.later, []
        if run.batch:
            self._wake_soon(instance, run)
        self._memory.store.touch(instance)

    def _heard(self, instance: Instance, number: int, name: str, released: bool) -> None:
        entry = {"instance_id": instance.id, "stage": number, "event": name, "at": self._agenda.now / SECOND}
        self._memory.record.events.append({**entry, "released": released})
        if released:
            self._memory.record.released.append(entry)

    def abort(self, instance: Instance) -> None:
        """Ask the run to end; it does so a moment later. SignalError."""
        generation = self._memory.generation
        if not instance.started:
            raise SignalError(f"workflow not found for ID: {instance.id}{'-main' if generation > 2 else ''}")
        if generation == 2:
            # Addressed to the launcher, which is over: either way nothing happens to the run.
            if self._agenda.rng.random() < 0.5:
                raise SignalError(COMPLETED)
            return
        if instance.ended:
            if generation > 2:
                raise SignalError(COMPLETED)
            return
        self._memory.record.aborts.append({"instance_id": instance.id, "at": self._agenda.now / SECOND})
        self._agenda.after(self._agenda.timing.cancel, "cancel", instance.id)

    def cancel(self, instance_id: str) -> None:
        """The run hears of an abort."""
        instance = self._memory.instances[instance_id]
        if instance.ended or instance.cancelled:
            return
        instance.cancelled = True
        self._memory.store.touch(instance)
        run = instance.runs.get(max(instance.runs, default=-1))
        if run is None or run.terminated_ns is not None:
            return
        for activity in run.activities:
            if activity.terminated_ns is None and not activity.running:
                activity.attempt, activity.last_failure, activity.next_ns = 1, "", None
        self._stages.finish(instance, run, CANCELED, CANCELED)

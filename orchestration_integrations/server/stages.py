"""The life of a stage: its row, its work, its end, and what comes after it.

The engine's truth (`StageRun`) and the database's rows (`StageRow`) are two things: a worker writes the second about
the first, and generation 1 loses what it writes while the database is away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import definitions, golang, sending
from .clock import SECOND
from .state import StageRow, StageRun

if TYPE_CHECKING:
    from collections.abc import Callable

    from .agenda import Agenda
    from .memory import Memory
    from .parts import Parts
    from .state import Instance

CANCELED = "canceled"
WORK_FAILED = "fundamental"
"""The type of the error that the engine makes of a stage's failed work."""


class Stages:
    """The stages of all runs.

    Args:
        has_ended: called with an instance whose run is over.
    """

    def __init__(self, agenda: Agenda, memory: Memory, parts: Parts, has_ended: Callable[[Instance], None]) -> None:
        self._agenda = agenda
        self._memory = memory
        self._parts = parts
        self._has_ended = has_ended
        self._known: dict[tuple[str, int], tuple[dict[str, Any], str | None, dict[str, Any]]] = {}

    def begin(self, instance_id: str, number: int, twice: bool = False) -> None:
        """The stage's row. The work follows a moment later."""
        memory, agenda = self._memory, self._agenda
        instance = memory.instances[instance_id]
        if number >= len(memory.stages_of(instance)):
            self._end(instance, "", "", agenda.now)
            return
        if instance.cancelled and memory.generation > 1:
            self._end(instance, CANCELED, "", agenda.now)
            return
        if self._parts.write_arrives():
            for _ in range(1 + twice):
                instance.rows.append(StageRow(number, agenda.now, agenda.uuid()))
            memory.store.touch(instance)
        agenda.after(agenda.timing.launch, "launch_stage", instance_id, number)

    def launch(self, instance_id: str, number: int) -> None:
        """Fill in the variables, check the stage, begin its work."""
        instance = self._memory.instances[instance_id]
        ((kind, raw),) = self._memory.stages_of(instance)[number].items()
        if instance.cancelled:
            self._refuse(instance, number, CANCELED, "")
            return
        try:
            resolved, missing, shown = self._resolved(instance, number, kind, raw)
        except definitions.DefinitionError as error:
            self._refuse(instance, number, str(error), "withStack")
            return
        if missing is not None:
            self._refuse(instance, number, missing, "ValidationErrors")
            return
        run = StageRun(number, kind, shown, resolved, self._agenda.now)
        instance.runs[number] = run
        self._memory.store.touch(instance)
        if kind == "delay":
            self._start_timer(instance, run)
        elif kind in ("send", "update"):
            if not self.plan(instance, run):
                return
            self._agenda.after(self._agenda.timing.schedule_activity, "activity", instance_id, number)

    def _resolved(
        self, instance: Instance, number: int, kind: str, raw: Any
    ) -> tuple[dict[str, Any], str | None, dict[str, Any]]:
        """A stage with its variables filled in, what is missing of it, and how the history shows it. DefinitionError.

        Without variables it is the same for all runs of a workflow, which never changes.
        """
        place = (instance.workflow_id, number)
        known = self._known.get(place)
        if known is not None:
            return known
        generation = self._memory.generation
        resolved = definitions.resolve(kind, raw, instance.variables, generation)
        missing = definitions.requirements(kind, resolved, generation)
        shown = {} if missing is not None else definitions.shown_input(kind, resolved, generation)
        if not definitions.has_variables(raw):
            self._known[place] = (resolved, missing, shown)
        return resolved, missing, shown

    def plan(self, instance: Instance, run: StageRun) -> bool:
        """Decide on the next step of a stage's work. False: there can be none, and the stage has failed."""
        outputs = [activity.output for activity in run.activities]
        try:
            step = sending.next_step(run.kind, run.resolved, self._memory.generation, outputs)
        except sending.StageFailed as error:
            self.finish(instance, run, str(error), str(error))
            return False
        run.steps = [] if step is None else [step]
        return True

    def _refuse(self, instance: Instance, number: int, error: str, error_type: str) -> None:
        """The stage has no work. Its end lies before its beginning: the run was woken before the row was written."""
        timing = self._agenda.timing
        instant = self._agenda.now - int((timing.launch + timing.workflow_clock_lag) * SECOND)
        self._close_row(instance, number, error, instant)
        self._end(instance, error, error_type, instant)

    def _start_timer(self, instance: Instance, run: StageRun) -> None:
        agenda, timing = self._agenda, self._agenda.timing
        duration, until = run.resolved["duration"], run.resolved["until"]
        length = duration if until is None else golang.parse_instant(until) - agenda.now
        if length <= 0:
            agenda.after(timing.timer, "timer", instance.id, run.number)
            return
        shortest = int(timing.shortest_delay * SECOND)
        extra = int(timing.timer * (1.0 + agenda.rng.random()) * SECOND)
        agenda.at(agenda.now + max(length, shortest) + extra, "timer", instance.id, run.number)

    def timer(self, instance_id: str, number: int) -> None:
        """A delay is over."""
        found = self._memory.open_run(instance_id, number)
        if found is not None:
            self.finish(*found, "", "")

    def finish(self, instance: Instance, run: StageRun, shown: str, error: str) -> None:
        """The stage's work is over: `shown` stands in the history, `error` in the rows."""
        run.terminated_ns = self._agenda.now
        run.error = shown
        self._memory.store.touch(instance)
        self._agenda.after(self._agenda.timing.close_stage, "stage_done", instance.id, run.number, error)

    def done(self, instance_id: str, number: int, error: str) -> None:
        """The end of the stage's row, and the next stage or the end of the run."""
        instance = self._memory.instances[instance_id]
        self._close_row(instance, number, error, self._agenda.now)
        if error:
            self._end(instance, error, "" if error == CANCELED else WORK_FAILED, self._agenda.now)
        elif number + 1 >= len(self._memory.stages_of(instance)):
            self._end(instance, "", "", self._agenda.now)
        else:
            self._agenda.after(self._agenda.timing.next_stage, "begin", instance_id, number + 1)

    def _close_row(self, instance: Instance, number: int, error: str, instant_ns: int) -> None:
        row = next((r for r in instance.rows if r.stage == number), None)
        if row is not None and self._parts.write_arrives():
            row.terminated_ns, row.error = instant_ns, error
            self._memory.store.touch(instance)

    def _end(self, instance: Instance, error: str, error_type: str, instant_ns: int) -> None:
        memory = self._memory
        instance.ended = True
        instance.end_error, instance.end_type = error, error_type
        memory.store.touch(instance)
        ended: dict[str, Any] = {
            "instance_id": instance.id,
            "workflow_id": instance.workflow_id,
            "error": error or None,
            "at": self._agenda.now / SECOND,
        }
        memory.record.ended.append(ended)
        if self._parts.write_arrives():
            instance.terminated_ns = instant_ns
            instance.error = error
            # A row that was written anew stands at the end of the table: lists have no order to rely on.
            memory.instances[instance.id] = memory.instances.pop(instance.id)
        self._has_ended(instance)

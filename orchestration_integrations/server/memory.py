"""What one server knows: workflows, instances, what is outside, the judge's record, and the store that keeps it all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .outside import Outside

if TYPE_CHECKING:
    from .ledger import Ledger
    from .record import Record
    from .state import Instance, StageRun, Workflow
    from .store import Store


@dataclass(slots=True)
class Memory:
    """The state that the parts of one server share."""

    generation: int
    store: Store
    record: Record
    workflows: dict[str, Workflow] = field(default_factory=dict)
    instances: dict[str, Instance] = field(default_factory=dict)
    outside: Outside = field(default_factory=Outside)

    @property
    def ledger(self) -> Ledger:
        """The ledger behind the server."""
        return self.outside.ledger

    def workflow(self, workflow_id: str) -> Workflow | None:
        """A workflow that can be read, run and deleted; on generation 3 no deleted one. Each way to a run asks here."""
        workflow = self.workflows.get(workflow_id)
        if workflow is None or (self.generation > 2 and workflow.deleted_ns is not None):
            return None
        return workflow

    def stages_of(self, instance: Instance) -> list[Any]:
        """The stages of an instance's workflow, as they were sent."""
        return self.workflows[instance.workflow_id].stages or []

    def open_run(self, instance_id: str, number: int) -> tuple[Instance, StageRun] | None:
        """A stage's work while it is under way; None: it has not begun, or is over."""
        instance = self.instances[instance_id]
        run = instance.runs.get(number)
        if run is None or run.terminated_ns is not None:
            return None
        return instance, run

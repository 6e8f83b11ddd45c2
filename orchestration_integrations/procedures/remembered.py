"""What one hook has read of its server that cannot have changed since, so that it need not be read again.

Two things, each bounded, each forgotten with the hook:

* **definitions**: the stages of a workflow never change. That a workflow was *deleted* is not kept: whoever starts a
  run reads the workflow each time.
* **the last look of a start**: the wait that follows at once need not look at the same moment again. It is kept for
  one wait and for as long as the first pause of a wait lasts.

That another key's run stands at a gate is *not* remembered: an answer about the wrong run would hide a run for as long
as the hook lives, and its key would be paid again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from ..api.models import Instance, Workflow
from .outages import OutageLog

KNOWN_DEFINITIONS = 128
KNOWN_LOOKS = 1_000
MANY_LOOKS = 50
"""So many may be kept although they are of no more use."""
FRESH_SECONDS = 0.2
"""For so long a look need not be repeated."""

T = TypeVar("T")


class _Bounded(dict[str, T]):
    """Values by name; where there are too many, the older half goes. Each step is one that threads may share."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def put(self, name: str, value: T) -> None:
        self[name] = value
        if len(self) > self._most:
            for old in list(self)[: self._most // 2]:
                self.pop(old, None)


class Remembered:
    """The memory of one hook. May be used by several threads.

    Attributes:
        outages: tells the log of reads that fail; it knows which waits it has named.
    """

    def __init__(self) -> None:
        self._definitions: _Bounded[Sequence[Mapping[str, Any]]] = _Bounded(KNOWN_DEFINITIONS)
        self._looks: _Bounded[tuple[Instance, float]] = _Bounded(KNOWN_LOOKS)
        self.outages = OutageLog()

    # Definitions

    def note_workflow(self, workflow: Workflow) -> None:
        """A workflow was read by its id."""
        self._definitions.put(workflow.id, workflow.stages)

    def definition(self, workflow_id: str) -> Sequence[Mapping[str, Any]] | None:
        """The stages of a workflow; None where they were not read."""
        return self._definitions.get(workflow_id)

    # The last look of a start

    def note_look(self, instance: Instance, at: float) -> None:
        """A start has read a run by its id, at ``at`` (monotonic seconds), and gives it to its caller."""
        if len(self._looks) >= MANY_LOOKS:
            for name, (_, earlier) in list(self._looks.items()):
                if at - earlier >= FRESH_SECONDS:
                    self._looks.pop(name, None)
        self._looks.put(instance.id, (instance, at))

    def last_look(self, instance_id: str, now: float) -> Instance | None:
        """What a start saw of a run a moment ago; None where that is longer ago. It is given once."""
        found = self._looks.pop(instance_id, None)
        if found is None or not 0 <= now - found[1] < FRESH_SECONDS:
            return None
        return found[0]

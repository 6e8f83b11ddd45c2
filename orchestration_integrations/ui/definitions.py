"""The definitions of workflows, read again now and then.

A definition never changes, so it is kept. But its workflow may be deleted: two generations of the server answer the
deleted one, with the instant; the third denies it. So what is kept carries the time of its reading, and what the last
try came to: a denial or a failure is told beside it, until a later reading takes it back.
"""

from __future__ import annotations

import time

import msgspec

from ..api.errors import NotFoundError, OrchestrationError, is_gateways_404
from ..api.models import Workflow
from ..http_hook import AsyncOrchestrationHttpHook
from .ages import Limit, Moment
from .server_clock import ServerClock

DEFINITION_AGE = 30.0
"""Seconds after which a definition is read again."""
FAILED_PAUSE = 3.0
"""Seconds after which it is, where the last reading failed or was denied."""
MOST_KNOWN = 10_000


class Definition(msgspec.Struct, frozen=True):
    """What the readings of a workflow came to.

    Attributes:
        workflow: as last read; None where it never was.
        read: when that reading began; None where there was none.
        unknown: the server denied it at the last try.
        problem: why the last try failed; None where it did not.
    """

    workflow: Workflow | None = None
    read: Moment | None = None
    unknown: bool = False
    problem: str | None = None


class Definitions:
    """The workflows of one server.

    Args:
        hook: reads them.
        clock: is told that a reading has succeeded.
    """

    def __init__(self, hook: AsyncOrchestrationHttpHook, clock: ServerClock) -> None:
        self._hook = hook
        self._clock = clock
        self._known: dict[str, tuple[float, Definition]] = {}

    async def of(self, workflow_id: str, limit: Limit) -> Definition:
        """A workflow, read within a limit where that is due. What the hook raises is told in it."""
        due, known = self._known.get(workflow_id, (0.0, Definition()))
        if time.monotonic() < due:
            return known
        if known.workflow is not None:  # who comes meanwhile takes it as it is
            self._keep(workflow_id, known, FAILED_PAUSE)
        try:
            await limit.keep(lambda: self.now(workflow_id))
        except OrchestrationError as error:
            return self._failed(workflow_id, error)
        return self._known.get(workflow_id, (0.0, known))[1]

    async def now(self, workflow_id: str) -> Workflow:
        """The workflow as it is at this moment. Raises what the hook raises."""
        begun = Moment.now()
        found = await self._hook.get_workflow(workflow_id)
        self._clock.heard(self._hook.plans)
        self._keep(workflow_id, Definition(found, begun), DEFINITION_AGE)
        return found

    def _failed(self, workflow_id: str, error: OrchestrationError) -> Definition:
        """What is known of a workflow after a reading of it that failed."""
        before = self._known.get(workflow_id, (0.0, Definition()))[1]
        denied = isinstance(error, NotFoundError) and not is_gateways_404(error)
        known = Definition(before.workflow, before.read, denied, None if denied else str(error))
        self._keep(workflow_id, known, FAILED_PAUSE)
        return known

    def _keep(self, workflow_id: str, known: Definition, pause: float) -> None:
        self._known.pop(workflow_id, None)
        self._known[workflow_id] = time.monotonic() + pause, known
        if len(self._known) > MOST_KNOWN:
            del self._known[next(iter(self._known))]

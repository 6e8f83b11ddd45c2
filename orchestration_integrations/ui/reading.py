"""One instance, read for somebody who looks at it: once, or again and again while anybody watches.

Everyone who watches the same instance shares one series of reads. What has ended is not read again: an activity and a
stage that have ended stay as they are, and so does an instance.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from ..api.errors import NotFoundError, OrchestrationError, is_denial
from ..api.models import ActivityRun, Instance, StageRun, Workflow
from ..http_hook import AsyncOrchestrationHttpHook
from ..procedures.ghosts import is_old
from ..procedures.moved import STILL
from . import streams
from .problems import problem_text

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 3.0
"""Seconds between two reads of a watched instance: the first after a change, growing while nothing changes."""
FAILED_PAUSE = 3.0
"""Seconds after a read that failed."""
UNKNOWN_FOR = 30.0
"""Seconds for which an id that nobody knows is looked for: a row of generation 2 can appear late."""
DEFINITION_AGE = 30.0
"""Seconds after which a definition is read again: it never changes, but it may be deleted."""
FRESH = 0.5
"""Seconds for which what a watch has read answers those who only look once."""


_MISSING = "there is no such instance on this server"
_MISSING_YET = f"{_MISSING}; a run that has just begun can appear late, so it is looked for a little longer"


class Observed(msgspec.Struct, frozen=True):
    """What is known of an instance.

    Attributes:
        instance: as last read.
        workflow: its definition; None where it could not be read.
        history: its stages; None where they could not be read.
        activities: the history of each stage that calls anybody, by its number; those that could not be read are left
            out.
        retried: stages whose activity was seen under retry.
        ghost: the engine does not know the run, and its row is so old that it will never start.
        problems: what could not be read, in words.
        read_at: epoch seconds on the server's clock.
    """

    instance: Instance
    workflow: Workflow | None
    history: Sequence[StageRun] | None
    activities: Mapping[int, Sequence[ActivityRun]]
    retried: frozenset[int]
    ghost: bool
    problems: Sequence[str]
    read_at: float


class Definitions:
    """The workflows. A definition never changes; now and then each is read again to see whether it is deleted."""

    def __init__(self, hook: AsyncOrchestrationHttpHook) -> None:
        self._hook = hook
        self._known: dict[str, tuple[float, Workflow]] = {}

    async def of(self, workflow_id: str) -> Workflow:
        """The workflow, read again now and then; as it was known where that fails. Raises what the hook raises."""
        read_at, known = self._known.get(workflow_id, (0.0, None))
        if known is None:
            return await self.now(workflow_id)
        if known.deleted_at is None and time.monotonic() - read_at >= DEFINITION_AGE:
            self._known[workflow_id] = time.monotonic(), known
            with suppress(OrchestrationError):
                return await self.now(workflow_id)
        return known

    async def now(self, workflow_id: str) -> Workflow:
        """The workflow as it is at this moment. Raises what the hook raises."""
        found = await self._hook.get_workflow(workflow_id)
        self._known[workflow_id] = time.monotonic(), found
        return found


class InstanceReader:
    """Reads one instance, and reads no more of it than can have changed."""

    def __init__(self, hook: AsyncOrchestrationHttpHook, definitions: Definitions, instance_id: str) -> None:
        self._hook = hook
        self._definitions = definitions
        self._instance_id = instance_id
        self._began = time.monotonic()
        self._ended: dict[int, Sequence[ActivityRun]] = {}
        self._retried: frozenset[int] = frozenset()

    async def read(self) -> Observed:
        """Read it. Only the row of the instance itself has to be readable.

        Raises:
            OrchestrationError: the row could not be read; NotFoundError where there is none.
        """
        instance = await self._hook.get_instance(self._instance_id)
        problems: list[str] = []
        workflow = None
        try:
            workflow = await self._definitions.of(instance.workflow_id)
        except OrchestrationError as error:
            problems.append(f"the workflow could not be read: {error}")
        history, ghost = await self._history(instance, problems)
        activities = await self._activities(history or (), problems)
        return Observed(
            instance=instance,
            workflow=workflow,
            history=history,
            activities=activities,
            retried=self._retried,
            ghost=ghost,
            problems=tuple(problems),
            read_at=self._hook.plans.clock.server_time(),
        )

    async def _history(self, instance: Instance, problems: list[str]) -> tuple[Sequence[StageRun] | None, bool]:
        try:
            return await self._hook.get_instance_history(instance.id), False
        except OrchestrationError as error:
            old = is_old(instance, self._hook.plans.clock.server_time(), time.monotonic() - self._began)
            ghost = not instance.terminated and not instance.status and old and is_denial(error)
            if not ghost and (instance.status or instance.terminated):
                problems.append(f"the history could not be read: {error}")
            return None, ghost

    async def _activities(self, history: Sequence[StageRun], problems: list[str]) -> dict[int, Sequence[ActivityRun]]:
        found: dict[int, Sequence[ActivityRun]] = {}
        for number, stage in enumerate(history):
            if stage.name in STILL:
                continue
            if number in self._ended:
                found[number] = self._ended[number]
                continue
            try:
                found[number] = await self._hook.get_stage_history(self._instance_id, number)
            except NotFoundError as error:
                if not stage.terminated:  # a stage that failed before its work has no history
                    problems.append(f"the history of stage {number} could not be read: {error}")
                continue
            except OrchestrationError as error:
                problems.append(f"the history of stage {number} could not be read: {error}")
                continue
            if any(one.attempt > 1 or one.last_failure is not None for one in found[number]):
                self._retried |= {number}
            if stage.terminated:
                self._ended[number] = found[number]
        return found


class Watch:
    """The reads of one instance that several people watch."""

    def __init__(self, reader: InstanceReader, view: Callable[[Observed], Mapping[str, Any]]) -> None:
        self._reader = reader
        self._view = view
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._read = 0.0
        self._read_at: float | None = None
        self.watchers = 0
        self.shown: Mapping[str, Any] | None = None
        self.problem: str | None = None
        self.missing: str | None = None
        self.over = False

    @property
    def is_fresh(self) -> bool:
        """Whether what is shown was read just now."""
        return self.shown is not None and (self.over or time.monotonic() - self._read < FRESH)

    async def updates(self) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        """("instance", the view) now and whenever it changes; ("problem", …) while it cannot be read; ("missing", …)
        where there is no such instance. Ends with the instance, or once nobody need wait for it any more. Without a
        change for a while ("still", {})."""
        self.watchers += 1
        if self._task is None:
            self._task = asyncio.ensure_future(self._run())
        told: tuple[object, object, object] = (None, None, None)
        try:
            while True:
                now = (self.shown, self.problem, self.missing)
                changed = self._changed
                if self.shown is not None and now[0] is not told[0]:
                    yield "instance", self.shown
                if now[1] is not None and now[1] != told[1]:
                    yield "problem", {"message": now[1], "readAt": self._read_at}
                elif now[2] is not None and now[2] != told[2]:
                    yield "missing", {"message": now[2], "readAt": self._read_at}
                elif now[1:] == (None, None) and told[1:] != (None, None):
                    yield "recovered", {}
                told = now
                if self.over:
                    return
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(changed.wait(), streams.HEARTBEAT)
                    continue
                yield "still", {}
        finally:
            self.watchers -= 1
            if self.watchers == 0:
                self.stop()

    def stop(self) -> None:
        """Read no more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def end(self) -> None:
        """Read no more, and let those who watch go."""
        self.over = True
        self.stop()
        self._tell(self.shown, self.problem, self.missing)

    def wake(self) -> None:
        """Something was done to the instance: those who watch see it at once."""
        if self._task is not None and not self.over:
            self.stop()
            self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        pause, began = FIRST_PAUSE, time.monotonic()
        while not self.over:
            try:
                observed = await self._reader.read()
                view = self._view(observed)
            except NotFoundError:
                self.over = time.monotonic() - began >= UNKNOWN_FOR
                self._tell(self.shown, None, _MISSING if self.over else _MISSING_YET)
                pause = FAILED_PAUSE if UNKNOWN_FOR > FAILED_PAUSE else UNKNOWN_FOR
            except Exception as error:
                self._tell(self.shown, problem_text(error))
                pause = FAILED_PAUSE
            else:
                self._read, self._read_at = time.monotonic(), time.time()
                over = observed.instance.terminated and not observed.problems
                if over or (self.problem, self.missing) != (None, None) or _moving(view) != _moving(self.shown):
                    self.over = over
                    self._tell(view, None)
                    pause = FIRST_PAUSE
                else:
                    pause = min(pause * 1.5, LONGEST_PAUSE)
            await asyncio.sleep(0 if self.over else pause)

    def _tell(self, shown: Mapping[str, Any] | None, problem: str | None, missing: str | None = None) -> None:
        self.shown, self.problem, self.missing = shown, problem, missing
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _moving(view: Mapping[str, Any] | None) -> object:
    """What of a view tells that something has changed: all but when it was read."""
    return None if view is None else {name: value for name, value in view.items() if name != "now"}

"""One instance, read for somebody who looks at it: once, or again and again while anybody watches.

Everyone who watches the same instance shares one series of reads. What has ended is not read again: an activity and a
stage that have ended stay as they are, and so does an instance. But its row can be written before its histories are: an
end that they contradict is read again for a while, and only then is it the end.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from ..api.errors import NotFoundError, OrchestrationError, is_denial, is_gateways_404
from ..api.models import ActivityRun, Instance, StageRun, Workflow
from ..http_hook import AsyncOrchestrationHttpHook
from ..http_hook.in_time import in_time
from ..procedures.ghosts import is_old
from ..procedures.moved import STILL
from ..procedures.wording import stage_counted
from . import streams
from .ages import Limit, Moment, told
from .definitions import Definition, Definitions
from .problems import problem_text
from .server_clock import ServerClock

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 3.0
"""Seconds between two reads of a watched instance: the first after a change, growing while nothing changes."""
FAILED_PAUSE = 3.0
"""Seconds after a read that failed."""
UNKNOWN_FOR = 30.0
"""Seconds of denials in a row after which an id that was never seen is unknown: a row of generation 2 can be late."""
UNSURE_FOR = 30.0
"""Seconds for which an end is read again that its histories contradict: they can be late."""
LONGEST_READING = 8.0
"""Seconds of one reading, of all its calls together. What was not read by then is told as unread."""
FRESH = 0.5
"""Seconds for which what a watch has read answers those who only look once."""


_MISSING = "the server knows no instance with this id"
_MISSING_YET = f"{_MISSING}; a run that has just begun can appear late, so it is looked for a little longer"


def denied_though_seen(denial: OrchestrationError) -> OrchestrationError:
    """What a denial comes to whose instance was seen before. Nothing deletes an instance, so it denies nothing."""
    return OrchestrationError(
        f"the server says that it knows no such instance ({denial}); but it was seen before, and nothing deletes one"
    )


class Observed(msgspec.Struct, frozen=True):
    """What is known of an instance.

    Attributes:
        instance: as last read.
        definition: of its workflow.
        history: its stages; None where they could not be read.
        activities: the history of each stage that calls anybody, by its number; those that could not be read are left
            out.
        retried: stages whose activity was seen under retry.
        ghost: the engine does not know the run, and its row is so old that it will never start.
        problems: what could not be read, in words.
    """

    instance: Instance
    definition: Definition
    history: Sequence[StageRun] | None
    activities: Mapping[int, Sequence[ActivityRun]]
    retried: frozenset[int]
    ghost: bool
    problems: Sequence[str]

    @property
    def workflow(self) -> Workflow | None:
        """The workflow as last read; None where it never was."""
        return self.definition.workflow

    @property
    def is_whole(self) -> bool:
        """Whether nothing of it was left unread."""
        return not self.problems and self.definition.problem is None


class InstanceReader:
    """Reads one instance, and reads no more of it than can have changed.

    Args:
        hook: reads it.
        definitions: of its server.
        clock: is told that a reading has succeeded.
        instance_id: of the instance.
    """

    def __init__(
        self, hook: AsyncOrchestrationHttpHook, definitions: Definitions, clock: ServerClock, instance_id: str
    ) -> None:
        self._hook = hook
        self._definitions = definitions
        self._clock = clock
        self._instance_id = instance_id
        self._began = time.monotonic()
        self._ended: dict[int, Sequence[ActivityRun]] = {}
        self._retried: frozenset[int] = frozenset()
        self._failed: Counter[int] = Counter()

    async def read(self) -> Observed:
        """Read it, the row of the instance first: nothing that is told is older than the begin of this call, but what
        cannot change, and its definition, which has an age of its own. Only the row has to be readable. It is over in
        ``LONGEST_READING``.

        Raises:
            OrchestrationError: the row could not be read; NotFoundError where there is none.
        """
        limit = Limit(LONGEST_READING)
        instance = await limit.keep(lambda: self._hook.get_instance(self._instance_id))
        self._clock.heard(self._hook.plans)
        problems: list[str] = []
        history, ghost = await self._history(instance, problems, limit)
        unread: dict[int, str | None] = {}
        activities = await self._activities(history or (), unread, limit)
        definition = await self._definitions.of(instance.workflow_id, limit)
        problems += _unread_stages(unread, definition.workflow)
        return Observed(
            instance=instance,
            definition=definition,
            history=history,
            activities=activities,
            retried=self._retried,
            ghost=ghost,
            problems=tuple(problems),
        )

    async def _history(
        self, instance: Instance, problems: list[str], limit: Limit
    ) -> tuple[Sequence[StageRun] | None, bool]:
        try:
            return await limit.keep(lambda: self._hook.get_instance_history(instance.id)), False
        except OrchestrationError as error:
            old = is_old(instance, self._hook.plans.clock.server_time(), time.monotonic() - self._began)
            ghost = not instance.terminated and not instance.status and old and is_denial(error)
            if not ghost and (instance.status or instance.terminated):
                problems.append(f"the history could not be read: {error}")
            return None, ghost

    async def _activities(
        self, history: Sequence[StageRun], unread: dict[int, str | None], limit: Limit
    ) -> dict[int, Sequence[ActivityRun]]:
        """What of them can be read in time: the newest first, but those that could not be read last.

        Args:
            unread: is told why those of a stage are missing; None: no time was left.
        """
        calling = [number for number, stage in enumerate(history) if stage.name not in STILL]
        found = {number: self._ended[number] for number in calling if number in self._ended}
        for number in sorted(set(calling) - found.keys(), key=lambda one: (self._failed[one], -one)):
            if limit.is_over:
                unread[number] = None
                continue
            ended = history[number].terminated
            try:
                found[number] = await limit.keep(lambda: self._hook.get_stage_history(self._instance_id, number))  # noqa: B023
            except OrchestrationError as error:
                if not (ended and isinstance(error, NotFoundError) and not is_gateways_404(error)):
                    self._failed[number] += 1
                    unread[number] = str(error)
                continue  # a stage that failed before its work has no history
            if any(one.attempt > 1 or one.last_failure is not None for one in found[number]):
                self._retried |= {number}
            if ended and all(one.terminated for one in found[number]):
                self._ended[number] = found[number]
        return found


def _unread_stages(unread: Mapping[int, str | None], workflow: Workflow | None) -> Iterator[str]:
    """What is told of the stages whose histories could not be read: why, None where no time was left."""
    stages = None if workflow is None else workflow.stages
    for number, why in unread.items():
        if why is not None:
            yield f"the history of {stage_counted(number, stages)} could not be read: {why}"
    late = [stage_counted(number, stages) for number in sorted(unread) if unread[number] is None]
    if late:
        named = ", ".join([late[0], *(one.removeprefix("stage ") for one in late[1:])])
        yield f"no time was left to read the history of {named}: the server answers slowly"


class Watch:
    """The reads of one instance that several people watch.

    Args:
        reader: reads it.
        view: what is shown of it.
        seen_before: whether it was seen by anybody: then a denial denies nothing.
    """

    def __init__(
        self,
        reader: InstanceReader,
        view: Callable[[Observed], Mapping[str, Any]],
        seen_before: Callable[[], bool] = lambda: False,
    ) -> None:
        self._reader = reader
        self._view = view
        self._seen_before = seen_before
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._read: Moment | None = None
        self._begun: Moment | None = None
        self.watchers = 0
        self.shown: Mapping[str, Any] | None = None
        self.problem: str | None = None
        self.missing: str | None = None
        self.over = False

    @property
    def fresh(self) -> Mapping[str, Any] | None:
        """What is shown, where it was read just now."""
        if self.shown is None or self._read is None or not (self.over or self._read.age < FRESH):
            return None
        return {**self.shown, **self._age()}

    async def updates(self) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        """("instance", the view) now and whenever it changes; ("problem", …) while it cannot be read; ("missing", …)
        where the server knows no such instance. Ends with the instance, or once nobody need wait for it any more.
        Without a change for a while ("still", …). Each tells its age: see ``ages.told``."""
        self.watchers += 1
        if self._task is None:
            self._task = asyncio.ensure_future(self._run())
        said: tuple[object, object, object] = (None, None, None)
        try:
            while True:
                now = (self.shown, self.problem, self.missing)
                changed = self._changed
                if self.shown is not None and now[0] is not said[0]:
                    yield "instance", {**self.shown, **self._age()}
                if now[1] is not None and now[1] != said[1]:
                    yield "problem", {"message": now[1], **self._age()}
                elif now[2] is not None and now[2] != said[2]:
                    yield "missing", {"message": now[2], **self._age()}
                elif now[1:] == (None, None) and said[1:] != (None, None):
                    yield "recovered", self._age()
                said = now
                if self.over:
                    return
                nothing_yet = said == (None, None, None)  # nothing has an age
                with suppress(TimeoutError):
                    await in_time(changed.wait(), streams.HEARTBEAT if nothing_yet else streams.beat())
                    continue
                yield "still", self._age()
        finally:
            self.watchers -= 1
            if self.watchers == 0:
                self.stop()

    def _age(self) -> dict[str, Any]:
        return told(self._read, self._begun)

    def stop(self) -> None:
        """Read no more."""
        if self._task is not None:
            self._task.cancel()
            self._task = self._begun = None

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
        pause = FIRST_PAUSE
        denied: Moment | None = None
        doubted: Moment | None = None
        while not self.over:
            begun = self._begun = Moment.now()
            try:
                observed = await self._reader.read()
                view = self._view(observed)
            except Exception as error:
                pause = FAILED_PAUSE
                if not isinstance(error, NotFoundError) or is_gateways_404(error):
                    denied = None
                    self._tell(self.shown, problem_text(error))
                elif self.shown is not None or self._seen_before():
                    self._tell(self.shown, str(denied_though_seen(error)))
                else:
                    denied = denied or begun
                    self.over = denied.took >= UNKNOWN_FOR
                    self._tell(None, None, _MISSING if self.over else _MISSING_YET)
            else:
                self._read, denied = begun, None
                over = observed.instance.terminated and observed.is_whole
                if over and view.get("standing") == "unsure":
                    doubted = doubted or begun
                    over = doubted.took >= UNSURE_FOR
                if over or (self.problem, self.missing) != (None, None) or view != self.shown:
                    self.over = over
                    self._tell(view, None)
                    pause = FIRST_PAUSE
                else:
                    pause = min(pause * 1.5, LONGEST_PAUSE)
            if self._begun is begun:
                self._begun = None
            await asyncio.sleep(0 if self.over else pause)

    def _tell(self, shown: Mapping[str, Any] | None, problem: str | None, missing: str | None = None) -> None:
        self.shown, self.problem, self.missing = shown, problem, missing
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

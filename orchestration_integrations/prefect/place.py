"""Where a call stands in Prefect: the runs around it, read from Prefect's contexts and, above this process, its API.

Two things are only seen in Prefect's contexts and have no public name: the run around a nested task, and whether the
code of a flow was left while submitted tasks of it still run (an interrupt leaves it before Prefect stores a state).
Both are read from the token with which a context was entered, in ``_around`` and ``left`` below, and nowhere else.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from prefect.client.schemas.objects import FlowRun, TaskRun, TaskRunResult
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import MissingContextError
from prefect.logging.loggers import get_run_logger

from .api import api, read_flow_run
from .attempt import AttemptFacts, Enclosure

_Context = TypeVar("_Context", FlowRunContext, TaskRunContext)
_as_its_caller: ContextVar[bool] = ContextVar("orchestration_as_its_caller", default=False)


@contextmanager
def steps_of_the_caller() -> Iterator[None]:
    """For a flow that only wraps tasks: as a subflow its steps count as those of the flow that calls it."""
    token = _as_its_caller.set(True)
    try:
        yield
    finally:
        _as_its_caller.reset(token)


@dataclass(frozen=True)
class Place:
    """Where a call stands.

    Attributes:
        facts: the runs around it.
        flow_run_id: of the innermost flow run; None outside a flow.
        task_run_id: of the innermost task run of that flow run; None outside a task.
        began: when the outermost run was created, by Prefect's clock; the key was not used before.
        flow_context: of the innermost flow run, for ``left``.
    """

    facts: AttemptFacts
    flow_run_id: UUID | None
    task_run_id: UUID | None
    began: datetime | None
    flow_context: FlowRunContext | None

    @property
    def root_flow_run_id(self) -> UUID | None:
        """The outermost flow run."""
        flow_runs = self.facts.flow_runs
        return UUID(flow_runs[0].id) if flow_runs else None

    def left(self) -> bool:
        """Whether this process has left the flow's code, so that only what it had submitted still runs."""
        return self.flow_context is not None and self.flow_context._token is None


def here() -> Place | None:
    """Where the caller stands; None outside any run. May ask Prefect's API: once for each flow run and attempt.

    Raises:
        Exception: what Prefect's client raises.
    """
    flow_context = FlowRunContext.get()
    flow_run = flow_context.flow_run if flow_context is not None else None
    tasks = _task_runs()
    if flow_run is None:
        if not tasks:
            return None
        path = tuple(Enclosure(str(one.id), one.run_count) for one in tasks)
        whole = _is_of_this_package()
        first = tasks[0]
        began = first.created or first.expected_start_time or first.start_time
        return Place(AttemptFacts(path, whole=whole), None, tasks[-1].id, began, None)
    flows = _lineage(flow_run)
    path, own_task = _path(flows, tasks, _executions(flow_context))
    whole = own_task is not None and _is_of_this_package()
    return Place(AttemptFacts(path, whole=whole), flow_run.id, own_task, flows[0].created, flow_context)


def ids_here() -> tuple[UUID | None, UUID | None]:
    """Flow run and task run of the caller, without asking anybody."""
    flow_context = FlowRunContext.get()
    flow_run = flow_context.flow_run if flow_context is not None else None
    flow_run_id = flow_run.id if flow_run is not None else None
    own = [one.id for one in _task_runs() if one.flow_run_id == flow_run_id]
    return flow_run_id, own[-1] if own else None


def run_logger() -> Any:
    """The logger of the run that calls, or an ordinary one outside."""
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger("orchestration_integrations.prefect")


# ---- task runs ----------------------------------------------------------------------------------------


def _around(context: _Context) -> _Context | None:
    """The context of the run around a nested one."""
    token: Any = context._token
    old = token.old_value if token is not None else None
    return old if isinstance(old, type(context)) else None


def _task_runs() -> list[TaskRun]:
    """The task runs around the caller, of all flow runs, the outermost first."""
    found: dict[UUID, TaskRun] = {}  # Prefect enters the context of a run more than once
    context = TaskRunContext.get()
    while context is not None:
        found.setdefault(context.task_run.id, context.task_run)
        context = _around(context)
    return list(found.values())[::-1]


def _is_of_this_package() -> bool:
    """Whether the innermost task is one of this package: each of those makes one call."""
    context = TaskRunContext.get()
    return context is not None and str(context.task.fn.__module__).startswith(f"{__package__}.")


# ---- flow runs ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Level:
    """A flow run, and how it stands in the one around it.

    Attributes:
        id, run_count, created: of the run, as they were when this was read.
        name: without what changes.
        number: the number of the call of it the flow around made; None where a task called it.
        caller: id of the task run that called it, where Prefect knows one.
    """

    id: UUID
    run_count: int
    created: datetime | None
    name: str = ""
    number: str | None = None
    caller: UUID | None = None


_lineages: OrderedDict[tuple[UUID, int], tuple[_Level, ...]] = OrderedDict()
_lock = threading.Lock()


def _lineage(flow_run: FlowRun) -> tuple[_Level, ...]:
    """A flow run and those around it, the outermost first. Within an attempt of the innermost nothing of it changes."""
    name = (flow_run.id, flow_run.run_count or 0)
    with _lock:
        known = _lineages.get(name)
    if known is not None:
        return known
    levels: list[_Level] = []
    run = flow_run
    while run.parent_task_run_id is not None:
        tracking = api().read_task_run(run.parent_task_run_id)
        levels.append(_level(run, tracking))
        if tracking.flow_run_id is None:
            break
        run = read_flow_run(tracking.flow_run_id)
    else:
        levels.append(_Level(run.id, run.run_count or 1, run.created))
    found = tuple(reversed(levels))
    with _lock:
        _lineages[name] = found
        while len(_lineages) > 1000:
            _lineages.popitem(last=False)
    return found


def _level(run: FlowRun, tracking: TaskRun) -> _Level:
    """Prefect numbers the calls of a subflow by its flow; a task's calls it names at random."""
    key = str(tracking.dynamic_key)
    name = tracking.name.removesuffix(f"-{key}")
    parents = tracking.task_inputs.get("__parents__") or []
    caller = next((one.id for one in parents if isinstance(one, TaskRunResult)), None)
    return _Level(run.id, run.run_count or 1, run.created, name, key if key.isdecimal() else None, caller)


def _executions(context: FlowRunContext | None) -> dict[UUID, tuple[str, bool]]:
    """When this execution of each flow run around the caller began, and whether there was one before; of those that
    this process executes."""
    found: dict[UUID, tuple[str, bool]] = {}
    while context is not None:
        run = context.flow_run
        if run is not None:
            before = run.total_run_time is not None and run.total_run_time.total_seconds() > 0
            found.setdefault(run.id, (_began(context, run), before))
        context = _around(context)
    return found


_beginnings: OrderedDict[tuple[UUID, int, datetime], str] = OrderedDict()


def _began(context: FlowRunContext, run: FlowRun) -> str:
    """When an execution of a flow run began: the time of the state that began it, which all its processes know.

    Where a task runs in another process, Prefect makes the context anew for each task, with a start time of its own.
    The state is read once: when the flow's code has ended, the context shows another.
    """
    name = (run.id, run.run_count or 0, context.start_time)
    with _lock:
        known = _beginnings.get(name)
        if known is None:
            running = run.state is not None and run.state.is_running()
            began = run.state.timestamp if run.state is not None and running else context.start_time
            known = _beginnings[name] = began.isoformat()
            while len(_beginnings) > 1000:
                _beginnings.popitem(last=False)
    return known


def _path(
    levels: tuple[_Level, ...], tasks: list[TaskRun], executions: dict[UUID, tuple[str, bool]]
) -> tuple[tuple[Enclosure, ...], UUID | None]:
    """All that encloses the caller, the outermost first; and the innermost task run of the innermost flow run."""
    path: list[Enclosure] = []
    own: list[TaskRun] = []
    for depth, level in enumerate(levels):
        innermost = depth == len(levels) - 1
        name = ""
        if depth and not (innermost and _as_its_caller.get()):
            by_flow = level.number is not None and not own and level.caller is None
            name = f"{level.name}-{level.number}" if by_flow else level.name
        if depth and not own and level.caller is not None:
            # Called from a task in another process: its attempts cannot be seen here.
            path.append(Enclosure(str(level.caller), 1))
        began, before = executions.get(level.id, ("", False))
        path.append(Enclosure(str(level.id), level.run_count, is_flow=True, name=name, began=began, resumed=before))
        own = [one for one in tasks if one.flow_run_id == level.id]
        path += [Enclosure(str(one.id), one.run_count) for one in own]
    return tuple(path), own[-1].id if own else None

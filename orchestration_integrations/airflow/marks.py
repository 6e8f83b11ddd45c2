"""Marks of a run's checkpoints, as Airflow Variables: a hold, announced passes, and who waits for the run.

``orchestration_hold_<instance>``, ``orchestration_passing_<instance>_<n>`` are what ``ownership.marks`` says. Tasks,
callbacks and, where Airflow lets them, triggers all reach them by the instance's id alone.

``orchestration_waiter_<instance>`` is put up before a run with checkpoints is released. It says that whoever waits for
the run looks at these marks: only of such a run may a stop say that it is held. It also says which tasks of the DAG
run had failed before, for ``hold_on_failure``.

Each text says whose it is, as those of the records do, so that ``record_care`` can tell what belongs to a DAG run
that is gone.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timezone
from typing import Any

from ..ownership.keeping import hold_name, passing_name
from ..ownership.marks import Hold, MarkPlace, PlacedMarks, holding_of, variable_name
from ..procedures.cancel import Holding
from ..procedures.effects import Now, Procedure, ask
from ..procedures.limits import OWNER_ANSWER_SECONDS
from . import variables

KINDS = ("hold", "passing", "waiter")
NOBODY = ("", "", "", -1)
"""Stands for the task instance of whoever stops a run and does not know of one."""

Call = Callable[..., Any]


def plainly(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function."""
    return function(*arguments)


class VariableMarks:
    """Marks as Variables: a ``MarkPlace``.

    Args:
        parts: what names the task instance that puts marks up.
        call: how Airflow is called.

    Attributes:
        has_waiter: a waiter has put up its mark, so that it must be there.
    """

    def __init__(self, parts: tuple[str, str, str, int] = NOBODY, call: Call = plainly) -> None:
        self.has_waiter = False
        self._parts = parts
        self._call = call

    def read(self, name: str) -> str | None:
        """The text of a mark; None where there is none. Raises where it cannot be read.

        Airflow 3 answers "there is none" too where its database fails for a moment. So a mark is missing only if it is
        missing twice, and the mark of the waiter, which stands as long as the run has one, was read in between.
        """
        text = self._stored(name)
        kind, instance_id = name.split("/")[:2]
        if text is None:
            if kind != "waiter" and self._stored(waiter_mark(instance_id)) is None and self.has_waiter:
                raise LookupError(
                    f"the mark {variable_name(waiter_mark(instance_id))} is missing: is Airflow's database away?"
                )
            text = self._stored(name)
        if text is None:
            return None
        self.has_waiter = self.has_waiter or kind == "waiter"
        try:
            return str(json.loads(text)["is"])
        except (ValueError, TypeError, KeyError):
            return str(text)  # whatever stands there is a mark

    def _stored(self, name: str) -> Any:
        return self._call(variables.read_surely, variable_name(name))

    def write(self, name: str, text: str) -> None:
        """Put up a mark, over one of that name. Raises where it may not stand there."""
        self.has_waiter = self.has_waiter or name.startswith("waiter/")
        dag_id, run_id, task_id, map_index = self._parts
        whose = f"Formance Orchestration: task {task_id}, map index {map_index}, of {dag_id} {run_id}"[:500]
        stored = json.dumps({"of": list(self._parts), "is": text})
        self._call(variables.write, variable_name(name), stored, whose)

    def remove(self, name: str) -> None:
        """Take a mark away, if it is there."""
        self.has_waiter = self.has_waiter and not name.startswith("waiter/")
        self._call(variables.remove, variable_name(name))


class AwaitedMarks:
    """Marks as Variables for a procedure that an asynchronous hook performs.

    Args:
        marks: the Variables.
        awaited: calls a function that asks Airflow without blocking the event loop.
    """

    def __init__(self, marks: VariableMarks, awaited: Callable[..., Awaitable[Any]]) -> None:
        self._marks = marks
        self._awaited = awaited

    async def read(self, name: str) -> str | None:
        """As of ``VariableMarks``."""
        found: str | None = await self._awaited(self._marks.read, name)
        return found

    async def write(self, name: str, text: str) -> None:
        """As of ``VariableMarks``."""
        await self._awaited(self._marks.write, name, text)

    async def remove(self, name: str) -> None:
        """As of ``VariableMarks``."""
        await self._awaited(self._marks.remove, name)


def parts_of(context: Any) -> tuple[str, str, str, int]:
    """What names the task instance of a context; of that of a DAG's callback, as far as it is known."""
    ti = context.get("ti") or context.get("task_instance")
    dag_run = context.get("dag_run")
    named = ti if ti is not None else dag_run
    dag_id, run_id = getattr(named, "dag_id", None), context.get("run_id") or getattr(named, "run_id", None)
    map_index = getattr(ti, "map_index", None)
    return (dag_id or "", run_id or "", getattr(ti, "task_id", None) or "", -1 if map_index is None else map_index)


def waiter_mark(instance_id: str) -> str:
    """The name of the mark that says who waits for a run."""
    return f"waiter/{instance_id}"


def remove_marks(place: MarkPlace, instance_id: str, numbers: Iterable[int]) -> None:
    """Take away the marks of a run that has ended.

    Args:
        place: where they stand.
        instance_id: the run.
        numbers: of its checkpoints, by the user's numbers of the stages behind them.
    """
    passes = (passing_name(instance_id, one) for one in numbers)
    for name in (hold_name(instance_id), *passes, waiter_mark(instance_id)):
        place.remove(name)


def put_up_hold(
    place: Any, instance_id: str, by: str, now: Now, *, bound: float | None = None
) -> Procedure[Holding | None]:
    """Put up a stop of a run that tasks of this Airflow may be waiting for. A run without checkpoints gets none.

    Args:
        place: a ``MarkPlace``, or one with asynchronous functions.
        instance_id: the run.
        by: who stops it, in words.
        now: the clocks.
        bound: seconds until a waiter that has not seen the stop can no longer send anything; None for ten.

    Returns:
        What tells whether the run is held; None where its waiter may not know of the stop.
    """
    waiter = yield from ask(place.read, waiter_mark(instance_id))
    if waiter.error is None and waiter.value is None:
        return None
    marks = PlacedMarks(place, instance_id, [])
    stands = yield from marks.hold(Hold(by, datetime.fromtimestamp(now.time(), timezone.utc)))
    if not stands or waiter.error is not None:
        return None
    return holding_of(marks, now.monotonic() + (OWNER_ANSWER_SECONDS if bound is None else bound))

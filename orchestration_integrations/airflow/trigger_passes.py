"""How a trigger lets its run pass a checkpoint, and when it leaves that to a worker.

The guard of a trigger is that of a task: is the try still deferred, has another task failed; then it looks for a stop,
announces the pass, and looks once more. Whatever does not end in a pass is decided by a worker: the trigger tells it,
and the run stands still meanwhile. A trigger whose task is no longer deferred lets nothing pass.

On Airflow 3.0 to 3.2 a trigger must not touch Variables, where marks stand: there a worker passes every checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from ..api.errors import OwnerUnreachableError
from ..http_hook.in_time import in_time
from ..ownership.marks import PlacedMarks, announced_pass
from ..procedures.checkpoints import Guard, Permit
from ..procedures.effects import Procedure, ask_or_raise
from .attempt import Wish
from .checkpointing import failure_text, new_failures
from .compat import TRIGGERS_REACH_VARIABLES, in_thread
from .marks import AwaitedMarks, VariableMarks

ASK_SECONDS = 8.0
"""Seconds that Airflow gets to answer a trigger; its first answer there can take five."""
UNSURE_SECONDS = 30.0
"""For so long a trigger asks again where Airflow does not say that the run may go on; then a worker does."""


class LeftToWorker(Exception):
    """Ends a wait: the run stands at a checkpoint, and a worker decides what follows."""


async def asked(function: Callable[..., Any], *arguments: Any) -> Any:
    """Ask Airflow something from a trigger, within ``ASK_SECONDS``."""
    return await in_time(in_thread(function, *arguments), ASK_SECONDS)


class TriggerPasses:
    """Lets the run of a deferred try pass its checkpoints: a ``Guard``.

    Args:
        instance_id: the run.
        wish: says whether the try still waits; ``None`` or an exception where that is not known.
        parts: what names the task instance; None where that is not known.
        failed_before: the tasks of the DAG run that had failed before; None: failures of others do not matter.
    """

    def __init__(
        self,
        instance_id: str,
        wish: Callable[[], Awaitable[Wish | None]],
        parts: tuple[str, str, str, int] | None,
        failed_before: list[str] | None,
    ) -> None:
        self._instance_id = instance_id
        self._wish = wish
        self._parts = parts
        self._failed_before = failed_before
        self._unsure_since: float | None = None

    def __call__(self, number: int) -> Procedure[Permit]:
        """As of ``Guard``.

        Raises:
            LeftToWorker: a worker is to decide.
            OwnerUnreachableError: not now; ask again.
        """
        if not TRIGGERS_REACH_VARIABLES or self._parts is None:
            raise LeftToWorker(f"it stands at the checkpoint before stage {number}")
        try:
            word = yield from ask_or_raise(self._wish)
        except Exception as error:
            raise self._unsure(number, f"Airflow could not be asked for its task ({error!r})") from error
        if word != "yes":
            raise self._unsure(number, "Airflow does not say that its task is deferred")
        if self._failed_before is not None:
            try:
                failed = yield from ask_or_raise(asked, new_failures, self._parts, self._failed_before)
            except Exception as error:
                raise self._unsure(number, f"Airflow could not be asked for other tasks ({error!r})") from error
            if failed:
                raise LeftToWorker(f"a task {failure_text(failed)}")
        variables = VariableMarks(self._parts)
        variables.has_waiter = True  # the task put up its mark before it deferred
        place: Any = AwaitedMarks(variables, asked)
        marks = PlacedMarks(place, self._instance_id, [])
        try:
            permit = yield from announced_pass(marks, number)
        except Exception as error:
            raise self._unsure(number, f"its marks could not be written or read ({error!r})") from error
        self._unsure_since = None
        return permit

    def _unsure(self, number: int, why: str) -> OwnerUnreachableError | LeftToWorker:
        now = time.monotonic()
        self._unsure_since = now if self._unsure_since is None else self._unsure_since
        if now - self._unsure_since >= UNSURE_SECONDS:
            return LeftToWorker(f"it stands at the checkpoint before stage {number}; {why}")
        return OwnerUnreachableError(
            f"instance {self._instance_id} was not let go on to stage {number}: {why}",
            run_key=None,
            instance_id=self._instance_id,
        )


def left_to_others(instance_id: str) -> Guard:
    """The guard of whoever only watches a run: the task that waits for the run lets it pass its checkpoints."""

    def guard(number: int) -> Procedure[Permit]:
        yield from ()
        raise OwnerUnreachableError(
            f"instance {instance_id} stands at the checkpoint before stage {number}, which only the task that waits "
            "for it may let it pass",
            run_key=None,
            instance_id=instance_id,
        )

    return guard

"""The wait of a worker that lets a run pass one checkpoint, for a triggerer that leaves it to it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..api.errors import WaitTimeoutError
from ..api.models import RunResult, StageEvent
from ..procedures.checkpoint_watch import UNSURE_SECONDS
from ..procedures.checkpoints import Guard, Permit
from ..procedures.effects import Procedure
from ..procedures.wait_arguments import WaitArguments
from ..procedures.waiting import ROW_PATIENCE

if TYPE_CHECKING:
    from .limits import Limit
    from .task_run import TaskRun

LOOK_SECONDS = UNSURE_SECONDS + 10.0
"""Seconds after which the worker gives its place back, whether the run has gone on or not. Longer than the wait watches
a stop that came amid a pass, since only the wait ends that: the triggerer would call a worker again and again."""


class GoesOn(Exception):
    """Ends the wait: the run has gone on, or stands still; the triggerer waits for it again."""


def one_pass(task: TaskRun, limit: Limit) -> Callable[[str, Guard], Procedure[RunResult]]:
    """What waits for an instance until it has passed one checkpoint, as ``OwnedRun.attend`` needs it.

    Args:
        task: the try.
        limit: when its waiting ends.
    """
    let_pass: set[int] = set()

    def told(event: StageEvent) -> None:
        if event.checkpoint in let_pass and event.kind == "ended" and not event.detail:
            task.log.info("instance %s: the checkpoint before stage %d was passed", event.instance_id, event.checkpoint)
            raise GoesOn

    def waiting(instance_id: str, guard: Guard) -> Procedure[RunResult]:
        def asked(number: int) -> Procedure[Permit]:
            permit = yield from guard(number)
            if permit == "pass":
                let_pass.add(number)
            return permit

        until = time.time() + LOOK_SECONDS
        arguments = WaitArguments(
            deadline=until if limit.deadline is None else min(until, limit.deadline),
            limit=task.times.named(limit),
            poll_interval=task.times.poll_interval,
            read_budget=task.operator.read_budget,
            row_grace=ROW_PATIENCE,
        )
        try:
            return (yield from task.http.waiting_for(instance_id, arguments, told, asked))
        except WaitTimeoutError:
            if limit.deadline is not None and time.time() >= limit.deadline:
                raise
            raise GoesOn from None

    return waiting

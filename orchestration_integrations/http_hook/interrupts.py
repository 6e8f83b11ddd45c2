"""After an interrupt: cancel the run if it is this attempt's, and say what came of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ..api.errors import OrchestrationError, summary
from ..ownership.owned_run import OwnedRun
from ..procedures.limits import CANCEL_SECONDS
from ..procedures.verdicts import outcome_text
from .base import HookBase
from .blocking_driver import BlockingDriver
from .threads import in_own_thread

logger = logging.getLogger("orchestration_integrations.hook")

EXCHANGE_SECONDS = 4.0
"""Seconds that one exchange of it may take."""


def cancel_interrupted(hook: HookBase, run: OwnedRun, error: BaseException) -> None:
    """Cancel by connections of its own: nothing of what was interrupted is used again.

    An interrupt that comes meanwhile goes through. What became of the run is logged, and is a note of ``error``.

    Args:
        hook: was interrupted.
        run: its work on a key.
        error: the interrupt.
    """
    why = type(error).__name__
    if run.instance_id is None:
        if run.record is None:
            return
        level = logging.WARNING
        text = "the run was being started: a gated one is not released; an ungated one may have started"
    else:
        level, text = _cancelled(hook, run, run.instance_id, why)
    logger.log(level, "run key %s: interrupted (%s); %s", run.request.run_key, why, text)
    error.__notes__ = [*notes_of(error), text]  # type: ignore[attr-defined]  # as add_note of Python 3.11


def notes_of(error: BaseException) -> Sequence[str]:
    """What became of the run of an interrupt; nothing where nobody tried to cancel it."""
    return getattr(error, "__notes__", ())


def _cancelled(hook: HookBase, run: OwnedRun, instance_id: str, why: str) -> tuple[int, str]:
    """Level and text for what the cancel came to."""
    settings = hook.settings
    hurried = settings.with_changes(timeout=min(settings.timeout, EXCHANGE_SECONDS))
    with hook.like_this(BlockingDriver, hurried) as fresh:
        fresh.expect(instance_id)
        again = fresh.owning(run.request, store=run.keeper.store)
        again.take_over(run)
        try:
            outcome = fresh.perform(again.stop(CANCEL_SECONDS, by=f"its waiter, which was interrupted ({why})"))
        except OrchestrationError as failed:
            text = f"instance {instance_id} was not cancelled and may still run: {summary(failed)}"
            return logging.ERROR, text
    ended = outcome is None or outcome.status in ("cancelled", "already_ended")
    return (logging.WARNING if ended else logging.ERROR), f"instance {instance_id}: {outcome_text(outcome)}"


async def acancel_interrupted(hook: HookBase, run: OwnedRun, error: BaseException) -> None:
    """As ``cancel_interrupted``, in a thread of its own: a second cancellation of this task does not reach it, and it
    does not wait for the threads of the caller's loop."""
    from asyncio import shield  # not needed by the blocking hook, and slow to import

    await shield(in_own_thread(cancel_interrupted, hook, run, error))

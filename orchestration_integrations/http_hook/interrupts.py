"""After an interrupt: cancel the run if it is this attempt's, and say what came of it."""

from __future__ import annotations

import logging

from ..api.errors import OrchestrationError, summary
from ..ownership.owned_run import OwnedRun
from ..procedures.limits import CANCEL_SECONDS
from ..procedures.wording import cancel_text
from .base import HookBase
from .blocking_driver import BlockingDriver
from .threads import in_own_thread

logger = logging.getLogger("orchestration_integrations.hook")

EXCHANGE_SECONDS = 4.0
"""Seconds that one exchange of it may take."""


def cancel_interrupted(hook: HookBase, run: OwnedRun, error: BaseException) -> None:
    """Cancel by connections of its own: nothing of what was interrupted is used again.

    An interrupt that comes meanwhile goes through.

    Args:
        hook: was interrupted.
        run: its work on a key.
        error: the interrupt.
    """
    why = type(error).__name__
    key = run.request.run_key
    instance_id = run.instance_id
    if instance_id is None:
        if run.record is not None:
            logger.warning(
                "run key %s: interrupted (%s) while the run was being started: a gated one is not released; an ungated "
                "one may have started",
                key,
                why,
            )
        return
    settings = hook.settings
    hurried = settings.with_changes(timeout=min(settings.timeout, EXCHANGE_SECONDS))
    with hook.like_this(BlockingDriver, hurried) as fresh:
        fresh.expect(instance_id)
        again = fresh.owning(run.request, store=run.keeper.store)
        again.take_over(run)
        try:
            outcome = fresh.perform(again.stop(CANCEL_SECONDS, by=f"its waiter, which was interrupted ({why})"))
        except OrchestrationError as failed:
            logger.error(
                "run key %s: interrupted (%s); instance %s was not cancelled and may still run: %s",
                key,
                why,
                instance_id,
                summary(failed),
            )
            return
    if outcome is not None:
        level = logging.WARNING if outcome.status in ("cancelled", "already_ended") else logging.ERROR
        logger.log(level, "run key %s: interrupted (%s); instance %s: %s", key, why, instance_id, cancel_text(outcome))


async def acancel_interrupted(hook: HookBase, run: OwnedRun, error: BaseException) -> None:
    """As ``cancel_interrupted``, in a thread of its own: a second cancellation of this task does not reach it, and it
    does not wait for the threads of the caller's loop."""
    from asyncio import shield  # not needed by the blocking hook, and slow to import

    await shield(in_own_thread(cancel_interrupted, hook, run, error))

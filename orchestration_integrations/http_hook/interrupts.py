"""After an interrupt: cancel the run if it is this attempt's, and say what came of it.

What an interrupt has done is told by the outcome of the cancel, and by nothing else: until there is one, the run may
still run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

import msgspec

from ..api.errors import summary
from ..api.models import CancelOutcome
from ..api.notes import add_note
from ..ownership.owned_run import OwnedRun
from ..procedures.limits import CANCEL_SECONDS
from ..procedures.verdicts import BEING_STARTED, cancel_verdict, outcome_text
from .base import HookBase
from .blocking_driver import BlockingDriver
from .held_back import held_back, held_back_from
from .signal_errors import raised_by_signal
from .threads import in_own_thread

logger = logging.getLogger("orchestration_integrations.hook")

EXCHANGE_SECONDS = 4.0
"""Seconds that one exchange of it may take."""

AfterInterrupt = Literal[
    "cancelled",
    "already_ended",
    "never_started",
    "held",
    "not_confirmed",
    "superseded",
    "left",
    "being_started",
    "unknown",
]
"""As the status of a cancel, or: another attempt has the run; an earlier one had it, and this one did not take it up;
none was chosen yet; there is no outcome."""


class Interrupted(msgspec.Struct, frozen=True):
    """What became of a run whose waiter was interrupted.

    Attributes:
        word: for it.
        text: a sentence.
        instance_id: the run; None where none was chosen yet.
        outcome: of the cancel; None where there is none.
    """

    word: AfterInterrupt
    text: str
    instance_id: str | None = None
    outcome: CancelOutcome | None = None

    @property
    def sure(self) -> bool:
        """Whether nothing of the run moves any more, and all that it has moved is known."""
        return self.outcome is not None and cancel_verdict(self.outcome).sure


def cancel_interrupted(
    hook: HookBase, run: OwnedRun, error: BaseException, begun: Callable[[], object] | None = None
) -> None:
    """Cancel by connections of its own: nothing of what was interrupted is used again.

    An interrupt that comes meanwhile is held back (see ``held_back``); the next one goes through. What became of the
    run is logged, and stands in the notes of ``error`` and in ``after_interrupt`` of it.

    Args:
        hook: was interrupted.
        run: its work on a key.
        error: the interrupt.
        begun: called once another interrupt is held back: what comes before that keeps the cancel from beginning.

    Raises:
        BaseException: an interrupt that went through, or was held back and is of another class than ``error``.
    """
    with held_back(lambda: _warn_again(run)) as held:
        try:
            if begun is not None:
                begun()
            came = _came_of(hook, run, error)
        except BaseException as again:  # no error of the cancel, but the next wish of the caller
            _note(again, run, Interrupted("unknown", _broken_off(run), run.instance_id))
            raise
        if came is not None:
            _note(error, run, came)
    other = held.raised
    if other is not None and type(other) is not type(error):
        if came is not None:
            _tell(other, came)
        raise other from error


def after_interrupt(error: BaseException) -> Interrupted | None:
    """What became of the run of an interrupt, or of an earlier one; None where nobody tried to cancel it."""
    one: BaseException | None = error
    while one is not None:
        found = getattr(one, "after_interrupt", None)
        if isinstance(found, Interrupted):
            return found
        one = one.__context__
    return None


def _came_of(hook: HookBase, run: OwnedRun, interrupt: BaseException) -> Interrupted | None:
    if run.instance_id is not None:
        return _cancelled(hook, run, run.instance_id, interrupt)
    if run.record is None:
        return None
    return Interrupted("being_started", BEING_STARTED)


def _cancelled(hook: HookBase, run: OwnedRun, instance_id: str, interrupt: BaseException) -> Interrupted:
    why = type(interrupt).__name__
    settings = hook.settings
    hurried = settings.with_changes(timeout=min(settings.timeout, EXCHANGE_SECONDS))
    try:
        with hook.like_this(BlockingDriver, hurried) as fresh:
            fresh.expect(instance_id)
            again = fresh.owning(run.request, store=run.keeper.store)
            again.take_over(run)
            outcome = fresh.perform(again.stop(CANCEL_SECONDS, by=f"its waiter, which was interrupted ({why})"))
    except Exception as failed:
        wish = raised_by_signal(failed, interrupt)
        if wish is not None:
            raise wish from failed
        text = f"instance {instance_id}: its cancel failed, and it may still run: {summary(failed)}"
        return Interrupted("unknown", text, instance_id)
    word: AfterInterrupt = outcome.status if outcome is not None else "superseded" if again.superseded else "left"
    return Interrupted(
        word, f"instance {instance_id}: {outcome_text(outcome, superseded=again.superseded)}", instance_id, outcome
    )


def _note(error: BaseException, run: OwnedRun, came: Interrupted) -> None:
    fine = came.sure or came.word in ("superseded", "being_started")
    level = logging.WARNING if fine else logging.ERROR
    _tell(error, came)
    logger.log(level, "run key %s: interrupted (%s); %s", run.request.run_key, type(error).__name__, came.text)


def _tell(error: BaseException, came: Interrupted) -> None:
    error.after_interrupt = came  # type: ignore[attr-defined]
    add_note(error, came.text)


def _may_run(run: OwnedRun) -> str:
    if run.instance_id is None:
        return "the run may have been started"
    return f"instance {run.instance_id} may still run: orchestration-integrations cancel {run.instance_id}"


def _broken_off(run: OwnedRun) -> str:
    return f"its cancel was broken off by another interrupt; {_may_run(run)}"


def _warn_again(run: OwnedRun) -> None:
    logger.warning(
        "run key %s: interrupted again while the run is being cancelled; %s; one more interrupt breaks the cancel off",
        run.request.run_key,
        _may_run(run),
    )


async def acancel_interrupted(hook: HookBase, run: OwnedRun, error: BaseException, begun: Callable[[], object]) -> None:
    """As ``cancel_interrupted``, in a thread of its own, which no cancellation of this task reaches: it does not wait
    for the threads of the caller's loop either."""
    from asyncio import get_running_loop  # not needed by the blocking hook, and slow to import

    try:
        get_running_loop()
    except RuntimeError:  # whoever has ended the loop closes the coroutine: nothing can be awaited
        cancel_interrupted(hook, run, error, begun)
        return
    begun()
    try:
        working = in_own_thread(cancel_interrupted, hook, run, error)
    except RuntimeError:  # no thread is to be had
        cancel_interrupted(hook, run, error)
        return

    def told_again() -> None:
        _warn_again(run)

    try:
        again = await held_back_from(working, told_again)
    except BaseException as broken:
        if after_interrupt(broken) is None or not working.done():
            _tell(broken, Interrupted("unknown", f"its cancel is still under way; {_may_run(run)}", run.instance_id))
        raise
    if again is not None and type(again) is not type(error):
        came = after_interrupt(error)
        if came is not None:
            _tell(again, came)
        raise again from error

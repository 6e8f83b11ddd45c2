"""Cancelling what a flow run had started, after a signal, a failure or a time-out.

Several ways of ending a flow fire together: the wait is interrupted, a transaction is rolled back, a
hook runs. Each asks here, and an instance is cancelled once: whoever comes while that goes on waits for
it, whoever comes soon after gets the same answer, so that all of it together stays within the
seconds that a killed flow run has. Every instance is cancelled in a thread with a client of its own: what
was interrupted is not used again, several go at once, and a second signal does not stop them.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

from ..api.errors import NotFoundError, OrchestrationError, summary
from ..api.models import CancelOutcome
from ..http_hook import OrchestrationHttpHook
from ..settings import Settings
from .credentials import FACE
from .flow_runs import run_logger

CANCEL_SECONDS = 14.0
"""Until an instance counts as not confirmed; with reading what had moved, all is over within 18 seconds."""
ASK_AGAIN_SECONDS = 30.0
"""A cancel that was not confirmed is tried anew only after this: until then its answer stands."""
EXCHANGE_SECONDS = 4.0


class _Cancelling:
    """One instance being cancelled."""

    def __init__(self, settings: Settings, instance_id: str, limit: float) -> None:
        self.instance_id = instance_id
        self.outcome: CancelOutcome | None = None
        self.error: Exception | None = None
        self.begun_at = time.monotonic()
        self._settings = settings.with_changes(timeout=min(settings.timeout, EXCHANGE_SECONDS), retry_budget=limit)
        self._limit = limit
        self.thread = threading.Thread(target=self._run, name=f"cancel-{instance_id}")
        self.thread.start()

    def _run(self) -> None:
        try:
            with OrchestrationHttpHook(self._settings, face=FACE) as hook:
                self.outcome = hook.cancel(self.instance_id, timeout=self._limit)
        except Exception as error:  # told by whoever waits for it
            self.error = error

    @property
    def stands(self) -> bool:
        """Whether this answer serves whoever asks now."""
        if self.thread.is_alive():
            return True
        if self.outcome is not None and self.outcome.status != "not_confirmed":
            return True
        return time.monotonic() - self.begun_at < ASK_AGAIN_SECONDS


_known: dict[tuple[str, str], _Cancelling] = {}
_lock = threading.Lock()


def _begin(settings: Settings, ids: Sequence[str], limit: float) -> list[_Cancelling]:
    begun = []
    with _lock:
        for instance_id in dict.fromkeys(ids):
            key = (settings.base_url, instance_id)
            one = _known.get(key)
            if one is None or not one.stands:
                one = _known[key] = _Cancelling(settings, instance_id, limit)
            begun.append(one)
        for key in list(_known)[: max(0, len(_known) - 10_000)]:
            if not _known[key].thread.is_alive():
                del _known[key]
    return begun


def cancel_instances_now(
    settings: Settings, ids: Sequence[str], why: str, *, limit: float = CANCEL_SECONDS, logger: Any = None
) -> dict[str, CancelOutcome | None]:
    """Cancel instances, all at once, and tell what became of each. Never raises but for a second interrupt.

    A first interrupt that comes meanwhile is raised after the end.

    Returns:
        The outcome by id; None where cancelling failed altogether.
    """
    begun = _begin(settings, ids, limit)
    interrupt: BaseException | None = None
    for one in begun:
        while one.thread.is_alive():
            try:
                one.thread.join()
            except BaseException as error:
                if interrupt is not None:
                    raise
                interrupt = error
    outcomes = _tell(begun, why, logger or run_logger())
    if interrupt is not None:
        raise interrupt
    return outcomes


async def acancel_instances_now(
    settings: Settings, ids: Sequence[str], why: str, *, limit: float = CANCEL_SECONDS
) -> dict[str, CancelOutcome | None]:
    """As ``cancel_instances_now``, leaving the event loop free; blocking it where cancellation is delivered again
    and again."""
    begun = _begin(settings, ids, limit)
    interrupts = 0
    while interrupts < 3 and any(one.thread.is_alive() for one in begun):
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            interrupts += 1
    return cancel_instances_now(settings, ids, why, limit=limit)


def _tell(begun: Sequence[_Cancelling], why: str, logger: Any) -> dict[str, CancelOutcome | None]:
    for one in begun:
        if one.outcome is not None:
            level, text = _said(one.outcome)
        elif isinstance(one.error, NotFoundError):
            level, text = logging.WARNING, f"could not be cancelled: {summary(one.error)}"
        else:
            reason = summary(one.error) if isinstance(one.error, OrchestrationError) else repr(one.error)
            level, text = logging.ERROR, f"could not be cancelled and may still run: {reason}"
        logger.log(level, "%s: instance %s %s", why, one.instance_id, text)
    return {one.instance_id: one.outcome for one in begun}


def _said(outcome: CancelOutcome) -> tuple[int, str]:
    moved = f"{len(outcome.moved.transactions)} transactions had been made"
    if outcome.in_flight:
        moved += f"; {len(outcome.in_flight)} payments were under way and may arrive: check the ledger"
    if outcome.status == "cancelled":
        return (logging.WARNING if outcome.in_flight else logging.INFO), f"is cancelled; {moved}"
    if outcome.status == "already_ended":
        state = outcome.instance.state if outcome.instance is not None else "over"
        return logging.INFO, f"had already ended ({state}); {moved}"
    if outcome.status == "never_started":
        return logging.INFO, "never started"
    return logging.ERROR, (
        f"was not seen to end after the cancel ({outcome.abort_answer}): it may still run and move money; {moved}"
    )

"""Cancelling what a flow run had started, after a signal, a failure or a time-out.

Several ways of ending a flow fire together: the wait is interrupted, a transaction is rolled back, a hook runs. Each
asks here, and an instance is cancelled once: whoever comes while that goes on waits for it, whoever comes soon after
gets the same answer, so that all of it together stays within the seconds that a killed flow run has. Every instance is
cancelled in a thread with a client of its own: what was interrupted is not used again, several go at once, and a
second signal does not stop them. An instance that another attempt has taken over is left to it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import anyio

from ..api.errors import OrchestrationError, summary
from ..api.models import CancelOutcome
from ..http_hook import OrchestrationHttpHook
from ..http_hook.held_back import held_back
from ..ownership.keeping import hold_name
from ..ownership.owned_run import OwnedRun
from ..ownership.record import OwnerWord, RunRecord
from ..ownership.request import UNREAD_WORKFLOW, OwnedRequest
from ..procedures.verdicts import cancel_verdict
from ..settings import Settings
from .credentials import FACE
from .marks import PrefectMarks, marks_here
from .place import run_logger
from .run_records import PrefectRunStore

CANCEL_SECONDS = 14.0
"""Until an instance counts as not confirmed; with reading what had moved, all is over within 18 seconds."""
ASK_AGAIN_SECONDS = 30.0
"""A cancel that was not confirmed is tried anew only after this: until then its answer stands."""
EXCHANGE_SECONDS = 4.0


@dataclass(frozen=True)
class Target:
    """An instance to be cancelled.

    Attributes:
        settings: of the server.
        instance_id: the instance.
        run: what this process does with it, where it has begun that.
        record: what is on record of it, where that was read.
        waiter_is_here: what was interrupted is the wait for it, or its start: nobody else lets it pass a checkpoint.
    """

    settings: Settings
    instance_id: str
    run: OwnedRun | None = None
    record: RunRecord | None = None
    waiter_is_here: bool = False


def remedy_held(run_key: str | None) -> str:
    """How a user lets a run go on that is held at a checkpoint."""
    key = repr(run_key) if run_key is not None else "the key of the run"
    return (
        f"resume_run({key}) of orchestration_integrations.prefect takes the stop back: then the next attempt of its "
        "flow run, or a wait for it, lets the same run go on"
    )


def owned_by_record(
    hook: Any, store: PrefectRunStore, record: RunRecord, *, owner: Callable[[], OwnerWord] | None = None
) -> OwnedRun:
    """The run on a record, for whoever goes on with it on behalf of the attempt that has it. ``load`` it first."""
    wanted = OwnedRequest(
        workflow=record.workflow_id or UNREAD_WORKFLOW,
        run_key=record.key,
        attempt=record.attempt,
        facts=record.facts,
        remedy_held=remedy_held(record.key),
    )
    run: OwnedRun = hook.owning(wanted, store=store, owner=owner)
    return run


class _Cancelling:
    """One instance being cancelled."""

    def __init__(self, target: Target, limit: float, why: str) -> None:
        self.target = target
        self._why = why
        self._hold: str | None = None
        self._marks = marks_here()
        self.remedy = ""
        self.outcome: CancelOutcome | None = None
        self.error: Exception | None = None
        self.superseded = False
        self.begun_at = time.monotonic()
        settings = target.settings
        self._settings = settings.with_changes(timeout=min(settings.timeout, EXCHANGE_SECONDS), retry_budget=limit)
        self._limit = limit
        self.thread = threading.Thread(target=self._run, name=f"cancel-{target.instance_id}")
        self.thread.start()

    def _run(self) -> None:
        try:
            with OrchestrationHttpHook(self._settings, face=FACE, own_connections=True) as hook:
                self.outcome = self._stop(hook)
        except Exception as error:  # told by whoever waits for it
            self.error = error

    def _stop(self, hook: OrchestrationHttpHook) -> CancelOutcome | None:
        target = self.target
        hook.expect(target.instance_id)
        run = self._owned(hook)
        if self.superseded:
            return None
        if run is None or run.instance_id != target.instance_id:
            return hook.cancel(target.instance_id, timeout=self._limit)
        outcome = hook.perform(run.stop(self._limit, by=self._why, waiter_is_here=target.waiter_is_here))
        self.superseded = outcome is None
        if outcome is not None and outcome.status == "held":
            self.remedy = run.request.remedy_held
            self._hold = _hold_of(target)
        return outcome

    def _owned(self, hook: OrchestrationHttpHook) -> OwnedRun | None:
        """The work on the run, with its record as it is now; None where no record is known."""
        begun, known = self.target.run, self.target.record
        if begun is not None and begun.keeper.store is not None:
            run, attempt = hook.owning(begun.request, store=PrefectRunStore()), begun.request.attempt
            run.has_checkpoints = begun.has_checkpoints
        elif begun is not None:
            run = hook.owning(begun.request, mark_place=self._marks)
            run.take_over(begun)
            return run
        elif known is not None:
            run, attempt = owned_by_record(hook, PrefectRunStore(), known), known.attempt
        else:
            return None
        try:
            record = hook.perform(run.load())
        except Exception as error:
            run_logger().warning("run key %s: its record could not be read: %r", run.request.run_key, error)
            record = None
        if record is not None and record.instance_id == self.target.instance_id:
            self.superseded = record.attempt != attempt
        elif begun is not None:
            run.take_over(begun)
        return run

    def stands(self) -> bool:
        """Whether this answer serves whoever asks now. One call where it was held: the stop may be taken back."""
        if self.thread.is_alive():
            return True
        if self.outcome is not None and self.outcome.status == "held":
            return self._hold is not None and self._hold == _hold_of(self.target)
        if self.outcome is not None and self.outcome.status != "not_confirmed":
            return True
        return time.monotonic() - self.begun_at < ASK_AGAIN_SECONDS


_known: dict[tuple[str, str], _Cancelling] = {}
_lock = threading.Lock()


def _hold_of(target: Target) -> str | None:
    """The stop of an instance that stands now; None where there is none, or that cannot be found out."""
    try:
        return PrefectMarks().read(hold_name(target.instance_id))
    except Exception:
        return None


def _begin(targets: Sequence[Target], limit: float, why: str) -> list[_Cancelling]:
    begun = []
    with _lock:
        earlier = dict(_known)
    answered = [earlier.get((target.settings.base_url, target.instance_id)) for target in targets]
    over = [one for one in answered if one is not None and not one.stands()]
    with _lock:
        for target in targets:
            key = (target.settings.base_url, target.instance_id)
            one = _known.get(key)
            if one is None or one in over:
                one = _known[key] = _Cancelling(target, limit, why)
            if one not in begun:
                begun.append(one)
        for key in list(_known)[: max(0, len(_known) - 10_000)]:
            if not _known[key].thread.is_alive():
                del _known[key]
    return begun


def cancel_instances_now(
    targets: Sequence[Target],
    why: str,
    *,
    limit: float = CANCEL_SECONDS,
    logger: Any = None,
    success_is_bad: bool = False,
) -> dict[str, CancelOutcome | None]:
    """Cancel instances, all at once, and tell what became of each. Never raises but for a second interrupt.

    A first interrupt that comes meanwhile is raised after the end.

    Args:
        targets: the instances.
        why: for the log.
        limit: seconds until one counts as not confirmed.
        logger: where it is told; by default the logger of the run that calls.
        success_is_bad: a run that had succeeded is told as a warning, since its money was to come back.

    Returns:
        The outcome by id; None where cancelling failed altogether, or another attempt has the instance.
    """
    with held_back(lambda: run_logger().warning("%s: interrupted again, while the cancel goes on", why)) as held:
        outcomes = _waited_for(_begin(targets, limit, why), why, logger, success_is_bad)
    if held.raised is not None:
        raise held.raised
    return outcomes


def _waited_for(
    begun: Sequence[_Cancelling], why: str, logger: Any = None, success_is_bad: bool = False
) -> dict[str, CancelOutcome | None]:
    interrupt: BaseException | None = None
    for one in begun:
        while one.thread.is_alive():
            try:
                one.thread.join()
            except BaseException as error:
                if interrupt is not None:
                    raise
                interrupt = error
    _tell(begun, why, logger or run_logger(), success_is_bad)
    if interrupt is not None:
        raise interrupt
    return {one.target.instance_id: one.outcome for one in begun}


async def acancel_instances_now(
    targets: Sequence[Target], why: str, *, limit: float = CANCEL_SECONDS
) -> dict[str, CancelOutcome | None]:
    """As ``cancel_instances_now``, leaving the event loop free; blocking it where its task is cancelled again and
    again. A cancel scope of anyio, which does so, waits until the end."""
    begun = _begin(targets, limit, why)  # not in a thread: whatever interrupts this, the cancels have begun
    interrupts: list[asyncio.CancelledError] = []
    with anyio.CancelScope(shield=True):
        while len(interrupts) < 3 and any(one.thread.is_alive() for one in begun):
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError as error:
                interrupts.append(error)
    outcomes = _waited_for(begun, why)
    if interrupts:
        raise interrupts[0]
    return outcomes


def _tell(begun: Sequence[_Cancelling], why: str, logger: Any, success_is_bad: bool) -> None:
    for one in begun:
        if one.outcome is not None:
            level, text = _said(one.outcome, success_is_bad)
            if one.outcome.status == "held":
                text += f"; {one.remedy}"
        elif one.superseded:
            level, text = logging.WARNING, "another attempt has it now, so it was not cancelled"
        else:
            reason = summary(one.error) if isinstance(one.error, OrchestrationError) else repr(one.error)
            level, text = logging.ERROR, f"it could not be cancelled and may still run: {reason}"
        logger.log(level, "%s: instance %s: %s", why, one.target.instance_id, text)


def _said(outcome: CancelOutcome, success_is_bad: bool) -> tuple[int, str]:
    verdict = cancel_verdict(outcome)
    text = verdict.text
    moved = len(outcome.moved.transactions)
    if moved:
        text += f"; {moved} transaction{'s' if moved > 1 else ''} had been made"
    succeeded = outcome.instance is not None and outcome.instance.state == "succeeded"
    if outcome.status == "already_ended" and succeeded and success_is_bad:
        return logging.WARNING, f"{text}; its money was not rolled back"
    if outcome.status == "not_confirmed":
        return logging.ERROR, text
    if outcome.status == "held":
        return logging.WARNING, text  # no error: nothing of it moves; but it waits for somebody's word
    return (logging.INFO if verdict.sure else logging.WARNING), text

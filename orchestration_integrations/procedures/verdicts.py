"""What is known of a run once it was stopped or waited for: whether one may rely on it, in a word and in a sentence.

This is the one place that judges an outcome. The commands take their exit status from it, the page its colour, a log
line its level. Where a history could not be read, nobody knows whether a payment is under way, so nothing is ``sure``:
what was not read is never "none".
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ..api.errors import InstanceCancelledError, InstanceFailedError, InstanceStuckError, WaitTimeoutError
from ..api.models import CancelOutcome, Moved, RunResult
from .wording import MAY_HAVE_MOVED, UNREAD_PAYMENT, names_of

Means = Literal["well", "ended badly", "had succeeded", "runs on", "unsure"]
"""``well``: what was asked for is so. ``ended badly``: it failed or was cancelled, and no payment of it may still
arrive. ``had succeeded``: it was to be stopped, and had succeeded by itself. ``runs on``: it was seen to run until the
time was over. ``unsure``: it may move money, or what it has moved is not known."""


class Verdict(msgspec.Struct, frozen=True):
    """What an outcome means.

    Attributes:
        means: for whoever decides by it.
        word: for it: of an end ``succeeded``, ``failed``, ``cancelled``, ``timeout``, ``stuck`` or ``unknown``; of a
            cancel its status.
        text: a sentence for people. That of a cancel has the instance as its subject; that of an end is the message of
            its error, empty for a success.
    """

    means: Means
    word: str
    text: str

    @property
    def sure(self) -> bool:
        """Whether nothing of the run moves any more, and all that it has moved is known."""
        return self.means in ("well", "ended badly", "had succeeded")


def cancel_verdict(outcome: CancelOutcome, instance_id: str | None = None) -> Verdict:
    """What the outcome of a cancel means.

    Args:
        instance_id: of the instance that was to be cancelled: the outcome has none where the instance was not read.
    """
    return Verdict(means=_cancel_means(outcome), word=outcome.status, text=cancel_text(outcome, instance_id))


def _cancel_means(outcome: CancelOutcome) -> Means:
    if outcome.status == "never_started":
        return "well"
    succeeded = outcome.instance is not None and outcome.instance.state == "succeeded"
    if outcome.status == "not_confirmed" or outcome.in_flight:
        return "unsure"
    if outcome.status == "already_ended" and succeeded:
        return "had succeeded"
    if not outcome.moved.complete or outcome.instance is None:
        return "unsure"
    return "ended badly" if outcome.status == "already_ended" else "well"


def end_verdict(result: object) -> Verdict:
    """What a wait came to means.

    Args:
        result: a RunResult, or the error that the wait raised.
    """
    if isinstance(result, RunResult):
        return Verdict("well", "succeeded", "")
    text = str(result)
    if isinstance(result, InstanceFailedError | InstanceCancelledError):
        word = "failed" if isinstance(result, InstanceFailedError) else "cancelled"
        return Verdict("ended badly" if result.moved.complete else "unsure", word, text)
    if isinstance(result, InstanceStuckError):
        return Verdict("unsure", "stuck", text)
    if isinstance(result, WaitTimeoutError) and result.seen_running:
        return Verdict("runs on", "timeout", text)
    return Verdict("unsure", "unknown", text)  # also a time-out whose last look failed


BEING_STARTED = "the run was being started: a gated one is not released; an ungated one may have started"
"""What is true of a run whose start was interrupted before anybody knew its instance."""


def outcome_text(outcome: CancelOutcome | None, *, superseded: bool) -> str:
    """What a cancel came to; the subject is the instance.

    Args:
        outcome: None: this attempt does not have the run, so nothing was cancelled.
        superseded: another attempt has it; else an earlier one had.
    """
    if outcome is not None:
        return cancel_text(outcome)
    if superseded:
        return "another attempt has it now, so it was not cancelled"
    return (
        "an earlier attempt has started it, and this one had not taken it up: it was not cancelled, and may still run"
    )


def cancel_text(outcome: CancelOutcome, instance_id: str | None = None) -> str:
    """What a cancel came to; the subject is the instance. Where it was not read, ``instance_id`` is its id."""
    if outcome.status == "cancelled" and outcome.in_flight:
        return f"it was cancelled while {names_of(outcome.in_flight)} was under way: {MAY_HAVE_MOVED}"
    if outcome.status == "cancelled":
        return f"it was cancelled{_unread(outcome)}"
    if outcome.status == "held":
        more = "" if outcome.moved.complete else "; what it had moved before could not all be read"
        return f"it is held at the checkpoint before stage {outcome.checkpoint}: nothing of it moves any more{more}"
    if outcome.status == "never_started":
        return "it never started"
    if outcome.status == "already_ended":
        state = f" ({outcome.instance.state})" if outcome.instance is not None else ""
        more = "" if state == " (succeeded)" else _unread(outcome)
        return f"it had already ended by itself{state}{more}"
    unseen = (
        f"its cancel is not confirmed: the abort was answered with {outcome.abort_answer or 'nothing'}, and the "
        "instance was not seen to end"
    )
    if outcome.at_gate:
        return (
            f"{unseen}; it stands at its gate, was not released, and has moved nothing: it moves nothing unless its "
            "gate is opened, which a start with its run key does (orchestration-integrations run … --run-key KEY)"
        )
    at = "" if outcome.checkpoint is None else f" (it stood at the checkpoint before stage {outcome.checkpoint} then)"
    named = outcome.instance.id if outcome.instance is not None else instance_id
    return f"{unseen}{at}; it may still run and move money: {see_how_it_ends(named)}"


def made_by_then(told: Moved | None, outcome: CancelOutcome | None) -> str:
    """What a run had made by its end, where an error tells of less, since the deadline came amid it; else empty."""
    made = 0 if outcome is None else len(outcome.moved.transactions)
    if told is None or made <= len(told.transactions):
        return ""
    return f"; by then it had made {made} transaction{'' if made == 1 else 's'}"


def see_how_it_ends(instance_id: str | None) -> str:
    """What to do about a run that may still move money. It may wait for an event that never comes, and so would its
    waiter."""
    how = "the command `wait` tells" if instance_id is None else f"orchestration-integrations wait {instance_id}"
    return (
        f"see how it ends before you pay anew ({how}), with --timeout SECONDS where it waits for an event that may "
        "never come"
    )


def _unread(outcome: CancelOutcome) -> str:
    return "" if outcome.moved.complete else f"; {UNREAD_PAYMENT}: check the ledger"

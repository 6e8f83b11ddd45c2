"""What is said of outcomes, in one wording for errors and logs of every face."""

from __future__ import annotations

from collections.abc import Sequence

from ..api.models import CancelOutcome


def cancel_text(outcome: CancelOutcome) -> str:
    """What a cancel came to; the subject is the instance."""
    if outcome.status == "cancelled":
        if outcome.in_flight:
            names = ", ".join(sorted({activity.name for activity in outcome.in_flight}))
            return f"it was cancelled amid {names}: that money may have moved, check the ledger"
        return "it was cancelled"
    if outcome.status == "held":
        return "it is held at a checkpoint and moves nothing more"
    if outcome.status == "never_started":
        return "it never started"
    if outcome.status == "already_ended":
        state = f" ({outcome.instance.state})" if outcome.instance is not None else ""
        return f"it had already ended by itself{state}"
    return (
        f"its cancel is not confirmed: the abort was answered with {outcome.abort_answer or 'nothing'}, and the "
        "instance was not seen to end; it may still run and move money"
    )


def difference_text(differs: Sequence[str]) -> str:
    """What is not the same between two payments under one key."""
    named = [name for name in differs if name.startswith("variables.")]
    parts = []
    if "workflow" in differs:
        parts.append("the workflow differs")
    if named:
        parts.append(f"{', '.join(named)} differ{'s' if len(named) == 1 else ''}")
    if "content" in differs:
        parts.append("its variables differ")
    return " and ".join(parts) or "its content differs"

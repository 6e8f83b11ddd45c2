"""What ``reconcile`` reads and says: a run as it was seen, and a finding about what stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from ..api.models import Instance, StageRun
from ..procedures.gate import GateText, checkpoint_of, gate_of, has_opened

Word = Literal[
    "released",
    "ungated",
    "not_begun",
    "at_gate",
    "double",
    "key_in_several",
    "duplicate",
    "unreleased",
    "ambiguous",
    "waits",
    "held",
    "stopped",
    "stuck",
    "never_started",
    "unknown",
]
ATTENTION: tuple[Word, ...] = (
    "not_begun", "at_gate", "double", "key_in_several", "ambiguous", "waits", "held", "stopped", "stuck", "unknown",
    "unreleased",
)  # fmt: skip
"""Findings that somebody has to do something about."""


class Seen(msgspec.Struct, kw_only=True):
    """What was read of one run.

    Attributes:
        instance: its row.
        gate: what its gate says; None where it has none, or the engine does not show it.
        released: its gate was seen behind it.
        begun: the engine shows a stage of it.
        checkpoint: the user's number of the stage before which it stands; None where it stands at no checkpoint.
        failing: the last failure of a payment that is tried again, or what was under way when the run was cancelled;
            empty where none is.
        listens: the event that a stage of the user's waits for; empty where none does.
        trouble: what of it could not be read, and why; empty where all could.
        ghost: a row that is old and has no run behind it.
        forgotten: it has ended, and the engine keeps no history of it any more.
    """

    instance: Instance
    gate: GateText | None = None
    released: bool = False
    begun: bool = True
    checkpoint: int | None = None
    failing: str = ""
    listens: str = ""
    trouble: str = ""
    ghost: bool = False
    forgotten: bool = False

    @property
    def key(self) -> str | None:
        """Whose it is, as its gate says; None where that tells nothing."""
        return self.gate.key if self.gate is not None and self.gate.is_ours else None

    @property
    def waits_at_gate(self) -> bool:
        """Whether it stands unreleased, and may be released."""
        return self.key is not None and not self.released and not self.instance.terminated

    @property
    def payment(self) -> tuple[str, str]:
        """What it pays: two runs of one key and round are the same payment only where this is the same."""
        return self.instance.workflow_id, self.gate.text if self.gate is not None else ""


class Finding(msgspec.Struct, kw_only=True):
    """One thing that stands.

    Attributes:
        finding: a word for it.
        run_key: whose; None where that is not known.
        round: the number of the run among those of its key; None where that is not known.
        instances: the runs that it is about.
        workflow_id: of the run, where it is about those of one workflow.
        state: of the run, where it is one.
        other: the run that has the key, where this one is its duplicate.
        reason: what was seen.
        advice: what to do about it; empty where nothing is to be done.
    """

    finding: Word
    run_key: str | None
    round: int | None
    instances: Sequence[str]
    workflow_id: str | None = None
    state: str | None = None
    other: str | None = None
    reason: str = ""
    advice: str = ""


def seen_of(
    instance: Instance, history: Sequence[StageRun], failing: str = "", trouble: str = "", *, gated: bool = True
) -> Seen:
    """What a run's row and history say.

    Args:
        gated: its workflow begins with a gate. Without one a first stage that waits is the user's, whatever it waits
            for.
    """
    seen = Seen(instance=instance, failing=failing, trouble=trouble, begun=bool(history))
    if gated:
        seen.gate, seen.released = gate_of(history), has_opened(history)
    if not history or instance.terminated:
        return seen
    seen.checkpoint = checkpoint_of(history)
    last = history[-1]
    listens = last.name == "RunWaitEvent" and not last.terminated and (seen.gate is None or len(history) > 1)
    if listens and seen.checkpoint is None:
        seen.listens = str(last.input.get("event") or "")
    return seen


def double(key: str | None, number: int | None, released: Sequence[str], workflow_id: str | None) -> Finding:
    """Runs of one payment that were all released."""
    return Finding(
        finding="double",
        run_key=key,
        round=number,
        instances=released,
        workflow_id=workflow_id,
        reason=f"{len(released)} runs of this key were released: it may have been paid more than once",
        advice="check the ledger for the transactions of each: instances show ID",
    )

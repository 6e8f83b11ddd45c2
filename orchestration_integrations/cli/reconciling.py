"""What the runs of a workflow and the records of run keys say together: one finding for each thing that stands.

Nothing here reads: it judges what was read. A run is called ``released`` only where the engine shows its gate behind
it, and ``duplicate`` only where another run of the same key and round is released or is the one on record: a run that
nobody has chosen yet may be the payment itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from shlex import quote
from typing import Literal

import msgspec

from ..api.models import Instance, StageRun
from ..ownership.record import RunRecord
from ..procedures.gate import GateText, parsed_checkpoint, parsed_event

Word = Literal[
    "released", "double", "duplicate", "unreleased", "ambiguous", "waits", "held", "stuck", "never_started", "unknown"
]
ATTENTION: tuple[Word, ...] = ("double", "ambiguous", "waits", "held", "stuck", "unknown", "unreleased")
"""Findings that somebody has to do something about."""


class Seen(msgspec.Struct, kw_only=True):
    """What was read of one run.

    Attributes:
        instance: its row.
        gate: what its gate says; None where it has none, or the engine does not show it.
        released: its gate is behind it.
        checkpoint: the user's number of the stage before which it stands; None where it stands at no checkpoint.
        failing: the last failure of a payment that is tried again, or what was under way when the run was cancelled;
            empty where none is.
        listens: the event that a stage of the user's waits for; empty where none does.
        trouble: why its history could not be read; empty where it could.
        ghost: a row that is old and has no run behind it.
    """

    instance: Instance
    gate: GateText | None = None
    released: bool = False
    checkpoint: int | None = None
    failing: str = ""
    listens: str = ""
    trouble: str = ""
    ghost: bool = False

    @property
    def waits_at_gate(self) -> bool:
        """Whether it stands unreleased, and may be released."""
        return self.gate is not None and not self.released and not self.instance.terminated


class Finding(msgspec.Struct, kw_only=True):
    """One thing that stands.

    Attributes:
        finding: a word for it.
        run_key: whose; None where that is not known.
        round: the number of the run among those of its key; None where that is not known.
        instances: the runs that it is about.
        state: of the run, where it is one.
        reason: what was seen.
        advice: what to do about it; empty where nothing is to be done.
    """

    finding: Word
    run_key: str | None
    round: int | None
    instances: Sequence[str]
    state: str | None = None
    reason: str = ""
    advice: str = ""


def seen_of(instance: Instance, history: Sequence[StageRun], failing: str) -> Seen:
    """What a run's row and history say."""
    seen = Seen(instance=instance, failing=failing)
    if not history:
        return seen
    first, last = history[0], history[-1]
    seen.gate = parsed_event(first.input.get("event")) if first.name == "RunWaitEvent" else None
    seen.released = seen.gate is not None and first.terminated and first.error is None
    if last.name == "RunWaitEvent" and not last.terminated and not instance.terminated and len(history) > 1:
        at = parsed_checkpoint(last.input.get("event"))
        if at is not None and at[0] == seen.gate:
            seen.checkpoint = at[1]
        else:
            seen.listens = str(last.input.get("event") or "")
    return seen


def findings_of(runs: Iterable[Seen], records: Iterable[RunRecord], prefix: str, store: str | None) -> list[Finding]:
    """All findings, sorted by key and round.

    Args:
        runs: of the workflows that are looked at.
        records: of the keys whose runs these may be.
        prefix: only keys that begin so; runs whose key is not known count where it is empty.
        store: the file of the records, for advice; None where there is none.
    """
    by_key: dict[tuple[str, int], list[Seen]] = {}
    on_record = {one.key: one for one in records if one.key.startswith(prefix)}
    keyless = []
    owners = {one.instance_id: one for one in on_record.values() if one.instance_id is not None}
    for run in runs:
        owner = owners.get(run.instance.id)
        if run.gate is not None and run.gate.key.startswith(prefix):
            by_key.setdefault((run.gate.key, run.gate.round), []).append(run)
        elif run.gate is None and owner is not None:
            by_key.setdefault((owner.key, owner.round), []).append(run)
        elif run.gate is None and not prefix:
            keyless.append(run)
    judge = _Judge(store)
    found = [
        finding
        for (key, number), group in sorted(by_key.items())
        for finding in judge.of_round(key, number, group, on_record.get(key))
    ]
    shown = {run.instance.id for group in by_key.values() for run in group}
    found += judge.of_records([one for one in on_record.values() if one.instance_id not in shown], set(by_key))
    found += [judge.of_keyless(run) for run in keyless]
    return found


class _Judge:
    def __init__(self, store: str | None) -> None:
        self._store = store or "FILE"

    def of_round(self, key: str, number: int, group: list[Seen], record: RunRecord | None) -> list[Finding]:
        """The findings of the runs of one key and round."""
        record = record if record is not None and record.round == number else None
        chosen = record.instance_id if record is not None else None
        gone = [run for run in group if run.released or run.gate is None]
        waiting = [run for run in group if run.waits_at_gate]
        found = [self._of_released(key, number, run, record) for run in gone]
        released = [run.instance.id for run in gone if run.released]
        if len(released) > 1:
            found.append(
                Finding(
                    finding="double",
                    run_key=key,
                    round=number,
                    instances=released,
                    reason=f"{len(released)} runs of this key were released: it may have been paid more than once",
                    advice="check the ledger for the transactions of each: instances show ID",
                )
            )
        settled = chosen is not None or len(released) > 0
        for run in waiting:
            if settled and run.instance.id != chosen:
                found.append(self._duplicate(key, number, run, released[0] if released else str(chosen)))
            elif run.instance.id == chosen:
                found.append(self._unreleased(key, number, run, "it is the one on record, and was not released"))
        if not settled and len(waiting) == 1:
            found.append(self._unreleased(key, number, waiting[0], "no record says that anybody has chosen it"))
        elif not settled and waiting:
            found.append(self._several(key, number, waiting))
        return found

    def _duplicate(self, key: str, number: int, run: Seen, other: str) -> Finding:
        return Finding(
            finding="duplicate",
            run_key=key,
            round=number,
            instances=(run.instance.id,),
            state=run.instance.state,
            reason=f"it stands at its gate and moves nothing; the run of this key is {other}",
            advice="leave it, or abort it: --abort-duplicates",
        )

    def _unreleased(self, key: str, number: int, run: Seen, why: str) -> Finding:
        return Finding(
            finding="unreleased",
            run_key=key,
            round=number,
            instances=(run.instance.id,),
            state=run.instance.state,
            reason=f"it stands at its gate and moves nothing; {why}",
            advice=f"start again with this key, which releases it; or, if nobody wants it: cancel {run.instance.id}",
        )

    def _several(self, key: str, number: int, waiting: list[Seen]) -> Finding:
        return Finding(
            finding="ambiguous",
            run_key=key,
            round=number,
            instances=[run.instance.id for run in waiting],
            reason=f"{len(waiting)} runs of this key stand at their gates, none is on record, and nothing has moved",
            advice="start again with this key: it says AmbiguousRunError, or chooses one. Else cancel all but one",
        )

    def _of_released(self, key: str, number: int, run: Seen, record: RunRecord | None) -> Finding:
        found = Finding(
            finding="released",
            run_key=key,
            round=number,
            instances=(run.instance.id,),
            state=run.instance.state,
            reason=run.instance.failure or "",
        )
        if run.trouble:
            found.finding, found.reason = "unknown", run.trouble
            found.advice = f"look again later: instances show {run.instance.id}"
        elif run.ghost:
            found.finding, found.reason = "never_started", "it has a row and no run behind it; nothing has moved"
        elif run.instance.terminated:
            if run.failing:
                found.finding, found.reason = "ambiguous", f"it was cancelled; {run.failing}"
                found.advice = "check the ledger; only then settle the key: runs settle KEY"
        elif run.failing:
            found.finding, found.reason = "stuck", run.failing
            found.advice = f"mend the cause: the payment goes through then; or: cancel {run.instance.id}"
        elif run.checkpoint is not None:
            self._at_checkpoint(found, run, record)
        elif run.listens:
            found.reason = f"it waits for event {run.listens!r}"
            found.advice = f"events send {run.instance.id} {quote(run.listens)}"
        return found

    def _at_checkpoint(self, found: Finding, run: Seen, record: RunRecord | None) -> None:
        where = f"it stands at the checkpoint before stage {run.checkpoint}"
        if record is not None and record.hold:
            by = f" by {record.held_by}" if record.held_by else ""
            found.finding, found.reason = "held", f"{where}; a stop was asked for{by}"
            resume = f"runs resume {quote(found.run_key or '')} --store {quote(self._store)}"
            found.advice = f"to let it go on: {resume}, then start again with this key; else: cancel {run.instance.id}"
        else:
            found.finding, found.reason = "waits", f"{where}; no stop is on record"
            found.advice = "start again with this key: whoever waits for it lets it pass"

    def of_records(self, records: Sequence[RunRecord], seen: set[tuple[str, int]]) -> list[Finding]:
        """The findings of records whose instance was not seen among the runs."""
        found = []
        for record in sorted(records, key=lambda one: one.key):
            about: tuple[str, ...] = () if record.instance_id is None else (record.instance_id,)
            if record.end is not None or record.settled:
                continue  # over, and older than what was looked at
            if record.instance_id is None and (record.key, record.round) in seen:
                continue  # what was seen of the key says more
            what = (
                "a run may have been submitted, and the server shows none"
                if record.instance_id is None
                else "its instance was not among the runs that were looked at"
            )
            found.append(
                Finding(
                    finding="ambiguous" if record.instance_id is None else "unknown",
                    run_key=record.key,
                    round=record.round,
                    instances=about,
                    reason=f"on record as {record.state} since {record.since.isoformat(timespec='seconds')}: {what}",
                    advice="start again with this key: it goes on, or says AmbiguousRunError with what may be it"
                    if not about
                    else f"instances show {about[0]}, then start again with this key",
                )
            )
        return found

    def of_keyless(self, run: Seen) -> Finding:
        """The finding of a run whose key nothing tells."""
        found = self._of_released("", 0, run, None)
        found.run_key, found.round = None, None
        return found

"""What the runs of workflows and the records of run keys say together: one finding for each thing that stands.

Nothing here reads: it judges what was read. A run is called ``released`` only where the engine shows its gate behind
it, and ``duplicate`` only where another run of the same key and round, of the same workflow and the same content, is
released or is the one on record: a run that nobody has chosen yet may be the payment itself, and a run of other content
is another payment. What could not be read may be anybody's, so it is a finding whatever one asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from shlex import quote
from typing import Literal

import msgspec

from ..api.models import Instance, StageRun
from ..ownership.record import RunRecord
from ..procedures.gate import GateText, checkpoint_of, gate_of, has_opened, is_own_event

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
    "stuck",
    "never_started",
    "unknown",
]
ATTENTION: tuple[Word, ...] = (
    "not_begun", "at_gate", "double", "key_in_several", "ambiguous", "waits", "held", "stuck", "unknown", "unreleased"
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


class Wanted(msgspec.Struct, frozen=True):
    """Which run keys were asked for: one, those that begin with a text, or all."""

    key: str | None = None
    prefix: str = ""

    @property
    def is_all(self) -> bool:
        """Whether runs that have no key count too."""
        return self.key is None and not self.prefix

    def has(self, key: str) -> bool:
        """Whether this key was asked for."""
        return key == self.key if self.key is not None else key.startswith(self.prefix)


def findings_of(
    runs: Iterable[Seen],
    records: Iterable[RunRecord],
    wanted: Wanted,
    store: str | None,
    unreadable: Mapping[str, object] | None = None,
) -> list[Finding]:
    """All findings, sorted by key and round.

    A run whose key could not be read counts whatever is wanted: it may be the run of any key.

    Args:
        runs: of the workflows that are looked at.
        records: of the keys whose runs these may be.
        wanted: which keys. Runs that surely have none count where all are wanted.
        store: the file of the records, for advice; None where there is none.
        unreadable: why records cannot be read, by key.
    """
    by_key: dict[tuple[str, int], list[Seen]] = {}
    known = {one.key: one for one in records}
    owners = {one.instance_id: one for one in known.values() if one.instance_id is not None}
    keyless: list[Seen] = []
    for run in runs:
        owner = owners.get(run.instance.id)
        if run.forgotten and owner is not None and owner.end is not None:
            continue  # over, and its end is on record
        key, number = (run.key, run.gate.round if run.gate is not None else 0)
        if key is None and owner is not None:
            key, number = owner.key, owner.round
        if key is None and run.gate is not None:
            if run.gate.key and not wanted.is_all and not wanted.has(run.gate.key):
                continue  # a gate of another hand, whose text is no such key
            keyless.append(run)
        elif key is None:
            if wanted.is_all or _may_have_a_key(run):
                keyless.append(run)
        elif wanted.has(key):
            by_key.setdefault((key, number), []).append(run)
    on_record = {key: one for key, one in known.items() if wanted.has(key)}
    judge = _Judge(store)
    found = [
        finding
        for (key, number), group in sorted(by_key.items(), key=lambda one: one[0])
        for finding in judge.of_round(key, number, group, on_record.get(key))
    ]
    shown = {run.instance.id for group in by_key.values() for run in group}
    found += judge.of_records([one for one in on_record.values() if one.instance_id not in shown], set(by_key))
    found += [judge.of_unreadable(key, why) for key, why in (unreadable or {}).items() if wanted.has(key)]
    found += [judge.of_keyless(run) for run in keyless]
    return found


def _may_have_a_key(run: Seen) -> bool:
    return bool(run.trouble) or (not run.begun and not run.instance.terminated and not run.ghost)


class _Judge:
    def __init__(self, store: str | None) -> None:
        self._store = store or "FILE"

    def of_round(self, key: str, number: int, group: list[Seen], record: RunRecord | None) -> list[Finding]:
        """The findings of the runs of one key and round."""
        record = record if record is not None and record.round == number else None
        found = [self._of_run(key, number, run, record) for run in group if not run.waits_at_gate]
        payments: dict[tuple[str, str], list[Seen]] = {}
        for run in group:
            if run.released or run.waits_at_gate:
                payments.setdefault(run.payment, []).append(run)
        several = len(payments) > 1
        for payment, runs in payments.items():
            found += self._of_payment(key, number, payment, runs, record, several)
        if several:
            found.append(self._key_in_several(key, number, [run for runs in payments.values() for run in runs]))
        return found

    def _of_payment(
        self, key: str, number: int, payment: tuple[str, str], runs: list[Seen], record: RunRecord | None, several: bool
    ) -> list[Finding]:
        """The findings of the runs of one key, round, workflow and content: they would all pay the same."""
        ids = [run.instance.id for run in runs]
        chosen = record.instance_id if record is not None else None
        if record is None or (chosen not in ids and (record.workflow_id, record.gate) != payment):
            chosen = None
        released = [run.instance.id for run in runs if run.released]
        waiting = [run for run in runs if run.waits_at_gate]
        found = []
        if len(released) > 1:
            found.append(double(key, number, released, runs[0].instance.workflow_id))
        settled = chosen is not None or len(released) > 0
        for run in waiting:
            if settled and run.instance.id != chosen:
                found.append(self._duplicate(key, number, run, released[0] if released else str(chosen)))
            elif run.instance.id == chosen:
                found.append(self._unreleased(key, number, run, "it is the one on record, and was not released"))
        if not settled and len(waiting) == 1:
            why = "no record says that anybody has chosen it"
            found.append(self._unreleased(key, number, waiting[0], why, several=several))
        elif not settled and waiting:
            found.append(self._several(key, number, waiting))
        return found

    def _key_in_several(self, key: str, number: int, runs: list[Seen]) -> Finding:
        workflows = {run.instance.workflow_id for run in runs}
        what = f"{len(workflows)} workflows" if len(workflows) > 1 else "one workflow with different contents"
        released = sum(run.released for run in runs)
        return Finding(
            finding="key_in_several",
            run_key=key,
            round=number,
            instances=[run.instance.id for run in runs],
            reason=f"{len(runs)} runs of this key are of {what}, and {released} of them were released: they are no "
            "duplicates of each other, and may be one payment that was made in two ways",
            advice="look at each: instances show ID. If they are one payment: check the ledger, and cancel those that "
            "nobody wants. If they are not: give each payment a key of its own",
        )

    def _duplicate(self, key: str, number: int, run: Seen, other: str) -> Finding:
        return Finding(
            finding="duplicate",
            run_key=key,
            round=number,
            instances=(run.instance.id,),
            workflow_id=run.instance.workflow_id,
            state=run.instance.state,
            other=other,
            reason=f"it stands at its gate and moves nothing; the run of this key is {other}",
            advice="leave it, or abort it: --abort-duplicates",
        )

    def _unreleased(self, key: str, number: int, run: Seen, why: str, *, several: bool = False) -> Finding:
        again = "start again with this key, which releases it"
        if several:
            again = "start again with this key and the content of this run, which releases it"
        return Finding(
            finding="unreleased",
            run_key=key,
            round=number,
            instances=(run.instance.id,),
            workflow_id=run.instance.workflow_id,
            state=run.instance.state,
            reason=f"it stands at its gate and moves nothing; {why}",
            advice=f"{again}; or, if nobody wants it: cancel {run.instance.id}",
        )

    def _several(self, key: str, number: int, waiting: list[Seen]) -> Finding:
        return Finding(
            finding="ambiguous",
            run_key=key,
            round=number,
            instances=[run.instance.id for run in waiting],
            workflow_id=waiting[0].instance.workflow_id,
            reason=f"{len(waiting)} runs of this key stand at their gates, none is on record, and nothing has moved",
            advice="start again with this key: it says AmbiguousRunError, or chooses one. Else cancel all but one",
        )

    def _of_run(self, key: str | None, number: int | None, run: Seen, record: RunRecord | None) -> Finding:
        """The finding of a run that is not one of those that wait for a release by its key."""
        found = Finding(
            finding="released" if run.released else "ungated",
            run_key=key,
            round=number,
            instances=(run.instance.id,),
            workflow_id=run.instance.workflow_id,
            state=run.instance.state,
            reason=run.instance.failure or "",
        )
        if run.trouble:
            found.finding, found.reason = "unknown", run.trouble
            found.advice = f"look again later: instances show {run.instance.id}"
        elif run.ghost:
            found.finding, found.reason = "never_started", "it has a row and no run behind it; nothing has moved"
        elif run.instance.terminated and not run.released and (run.gate is not None or not run.begun):
            if run.instance.state != "succeeded":  # else it is of a workflow without stages
                found.finding, found.reason = "never_started", "it ended before anything of it began; nothing has moved"
        elif not run.begun:
            found.finding, found.reason = "not_begun", "no stage of it has begun, so nothing has moved"
            found.advice = "look again in a moment: only then one sees whose it is"
        elif run.gate is not None and not run.released:
            self._before_its_gate(found, run)
        elif run.instance.terminated:
            if run.failing:
                found.finding, found.reason = "ambiguous", f"it was cancelled; {run.failing}"
                found.advice = "check the ledger; only then settle the key: runs settle KEY"
        elif run.failing:
            found.finding, found.reason = "stuck", run.failing
            found.advice = f"mend the cause: the payment goes through then; or: cancel {run.instance.id}"
        elif run.checkpoint is not None:
            self._at_checkpoint(found, run, record)
        elif run.listens and not is_own_event(run.listens):
            found.reason = f"it waits for event {run.listens!r}"
            found.advice = f"events send {run.instance.id} {quote(run.listens)}"
        return found

    def _before_its_gate(self, found: Finding, run: Seen) -> None:
        """A run that stands at its gate, and will not be released by a key."""
        named = repr(run.gate.key) if run.gate is not None and run.gate.key else "nothing"
        found.finding = "at_gate"
        found.reason = f"it stands at its gate and moves nothing; its gate says {named}, which names no run of a key"
        cancel = f"cancel {run.instance.id}"
        found.advice = f"nothing will release it: start the payment by run, start or run_once, and: {cancel}"

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

    def of_unreadable(self, key: str, why: object) -> Finding:
        """The finding of a record that cannot be read."""
        advice = "find out how that run ended, then remove the record"
        return Finding(finding="unknown", run_key=key, round=None, instances=(), reason=str(why), advice=advice)

    def of_keyless(self, run: Seen) -> Finding:
        """The finding of a run whose key nothing tells."""
        return self._of_run(None, None, run, None)


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

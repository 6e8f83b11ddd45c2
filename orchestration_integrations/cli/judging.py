"""What is to be said of each run and of each record: the word, what was seen, and what to do about it.

An advice never contradicts the record: what a stop holds is not let go on, and of a settled key nothing is resumed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from shlex import quote

from ..api.instants import UNKNOWN_INSTANT
from ..ownership.record import RunRecord
from ..ownership.request import settle_token
from ..procedures.gate import is_own_event
from ..procedures.start import CLOCK_SKEW
from .findings import Finding, Seen, double

MOST_SHOWN = 5
"""Candidates for which an advice spells a command out; the finding names all."""

_NO_STOP = "; no stop is on record"
Owners = Mapping[str, tuple[str, int]]
"""Whose run each instance is that a store has ever bound to a key: the key and the round."""


def is_lost_submit(record: RunRecord) -> bool:
    """Whether a run without a gate may have been submitted of which no answer is known: its key shows nowhere."""
    return record.state == "intended" and record.instance_id is None and not record.gate and not record.settled


def _on_record(record: RunRecord) -> str:
    """What is on record, and when that was. A doubt has no such moment: it looks back to what was before the record."""
    since = record.since.isoformat(timespec="seconds")
    if record.doubt:
        return f"on record without a submit; it looks back to {since}"
    return f"on record as {record.state} since {since}"


class Judge:
    """Judges the runs and the records that were read together."""

    def __init__(
        self,
        store: str | None,
        runs: Sequence[Seen],
        looked_at: Collection[str] | None,
        owners: Owners,
        behind: timedelta,
    ) -> None:
        self._behind = behind
        self._store = quote(store) if store is not None else "FILE"
        self._runs = runs
        self._looked_at = looked_at
        self._owners = owners
        self._released = {(run.gate.key, run.gate.round) for run in runs if run.released and run.gate is not None}

    def _of_key(self, command: str, key: str | None, *more: str) -> str:
        """A command about the record of a key."""
        return " ".join(["runs", command, quote(key or ""), *more, "--store", self._store])

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
                made = self._unreleased(key, number, run, "it is the one on record, and was not released")
                self._heed_record(made, run, record)
                found.append(made)
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
        if any(one == key and turn < number for one, turn in self._released):
            again = (
                "start again with this key: with the record that chose it, that releases it, or goes on with a run "
                "that was released meanwhile; without that record it says AmbiguousRunError"
            )
        elif several:
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
                found.advice = "check the ledger"
                if record is not None and not record.settled:
                    found.advice += f"; only then settle the key: {self._of_key('settle', found.run_key)}"
        elif run.failing:
            found.finding, found.reason = "stuck", run.failing
            found.advice = f"mend the cause: the payment goes through then; or: cancel {run.instance.id}"
        elif run.checkpoint is not None:
            found.finding = "waits"
            found.reason = f"it stands at the checkpoint before stage {run.checkpoint}{_NO_STOP}"
            found.advice = "start again with this key: whoever waits for it lets it pass"
        elif run.listens and not is_own_event(run.listens):
            found.reason = f"it waits for event {run.listens!r}"
            send = f"events send {run.instance.id} {quote(run.listens)}"
            found.advice = f"nothing, unless it is yours to decide: whoever decides it sends the event ({send})"
        self._heed_record(found, run, record)
        return found

    def _heed_record(self, found: Finding, run: Seen, record: RunRecord | None) -> None:
        """Have the advice about a run that may go on agree with what is on record of it: a stop, a settled key."""
        over = run.instance.terminated or run.trouble or run.ghost
        if record is None or record.instance_id != run.instance.id or over:
            return
        cancel = f"cancel --run-key {quote(record.key)} --store {self._store}"
        if record.settled:
            found.advice = f"to stop it: {cancel}"
            found.reason = "; ".join(
                filter(None, [found.reason, "its key is settled: the next start is another run, and cancels this one"])
            )
        elif record.hold:
            by = f" by {record.held_by}" if record.held_by else ""
            found.reason = f"{found.reason.removesuffix(_NO_STOP)}; a stop was asked for{by}".removeprefix("; ")
            go_on = f"to let it go on: {self._of_key('resume', found.run_key)}, then start again with this key"
            if run.waits_at_gate:
                found.advice = f"{cancel}; a start with this key releases it all the same"
            elif run.failing:
                found.reason += ", and it goes on trying"
                found.advice = f"the payment goes through once its cause is mended, stop or not: {cancel}"
            elif run.checkpoint is not None:
                anew = f"to have all of it paid anew by the next start: {self._of_key('settle', found.run_key)}"
                found.finding = "held"
                found.advice = f"{go_on}; else: nothing, since it moves nothing as it stands; {anew}"
            else:
                found.finding = "stopped"
                found.reason += ", and it has not ended: it may still move money"
                limit = " --timeout 60" if run.listens else ""  # what it waits for may never come
                found.advice = f"{cancel}; or see how it ends: wait {run.instance.id}{limit}; {go_on}"

    def _before_its_gate(self, found: Finding, run: Seen) -> None:
        """A run that stands at its gate, and will not be released by a key."""
        says = "names no run: it was started without a key, by a trigger or by hand"
        if run.gate is not None and run.gate.key:
            says = f"says {run.gate.key!r}, which names no run of a key"
        found.finding = "at_gate"
        found.reason = f"it stands at its gate and moves nothing; its gate {says}"
        cancel = f"cancel {run.instance.id}"
        found.advice = f"nothing will release it: start the payment by run, start or run_once, and: {cancel}"

    def of_records(self, records: Sequence[RunRecord], seen: set[tuple[str, int]]) -> list[Finding]:
        """The findings of records whose instance was not seen among the runs."""
        found = []
        for record in sorted(records, key=lambda one: one.key):
            about: tuple[str, ...] = () if record.instance_id is None else (record.instance_id,)
            if record.end is not None or record.settled:
                continue  # over, and older than what was looked at
            if record.instance_id is None and (record.key, record.round) in seen:
                continue  # what was seen of the key says more
            made = Finding(
                finding="ambiguous" if record.instance_id is None else "unknown",
                run_key=record.key,
                round=record.round,
                instances=about,
                workflow_id=record.workflow_id or None,
                reason="its instance was not among the runs that were looked at",
                advice=f"instances show {about[0]}, then start again with this key" if about else "",
            )
            if is_lost_submit(record):
                self._lost_submit(made, record)
            elif record.instance_id is None:
                made.reason = "a run may have been submitted, and none of its key was seen"
                made.advice = "start again with this key: it goes on, or says AmbiguousRunError with what may be it"
            if self._is_hidden(record):
                made.reason += f"; workflow {record.workflow_id} was deleted or is unknown: the server hides its runs"
            made.reason = f"{_on_record(record)}: {made.reason}"
            found.append(made)
        return found

    def _is_hidden(self, record: RunRecord) -> bool:
        return self._looked_at is not None and bool(record.workflow_id) and record.workflow_id not in self._looked_at

    def _lost_submit(self, found: Finding, record: RunRecord) -> None:
        """A submit without a gate: any run of its workflow since then may be it, unless the store names its owner."""
        token = settle_token(record)
        found.instances = candidates = self._candidates(record)
        submitted = "an earlier attempt may have submitted a run" if record.doubt else "a run may have been submitted"
        look = "look into the ledger"
        if self._is_hidden(record):
            found.reason = f"{submitted}, which shows no key"
        elif not candidates:
            found.reason = f"{submitted}, which shows no key; no run of its workflow since then may be it"
        else:
            named = f"{len(candidates)} runs" if len(candidates) > 1 else "one run"
            found.reason = (
                f"{submitted}, which shows no key; {named} of its workflow, created since then, may be it: no record "
                "says whose that is"
            )
            look = "; ".join([*(f"instances show {one}" for one in candidates[:MOST_SHOWN]), look])
            which = candidates[0] if len(candidates) == 1 else "INSTANCE"
            adopt = self._of_key("adopt", record.key, which, "--settled", token)
            look += f". If one of them is this payment, say which: {adopt}"
        found.advice = (
            f"{look}. Only if none is and the ledger shows no payment: run again with this key and --settled {token}"
        )

    def _candidates(self, record: RunRecord) -> list[str]:
        """Runs that may be the one whose answer was lost, the oldest first."""
        chosen = [name for name, owner in self._owners.items() if owner == (record.key, record.round)]
        if chosen:
            return chosen  # its caller was about to put it on record
        earliest = record.since - CLOCK_SKEW - self._behind
        rows = [
            run.instance
            for run in self._runs
            if run.instance.workflow_id == record.workflow_id
            and run.instance.id not in self._owners
            and run.key is None
            and not run.ghost
            and (run.instance.created_at >= earliest or run.instance.created_at == UNKNOWN_INSTANT)
        ]
        return [row.id for row in sorted(rows, key=lambda row: (row.created_at, row.id))]

    def of_unreadable(self, key: str, why: object) -> Finding:
        """The finding of a record that cannot be read."""
        advice = f"find out how that run ended; only then: {self._of_key('forget', key, '--unreadable')}"
        return Finding(finding="unknown", run_key=key, round=None, instances=(), reason=str(why), advice=advice)

    def of_keyless(self, run: Seen) -> Finding:
        """The finding of a run whose key nothing tells."""
        return self._of_run(None, None, run, None)

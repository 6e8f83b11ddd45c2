"""What the runs of workflows and the records of run keys say together: one finding for each thing that stands.

Nothing here reads: it judges what was read. A run is called ``released`` only where the engine shows its gate behind
it, and ``duplicate`` only where another run of the same key and round, of the same workflow and the same content, is
released or is the one on record: a run that nobody has chosen yet may be the payment itself, and a run of other content
is another payment. What could not be read may be anybody's, so it is a finding whatever one asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta

import msgspec

from ..ownership.record import RunRecord
from .findings import Finding, Seen
from .judging import Judge, Owners


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


NOT_BEHIND = timedelta(0)


def findings_of(
    runs: Iterable[Seen],
    records: Iterable[RunRecord],
    wanted: Wanted,
    store: str | None,
    unreadable: Mapping[str, object] | None = None,
    *,
    looked_at: Collection[str] | None = None,
    owners: Owners | None = None,
    behind: timedelta = NOT_BEHIND,
) -> list[Finding]:
    """All findings, sorted by key and round.

    A run whose key could not be read counts whatever is wanted: it may be the run of any key.

    Args:
        runs: of the workflows that are looked at.
        records: of the keys whose runs these may be.
        wanted: which keys. Runs that surely have none count where all are wanted.
        store: the file of the records, for advice; None where there is none.
        unreadable: why records cannot be read, by key.
        looked_at: ids of the workflows that were looked at; None: those of all records.
        owners: the runs that the store has bound to keys.
        behind: by so much the server's clock is behind ours.
    """
    runs = list(runs)
    by_key: dict[tuple[str, int], list[Seen]] = {}
    known = {one.key: one for one in records}
    on_records = {one.instance_id: one for one in known.values() if one.instance_id is not None}
    keyless: list[Seen] = []
    for run in runs:
        owner = on_records.get(run.instance.id)
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
    taken = {**{name: (one.key, one.round) for name, one in on_records.items()}, **(owners or {})}
    judge = Judge(store, runs, looked_at, taken, behind)
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

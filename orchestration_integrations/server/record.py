"""What really happened on the server: the judge of tests, not a part of the imitated API."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

_KINDS = {
    "started": "run_started",
    "events": "event_heard",
    "money": "money_moved",
    "payouts": "payout_requested",
    "aborts": "run_aborted",
    "ended": "run_ended",
}
"""What each entry is called among all of them. `released` is left out: `events` tell the same."""


@dataclass(slots=True)
class Record:
    """Everything that happened since the server's start, in order; with a database, since the start of the first server
    on it.

    Instants (`at`) are in seconds since 1970, on the server's clock. Each entry is a plain dict with JSON values:

    - `started`: runs that really started (a ghost isn't one): `instance_id`, `workflow_id`, `variables`, `at`.
    - `released`: a `wait_event` that an event ended: `instance_id`, `stage`, `event`, `at`.
    - `money`: a posting that took effect: `instance_id`, `stage`, `ledger`, `posting` (source, destination, amount,
      asset), `attempt`, `at`.
    - `payouts`: a transfer or payout that a provider was asked for: `instance_id`, `stage`, `payout` (provider,
      connector, type, source, destination, amount, asset, reference, status), `attempt`, `at`.
    - `events`: an event that a stage took from its queue: `instance_id`, `stage`, `event`, `released`, `at`.
    - `ended`: runs that ended: `instance_id`, `workflow_id`, `error` (None: succeeded), `at`.
    - `aborts`: aborts that reached a run: `instance_id`, `at`.
    - `requests`: how many requests came, by operation; faulty ones count too.
    - `tokens`: access tokens issued.
    """

    started: list[dict[str, Any]] = field(default_factory=list)
    released: list[dict[str, Any]] = field(default_factory=list)
    money: list[dict[str, Any]] = field(default_factory=list)
    payouts: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    ended: list[dict[str, Any]] = field(default_factory=list)
    aborts: list[dict[str, Any]] = field(default_factory=list)
    requests: dict[str, int] = field(default_factory=dict)
    tokens: int = 0

    @property
    def history_calls(self) -> int:
        """Requests for an instance's or a stage's history."""
        return self.requests.get("get_instance_history", 0) + self.requests.get("get_stage_history", 0)

    def as_dict(self) -> dict[str, Any]:
        """As JSON values, `history_calls` among them."""
        return {one.name: getattr(self, one.name) for one in fields(self)} | {"history_calls": self.history_calls}

    def lines(self) -> Iterator[dict[str, Any]]:
        """All entries in the order of time, each with its `kind`: an audit record.

        The kinds are `run_started`, `event_heard` (it ended its stage), `event_unheard` (a stage took it, and nobody
        waited for it), `money_moved`, `payout_requested`, `run_aborted`, `run_ended`.
        """
        return heapq.merge(
            *(
                [{"kind": kind if entry.get("released", True) else "event_unheard", **entry} for entry in entries]
                for kind, entries in ((kind, getattr(self, name)) for name, kind in _KINDS.items())
            ),
            key=lambda entry: entry["at"],
        )

    def as_json_lines(self) -> str:
        """`lines` as JSON, one entry a line."""
        return "".join(json.dumps(entry) + "\n" for entry in self.lines())

    def lists(self) -> dict[str, list[dict[str, Any]]]:
        """The lists themselves, by name."""
        values = ((one.name, getattr(self, one.name)) for one in fields(self))
        return {name: value for name, value in values if isinstance(value, list)}

    def counts(self) -> dict[str, Any]:
        """What is only counted, by name."""
        lists = self.lists()
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name not in lists}

    def take_counts(self, counts: dict[str, Any]) -> None:
        """The reverse of `counts`."""
        for name, value in counts.items():
            setattr(self, name, value)

    def copy(self) -> Record:
        """A copy that later events leave alone, and that leaves this one alone, whatever is done to it."""
        return Record(**{one.name: _copied(getattr(self, one.name)) for one in fields(self)})


def _copied(value: Any) -> Any:
    """Of JSON values; a quick `deepcopy`."""
    if isinstance(value, list):
        return [_copied(one) for one in value]
    if isinstance(value, dict):
        return {name: _copied(one) for name, one in value.items()}
    return value

"""What the runs of a cluster do: pay, wait for an approval, then end well or badly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from orchestration_integrations.server.record import Record

APPROVAL = "approve"
ASSET = "EUR/2"
AMOUNT = 100
WELL, BADLY = "0s", "x"
"""Durations of the last stage: no delay, and what is no duration, at which a run fails."""

PAYMENT: dict[str, Any] = {
    "name": "cluster",
    "stages": [
        {
            "send": {
                "source": {"account": {"id": "world"}},
                "destination": {"account": {"id": "${to}"}},
                "amount": {"amount": AMOUNT, "asset": ASSET},
            }
        },
        {"wait_event": {"event": APPROVAL}},
        {"delay": {"duration": "${last}"}},
    ],
}
GATE, WAITING = 0, 2
"""The stages of the workflow as the server has it: the gate comes before the three."""

MAPPED = 30
"""How many runs each DAG of Airflow starts."""
MAPPED_BADLY = {"deferred": (3, 11), "held": (2, 7)}
"""The map indexes of each DAG whose runs end badly."""


def variables(prefix: str, count: int, failing: Iterable[int] = ()) -> list[dict[str, str]]:
    """The variables of so many runs, each with a payee of its own; those of ``failing`` end badly."""
    bad = set(failing)
    return [{"to": f"{prefix}:{number}", "last": BADLY if number in bad else WELL} for number in range(count)]


def variables_of_dag(dag_id: str) -> list[dict[str, str]]:
    """The variables of the runs that a DAG of Airflow starts, by map index."""
    return variables(dag_id, MAPPED, MAPPED_BADLY[dag_id])


def released(record: Record) -> list[str]:
    """The instances whose gate was opened, as often as it was."""
    return [one["instance_id"] for one in record.released if one["stage"] == GATE]


def approved(record: Record) -> set[str]:
    return {one["instance_id"] for one in record.released if one["stage"] == WAITING}


def paid(record: Record) -> Counter[str]:
    """How often each payee was paid."""
    return Counter(one["posting"]["destination"] for one in record.money)


def ends(record: Record) -> dict[str, str | None]:
    """How each run that has ended did: None for a success, else the error."""
    return {one["instance_id"]: one["error"] for one in record.ended}


def payees(record: Record) -> dict[str, str]:
    """The payee of each released instance."""
    opened = set(released(record))
    return {one["instance_id"]: one["variables"]["to"] for one in record.started if one["instance_id"] in opened}

"""What happened instead: the part of a failing sentence's message that shows what was paid, and where runs stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .standing import where_it_stands

if TYPE_CHECKING:
    from .core import Core
    from .record import Record

_MOST_RUNS = 10
_MOST_POSTINGS = 10


def story(core: Core, record: Record, account: str | None = None) -> str:
    """What was paid, and what became of the runs."""
    lines = []
    if account is not None:
        there = [one for one in record.money if account in (one["posting"]["destination"], one["posting"]["source"])]
        if there:
            lines.append(f"What moved to and from {account}:")
            lines += _cut(list(map(_posting, there)), _MOST_POSTINGS)
    others = record.money if not lines else []
    if others:
        lines.append("What was paid instead:" if account is not None else "What was paid:")
        lines += _cut(list(map(_posting, others)), _MOST_POSTINGS)
    if record.payouts:
        lines.append("What left through providers:")
        lines += _cut(list(map(_payout, record.payouts)), _MOST_POSTINGS)
    if not record.money and not record.payouts:
        lines.append("No money was moved at all.")
    lines.append("The runs:" if record.started else "No run has started.")
    shown = [f"  {_line_of(core, entry, record)}" for entry in record.started[:_MOST_RUNS]]
    lines += _cut(shown, _MOST_RUNS, len(record.started))
    return "\n".join(lines)


def workflow_name(core: Core, workflow_id: str) -> str:
    """The name of a workflow; empty where it has none."""
    workflow = core.engine.workflows.get(workflow_id)
    return workflow.name if workflow is not None else ""


def how_it_ended(error: str | None) -> str:
    """The end of a run, by its error."""
    if not error:
        return "succeeded"
    return "cancelled" if error == "canceled" else "failed"


def _line_of(core: Core, entry: dict[str, Any], record: Record) -> str:
    name = workflow_name(core, entry["workflow_id"]) or entry["workflow_id"]
    variables = ", ".join(f"{key}={value}" for key, value in entry["variables"].items() if key != "runGate")
    text = f"{entry['instance_id']} of {name}" + (f" ({variables})" if variables else "")
    end = next((one for one in record.ended if one["instance_id"] == entry["instance_id"]), None)
    if end is None:
        return f"{text}: {where_it_stands(core.engine.instances[entry['instance_id']])}"
    error = end["error"]
    return f"{text}: {how_it_ended(error)}" + (f", {error}" if how_it_ended(error) == "failed" else "")


def _posting(entry: dict[str, Any]) -> str:
    p = entry["posting"]
    ledger = f" in ledger {entry['ledger']}" if entry["ledger"] != "default" else ""
    return f"  {p['amount']} {p['asset']} from {p['source']} to {p['destination']}{ledger}{_by(entry)}"


def _payout(entry: dict[str, Any]) -> str:
    p = entry["payout"]
    through = p["connector"] if p["connector"] == p["provider"] else f"{p['provider'] or '?'} ({p['connector']})"
    return f"  {p['amount']} {p['asset']} through {through} to {p['destination']}{_by(entry)}"


def _by(entry: dict[str, Any]) -> str:
    again = f", attempt {entry['attempt']}" if entry["attempt"] > 1 else ""
    return f" by run {entry['instance_id']}, stage {entry['stage']}{again}"


def _cut(lines: Sequence[str], most: int, count: int | None = None) -> list[str]:
    more = (len(lines) if count is None else count) - most
    return [*lines[:most], *([f"  … and {more} more"] if more > 0 else [])]

"""Pages of the lists, filtered and counted, as plain JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ..procedures.gate import is_gate
from .catalog import Listed, Row
from .definition_view import workflow_summary
from .glances import Glances
from .instance_view import shown_instant

PAGE = 50
"""Rows of one page."""
STATES = ("running", "succeeded", "failed", "cancelled")
MOST_SEARCHED = 2000
"""Rows whose key is read for one search, the newest first."""


class Wanted(msgspec.Struct, frozen=True):
    """Which instances are asked for: of a state, of a workflow, with a text in id, run key or workflow; which page."""

    state: str = ""
    workflow: str = ""
    text: str = ""
    page: int = 0

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Wanted:
        """As a query of the page says it; what is not understood is left out."""
        page = query.get("page", "0")
        return cls(
            state=query.get("state", "") if query.get("state") in STATES else "",
            workflow=query.get("workflow", "")[:1000],
            text=query.get("q", "").strip().lower()[:1000],
            page=int(page) if page.isascii() and page.isdecimal() and len(page) < 8 else 0,
        )


def instances_page(listed: Listed, glances: Glances, wanted: Wanted) -> dict[str, Any]:
    """One page of the instances that are asked for, and how many there are of each state."""
    names = {workflow_id: workflow.name for workflow_id, workflow in listed.workflows.items()}

    def has_key(row: Row) -> bool:
        workflow = listed.workflows.get(row.workflow_id)
        return workflow is not None and bool(workflow.stages) and is_gate(workflow.stages[0])

    rows: Sequence[Row] = listed.rows
    if wanted.workflow:
        rows = [row for row in rows if row.workflow_id == wanted.workflow]
    unread = 0
    if wanted.text:
        searched = [row for row in rows if has_key(row)][:MOST_SEARCHED]
        unread = glances.want((row for row in searched if glances.of(row) is None), has_key)
        rows = [row for row in rows if _matches(row, wanted.text, names, glances)]
    counts = _counted(rows) if wanted.text else _counts(listed, wanted.workflow)
    if wanted.state:
        rows = [row for row in rows if row.state == wanted.state]
    shown = rows[wanted.page * PAGE : (wanted.page + 1) * PAGE]
    glances.want(shown, has_key)
    return {
        "rows": [_row(row, names, glances, has_key(row)) for row in shown],
        "total": len(rows),
        "page": wanted.page,
        "pages": max(1, -(-len(rows) // PAGE)),
        "counts": {state: counts.get(state, 0) for state in STATES},
        "reading": listed.read_at is None and listed.problem is None,
        "keysToRead": unread,
        "problem": listed.problem,
        "readAt": listed.read_at,
    }


def _counted(rows: Sequence[Row]) -> Mapping[str, int]:
    return Counter(str(row.state) for row in rows)


def _counts(listed: Listed, workflow_id: str) -> Mapping[str, int]:
    counts: Counter[str] = Counter()
    for (owner, state), number in listed.counts.items():
        if not workflow_id or owner == workflow_id:
            counts[state] += number
    return counts


def _matches(row: Row, text: str, names: Mapping[str, str], glances: Glances) -> bool:
    seen = glances.of(row)
    places = (row.id, row.workflow_id, names.get(row.workflow_id, ""), seen.key if seen is not None else None)
    return any(text in place.lower() for place in places if place)


def _row(row: Row, names: Mapping[str, str], glances: Glances, has_key: bool) -> dict[str, Any]:
    seen = glances.of(row)
    running = row.state == "running"
    return {
        "id": row.id,
        "workflow": {"id": row.workflow_id, "name": names.get(row.workflow_id, "")},
        "state": row.state,
        "kind": seen.kind if running and seen is not None else row.state,
        "note": seen.note if running and seen is not None else row.error or "",
        "runKey": seen.key if seen is not None else None,
        "keyUnread": has_key and seen is None,
        "createdAt": shown_instant(row.created_at),
        "endedAt": shown_instant(row.ended_at),
    }


def workflows_page(listed: Listed) -> dict[str, Any]:
    """The workflows, the newest first, each with how many instances of each state it has."""
    workflows = sorted(listed.workflows.values(), key=lambda one: (one.created_at, one.id), reverse=True)
    return {
        "rows": [
            {
                **workflow_summary(workflow),
                "counts": {state: listed.counts.get((workflow.id, state), 0) for state in STATES},
            }
            for workflow in workflows
            if workflow.deleted_at is None
        ],
        "reading": listed.read_at is None and listed.problem is None,
        "problem": listed.problem,
    }

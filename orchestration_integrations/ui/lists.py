"""Pages of the lists, filtered and counted, as plain JSON."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ..api.models import Instance, Workflow
from ..procedures.gate import is_gate
from .ages import Moment, told
from .catalog import Listed, Row, instances_age, row_of
from .definition_view import workflow_summary
from .glances import Glances
from .instance_view import shown_instant

PAGE = 50
"""Rows of one page."""
STATES = ("running", "succeeded", "failed", "cancelled")
MOST_SEARCHED = 2000
"""Rows whose key is read for one search, the newest first."""
NOTE_OLD = 15.0
"""Seconds after which what a row stands at is told with the time at which that was read: those who look have
it read again every 10 s."""
_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)


class Wanted(msgspec.Struct, frozen=True):
    """Which instances are asked for.

    Attributes:
        state: of this state; empty: of any.
        workflow: id of their workflow; empty: any.
        text: stands in id, run key or workflow, in small or capital letters; empty: any.
        key: is their run key, letter for letter: a text that a key holds is no identity. Empty: any.
        page: which page of them, from 0.
    """

    state: str = ""
    workflow: str = ""
    text: str = ""
    key: str = ""
    page: int = 0

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Wanted:
        """As a query of the page says it; what is not understood is left out."""
        return cls(
            state=query.get("state", "") if query.get("state") in STATES else "",
            workflow=query.get("workflow", "")[:1000],
            text=query.get("q", "").strip().lower()[:1000],
            key=query.get("key", "")[:10_000],
            page=page_number(query),
        )


def page_number(query: Mapping[str, str]) -> int:
    """Which page is asked for, from 0; 0 where that is not understood."""
    page = query.get("page", "0")
    return int(page) if page.isascii() and page.isdecimal() and len(page) < 8 else 0


def instances_page(listed: Listed, glances: Glances, wanted: Wanted, begun: Moment | None = None) -> dict[str, Any]:
    """One page of the instances that are asked for, and how many there are of each state.

    While the list was never read, its counts and its total are None: nobody knows them.

    Args:
        begun: when the reading under way began; None where there is none.
    """
    names = {workflow_id: workflow.name for workflow_id, workflow in listed.workflows.items()}

    def has_key(row: Row) -> bool:
        workflow = listed.workflows.get(row.workflow_id)
        return workflow is None or (bool(workflow.stages) and is_gate(workflow.stages[0]))

    rows: Sequence[Row] = listed.rows
    if wanted.workflow:
        rows = [row for row in rows if row.workflow_id == wanted.workflow]
    to_read, unread = 0, 0
    searches = bool(wanted.text or wanted.key)
    if searches:
        keyed = [row for row in rows if has_key(row)]
        to_read = glances.want((row for row in keyed[:MOST_SEARCHED] if not glances.knows_key(row)), has_key)
        unread = sum(not glances.knows_key(row) for row in keyed)
    if wanted.text:
        rows = [row for row in rows if _matches(row, wanted.text, names, glances)]
    if wanted.key:
        rows = [row for row in rows if glances.key_of(row) == wanted.key]
    counts = _counted(rows) if searches else _counts(listed, wanted.workflow)
    if wanted.state:
        rows = [row for row in rows if row.state == wanted.state]
    shown = rows[wanted.page * PAGE : (wanted.page + 1) * PAGE]
    glances.want(shown, has_key)
    was_read = listed.read is not None
    return {
        "rows": [_row(row, names, glances, has_key(row)) for row in shown],
        "total": len(rows) if was_read else None,
        "page": wanted.page,
        "pages": max(1, -(-len(rows) // PAGE)),
        "counts": {state: counts.get(state, 0) if was_read else None for state in STATES},
        "reading": not was_read and listed.problem is None,
        "keysToRead": to_read,
        "keysUnread": unread,
        "problem": listed.problem,
        **instances_age(listed, begun),
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
    places = (row.id, row.workflow_id, names.get(row.workflow_id, ""), glances.key_of(row))
    return any(text in place.lower() for place in places if place)


def _row(row: Row, names: Mapping[str, str], glances: Glances, has_key: bool) -> dict[str, Any]:
    seen = glances.of(row)
    tells = seen is not None and (row.state == "running" or seen.kind == "unsure")
    is_old = seen is not None and tells and seen.read.age > NOTE_OLD
    return {
        "id": row.id,
        "workflow": {"id": row.workflow_id, "name": names.get(row.workflow_id, "")},
        "state": row.state,
        "kind": seen.kind if seen is not None and tells else row.state,
        "note": (seen.note if seen is not None and tells else row.error) or "",
        "noteAsOf": seen.read.epoch if seen is not None and seen.note is not None and is_old else None,
        "noteUnread": row.state == "running" and (seen is None or seen.note is None),
        "runKey": glances.key_of(row),
        "keyUnread": has_key and not glances.knows_key(row),
        "createdAt": shown_instant(row.created_at),
        "endedAt": shown_instant(row.ended_at),
    }


def is_id(text: str) -> bool:
    """Whether a text can be the whole id of an instance."""
    return _ID.fullmatch(text) is not None


def with_instance(listed: Listed, instance: Instance, workflow: Workflow | None) -> Listed:
    """The lists with one instance more: those of a deleted workflow stand in no list."""
    workflows = listed.workflows if workflow is None else {**listed.workflows, workflow.id: workflow}
    return msgspec.structs.replace(listed, rows=(row_of(instance), *listed.rows), workflows=workflows)


def workflows_page(listed: Listed, begun: Moment | None = None) -> dict[str, Any]:
    """The workflows, the newest first, each with how many instances of each state it has.

    Args:
        begun: when the reading under way began; None where there is none.
    """
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
        "reading": listed.read is None and listed.problem is None,
        "problem": listed.problem,
        **told(listed.workflows_read, begun),
    }

"""Triggers and their occurrences as the page shows them, as plain JSON; read only while somebody looks at them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from ..api.models import Occurrence, Trigger
from ..http_hook import AsyncOrchestrationHttpHook
from .ages import Moment, oldest, told
from .catalog import Listed
from .instance_view import shown_instant
from .kept import Kept, Known
from .lists import PAGE
from .server_clock import ServerClock

IDLE = 20.0
"""Seconds without a look after which the occurrences of a trigger are forgotten."""

Json = dict[str, Any]


class Fired(msgspec.Struct, frozen=True):
    """A trigger, and each time that it fired."""

    trigger: Trigger
    occurrences: Sequence[Occurrence]


class TriggerLists:
    """The triggers of one server, and the occurrences of those that somebody looks at.

    Args:
        hook: reads them.
        on_change: called when there is something new to see.
        clock: is told that a reading has succeeded.
    """

    def __init__(self, hook: AsyncOrchestrationHttpHook, on_change: Callable[[], None], clock: ServerClock) -> None:
        self._hook = hook
        self._on_change = on_change
        self._clock = clock
        self._all: Kept[Sequence[Trigger]] = Kept(self._read_all, on_change)
        self._fired: dict[str, Kept[Fired]] = {}

    async def triggers(self) -> Known[Sequence[Trigger]]:
        """All of them."""
        return await self._all.look()

    async def _read_all(self) -> Sequence[Trigger]:
        found = await self._hook.list_triggers()
        self._clock.heard(self._hook.plans)
        return found

    async def fired(self, trigger_id: str) -> Known[Fired]:
        """One of them, with its occurrences."""
        for old in [name for name, one in self._fired.items() if time.monotonic() - one.looked > IDLE]:
            self._fired.pop(old).stop()
        if trigger_id not in self._fired:

            async def read() -> Fired:
                trigger = await self._hook.get_trigger(
                    trigger_id
                )  # of an unknown one the server lists none, and no error
                occurrences = await self._hook.list_trigger_occurrences(trigger_id)
                self._clock.heard(self._hook.plans)
                return Fired(trigger, occurrences)

            self._fired[trigger_id] = Kept(read, self._on_change)
        return await self._fired[trigger_id].look()

    def stop(self) -> None:
        """Read no more."""
        self._all.stop()
        for fired in self._fired.values():
            fired.stop()


def triggers_page(known: Known[Sequence[Trigger]], listed: Listed, page: int) -> Json:
    """One page of the triggers: by event, the newest of each first."""
    newest = sorted(known.value or (), key=lambda one: (one.created_at, one.id), reverse=True)
    rows = sorted(newest, key=lambda one: one.event)
    shown = rows[page * PAGE : (page + 1) * PAGE]
    return {"rows": [_trigger(one, listed) for one in shown], **_about(known, known.read, len(rows), page)}


def trigger_page(known: Known[Fired], listed: Listed, page: int) -> Json:
    """A trigger, None while it was never read, and one page of its occurrences, the newest first."""
    fired = known.value
    occurrences = fired.occurrences if fired is not None else ()
    rows = sorted(occurrences, key=lambda one: (one.date, one.instance_id or ""), reverse=True)
    shown = rows[page * PAGE : (page + 1) * PAGE]
    wanted = {one.instance_id for one in shown}
    states = {row.id: row.state for row in listed.rows if row.id in wanted}
    return {
        "trigger": None if fired is None else _trigger(fired.trigger, listed),
        "rows": [_occurrence(one, states) for one in shown],
        **_about(known, oldest(known.read, listed.states_read) if states else known.read, len(rows), page),
    }


def _about(known: Known[Any], read: Moment | None, total: int, page: int) -> Json:
    """What both pages say of their reading, whose oldest part began at ``read``."""
    was_read = known.read is not None
    denied = known.missing or known.unrouted
    return {
        "total": total if was_read else None,
        "page": page,
        "pages": max(1, -(-total // PAGE)),
        "reading": not was_read and known.problem is None and not denied,
        "missing": known.missing,
        "unrouted": known.unrouted,
        "problem": known.problem,
        **told(read, known.begun),
    }


def _trigger(trigger: Trigger, listed: Listed) -> Json:
    workflow = listed.workflows.get(trigger.workflow_id)
    read = listed.workflows_read
    name = trigger.raw.get("name")
    return {
        "id": trigger.id,
        "name": name if isinstance(name, str) else "",
        "event": trigger.event,
        "workflow": {
            "id": trigger.workflow_id,
            "name": "" if workflow is None else workflow.name,
            "deleted": workflow is not None and workflow.deleted_at is not None,
            # It may be newer than the list, deleted, or left out by pages that shift: nobody knows which.
            "unlistedAt": read.epoch if workflow is None and read is not None else None,
        },
        "filter": trigger.filter,
        "variables": [{"name": name, "expression": str(text)} for name, text in trigger.variables.items()],
        "createdAt": shown_instant(trigger.created_at),
    }


def _occurrence(one: Occurrence, states: Mapping[str, str]) -> Json:
    return {
        "date": shown_instant(one.date),
        "instance": one.instance_id,
        "state": states.get(one.instance_id or ""),
        "error": one.error,
        "event": msgspec.json.format(msgspec.json.encode(one.event), indent=2).decode(),
    }

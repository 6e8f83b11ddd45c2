"""What a row of a list shows beyond the list itself: the run key, and what a running instance stands at.

Both stand in histories, which cost the server's engine about ten times a plain read. So they are read for rows that
somebody sees, or searches, a few at once; a key, which never changes, once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from ..api.errors import OrchestrationError
from ..api.models import StageRun
from ..http_hook import AsyncOrchestrationHttpHook
from ..procedures.gate import gate_of
from ..procedures.moved import STILL
from .ages import Moment
from .catalog import Row
from .instance_view import doubt_of_success, glance
from .problems import problem_text

AT_ONCE = 4
"""Histories that are read at once."""
NOTE_AGE = 5.0
"""Seconds after which what a running instance stands at is read again."""
MOST_KNOWN = 100_000


class Glance(msgspec.Struct, frozen=True):
    """What is known of a row.

    Attributes:
        key_known: whether its gate was read; where it was not, ``key`` says nothing.
        key: its run key; None: it has none.
        kind: what it stands at, in one word.
        note: the same in one line; None: it could not be read.
        read: when the reading began that told the note.
        ended: when it ended, in monotonic seconds: the pause before the next one begins there.
    """

    key_known: bool
    key: str | None
    kind: str
    note: str | None
    read: Moment
    ended: float


class Glances:
    """Reads what rows show, in the background.

    Args:
        hook: reads the histories.
        on_change: called when more is known.
    """

    def __init__(self, hook: AsyncOrchestrationHttpHook, on_change: Callable[[], None]) -> None:
        self._hook = hook
        self._on_change = on_change
        self._known: dict[str, Glance] = {}
        self._asked: dict[str, Row] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def of(self, row: Row) -> Glance | None:
        """What is known of a row."""
        return self._known.get(row.id)

    def key_of(self, row: Row) -> str | None:
        """The run key of a row; None where it has none, or is not known: see ``knows_key``."""
        known = self._known.get(row.id)
        return known.key if known is not None and known.key_known else None

    def knows_key(self, row: Row) -> bool:
        """Whether the key of a row was read."""
        known = self._known.get(row.id)
        return known is not None and known.key_known

    def want(self, rows: Iterable[Row], gated: Callable[[Row], bool]) -> int:
        """Have rows read that are not known, in doubt, or that may have moved. Returns how many are still to be read.

        Args:
            gated: whether runs of the row's workflow have a key in their gate.
        """
        for row in rows:
            if self._is_due(row, gated(row)):
                self._asked.setdefault(row.id, row)
        while len(self._tasks) < AT_ONCE and len(self._tasks) < len(self._asked):
            task = asyncio.ensure_future(self._work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return len(self._asked)

    def _is_due(self, row: Row, gated: bool) -> bool:
        known = self._known.get(row.id)
        doubted = known is not None and known.kind == "unsure"  # a history can be late
        if row.state != "running" and not doubted and (not gated or self.knows_key(row)):
            return False
        return known is None or time.monotonic() - known.ended > NOTE_AGE

    async def _work(self) -> None:
        read = 0
        while self._asked:
            instance_id, row = next(iter(self._asked.items()))
            del self._asked[instance_id]
            self._known.pop(next(iter(self._known)), None) if len(self._known) >= MOST_KNOWN else None
            before = self._known.get(instance_id)
            self._known[instance_id] = await self._read(row, before)
            read += 1
            if read % 25 == 0:
                self._on_change()
        self._on_change()

    async def _read(self, row: Row, before: Glance | None) -> Glance:
        begun = Moment.now()
        known, key = (before.key_known, before.key) if before is not None else (False, None)
        seen: dict[str, Any] = {"kind": row.state, "note": None}
        if before is not None and before.kind == "unsure" and row.state == "succeeded":
            seen = {"kind": before.kind, "note": before.note, "read": before.read}  # only a reading takes a doubt back
        try:
            history = await self._hook.get_instance_history(row.id)
            if history or row.state != "running":  # a run that has just begun does not show its gate yet
                gate = gate_of(history)
                known, key = True, gate.key if gate is not None else None
            if row.state == "running":
                seen = glance(history, await self._activities(row.id, history))
            elif row.state == "succeeded":
                doubt = doubt_of_success(history)
                seen = {"kind": "unsure" if doubt else row.state, "note": doubt}
        except Exception as error:  # a row without it is shown all the same
            if not isinstance(error, OrchestrationError):
                problem_text(error)
        return Glance(
            key_known=known,
            key=key,
            kind=seen["kind"],
            note=seen["note"],
            read=seen.get("read", begun),
            ended=time.monotonic(),
        )

    async def _activities(self, instance_id: str, history: Iterable[StageRun]) -> tuple[Any, ...]:
        stages = list(history)
        if not stages or stages[-1].terminated or stages[-1].name in STILL:
            return ()
        return tuple(await self._hook.get_stage_history(instance_id, len(stages) - 1))

    def stop(self) -> None:
        """Read no more."""
        self._asked.clear()
        for task in self._tasks:
            task.cancel()

"""The parts of the server that fail apart: workers, engine, database, and the services that its activities call.

While a part is away, the steps that need it are parked and done in order when it is back; requests that need the
engine are held for as long as the server waits for it; requests and workers hear of a missing database at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .clock import SECOND

if TYPE_CHECKING:
    from collections.abc import Callable

    from .agenda import Agenda
    from .store import Store

SERVICES = ("ledger", "wallets", "payments")
PARTS = ("workers", "engine", "database", *SERVICES)
_WORK = ("engine", "workers")
_NEEDS: dict[str, tuple[str, ...]] = {
    "initiate": ("engine", "workers", "database"),
    "fire": ("engine", "workers", "database"),
    "begin": _WORK,
    "launch_stage": _WORK,
    "timer": _WORK,
    "wake": _WORK,
    "release": _WORK,
    "stage_done": _WORK,
    "cancel": _WORK,
    "activity": _WORK,
    "act_start": _WORK,
    "act_done": _WORK,
    "act_timeout": ("engine",),
}
_WRITES = ("begin", "launch_stage", "stage_done")
DEADLINE = "context deadline exceeded"
"""What a request hears that waited too long for the engine."""
_REFUSED = "dial tcp database:5432: connect: connection refused"
_BROKEN = "FATAL: terminating connection due to administrator command (SQLSTATE=57P01)"
_POOL = 2
"""Connections that the database's end breaks: as many requests hear of that, later ones of a refused connection."""


class DatabaseAwayError(Exception):
    """The database can't be reached."""


class Parts:
    """Which parts are there, and what waits for those that are not."""

    def __init__(self, generation: int, agenda: Agenda, store: Store) -> None:
        self._generation = generation
        self._agenda = agenda
        self._store = store
        self.up = dict.fromkeys(PARTS, True)
        self.parked: list[tuple[str, list[Any]]] = []
        """Steps that wait for a part."""
        self._whole = True
        self.stalled: list[list[Any]] = []
        """Calls that wait for the service that they have reached."""
        self._broken_connections = 0
        self._stale_writes = 0
        self._held: dict[int, Callable[[bool], None]] = {}

    def can_do(self, kind: str) -> bool:
        """Whether all parts are there that a step of this kind needs."""
        if self._whole:
            return True
        needs = _NEEDS.get(kind)
        if needs is None:
            return True
        if self._generation > 1 and kind in _WRITES and not self.up["database"]:
            return False
        return all(self.up[part] for part in needs)

    def park(self, kind: str, args: list[Any]) -> None:
        """Keep a step until a part is back."""
        self.parked.append((kind, args))
        self._store.touch_meta()

    def stall(self, args: list[Any]) -> None:
        """Keep a call to a service until a service is back."""
        self.stalled.append(args)
        self._store.touch_meta()

    def stop(self, part: str) -> None:
        """Take a part away; again is harmless."""
        if not self.up[part]:
            return
        self.up[part] = self._whole = False
        if part == "database":
            self._broken_connections = _POOL
            self._stale_writes = 1
        self._store.touch_meta()

    def start(self, part: str) -> None:
        """Bring it back; what waited for it goes on."""
        if self.up[part]:
            return
        self.up[part] = True
        self._whole = all(self.up.values())
        self._store.touch_meta()
        resume = self._agenda.now + int(self._agenda.timing.resume * SECOND)
        if part in SERVICES:
            stalled, self.stalled = self.stalled, []
            for n, args in enumerate(stalled):
                self._agenda.at(resume + n, "act_call", *args)
        parked, self.parked = self.parked, []
        for n, (kind, args) in enumerate(parked):
            if part == "database" and kind == "begin" and self._generation == 2:
                # The write had been done when its answer was lost, and is done again: the row stands there twice.
                args = [*args[:2], True]
            self._agenda.at(resume + n, kind, *args)
        if part == "engine":
            held, self._held = self._held, {}
            for go_on in held.values():
                go_on(True)

    def restore(self, up: dict[str, bool], parked: list[tuple[str, list[Any]]], stalled: list[list[Any]]) -> None:
        """Take over what was away, and what waited, when an earlier server stopped."""
        self.up.update(up)
        self._whole = all(self.up.values())
        self.parked, self.stalled = parked, stalled

    def check_database(self) -> None:
        """DatabaseAwayError with the text that a request would hear now."""
        if self.up["database"]:
            return
        if self._broken_connections:
            self._broken_connections -= 1
            raise DatabaseAwayError(_BROKEN)
        raise DatabaseAwayError(_REFUSED)

    def write_arrives(self) -> bool:
        """Whether a worker's write to the database comes through."""
        if not self.up["database"]:
            return False
        if self._stale_writes and self._generation == 1:
            self._stale_writes = 0
            return False
        return True

    @property
    def holding(self) -> int:
        """How many requests wait for the engine."""
        return len(self._held)

    def hold_for_engine(self, go_on: Callable[[bool], None]) -> None:
        """Call `go_on(True)` when the engine is back, `go_on(False)` when a request waits no longer for it."""
        ticket = self._agenda.ticket()
        self._held[ticket] = go_on
        self._agenda.at(self._agenda.now + int(self._agenda.timing.request_deadline * SECOND), "deadline", ticket)

    def deadline(self, ticket: int) -> None:
        """A request has waited long enough for the engine."""
        go_on = self._held.pop(ticket, None)
        if go_on is not None:
            go_on(False)

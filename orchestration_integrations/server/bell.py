"""Who waits for an answer on an event loop, and one timer for all of them.

Waiting exchanges need somebody to let the engine's steps happen in time: the bell looks when the next step or answer
is due, and when anybody has changed something. However many exchanges wait, a change costs one look.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from .clock import SECOND

if TYPE_CHECKING:
    from .core import Core
    from .exchange import Exchange

_LONGEST_LOOK = 30.0


class Bell:
    """The waiting exchanges of one core on the event loop that runs now."""

    def __init__(self, core: Core) -> None:
        self.loop = asyncio.get_running_loop()
        self._core = core
        self._thread = threading.get_ident()
        self._waiting: dict[Exchange, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._rung = False

    def wait(self, exchange: Exchange) -> asyncio.Future[None]:
        """What is done when the exchange's answer can go out, or its connection is to be cut. Then call `leave`."""
        with self._core.lock:
            self._core.held.add(exchange)
            if not self._waiting:
                self._core.listeners.append(self.ring)
        future = self._waiting[exchange] = self.loop.create_future()
        self.ring()
        return future

    def leave(self, exchange: Exchange) -> None:
        """The exchange waits no longer; again is harmless."""
        if self._waiting.pop(exchange, None) is None or self._waiting:
            return
        with self._core.lock:
            self._core.listeners.remove(self.ring)
        if self._timer is not None:
            self._timer.cancel()

    def ring(self) -> None:
        """Something has changed: look soon. From any thread."""
        if self._rung:
            return
        self._rung = True
        if threading.get_ident() == self._thread:
            self.loop.call_soon(self._look)
            return
        with suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self._look)

    def _look(self) -> None:
        core = self._core
        with core.lock:
            core.pump()
            self._rung = False  # what changes from here on rings anew
            now = core.clock.now_ns()
            dues = []
            for exchange, future in self._waiting.items():
                due = exchange.due_ns()
                if due is not None and due <= now:
                    if not future.done():
                        future.set_result(None)
                elif due is not None:
                    dues.append(due)
            if any(exchange.reply is None for exchange in self._waiting):
                step = core.engine.next_due()
                dues += [] if step is None else [step]
        if self._timer is not None:
            self._timer.cancel()
        pause = min(_LONGEST_LOOK, max(0.0, (min(dues) - now) / SECOND)) if dues else _LONGEST_LOOK
        self._timer = self.loop.call_later(pause, self._look) if self._waiting else None

"""An event loop in a thread of its own, for what blocking hooks of this process do together."""

from __future__ import annotations

import asyncio
import os
import threading

from ..clock import monotonic

CHECK_SECONDS = 5.0
"""Seconds after which whoever sleeps on that loop sees whether it still answers, and for which it may be busy."""

_lock = threading.RLock()
_loop: asyncio.AbstractEventLoop | None = None
_thread: threading.Thread | None = None
_asked_at: float | None = None
"""When the loop was asked for a sign of life that has not come yet."""


class _Loop(asyncio.SelectorEventLoop):
    """A loop whose timers run on where the time of a test is frozen."""

    def time(self) -> float:
        return monotonic()


def background_loop() -> asyncio.AbstractEventLoop:
    """The loop of this process. It runs until the process ends, from its first use on. A forked child makes its own."""
    global _loop, _thread, _asked_at
    with _lock:
        if _loop is None or not background_runs():
            _loop, _asked_at = _Loop(), None
            _thread = threading.Thread(target=_loop.run_forever, name="orchestration-watch", daemon=True)
            _thread.start()
        return _loop


def background_runs(loop: asyncio.AbstractEventLoop | None = None) -> bool:
    """Whether the loop of this process runs, and is this one, if one is given."""
    return _thread is not None and _thread.is_alive() and (loop is None or loop is _loop)


def background_answers(loop: asyncio.AbstractEventLoop | None = None) -> bool:
    """Whether the loop of this process, which is this one if one is given, is not known to stand still: something on it
    may block it. It asks the loop for a sign of life that the next caller finds."""
    global _asked_at
    with _lock:
        if _loop is None and loop is None:
            return True
        if _loop is None or not background_runs(loop):
            return False
        if _asked_at is not None:
            return monotonic() - _asked_at < CHECK_SECONDS
        _asked_at = monotonic()
    _loop.call_soon_threadsafe(_answer)
    return True


def _answer() -> None:
    global _asked_at
    _asked_at = None


def _leave_to_the_parent() -> None:
    global _lock, _loop, _thread, _asked_at
    _lock, _loop, _thread, _asked_at = threading.RLock(), None, None, None


os.register_at_fork(after_in_child=_leave_to_the_parent)

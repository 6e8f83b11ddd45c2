"""An event loop in a thread of its own, for what blocking hooks of this process do together."""

from __future__ import annotations

import asyncio
import os
import threading

from ..clock import monotonic

_lock = threading.RLock()
_loop: asyncio.AbstractEventLoop | None = None
_thread: threading.Thread | None = None


class _Loop(asyncio.SelectorEventLoop):
    """A loop whose timers run on where the time of a test is frozen."""

    def time(self) -> float:
        return monotonic()


def background_loop() -> asyncio.AbstractEventLoop:
    """The loop of this process. It runs until the process ends, from its first use on. A forked child makes its own."""
    global _loop, _thread
    with _lock:
        if _loop is None or not background_runs():
            _loop = _Loop()
            _thread = threading.Thread(target=_loop.run_forever, name="orchestration-watch", daemon=True)
            _thread.start()
        return _loop


def background_runs() -> bool:
    """Whether the loop of this process runs."""
    return _thread is not None and _thread.is_alive()


def _leave_to_the_parent() -> None:
    global _lock, _loop, _thread
    _lock, _loop, _thread = threading.RLock(), None, None


os.register_at_fork(after_in_child=_leave_to_the_parent)

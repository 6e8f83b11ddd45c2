"""An event loop in a thread of its own, for what blocking hooks of this process do together."""

from __future__ import annotations

import asyncio
import os
import threading

_lock = threading.RLock()
_loop: asyncio.AbstractEventLoop | None = None


def background_loop() -> asyncio.AbstractEventLoop:
    """The loop of this process. It runs until the process ends, from its first use on. A forked child makes its own."""
    global _loop
    with _lock:
        if _loop is None or _loop.is_closed():
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="orchestration-watch", daemon=True).start()
        return _loop


def _leave_to_the_parent() -> None:
    global _lock, _loop
    _lock, _loop = threading.RLock(), None


os.register_at_fork(after_in_child=_leave_to_the_parent)

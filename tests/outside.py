"""What tests of other processes share: something that is to be seen at last, a port that nobody has."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def eventually(look: Callable[[], T | None], what: str, seconds: float = 180.0, every: float = 0.3) -> T:
    """What ``look`` returns once it is true. Fails, with what was seen last, after a generous limit."""
    until = time.monotonic() + seconds
    last: Any = None
    while time.monotonic() < until:
        last = look()
        if last:
            return last  # type: ignore[no-any-return]
        time.sleep(every)
    raise AssertionError(f"not within {seconds:.0f} s: {what}; last seen: {last!r}")


def free_port() -> int:
    """A port of this machine that nobody listens on, a moment ago."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])

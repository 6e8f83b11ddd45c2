"""What the page streams: server-sent events, and a sign of life where there is no news."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import msgspec
from starlette.responses import Response, StreamingResponse

HEARTBEAT = 10.0
"""Seconds without news after which a stream says that it is alive. The page is told: see ``stream``."""

TELL = 2.0
"""Seconds after which a stream tells how old what is shown is, at least."""


def beat() -> float:
    """Seconds for which a stream waits for news."""
    return min(HEARTBEAT, TELL)


def event(name: str, data: object) -> bytes:
    """One event."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(data))


def stream(events: AsyncIterator[bytes], headers: Mapping[str, str]) -> Response:
    """A stream of events. Its header ``x-heartbeat`` says after how many seconds at most something comes."""
    more = {**headers, "x-accel-buffering": "no", "x-heartbeat": str(HEARTBEAT)}
    return StreamingResponse(events, media_type="text/event-stream", headers=more)

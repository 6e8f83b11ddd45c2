"""Waiting for an answer, no longer than it may take, without losing a cancellation or its message.

``asyncio.wait_for`` of Python 3.10 and 3.11 returns the answer if that comes at the moment at which its caller is
cancelled. Then nobody learns of the cancellation, and what was to end goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Any, TypeVar
from weakref import WeakSet

T = TypeVar("T")
END_SECONDS = 10.0
"""Seconds within which a call ends that was cancelled."""

_given_up: WeakSet[asyncio.Future[Any]] = WeakSet()
"""Calls whose callers were cancelled."""


async def in_time(call: Awaitable[T], seconds: float) -> T:
    """What a call answers.

    Args:
        call: is cancelled where it takes longer, or where its caller is cancelled.
        seconds: that it may take.

    Raises:
        TimeoutError: it has not answered in time. Besides, what the call raises.
    """
    asked = asyncio.ensure_future(call)
    try:
        done, _ = await asyncio.wait({asked}, timeout=seconds)
        if not done:
            raise TimeoutError(f"no answer within {seconds:.0f} s")
        return asked.result()
    finally:
        asked.cancel()
        asked.add_done_callback(_retrieved)


async def as_sent(call: Awaitable[T]) -> T:
    """What a call answers; a cancellation of its caller arrives as it was sent, once the call has ended.

    Airflow tells a kill by a user from a shutdown by the message of the cancellation. The layers below a call may
    replace it by one without a message, or swallow it: then the call is cancelled again, each second. Further
    cancellations of the caller change nothing: the first one has said why.

    Args:
        call: is cancelled where its caller is. It has ``END_SECONDS`` to end.

    Raises:
        CancelledError: the first one that the caller was sent. Besides, what the call raises.
    """
    working = asyncio.ensure_future(call)
    try:
        await asyncio.wait({working})
    except asyncio.CancelledError:
        await _ended(working)
        raise
    return working.result()


def is_given_up() -> bool:
    """Whether the caller was cancelled of the call whose task (``as_sent`` made it) is the current one.

    A layer below may have swallowed that: then the next step must not follow, and nothing more is sent.
    """
    return asyncio.current_task() in _given_up


async def _ended(working: asyncio.Future[Any]) -> None:
    _given_up.add(working)
    now = asyncio.get_running_loop().time
    until = now() + END_SECONDS
    while not working.done() and now() < until:
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({working}, timeout=min(1.0, until - now()))
    working.add_done_callback(_retrieved)


def _retrieved(call: asyncio.Future[Any]) -> None:
    """Nobody else asks for the error of a call that was given up, and asyncio would complain of that."""
    if not call.cancelled():
        call.exception()

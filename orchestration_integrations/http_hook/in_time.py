"""Waiting for an answer, no longer than it may take, without losing a cancellation or its message.

``asyncio.wait_for`` of Python 3.10 and 3.11 returns the answer if that comes at the moment at which its caller is
cancelled. Then nobody learns of the cancellation, and what was to end goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


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


async def as_sent(call: Awaitable[T]) -> T:
    """What a call answers; a cancellation of its caller arrives as it was sent, once the call has ended.

    Airflow tells a kill by a user from a shutdown by the message of the cancellation. The layers below a call may
    replace it by one without a message, or swallow it: then the call is cancelled again, each second.

    Args:
        call: is cancelled where its caller is.

    Raises:
        CancelledError: the one that the caller was sent. Besides, what the call raises.
    """
    working = asyncio.ensure_future(call)
    try:
        await asyncio.wait({working})
    except asyncio.CancelledError:
        while not working.done():
            working.cancel()
            await asyncio.wait({working}, timeout=1.0)
        if not working.cancelled():
            working.exception()  # nobody else asks for it
        raise
    return working.result()

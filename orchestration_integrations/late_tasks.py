"""Tasks that begin at the loop's next turn, never within the call that makes them.

A loop may have ``asyncio.eager_task_factory`` (Python 3.12): then a task runs at once, up to its first pause, while
whoever made it has not yet noted that it exists. What wakes and is woken here keeps notes of each other, so one of them
would look for a note that is not yet there. So these tasks are made without the loop's factory.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any


def begun_later(work: Coroutine[Any, Any, None], context: contextvars.Context) -> asyncio.Task[None]:
    """A task of the running loop that has not begun when this returns, whatever factory the loop has.

    Args:
        work: what it does.
        context: it runs in a copy of this one, which nobody else has entered.
    """
    loop = asyncio.get_running_loop()
    return context.run(lambda: asyncio.Task(work, loop=loop))

"""Exceptions that a signal handler raised: whatever their class, they are the caller's wish, and no failed exchange.

Celery's soft time limit and the usual recipes with ``SIGALRM`` raise plain exceptions, also ``TimeoutError``. They come
wherever the main thread is, most likely amid an exchange with a server that hangs. A handler's frame, which is in their
traceback, tells them from what the exchange itself raises: Python gives a handler the frame that it interrupts, and
besides tracers no function is called with the very frame that calls it. The handlers that are set now would not tell:
one may have put another in its place before it raised.
"""

from __future__ import annotations

import inspect
import threading
from types import FrameType


def raised_by_signal(error: BaseException, handled: BaseException | None = None) -> BaseException | None:
    """The exception that a signal handler of this process raised in this thread; None where none did.

    Args:
        error: was raised by the handler itself, or took the place of what it raised: a ``TimeoutError`` amid a read is
            a ``ReadTimeout`` to whoever reads.
        handled: what was being handled when that began which raised ``error``. It is older, although Python chains the
            two: an interrupt, for example, whose cancel is under way.
    """
    if threading.current_thread() is not threading.main_thread():
        return None
    one: BaseException | None = error
    seen: set[int] = set()
    while one is not None and one is not handled and id(one) not in seen:
        seen.add(id(one))
        caller: FrameType | None = None
        step = one.__traceback__
        while step is not None:
            if caller is not None and _is_given(step.tb_frame, caller):
                return one
            caller, step = step.tb_frame, step.tb_next
        one = one.__cause__ or one.__context__
    return None


def _is_given(frame: FrameType, caller: FrameType) -> bool:
    """Whether a function was called with a frame among its arguments."""
    given = inspect.getargvalues(frame)
    values = [given.locals.get(name) for name in given.args]
    more = given.locals.get(given.varargs) if given.varargs else None
    return any(one is caller for one in (*values, *(more if isinstance(more, tuple) else ())))

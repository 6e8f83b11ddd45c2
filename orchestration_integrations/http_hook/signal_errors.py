"""Exceptions that a signal handler raised: whatever their class, they are the caller's wish, and no failed exchange.

Celery's soft time limit and the usual recipes with ``SIGALRM`` raise plain exceptions, also ``TimeoutError``. They come
wherever the main thread is, most likely amid an exchange with a server that hangs. The handler's own frame, which is
in their traceback, tells them from what the exchange itself raises.
"""

from __future__ import annotations

import functools
import signal
import threading
from types import CodeType, FunctionType, MethodType
from typing import Any


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
    handlers = {_code(signal.getsignal(number)) for number in signal.valid_signals()} - {None}
    one: BaseException | None = error
    while one is not None and one is not handled:
        frame = one.__traceback__
        while frame is not None:
            if frame.tb_frame.f_code in handlers:
                return one
            frame = frame.tb_next
        one = one.__cause__ or one.__context__
    return None


def _code(handler: Any) -> CodeType | None:
    while isinstance(handler, functools.partial):
        handler = handler.func
    if isinstance(handler, FunctionType | MethodType):
        return handler.__code__  # a method has that of its function
    called = getattr(type(handler), "__call__", None)  # noqa: B004  # its code is asked for
    return called.__code__ if isinstance(called, FunctionType) else None

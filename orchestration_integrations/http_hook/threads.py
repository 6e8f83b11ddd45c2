"""Threads of their own for what must not wait behind other work in an event loop's executor."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")


def in_own_thread(function: Callable[..., T], *arguments: Any, daemon: bool = False) -> asyncio.Future[T]:
    """Call a function in a new thread.

    Args:
        function: what is called.
        arguments: its arguments.
        daemon: the process may end before it is through.

    Returns:
        A future of the running loop, for what the function returns or raises.
    """
    from asyncio import get_running_loop  # not needed by the blocking hook, and slow to import

    loop = get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # what the function returned

    def work() -> None:
        result: T | None = None
        failed: BaseException | None = None
        try:
            result = function(*arguments)
        except BaseException as error:
            failed = error
        with suppress(RuntimeError):  # the loop may be closed by now
            loop.call_soon_threadsafe(tell, result, failed)

    threading.Thread(target=work, name="orchestration-aside", daemon=daemon).start()
    return future

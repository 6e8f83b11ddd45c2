"""A second interrupt, while the first one's cancel is under way.

Whoever presses Ctrl-C presses it twice. The second one must not break off the very cancel that the first has asked
for, so it is held back: once, and in the first moments as often as it comes. The next one goes through, so that
nothing can keep a process alive. Interrupts are the work of signal handlers, and these run in the main thread alone:
the handlers that are there stay in charge, whatever their signal (time limits have signals too), and only what they
raise is held back.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

from ..clock import monotonic

if TYPE_CHECKING:
    import asyncio

Handler = Callable[[int, FrameType | None], object]

NERVOUS_SECONDS = 0.5
"""Seconds for which all interrupts count as one."""


class HeldBack:
    """What was held back.

    Attributes:
        raised: the last one; None where there was none.
    """

    def __init__(self) -> None:
        self.raised: BaseException | None = None


@contextmanager
def held_back(tell: Callable[[], object]) -> Iterator[HeldBack]:
    """Hold back a second interrupt of this thread.

    Args:
        tell: called when one is held back after the first moments: one more goes through.
    """
    held = HeldBack()
    begun = monotonic()
    spared = over = False

    def instead_of(handler: Handler) -> Handler:
        def handle(number: int, frame: FrameType | None) -> None:
            nonlocal spared
            try:
                handler(number, frame)
            except BaseException as error:
                if over:  # an interrupt has kept this from being taken away
                    raise
                if monotonic() - begun >= NERVOUS_SECONDS:
                    if spared:
                        raise
                    spared = True
                    with suppress(Exception):  # it must not break off what it tells of
                        tell()
                held.raised = error

        return handle

    if threading.current_thread() is not threading.main_thread():
        yield held
        return
    before: dict[int, tuple[Handler, Handler]] = {}
    try:
        for number in signal.valid_signals():
            handler = signal.getsignal(number)
            if callable(handler):
                before[number] = handler, instead_of(handler)
                with suppress(ValueError):  # not the main interpreter
                    signal.signal(number, before[number][1])
        yield held
    finally:
        over = True
        for changed, (handler, ours) in before.items():
            if signal.getsignal(changed) is ours:  # a handler may have put another in its place
                signal.signal(changed, handler)


async def held_back_from(work: asyncio.Future[None], tell: Callable[[], object]) -> asyncio.CancelledError | None:
    """Wait for work that goes on by itself; cancellations of this task are held back as interrupts are.

    A cancel scope of anyio cancels anew at each step of its task, which is one wish and no second one. So the wait is
    shielded from scopes, and a task that is cancelled once more by itself is told from them.

    Args:
        work: that no cancellation of this task reaches.
        tell: as for ``held_back``.

    Returns:
        The last one that was held back; None where there was none.

    Raises:
        CancelledError: one that went through. Besides, what the work raises.
    """
    import asyncio  # not needed by the blocking hook, and slow to import

    from anyio import CancelScope

    begun = monotonic()
    spared = False
    held: asyncio.CancelledError | None = None
    with CancelScope(shield=True):
        while not work.done():
            try:
                await asyncio.wait({work})
            except asyncio.CancelledError as error:
                held = error
                if monotonic() - begun >= NERVOUS_SECONDS:
                    if spared:
                        raise
                    spared = True
                    with suppress(Exception):
                        tell()
    work.result()  # raises what it raised
    return held

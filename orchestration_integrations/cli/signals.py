"""The signals that end a command, each with its exit status: Ctrl-C, SIGTERM, and SIGHUP where it is not ignored.

The first one is raised in the command, which says what is true of its run. What comes in the next moments is the same
wish once more, and what comes while the command has its last word must not take that away. A later one is raised
again: where the first one's cancel is under way, that holds it back once.

Python drops what is raised while it clears an object away (in a finalizer, in the callback of a weak reference). An
interrupt that comes just then is sent once more, a moment later: else the command would go on as if nobody had asked.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from typing import Literal

INTERRUPTED = 130
TERMINATED = 143
HUNG_UP = 129
SAME_SECONDS = 0.5
"""Seconds after an interrupt in which another one says nothing new."""

AGAIN_SECONDS = 0.02
"""Seconds after which an interrupt is sent again that Python has dropped."""
LAST_WORD_SECONDS = 3.0
"""Seconds that a command gets to say what is true and to end. An output that takes nothing must not keep it alive."""


class Terminated(KeyboardInterrupt):
    """SIGTERM: an interrupt with another exit status."""


class HungUp(KeyboardInterrupt):
    """SIGHUP: the terminal is gone."""


@dataclass(frozen=True)
class Left:
    """What an interrupt leaves behind, where nobody knows better.

    Attributes:
        text: what is true of the run, or of the runs.
        again: what to do then.
        after: what to do instead once a cancel of the run came to something, by the word for it.
        outcome: in a word: ``left`` (nothing was done to it) or ``unknown``; None where there is no run.
        instance_id: the run; None where none is known, or several are.
        run_key: its key.
    """

    text: str = ""
    again: str = ""
    outcome: Literal["left", "unknown"] | None = None
    instance_id: str | None = None
    run_key: str | None = None
    after: Mapping[str, str] = field(default_factory=dict)


SIGNALS: dict[int, type[KeyboardInterrupt]] = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}
if hasattr(signal, "SIGHUP"):
    SIGNALS[signal.SIGHUP] = HungUp


class _Heard:
    deaf_until = -inf
    """Monotonic seconds until which a signal says nothing new."""
    listening = False
    to_the_end = False
    """The process is this command's alone, and ends with it."""
    dropped_before: Callable[[sys.UnraisableHookArgs], object] = sys.unraisablehook


def status_of_interrupt(error: BaseException) -> int:
    """Exit status of a command that was interrupted."""
    return HUNG_UP if isinstance(error, HungUp) else TERMINATED if isinstance(error, Terminated) else INTERRUPTED


def listen_to_the_end() -> None:
    """Have the signals raise until this process ends, which is with this command."""
    _Heard.to_the_end = True
    listen()


def listen() -> dict[int, object]:
    """Have the signals raise from now on. Returns the handlers that were there before."""
    if not _Heard.listening:
        _Heard.dropped_before, sys.unraisablehook = sys.unraisablehook, _dropped
    _Heard.deaf_until, _Heard.listening = -inf, True
    before: dict[int, object] = {}
    for number, kind in SIGNALS.items():
        ignored = signal.getsignal(number) == signal.SIG_IGN
        if not ignored or number == signal.SIGTERM:
            before[number] = signal.signal(number, lambda *_, kind=kind: _interrupt(kind))
    return before


def _interrupt(kind: type[KeyboardInterrupt]) -> None:
    now = time.monotonic()
    if now >= _Heard.deaf_until:
        _Heard.deaf_until = now + SAME_SECONDS
        raise kind


def _dropped(what: sys.UnraisableHookArgs) -> None:
    """Python tells of an exception that it can raise nowhere."""
    number = next((number for number, kind in SIGNALS.items() if what.exc_type is kind), None)
    main = threading.main_thread().ident
    if number is None or main is None:
        _Heard.dropped_before(what)
        return
    _Heard.deaf_until = -inf
    again = threading.Timer(AGAIN_SECONDS, signal.pthread_kill, [main, number])
    again.daemon = True
    again.start()


def ignore_to_the_end() -> None:
    """After the last word: as Python ends it lets a signal kill the process that it had a handler for, not one that is
    ignored."""
    if _Heard.deaf_until > -inf and threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def last_word(status: int) -> None:
    """An interrupted command says what is true from now on, and ends with this status: also where nothing takes what it
    says."""
    _Heard.deaf_until = time.monotonic() + LAST_WORD_SECONDS
    if _Heard.to_the_end:
        late = threading.Timer(LAST_WORD_SECONDS, os._exit, [status])
        late.daemon = True
        late.start()


@contextmanager
def heard() -> Iterator[None]:
    """The signals raise while it lasts, if this is the main thread and nobody listens yet."""
    if _Heard.listening or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = listen()
    try:
        yield
    finally:
        _Heard.listening = False
        sys.unraisablehook = _Heard.dropped_before
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # as it was

"""The signals that end a command, each with its exit status: Ctrl-C, SIGTERM, and SIGHUP where it is not ignored.

The first one is raised in the command, which says what is true of its run. What comes in the next moments is the same
wish once more, and what comes while the command has its last word must not take that away. A later one is raised
again: where the first one's cancel is under way, that holds it back once.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import Literal

INTERRUPTED = 130
TERMINATED = 143
HUNG_UP = 129
SAME_SECONDS = 0.5
"""Seconds after an interrupt in which another one says nothing new."""

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
        again: what to do then; told in any case.
        outcome: in a word: ``left`` (nothing was done to it) or ``unknown``; None where there is no run.
        instance_id: the run; None where none is known, or several are.
        run_key: its key.
    """

    text: str = ""
    again: str = ""
    outcome: Literal["left", "unknown"] | None = None
    instance_id: str | None = None
    run_key: str | None = None


SIGNALS: dict[int, type[KeyboardInterrupt]] = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}
if hasattr(signal, "SIGHUP"):
    SIGNALS[signal.SIGHUP] = HungUp


class _Heard:
    deaf_until = -inf
    """Monotonic seconds until which a signal says nothing new."""
    listening = False


def status_of_interrupt(error: BaseException) -> int:
    """Exit status of a command that was interrupted."""
    return HUNG_UP if isinstance(error, HungUp) else TERMINATED if isinstance(error, Terminated) else INTERRUPTED


def listen() -> dict[int, object]:
    """Have the signals raise from now on. Returns the handlers that were there before."""
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


def ignore_to_the_end() -> None:
    """After the last word: as Python ends it lets a signal kill the process that it had a handler for, not one that is
    ignored."""
    if _Heard.deaf_until > -inf and threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def last_word() -> None:
    """An interrupted command says what is true from now on, and ends."""
    _Heard.deaf_until = time.monotonic() + LAST_WORD_SECONDS


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
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # as it was

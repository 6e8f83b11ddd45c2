"""Who waits in this process, so that somebody may tell it to look at once, or ask how it sleeps."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Set
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

from ..api.errors import ValidationError

if TYPE_CHECKING:
    from .passing_time import Asleep

_lock = threading.RLock()  # a signal's handler may come while its own thread holds it
_listeners: WeakSet[Listener] = WeakSet()


def hint(instance_id: str) -> bool:
    """Tell the waits of this process that an instance may have ended: each one that waits for it reads it at once.

    Nothing is believed: the read decides. Any thread may call it. It sends nothing itself.

    Args:
        instance_id: the instance.

    Returns:
        Whether anybody here waits for it.

    Raises:
        ValidationError: it is no id; a list has to be told one by one.
    """
    if not isinstance(instance_id, str) or not instance_id:
        raise ValidationError(
            f"instance_id: must be the id of one instance, a non-empty text, not {type(instance_id).__name__}; call "
            "hint once for each id",
            path="instance_id",
        )
    return hint_all({instance_id}) > 0


def hint_all(names: Set[str]) -> int:
    """As ``hint``, for each instance among the names that somebody here waits for.

    Returns:
        How many waits were told.
    """
    told = 0
    for listener in listeners():
        try:
            for instance_id in listener.waits_for(names):
                listener.hint(instance_id)
                told += 1
        except RuntimeError:  # its loop is closed: nobody waits there any more
            ignore(listener)
    return told


class Listener(Protocol):
    """Whoever takes hints. Any thread may call it.

    Who was woken is awake until it has taken that in, whatever of it still sleeps: whoever moves the time of a test's
    server must not take it for one that has slept through it. Then it looks, or sleeps a moment if it has just looked.
    """

    def waits_for(self, names: Set[str]) -> Collection[str]:
        """The instances among these that it waits for."""
        ...

    def hint(self, instance_id: str) -> None:
        """Look at an instance at once."""
        ...

    def asleep(self, instance_id: str) -> Asleep | None:
        """How it sleeps until it looks at one of its instances again; None while it is awake."""
        ...

    def wake(self, instance_id: str) -> None:
        """As ``hint``; ``asleep`` tells None from now on, until it has taken that in."""
        ...


def listeners() -> list[Listener]:
    """All who take hints now."""
    with _lock:
        return list(_listeners)


def listen(listener: Listener) -> None:
    """Take hints from now on."""
    with _lock:
        _listeners.add(listener)


def ignore(listener: Listener) -> None:
    """Take no more hints."""
    with _lock:
        _listeners.discard(listener)


def _leave_to_the_parent() -> None:
    global _lock, _listeners
    _lock, _listeners = threading.RLock(), WeakSet()


os.register_at_fork(after_in_child=_leave_to_the_parent)

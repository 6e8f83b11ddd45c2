"""What the server asks of the rest of the package where both are in one process: who waits, and who is one of its own.

The server judges the rest and imports nothing of it. Whoever waits has loaded the module that can tell; as long as
that is not loaded, nobody here waits. So it is looked up among the loaded modules, and never loaded from here.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Set

_HOOK = f"{__name__.split('.', maxsplit=1)[0]}.http_hook"


class Waits(Protocol):
    """The waits of this process for some instances, at one moment."""

    @property
    def awake(self) -> int:
        """How many of them do not sleep, or sleep because they cannot read."""
        ...

    @property
    def known(self) -> Set[str]:
        """The instances that one of them waits for."""
        ...

    @property
    def instances(self) -> Set[str]:
        """Those that one sleeps for."""
        ...

    @property
    def left(self) -> float | None:
        """The least seconds that one that sleeps has until its time limit."""
        ...

    def let_pass(self, seconds: float, changed: Iterable[str]) -> None:
        """So much time has passed for those that sleep, and these instances have changed."""
        ...


class NoWaits:
    """Nobody waits."""

    awake = 0
    known: Set[str] = frozenset()
    instances: Set[str] = frozenset()
    left: float | None = None

    def let_pass(self, seconds: float, changed: Iterable[str]) -> None:
        """There is nobody to tell."""


def waits_here(instances: Set[str]) -> Waits:
    """The waits of this process for these instances."""
    made = _loaded("passing_time", "WaitsAsleep")
    waits: Waits = NoWaits() if made is None else made(instances)
    return waits


def is_of_a_hook_here(client: tuple[str, int] | None) -> bool:
    """Whether a connection, by its client's host and port, is one of a hook of this process."""
    known = _loaded("own_connections", "is_own")
    return known is not None and client is not None and bool(known(client))


def _loaded(module: str, name: str) -> Any:
    return getattr(sys.modules.get(f"{_HOOK}.{module}"), name, None)

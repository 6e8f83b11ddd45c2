"""The connections that the hooks of this process have open, so that a test's server knows its own process by them."""

from __future__ import annotations

from typing import Any
from weakref import WeakValueDictionary

_open: WeakValueDictionary[tuple[str, int], Any] = WeakValueDictionary()


def note(stream: Any) -> None:
    """A connection was made; it is forgotten as it is let go of."""
    address = stream.get_extra_info("client_addr")
    if isinstance(address, tuple) and len(address) >= 2:
        _open[address[0], address[1]] = stream


def is_own(address: tuple[str, int]) -> bool:
    """Whether one of them has this address, a host and a port, at this end."""
    return address in _open

"""An embedded server that behaves like the real one, warts included, for tests and for trying things out.

- `EmbeddedServer`: on a socket of this process.
- `create_app`: the same as an ASGI app.
- `Core`: without a network, with `InProcessTransport` and `AsyncInProcessTransport` on a `VirtualClock`.

It imitates three generations of the server. Nothing else of this package is used by it.

The same core serves both faces: `engine` (what happens), `api` (what is said about it), `definitions` and
`sending` (stages), `ledger`, `faults`, `store`; `app` and `embedded` carry it over sockets, `inprocess` doesn't.

Not imitated: wallets, payments and payouts (their activities fail as on a server without those services), the
end of the engine's memory of old runs (a `status` fault on a history call shows it), scopes of tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app import create_app
    from .clock import RealClock, VirtualClock
    from .core import Core
    from .embedded import EmbeddedServer
    from .inprocess import AsyncInProcessTransport, InProcessTransport, Unanswerable
    from .record import Record
    from .timing import Timing

_HOME_OF = {
    "AsyncInProcessTransport": "inprocess",
    "Core": "core",
    "EmbeddedServer": "embedded",
    "InProcessTransport": "inprocess",
    "RealClock": "clock",
    "Record": "record",
    "Timing": "timing",
    "Unanswerable": "inprocess",
    "VirtualClock": "clock",
    "create_app": "app",
}

__all__ = [
    "AsyncInProcessTransport",
    "Core",
    "EmbeddedServer",
    "InProcessTransport",
    "RealClock",
    "Record",
    "Timing",
    "Unanswerable",
    "VirtualClock",
    "create_app",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value

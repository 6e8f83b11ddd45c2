"""An embedded server that behaves like the real one, warts included, for tests and for trying things out.

- `EmbeddedServer`: on a socket of this process.
- `create_app`: the same as an ASGI app.
- `Core`: without a network, with `InProcessTransport` and `AsyncInProcessTransport` on a `VirtualClock`.

It imitates three generations of the server. Nothing else of this package is used by it.

The same core serves both faces. What happens: `engine` and what it names. What is said about it: `api` and what that
names. Definitions and stages: `definitions`, `sending`, `steps`. What stages call: `outside` and what it names, filled
by `seeding`. Triggers: `triggers`, `expressions`, `values`. What goes wrong: `faults`, `misread`, `mishaps`. `app`,
`bell`, `wire` and `embedded` carry it over sockets, `inprocess` doesn't.
For tests of users: `judging` (sentences about money) with `asked`, `forthcoming`, `story`; `call_log`, `set_fault`,
`skipping` (time that skips).

Not imitated: balances of wallets that expire, holds on wallets (no stage makes one), what a provider makes of a payout,
the end of the engine's memory of old runs (a `status` fault on a history call shows it), scopes of tokens.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .clock import RealClock, VirtualClock
from .record import Record
from .timing import Timing

if TYPE_CHECKING:
    from .app import create_app
    from .core import Core
    from .embedded import EmbeddedServer
    from .inprocess import AsyncInProcessTransport, InProcessTransport, Unanswerable

_LATE = {
    "AsyncInProcessTransport": "inprocess",
    "Core": "core",
    "EmbeddedServer": "embedded",
    "InProcessTransport": "inprocess",
    "Unanswerable": "inprocess",
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
    """What needs starlette, uvicorn or httpx is imported when it is asked for: not everybody has all of them."""
    home = _LATE.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{home}", __name__), name)

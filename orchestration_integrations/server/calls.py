"""One call of an operation on its way through the server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .exchange import Exchange, Request
    from .faults import Fault
    from .routes import Route


@dataclass(frozen=True, slots=True)
class Call:
    """A request, where it leads, and the exchange that its answer goes to.

    `work` is a fault that happens in the work itself (a late row, a ghost), if one was set.
    """

    exchange: Exchange
    request: Request
    route: Route
    work: Fault | None = None


class EngineAwayError(Exception):
    """The call needs the engine, which is away: it is held, and done anew when the engine is back.

    `prefix` comes before the text of the error that it gets if that takes too long.
    """

    def __init__(self, prefix: str = "") -> None:
        super().__init__(prefix)
        self.prefix = prefix

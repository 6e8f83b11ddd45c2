"""The server's clock, as the newest reading told it.

Created, took, goes on in: whatever the page says of a run's time compares the server's instants with the server's
present, never with the clock of whoever looks. Several hooks read one server, each hears its clock in its own answers,
and that clock can move: it is corrected, or a test lets weeks pass. So each reading that succeeds says here what it
heard, the newest counts, and **every** answer and event of the page carries it (``now``), those too that bring nothing
else that is new.
"""

from __future__ import annotations

import time

from ..http_hook.plans import Plans


class ServerClock:
    """The clock of one server; from any thread."""

    def __init__(self) -> None:
        self._ahead: float | None = None

    def heard(self, plans: Plans) -> None:
        """A reading has succeeded.

        Args:
            plans: of the hook that made it.
        """
        self._ahead = plans.clock.server_time() - time.time()

    @property
    def now(self) -> float | None:
        """Epoch seconds; None where no reading has succeeded yet."""
        return None if self._ahead is None else time.time() + self._ahead

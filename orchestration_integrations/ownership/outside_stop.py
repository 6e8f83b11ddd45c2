"""The stop of a run by whoever is not its waiter, from the word that is put on record to what came of it.

The stop is on record before anything is sent, and stays there whatever becomes of the cancel. So an error of the
cancel is never "nothing was changed": it says that the stop stands, and how to take it back.
"""

from __future__ import annotations

from ..api.errors import OrchestrationError, retold
from ..api.models import CancelOutcome
from ..procedures.cancel import Holding
from ..procedures.effects import Now, Procedure, ask
from .keeping import resume_command
from .marks import stop_from_outside, stop_is_over
from .record import RunStore


class OutsideStop:
    """The stop of one run.

    Args:
        store, run_key: where the record of the run is kept, and its key.
        instance_id: the run.
        now: of the hook that performs this.
    """

    def __init__(self, store: RunStore, run_key: str, instance_id: str, now: Now) -> None:
        self._store = store
        self._run_key = run_key
        self._instance_id = instance_id
        self._now = now
        self._stands = False

    def is_wanted(self) -> Procedure[bool]:
        """Whether the run may go on as far as the record tells: no end of it is there."""
        loaded = yield from ask(self._store.load, self._run_key)
        return loaded.value is None or loaded.value.end is None

    def put_up(self) -> Procedure[Holding | None]:
        """As ``stop_from_outside``."""
        holding = yield from stop_from_outside(self._store, self._run_key, self._instance_id, self._now)
        self._stands = holding is not None
        return holding

    def over(self, cancelling: Procedure[CancelOutcome]) -> Procedure[CancelOutcome]:
        """Perform a cancel that puts the stop up first. Once the run has ended, nothing is stopped any more.

        Raises:
            OrchestrationError: of the cancel; it tells of the stop where that stands.
        """
        try:
            outcome = yield from cancelling
        except OrchestrationError as error:
            if not self._stands:
                raise
            raise retold(error, f"{error}; {self._told()}") from error
        if outcome.status in ("cancelled", "already_ended"):
            yield from stop_is_over(self._store, self._instance_id)
        return outcome

    def _told(self) -> str:
        command = resume_command(self._store, self._run_key)
        back = f" ({command} takes it back)" if command else ""
        return f"the stop is on record, so whoever waits for the run lets it pass no further checkpoint{back}"

"""The steps of a start whose workflow has no gate: only proof that a run of the key exists is taken."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from ..api.calls import get_instance, get_instance_history
from ..api.definitions import strings_of
from ..api.errors import OrchestrationError
from ..api.models import Instance, StageRun
from .effects import Backoff, Procedure, do, pause
from .start import Starting


class Proof(msgspec.Struct, frozen=True):
    """A run whose history carries the key."""

    instance: Instance
    history: Sequence[StageRun]


class UngatedStart:
    """The steps of one start that has no gate to lean on.

    Args:
        starting: what the steps share.

    Attributes:
        unread: why the history of a candidate could not be read, when proof was last looked for; None where all could.
    """

    def __init__(self, starting: Starting) -> None:
        self._starting = starting
        self._now = starting.now
        self._version = starting.versions.plain
        self.unread: OrchestrationError | None = None

    def shown(self, instance: Instance) -> Procedure[Instance]:
        """The run whose answer arrived, once its row can be read: whoever gets the id next need not know it is
        young."""
        backoff = Backoff(self._now, first=0.05)
        while True:
            try:
                return (yield from do(get_instance(instance.id, self._version), self._starting.until))
            except OrchestrationError as error:
                wait = backoff.seconds(error)
            if self._now.monotonic() + wait >= self._starting.until:
                return instance
            yield from pause(wait)

    def proofs(self, places: Collection[tuple[int, str]]) -> Procedure[tuple[list[Proof], list[str]]]:
        """(runs whose history carries the key, ids of all candidates); the oldest first.

        Args:
            places: (number of a stage, path in its input) where the definition says that the key stands.
        """
        rows = yield from self._starting.candidates()
        self.unread = None
        rows.sort(key=lambda row: (row.created_at, row.id))
        proven: list[Proof] = []
        for row in rows if places else ():
            history: Sequence[StageRun]
            try:
                history = yield from do(get_instance_history(row.id, self._version, strict=True), self._starting.until)
            except OrchestrationError as error:
                self.unread = error
                continue
            shown = [
                text
                for number, run in enumerate(history)
                for path, text in strings_of(run.input)
                if (number, path) in places
            ]
            if shown and all(self._starting.is_mine(text) for text in shown):
                proven.append(Proof(row, history))
            elif row.terminated:
                self._starting.foreign.add(row.id)  # all that will ever stand in its history has been read
        return proven, [row.id for row in rows]

"""Whether this try still wants its run: asked of Airflow, before each release and each event, and when it is killed.

**SIGTERM is not a wish.** A drained worker, an evicted pod and a user's "mark failed" all send it. What is meant is
the task's state: still ``running`` means a drain, and the run is left to whoever goes on with it.

**A killed process may not ask as it likes.** ``on_kill`` runs inside the signal's handler, in the main thread. On
Airflow 3 a call to the supervisor that the signal has interrupted keeps its lock, so that every further call hangs
for good (and below 3.3 takes the wrong answer). So every call of ours goes through ``Calls``, which knows whether one
was interrupted. On Airflow 3 the interrupted call goes on after the handler, and what the kill means is found out
once it is through. On Airflow 2 it is lost, and nobody asks any more. Where no call was interrupted, each further one
is made by a thread of its own, and waited for so long and no longer.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from ..ownership.record import RunRecord
from . import compat
from .attempt import Attempt, Wish, wish
from .run_records import TaskRecords

logger = logging.getLogger("orchestration_integrations.airflow")

T = TypeVar("T")

ASK_SECONDS = 2.0 if compat.AIRFLOW_3 else 8.0
"""Seconds that a killed process waits for the word of its owner: Airflow 3 leaves it five in all, Airflow 2 sixty."""
SAVE_SECONDS = 1.0
"""Seconds that a killed process waits for a record to be saved."""

Killed = Literal["drained", "unwanted", "cleared", "succeeded", "superseded", "unknown"]
"""What a kill means: ``drained``: the try is still wanted; ``unknown``: nobody could be asked."""


class Interrupted(RuntimeError):
    """Airflow cannot be asked: the signal has interrupted a call to it, or it does not answer in time."""


class Calls:
    """Calls to Airflow from one process that a signal can interrupt."""

    def __init__(self) -> None:
        self._under_way = 0
        self._killed = False
        self._broken = False
        self._postponed: list[Callable[[], None]] = []

    def __call__(self, function: Callable[..., T], *arguments: Any) -> T:
        """Make a call; after a kill in a thread of its own, within ``SAVE_SECONDS``."""
        if self._killed:
            return self.within(SAVE_SECONDS, function, *arguments)
        self._under_way += 1
        try:
            return function(*arguments)
        except Exception:
            raise
        except BaseException:
            self._broken = True  # what interrupts a call leaves its answer unread
            raise
        finally:
            self._under_way -= 1
            while decide := self.postponed():
                decide()

    def postpone(self, decide: Callable[[], None]) -> bool:
        """Have ``decide`` called when the call that a signal has interrupted is through. False: none is under way."""
        if self._under_way == 0:
            return False
        self._postponed.append(decide)
        return True

    def postponed(self) -> Callable[[], None] | None:
        """Take what was postponed: whoever has it does it."""
        try:
            return self._postponed.pop()
        except IndexError:
            return None

    def kill(self) -> None:
        """A signal has come: the main thread may stand amid a call."""
        self._killed, self._broken = True, self._broken or self._under_way > 0

    def go_on(self) -> None:
        """The signal meant nothing: the interrupted code goes on as before."""
        self._killed = self._broken = False

    def within(self, seconds: float, function: Callable[..., T], *arguments: Any) -> T:
        """Make a call in a thread of its own.

        Raises:
            Interrupted: there is no answer, or there can be none.
        """
        if self._broken:
            raise Interrupted("the signal has interrupted a call to Airflow")
        found: list[T] = []
        failed: list[BaseException] = []

        def call() -> None:
            try:
                found.append(function(*arguments))
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        thread.join(seconds)
        if failed:
            raise failed[0]
        if not found:
            self._broken = True
            raise Interrupted(f"Airflow has not answered within {seconds:.0f} s")
        return found[0]


class CallingStore:
    """The records of a task, each call to them through ``Calls``."""

    def __init__(self, records: TaskRecords, calls: Calls) -> None:
        self._records = records
        self._calls = calls

    @property
    def complete_since(self) -> Any:
        """As of the records."""
        return self._records.complete_since

    def load(self, key: str) -> RunRecord | None:
        """As of the records."""
        return self._calls(self._records.load, key)

    def save(self, record: RunRecord) -> None:
        """As of the records."""
        self._calls(self._records.save, record)

    def choose(self, key: str, round: int, instance_id: str) -> str:
        """As of the records."""
        return self._calls(self._records.choose, key, round, instance_id)

    def settle(self, key: str) -> None:
        """As of the records."""
        self._calls(self._records.settle, key)


class TaskOwner:
    """Asks Airflow whether a try still wants its run.

    Args:
        attempt: the try.
        calls: how Airflow is called.
    """

    def __init__(self, attempt: Attempt, calls: Calls) -> None:
        self._attempt = attempt
        self._calls = calls
        self._gone: Wish | None = None

    @property
    def gone(self) -> Wish | None:
        """What a kill has made known; None while the try goes on."""
        return self._gone

    def __call__(self) -> Wish:
        """Its word now. What a kill has made known stays known. Raises what Airflow raises."""
        if self._gone is not None:
            return self._gone
        return self._calls(look, self._attempt)

    def killed(self) -> Killed:
        """What the kill of this process means. Asked within ``ASK_SECONDS``, never in the interrupted thread."""
        try:
            sight = self._calls.within(ASK_SECONDS, compat.sight_of_task, self._attempt.parts)
        except Exception as error:
            logger.warning("killed, and Airflow could not be asked why: %s", error)
            return "unknown"
        if sight.state == "success":
            return "succeeded"
        if sight.state == "restarting":
            return "cleared"
        word = wish(self._attempt, sight.state, try_number=sight.try_number, other_process=sight.other_process)
        return "drained" if word == "yes" else word

    def give_up(self, word: Wish) -> None:
        """From now on the answer is this: the interrupted code must not release anything any more."""
        self._gone = word


def look(attempt: Attempt) -> Wish:
    """What Airflow's states say of a try."""
    sight = compat.sight_of_task(attempt.parts)
    run_state = compat.state_of_dag_run(attempt.dag_id, attempt.run_id) if sight.state == "running" else None
    return wish(
        attempt,
        sight.state,
        run_state=run_state,
        try_number=sight.try_number,
        other_process=sight.other_process,
    )

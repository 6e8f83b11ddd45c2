"""One try of one task instance: what Airflow says of it, and what that means for its run. Imports nothing of Airflow.

Airflow tells a *clear*, by which a user asks for a new run, from a *retry*, which takes up the old one, only by
counters, and each version by others. What was measured on 3.3, 3.1 and 2.11:

* a clear moves ``max_tries`` (by one, and not always upwards: ``retries`` may have been edited), and a retry does not;
* 3.3 also counts clears in the DAG run. That count belongs to all its tasks, so it says nothing alone;
* a clear of a task that *runs* moves nothing on 2.11. The killed process then reads its own state as ``restarting``
  and leaves a mark with its try number.

``retries`` of the DAG file takes no part in this: an edited file is no clear.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from ..ownership.keys import structured_key
from ..ownership.record import RunRecord
from ..ownership.resolve import How

Wish = Literal["yes", "unwanted", "superseded"]

_NAME = "try "
_AT_WORK = ("running", "deferred")
_UNWANTED = ("failed", "restarting", "skipped", "upstream_failed", "removed")


@dataclass(frozen=True)
class Attempt:
    """Who is at work.

    Attributes:
        dag_id, run_id, task_id, map_index: the task instance; map index -1 where the task is not mapped.
        try_number: from 1.
        max_tries: as Airflow has it for this task instance.
        retries: what Airflow compares besides: those of the DAG file on 2.11; on 3.x, which looks at ``max_tries``
            alone, ``max_tries``.
        clear_number: how often tasks of the DAG run were cleared (3.3); None where Airflow does not say.
        first_instant: an instant before which this task instance surely did nothing.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    max_tries: int
    retries: int
    clear_number: int | None
    first_instant: datetime

    @property
    def name(self) -> str:
        """Names this try in the record."""
        return f"{_NAME}{self.try_number}"

    def is_before(self, record: RunRecord) -> bool:
        """Whether a later try has the record."""
        number = _number(record)
        return number is not None and number > self.try_number

    @property
    def parts(self) -> tuple[str, str, str, int]:
        """What names the task instance."""
        return (self.dag_id, self.run_id, self.task_id, self.map_index)

    @property
    def key(self) -> str:
        """The default run key: made of ids alone, so that no template can change it between tries."""
        return structured_key(*self.parts)

    @property
    def facts(self) -> dict[str, Any]:
        """What is put on record, to tell a later clear from a retry."""
        return {"max_tries": self.max_tries, "clear_number": self.clear_number}

    @property
    def tries_left(self) -> bool:
        """Whether Airflow, by its counters, may try again. Whether it does is for ``giving_up.retry_follows``."""
        return self.retries > 0 and self.try_number <= self.max_tries


def asked(
    attempt: Attempt, record: RunRecord | None, *, marked_try: int | None = None, rerun_on_clear: bool = True
) -> How:
    """What this try asks for.

    Args:
        attempt: the try.
        record: what is on record of the task instance.
        marked_try: the try that a user cleared while it ran, as its killed process has noted.
        rerun_on_clear: False: a clear is answered by the end on record, as a retry is.

    Returns:
        ``first``: nothing was ever done before; ``new``: a user asked for a new run; ``again``: all else.
    """
    if record is None:
        return "first" if attempt.try_number <= 1 else "again"
    if not rerun_on_clear:
        return "again"
    return "new" if _was_cleared(attempt, record.facts) or _names(marked_try, record) else "again"


def _was_cleared(attempt: Attempt, facts: Mapping[str, Any]) -> bool:
    """Whether the counters have moved since the record was last taken up."""
    before = facts.get("max_tries")
    if before is None or before == attempt.max_tries:
        return False
    counted = facts.get("clear_number")
    if counted is None or attempt.clear_number is None:
        return True
    return bool(counted != attempt.clear_number)


def _names(marked_try: int | None, record: RunRecord) -> bool:
    """Whether a mark speaks of the try that has the record, or of a later one that never came to take it up."""
    if marked_try is None:
        return False
    number = _number(record)
    return number is not None and marked_try >= number


def _number(record: RunRecord) -> int | None:
    """The try that has the record; None where its name is no try's."""
    number = record.attempt.removeprefix(_NAME)
    return int(number) if record.attempt.startswith(_NAME) and number.isdecimal() else None


def wish(
    attempt: Attempt,
    task_state: str | None,
    *,
    run_state: str | None = None,
    try_number: int | None = None,
    other_process: bool = False,
) -> Wish:
    """Whether this try still wants its run.

    Args:
        attempt: the try that asks.
        task_state: of the task instance, as Airflow has it now; None where it has none.
        run_state: of the DAG run; None where that was not asked.
        try_number: that Airflow has for the task instance now (2.11); None where it does not say.
        other_process: Airflow has another process for this try (2.11).

    Returns:
        ``unwanted``: a user, a limit or another task has ended it, and the run is to be cancelled.
        ``superseded``: another try has it, or will have it, or a user has declared it a success. The run is left
        alone then: whoever declared a success did not ask for half a payment.
    """
    if other_process or (try_number is not None and try_number != attempt.try_number):
        return "superseded"
    if task_state in _UNWANTED:
        return "unwanted"
    if task_state in _AT_WORK:
        return "unwanted" if run_state == "failed" else "yes"
    return "superseded"

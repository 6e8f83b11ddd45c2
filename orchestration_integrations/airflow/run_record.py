"""What a task remembers of its run between tries, and what a try does about it.

A try can die at any moment, so what it is about to do is written down first: the intent (key, server,
clear generation, time) before the submit, the instance's id before its release, its end before it is
reported. The next try reads that and attaches, reports, or starts; it never guesses.

Airflow 3.3 keeps the record in the task state store, which outlives tries, worker deaths and clears.
Below, there is none, and the run key alone has to find the run again on the server.

**Clear generation.** A user who clears a task asks for a new run, an automatic retry does not. A clear
sets ``max_tries`` to the try number plus ``retries`` and nothing else moves it, so ``max_tries - retries`` tells
them apart. Clearing a task *while it runs* may not move it; then the kill that it causes leaves a mark.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from typing import Any

from .compat import NEVER_EXPIRE

logger = logging.getLogger("orchestration_integrations.airflow")

STORE_KEY = "orchestration_run"


@dataclass
class RunRecord:
    """One run of one task, as its tries know it. Plain JSON values.

    Attributes:
        key: its run key.
        server: base URL of the server that it was submitted to.
        workflow_id: what it runs.
        generation: clear generation that started it.
        max_tries: of the task when the generation was last looked at.
        try_number: of the try that last looked.
        since: ISO instant before the first submit with this key.
        rerun: how many failed runs of this generation were replaced.
        instance_id: chosen, known from before its release.
        started: its start was confirmed; nothing is left to be sent.
        seen: the server has shown its row; rows can be late.
        cleared: the task was cleared while it ran.
        end: state in which its end was reported, None before.
        end_try: try that reported it.
    """

    key: str
    server: str
    workflow_id: str
    generation: int
    max_tries: int
    try_number: int
    since: str
    rerun: int = 0
    instance_id: str | None = None
    started: bool = False
    seen: bool = False
    cleared: bool = False
    end: str | None = None
    end_try: int = 0

    @property
    def since_instant(self) -> datetime:
        """``since`` as an aware datetime."""
        return datetime.fromisoformat(self.since)


@dataclass(frozen=True)
class Attempt:
    """Who is running: one try of one task instance."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    max_tries: int
    retries: int
    first_instant: datetime

    @property
    def generation(self) -> int:
        """Clear generation by the counters; 0 before any clear."""
        return max(0, self.max_tries - self.retries)

    @property
    def first_of_generation(self) -> bool:
        """Whether no earlier try of this generation ran."""
        return self.try_number - self.generation <= 1

    @property
    def retry_follows(self) -> bool:
        """Whether Airflow would try again after a failure of this try."""
        return self.try_number <= self.max_tries and self.max_tries > 0

    def base_key(self, generation: int) -> str:
        """The default run key: made of ids alone, so that no template can change it between tries."""
        return f"{self.dag_id}/{self.run_id}/{self.task_id}/{self.map_index}/{generation}"

    def was_cleared(self, record: RunRecord) -> bool:
        """Whether a user cleared the task after the record was last looked at.

        A change of ``retries`` in the DAG moves ``max_tries - retries`` too, but not ``max_tries``.
        """
        if record.cleared:
            return True
        return self.max_tries != record.max_tries and self.generation >= record.try_number


def attempt_of(context: Any) -> Attempt:
    """The running try, from a task's context."""
    ti = context["ti"]
    task = ti.task
    dag_run = context.get("dag_run")
    now = datetime.now(timezone.utc)
    instants = [one for one in (getattr(dag_run, "start_date", None), ti.start_date) if one is not None]
    return Attempt(
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=-1 if ti.map_index is None else ti.map_index,
        try_number=ti.try_number,
        max_tries=ti.max_tries if ti.max_tries is not None else 0,
        retries=task.retries or 0,
        first_instant=min([*instants, now]),
    )


def rerun_key(base: str, rerun: int) -> str:
    """The key of the run that replaces the ``rerun``-th failed one."""
    return base if rerun == 0 else f"{base}#{rerun}"


class RecordStore:
    """Where the record is kept; nowhere below Airflow 3.3."""

    def __init__(self, context: Any) -> None:
        self._store = context.get("task_state_store")

    @property
    def durable(self) -> bool:
        """Whether a record outlives the try."""
        return self._store is not None

    def load(self) -> RunRecord | None:
        """The record of an earlier try, or None.

        Raises:
            ValueError: there is one, and it can't be read: a guess instead could pay twice.
        """
        if self._store is None:
            return None
        stored = self._store.get(STORE_KEY)
        if stored is None:
            return None
        names = {one.name for one in fields(RunRecord)}
        try:
            return RunRecord(**{name: value for name, value in dict(stored).items() if name in names})
        except (TypeError, ValueError):
            raise ValueError(
                f"the record {STORE_KEY!r} in the task state store can't be read, so an earlier run may exist; "
                "delete it there once you know how that run ended"
            ) from None

    def save(self, record: RunRecord) -> None:
        """Write the record. Raises whatever the store raises: what is not written down must not be done."""
        if self._store is None:
            return
        self._store.set(STORE_KEY, asdict(record), retention=NEVER_EXPIRE)

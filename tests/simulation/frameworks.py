"""What a framework says of an attempt, and what its face makes of that: the faces' own code, without the frameworks.

Each framework is a small model of what was measured of the real one: which counters a clear, a retry, an edit of the
DAG file move, and which ids stay over a retry. A face translates that into what the owner protocol is asked.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from orchestration_integrations.airflow.attempt import Attempt as Try
from orchestration_integrations.airflow.attempt import asked
from orchestration_integrations.ownership.record import RunRecord
from orchestration_integrations.prefect import attempt as prefect


@dataclass
class PlainPython:
    """A script that names its attempts, and knows itself whether a new run is wanted."""

    name: str = "plain"
    number: int = 0

    def next_attempt(self, rng: random.Random, *, new: bool, same: bool) -> None:
        """An attempt begins."""
        self.number += not same

    def request(self, record: RunRecord | None, *, new: bool, first: bool, born: datetime) -> dict[str, Any]:
        """What the protocol is asked."""
        how = "new" if new else "first" if first and record is None else "again"
        return {"how": how, "attempt": f"call {self.number}"}


@dataclass
class Airflow:
    """A task instance: ``new`` is a clear by a user, all else a retry."""

    name: str
    counts_clears: bool
    try_number: int = 0
    retries: int = 2
    max_tries: int = 2
    clears: int = 0
    marked: int | None = None
    ended: bool = False

    def next_attempt(self, rng: random.Random, *, new: bool, same: bool) -> None:
        """A try begins. A clear of a task that runs moves nothing on 2.11; then a killed process leaves a mark."""
        if same:
            return
        if rng.random() < 0.2:
            self.retries = rng.choice([0, 1, 2, 3])  # the DAG file was edited, which is no clear
        if new and self.try_number > 0:
            if self.counts_clears:
                self.max_tries = self.try_number + self.retries
                self.clears += 1
                if rng.random() < 0.1:
                    self.clears += 1  # a sibling was cleared too
            elif self.ended:
                self.max_tries = self.try_number + self.retries
            if rng.random() < 0.5:
                self.marked = self.try_number
        elif self.counts_clears and rng.random() < 0.1:
            self.clears += 1  # only a sibling was cleared
        self.try_number += 1

    def request(self, record: RunRecord | None, *, new: bool, first: bool, born: datetime) -> dict[str, Any]:
        """As the run operator asks."""
        attempt = Try(
            dag_id="dag",
            run_id="run",
            task_id="pay",
            map_index=-1,
            try_number=self.try_number,
            max_tries=self.max_tries,
            retries=self.retries,
            clear_number=self.clears if self.counts_clears else None,
            first_instant=born,
        )
        how = asked(attempt, record, marked_try=self.marked)
        decided_on = "" if record is None else record.attempt
        return {"how": how, "attempt": attempt.name, "decided_on": decided_on, "facts": attempt.facts}


@dataclass
class Prefect:
    """A flow run with a task in it: a retry of either comes again, another call in one attempt is a rival."""

    name: str = "prefect"
    flow_attempts: int = 0
    task_attempts: int = 0
    task: int = 0
    process: int = 0
    given: list[prefect.Claim] = field(default_factory=list)

    def next_attempt(self, rng: random.Random, *, new: bool, same: bool) -> None:
        """The flow is retried, whose tasks have new ids then, or the task is. Each has a process of its own."""
        if same:
            return
        self.process += 1
        if self.flow_attempts and rng.random() < 0.5:
            self.task_attempts += 1
            return
        self.flow_attempts += 1
        self.task_attempts, self.task = 1, self.task + 1

    def request(self, record: RunRecord | None, *, new: bool, first: bool, born: datetime) -> dict[str, Any]:
        """As a named step asks. Prefect has no clear: whoever wants a new run settles the key."""
        facts = prefect.AttemptFacts(
            (
                prefect.Enclosure("flow", self.flow_attempts, is_flow=True),
                prefect.Enclosure(f"task {self.task}", self.task_attempts),
            ),
            process=f"process {self.process}",
        )
        claim = prefect.claim_step(facts, "payout")
        return {
            "how": None if facts.later else "first",
            "attempt": facts.name,
            "facts": facts.on_record(claim.call),
            "rival": facts.is_rival,
        }


def some_framework(rng: random.Random) -> PlainPython | Airflow | Prefect:
    """One of them."""
    kind = rng.choice(["plain", "plain", "airflow 3.3", "airflow 2.11", "prefect"])
    if kind == "plain":
        return PlainPython()
    if kind == "prefect":
        return Prefect()
    return Airflow(kind, counts_clears=kind == "airflow 3.3")

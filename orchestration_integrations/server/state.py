"""What the server knows: workflows, instances with their rows and runs, triggers. Plain data, as it is stored."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Workflow:
    """A definition as it was sent."""

    id: str
    name: str
    stages: list[Any] | None
    created_ns: int
    deleted_ns: int | None = None


@dataclass(slots=True)
class StageRow:
    """What the database says about a stage; the truth is in `StageRun`."""

    stage: int
    started_ns: int
    run_id: str
    terminated_ns: int | None = None
    error: str = ""


@dataclass(slots=True)
class Activity:
    """One step of a stage, with its attempts."""

    name: str
    step: dict[str, Any]
    started_ns: int
    attempt: int = 1
    last_failure: str = ""
    next_ns: int | None = None
    running: bool = False
    terminated_ns: int | None = None
    error: str = ""
    output: Any = None
    has_output: bool = False


@dataclass(slots=True)
class StageRun:
    """The work of a stage in the engine. `terminated_ns` None: under way."""

    number: int
    kind: str
    input: dict[str, Any]
    resolved: dict[str, Any]
    started_ns: int
    terminated_ns: int | None = None
    error: str = ""
    queue: list[str] = field(default_factory=list)
    """Events taken in by a wake-up and not yet looked at."""
    batch: list[str] = field(default_factory=list)
    """Events of the wake-up under way."""
    later: list[str] = field(default_factory=list)
    """Events that came while it was."""
    waking: bool = False
    activities: list[Activity] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    """The next step, decided and not begun; none: the work is done."""


@dataclass(slots=True)
class Instance:
    """An instance's row, its stages' rows, and the run behind it, if there is one."""

    id: str
    workflow_id: str
    created_ns: int
    variables: dict[str, str]
    visible_ns: int = 0
    """Reads don't see the row before."""
    started: bool = False
    """The engine has a run for it; else it is a ghost."""
    ended: bool = False
    """The run in the engine is over, whatever the row says."""
    end_error: str = ""
    end_type: str = ""
    """What the engine calls the type of that error."""
    cancelled: bool = False
    terminated_ns: int | None = None
    error: str = ""
    rows: list[StageRow] = field(default_factory=list)
    runs: dict[int, StageRun] = field(default_factory=dict)


@dataclass(slots=True)
class Trigger:
    """Starts a run of a workflow for each event message of a type that passes its filter."""

    id: str
    event: str
    workflow_id: str
    created_ns: int
    name: str = ""
    filter: str | None = None
    vars: dict[str, str] | None = None
    deleted: bool = False
    occurrences: list[dict[str, Any]] = field(default_factory=list)


def dump(value: Any) -> dict[str, Any]:
    """One of the above as JSON values."""
    return dataclasses.asdict(value)


def load_instance(data: dict[str, Any]) -> Instance:
    """The reverse of `dump` for an instance."""
    instance = Instance(**data)
    instance.rows = [StageRow(**row) for row in data["rows"]]
    instance.runs = {}
    for number, run in data["runs"].items():
        loaded = StageRun(**run)
        loaded.activities = [Activity(**a) for a in run["activities"]]
        instance.runs[int(number)] = loaded
    return instance

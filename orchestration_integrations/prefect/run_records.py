"""Where Prefect keeps the records of runs: artifacts that are only ever added, and a variable for each choice.

Every saving of a record is an artifact of the type ``orchestration-record``; all those of one key have one artifact
key, so they are read with one call, however many records stand there, and the outermost flow run is noted on them, so
that those of a flow run are listed with one call for each two hundred. Rows are folded: the highest round, then the
highest revision; of two savings of one revision the earlier one stands, and whoever wrote the later one has lost the
record. An artifact cannot be compared and set, so two writers at the very same moment may both believe for one step
that they have it. That costs nothing: the *choice* of the instance that is released is the creation of a variable, of
which Prefect has one for a name, so the first choice stands.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any
from uuid import UUID

from prefect.client.schemas.actions import ArtifactCreate, VariableCreate
from prefect.client.schemas.filters import (
    ArtifactCollectionFilter,
    ArtifactCollectionFilterFlowRunId,
    ArtifactCollectionFilterTaskRunId,
    ArtifactCollectionFilterType,
    ArtifactFilter,
    ArtifactFilterKey,
    ArtifactFilterType,
)
from prefect.exceptions import ObjectAlreadyExists

from ..api.errors import UnreadableRecordError, ValidationError
from ..ownership.keeping import resume
from ..ownership.record import RunRecord, conflict, tombstone
from .api import api, read_flow_run
from .marks import TAG, PrefectMarks

logger = logging.getLogger("orchestration_integrations.prefect")

RECORD_TYPE = "orchestration-record"
PAGE = 200
"""Rows that Prefect gives at once."""


def artifact_key(run_key: str) -> str:
    """The key of the artifacts that hold the record of a run key."""
    return f"orchestration-record-{hashlib.sha256(run_key.encode()).hexdigest()[:32]}"


def choice_name(run_key: str, round: int) -> str:
    """The name of the variable that holds which instance was chosen."""
    return f"orchestration_choice_{hashlib.sha256(f'{round}~{run_key}'.encode()).hexdigest()[:40]}"


@dataclass(frozen=True)
class Row:
    """One saving, as Prefect gives it. ``order``: by its arrival."""

    order: tuple[datetime, str]
    record: RunRecord


def folded(rows: Iterable[Row]) -> list[RunRecord]:
    """What stands, one record for each round and revision, the latest last. In whatever order the rows come."""
    standing: dict[tuple[int, int], Row] = {}
    for row in rows:
        place = (row.record.round, row.record.revision)
        other = standing.get(place)
        if other is None or row.order < other.order:
            standing[place] = row
    return [standing[place].record for place in sorted(standing)]


class PrefectRunStore:
    """The records of runs that Prefect runs start.

    Args:
        complete_since: from when on the absence of a record proves that a key was not used: the creation of the
            outermost run, for a key that is made of it. None for a key of the user's, which others may have used.

    Attributes:
        mark_place: where the marks of runs with checkpoints are.
    """

    def __init__(self, *, complete_since: datetime | None = None) -> None:
        # A key of the user's: this store knows nothing of the time before it looked.
        self._complete_since = complete_since or datetime.now(timezone.utc)
        self._known: set[str] = set()
        self.mark_place = PrefectMarks()

    @property
    def complete_since(self) -> datetime | None:
        """From when on the absence of a record proves that a key was not used."""
        return self._complete_since

    def load(self, key: str) -> RunRecord | None:
        """The record of a key. One call.

        Raises:
            UnreadableRecordError: a row of it cannot be read.
        """
        standing = folded(self._rows(key))
        self._known.update(record.nonce for record in standing)
        return standing[-1] if standing else None

    def save(self, record: RunRecord) -> None:
        """Add a record. One call; two where something is about to happen that another holder of the key must not do.

        Raises:
            RecordConflictError: another one was saved that this one does not follow.
        """
        self._add(record)
        self._known.add(record.nonce)
        undecided = record.state == "intended" or (record.state == "chosen" and not record.seen)
        if undecided or record.hold:
            standing = folded(self._rows(record.key))
            latest = standing[-1] if standing else record
            foreign = next(
                (one for one in standing if one.nonce not in self._known and one.round >= record.round), None
            )
            if foreign is not None:
                raise conflict(record.key, latest if latest.nonce != record.nonce else foreign)

    def choose(self, key: str, round: int, instance_id: str) -> str:
        """The first choice of a round stands. One call; two where another one was made before."""
        name = choice_name(key, round)
        try:
            api().create_variable(VariableCreate(name=name, value=instance_id, tags=[TAG]))
        except ObjectAlreadyExists:
            stored = api().read_variable_by_name(name)
            if stored is None:
                raise RuntimeError(f"variable {name} was removed while it was read") from None
            return str(stored.value)
        return instance_id

    def settle(self, key: str) -> None:
        """Have the next start of a key be a new round. Nothing is deleted."""
        self._add(tombstone(self.load(key), key))

    def _rows(self, key: str) -> list[Row]:
        wanted = ArtifactFilter(
            key=ArtifactFilterKey(any_=[artifact_key(key)]), type=ArtifactFilterType(any_=[RECORD_TYPE])
        )
        rows: list[Row] = []
        while True:
            page = api().read_artifacts(artifact_filter=wanted, limit=PAGE, offset=len(rows))
            rows += [_row(one, key) for one in page]
            if len(page) < PAGE:
                return [row for row in rows if row.record.key == key]

    def _add(self, record: RunRecord) -> None:
        instance = f", instance `{record.instance_id}`" if record.instance_id else ""
        end = f", {record.end}" if record.end else ""
        flow_run_id = record.facts.get("flow_run_id")
        api().create_artifact(
            ArtifactCreate(
                key=artifact_key(record.key),
                type=RECORD_TYPE,
                description=f"Run key `{record.key}`: {record.state}{end}{instance}",
                data=record.to_json(),
                flow_run_id=UUID(str(flow_run_id)) if flow_run_id else None,
                task_run_id=None if flow_run_id else _root_task(record),
            )
        )


def _root_task(record: RunRecord) -> UUID | None:
    """The outermost task run of a call outside any flow; None outside any run."""
    path = record.facts.get("path")
    return UUID(str(path[0][0])) if path else None


def _row(artifact: Any, key: str) -> Row:
    try:
        record = RunRecord.from_json(artifact.data)
    except UnreadableRecordError as error:
        raise UnreadableRecordError(str(error), run_key=key) from None
    return Row((artifact.created, str(artifact.id)), record)


def records_of_flow_run(flow_run_id: UUID) -> list[RunRecord]:
    """The latest record of each key that a flow run, its tasks or its subflows used. One call for each 200 keys, and
    two more for each flow run around it. One that cannot be read is told in the log and passed over.
    """
    root = _outermost(flow_run_id)
    found = records_of_root(root)
    if root == flow_run_id:
        return found
    return [record for record in found if any(one[0] == str(flow_run_id) for one in record.facts.get("path", ()))]


def records_of_root(root: UUID, *, is_flow: bool = True) -> list[RunRecord]:
    """The same for an outermost flow run, or, outside any flow, an outermost task run. One that cannot be read is told
    in the log and passed over, so that it keeps nobody from the others."""
    wanted = ArtifactCollectionFilter(
        flow_run_id=ArtifactCollectionFilterFlowRunId(any_=[root]) if is_flow else None,
        task_run_id=None if is_flow else ArtifactCollectionFilterTaskRunId(any_=[root]),
        type=ArtifactCollectionFilterType(any_=[RECORD_TYPE]),
    )
    found: dict[str, RunRecord] = {}
    offset = 0
    while True:
        page = api().read_latest_artifacts(artifact_filter=wanted, limit=PAGE, offset=offset)
        for row in page:
            try:
                record = RunRecord.from_json(row.data)
            except UnreadableRecordError as error:
                logger.error("artifact %s: %s", row.latest_id, error)
                continue
            found[record.key] = record
        offset += len(page)
        if len(page) < PAGE:
            return list(found.values())


def _outermost(flow_run_id: UUID) -> UUID:
    following = flow_run_id
    while True:
        run = read_flow_run(following)
        if run.parent_task_run_id is None:
            return run.id
        around = api().read_task_run(run.parent_task_run_id).flow_run_id
        if around is None:
            return run.id
        following = around


def settle_run(run_key: str) -> dict[str, Any]:
    """Say that the fate of a run is settled: the next start of its key is a new run. Nothing is deleted.

    For a key whose run may exist (AmbiguousRunError) once you know how it ended. This call touches no run; where the
    run on record still goes on, the next start cancels it first, and waits for it where that does not end it.

    Args:
        run_key: as ``run_workflow`` returned it, or as the error names it.

    Returns:
        ``{"run_key", "state", "instance_id", "round"}``: what was on record.

    Raises:
        ValidationError: nothing is on record of the key.
    """
    store = PrefectRunStore()
    before = store.load(run_key)
    if before is None:
        raise ValidationError(f"run_key: there is no record of run key {run_key}", path="run_key")
    store.settle(run_key)
    return {
        "run_key": run_key,
        "state": before.state,
        "instance_id": before.instance_id,
        "round": before.round,
    }


def resume_run(run_key: str) -> dict[str, Any]:
    """Take back the stop of a run that is held at a checkpoint: whoever waits for it next lets the same run go on.

    That is the next attempt of the flow run that had started it (run it again, from Prefect's UI for example), or a
    ``wait_for_instance`` anywhere. This call itself sends nothing, so until then the run stands where it is. What it
    had paid is not paid again.

    Args:
        run_key: as ``run_workflow`` returned it, or as the error names it.

    Returns:
        ``{"run_key", "state", "instance_id", "round", "held_by"}``: what was on record; ``held_by`` says who had asked
        for the stop, None where nobody had.

    Raises:
        ValidationError: nothing is on record of the key.
        RecordConflictError: an attempt is at work with it at this moment; call again.
    """
    store = PrefectRunStore()
    before = resume(store, run_key)
    if before is None:
        raise ValidationError(f"run_key: there is no record of run key {run_key}", path="run_key")
    return {
        "run_key": run_key,
        "state": before.state,
        "instance_id": before.instance_id,
        "round": before.round,
        "held_by": before.held_by if before.hold else None,
    }

"""A user says: *this run is the payment of that key.* Its record then names it, and no call with the key pays again.

Only a submit without a gate needs that: its answer was lost, and its run shows no key. What a user says is checked as
far as the server and the store can tell: the run is of the workflow on record, was not created before the attempt,
shows no other content, and is the run of no other key. The store binds it by the same steps as every other run: the
first choice of a round stands, and the record must follow the one that was read. Both happen at once, together with
the look for another owner, so that two keys can never adopt one run, and no settled key pays beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol, TypeVar

from ..api.calls import Call, get_instance, get_instance_history, get_workflow
from ..api.errors import AuthenticationError, ConfigurationError, ValidationError, retold
from ..api.instants import UNKNOWN_INSTANT
from ..api.models import Instance, StageRun
from ..procedures.content import other_content
from ..procedures.effects import Now, Procedure, ask_or_raise, insist
from ..procedures.gate import GateText, parsed_event
from ..procedures.listing import Versions
from ..procedures.start import earliest_of
from ..procedures.variables import KEY_VARIABLE
from .record import NO_HOLD, RunRecord, RunStore
from .request import may_settle

T = TypeVar("T")
ADOPTER = "runs adopt"
"""Names the attempt that binds a run by a user's word."""
READ_SECONDS = 15.0
"""Seconds for reading the run."""
UNDER_WAY = timedelta(minutes=5)
"""A submit that is younger may still get its answer, and with it this very run or another one."""
_MINUTES = int(UNDER_WAY.total_seconds() // 60)


class AdoptingStore(RunStore, Protocol):
    """A store that can tell whose runs all instances are."""

    def records(self) -> Sequence[RunRecord]:
        """All records that can be read."""
        ...

    def owners(self) -> Mapping[str, tuple[str, int]]:
        """Whose run each instance is, by its id: the key and the round."""
        ...

    def bind(self, record: RunRecord) -> None:
        """Choose the instance of a record for its round and store the record, both or neither.

        Raises:
            RecordConflictError: it does not follow the stored one.
            ValidationError: the instance is the run of another key or round, or the round has another one.
        """
        ...


def adopt(
    store: AdoptingStore,
    key: str,
    instance_id: str,
    token: str | None,
    versions: Versions,
    now: Now,
    *,
    although_it_differs: bool = False,
) -> Procedure[RunRecord]:
    """Put on record that an instance is the run of a key whose submit got no answer.

    Args:
        token: of the AmbiguousRunError, so that this speaks of that very fate, and the call that submitted has ended;
            None: of whatever is on record now.
        although_it_differs: the user knows that it is this payment, although it shows another text of a variable.

    Raises:
        ConfigurationError: there is no record of the key.
        ValidationError: the instance cannot be its run, or the fate of the key is not unknown; nothing was changed.
        RecordConflictError: another process has changed the record meanwhile; nothing was changed.
        OrchestrationError: the instance could not be read; nothing was changed. Where the server refuses that,
            ``run_may_exist`` is True: it says nothing of whose run this is.
    """
    record: RunRecord | None = yield from ask_or_raise(store.load, key)
    if record is None:
        raise ConfigurationError(f"there is no record of run key {key}", field="run_key")
    _check_fate(record, instance_id, token)
    until = now.monotonic() + READ_SECONDS
    instance = yield from _read(get_instance(instance_id, versions.plain), now, until)
    _check_row(record, instance, now)
    stages = (yield from _read(get_workflow(record.workflow_id, versions.plain), now, until)).stages
    history = yield from _read(get_instance_history(instance_id, versions.plain, strict=True), now, until)
    gate = _gate_of(record, instance_id, history)
    other = other_content(record.content, key, KEY_VARIABLE, stages, history)
    if other is not None and not although_it_differs:
        raise ValidationError(
            f"instance {instance_id} shows another text of variable {other} than the one that key {key} was submitted "
            "with; nothing was changed. It may be another payment; but a server writes 007 as 7, and fills in what is "
            "empty. If you know that it is this payment: --although-it-differs",
            path="instance_id",
        )
    records: Sequence[RunRecord] = yield from ask_or_raise(store.records)
    _check_rivals(record, instance, records, stages, history, now)
    if token is None and _is_young(record, now):
        raise ValidationError(
            f"key {key} was submitted at {record.since.isoformat(timespec='seconds')}, and its call may still get the "
            f"answer; nothing was changed. Give the token of its AmbiguousRunError, or call again {_MINUTES} minutes "
            "after that",
            path="settled",
        )
    bound = record.changed(
        state="chosen",
        instance_id=instance.id,
        seen=True,
        created_at=instance.created_at,
        end=None,
        gate=gate.text if gate is not None else "",
        round=gate.round if gate is not None else record.round,
        doubt=False,
        settled=False,
        attempt=ADOPTER,
        returned=False,
        told_by="",
        passing=(),
        **NO_HOLD,
    )
    yield from ask_or_raise(store.bind, bound)
    return bound


def _read(call: Call[T], now: Now, until: float) -> Procedure[T]:
    """What the server shows. A refusal must not look like "it cannot be the payment", which is then paid anew."""
    try:
        return (yield from insist(call, now, until))
    except (AuthenticationError, ValidationError) as error:
        refused = retold(error, f"{error}; nothing was changed, and whether it is the payment is not known")
        refused.run_may_exist = True
        raise refused from error


def _check_fate(record: RunRecord, instance_id: str, token: str | None) -> None:
    key = record.key
    if record.instance_id is not None:
        known = "it" if record.instance_id == instance_id else record.instance_id
        raise ValidationError(
            f"the run of key {key} is known: {known} is on record; nothing was changed. run goes on with it",
            path="run_key",
        )
    if not record.workflow_id:
        raise ValidationError(f"key {key} was settled before any run of it; nothing was changed", path="run_key")
    if record.gate and not record.doubt:
        raise ValidationError(
            f"runs of key {key} name it at their gate, so nothing has to be said of them; nothing was changed. Run "
            "again with the key: it finds its run",
            path="run_key",
        )
    if token is not None and not may_settle(record, key, (token,)):
        raise ValidationError(
            f"settled: {token} speaks of another fate than the one that is on record of key {key}; nothing was "
            "changed. reconcile prints the one that holds now",
            path="settled",
        )


def _gate_of(record: RunRecord, instance_id: str, history: Sequence[StageRun]) -> GateText | None:
    """The gate that is behind a run; None where it has none. One that stands there, or has another key, is refused."""
    first = history[0] if history and history[0].name == "RunWaitEvent" else None
    gate = parsed_event(first.input.get("event")) if first is not None else None
    if first is None or gate is None:
        return None
    why = ""
    if gate.key != record.key:
        why = f"has the key {gate.key}"
    elif not first.terminated or first.error is not None:
        why = "was not released, so it has paid nothing; cancel it if nobody wants it"
    if why:
        raise ValidationError(f"instance {instance_id} {why}; nothing was changed", path="instance_id")
    return gate


def _is_young(record: RunRecord, now: Now) -> bool:
    return now.time() - record.since.timestamp() < UNDER_WAY.total_seconds()


def _check_row(record: RunRecord, instance: Instance, now: Now) -> None:
    if instance.workflow_id != record.workflow_id:
        raise ValidationError(
            f"instance {instance.id} is of workflow {instance.workflow_id}, and key {record.key} was submitted to "
            f"workflow {record.workflow_id}; nothing was changed",
            path="instance_id",
        )
    if instance.created_at == UNKNOWN_INSTANT or instance.created_at < earliest_of(record.since, now):
        raise ValidationError(
            f"instance {instance.id} was created at {instance.created_at.isoformat()}, before key {record.key} was "
            f"submitted ({record.since.isoformat()}); nothing was changed",
            path="instance_id",
        )


def _check_rivals(
    record: RunRecord,
    instance: Instance,
    records: Sequence[RunRecord],
    stages: Sequence[Mapping[str, Any]],
    history: Sequence[StageRun],
    now: Now,
) -> None:
    """Refuse a run that another key may be submitting at this moment: its answer would bind the run to that one."""
    for other in records:
        lost = other.state == "intended" and other.instance_id is None and not other.gate
        if other.key == record.key or not lost or other.doubt or other.settled:
            continue
        could_be = other.workflow_id == record.workflow_id and instance.created_at >= earliest_of(other.since, now)
        if not could_be or not _is_young(other, now):
            continue
        if other_content(other.content, other.key, KEY_VARIABLE, stages, history) is None:
            raise ValidationError(
                f"instance {instance.id} may be the run of key {other.key}, which was submitted at "
                f"{other.since.isoformat(timespec='seconds')} and may still get its answer; nothing was changed. Call "
                f"again {_MINUTES} minutes after that",
                path="instance_id",
            )

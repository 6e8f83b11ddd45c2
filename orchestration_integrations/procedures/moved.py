"""What a run had moved, and what may still move, read from its histories.

Best effort, bounded by the caller: a history that cannot be read makes ``complete`` False and
fails nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import msgspec

from ..api.calls import get_instance_history, get_stage_history
from ..api.errors import OrchestrationError, TransportError
from ..api.instants import UNKNOWN_INSTANT
from ..api.models import CANCELED, ActivityRun, Instance, Moved, StageRun, StageStatus, Transaction
from .effects import Now, Procedure, do
from .listing import Versions

RUNS = {"send": "RunSend", "delay": "RunDelay", "wait_event": "RunWaitEvent", "update": "RunUpdate"}
"""How the history names the kinds of stage."""
STILL = frozenset({"RunDelay", "RunWaitEvent"})
"""Stages that call nobody."""
UPDATES = frozenset({"RunUpdate"})
"""Stages that write metadata and pay nobody."""
READS = frozenset({"GetAccount", "AddAccountMetadata", "GetPayment", "GetWallet", "ListWallets"})
"""Activities that move no money. Any other, also one never heard of, is taken to move some."""
SUSPICIOUS = timedelta(seconds=10)
"""Generation 1 gives an attempt up so long after its start, and repeats it without an idempotency key."""

NOTHING_READ = Moved(stages_completed=0, transactions=(), complete=False)


class Reading(msgspec.Struct, frozen=True):
    """What the histories of an instance tell.

    Attributes:
        moved: what had moved.
        in_flight: money-moving activities that had not ended.
        stages: the stages whose work was launched.
        unread: why a part of them could not be read; None where all could.
    """

    moved: Moved
    in_flight: tuple[ActivityRun, ...] = ()
    stages: Sequence[StageRun] = ()
    unread: OrchestrationError | None = None


def completed(instance: Instance) -> int:
    """How many stages ended without an error."""
    ended: dict[int, bool] = {}
    for row in instance.status:
        ended[row.stage] = row.terminated_at is not None and row.error is None
    return sum(ended.values())


def read_moved(
    instance: Instance,
    versions: Versions,
    now: Now,
    until: float,
    retried: frozenset[int] = frozenset(),
    definition: Sequence[Mapping[str, Any]] | None = None,
) -> Procedure[Reading]:
    """Read the histories of an instance.

    Args:
        instance: as last read.
        until: monotonic seconds by which this is over.
        retried: stages whose activity was seen under retry while it ran.
        definition: the stages of its workflow, which spare a call where all of them ended well; None: not known.
    """
    read = True
    unread: OrchestrationError | None = None
    stages: Sequence[StageRun] = _all_done(instance, definition or ())
    if not stages and (instance.status or instance.terminated):
        try:
            stages = yield from do(get_instance_history(instance.id, versions.plain, strict=True), until)
        except OrchestrationError as error:
            read, unread = False, error
    activities: dict[int, Sequence[ActivityRun]] = {}
    for number, stage in enumerate(stages):
        if stage.name in STILL:
            continue
        try:
            if now.monotonic() >= until:
                raise TransportError("no time is left", sent=False)
            activities[number] = yield from do(
                get_stage_history(instance.id, number, versions.plain, strict=True), until
            )
        except OrchestrationError as error:
            unread = error
    found = reading_of(instance, stages if read else None, activities, retried)
    return found if unread is None else msgspec.structs.replace(found, unread=unread)


def reading_of(
    instance: Instance,
    history: Sequence[StageRun] | None,
    activities: Mapping[int, Sequence[ActivityRun]],
    retried: frozenset[int] = frozenset(),
) -> Reading:
    """What the histories that were read of an instance tell.

    Args:
        instance: as last read.
        history: of the instance; None where it could not be read.
        activities: the history of each stage that calls anybody, by its number; those that could not be read are left
            out.
        retried: stages whose activity was seen under retry while it ran.
    """
    transactions: list[Transaction] = []
    in_flight: list[ActivityRun] = []
    complete, stages = history is not None, history or ()
    rows = {row.stage: row for row in instance.status}
    for number, stage in enumerate(stages):
        if stage.name in STILL:
            continue
        if number not in activities:
            complete = False
            continue
        made = activities[number]
        if not any(activity.name not in READS for activity in made) and not _moved_nothing(stage):
            complete = False  # its payment is not shown
        for activity in made:
            if activity.name in READS:
                continue
            if not activity.terminated:
                in_flight.append(activity)
            elif activity.error is None:
                twice = may_be_repeated(activity, rows.get(number), number in retried)
                transactions.extend(_transactions(number, activity, twice))
    if any(row.stage >= len(stages) and not _failed(row.terminated_at is not None, row.error) for row in rows.values()):
        complete = False  # a row is there before its stage is launched; one that failed before that moved nothing
    if instance.terminated and in_flight:
        complete = False  # nobody hears any more how these ended
    # A row can be lost while the server's database is away; the engine still knows the stage.
    ended = sum(stage.terminated and stage.error is None for stage in stages)
    done = max(completed(instance), ended)
    moved = Moved(stages_completed=done, transactions=tuple(transactions), complete=complete)
    return Reading(moved=moved, in_flight=tuple(in_flight), stages=stages)


def all_ended_well(instance: Instance) -> bool:
    """Whether a run has succeeded, and the server shows each of its stages once and ended."""
    rows = instance.status
    in_order = [row.stage for row in rows] == list(range(len(rows)))
    return (
        instance.state == "succeeded"
        and bool(rows)
        and in_order
        and all(row.terminated_at is not None and row.error is None for row in rows)
    )


def _all_done(instance: Instance, definition: Sequence[Mapping[str, Any]]) -> Sequence[StageRun]:
    """The stages of a run that has ended well, where the server shows a row of each that has ended well: what the
    engine's history would say of them stands in the rows and in the definition. Else none."""
    rows = instance.status
    names = [RUNS.get(next(iter(stage), "")) for stage in definition]
    if not all_ended_well(instance) or len(rows) != len(names):
        return ()
    stages = [
        StageRun(
            name=name,
            input={},
            error=None,
            terminated=True,
            started_at=row.started_at,
            terminated_at=row.terminated_at,
            raw={},
        )
        for name, row in zip(names, rows, strict=True)
        if name is not None
    ]
    return stages if len(stages) == len(names) else ()


def _moved_nothing(stage: StageRun) -> bool:
    """Whether a stage of which no payment is shown is known to have made none: it failed before, or only reads."""
    return stage.name in UPDATES or _failed(stage.terminated, stage.error)


def _failed(ended: bool, error: str | None) -> bool:
    """Whether a stage ended with an error of its own. A cancellation leaves open what was under way."""
    return ended and error is not None and CANCELED not in error


def may_be_repeated(activity: ActivityRun, row: StageStatus | None, was_retried: bool) -> bool:
    """Whether a payment may have been made twice.

    Only generation 1 can: its activities carry no idempotency key, and an attempt that was given up
    may have arrived all the same. Its rows always have an ``error``, empty when fine, and never the id of an
    engine's run, as those of later generations do. An ended activity says attempt 1 whatever happened; what
    remains is how long it took, or that it was seen under retry.
    """
    if row is not None and ("error" not in row.raw or "temporalRunID" in row.raw):
        return False
    if was_retried or activity.attempt > 1:
        return True
    start, end = activity.started_at, activity.terminated_at
    if end is None or UNKNOWN_INSTANT in (start, end):
        return True
    return end - start >= SUSPICIOUS


def asked_of(activity: ActivityRun) -> Mapping[str, Any]:
    """What a call was asked for."""
    return _only_value(activity.input, activity.name)


def answers_of(activity: ActivityRun) -> Sequence[Mapping[str, Any]]:
    """What a call answered, one for each transaction that it made; empty ones where it tells nothing of them."""
    answered = _only_value(activity.output or {}, activity.name)
    data = answered.get("data", answered)
    made = data if isinstance(data, list) else [data]
    return [row if isinstance(row, Mapping) else {} for row in made]


def _transactions(stage: int, activity: ActivityRun, twice: bool) -> list[Transaction]:
    asked = asked_of(activity)
    ledger = next((asked[key] for key in ("Ledger", "ledger") if isinstance(asked.get(key), str)), None)
    result = []
    for transaction in answers_of(activity):
        number = transaction.get("id", transaction.get("txid"))
        postings = transaction.get("postings")
        if not isinstance(postings, list):
            request = asked.get("Data", asked.get("data"))
            postings = request.get("postings") if isinstance(request, Mapping) else None
        result.append(
            Transaction(
                stage=stage,
                id=str(number) if number is not None else None,
                ledger=ledger,
                postings=tuple(p for p in postings if isinstance(p, Mapping)) if isinstance(postings, list) else (),
                maybe_repeated=twice,
            )
        )
    return result


def _only_value(wrapped: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    inner = wrapped.get(name)
    return inner if isinstance(inner, Mapping) else wrapped

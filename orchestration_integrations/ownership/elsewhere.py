"""A run of the key that another record has released since this one chose its own.

One record sees all runs of its key. Where several stand beside each other (a file in each pod, one key in two DAG
runs), whoever comes afterwards has to find what was released meanwhile, on the server. A start without a record looks
there anyway. An attempt that goes on with what is on record would look in its own round at most: so it looks in all
before it submits or releases a run, unless somebody has asked for a new round as another payment.
"""

from __future__ import annotations

import logging

import msgspec

from ..api.errors import AmbiguousRunError
from ..api.models import Instance
from ..procedures.content import Content
from ..procedures.effects import Procedure
from ..procedures.gated_start import FoundRun, GatedStart
from .keeping import Keeper
from .observing import Seen
from .record import GOOD_END, RunRecord
from .resolve import Kind

logger = logging.getLogger("orchestration_integrations.ownership")


def is_another_payment(keeper: Keeper, seen: Seen, *, settled: bool) -> bool:
    """Whether a new round is asked for as another payment: after a success, and by whoever has settled the key, or the
    fate of its run. So is one that makes up for such a round.

    Args:
        keeper: of the key.
        seen: what the server showed of the run on record.
        settled: the round is new by the user's word alone.
    """
    record = keeper.record
    good = record is not None and (record.end == GOOD_END or record.another or record.settled)
    return good or seen.shows == "ended well" or settled


def may_be_elsewhere(keeper: Keeper, kind: Kind, seen: Seen, *, at_gate: bool, settled: bool) -> bool:
    """Whether a run of the key that is not on record may be the payment which this step would make again.

    Args:
        keeper: of the key.
        kind: what the table decided.
        seen: what the server showed of the run on record.
        at_gate: that run stands at its gate.
        settled: as ``is_another_payment``.
    """
    record = keeper.record
    if record is None or not keeper.request.shared_key or keeper.store is None:
        return False
    if kind == "new round":
        return not is_another_payment(keeper, seen, settled=settled)
    if record.another:
        return False
    if kind in ("continue", "resume"):
        return at_gate
    return kind in ("start", "choose") and record.instance_id is None


def released_elsewhere(
    keeper: Keeper, gated: GatedStart, kind: Kind, own: Instance | None
) -> Procedure[list[FoundRun]]:
    """The released runs of the key that were never this record's, but for those that its run makes up for.

    Args:
        keeper: of the key.
        gated: the steps of the start.
        kind: what the table decided.
        own: the run on record; None where none was read.

    Raises:
        AmbiguousRunError: a run may be of the key, and nobody will be able to read whether it is. The run on record is
            chosen, and not kept back by that.
        OrchestrationError: the server could not be read.
    """
    record = keeper.record
    if record is None:
        return []
    mine = record.instance_id
    try:
        look = yield from gated.patient_look(lambda look: look.without(mine), enough=2 if mine is None else 1)
    except AmbiguousRunError as error:
        if kind not in ("continue", "resume"):
            raise
        logger.warning("run key %s: whether another record has released a run was not read: %s", record.key, error)
        return []
    waiting = [run.instance.created_at for run in look.waiting if run.instance.id not in record.former]
    keeper.beside_since = min(waiting, default=None)
    waits = own if kind in ("continue", "resume") else None
    found = [run for run in look.released if run.instance.id not in record.former and not _is_over(run, waits)]
    if len(found) > 1:
        keeper.shown = Seen("several", found=found).told
    if len(found) != 1:
        return found
    logger.warning(
        "run key %s: instance %s was released beside what is on record here (%s): the key stands for it, and this "
        "attempt neither starts nor releases another",
        record.key,
        found[0].instance.id,
        mine or "no instance",
    )
    return found


def _is_over(run: FoundRun, waits: Instance | None) -> bool:
    """Whether a run had failed or was cancelled before the one was made that waits at its gate and makes up for it."""
    instance = run.instance
    if waits is None or instance.terminated_at is None or instance.state not in ("failed", "cancelled"):
        return False
    return instance.terminated_at <= waits.created_at


def to_adopt(
    keeper: Keeper, run: FoundRun, number: int, workflow_id: str, content: Content, *, own_stands: bool
) -> RunRecord:
    """The record of the round in which the run is adopted.

    Args:
        keeper: has the record so far.
        run: another record has released it.
        number: of the round.
        workflow_id, content: what is asked for.
        own_stands: the run on record was not released. Another record that has it may release it yet: it is not over.
    """
    intent = keeper.intended(number, run.gate, workflow_id, content, proven=False)
    if not own_stands or keeper.record is None:
        return intent
    return msgspec.structs.replace(intent, former=keeper.record.former)

"""A run of the key that another record has released since this one chose its own.

One record sees all runs of its key. Where several stand beside each other (a file in each pod, one key in two DAG
runs), whoever comes afterwards has to find what was released meanwhile, on the server. A start without a record looks
there anyway. An attempt that goes on with what is on record would look in its own round at most: so it looks in all
before it submits or releases a run, unless somebody has asked for a new round as another payment.
"""

from __future__ import annotations

import logging

from ..api.errors import AmbiguousRunError
from ..procedures.effects import Procedure
from ..procedures.gated_start import FoundRun, GatedStart
from .keeping import Keeper
from .observing import Seen
from .record import GOOD_END
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


def released_elsewhere(keeper: Keeper, gated: GatedStart, kind: Kind) -> Procedure[list[FoundRun]]:
    """The released runs of the key that were never this record's.

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
    found = [run for run in look.released if run.instance.id not in record.former]
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

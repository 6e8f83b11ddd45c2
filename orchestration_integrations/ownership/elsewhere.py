"""A run of the key that another record has released since this one chose its own.

One record sees all runs of its key. Where several stand beside each other (a file in each pod, one key in two DAG
runs), whoever comes afterwards has to find what was released meanwhile, on the server. A start without a record looks
there anyway. An attempt that goes on with what is on record would look in its own round at most: so it looks in all
before it submits or releases a run, unless somebody has asked for a new round as another payment.
"""

from __future__ import annotations

import logging

from ..procedures.effects import Procedure, ask_or_raise
from ..procedures.gated_start import FoundRun, GatedStart
from ..procedures.start import Starting
from .keeping import Keeper
from .observing import Seen
from .record import GOOD_END
from .resolve import Kind

logger = logging.getLogger("orchestration_integrations.ownership")


def may_be_elsewhere(keeper: Keeper, kind: Kind, seen: Seen, *, at_gate: bool) -> bool:
    """Whether a run of the key that is not on record may be the payment which this step would make again.

    Args:
        keeper: of the key.
        kind: what the table decided.
        seen: what the server showed of the run on record.
        at_gate: that run stands at its gate.
    """
    record = keeper.record
    if record is None or not keeper.request.shared_key or keeper.store is None:
        return False
    if kind in ("continue", "resume"):
        return at_gate
    if kind in ("start", "choose"):
        return record.instance_id is None
    # After a success, and for whoever has settled the key, a new round is another payment.
    wanted = record.end == GOOD_END or seen.shows == "ended well" or keeper.has_token()
    return kind == "new round" and not wanted


def _was_chosen(keeper: Keeper, run: FoundRun, rounds: int) -> Procedure[bool]:
    """Whether a run was chosen here in one of the earlier rounds: then what became of it is known. The store has no
    other way to ask; a round that had no choice has this one then, and is over anyway."""
    store = keeper.store
    if store is None:
        return False
    for number in range(rounds):
        chosen = yield from ask_or_raise(store.choose, keeper.request.run_key, number, run.instance.id)
        if chosen == run.instance.id:
            return True
    return False


def released_elsewhere(keeper: Keeper, starting: Starting, gated: GatedStart) -> Procedure[FoundRun | None]:
    """The released run of the key that this record has never chosen; None where there is none.

    Raises:
        AmbiguousRunError: there are several.
        OrchestrationError: the server could not be read.
    """
    record = keeper.record
    if record is None:
        return None
    mine, found = record.instance_id, []
    look = yield from gated.patient_look(lambda look: look.without(mine), enough=2 if mine is None else 1)
    for run in look.released:
        if not (yield from _was_chosen(keeper, run, record.round)):
            found.append(run)
    if len(found) > 1:
        ids = [run.instance.id for run in found]
        raise starting.ambiguous(f"{len(ids)} runs of the key were released that are not on record", ids)
    if not found:
        return None
    logger.warning(
        "run key %s: instance %s was released beside what is on record here (%s): the key stands for it, and this "
        "attempt neither starts nor releases another",
        record.key,
        found[0].instance.id,
        mine or "no instance",
    )
    return found[0]

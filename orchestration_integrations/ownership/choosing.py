"""Choosing an instance for a key: the first choice of a round stands, and is put on record, whoever made it."""

from __future__ import annotations

import logging

import msgspec

from ..procedures.content import UNKNOWN, Content
from ..procedures.effects import Procedure, ask_or_raise
from ..procedures.gate import GateText
from .keeping import Keeper
from .record import NO_HOLD

logger = logging.getLogger("orchestration_integrations.ownership")


class Round(msgspec.Struct, frozen=True):
    """What is known of the round that an instance is chosen for, where nothing is on record.

    Attributes:
        number: from 0.
        gate: of its runs; None where they have none.
        workflow_id: whose runs they are.
        content: what is paid.
        proven: the round was surely not used before.
    """

    number: int
    gate: GateText | None
    workflow_id: str
    content: Content
    proven: bool


def choose(keeper: Keeper, instance_id: str, text: str | None, round: Round) -> Procedure[bool]:
    """Choose an instance and put the choice on record.

    Args:
        keeper: of the key.
        instance_id: that is to be chosen.
        text: of its gate; None where it has none.
        round: for which it is chosen.

    Returns:
        False where another one was chosen before: that one is on record then.
    """
    record, winner = keeper.record, instance_id
    if keeper.store is not None:
        key = keeper.request.run_key
        winner = yield from ask_or_raise(keeper.store.choose, key, round.number, instance_id)
        if winner != instance_id:
            beside = "released" if text is not None else "the run of the key"
            logger.warning("run key %s: instance %s was chosen before, %s is not %s", key, winner, instance_id, beside)
    known = record is not None  # else only the run itself says what it stands for
    if record is None:
        intent = keeper.intended(round.number, round.gate, round.workflow_id, round.content, proven=round.proven)
        record = msgspec.structs.replace(intent, revision=0)
    yield from keeper.save(
        keeper.claimed(
            record,
            state="chosen",
            round=round.number,
            instance_id=winner,
            gate=text if text is not None and winner == instance_id else "",
            content=record.content if winner == instance_id and (known or text) else UNKNOWN,
            seen=False,
            created_at=None,
            end=None,
            doubt=False,
            **NO_HOLD,
        )
    )
    keeper.shown = None
    return winner == instance_id

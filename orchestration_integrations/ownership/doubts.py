"""A fate that nobody knows gets a record where its key has none, so that a word of the user settles it alone."""

from __future__ import annotations

import msgspec

from ..procedures.content import Content
from ..procedures.effects import Procedure, ask
from .keeping import Keeper


def put_on_record(keeper: Keeper, workflow_id: str, content: Content, *, gated: bool) -> Procedure[None]:
    """Save a doubt, where there is no record and a store. One that fails changes nothing: the error has no token then.

    Args:
        keeper: of the key.
        workflow_id, content: what is asked for.
        gated: whether what is asked for waits at a gate.
    """
    if keeper.record is not None or keeper.store is None:
        return
    gate = content.gate_text(keeper.request.run_key, 0) if gated else None
    made = msgspec.structs.replace(keeper.intended(0, gate, workflow_id, content, proven=False), doubt=True)
    answer = yield from ask(keeper.store.save, made)
    if answer.error is None:
        keeper.record = made

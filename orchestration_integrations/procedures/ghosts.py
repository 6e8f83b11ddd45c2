"""Rows without a run behind them, which some generations of the server leave where a start failed."""

from __future__ import annotations

from ..api.calls import get_instance_history
from ..api.errors import OrchestrationError, is_denial
from ..api.instants import UNKNOWN_INSTANT
from ..api.models import Instance
from .effects import Procedure, do
from .listing import Versions

GHOST_AGE = 60.0
"""Seconds after which a row without a stage, which the engine does not know, will never start."""


def is_old(instance: Instance, server_time: float, known_for: float) -> bool:
    """Whether a row should long have a stage; one without a readable age is as old as we have known it."""
    if instance.created_at == UNKNOWN_INSTANT:
        return known_for > GHOST_AGE
    return server_time - instance.created_at.timestamp() > GHOST_AGE


def unknown_to_engine(instance_id: str, versions: Versions, until: float | None) -> Procedure[int]:
    """1 where the engine says that it does not know the run, 0 where it did not say, -2 where it does know it."""
    try:
        yield from do(get_instance_history(instance_id, versions.plain, strict=True), until)
    except OrchestrationError as error:
        return 1 if is_denial(error) else 0
    return -2

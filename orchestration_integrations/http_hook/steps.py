"""Driving a procedure from one effect to the next."""

from __future__ import annotations

from typing import Any

import msgspec

from ..api.errors import OrchestrationError
from ..procedures.effects import Effect, Procedure


class Ended(msgspec.Struct, frozen=True):
    """A procedure has returned."""

    value: Any


def advance(procedure: Procedure[Any], result: object, error: OrchestrationError | None) -> Effect | Ended:
    """The next effect. Only a procedure's own end is one: a callback may raise StopIteration too."""
    try:
        return procedure.send(result) if error is None else procedure.throw(error)
    except StopIteration as end:
        return Ended(end.value)

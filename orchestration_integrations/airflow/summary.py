"""What a trigger's event tells a worker of a run that has ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_FIELDS = ("stages_completed", "transactions", "maybe_repeated")
_OPTIONAL = ("transactions_left_out", "complete")


def told_moved(result: Any, instance_id: str) -> Mapping[str, Any] | None:
    """What a trigger's event tells of the transactions of this instance; None where it tells nothing usable."""
    if not isinstance(result, Mapping) or result.get("instance_id") != instance_id:
        return None
    if not all(name in result for name in _FIELDS):
        return None
    return {name: result[name] for name in (*_FIELDS, *_OPTIONAL) if name in result}

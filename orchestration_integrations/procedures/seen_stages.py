"""Which stages of a run there is something to show of."""

from __future__ import annotations

from collections.abc import Sequence

from ..api.models import Instance, StageRun


def seen_stages(instance: Instance, history: Sequence[StageRun], defined: int = 0) -> list[int]:
    """The numbers of stages, in their order.

    A number stands here because something of the stage was seen. Whoever counts up to the highest number of a row does
    as much work as a server, or what stands before it, says in one row.

    Args:
        instance: its rows name stages.
        history: what the engine shows: the stages from 0.
        defined: so many stages, from 0, are known whether they began or not.
    """
    rows = {row.stage for row in instance.status if row.stage >= 0}
    return sorted(rows | set(range(max(defined, len(history)))))

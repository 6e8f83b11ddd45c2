"""The errors for a run on record that this attempt may not go on with."""

from __future__ import annotations

from ..api.errors import InstanceStuckError, WrongServerError, summary
from ..procedures.moved import NOTHING_READ
from .keeping import Keeper
from .observing import Seen


def held(keeper: Keeper, seen: Seen) -> InstanceStuckError:
    """The run stands at a checkpoint that nobody will pass."""
    return InstanceStuckError(
        f"instance {keeper.instance_id} of key {keeper.request.run_key} stands at a checkpoint, held by a stop: "
        "nothing moves. Clear the task to let the same run go on",
        reason="held",
        instance_id=keeper.instance_id or "",
        instance=seen.instance,
        moved=NOTHING_READ,
    )


def wrong_server(keeper: Keeper, seen: Seen) -> WrongServerError:
    """The server denies a run that it has shown before."""
    why = summary(seen.error) if seen.error is not None else "not found"
    return WrongServerError(
        f"instance {keeper.instance_id} of key {keeper.request.run_key} is unknown to {keeper.server}, where it was "
        f"seen before: this is another server or another stack ({why}); nothing was started",
        instance_id=keeper.instance_id,
    )

"""What the steps of a start are told, by what is asked for and what is on record of the key."""

from __future__ import annotations

from collections.abc import Callable

from ..procedures.effects import Now, Procedure
from ..procedures.listing import Versions
from ..procedures.start import Starting
from .keeping import Keeper
from .record import RunRecord
from .resolve import How


def start_of_key(
    keeper: Keeper,
    record: RunRecord | None,
    how: How,
    permit: Callable[[str | None], Procedure[None]],
    versions: Versions,
    now: Now,
) -> Starting:
    """What the steps of this attempt's start share.

    Args:
        keeper: has the record.
        record: as it was loaded.
        how: what is asked for.
        permit: asks the owner before a release; raises where the run is not wanted.
        versions: of the API, by call.
        now: the clocks.
    """
    request = keeper.request
    since = request.since
    if record is not None and keeper.store is not None:
        since = record.looked_back_to
        if record.doubt and request.since is not None:  # the caller knows how far back it has to look
            since = min(since, request.since)
    starting = Starting(
        workflow_id=request.workflow if isinstance(request.workflow, str) else "",
        key=request.run_key,
        texts={**request.texts, request.key_variable: request.run_key},
        since=since,
        fresh=record is None and how == "first",
        timeout=request.timeout,
        comes_again=bool(request.attempt),
        permit=permit,
        versions=versions,
        now=now,
    )
    starting.token = keeper.token
    return starting

"""Seconds that more than one procedure goes by."""

from __future__ import annotations

START_SECONDS = 60.0
"""For so long a start goes on, unless its caller says otherwise."""
POLL_SECONDS = 5.0
"""The longest pause between two polls of a wait, unless its caller says otherwise."""
FIRST_PAUSE = 0.2
"""The first pause between two polls. Each is ``GROWTH`` times as long as the one before, up to the longest."""
GROWTH = 1.5
CANCEL_SECONDS = 15.0
"""For so long a cancel goes on until it is seen, unless its caller says otherwise."""
ROW_GRACE = 10.0
"""For so long an id that was never seen may be unknown to the server: rows can be late."""
ROW_PATIENCE = 3600.0
"""The same for an id that the server itself gave: a run stands behind it, however late its row is."""
READ_BUDGET = 120.0
"""For so long reads may fail one after the other before a wait, or a delivery, gives up."""
LAST_LOOK = 5.0
"""What one read gets that decides after a deadline has passed."""
HELD_AFTER = 2.0
"""An abort gets so long to end a run that stands at a checkpoint, before the run is said to be held there."""
LEAST = 1.0
"""What an abort or a read gets even where the caller's limit is shorter."""
OWNER_ANSWER_SECONDS = 10.0
"""For so long the owner's word stands: what it allowed is sent by then, or the owner is asked again."""

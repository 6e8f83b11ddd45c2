"""What an attempt did at the beginning of its work on a key: the verb that its log line needs."""

from __future__ import annotations

from typing import Literal

from ..api.models import Instance
from .resolve import Kind

Did = Literal["started", "released", "resumed", "adopted", "goes on with", "comes back to"]
"""``started``: this attempt submitted it, and released it. ``released``: an earlier one had submitted it. ``resumed``:
a stop is taken back. ``adopted``: no record named it. ``goes on with``: it runs. ``comes back to``: it has ended."""


def did(kind: Kind, instance: Instance, *, submitted: bool, at_gate: bool) -> Did:
    """The verb.

    Args:
        kind: what the table decided.
        instance: the run, as last read.
        submitted: this attempt has submitted a run.
        at_gate: it was not released when this attempt looked.
    """
    if submitted:
        return "started"
    if kind == "choose" or (kind == "continue" and at_gate):
        return "released"
    if kind == "resume":
        return "resumed"
    if kind == "adopt":
        return "adopted"
    return "comes back to" if instance.terminated else "goes on with"


def begun_text(word: Did, instance: Instance) -> str:
    """``started instance … of workflow …``, for a log."""
    ended = f", which has ended: {instance.state}" if instance.terminated and word == "comes back to" else ""
    return f"{word} instance {instance.id} of workflow {instance.workflow_id}{ended}"

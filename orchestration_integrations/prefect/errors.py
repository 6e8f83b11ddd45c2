"""Errors that only this face raises."""

from __future__ import annotations


class FlowRunCancelledError(RuntimeError):
    """The flow run that waits is being cancelled, or was ended from outside, so the wait stopped.

    Not an OrchestrationError: nothing is wrong with the instance or the server.
    """

"""Errors that only this face raises."""

from __future__ import annotations


class FlowRunCancelledError(RuntimeError):
    """The flow run that waits is over, or another attempt of it is at work, so the wait stopped.

    Not an OrchestrationError: nothing is wrong with the instance or the server.

    Attributes:
        superseded: another attempt of the flow run has the instance, or will have it: this one cancelled nothing.
    """

    def __init__(self, message: str, *, superseded: bool = False) -> None:
        super().__init__(message)
        self.superseded = superseded


class RunRolledBackError(RuntimeError):
    """The transaction had been rolled back before the run was released: nothing was released."""

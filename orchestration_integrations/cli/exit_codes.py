"""What the exit status of a command means, in one place.

A script may pay by other means where a payment has failed, so 1 says that and nothing else: no wrong setting, no
closed pipe, no mistake of this program may look like it. What is not known is 3, whatever the reason.
"""

from __future__ import annotations

from ..api.errors import (
    AuthenticationError,
    ConfigurationError,
    EventNotDeliveredError,
    InstanceCancelledError,
    InstanceFailedError,
    InstanceStuckError,
    NotFoundError,
    OrchestrationError,
    StateUnknownError,
    UnreadableRecordError,
    ValidationError,
    WaitTimeoutError,
    WrongServerError,
    is_gateways_404,
)

OK = 0
FAILED = 1
"""The instance failed or was cancelled, and no payment of it may still arrive."""
REFUSED = 2
"""Usage or configuration: what was asked for cannot be done, and nothing was started by this command."""
UNKNOWN = 3
"""Ambiguous or unknown: a run may go on, stand still, or have ended either way."""
TIMED_OUT = 4
"""The time is over, and the instance was seen to run until then."""
BROKEN = 5
"""The command itself failed: its output could not be written, or it met an error that it did not foresee."""
INTERRUPTED = 130
TERMINATED = 143

Word = str
"""``succeeded``, ``failed``, ``cancelled``, ``timeout``, ``stuck`` or ``unknown``."""


def end_of(result: object) -> tuple[int, Word]:
    """Exit status and word for what a wait came to: its result, or the error that it raised."""
    if not isinstance(result, Exception):
        return OK, "succeeded"
    if isinstance(result, InstanceFailedError):
        return FAILED, "failed"
    if isinstance(result, InstanceCancelledError):
        # A payment that was under way may still arrive, and nobody hears of it.
        return (FAILED if result.moved.complete else UNKNOWN), "cancelled"
    if isinstance(result, InstanceStuckError):
        return UNKNOWN, "stuck"
    if isinstance(result, WaitTimeoutError) and result.instance is not None:
        return TIMED_OUT, "timeout"
    return UNKNOWN, "unknown"  # also a time-out within which nothing was ever read


def status_of(error: OrchestrationError) -> int:
    """Exit status for an error that ends a command."""
    if error.run_may_exist:
        return UNKNOWN
    if isinstance(
        error,
        InstanceFailedError | InstanceCancelledError | InstanceStuckError | WaitTimeoutError | StateUnknownError,
    ):
        return end_of(error)[0]
    if isinstance(error, EventNotDeliveredError):
        return _status_of_event(error)
    if isinstance(error, UnreadableRecordError | WrongServerError):
        return UNKNOWN  # they are wrong settings too, but a run of the key may exist
    if isinstance(error, NotFoundError):
        return UNKNOWN if is_gateways_404(error) else REFUSED
    if isinstance(error, ConfigurationError | ValidationError | AuthenticationError):
        return REFUSED
    return UNKNOWN


def _status_of_event(error: EventNotDeliveredError) -> int:
    if error.reason == "not_ready":
        return TIMED_OUT if error.instance is not None else UNKNOWN
    if error.reason == "unknown":
        return UNKNOWN
    if error.reason == "instance_ended" and error.instance is not None and error.instance.state != "succeeded":
        return FAILED
    return REFUSED

"""What the exit status of a command means, in one place.

A script may pay by other means where a payment has failed, so 1 says that and nothing else: no wrong setting, no
closed pipe, no mistake of this program may look like it. What is not known is 3, whatever the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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
from ..procedures.verdicts import Means, Verdict, end_verdict

OK = 0
FAILED = 1
"""The instance failed or was cancelled, what it has moved is known, and no payment of it may still arrive."""
REFUSED = 2
"""Usage or configuration: what was asked for cannot be done, and nothing was started by this command."""
UNKNOWN = 3
"""Ambiguous or unknown: a run may go on, stand still, or have ended either way."""
TIMED_OUT = 4
"""The time is over, and the instance was seen to run until then."""
BROKEN = 5
"""The command itself failed: its output could not be written, or it met an error that it did not foresee."""
SUCCEEDED = 6
"""What was to be stopped had succeeded by itself."""

_STATUSES: Mapping[Means, int] = {
    "well": OK,
    "ended badly": FAILED,
    "had succeeded": SUCCEEDED,
    "runs on": TIMED_OUT,
    "unsure": UNKNOWN,
}

SEVERITY = (OK, FAILED, REFUSED, TIMED_OUT, SUCCEEDED, UNKNOWN)
"""What a command about several instances ends with is the last of these that one of them has. What is not known comes
last: it is what a script must not overlook. A success comes behind a failure, since who pays anew would pay that twice.
"""


def worst_of(statuses: Iterable[int]) -> int:
    """The one status of a command about several instances."""
    return max(statuses, key=SEVERITY.index, default=OK)


def status_of_verdict(verdict: Verdict) -> int:
    """Exit status for what came of a run."""
    return _STATUSES[verdict.means]


def status_of(error: OrchestrationError) -> int:
    """Exit status for an error that ends a command."""
    if error.run_may_exist:
        return UNKNOWN
    if isinstance(
        error,
        InstanceFailedError | InstanceCancelledError | InstanceStuckError | WaitTimeoutError | StateUnknownError,
    ):
        return status_of_verdict(end_verdict(error))
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
    if error.reason == "instance_ended" and (error.instance is None or error.instance.state != "succeeded"):
        return FAILED if error.moved is not None and error.moved.complete else UNKNOWN
    return REFUSED

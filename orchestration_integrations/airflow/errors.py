"""Errors as Airflow needs them: which ones it does not retry, and what they say about a run that may still be running.

Each error that no further try can mend is both: the error of this package with its attributes, and Airflow's
fail-exception.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ..api.errors import (
    AmbiguousRunError,
    AuthenticationError,
    ConfigurationError,
    EventNotDeliveredError,
    InstanceCancelledError,
    InstanceFailedError,
    InstanceStuckError,
    KeyReusedError,
    NotFoundError,
    OrchestrationError,
    OwnerGoneError,
    RateLimitedError,
    ServerError,
    StateUnknownError,
    TransportError,
    UnreadableRecordError,
    ValidationError,
    WrongServerError,
    is_gateways_404,
)
from .compat import AirflowFailException

T = TypeVar("T", bound=OrchestrationError)


class AmbiguousRunFailure(AmbiguousRunError, AirflowFailException):  # type: ignore[misc]
    """A run may have been started; another try could not tell either, and must not submit again."""


class WrongServerFailure(WrongServerError, AirflowFailException):  # type: ignore[misc]
    """The run on record is unknown to the server that the connection points to."""


class UnreadableRecordFailure(UnreadableRecordError, AirflowFailException):  # type: ignore[misc]
    """The record of the task's run cannot be read: another try could not either."""


class KeyReusedFailure(KeyReusedError, AirflowFailException):  # type: ignore[misc]
    """The run key stands for another payment."""


class ValidationFailure(ValidationError, AirflowFailException):  # type: ignore[misc]
    """The input is wrong: it will be at the next try."""


class NotFoundFailure(NotFoundError, AirflowFailException):  # type: ignore[misc]
    """There is no such workflow."""


class EventNotDeliveredFailure(EventNotDeliveredError, AirflowFailException):  # type: ignore[misc]
    """The event cannot reach its stage any more, or may have reached it: sending it again could skip a later one."""


class InstanceFailedFailure(InstanceFailedError, AirflowFailException):  # type: ignore[misc]
    """A sensor's instance ended with an error and will not end otherwise."""


class InstanceCancelledFailure(InstanceCancelledError, AirflowFailException):  # type: ignore[misc]
    """A sensor's instance was cancelled and will not end otherwise."""


class InstanceHeldFailure(InstanceStuckError, AirflowFailException):  # type: ignore[misc]
    """The run is held at a checkpoint: a retry could only say the same, and a clear lets it go on."""


class OwnerGoneFailure(OwnerGoneError, AirflowFailException):  # type: ignore[misc]
    """Another task of the DAG run has failed: a retry could only say what became of the run."""


class NotAsExpectedFailure(OrchestrationError, AirflowFailException):  # type: ignore[misc]
    """What a sensor waits for can no longer happen."""


class ConfigurationFailure(ConfigurationError, AirflowFailException):  # type: ignore[misc]
    """The connection is wrong."""


_FINAL: dict[type[OrchestrationError], type[OrchestrationError]] = {
    AmbiguousRunError: AmbiguousRunFailure,
    WrongServerError: WrongServerFailure,
    UnreadableRecordError: UnreadableRecordFailure,
    KeyReusedError: KeyReusedFailure,
    ValidationError: ValidationFailure,
    NotFoundError: NotFoundFailure,
    ConfigurationError: ConfigurationFailure,
    EventNotDeliveredError: EventNotDeliveredFailure,
    InstanceFailedError: InstanceFailedFailure,
    InstanceCancelledError: InstanceCancelledFailure,
}
_ENDS = (InstanceFailedError, InstanceCancelledError, EventNotDeliveredError)
"""Ends that a task reports again at each try, rather than failing for good."""
_OF_A_READ = (AuthenticationError, NotFoundError, ValidationError)
"""Errors that mean something else where they come of a read of a run: see ``leaves_a_run``."""
_UNREAD = (AuthenticationError, RateLimitedError, ServerError, StateUnknownError, TransportError)
"""Errors that say nothing of a run which had begun, whatever they come of."""


def leaves_a_run(error: BaseException) -> bool:
    """Whether a read of a run was refused that may live: neither the input nor the run is at fault, and a further try
    can go on with it."""
    return type(error) in _OF_A_READ and isinstance(error, OrchestrationError) and error.run_may_exist


def is_unread(error: BaseException) -> bool:
    """Whether an error says nothing of a run which had begun, but that it could not be read."""
    return isinstance(error, _UNREAD) or leaves_a_run(error)


def is_final(error: OrchestrationError) -> bool:
    """Whether no further try can mend an error, so that a task raises it as a class that Airflow does not retry."""
    if type(error) in _ENDS or is_gateways_404(error) or leaves_a_run(error):
        return False
    return _kind_of(error) is not None


def told(error: OrchestrationError) -> OrchestrationError:
    """The error as a task should raise it: one that no further try can mend is not retried."""
    return final(error) if is_final(error) else error


def final(error: OrchestrationError) -> OrchestrationError:
    """The same error as a class that Airflow does not retry; the error itself if there is no such class."""
    kind = _kind_of(error)
    return error if kind is None else _made(error, kind)


def _kind_of(error: OrchestrationError) -> type[OrchestrationError] | None:
    if isinstance(error, InstanceStuckError) and error.reason == "held":
        return InstanceHeldFailure
    return _FINAL.get(type(error))


def gone_for_good(error: OwnerGoneError, why: str) -> OwnerGoneError:
    """The error of a run that may not go on, as a class that Airflow does not retry.

    Args:
        error: what was raised.
        why: a sentence about whose doing it is.
    """
    made = _made(error, OwnerGoneFailure)
    made.args = (f"{error}; {why}",)
    return made


def _made(error: OrchestrationError, kind: type[T]) -> T:
    made = kind.__new__(kind)
    made.args = error.args
    made.__dict__.update(error.__dict__)
    made.__cause__ = error
    return made


def with_advice(
    error: OrchestrationError, instance_id: str | None, retry_follows: Callable[[], bool], rerun: bool
) -> None:
    """Add to a message what a user of Airflow can do about it or needs to know: one advice, once.

    Args:
        error: is changed.
        instance_id: the run, where one is known.
        retry_follows: whether Airflow tries again after this error; asked where that counts.
        rerun: a retry starts a new run.
    """
    if isinstance(error, InstanceFailedError | InstanceCancelledError):
        unsettled = isinstance(error, InstanceCancelledError) and not error.moved.complete
        remedy = "let it retry" if rerun and not unsettled and retry_follows() else "clear the task"
        error.args = (f"{error.told}; to run anew, {remedy}",)
    elif instance_id is not None and (is_unread(error) or isinstance(error, NotFoundError | WrongServerError)):
        if isinstance(error, _UNREAD):
            error.run_may_exist = True
        goes_on = "the next try continues with it" if retry_follows() else "no retry follows"
        message = str(error)
        name = "it" if instance_id in message else f"instance {instance_id}"
        said = f"{message}" if "may still run" in message else f"{message}; {name} may still run"
        error.args = (f"{said} ({goes_on})",)

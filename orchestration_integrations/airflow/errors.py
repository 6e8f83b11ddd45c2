"""Errors after which Airflow must not try again by itself.

Each is both: the error of this package with its attributes, and Airflow's fail-exception.
"""

from __future__ import annotations

from ..api.errors import (
    AmbiguousRunError,
    ConfigurationError,
    EventNotDeliveredError,
    InstanceCancelledError,
    InstanceFailedError,
    NotFoundError,
    OrchestrationError,
    ValidationError,
)
from .compat import AirflowFailException


class AmbiguousRunFailure(AmbiguousRunError, AirflowFailException):  # type: ignore[misc]
    """A run may have been started; another try could not tell either, and must not submit again."""


class WrongServerFailure(NotFoundError, AirflowFailException):  # type: ignore[misc]
    """The run on record is unknown to this server, or the connection points to another server than it did."""


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


class NotAsExpectedFailure(OrchestrationError, AirflowFailException):  # type: ignore[misc]
    """What a sensor waits for can no longer happen."""


class ConfigurationFailure(ConfigurationError, AirflowFailException):  # type: ignore[misc]
    """The connection is wrong."""


_FINAL: dict[type[OrchestrationError], type[OrchestrationError]] = {
    AmbiguousRunError: AmbiguousRunFailure,
    ValidationError: ValidationFailure,
    NotFoundError: NotFoundFailure,
    ConfigurationError: ConfigurationFailure,
    EventNotDeliveredError: EventNotDeliveredFailure,
    InstanceFailedError: InstanceFailedFailure,
    InstanceCancelledError: InstanceCancelledFailure,
}


_NEVER_MENDS = (AmbiguousRunError, ValidationError, NotFoundError, ConfigurationError)


def told(error: OrchestrationError) -> OrchestrationError:
    """The error as a task should raise it: one that no further try can mend is not retried."""
    return final(error) if type(error) in _NEVER_MENDS else error


def final(error: OrchestrationError) -> OrchestrationError:
    """The same error as one that Airflow does not retry; as it is where there is no such class."""
    kind = _FINAL.get(type(error))
    if kind is None:
        return error
    made = kind.__new__(kind)
    made.args = error.args
    made.__dict__.update(error.__dict__)
    made.__cause__ = error
    return made


def wrong_server(message: str) -> WrongServerFailure:
    """The hard error for a run that this server cannot know."""
    return WrongServerFailure(message, status_code=None)

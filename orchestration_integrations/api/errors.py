"""Everything that can go wrong, and how an HTTP answer becomes one of these errors.

The server answers 500 for nearly everything (an unknown id, a bad definition, a database that is
away), so the class of an error is decided here, once, by error code and message before status.
Messages never contain headers, query strings or credentials.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from .json_text import decoded

if TYPE_CHECKING:
    from .models import CancelOutcome, Instance, Moved

BODY_LIMIT = 500
"""Characters of a response body that an error message may quote."""


class OrchestrationError(Exception):
    """Base of all errors of this package."""

    retry_after: float | None = None
    """Seconds after which the server asked to try again, where it did."""
    run_may_exist: bool = False
    """True where a run of the key that was asked for may exist all the same, whatever the error is about."""
    before_send: bool = False
    """True where the call itself surely never left, since getting a token for it failed."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Attributes are keyword-only; frameworks pickle exceptions between processes.
        return (_rebuild, (type(self), self.args, self.__dict__))


def _rebuild(kind: type[OrchestrationError], args: tuple[Any, ...], state: Mapping[str, Any]) -> OrchestrationError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class ConfigurationError(OrchestrationError):
    """A setting is wrong. ``field`` names it. Nothing was sent."""

    def __init__(self, message: str, *, field: str) -> None:
        super().__init__(message)
        self.field = field


class _HttpError(OrchestrationError):
    """What is known of the HTTP answer behind an error."""

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        error_code: str | None = None,
        server_message: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.error_code = error_code
        self.message = server_message if server_message is not None else message
        self.retry_after = retry_after


class AuthenticationError(_HttpError):
    """401, 403, or the token endpoint refused the credentials."""


class NotFoundError(_HttpError):
    """The server knows no such workflow, instance, stage or trigger."""


class ValidationError(_HttpError):
    """Input was refused, locally (nothing was sent) or by the server. ``path`` names the field where known."""

    def __init__(self, message: str, *, path: str | None = None, **http: Any) -> None:
        super().__init__(message, **http)
        self.path = path


class KeyReusedError(ValidationError):
    """A key that names one payment was used for another one. Nothing was started by this call.

    Attributes:
        run_key: the key.
        differs: what is not the same: ``workflow``, ``variables.<name>`` (the first of them), ``content`` where only
            the text of the gate is known, or ``caller`` where the key is held, or was used, by another call of the
            same attempt.
        instance_id: the instance that has the key; None where none is known.
    """

    def __init__(self, message: str, *, run_key: str, differs: str, instance_id: str | None = None) -> None:
        super().__init__(message, path=differs if differs.startswith("variables.") else "run_key")
        self.run_key = run_key
        self.differs = differs
        self.instance_id = instance_id


class RateLimitedError(_HttpError):
    """429. ``retry_after`` is in seconds, None where the server gave none."""


class ServerError(_HttpError):
    """Any other answer that is no success: ``status_code``, ``error_code``, ``message``."""


class UnreadableAnswerError(ServerError):
    """A success by its status whose body is not the answer: no JSON, a list that is none, or about something else.

    It says nothing of what was asked. A read may be repeated; a submit may have been carried out.
    """


class TransportError(OrchestrationError):
    """No usable answer arrived. ``sent`` is False only where the request surely never left."""

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class AmbiguousSubmitError(OrchestrationError):
    """A create, an event or a delete may have been carried out: its answer was lost. It was not repeated."""


class AmbiguousRunError(AmbiguousSubmitError):
    """A run may have been started, and nothing proves that it was or was not.

    Attributes:
        workflow_id: the workflow that was to run.
        run_key: the key of the run, None where there was none.
        window: (from, to), aware datetimes of this machine's clock, between which a run may have started.
        candidates: ids of instances that may be it; more may appear later.
        token: settles this unknown fate where it is given as ``settled``: the caller has found out how that run
            ended, and the next start is a new run. None where the caller keeps no record.
    """

    def __init__(
        self,
        message: str,
        *,
        workflow_id: str,
        run_key: str | None,
        window: tuple[datetime, datetime],
        candidates: Sequence[str] = (),
        token: str | None = None,
    ) -> None:
        super().__init__(message)
        self.token = token
        self.workflow_id = workflow_id
        self.run_key = run_key
        self.window = window
        self.candidates = tuple(candidates)


class OwnerGoneError(OrchestrationError):
    """The caller no longer wants the run, so nothing more was let pass. The message says what became of the run.

    Attributes:
        instance_id: the instance; None where none was started.
        run_key: its key.
        superseded: True where another attempt has taken the run over; this one then cancelled nothing.
        outcome: of the cancel of the run; None where none was tried.
    """

    def __init__(
        self,
        message: str,
        *,
        run_key: str | None,
        instance_id: str | None = None,
        superseded: bool = False,
        outcome: CancelOutcome | None = None,
    ) -> None:
        super().__init__(message)
        self.run_key = run_key
        self.instance_id = instance_id
        self.superseded = superseded
        self.outcome = outcome


class OwnerUnreachableError(OrchestrationError):
    """Whether the caller still wants the run could not be found out, so it was not released. May be tried again."""

    def __init__(self, message: str, *, run_key: str | None, instance_id: str | None = None) -> None:
        super().__init__(message)
        self.run_key = run_key
        self.instance_id = instance_id


class RecordConflictError(OrchestrationError):
    """The record of a key changed since it was loaded: another process holds the key now. Nothing was released.

    Attributes:
        run_key: the key.
    """

    def __init__(self, message: str, *, run_key: str) -> None:
        super().__init__(message)
        self.run_key = run_key


class UnreadableRecordError(ConfigurationError):
    """The record of a key cannot be read, so an earlier run may exist. Nothing was started."""

    def __init__(self, message: str, *, run_key: str) -> None:
        super().__init__(message, field="record")
        self.run_key = run_key


class WrongServerError(ConfigurationError):
    """The run on record is unknown to the server that is asked now. Nothing was started there.

    Attributes:
        instance_id: the instance on record; None where only its intent is on record.
    """

    def __init__(self, message: str, *, instance_id: str | None) -> None:
        super().__init__(message, field="base_url")
        self.instance_id = instance_id


class _EndOfWait(OrchestrationError):
    """``told``: what happened, without what became of the instance; whoever cancels it then composes its own end."""

    def __init__(
        self, message: str, *, instance_id: str, instance: Instance | None, moved: Moved, told: str | None = None
    ) -> None:
        super().__init__(message)
        self.told = message if told is None else told
        self.instance_id = instance_id
        self.instance = instance
        self.moved = moved


class InstanceFailedError(_EndOfWait):
    """The instance ended with an error. ``instance``, and in ``moved`` what had moved by then."""


class InstanceCancelledError(_EndOfWait):
    """The instance ended because it was cancelled. ``instance``, and in ``moved`` what had moved by then."""


class InstanceStuckError(_EndOfWait):
    """The instance does not go on by itself. ``reason``: ``never_started``, ``attempts`` or ``held``."""

    def __init__(self, message: str, *, reason: Literal["never_started", "attempts", "held"], **end: Any) -> None:
        super().__init__(message, **end)
        self.reason = reason


class WaitTimeoutError(_EndOfWait):
    """The deadline passed, and the last look did not see the end. The instance goes on, unless ``outcome`` says else.

    Attributes:
        seen_running: True where the last look, at the deadline, was answered, and the instance ran then. Where it is
            False nobody knows what became of it: that look failed, or nobody saw what the cancel came to that followed.
        outcome: of the cancel that followed; None where there was none, or it failed.
    """

    seen_running: bool = False
    outcome: CancelOutcome | None = None


class StateUnknownError(_EndOfWait):
    """The instance could not be read for so long that the wait, or the attempt to go on with it, gave up. It may run,
    and may have ended either way. A later attempt with its key goes on with it."""


NotDelivered = Literal["no_such_stage", "stage_over", "instance_ended", "repeated_name", "not_ready", "unknown"]


class EventNotDeliveredError(OrchestrationError):
    """The event did not reach the stage that was meant, or it is unknown whether it did (``reason="unknown"``).

    ``moved``: what the run had moved, where it has ended and the caller has read that; else None.
    """

    def __init__(
        self, message: str, *, reason: NotDelivered, instance_id: str, instance: Instance | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.instance_id = instance_id
        self.instance = instance
        self.moved: Moved | None = None


# ---- from an HTTP answer ---------------------------------------------------------------------------

# Endings, not beginnings: a database that is away answers with the same prefixes.
_NOT_FOUND_ENDINGS = ("Instance not found", "sql: no rows in result set", "resource not found")
_NOT_FOUND_PARTS = ("workflow not found for ID",)
_COMPLETED = "workflow execution already completed"
# What the server says of a definition that it refuses, after "creating workflow: ".
_BAD_DEFINITION = (
    "unable to resolve",
    "resolving field",
    "only one name",
    "empty specification",
    "on the 'required' tag",
)


def _error_fields(body: bytes) -> tuple[str | None, str | None]:
    """(errorCode, errorMessage) of a body; None for what is not there. Never raises."""
    try:
        answer = decoded(body)
    except ValueError:
        return None, None
    if not isinstance(answer, dict):
        return None, None
    code, message = answer.get("errorCode"), answer.get("errorMessage")
    return (
        str(code) if code not in (None, "") else None,
        message if isinstance(message, str) else None if message is None else msgspec.json.encode(message).decode(),
    )


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Seconds to wait by a Retry-After header (seconds or an HTTP date), at least 0; None where it says nothing."""
    if value is None:
        return None
    value = value.strip()
    if value.isdecimal():
        return float(value[:9])
    try:
        when = parsedate_to_datetime(value)
        if when.tzinfo is None:
            when = when.replace(tzinfo=timezone.utc)
        return max(0.0, when.timestamp() - now)
    except (TypeError, ValueError, OverflowError):
        return None


def error_from_response(
    what: str, status: int, body: bytes, *, retry_after: str | None = None, now: float = 0.0
) -> OrchestrationError:
    """The error that an unsuccessful answer means.

    Args:
        what: the operation and its subject, for the message.
        status: HTTP status code.
        body: of the response; need not be JSON.
        retry_after: the Retry-After header as received.
        now: epoch seconds, for a Retry-After that is a date.
    """
    code, said = _error_fields(body)
    text = said if said is not None else body[: 4 * BODY_LIMIT].decode("utf-8", "replace").strip()
    if len(text) > BODY_LIMIT:
        text = text[:BODY_LIMIT] + "…"
    wait = parse_retry_after(retry_after, now)
    known = f" {code}" if code else ""
    message = f"{what}: {status}{known}: {text}" if text else f"{what}: {status}{known}, without a message"
    http: dict[str, Any] = {
        "status_code": status,
        "error_code": code,
        "server_message": text,
        "retry_after": wait,
    }
    if status in (401, 403):
        return AuthenticationError(f"{message}; check token, or client_id and client_secret", **http)
    if status == 429:
        return RateLimitedError(message, **http)
    if code == "NOT_FOUND" or (status >= 500 and says_not_found(text)):
        return NotFoundError(message, **http)
    if code == "VALIDATION" or status in (400, 422):
        return ValidationError(message, **http)
    if status == 404:
        hint = "" if code else " (no such path: check the base path of base_url)"
        return NotFoundError(message + hint, **http)
    if status == 500 and _refused_definition(text):
        return ValidationError(message, **http)
    if 300 <= status < 400:
        return ServerError(f"{what}: {status}, a redirect, which is not followed: check base_url", **http)
    return ServerError(message, **http)


def says_not_found(text: str) -> bool:
    """Whether a server message says that a row or a run does not exist."""
    return text.rstrip().endswith(_NOT_FOUND_ENDINGS) or any(part in text for part in _NOT_FOUND_PARTS)


def _refused_definition(text: str) -> bool:
    prefix, _, rest = text.partition("creating workflow: ")
    return not prefix and any(mark in rest for mark in _BAD_DEFINITION)


def says_completed(error: OrchestrationError) -> bool:
    """Whether the engine said that what was addressed has already ended."""
    return isinstance(error, _HttpError) and _COMPLETED in error.message


# What the server says while its database or engine is away.
_AWAY = (
    "connection refused",
    "connection reset",
    "dial tcp",
    "SQLSTATE",
    "deadline exceeded",
    "i/o timeout",
    "broken pipe",
    "bad connection",
    "unexpected EOF",
)


def is_passing(error: OrchestrationError) -> bool:
    """A fault that time may mend: no answer, too many requests, a gateway or a part of the server that is away.

    Every status from 502 on but 505 is one: gateways have many of their own (520 to 530). So is a time-out (408).
    """
    if isinstance(error, TransportError | RateLimitedError):
        return True
    if not isinstance(error, ServerError) or isinstance(error, UnreadableAnswerError):
        return False
    status = error.status_code or 0
    return status == 408 or (status > 501 and status != 505) or any(mark in error.message for mark in _AWAY)


def is_unreadable(error: BaseException) -> bool:
    """A success by its status whose body is not the answer to what was asked."""
    return isinstance(error, UnreadableAnswerError)


def is_unexplained(error: OrchestrationError) -> bool:
    """A plain 500 or an unreadable answer: passing or permanent, the server does not say which."""
    if is_unreadable(error):
        return True
    return isinstance(error, ServerError) and error.status_code == 500 and not is_passing(error)


def is_gateways_404(error: BaseException) -> bool:
    """A 404 without an error code: a gateway or a wrong path answered, not the server. It denies nothing."""
    return isinstance(error, NotFoundError) and error.status_code == 404 and error.error_code is None


def is_inconclusive(error: OrchestrationError) -> bool:
    """Whether a read that ended with ``error`` leaves open what was asked: reading again may tell.

    Whatever decides by a read asks this, and takes such an error neither for "no" nor for "ended".
    """
    return is_passing(error) or is_unexplained(error) or is_gateways_404(error)


def is_mendable(error: BaseException) -> bool:
    """Whether the same read, made later, may be answered: it was inconclusive, or the credentials were refused."""
    return isinstance(error, OrchestrationError) and (is_inconclusive(error) or isinstance(error, AuthenticationError))


def retold(error: OrchestrationError, message: str) -> OrchestrationError:
    """The same error, of the same class and with the same attributes, under a message that says what it comes to."""
    made = _rebuild(type(error), (message,), error.__dict__)
    made.__cause__ = error
    return made


def is_denial(error: BaseException) -> bool:
    """Whether the server itself, and no gateway, says that it does not know what was asked for."""
    return isinstance(error, NotFoundError) and error.error_code is not None


def may_have_left(error: OrchestrationError) -> bool:
    """Whether a part of the call that ended with ``error`` can have reached the server."""
    return not error.before_send and (not isinstance(error, TransportError) or error.sent)


def is_ambiguous(error: OrchestrationError) -> bool:
    """Whether a submit that ended with ``error`` may have been carried out.

    Definite are only: nothing was sent; the caller was refused (4xx other than a time-out, a
    redirect); the server said that what was addressed does not exist, is malformed, or has ended.
    An unreadable answer is not definite.
    """
    if not may_have_left(error):
        return False
    if isinstance(error, TransportError):
        return True
    if isinstance(error, ServerError):
        status = error.status_code or 0
        return not (300 <= status < 500 and status not in (408, 499)) and not says_completed(error)
    return False


def summary(error: BaseException) -> str:
    """One line for a log or an outcome: ``500 <message>`` or the class and what it says."""
    known = isinstance(error, _HttpError) and error.status_code is not None
    text = f"{error.status_code} {error.message}" if known else f"{type(error).__name__}: {error}"  # type: ignore[attr-defined]
    return " ".join(text.split())

"""The class of an error is decided by what the server says, then by its status."""

import json
import pickle
from datetime import datetime, timezone
from pathlib import Path

import pytest

from orchestration_integrations import (
    AmbiguousRunError,
    AuthenticationError,
    InstanceFailedError,
    NotFoundError,
    RateLimitedError,
    ServerError,
    TransportError,
    ValidationError,
)
from orchestration_integrations.api.errors import (
    error_from_response,
    is_ambiguous,
    is_passing,
    is_unexplained,
    parse_retry_after,
)
from orchestration_integrations.api.models import Moved

GOLDEN = Path(__file__).parent.parent / "golden"


def error(status: int, message: str | None = None, code: str | None = "INTERNAL", **more):
    body = (
        b"" if message is None and code is None else json.dumps({"errorCode": code, "errorMessage": message}).encode()
    )
    return error_from_response("instance x", status, body, **more)


@pytest.mark.parametrize(
    ("status", "message", "code", "kind"),
    [
        (500, "Instance not found", "INTERNAL", NotFoundError),
        (500, "retrieving workflow: sql: no rows in result set", "INTERNAL_ERROR", NotFoundError),
        (500, "workflow not found for ID: x", "INTERNAL", NotFoundError),
        (500, "sending signal to server: workflow not found for ID: x-0", "INTERNAL", NotFoundError),
        (404, "resource not found", "NOT_FOUND", NotFoundError),
        (404, None, None, NotFoundError),
        (400, "EOF", "VALIDATION", ValidationError),
        (500, "creating workflow: unable to resolve schema nope", "INTERNAL", ValidationError),
        (500, "creating workflow: a specification should have only one name", "INTERNAL", ValidationError),
        (500, "creating workflow: dial tcp db:5432: connect: connection refused", "INTERNAL", ServerError),
        (500, "retrieving workflow: dial tcp db:5432: connect: connection refused", "INTERNAL", ServerError),
        (500, "internal server error", "INTERNAL", ServerError),
        (500, None, None, ServerError),
        (502, None, None, ServerError),
        (302, None, None, ServerError),
        (418, "teapot", "NEW_CODE", ServerError),
        (401, None, None, AuthenticationError),
        (403, "no", "FORBIDDEN", AuthenticationError),
        (429, None, None, RateLimitedError),
    ],
)
def test_classification(status, message, code, kind):
    raised = error(status, message, code)
    assert type(raised) is kind
    assert "instance x" in str(raised)
    assert raised.status_code == status


@pytest.mark.parametrize("body", [b"<html><h1>502 Bad Gateway</h1>", b"plain", b"", b"\xff\xfe", b"[1]", b'"x"', b"{}"])
def test_bodies_that_are_no_error_object(body):
    raised = error_from_response("run", 502, body)
    assert isinstance(raised, ServerError)
    assert raised.error_code is None


def test_a_long_body_is_cut():
    assert len(str(error_from_response("run", 500, b"x" * 100_000))) < 1000


def test_what_may_have_been_carried_out():
    assert is_ambiguous(TransportError("cut"))
    assert not is_ambiguous(TransportError("refused", sent=False))
    for status in (500, 502, 503, 504, 408, 200):
        assert is_ambiguous(ServerError("x", status_code=status, server_message="context deadline exceeded"))
    for status in (302, 405, 413, 418):
        assert not is_ambiguous(ServerError("x", status_code=status))
    for definite in (
        error(500, "sql: no rows in result set"),
        error(400, "EOF", "VALIDATION"),
        error(401, None, None),
        error(429, None, None),
        error(500, "sending signal to server: workflow execution already completed"),
    ):
        assert not is_ambiguous(definite)
    failed_token = TransportError("cut")
    failed_token.before_send = True
    assert not is_ambiguous(failed_token)


def test_what_time_may_mend():
    assert is_passing(error(500, "FATAL: terminating connection (SQLSTATE=57P01)"))
    assert is_passing(error(500, "context deadline exceeded"))
    assert is_passing(error(503, None, None))
    assert not is_passing(error(500, "internal server error"))
    assert is_unexplained(error(500, "internal server error"))
    assert not is_unexplained(error(500, "Instance not found"))
    assert not is_passing(error(403, None, None))


def test_retry_after_in_seconds_and_as_a_date():
    now = datetime(2026, 1, 1, tzinfo=timezone.utc).timestamp()
    assert parse_retry_after("7", now) == 7.0
    assert parse_retry_after("Thu, 01 Jan 2026 00:00:09 GMT", now) == 9.0
    assert parse_retry_after("Wed, 31 Dec 2025 23:59:00 GMT", now) == 0.0
    for odd in ("soon", "-1", "", "1.5x", None):
        assert parse_retry_after(odd, now) is None
    assert error(429, None, None, retry_after="3").retry_after == 3.0


def test_errors_survive_pickling_with_their_attributes():
    window = (datetime(2026, 1, 1, tzinfo=timezone.utc), datetime(2026, 1, 2, tzinfo=timezone.utc))
    ambiguous = pickle.loads(
        pickle.dumps(AmbiguousRunError("m", workflow_id="w", run_key="k", window=window, candidates=["a"]))
    )
    assert (ambiguous.workflow_id, ambiguous.run_key, ambiguous.window, ambiguous.candidates) == (
        "w",
        "k",
        window,
        ("a",),
    )
    moved = Moved(stages_completed=1, transactions=(), complete=True)
    failed = pickle.loads(pickle.dumps(InstanceFailedError("m", instance_id="i", instance=None, moved=moved)))
    assert (str(failed), failed.moved) == ("m", moved)


def recorded_errors():
    for path in sorted(GOLDEN.glob("*.json")):
        for number, step in enumerate(json.loads(path.read_text())["steps"]):
            if "request" in step and step["response"]["status"] >= 400:
                yield pytest.param(step, id=f"{path.stem}-{number}")


@pytest.mark.parametrize("step", list(recorded_errors()))
def test_every_recorded_error_has_its_class(step):
    request, response = step["request"], step["response"]
    raised = error_from_response(request["path"], response["status"], response["body"].encode())
    message = response["body"]
    if "already completed" in message or "SQLSTATE" in message or "dial tcp" in message or "deadline" in message:
        expected = ServerError
    elif "no rows" in message or "not found" in message or response["status"] == 404:
        expected = NotFoundError
    elif response["status"] == 400 or "creating workflow" in message:
        expected = ValidationError
    else:
        expected = ServerError
    assert type(raised) is expected

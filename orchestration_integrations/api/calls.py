"""Each operation of the API as one function that says what to send and how to read the answer.

Nothing is sent here: a ``Call`` is data that a driver performs. Ids are percent-encoded whole, so
that no id reaches another path than its own. A call knows what it asked for, and its ``decode`` refuses an answer
about anything else. Lists and histories are read leniently for a user; procedures pass ``strict=True``, since what
they read decides (see ``decoding``).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from . import decoding
from .errors import NotFoundError, OrchestrationError, ValidationError, is_gateways_404
from .given_ids import no_workflow_id_text, not_an_id
from .models import ActivityRun, Instance, Page, ServerInfo, StageRun, Trigger, Workflow
from .numbers import checked_flag
from .stage_kinds import unknown_kinds_text

T = TypeVar("T")
Version = Literal["v1", "v2"]

PAGE_SIZE = 100
"""Rows asked for at once: the most that any generation gives."""


LONGEST_ID = 1000
"""Characters that an id may have."""


class RetryClass(enum.Enum):
    """When a call may be sent again. A property of the call, never of its caller.

    READ has no effect, or one that repeating does not add to. SUBMIT starts something: it is
    repeated only where the first surely did nothing.
    """

    READ = "read"
    SUBMIT = "submit"


class Call(msgspec.Struct, Generic[T], frozen=True):
    """One HTTP exchange, not yet sent.

    Attributes:
        operation: short name, ``get_instance``; the API's own name stands in the function's docstring.
        what: the operation and its subject, for messages.
        path: percent-encoded, below the base path.
        query: encoded, without ``?``.
        body: JSON, None for none. Always sent with a Content-Length: the server ignores chunked bodies.
        decode: reads a successful body; raises UnreadableAnswerError where it is not the answer to this call.
        holds: the server may keep the request open for as long as a run takes.
        advice: what its caller has to know where the server refuses it; empty for nothing.
    """

    operation: str
    what: str
    method: str
    path: str
    retry: RetryClass
    decode: Callable[[bytes, str], T]
    query: str = ""
    body: bytes | None = None
    holds: bool = False
    advice: str = ""

    def advised(self, error: OrchestrationError) -> OrchestrationError:
        """The error of an answer; with the advice where the server itself denies or refuses what was asked for."""
        refused = isinstance(error, NotFoundError | ValidationError) and not is_gateways_404(error)
        if refused and self.advice:
            error.args = (f"{error}. {self.advice}",)
        return error


def _segment(value: object, field: str) -> str:
    if not isinstance(value, str) or not value:
        raise ValidationError(f"{field} must be a non-empty string, not {not_an_id(value, field)}", path=field)
    if len(value) > LONGEST_ID:
        raise ValidationError(f"{field} has {len(value)} characters; an id has at most {LONGEST_ID}", path=field)
    try:
        encoded = quote(value, safe="")
    except UnicodeEncodeError:
        raise ValidationError(
            f"{field} contains an unpaired surrogate and cannot be sent as UTF-8: {value!r}", path=field
        ) from None
    # Dot segments would be resolved on the way even though quote() finds nothing to encode in them.
    return encoded.replace(".", "%2E") if encoded in (".", "..") else encoded


def is_encodable(text: str) -> bool:
    """Whether a text can be sent as UTF-8: an unpaired surrogate cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _base(version: Version) -> str:
    return "/v2" if version == "v2" else ""


def _workflow_path(workflow_id: str, version: Version) -> str:
    return f"{_base(version)}/workflows/{_segment(workflow_id, 'workflow_id')}"


def _instance_path(instance_id: str, version: Version) -> str:
    return f"{_base(version)}/instances/{_segment(instance_id, 'instance_id')}"


def _trigger_path(trigger_id: str, version: Version) -> str:
    return f"{_base(version)}/triggers/{_segment(trigger_id, 'trigger_id')}"


def get_server_info() -> Call[ServerInfo]:
    """OrchestrationgetServerInfo: ``GET /_info``; v2 documents it but does not route it."""
    return Call("info", "server info", "GET", "/_info", RetryClass.READ, decoding.decode_info)


def list_workflows(version: Version = "v1", cursor: str | None = None, *, strict: bool = False) -> Call[Page]:
    """ListWorkflows: ``GET /workflows``, one page of it."""
    return _listing("list_workflows", "workflow", "/workflows", version, cursor, strict=strict)


def create_workflow(definition: Mapping[str, Any], version: Version = "v1") -> Call[Workflow]:
    """CreateWorkflow: ``POST /workflows``. The definition is sent as it is: validate it before."""
    return Call(
        "create_workflow",
        f"create workflow {definition.get('name') or '(unnamed)'}",
        "POST",
        f"{_base(version)}/workflows",
        RetryClass.SUBMIT,
        partial(decoding.decode_created_workflow, name=definition.get("name") or ""),
        body=msgspec.json.encode(definition),
        advice=unknown_kinds_text(definition),
    )


def get_workflow(workflow_id: str, version: Version = "v1") -> Call[Workflow]:
    """GetWorkflow: ``GET /workflows/{id}``."""
    path = _workflow_path(workflow_id, version)
    decode = partial(decoding.decode_workflow, id=workflow_id)
    advice = no_workflow_id_text(workflow_id)
    return Call("get_workflow", f"workflow {workflow_id}", "GET", path, RetryClass.READ, decode, advice=advice)


def delete_workflow(workflow_id: str, version: Version = "v1") -> Call[None]:
    """DeleteWorkflow: ``DELETE /workflows/{id}``."""
    path = _workflow_path(workflow_id, version)
    what = f"delete workflow {workflow_id}"
    advice = no_workflow_id_text(workflow_id)
    return Call("delete_workflow", what, "DELETE", path, RetryClass.SUBMIT, decoding.decode_nothing, advice=advice)


def run_workflow(
    workflow_id: str, variables: Mapping[str, str], *, wait: bool = False, version: Version = "v1"
) -> Call[Instance]:
    """RunWorkflow: ``POST /workflows/{id}/instances``. Values must be strings by now."""
    checked_flag(wait, "wait")
    return Call(
        "run_workflow",
        f"run of workflow {workflow_id}",
        "POST",
        f"{_workflow_path(workflow_id, version)}/instances",
        RetryClass.SUBMIT,
        partial(decoding.decode_instance, workflow_id=workflow_id, new=not wait),
        query="wait=true" if wait else "",
        body=msgspec.json.encode(variables),
        holds=wait,
        advice=no_workflow_id_text(workflow_id),
    )


def list_instances(
    version: Version = "v1",
    cursor: str | None = None,
    *,
    workflow_id: str | None = None,
    running: bool = False,
    strict: bool = False,
) -> Call[Page]:
    """ListInstances: ``GET /instances``, one page of it. A cursor replaces all filters."""
    filters: dict[str, str] = {}
    if workflow_id is not None:
        _segment(workflow_id, "workflow_id")  # an empty one would filter nothing
        filters["workflowID"] = workflow_id
    if running:
        filters["running"] = "true"  # generation 1 knows no other spelling
    return _listing(
        "list_instances", "instance", "/instances", version, cursor, filters, strict=strict, parent_id=workflow_id
    )


def get_instance(instance_id: str, version: Version = "v1") -> Call[Instance]:
    """GetInstance: ``GET /instances/{id}``."""
    path = _instance_path(instance_id, version)
    decode = partial(decoding.decode_instance, id=instance_id)
    return Call("get_instance", f"instance {instance_id}", "GET", path, RetryClass.READ, decode)


def get_instance_history(
    instance_id: str, version: Version = "v1", *, strict: bool = False
) -> Call[Sequence[StageRun]]:
    """GetInstanceHistory: ``GET /instances/{id}/history``."""
    return Call(
        "get_instance_history",
        f"history of instance {instance_id}",
        "GET",
        f"{_instance_path(instance_id, version)}/history",
        RetryClass.READ,
        partial(decoding.decode_stage_runs, strict=strict),
    )


def get_stage_history(
    instance_id: str, number: int, version: Version = "v1", *, strict: bool = False
) -> Call[Sequence[ActivityRun]]:
    """GetInstanceStageHistory: ``GET /instances/{id}/stages/{number}/history``; stages count from 0."""
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise ValidationError(f"number must be an integer from 0, not {number!r}", path="number")
    return Call(
        "get_stage_history",
        f"history of stage {number} (counted by the server) of instance {instance_id}",
        "GET",
        f"{_instance_path(instance_id, version)}/stages/{number}/history",
        RetryClass.READ,
        partial(decoding.decode_activity_runs, strict=strict),
    )


def send_event(instance_id: str, name: str, version: Version = "v1") -> Call[None]:
    """SendEvent: ``POST /instances/{id}/events``."""
    if not isinstance(name, str) or not name or not is_encodable(name):
        raise ValidationError(f"name must be a non-empty string, not {name!r}", path="name")
    return Call(
        "send_event",
        f"event to instance {instance_id}",
        "POST",
        f"{_instance_path(instance_id, version)}/events",
        RetryClass.SUBMIT,
        decoding.decode_nothing,
        body=msgspec.json.encode({"name": name}),
    )


def abort_instance(instance_id: str, version: Version = "v1") -> Call[None]:
    """CancelEvent: ``PUT /instances/{id}/abort``. A request, no result: 204 comes before any effect, or without one."""
    path = f"{_instance_path(instance_id, version)}/abort"
    what = f"abort of instance {instance_id}"
    return Call("abort_instance", what, "PUT", path, RetryClass.READ, decoding.decode_nothing)


def list_triggers(version: Version = "v1", cursor: str | None = None, *, strict: bool = False) -> Call[Page]:
    """ListTriggers: ``GET /triggers``, one page of it. Not on generation 1."""
    return _listing("list_triggers", "trigger", "/triggers", version, cursor, strict=strict)


def create_trigger(
    event: str,
    workflow_id: str,
    *,
    filter: str | None = None,
    variables: Mapping[str, str] | None = None,
    version: Version = "v1",
) -> Call[Trigger]:
    """CreateTrigger: ``POST /triggers``."""
    if not isinstance(event, str) or not event:
        raise ValidationError(f"event must be a non-empty string, not {event!r}", path="event")
    _segment(workflow_id, "workflow_id")
    body: dict[str, Any] = {"event": event, "workflowID": workflow_id}
    if filter is not None:
        body["filter"] = filter
    if variables:
        for name, expression in variables.items():
            if not isinstance(name, str) or not isinstance(expression, str):
                raise ValidationError(
                    f"variables: {name!r} must map a string to an expression", path=f"variables.{name}"
                )
        body["vars"] = dict(variables)
    return Call(
        "create_trigger",
        f"create trigger on {event}",
        "POST",
        f"{_base(version)}/triggers",
        RetryClass.SUBMIT,
        partial(decoding.decode_trigger, event=event, workflow_id=workflow_id),
        body=msgspec.json.encode(body),
        advice=no_workflow_id_text(workflow_id),
    )


def get_trigger(trigger_id: str, version: Version = "v1") -> Call[Trigger]:
    """ReadTrigger: ``GET /triggers/{id}``."""
    path = _trigger_path(trigger_id, version)
    decode = partial(decoding.decode_trigger, id=trigger_id)
    return Call("get_trigger", f"trigger {trigger_id}", "GET", path, RetryClass.READ, decode)


def delete_trigger(trigger_id: str, version: Version = "v1") -> Call[None]:
    """DeleteTrigger: ``DELETE /triggers/{id}``."""
    path = _trigger_path(trigger_id, version)
    what = f"delete trigger {trigger_id}"
    return Call("delete_trigger", what, "DELETE", path, RetryClass.SUBMIT, decoding.decode_nothing)


def list_trigger_occurrences(trigger_id: str, version: Version = "v1", cursor: str | None = None) -> Call[Page]:
    """ListTriggersOccurrences: ``GET /triggers/{id}/occurrences``, one page of it; empty for an unknown trigger."""
    path = f"{_trigger_path(trigger_id, 'v1')}/occurrences"
    return _listing("list_trigger_occurrences", "occurrence", path, version, cursor, parent_id=trigger_id)


def test_trigger(trigger_id: str, event: Mapping[str, Any]) -> Call[Mapping[str, Any]]:
    """TestTrigger: ``POST /v2/triggers/{id}/test``: evaluates filter and variables; starts nothing. Only v2 has it."""
    if not isinstance(event, Mapping):
        raise ValidationError(f"event must be a mapping, not {type(event).__name__}", path="event")
    return Call(
        "test_trigger",
        f"test of trigger {trigger_id}",
        "POST",
        f"{_trigger_path(trigger_id, 'v2')}/test",
        RetryClass.SUBMIT,
        decoding.decode_object,
        body=msgspec.json.encode(event),
    )


def _listing(
    operation: str,
    kind: decoding.Listed,
    path: str,
    version: Version,
    cursor: str | None,
    filters: Mapping[str, str] = MappingProxyType({}),
    *,
    strict: bool = False,
    parent_id: str | None = None,
) -> Call[Page]:
    query = {"cursor": cursor} if cursor is not None else {"pageSize": str(PAGE_SIZE), **filters}
    return Call(
        operation,
        f"list of {kind}s",
        "GET",
        f"{_base(version)}{path}",
        RetryClass.READ,
        partial(
            decoding.decode_page,
            kind,
            strict=strict,
            first=cursor is None,
            parent_id=parent_id,
        ),
        query=urlencode(query),
    )

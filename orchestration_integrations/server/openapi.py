"""The server's own description of its API, written from what it serves, as OpenAPI 3.0."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

_INSTANT = {"type": "string", "format": "date-time"}
_STRING = {"type": "string"}
_STAGE_EXAMPLE = {"wait_event": {"event": "go"}}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: str, **properties: Any) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required.split()
    return schema


def _json(schema: Any, description: str = "success") -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _data(schema: Any) -> dict[str, Any]:
    return _json(_object("data", data=schema))


def _list(schema: Any, v2: bool) -> dict[str, Any]:
    if not v2:
        return _data({"type": "array", "items": schema})
    cursor = _object(
        "pageSize hasMore data",
        pageSize={"type": "integer"},
        hasMore={"type": "boolean"},
        previous=_STRING,
        next=_STRING,
        data={"type": "array", "items": schema},
    )
    return _json(_object("cursor", cursor=cursor))


def _path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _query(name: str, schema: Any, description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


def _body(schema: Any, required: bool = True, yaml: bool = False) -> dict[str, Any]:
    content = {"application/json": {"schema": schema}}
    if yaml:
        content["text/vnd.yaml"] = {"schema": _STRING}
    return {"required": required, "content": content}


_NO_CONTENT = {"description": "done"}


class _Paths:
    """Collects operations, with the errors that each can answer."""

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.paths: dict[str, Any] = {}

    def add(
        self,
        path: str,
        method: str,
        operation: str,
        status: int,
        success: Any,
        *,
        parameters: tuple[Any, ...] = (),
        body: Any = None,
        missing: bool = False,
        invalid: bool = False,
        free: bool = False,
        broken: bool = False,
        description: str = "",
    ) -> None:
        responses: dict[str, Any] = {str(status): success}
        if invalid:
            responses["400"] = _json(_ref("Error"), "the input is not valid")
        if missing:
            responses["404"] = _json(_ref("Error"), "it does not exist")
        if not free:
            responses["401"] = {"description": "no valid token, where one is demanded"}
        if self.generation < 3 or broken:
            responses["500"] = _json(_ref("Error"), "not found, not valid or not possible just now: see the message")
        described: dict[str, Any] = {"operationId": operation, "responses": responses}
        if description:
            described["description"] = description
        if parameters:
            described["parameters"] = list(parameters)
        if body is not None:
            described["requestBody"] = body
        if free:
            described["security"] = []
        self.paths.setdefault(path, {})[method] = described


@lru_cache(maxsize=3)
def document(generation: int) -> dict[str, Any]:
    """An OpenAPI 3.0 document of what this generation serves."""
    paths = _Paths(generation)
    paths.add("/_info", "get", "getServerInfo", 200, _json(_object("version", version=_STRING)), free=True)
    paths.add("/_healthcheck", "get", "healthcheck", 200, _json({"type": "object"}), free=True)
    paths.paths["/api/auth/oauth/token"] = {"post": _token()}
    _describe(paths, "", "", v2=False)
    if generation > 1:
        _describe(paths, "/v2", "V2", v2=True)
    return {
        "openapi": "3.0.3",
        "info": {
            "title": "Orchestration, as imitated by the embedded server",
            "version": str(generation),
            "description": "Every path is served at the root and under /api/orchestration.",
        },
        "paths": paths.paths,
        "components": {
            "schemas": _schemas(generation),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"bearer": []}],
    }


def _describe(paths: _Paths, base: str, suffix: str, *, v2: bool) -> None:
    first = paths.generation == 1
    paged: tuple[Any, ...] = ()
    if v2 or paths.generation > 2:
        size = {"type": "integer", "minimum": 1, "maximum": 100, "default": 15}
        paged = (_query("pageSize", size, "rows on a page"),)
    if v2:
        paged += (_query("cursor", _STRING, "a page, as an earlier one named it; then no other filter"),)
    workflow, instance = _path("workflowID"), _path("instanceID")
    w, i = f"{base}/workflows", f"{base}/instances"
    paths.add(
        w, "get", f"listWorkflows{suffix}", 200, _list(_ref("Workflow"), v2), parameters=paged, invalid=bool(paged)
    )
    body = _body(_ref("Config"), yaml=True)
    paths.add(w, "post", f"createWorkflow{suffix}", 201, _data(_ref("Workflow")), body=body, invalid=True)
    one = f"{w}/{{workflowID}}"
    paths.add(one, "get", f"getWorkflow{suffix}", 200, _data(_ref("Workflow")), parameters=(workflow,), missing=True)
    paths.add(
        one, "delete", f"deleteWorkflow{suffix}", 204, _NO_CONTENT, parameters=(workflow,), missing=True, invalid=True
    )
    variables = _body({"type": "object", "additionalProperties": _STRING}, required=False)
    paths.add(
        f"{one}/instances",
        "post",
        f"runWorkflow{suffix}",
        201,
        _data(_ref("Instance")),
        parameters=(workflow,),
        body=variables,
        missing=True,
        invalid=True,
        # No parameter: whoever tries parameters out would wait for runs that wait for them.
        description="`wait=true` in the query asks for an answer when the run has ended, which may be never.",
    )
    filters = (
        _query("workflowID", _STRING, "only runs of this workflow"),
        _query("running", {"type": "boolean"}, "only runs that have not ended"),
        *paged,
    )
    rows = _list(_ref("Instance"), v2)
    paths.add(i, "get", f"listInstances{suffix}", 200, rows, parameters=filters, invalid=bool(paged))
    one = f"{i}/{{instanceID}}"
    here = (instance,)
    paths.add(one, "get", f"getInstance{suffix}", 200, _data(_ref("Instance")), parameters=here, missing=True)
    event = _body(_object("name", name=_STRING))
    paths.add(
        f"{one}/events",
        "post",
        f"sendEvent{suffix}",
        204,
        _NO_CONTENT,
        parameters=here,
        body=event,
        missing=True,
        invalid=True,
    )
    paths.add(f"{one}/abort", "put", f"cancelEvent{suffix}", 204, _NO_CONTENT, parameters=here, missing=True)
    runs = _data({"type": "array", "items": _ref("StageRun")})
    paths.add(f"{one}/history", "get", f"getInstanceHistory{suffix}", 200, runs, parameters=here, missing=True)
    paths.add(
        f"{one}/stages/{{number}}/history",
        "get",
        f"getInstanceStageHistory{suffix}",
        200,
        _data({"type": "array", "items": _ref("Activity")}),
        parameters=(instance, {"name": "number", "in": "path", "required": True, "schema": {"type": "integer"}}),
        missing=True,
    )
    if not first:
        _describe_triggers(paths, base, suffix, paged, v2)


def _describe_triggers(paths: _Paths, base: str, suffix: str, paged: tuple[Any, ...], v2: bool) -> None:
    t = f"{base}/triggers"
    one, here = f"{t}/{{triggerID}}", (_path("triggerID"),)
    shown = _data(_ref("Trigger"))
    paths.add(
        t, "get", f"listTriggers{suffix}", 200, _list(_ref("Trigger"), v2), parameters=paged, invalid=True, broken=True
    )
    body = _body(_ref("TriggerData"))
    paths.add(t, "post", f"createTrigger{suffix}", 201, shown, body=body, missing=True, invalid=True, broken=True)
    paths.add(one, "get", f"readTrigger{suffix}", 200, shown, parameters=here, missing=True)
    paths.add(one, "delete", f"deleteTrigger{suffix}", 204, _NO_CONTENT, parameters=here, missing=True)
    rows = _list(_ref("Occurrence"), v2)
    paths.add(
        f"{one}/occurrences",
        "get",
        f"listTriggersOccurrences{suffix}",
        200,
        rows,
        parameters=(*here, *paged),
        invalid=True,
    )
    if v2:
        result = _data(
            _object("", filter={"type": "object", "nullable": True}, variables={"type": "object", "nullable": True})
        )
        paths.add(
            f"{one}/test",
            "post",
            f"testTrigger{suffix}",
            200,
            result,
            parameters=here,
            body=_body({"type": "object"}),
            missing=True,
            broken=True,
        )


def _token() -> dict[str, Any]:
    form = _object(
        "grant_type client_id client_secret",
        grant_type={"type": "string", "enum": ["client_credentials"]},
        client_id=_STRING,
        client_secret=_STRING,
        scope=_STRING,
    )
    issued = _object(
        "access_token token_type expires_in",
        access_token=_STRING,
        token_type=_STRING,
        expires_in={"type": "integer"},
    )
    refused = _object("error", error=_STRING)
    return {
        "operationId": "getToken",
        "security": [],
        "requestBody": {"required": True, "content": {"application/x-www-form-urlencoded": {"schema": form}}},
        "responses": {
            "200": _json(issued),
            "400": _json(refused, "another grant than client_credentials"),
            "401": _json(refused, "not these credentials"),
        },
    }


def _schemas(generation: int) -> dict[str, Any]:
    stage = {
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": {"type": "object", "nullable": True},
        "example": _STAGE_EXAMPLE,
        "description": "one of send, delay, wait_event" + ("" if generation == 1 else ", update"),
    }
    config = _object("", name=_STRING, stages={"type": "array", "items": _ref("Stage"), "nullable": True})
    status = _object(
        "stage instanceID startedAt",
        stage={"type": "integer"},
        instanceID=_STRING,
        startedAt=_INSTANT,
        terminatedAt=_INSTANT,
        error=_STRING,
        **({} if generation == 1 else {"temporalRunID": _STRING}),
    )
    instance = _object(
        "workflowID id createdAt updatedAt terminated",
        workflowID=_STRING,
        id=_STRING,
        createdAt=_INSTANT,
        updatedAt=_INSTANT,
        terminated={"type": "boolean"},
        terminatedAt=_INSTANT,
        error=_STRING,
        status={"type": "array", "items": _ref("StageStatus")},
        **({} if generation == 1 else {"workflow": _ref("Workflow")}),
    )
    schemas = {
        "Error": _object("errorCode errorMessage", errorCode=_STRING, errorMessage=_STRING),
        "Stage": stage,
        "Config": config,
        "Workflow": _object(
            "id config createdAt updatedAt deletedAt",
            id=_STRING,
            config=config,
            createdAt=_INSTANT,
            updatedAt=_INSTANT,
            deletedAt={**_INSTANT, "nullable": True},
        ),
        "StageStatus": status,
        "Instance": instance,
        "StageRun": _object(
            "name input terminated startedAt",
            name=_STRING,
            input={"type": "object"},
            error=_STRING,
            terminated={"type": "boolean"},
            startedAt=_INSTANT,
            terminatedAt=_INSTANT,
        ),
        "Activity": _object(
            "name input terminated startedAt attempt",
            name=_STRING,
            input={"type": "object"},
            output={"type": "object"},
            error=_STRING,
            terminated={"type": "boolean"},
            startedAt=_INSTANT,
            terminatedAt=_INSTANT,
            lastFailure=_STRING,
            attempt={"type": "integer"},
            nextExecution=_INSTANT,
        ),
    }
    if generation > 1:
        given = {
            "name": _STRING,
            "event": _STRING,
            "workflowID": _STRING,
            "filter": _STRING,
            "vars": {"type": "object", "additionalProperties": _STRING},
        }
        schemas["TriggerData"] = _object("event workflowID", **given)
        schemas["Trigger"] = _object("event workflowID id name createdAt", **given, id=_STRING, createdAt=_INSTANT)
        schemas["Occurrence"] = _object(
            "id triggerID date event",
            id=_STRING,
            triggerID=_STRING,
            workflowInstanceID=_STRING,
            workflowInstance=_ref("Instance"),
            date=_INSTANT,
            event={"type": "object"},
            error=_STRING,
        )
    return schemas

"""Request bodies as the server reads them, with its words for what it cannot read. JsonError throughout."""

from __future__ import annotations

import json
from typing import Any

from . import golang
from .golang import JsonError


def read_yaml(body: bytes) -> Any:
    """A definition in YAML, as the JSON value that it stands for."""
    import yaml

    try:
        value = yaml.safe_load(body.decode("utf-8", "replace"))
        json.dumps(value, default=_yaml_scalar, allow_nan=False)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, OverflowError) as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
        if problem.startswith("expected the node content"):
            problem = "did not find expected node content"
        line = "" if mark is None else f"line {mark.line + 1}: "
        raise JsonError(f"yaml: {line}{problem}") from None
    if value is None:
        raise JsonError("EOF")
    return json.loads(json.dumps(value, default=_yaml_scalar))


def _yaml_scalar(value: Any) -> str:
    text = getattr(value, "isoformat", None)
    if text is None:
        raise TypeError(f"yaml: no JSON for {type(value).__name__}")
    return str(text())


def read_config(body: Any) -> tuple[str, list[Any] | None]:
    """The name and the stages of a definition."""
    if body is None:
        return "", None
    if not isinstance(body, dict):
        raise _wrong_body(body, "workflow.Config")
    name, stages = _field(body, "name"), _field(body, "stages")
    if name is not None and not isinstance(name, str):
        raise _wrong_field(name, "Config.name", "string")
    if stages is not None and not isinstance(stages, list):
        raise _wrong_field(stages, "Config.stages", "[]workflow.RawStage")
    for stage in stages or ():
        if stage is not None and not isinstance(stage, dict):
            raise _wrong_field(stage, "Config.stages", "workflow.RawStage")
        for value in (stage or {}).values():
            if value is not None and not isinstance(value, dict):
                raise _wrong_field(value, "Config.stages", "map[string]interface {}")
    return name or "", stages


def read_variables(body: Any) -> dict[str, str]:
    """The variables of a run."""
    if body is None:
        return {}
    if not isinstance(body, dict):
        raise _wrong_body(body, "map[string]string")
    for value in body.values():
        if value is not None and not isinstance(value, str):
            raise _wrong_body(value, "string")
    return {k: v or "" for k, v in body.items()}


def read_event(body: Any) -> str:
    """The name of an event."""
    if body is None:
        return ""
    if not isinstance(body, dict):
        raise _wrong_body(body, "workflow.Event")
    name = _field(body, "name")
    if name is not None and not isinstance(name, str):
        raise _wrong_field(name, "Event.name", "string")
    return name or ""


def read_trigger(body: Any) -> tuple[str, str, str, str | None, dict[str, str] | None]:
    """A trigger's event, workflow id, name, filter and variables."""
    if body is None:
        body = {}
    if not isinstance(body, dict):
        raise _wrong_body(body, "triggers.TriggerData")
    texts: dict[str, str | None] = {}
    for key in ("event", "workflowID", "name", "filter"):
        value = body.get(key)
        if value is not None and not isinstance(value, str):
            raise _wrong_field(value, f"TriggerData.{key}", "string")
        texts[key] = value
    variables = body.get("vars")
    if variables is not None and not isinstance(variables, dict):
        raise _wrong_field(variables, "TriggerData.vars", "map[string]string")
    for value in (variables or {}).values():
        if value is not None and not isinstance(value, str):
            raise _wrong_field(value, "TriggerData.vars", "string")
    filled = {k: v or "" for k, v in variables.items()} if variables is not None else None
    return texts["event"] or "", texts["workflowID"] or "", texts["name"] or "", texts["filter"], filled


def read_payload(body: Any) -> dict[str, Any]:
    """The payload that a trigger is tested with."""
    if not isinstance(body, dict):
        raise _wrong_body(body, "map[string]interface {}")
    return body


def _field(body: dict[str, Any], name: str) -> Any:
    """A field by its name in any case of letters, as the server finds it."""
    if name in body:
        return body[name]
    return next((v for k, v in body.items() if k.lower() == name), None)


def _wrong_body(value: Any, wanted: str) -> JsonError:
    return JsonError(f"json: cannot unmarshal {golang.json_kind(value)} into Go value of type {wanted}")


def _wrong_field(value: Any, field: str, wanted: str) -> JsonError:
    kind = golang.json_kind(value)
    return JsonError(f"json: cannot unmarshal {kind} into Go struct field {field} of type {wanted}")

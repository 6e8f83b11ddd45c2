"""Triggers: runs that event messages start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import expressions, golang
from .exchange import Reply, Request
from .expressions import ExpressionError
from .golang import JsonError, format_instant_cut
from .state import Instance, Trigger

if TYPE_CHECKING:
    from .api import Api
    from .engine import Engine


class Triggers:
    """The triggers of one server, their calls, and the broker's messages."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.by_id: dict[str, Trigger] = {}
        self.seen: set[str] = set()

    # ---- calls ---------------------------------------------------------------------------------

    def list(self, api: Api, request: Request, v2: bool) -> Reply:
        query = api.query(request)
        api.need_database()
        if query.get("name"):
            # The server's own query is broken there.
            api.fail('ERROR: syntax error at or near ";" (SQLSTATE=42601)')
        rows = [t for t in self.by_id.values() if not t.deleted]
        shown, cursor = api.page(rows, query, v2, False)
        return api.listing([_shown(t) for t in shown], cursor)

    def create(self, api: Api, request: Request) -> Reply:
        try:
            body = golang.decode_json(request.body)
            event, workflow_id, name, filter_, variables = _read(body)
        except JsonError as error:
            api.fail(str(error))
        if not event:
            api.refuse("validating data: missing event")
        if not workflow_id:
            api.refuse("validating data: missing workflow id")
        for text in [filter_ or "", *(variables or {}).values()]:
            try:
                if text or text is not filter_:
                    expressions.compile_expression(text)
            except ExpressionError as error:
                if text or variables:
                    api.refuse(f"validating data: error compiling expression '{text}': {error}")
        api.need_database()
        workflow = self._engine.workflows.get(workflow_id)
        if workflow is None or workflow.deleted_ns is not None:
            api.not_found()
        trigger = Trigger(self._engine.uuid(), event, workflow_id, self._engine.now, name, filter_, variables)
        self.by_id[trigger.id] = trigger
        self._engine.store.touch(trigger)
        return api.data(_shown(trigger), 201)

    def _find(self, api: Api, trigger_id: str) -> Trigger:
        api.need_database()
        trigger = self.by_id.get(trigger_id)
        if trigger is None or trigger.deleted:
            api.not_found()
        return trigger

    def get(self, api: Api, trigger_id: str) -> Reply:
        return api.data(_shown(self._find(api, trigger_id)))

    def delete(self, api: Api, trigger_id: str) -> Reply:
        trigger = self._find(api, trigger_id)
        trigger.deleted = True
        self._engine.store.touch(trigger)
        return Reply(204)

    def list_occurrences(self, api: Api, request: Request, v2: bool, trigger_id: str) -> Reply:
        api.need_database()
        trigger = self.by_id.get(trigger_id)
        rows = trigger.occurrences if trigger is not None else []
        shown, cursor = api.page(rows, api.query(request), v2, False)
        return api.listing(shown, cursor)

    def test(self, api: Api, request: Request, trigger_id: str) -> Reply:
        try:
            event = golang.decode_json(request.body)
        except JsonError as error:
            api.fail(str(error))
        if not isinstance(event, dict):
            api.fail(
                f"json: cannot unmarshal {golang.json_kind(event)} into Go value of type map[string]interface {{}}"
            )
        trigger = self._find(api, trigger_id)
        result: dict[str, Any] = {"filter": None, "variables": None}
        if trigger.filter is not None:
            try:
                result["filter"] = {"match": _matches(trigger, event)}
            except ExpressionError as error:
                result["filter"] = {"match": False, "error": str(error)}
        if (result["filter"] is None or result["filter"]["match"]) and trigger.vars:
            result["variables"] = {}
            for name, text in trigger.vars.items():
                try:
                    result["variables"][name] = {"value": expressions.as_text(expressions.evaluate(text, event))}
                except ExpressionError as error:
                    result["variables"][name] = {"error": str(error)}
        return api.data(result)

    # ---- messages --------------------------------------------------------------------------------

    def publish(self, message: dict[str, Any]) -> None:
        """An event message arrives: `{type, payload, …}`. The same saved payment starts nothing twice."""
        kind, payload = message.get("type"), message.get("payload")
        payload = payload if isinstance(payload, dict) else {}
        for trigger in self.by_id.values():
            if trigger.deleted or trigger.event != kind:
                continue
            if kind == "SAVED_PAYMENT" and payload.get("id") is not None:
                key = f"{trigger.id}/{payload['id']}"
                if key in self.seen:
                    continue
                self.seen.add(key)
            try:
                if not _matches(trigger, payload):
                    continue
                variables = {
                    name: expressions.as_text(expressions.evaluate(text, payload))
                    for name, text in (trigger.vars or {}).items()
                }
            except ExpressionError as error:
                self._occurred(trigger, message, None, str(error))
                continue
            engine = self._engine
            instance = engine.add_instance(engine.uuid(), trigger.workflow_id, variables, 0)
            engine._started(instance)
            self._occurred(trigger, message, instance, None)
        self._engine.store.touch_meta()

    def _occurred(
        self, trigger: Trigger, message: dict[str, Any], instance: Instance | None, error: str | None
    ) -> None:
        occurrence: dict[str, Any] = {
            "triggerID": trigger.id,
            "date": format_instant_cut(self._engine.now),
            "event": message,
        }
        if instance is not None:
            occurrence["workflowInstanceID"] = instance.id
        if error is not None:
            occurrence["error"] = error
        trigger.occurrences.append(occurrence)
        self._engine.store.touch(trigger)


def _matches(trigger: Trigger, payload: dict[str, Any]) -> bool:
    if not trigger.filter:
        return True
    value = expressions.evaluate(trigger.filter, payload)
    if not isinstance(value, bool):
        raise ExpressionError(f"the filter is no condition: {value!r}")
    return value


def _shown(trigger: Trigger) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "event": trigger.event,
        "workflowID": trigger.workflow_id,
        "id": trigger.id,
        "createdAt": format_instant_cut(trigger.created_ns),
    }
    if trigger.name:
        shown["name"] = trigger.name
    if trigger.filter is not None:
        shown["filter"] = trigger.filter
    if trigger.vars:
        shown["vars"] = trigger.vars
    return shown


def _read(body: Any) -> tuple[str, str, str, str | None, dict[str, str] | None]:
    if body is None:
        body = {}
    if not isinstance(body, dict):
        raise JsonError(f"json: cannot unmarshal {golang.json_kind(body)} into Go value of type triggers.TriggerData")
    texts: dict[str, str | None] = {}
    for key in ("event", "workflowID", "name", "filter"):
        value = body.get(key)
        if value is not None and not isinstance(value, str):
            kind = golang.json_kind(value)
            raise JsonError(f"json: cannot unmarshal {kind} into Go struct field TriggerData.{key} of type string")
        texts[key] = value
    variables = body.get("vars")
    if variables is not None and not isinstance(variables, dict):
        kind = golang.json_kind(variables)
        raise JsonError(
            f"json: cannot unmarshal {kind} into Go struct field TriggerData.vars of type map[string]string"
        )
    for value in (variables or {}).values():
        if value is not None and not isinstance(value, str):
            kind = golang.json_kind(value)
            raise JsonError(f"json: cannot unmarshal {kind} into Go struct field TriggerData.vars of type string")
    filled = {k: v or "" for k, v in variables.items()} if variables is not None else None
    return texts["event"] or "", texts["workflowID"] or "", texts["name"] or "", texts["filter"], filled

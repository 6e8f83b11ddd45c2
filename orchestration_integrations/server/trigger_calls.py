"""The calls about triggers: list, create, get, delete, occurrences, test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import expressions, golang
from .bodies import read_payload, read_trigger
from .exchange import Reply
from .expressions import ExpressionError
from .golang import JsonError
from .replies import NO_CONTENT, Answers, query_of
from .shown import trigger_json
from .triggers import matches

if TYPE_CHECKING:
    from .calls import Call
    from .state import Trigger
    from .triggers import Triggers


class TriggerCalls:
    """The operations on triggers."""

    def __init__(self, triggers: Triggers, answers: Answers) -> None:
        self._triggers = triggers
        self._answers = answers

    def list(self, call: Call) -> Reply:
        query = query_of(call.request)
        self._answers.need_database()
        if query.get("name"):
            # The server's own query is broken there.
            self._answers.fail('ERROR: syntax error at or near ";" (SQLSTATE=42601)')
        rows = [trigger for trigger in self._triggers.by_id.values() if not trigger.deleted]
        shown, cursor = self._answers.page(rows, query, call.route.v2, False)
        return self._answers.listing([trigger_json(trigger) for trigger in shown], cursor)

    def create(self, call: Call) -> Reply:
        try:
            event, workflow_id, name, filter_, variables = read_trigger(golang.decode_json(call.request.body))
        except JsonError as error:
            self._answers.fail(str(error))
        if not event:
            self._answers.refuse("validating data: missing event")
        if not workflow_id:
            self._answers.refuse("validating data: missing workflow id")
        for text in [*([filter_] if filter_ else []), *(variables or {}).values()]:
            try:
                expressions.compile_expression(text)
            except ExpressionError as error:
                self._answers.refuse(f"validating data: error compiling expression '{text}': {error}")
        self._answers.need_database()
        trigger = self._triggers.add(event, workflow_id, name, filter_, variables)
        if trigger is None:
            self._answers.not_found()
        return self._answers.data(trigger_json(trigger), 201)

    def _find(self, trigger_id: str) -> Trigger:
        self._answers.need_database()
        trigger = self._triggers.by_id.get(trigger_id)
        if trigger is None or trigger.deleted:
            self._answers.not_found()
        return trigger

    def get(self, call: Call) -> Reply:
        return self._answers.data(trigger_json(self._find(call.route.id)))

    def delete(self, call: Call) -> Reply:
        self._triggers.delete(self._find(call.route.id))
        return NO_CONTENT

    def occurrences(self, call: Call) -> Reply:
        self._answers.need_database()
        trigger = self._triggers.by_id.get(call.route.id)
        rows = trigger.occurrences if trigger is not None else []
        shown, cursor = self._answers.page(rows, query_of(call.request), call.route.v2, False)
        return self._answers.listing(shown, cursor)

    def test(self, call: Call) -> Reply:
        try:
            event = read_payload(golang.decode_json(call.request.body))
        except JsonError as error:
            self._answers.fail(str(error))
        trigger = self._find(call.route.id)
        result: dict[str, Any] = {"filter": None, "variables": None}
        if trigger.filter is not None:
            try:
                result["filter"] = {"match": matches(trigger, event)}
            except ExpressionError as error:
                result["filter"] = {"match": False, "error": str(error)}
        if (result["filter"] is None or result["filter"]["match"]) and trigger.vars:
            result["variables"] = {}
            for name, text in trigger.vars.items():
                try:
                    result["variables"][name] = {"value": expressions.as_text(expressions.evaluate(text, event))}
                except ExpressionError as error:
                    result["variables"][name] = {"error": str(error)}
        return self._answers.data(result)

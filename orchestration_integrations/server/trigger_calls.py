"""The calls about triggers: list, create, get, delete, occurrences, test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import expressions, golang
from .bodies import read_payload, read_trigger
from .exchange import Reply
from .expressions import ExpressionError
from .golang import JsonError
from .replies import NO_CONTENT, NO_ROWS, Answers, query_of
from .shown import instance_row, trigger_json
from .values import from_json

if TYPE_CHECKING:
    from .calls import Call
    from .state import Trigger
    from .triggers import Triggers


class TriggerCalls:
    """The operations on triggers."""

    def __init__(self, triggers: Triggers, answers: Answers, generation: int) -> None:
        self._triggers = triggers
        self._generation = generation
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
                expressions.check(text)
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
        return self._answers.listing([self._with_instance(row) for row in shown], cursor)

    def _with_instance(self, occurrence: dict[str, Any]) -> dict[str, Any]:
        instance = self._triggers.instance_of(occurrence)
        if instance is None:
            return occurrence
        return {**occurrence, "workflowInstance": instance_row(instance, self._generation)}

    def test(self, call: Call) -> Reply:
        try:
            event = read_payload(golang.decode_json(call.request.body))
        except JsonError as error:
            self._answers.fail(str(error))
        self._answers.need_database()
        trigger = self._triggers.by_id.get(call.route.id)
        if trigger is None or trigger.deleted:
            self._answers.fail(NO_ROWS)
        result: dict[str, Any] = {"filter": None, "variables": None}
        payload = from_json(event)
        if trigger.filter is not None:
            try:
                result["filter"] = {"match": expressions.is_match(trigger.filter, payload)}
            except ExpressionError as error:
                result["filter"] = {"match": False, "error": str(error)}
        if (result["filter"] is None or result["filter"]["match"]) and trigger.vars:
            result["variables"] = {name: _tested(text, payload) for name, text in trigger.vars.items()}
        return self._answers.data(result)


def _tested(text: str, payload: dict[str, Any]) -> dict[str, str]:
    """A variable as the test shows it: an empty value is left out."""
    try:
        value = expressions.text_of(expressions.evaluate(text, payload))
    except ExpressionError as error:
        return {"error": str(error)}
    return {"value": value} if value else {}

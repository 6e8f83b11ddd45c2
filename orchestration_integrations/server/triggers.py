"""Triggers: runs that event messages start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import expressions
from .expressions import ExpressionError
from .golang import format_instant_cut
from .state import Instance, Trigger

if TYPE_CHECKING:
    from .engine import Engine


class Triggers:
    """The triggers of one server, and the broker's messages."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.by_id: dict[str, Trigger] = {}
        self.seen: set[str] = set()
        """Payments that each trigger has heard of."""

    def add(
        self, event: str, workflow_id: str, name: str, filter_: str | None, variables: dict[str, str] | None
    ) -> Trigger | None:
        """A new trigger; None: there is no such workflow."""
        engine = self._engine
        workflow = engine.workflows.get(workflow_id)
        if workflow is None or workflow.deleted_ns is not None:
            return None
        trigger = Trigger(engine.agenda.uuid(), event, workflow_id, engine.now, name, filter_, variables)
        self.by_id[trigger.id] = trigger
        engine.memory.store.touch(trigger)
        return trigger

    def delete(self, trigger: Trigger) -> None:
        """It starts nothing any more; what it started stays on its list."""
        trigger.deleted = True
        self._engine.memory.store.touch(trigger)

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
                if not matches(trigger, payload):
                    continue
                variables = {
                    name: expressions.as_text(expressions.evaluate(text, payload))
                    for name, text in (trigger.vars or {}).items()
                }
            except ExpressionError as error:
                self._occurred(trigger, message, None, str(error))
                continue
            starting = self._engine.starting
            instance = starting.add_instance(self._engine.agenda.uuid(), trigger.workflow_id, variables, 0)
            starting.begin_run(instance)
            self._occurred(trigger, message, instance, None)
        self._engine.memory.store.touch_meta()

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
        self._engine.memory.store.touch(trigger)


def matches(trigger: Trigger, payload: dict[str, Any]) -> bool:
    """Whether a payload passes a trigger's filter. ExpressionError: it can't be told."""
    if not trigger.filter:
        return True
    value = expressions.evaluate(trigger.filter, payload)
    if not isinstance(value, bool):
        raise ExpressionError(f"the filter is no condition: {value!r}")
    return value

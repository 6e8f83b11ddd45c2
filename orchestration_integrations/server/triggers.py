"""Triggers: runs that event messages start.

A message passes two gates, and where it doesn't, nothing tells of it. The first: each object starts one run of a
trigger. A message about a payment or an account whose id was there before is dropped, and all messages without an id
count as one object. On generation 2 the first message about an object uses its id up, whether the filter lets it pass
or not; on generation 3 the first that passes. The second gate is the filter: one that can't be evaluated, or is no
condition, lets nothing pass. Variables that can't be evaluated leave an occurrence with an error.

A trigger outlives its workflow. On generation 2 it goes on to start runs of the deleted one; on generation 3 it hears
nothing any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import expressions, values
from .expressions import ExpressionError
from .golang import format_instant_cut
from .state import Instance, Trigger

if TYPE_CHECKING:
    from .engine import Engine

ONCE = ("SAVED_PAYMENT", "SAVED_ACCOUNT")
"""Types of messages about objects: the id in the payload counts."""


class Triggers:
    """The triggers of one server, and the broker's messages."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.by_id: dict[str, Trigger] = {}
        self.seen: set[str] = set()
        """Objects that each trigger has heard of."""
        engine.add_step("fire", self.fire)

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

    def instance_of(self, occurrence: dict[str, Any]) -> Instance | None:
        """The instance that an occurrence has started, if it did."""
        return self._engine.instances.get(occurrence.get("workflowInstanceID", ""))

    def publish(self, message: dict[str, Any]) -> None:
        """An event message arrives: `{type, payload, …}`."""
        kind, payload = message.get("type"), values.from_json(message.get("payload"))
        payload = payload if isinstance(payload, dict) else {}
        object_id = payload.get("id", "") if kind in ONCE else None
        if object_id is not None and not isinstance(object_id, str):
            return  # the server can't read it, and never gets further with it
        for trigger in self.by_id.values():
            if trigger.deleted or trigger.event != kind or self._engine.memory.workflow(trigger.workflow_id) is None:
                continue
            key = None if object_id is None else f"{trigger.id}/{object_id}"
            if key in self.seen:
                continue
            passes = _passes(trigger, payload)
            if key is not None and (passes or self._engine.generation == 2):
                self.seen.add(key)
            if passes:
                self._engine.agenda.after(self._engine.agenda.timing.initiate, "fire", trigger.id, message)
        self._engine.memory.store.touch_meta()

    def fire(self, trigger_id: str, message: dict[str, Any]) -> None:
        """A worker evaluates a trigger's variables and starts the run."""
        trigger = self.by_id[trigger_id]
        payload = values.from_json(message.get("payload"))
        payload = payload if isinstance(payload, dict) else {}
        try:
            variables = {
                name: expressions.text_of(expressions.evaluate(text, payload))
                for name, text in (trigger.vars or {}).items()
            }
        except ExpressionError as error:
            self._occurred(trigger, message, None, str(error))
            return
        starting = self._engine.starting
        instance = starting.add_instance(self._engine.agenda.uuid(), trigger.workflow_id, variables, 0)
        starting.begin_run(instance)
        self._occurred(trigger, message, instance, None)

    def _occurred(
        self, trigger: Trigger, message: dict[str, Any], instance: Instance | None, error: str | None
    ) -> None:
        occurrence: dict[str, Any] = {
            "id": self._engine.agenda.uuid(),
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


def _passes(trigger: Trigger, payload: dict[str, Any]) -> bool:
    if not trigger.filter:
        return True
    try:
        return expressions.is_match(trigger.filter, payload)
    except ExpressionError:
        return False

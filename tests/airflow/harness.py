"""Tries of one task without a scheduler: what an operator sees of Airflow, and no more."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

from airflow.providers.common.compat.sdk import TaskDeferred

from orchestration_integrations import OrchestrationHttpHook
from orchestration_integrations.airflow.operators import OrchestrationRunWorkflowOperator

SEND = {
    "send": {
        "source": {"account": {"id": "world"}},
        "destination": {"account": {"id": "${to}"}},
        "amount": {"amount": 100, "asset": "EUR/2"},
    }
}
FAILS = {"send": {**SEND["send"], "destination": {"account": {"id": "${to}!!bad name"}}}}
SHORT = {"name": "short", "stages": [SEND]}
LONG = {"name": "long", "stages": [SEND, {"delay": {"duration": "1h"}}, SEND]}
WAITS = {"name": "waits", "stages": [SEND, {"wait_event": {"event": "approve"}}, SEND]}
BROKEN = {"name": "broken", "stages": [SEND, FAILS]}
TO = {"to": "merchants:1"}


class Store:
    """A task state store: JSON values that outlive tries and clears."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def get(self, key: str, default: Any = None) -> Any:
        return json.loads(self.texts[key]) if key in self.texts else default

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        self.texts[key] = json.dumps(value)


class Task:
    """One task over its tries: counts them as Airflow does."""

    def __init__(self, *, retries: int = 2, durable: bool = True, map_index: int = -1, **arguments: Any) -> None:
        self.retries = retries
        self.max_tries = retries
        self.try_number = 0
        self.map_index = map_index
        self.store = Store() if durable else None
        self.arguments: dict[str, Any] = {"variables": TO, "poll_interval": 0.2, **arguments}
        self.xcoms: dict[str, Any] = {}
        self.first_start = datetime.now(timezone.utc)
        self.operator: OrchestrationRunWorkflowOperator | None = None

    def clear(self) -> None:
        """As a user clears a task that does not run."""
        self.max_tries = self.try_number + self.retries

    def context(self, operator: Any) -> dict[str, Any]:
        ti = SimpleNamespace(
            dag_id="dag",
            run_id="run",
            task_id="pay",
            map_index=self.map_index,
            try_number=self.try_number,
            max_tries=self.max_tries,
            start_date=datetime.now(timezone.utc),
            task=operator,
            xcom_push=lambda key, value: self.xcoms.__setitem__(key, json.loads(json.dumps(value))),
            xcom_pull=lambda task_ids=None, key=None, map_indexes=None: self.xcoms.get(key),
        )
        context: dict[str, Any] = {
            "ti": ti,
            "dag_run": SimpleNamespace(start_date=self.first_start),
            "run_id": "run",
        }
        if self.store is not None:
            context["task_state_store"] = self.store
        return context

    def attempt(self, **changes: Any) -> Any:
        """One try on a fresh operator object, deferrals performed in place; what it returns or raises."""
        self.try_number += 1
        self.xcoms.clear()
        operator = self.operator = OrchestrationRunWorkflowOperator(
            task_id="pay", retries=self.retries, **{**self.arguments, **changes}
        )
        context = self.context(operator)
        return perform(operator, context)

    @property
    def record(self) -> dict[str, Any]:
        assert self.store is not None
        found = self.store.get("orchestration_run")
        assert isinstance(found, dict)
        return found


def perform(operator: Any, context: dict[str, Any]) -> Any:
    """Execute, and where it defers run the trigger as a triggerer would and resume on a fresh copy."""
    try:
        return operator.execute(context)
    except TaskDeferred as deferred:
        last = deferred
    while True:
        event = first_event(rebuilt(last.trigger))
        kwargs = json.loads(json.dumps(last.kwargs or {}))
        try:
            return operator.resume_execution(last.method_name, {**kwargs, "event": event}, context)
        except TaskDeferred as deferred:
            last = deferred


def rebuilt(trigger: Any) -> Any:
    """The trigger as a triggerer rebuilds it from its row."""
    from importlib import import_module

    path, kwargs = trigger.serialize()
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)(**json.loads(json.dumps(kwargs)))


def first_event(trigger: Any, timeout: float = 60.0) -> Any:
    """The payload of the first event of a trigger, as it arrives after its way through JSON."""

    async def first() -> Any:
        async for event in trigger.run():
            return event.payload
        return None

    return json.loads(json.dumps(asyncio.run(asyncio.wait_for(first(), timeout))))


def define(server: Any, definition: dict[str, Any], *, gate: bool = True) -> str:
    """The id of a definition on the server."""
    with OrchestrationHttpHook(base_url=server.url) as http:
        return http.ensure_workflow(definition, gate=gate).workflow.id


def begin(server: Any, definition: dict[str, Any], variables: Any = None) -> str:
    """The id of a running instance."""
    with OrchestrationHttpHook(base_url=server.url) as http:
        workflow = http.ensure_workflow(definition).workflow
        return http.run_workflow(workflow.id, TO if variables is None else variables).id


def begin_waiting(server: Any) -> str:
    """The id of an instance that has paid once and waits for its event."""
    instance_id = begin(server, WAITS)
    with OrchestrationHttpHook(base_url=server.url) as http:
        for _ in range(600):
            if len(http.get_instance(instance_id).status) > 1:
                return instance_id
            time.sleep(0.05)
    raise AssertionError(f"instance {instance_id} does not get to its event")


def state_of(server: Any, instance_id: str) -> str:
    with OrchestrationHttpHook(base_url=server.url) as http:
        return http.get_instance(instance_id).state

"""Tries of one task without a scheduler: what an operator sees of Airflow, and no more."""

from __future__ import annotations

import asyncio
import json
import re
import time
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

from orchestration_integrations import OrchestrationHttpHook
from orchestration_integrations.airflow import compat, run_records, triggers, variables
from orchestration_integrations.airflow.compat import TaskDeferred
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
CARRIES = {
    "name": "carries",
    "stages": [{"send": {**SEND["send"], "metadata": {"key": "${runKey}"}}}, {"delay": {"duration": "3s"}}],
}
UNFUNDED = {"name": "unfunded", "stages": [{"send": {**SEND["send"], "source": {"account": {"id": "empty"}}}}]}
BROKEN = {"name": "broken", "stages": [SEND, FAILS]}
TO = {"to": "merchants:1"}


class Store:
    """A task state store: JSON values that outlive tries and clears."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def get(self, key: str, default: Any = None) -> Any:
        return json.loads(self.texts[key]) if key in self.texts else default

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        assert json.loads(json.dumps(value)) == value, "Airflow takes plain JSON only: no tuples"
        self.texts[key] = json.dumps(value)


class Airflow:
    """What Airflow would say and keep, while no Airflow runs: states, Variables. Put in place by ``conftest``."""

    def __init__(self) -> None:
        self.variables: dict[str, str] = {}
        self.task_state: str | None = "running"
        self.run_state: str | None = "running"
        self.failed: set[str] = set()
        self.asked = 0
        self.away = False

    def sight_of_task(self, parts: Any, *, in_trigger: bool = False) -> compat.Sight:
        self.asked += 1
        if self.away:
            raise RuntimeError("the API server is away")
        if in_trigger and self.task_state == "running":
            return compat.Sight("deferred")
        return compat.Sight(self.task_state)

    def failed_tasks(self, dag_id: str, run_id: str) -> frozenset[str]:
        if self.away:
            raise RuntimeError("the API server is away")
        return frozenset(self.failed)

    def state_of_dag_run(self, dag_id: str, run_id: str) -> str | None:
        return self.run_state

    def read(self, name: str) -> str | None:
        if self.away:
            raise RuntimeError("the API server is away")
        return self.variables.get(name)

    def write(self, name: str, text: str, description: str) -> None:
        assert re.fullmatch(r"\w[\w.-]{,248}", name), "Airflow 3.0 takes no slash"
        if self.away:
            raise RuntimeError("the API server is away")
        self.variables[name] = text

    def write_first(self, name: str, text: str, description: str) -> str:
        if self.away:
            raise RuntimeError("the API server is away")
        return self.variables.setdefault(name, text)

    def remove(self, name: str) -> None:
        if self.away:
            raise RuntimeError("the API server is away")
        self.variables.pop(name, None)

    def of(self, kind: str) -> dict[str, str]:
        return {name: text for name, text in self.variables.items() if name.startswith(f"orchestration_{kind}_")}

    def marks(self, kind: str) -> list[str]:
        """The names of the Variables of the marks of checkpoints."""
        return list(self.of(kind))

    def put_in_place(self, patch: Any) -> None:
        for name in ("sight_of_task", "state_of_dag_run", "failed_tasks"):
            patch.setattr(compat, name, getattr(self, name))
        patch.setattr(triggers, "sight_of_task", self.sight_of_task)
        for name in ("read", "write", "write_first", "remove"):
            patch.setattr(variables, name, getattr(self, name))
        patch.setattr(variables, "read_surely", self.read)


class Task:
    """One task over its tries: counts them as Airflow does."""

    def __init__(
        self,
        *,
        retries: int = 2,
        durable: bool = True,
        map_index: int = -1,
        task_id: str = "pay",
        run_id: str = "run",
        **arguments: Any,
    ) -> None:
        self.retries = retries
        self.max_tries = retries
        self.clear_number = 0
        self.try_number = 0
        self.map_index = map_index
        self.task_id = task_id
        self.run_id = run_id
        self.store = Store() if durable else None
        self.arguments: dict[str, Any] = {"variables": TO, "poll_interval": 0.2, **arguments}
        self.xcoms: dict[str, Any] = {}
        self.first_start = datetime.now(timezone.utc)
        self.operator: OrchestrationRunWorkflowOperator | None = None

    def clear(self) -> None:
        """As a user clears a task that does not run."""
        self.max_tries = self.try_number + self.retries
        self.clear_number += 1

    def context(self, operator: Any) -> dict[str, Any]:
        ti = SimpleNamespace(
            dag_id="dag",
            run_id=self.run_id,
            task_id=self.task_id,
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
            "dag_run": SimpleNamespace(start_date=self.first_start, clear_number=self.clear_number),
            "run_id": self.run_id,
        }
        if self.store is not None:
            context["task_state_store"] = self.store
        return context

    def attempt(self, **changes: Any) -> Any:
        """One try on a fresh operator object, deferrals performed in place; what it returns or raises."""
        self.try_number += 1
        self.xcoms.clear()
        operator = self.operator = OrchestrationRunWorkflowOperator(
            task_id=self.task_id, retries=self.retries, **{**self.arguments, **changes}
        )
        context = self.context(operator)
        return perform(operator, context)

    @property
    def record(self) -> dict[str, Any]:
        """What is on record, as plain JSON; on either store."""
        if self.store is not None:
            kept = self.store.get("orchestration_run")
        else:
            kept = run_records.VariablePlace(("dag", self.run_id, self.task_id, self.map_index)).read("run")
        assert isinstance(kept, dict)
        assert isinstance(kept["record"], dict)
        return kept["record"]

    def put_on_record(self, **changes: Any) -> None:
        """Change the record by hand."""
        kept = {"opened": "1970-01-01T00:00:00+00:00", "record": {**self.record, **changes}}
        if self.store is not None:
            self.store.set("orchestration_run", kept)
        else:
            run_records.VariablePlace(("dag", self.run_id, self.task_id, self.map_index)).write("run", kept)


def perform(operator: Any, context: dict[str, Any]) -> Any:
    """Execute, and where it defers run the trigger as a triggerer would and resume on a fresh copy."""
    try:
        return operator.execute(context)
    except TaskDeferred as deferred:
        last = deferred
    return perform_from(operator, context, last, first_event(rebuilt(last.trigger, context["ti"])))


def perform_from(operator: Any, context: dict[str, Any], last: Any, event: Any) -> Any:
    """Go on after a deferral, with what its trigger told."""
    while True:
        kwargs = json.loads(json.dumps(last.kwargs or {}))
        try:
            return operator.resume_execution(last.method_name, {**kwargs, "event": event}, context)
        except TaskDeferred as deferred:
            last = deferred
            event = first_event(rebuilt(last.trigger, context["ti"]))


def rebuilt(trigger: Any, ti: Any = None) -> Any:
    """The trigger as a triggerer rebuilds it from its row."""
    from importlib import import_module

    path, kwargs = trigger.serialize()
    module, _, name = path.rpartition(".")
    made = getattr(import_module(module), name)(**json.loads(json.dumps(kwargs)))
    names = ("dag_id", "run_id", "task_id", "map_index", "try_number")
    if all(hasattr(ti, name) for name in names):
        made.task_instance = SimpleNamespace(**{name: getattr(ti, name) for name in names})
    return made


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

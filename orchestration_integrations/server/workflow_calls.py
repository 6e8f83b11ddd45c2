"""The calls about workflows: list, create, get, delete, run."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from . import definitions, golang
from .bodies import read_config, read_variables, read_yaml
from .clock import SECOND
from .exchange import Exchange, Reply, Request
from .golang import JsonError
from .parts import DEADLINE
from .replies import NO_CONTENT, NO_ROWS, Answers, Problem, query_of
from .shown import instance_json, new_instance_json, workflow_json
from .stages import CANCELED
from .state import Instance, Workflow

if TYPE_CHECKING:
    from collections.abc import Callable

    from .calls import Call
    from .engine import Engine

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)


class WorkflowCalls:
    """The operations on workflows.

    Args:
        complete: called with an exchange whose answer comes later, and that answer.
    """

    def __init__(self, engine: Engine, answers: Answers, complete: Callable[[Exchange, Reply], None]) -> None:
        self._engine = engine
        self._answers = answers
        self._complete = complete
        self._generation = engine.generation

    def list(self, call: Call) -> Reply:
        query = query_of(call.request)
        self._answers.need_database()
        rows = [w for w in self._engine.workflows.values() if w.deleted_ns is None]
        if call.exchange.has("shuffled") and len(rows) > 1:
            self._engine.agenda.rng.shuffle(rows)
            call.exchange.changes.add("shuffled")
        shown, cursor = self._answers.page(rows, query, call.route.v2, self._generation < 3)
        return self._answers.listing([workflow_json(w) for w in shown], cursor)

    def create(self, call: Call) -> Reply:
        name, stages = self._config(call.request)
        try:
            definitions.check(stages or (), self._generation)
        except definitions.DefinitionError as error:
            text = f"creating workflow: {error}"
            if self._generation > 2:
                self._answers.refuse(text)
            self._answers.fail(text)
        self._answers.need_database("creating workflow: ")
        workflow = Workflow(self._engine.agenda.uuid(), name, stages, self._engine.now)
        self._engine.workflows[workflow.id] = workflow
        self._engine.memory.store.touch(workflow)
        return self._answers.data(workflow_json(workflow, cut=False), 201)

    def _config(self, request: Request) -> tuple[str, Any]:
        where = "unmarshalling json body"
        try:
            if request.headers.get("content-type") == "text/vnd.yaml":
                where = "unmarshalling yaml"
                body = golang.decode_json(json.dumps(read_yaml(request.body)).encode())
                where = "unmarshalling workflow data"
            else:
                body = golang.decode_json(request.body)
            return read_config(body)
        except JsonError as error:
            self._answers.refuse(f"{where}: {error}")

    def _find(self, workflow_id: str) -> Workflow:
        self._answers.need_database()
        workflow = self._engine.memory.workflow(workflow_id)
        if workflow is None:
            self._answers.missing(NO_ROWS)
        return workflow

    def get(self, call: Call) -> Reply:
        return self._answers.data(workflow_json(self._find(call.route.id)))

    def delete(self, call: Call) -> Reply:
        workflow_id = call.route.id
        if not _UUID.fullmatch(workflow_id):
            self._answers.refuse("Key: '' Error:Field validation for '' failed on the 'uuid' tag")
        self._answers.need_database()
        workflow = self._engine.memory.workflow(workflow_id)
        if workflow is None:
            self._answers.not_found()
        workflow.deleted_ns = self._engine.now
        self._engine.memory.store.touch(workflow)
        return NO_CONTENT

    def run(self, call: Call) -> Reply | None:
        variables = self._variables(call.request)
        workflow = self._find(call.route.id)
        starting, fault, late_ns = self._engine.starting, call.work, 0
        if fault is not None and fault.kind == "ghost":
            starting.add_instance(self._engine.agenda.uuid(), workflow.id, variables, 0)
            call.exchange.changes.add("ghost")
            self._answers.fail(fault.options.get("message", DEADLINE))
        if fault is not None:
            late_ns = int(fault.options.get("seconds", 5.0) * SECOND)
            call.exchange.changes.add("late_row")
        wait = query_of(call.request).get("wait", "").lower() in ("true", "1")
        exchange = call.exchange
        exchange.on_instance = lambda instance, waited: self._complete(
            exchange, self._waited_answer(instance) if wait and waited else self._answer(instance)
        )
        exchange.on_error = lambda text: self._complete(exchange, self._answers.failure(text))
        starting.submit(exchange, workflow, variables, wait, late_ns)
        return None

    def _variables(self, request: Request) -> dict[str, str]:
        length = request.headers.get("content-length", "0")
        if not length.isdigit() or int(length) == 0:
            return {}
        try:
            return read_variables(golang.decode_json(request.body))
        except JsonError as error:
            self._answers.refuse(str(error))

    def _answer(self, instance: Instance) -> Reply:
        return self._answers.data(new_instance_json(instance, self._generation), 201)

    def _waited_answer(self, instance: Instance) -> Reply:
        """The instance read anew after the wait, with the wait's own error in the place of the row's.

        Generation 1 has one to tell, with the type that the engine gives it. The others don't, so that a failure looks
        like a success.
        """
        try:
            self._answers.need_database()
        except Problem:
            return Reply(500)
        shown = instance_json(instance, self._generation, self._engine.agenda.rng)
        shown.pop("error", None)
        if self._generation == 1 and instance.end_error:
            error_type = f" (type: {instance.end_type}, retryable: true)" if instance.end_error != CANCELED else ""
            shown["error"] = instance.end_error + error_type
        return self._answers.data(shown, 201)

"""The calls about instances: list, get, histories, events, aborts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from . import golang
from .bodies import read_event
from .calls import EngineAwayError
from .exchange import Reply
from .golang import JsonError
from .replies import NO_CONTENT, NO_ROWS, Answers
from .shown import activity_json, instance_json, instance_row, stage_run_json, workflow_json
from .signals import SignalError

if TYPE_CHECKING:
    from .calls import Call
    from .engine import Engine
    from .state import Instance

_NUMBER = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)


class InstanceCalls:
    """The operations on instances."""

    def __init__(self, engine: Engine, answers: Answers) -> None:
        self._engine = engine
        self._answers = answers
        self._generation = engine.generation

    def list(self, call: Call) -> Reply:
        self._answers.need_database("retrieving workflow: ")
        query = self._answers.asked(call.request, call.route.v2)
        engine = self._engine
        running, workflow_id = query.get("running", ""), query.get("workflowID", "")
        only_running = running == "true" if self._generation == 1 else running.lower() in ("true", "1")
        asked = only_running, workflow_id
        if call.exchange.has("no_filter"):
            only_running, workflow_id = False, ""
        rows = [
            i
            for i in engine.instances.values()
            if _is_asked_for(i, only_running, workflow_id)
            and engine.workflows[i.workflow_id].deleted_ns is None
            and i.visible_ns <= engine.now
        ]
        if call.exchange.has("no_filter") and not all(_is_asked_for(one, *asked) for one in rows):
            call.exchange.changes.add("no_filter")
        if call.exchange.has("shuffled") and len(rows) > 1:
            engine.agenda.rng.shuffle(rows)
            call.exchange.changes.add("shuffled")
        shown, cursor = self._answers.page(rows, query, call.route.v2, self._generation < 3)
        out = []
        for instance in shown:
            row = instance_row(instance, self._generation)
            if self._generation > 1:
                row["workflow"] = workflow_json(engine.workflows[instance.workflow_id])
            out.append(row)
        return self._answers.listing(out, cursor)

    def get(self, call: Call) -> Reply:
        self._answers.need_database()
        instance = self._engine.visible_instance(call.route.id)
        if instance is None:
            self._answers.missing("Instance not found")
        return self._answers.data(instance_json(instance, self._generation, self._engine.agenda.rng))

    def history(self, call: Call) -> Reply:
        self._need_engine()
        instance_id = call.route.id
        instance = self._engine.visible_instance(instance_id)
        if instance is None or not instance.started:
            suffix = "-main" if self._generation > 1 else ""
            self._answers.missing(f"workflow not found for ID: {instance_id}{suffix}")
        return self._answers.data([stage_run_json(run) for _, run in sorted(instance.runs.items())])

    def stage_history(self, call: Call) -> Reply:
        if not _NUMBER.fullmatch(call.route.stage):
            return Reply(404)
        self._need_engine()
        instance = self._engine.visible_instance(call.route.id)
        run = instance.runs.get(int(call.route.stage)) if instance is not None else None
        if run is None:
            self._answers.not_found()
        return self._answers.data([activity_json(activity, call.route.v2) for activity in run.activities])

    def send_event(self, call: Call) -> Reply:
        try:
            name = read_event(golang.decode_json(call.request.body))
        except JsonError as error:
            self._answers.refuse(str(error))
        instance = self._row(call.route.id, "retrieving workflow: ")
        if not instance.rows:
            self._answers.missing(f"retrieving workflow: {NO_ROWS}")
        prefix = "sending signal to server: "
        self._need_engine(prefix)
        try:
            self._engine.signals.signal(instance, name)
        except SignalError as error:
            self._answers.missing(f"{prefix}{error}")
        return NO_CONTENT

    def abort(self, call: Call) -> Reply:
        instance = self._row(call.route.id, "retrieving workflow execution: ")
        self._need_engine()
        try:
            self._engine.signals.abort(instance)
        except SignalError as error:
            self._answers.missing(str(error))
        return NO_CONTENT

    def _row(self, instance_id: str, prefix: str) -> Instance:
        self._answers.need_database(prefix)
        instance = self._engine.visible_instance(instance_id)
        if instance is None:
            self._answers.missing(f"{prefix}{NO_ROWS}")
        return instance

    def _need_engine(self, prefix: str = "") -> None:
        if not self._engine.parts.up["engine"]:
            raise EngineAwayError(prefix)


def _is_asked_for(instance: Instance, only_running: bool, workflow_id: str) -> bool:
    return (not workflow_id or instance.workflow_id == workflow_id) and not (
        only_running and instance.terminated_ns is not None
    )

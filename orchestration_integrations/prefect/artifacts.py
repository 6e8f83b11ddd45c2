"""What the UI shows of a run: artifacts and events. All of it is best effort and none of it delays a wait for long.

Events, for automations: ``orchestration.instance.started``, ``orchestration.instance.stage`` (payload: stage,
kind, name, detail), ``orchestration.instance.checkpoint`` (payload: stage, the one behind it; kind: ``listening`` or
``ended``; detail) and ``orchestration.instance.ended`` (payload: state). Their resource is
``orchestration.instance.<id>``. Stages have the numbers that they have in the user's definition: the gate and the
checkpoints that this package put between them are not counted.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.events import emit_event

from ..api.instants import format_instant
from ..api.models import Instance, StageEvent
from ..http_hook import OrchestrationHttpHook
from ..ownership.begun import Did, begun_text
from ..procedures.gate import own_number, own_stages
from ..procedures.outages import OutageNews
from ..procedures.wording import stage_line, stage_text
from ..settings import Settings
from .api import api
from .credentials import FACE
from .place import ids_here, run_logger

READ_SECONDS = 3.0
"""Seconds that reading the definition may take, once per wait."""


class Progress:
    """Tells what happens to an instance: to the log always, to artifacts and events where ``shown`` and inside a run.

    Blocking. Nothing is written where nothing changed.
    """

    def __init__(self, settings: Settings, instance_id: str, *, shown: bool) -> None:
        self._settings = settings
        self._instance_id = instance_id
        self._flow_run_id, self._task_run_id = ids_here()
        self._shown = shown and (self._flow_run_id is not None or self._task_run_id is not None)
        self._logger = run_logger()
        self._stages: Sequence[Mapping[str, Any]] | None = None
        self._artifact: UUID | None = None
        self._last: tuple[float, str] | None = None
        self._names: dict[int, str] = {}

    def started(self, instance: Instance, did: Did | None) -> None:
        """Tell that the run was started or continued."""
        workflow_id, state = instance.workflow_id, instance.state
        self._logger.info("%s", begun_text(did or "goes on with", instance))
        self._emit("started", {"workflow_id": workflow_id, "state": state})
        link = self._settings.instance_link(self._instance_id, workflow_id)
        self._create("link", f"[instance {self._instance_id}]({link})", "markdown")

    def stage(self, event: StageEvent) -> None:
        """What a wait tells."""
        if event.name:
            self._names[event.stage] = event.name
        number = event.own_stage
        if event.checkpoint is not None:
            self._checkpoint(event, event.checkpoint)
            return
        if number is None:
            self._logger.debug("instance %s: its gate has %s", self._instance_id, event.kind)
            return
        name = event.name or self._names.get(event.stage) or ""
        shown = stage_text(event)
        self._logger.info("instance %s: %s", self._instance_id, shown)
        self._emit("stage", {"stage": number, "kind": event.kind, "name": name, "detail": event.detail or ""})
        if self._shown:
            total = len(own_stages(self._definition()))
            done = number + (1 if event.kind == "ended" else 0)
            share = 100.0 * done / total if total else 0.0
            of = f" of {total}" if total else ""
            self._progress(min(share, 100.0), f"Instance {self._instance_id}: {shown} ({done}{of} stages done)")

    def _checkpoint(self, event: StageEvent, number: int) -> None:
        line = stage_line(event)
        if not line:
            return
        self._logger.info(line)
        self._emit("checkpoint", {"stage": number, "kind": event.kind, "detail": event.detail or ""})
        self._progress(self._last[0] if self._last else 0.0, f"I{line[1:]}")

    def outage(self, news: OutageNews) -> None:
        """Tell the log that reads begin to fail, or work again."""
        self._logger.log(logging.INFO if news.over else logging.WARNING, "%s", news.text)

    def held(self, checkpoint: int | None, instance: Instance | None) -> None:
        """The wait was interrupted, and the run stands at the checkpoint before this stage."""
        self.ended(f"held at the checkpoint before stage {checkpoint}", instance)

    def ended(self, state: str, instance: Instance | None) -> None:
        """The wait is over. ``state``: of the instance, or what else ended the wait."""
        self._logger.info("instance %s: %s", self._instance_id, state)
        self._emit("ended", {"state": state})
        done = 100.0 if state == "succeeded" else (self._last[0] if self._last else 0.0)
        self._progress(done, f"Instance {self._instance_id}: {state}")
        if instance is not None and instance.status:
            table = [
                {
                    "stage": number,
                    "kind": self._names.get(row.stage, ""),
                    "started": format_instant(row.started_at),
                    "ended": format_instant(row.terminated_at) if row.terminated_at is not None else "",
                    "error": row.error or "",
                }
                for row in instance.status
                if (number := self._own_number(row.stage)) is not None
            ]
            self._create("stages", json.dumps(table), "table")

    def _own_number(self, stage: int) -> int | None:
        """The user's number of a stage; the server's where the definition could not be read; None for the gate."""
        stages = self._definition()
        return own_number(stages, stage) if stage < len(stages) else stage

    def _definition(self) -> Sequence[Mapping[str, Any]]:
        """The stages of the workflow, read once; empty where they could not be read."""
        if self._stages is None:
            self._stages = ()
            quick = self._settings.with_changes(
                timeout=min(self._settings.timeout, READ_SECONDS), retry_budget=READ_SECONDS
            )
            try:
                with OrchestrationHttpHook(quick, face=FACE) as hook:
                    workflow_id = hook.get_instance(self._instance_id).workflow_id
                    self._stages = hook.get_workflow(workflow_id).stages
            except Exception:
                self._logger.debug("the stages of the workflow are unknown", exc_info=True)
        return self._stages

    def _progress(self, share: float, description: str) -> None:
        if not self._shown or self._last == (share, description):
            return
        self._last = (share, description)
        if self._artifact is None:
            self._artifact = self._create("progress", share, "progress", description)
            return
        artifact = self._artifact
        self._safely(lambda client: client.update_artifact(artifact, _changes(share, description)))

    def _create(self, what: str, data: Any, kind: str, description: str | None = None) -> UUID | None:
        if not self._shown:
            return None
        key = re.sub(r"[^a-z0-9-]+", "-", f"instance-{self._instance_id}-{what}".lower())
        artifact = ArtifactCreate(
            key=key,
            type=kind,
            description=description,
            data=data,
            flow_run_id=self._flow_run_id,
            task_run_id=self._task_run_id,
        )
        made = self._safely(lambda client: client.create_artifact(artifact))
        return made.id if made is not None else None

    def _safely(self, ask: Callable[[Any], Any]) -> Any:
        try:
            return ask(api())
        except Exception:
            self._logger.debug("an artifact could not be written", exc_info=True)
            return None

    def _emit(self, what: str, payload: dict[str, Any]) -> None:
        if not self._shown:
            return
        resource = {
            "prefect.resource.id": f"orchestration.instance.{self._instance_id}",
            "prefect.resource.name": f"instance {self._instance_id}",
        }
        try:
            emit_event(f"orchestration.instance.{what}", resource, payload=payload)
        except Exception:
            self._logger.debug("an event could not be emitted", exc_info=True)


def _changes(share: float, description: str) -> ArtifactUpdate:
    return ArtifactUpdate(data=share, description=description)

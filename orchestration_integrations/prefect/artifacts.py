"""What the UI shows of a run: artifacts and events. All of it is best effort and none of it delays a wait for long.

Events, for automations: ``orchestration.instance.started``, ``orchestration.instance.stage`` (payload: stage,
kind, name, detail) and ``orchestration.instance.ended`` (payload: state). Their resource is
``orchestration.instance.<id>``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.events import emit_event

from ..api.instants import format_instant
from ..api.models import Instance, StageEvent
from ..http_hook import OrchestrationHttpHook
from ..settings import Settings
from .credentials import FACE
from .flow_runs import here, run_logger

READ_SECONDS = 3.0
"""Seconds that reading the definition may take, once per wait."""


class Progress:
    """Tells what happens to an instance: to the log always, to artifacts and events where ``shown`` and inside a run.

    Blocking. Nothing is written where nothing changed.
    """

    def __init__(self, settings: Settings, instance_id: str, *, shown: bool) -> None:
        place = here()
        self._settings = settings
        self._instance_id = instance_id
        self._flow_run_id, self._task_run_id = place.flow_run_id, place.task_run_id
        self._shown = shown and (place.flow_run_id is not None or place.task_run_id is not None)
        self._logger = run_logger()
        self._stages: int | None = None
        self._artifact: UUID | None = None
        self._last: tuple[float, str] | None = None
        self._names: dict[int, str] = {}

    def started(self, workflow_id: str, state: str) -> None:
        """The run was started, or gone on with."""
        self._logger.info("instance %s of workflow %s: %s", self._instance_id, workflow_id, state)
        self._emit("started", {"workflow_id": workflow_id, "state": state})
        link = f"{self._settings.base_url}/instances/{self._instance_id}"
        self._create("link", f"[instance {self._instance_id}]({link})", "markdown")

    def stage(self, event: StageEvent) -> None:
        """What a wait tells."""
        if event.name:
            self._names[event.stage] = event.name
        name = event.name or self._names.get(event.stage) or ""
        shown = (
            f"stage {event.stage} {name}".rstrip() + f" {event.kind}" + (f": {event.detail}" if event.detail else "")
        )
        self._logger.info("instance %s: %s", self._instance_id, shown)
        self._emit("stage", {"stage": event.stage, "kind": event.kind, "name": name, "detail": event.detail or ""})
        if self._shown:
            total = self._total()
            done = event.stage + (1 if event.kind == "ended" else 0)
            share = 100.0 * done / total if total else 0.0
            of = f" of {total}" if total else ""
            self._progress(min(share, 100.0), f"Instance {self._instance_id}: {shown} ({done}{of} stages done)")

    def ended(self, state: str, instance: Instance | None) -> None:
        """The wait is over. ``state``: of the instance, or what else ended the wait."""
        self._logger.info("instance %s: %s", self._instance_id, state)
        self._emit("ended", {"state": state})
        done = 100.0 if state == "succeeded" else (self._last[0] if self._last else 0.0)
        self._progress(done, f"Instance {self._instance_id}: {state}")
        if instance is not None and instance.status:
            table = [
                {
                    "stage": row.stage,
                    "kind": self._names.get(row.stage, ""),
                    "started": format_instant(row.started_at),
                    "ended": format_instant(row.terminated_at) if row.terminated_at is not None else "",
                    "error": row.error or "",
                }
                for row in instance.status
            ]
            self._create("stages", json.dumps(table), "table")

    def _total(self) -> int:
        if self._stages is None:
            self._stages = 0
            quick = self._settings.with_changes(
                timeout=min(self._settings.timeout, READ_SECONDS), retry_budget=READ_SECONDS
            )
            try:
                with OrchestrationHttpHook(quick, face=FACE) as hook:
                    workflow_id = hook.get_instance(self._instance_id).workflow_id
                    self._stages = len(hook.get_workflow(workflow_id).stages)
            except Exception:
                self._logger.debug("the number of stages is unknown", exc_info=True)
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
            with get_client(sync_client=True) as client:
                return ask(client)
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

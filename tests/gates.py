"""Gates, as tests look at them: what a start sends, and whose release an event was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestration_integrations import Workflow
from orchestration_integrations.api.definitions import variable_texts
from orchestration_integrations.procedures.content import content_of
from orchestration_integrations.procedures.gate import parsed_event
from orchestration_integrations.procedures.variables import GATE_VARIABLE


def variables_of(
    workflow: Workflow, key: str, variables: Mapping[str, Any] | None = None, number: int = 0
) -> dict[str, str]:
    """The variables that a start of this key sends: of a run that was created and not released."""
    texts = variable_texts(variables)
    text = content_of(key, workflow.stages, texts).gate_text(key, number).text
    return {**texts, "runKey": key, GATE_VARIABLE: text}


def key_of(event: str) -> str | None:
    """The run key whose gate waits for an event; None for another event."""
    gate = parsed_event(event)
    return gate.key if gate is not None else None


def releases_of(record: Any, key: str) -> list[Mapping[str, Any]]:
    """The releases of the runs of a key."""
    return [one for one in record.released if key_of(one["event"]) == key]

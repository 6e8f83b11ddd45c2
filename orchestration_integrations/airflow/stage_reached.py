"""Whether a stage of a run is where a sensor waits for it, and why it can never be.

A sensor counts stages as the server does. Whoever forgets the gate names another stage than the one that is meant. So
an error names the stage by both numbers, and says how ``stage=`` counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..api.models import Instance, StageRun
from ..procedures.ends import definition_or_none
from ..procedures.events import COUNTS
from ..procedures.gate import own_stages
from ..procedures.wording import stage_counted
from .errors import NotAsExpectedFailure

Stages = Sequence[Mapping[str, Any]]


def stages_of(http: Any, instance: Instance) -> Stages | None:
    """The stages of an instance's workflow; None where they cannot be read at once."""
    found: Stages | None = http.perform(definition_or_none(instance, None, http.plans.versions, http.plans.clock, None))
    return found


def stage_reached(
    instance: Instance,
    history: Sequence[StageRun],
    stage: int,
    until: str,
    event: str | None,
    read_stages: Callable[[], Stages | None],
) -> bool:
    """Whether a stage is where it should be.

    Args:
        stage: the server's number of it.
        read_stages: those of the workflow, or None; called only for the text of what is raised.

    Raises:
        NotAsExpectedFailure: it can never be.
    """

    def never(what: str, *, state: str = "", kind: str | None = None) -> NotAsExpectedFailure:
        stages = read_stages()
        hint = "" if stages is not None and len(own_stages(stages)) == len(stages) else f". {COUNTS}"
        begin = f" is {state};" if state else ":"
        return NotAsExpectedFailure(f"instance {instance.id}{begin} {stage_counted(stage, stages, kind)} {what}{hint}")

    row = next((one for one in reversed(instance.status) if one.stage == stage), None)
    if row is None:
        if instance.terminated or any(one.stage > stage for one in instance.status):
            raise never("never began", state=instance.state)
        return False
    if until == "begun":
        return True
    over = row.terminated_at is not None or instance.terminated or any(one.stage > stage for one in instance.status)
    failed = row.error or (instance.failure if over and row.terminated_at is None else None)
    if over and failed:
        raise never(f"has ended with an error: {failed}")
    if until == "ended":
        return over
    if over:
        raise never("is over and listens no more")
    if len(history) <= stage:
        return False
    run = history[stage]
    name = run.input.get("event")
    if run.name != "RunWaitEvent" or (event is not None and name != event):
        raise never("listens for no event" if event is None else f"does not listen for {event!r}", kind=run.name)
    return not run.terminated

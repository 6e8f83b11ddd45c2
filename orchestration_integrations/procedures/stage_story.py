"""The stages of one instance, as a wait tells of them: each begin, end, failure and event listened for, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from ..api.models import Instance, StageEvent, StageRun
from .ends import describe_failing
from .gate import checkpoints_of, own_number
from .moved import RUNS, STILL
from .observations import ReadHistory, ReadStage, StageRead

LONGEST_DETAIL_PAUSE = 30.0


class _Stage(msgspec.Struct):
    """What is known and was told of one stage."""

    begun: bool = False
    ended: bool = False
    name: str | None = None
    listening: bool = False
    attempt: int = 1
    detail_at: float = 0.0
    detail_pause: float = 0.0


class StageStory(msgspec.Struct):
    """What was told of the stages of an instance, and what is worth reading of them next.

    Attributes:
        instance_id: whose stages they are.
        definition: the stages of the workflow; None while they are not known.
        retried: stages whose activity was seen under retry.
        last_failure: of a payment under retry; empty where there was none.
    """

    instance_id: str
    definition: Sequence[Mapping[str, Any]] | None = None
    retried: frozenset[int] = frozenset()
    last_failure: str = ""
    _stages: dict[int, _Stage] = msgspec.field(default_factory=dict)

    def learn_definition(self, stages: Sequence[Mapping[str, Any]]) -> None:
        """Name the stages by their kinds."""
        self.definition = stages
        for number, stage in enumerate(stages):
            self._stage(number).name = RUNS.get(next(iter(stage), ""))

    def on_instance(self, instance: Instance) -> tuple[StageEvent, ...]:
        """Begin and end of each stage, once and in order, also of those that came and went unseen."""
        events: list[StageEvent] = []
        latest = {row.stage: row for row in instance.status}
        for number in sorted(latest):
            row, stage = latest[number], self._stage(number)
            if not stage.begun:
                stage.begun = True
                events.append(self._event(number, "begun", None))
            # A row can stay open for good where the server lost a write; what follows it tells its end.
            over = row.terminated_at is not None or instance.terminated or number < max(latest)
            if over and not stage.ended:
                stage.ended = True
                events.append(self._event(number, "ended", row.error))
        return tuple(events)

    def on_history(self, runs: Sequence[StageRun]) -> tuple[StageEvent, ...]:
        """The names of the stages, and the event that an open one listens for."""
        events: list[StageEvent] = []
        for number, run in enumerate(runs):
            stage = self._stage(number)
            stage.name = run.name
            if run.name == "RunWaitEvent" and not run.terminated:
                event = run.input.get("event")
                events += self.on_listening(number, event if isinstance(event, str) else None)
        return tuple(events)

    def on_listening(self, number: int, event: str | None) -> tuple[StageEvent, ...]:
        """A stage was seen to listen for an event."""
        stage = self._stage(number)
        if not stage.begun or stage.ended or stage.listening:
            return ()
        stage.listening = True
        return (self._event(number, "listening", event),)

    def on_activities(self, read: StageRead) -> tuple[int, tuple[StageEvent, ...]]:
        """(how often the payment of a stage has failed so far, the failures to tell of)."""
        stage = self._stage(read.stage)
        events: list[StageEvent] = []
        failed = 0
        for activity in read.activities:
            if activity.terminated or (activity.attempt <= 1 and activity.last_failure is None):
                continue
            self.retried |= {read.stage}
            failed = max(failed, activity.attempt - 1)
            self.last_failure = describe_failing(activity)
            if activity.attempt > stage.attempt:
                stage.attempt = activity.attempt
                events.append(self._event(read.stage, "failing", self.last_failure))
        return failed, tuple(events)

    def let_pass(self, seconds: float) -> None:
        """So much time has passed that no clock here shows."""
        for stage in list(self._stages.values()):
            stage.detail_at -= seconds

    def wanted(self, instance: Instance, now: float) -> ReadHistory | ReadStage | None:
        """The history that would tell more of the stage that runs, where it is time to read it."""
        if not instance.status:
            return None
        last = instance.status[-1]
        if last.terminated_at is not None or last.stage < 0:
            return None
        stage = self._stage(last.stage)
        if stage.name is None or (stage.name == "RunWaitEvent" and not stage.listening):
            return ReadHistory() if _is_due(stage, now) else None
        if stage.name not in STILL and _is_due(stage, now):
            return ReadStage(last.stage)
        return None

    def _stage(self, number: int) -> _Stage:
        return self._stages.setdefault(number, _Stage())

    def _event(
        self, stage: int, kind: Literal["begun", "ended", "failing", "listening"], detail: str | None
    ) -> StageEvent:
        known = self.definition is not None and stage < len(self.definition)
        return StageEvent(
            instance_id=self.instance_id,
            stage=stage,
            kind=kind,
            name=self._stage(stage).name,
            detail=detail,
            own_stage=own_number(self.definition or (), stage) if known else stage,
            checkpoint=checkpoints_of(self.definition or ()).get(stage),
        )


def _is_due(stage: _Stage, now: float) -> bool:
    """Details of one stage are asked for ever more rarely: they cost the engine."""
    if now < stage.detail_at:
        return False
    stage.detail_pause = min(max(stage.detail_pause * 1.5, 0.5), LONGEST_DETAIL_PAUSE)
    stage.detail_at = now + stage.detail_pause
    return True

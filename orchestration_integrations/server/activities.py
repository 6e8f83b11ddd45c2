"""The calls of a `send` or `update` stage to services: attempts, refusals, retries, and what takes effect late.

From the moment a call reaches its service it takes effect, whatever the engine thinks of the attempt. That is how a
stalled service pays twice on generation 1, whose calls carry no idempotency key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .clock import SECOND
from .ledger import FINAL_REFUSALS, Refused
from .outside import SERVICES
from .state import Activity

if TYPE_CHECKING:
    from .agenda import Agenda
    from .memory import Memory
    from .outside import Effect
    from .parts import Parts
    from .stages import Stages


class Activities:
    """The activities of all stages."""

    def __init__(self, agenda: Agenda, memory: Memory, parts: Parts, stages: Stages) -> None:
        self._agenda = agenda
        self._memory = memory
        self._parts = parts
        self._stages = stages

    def begin_next(self, instance_id: str, number: int) -> None:
        """The next activity of a stage, or the end of the stage's work."""
        found = self._memory.open_run(instance_id, number)
        if found is None:
            return
        instance, run = found
        if not run.steps:
            self._stages.finish(instance, run, "", "")
            return
        step = run.steps.pop(0)
        now = self._agenda.now
        run.activities.append(Activity(step["name"], step, now, next_ns=now))
        self._memory.store.touch(instance)
        self.start(instance_id, number, len(run.activities) - 1, 1)

    def start(self, instance_id: str, number: int, index: int, attempt: int) -> None:
        """An attempt begins."""
        found = self._memory.open_run(instance_id, number)
        if found is None:
            return
        activity = found[1].activities[index]
        if activity.terminated_ns is not None or activity.attempt != attempt:
            return
        activity.running = True
        self._memory.store.touch(found[0])
        agenda, timing = self._agenda, self._agenda.timing
        limit = agenda.now + int(timing.attempt_limit * SECOND)
        agenda.at(limit, "act_timeout", instance_id, number, index, attempt)
        agenda.after(timing.call, "act_call", instance_id, number, index, attempt)

    def call(self, instance_id: str, number: int, index: int, attempt: int) -> None:
        """The call reaches its service."""
        memory, up = self._memory, self._parts.up
        activity = memory.instances[instance_id].runs[number].activities[index]
        service = SERVICES.get(activity.name, "ledger")
        if not up[service] or (service == "wallets" and not up["ledger"]):
            self._parts.stall([instance_id, number, index, attempt])
            return
        key = f"{instance_id}-{number}-{index}" if memory.generation > 1 else None
        outcome: dict[str, Any]
        try:
            effect = memory.outside.perform(activity.step, self._agenda.now, key)
        except Refused as refusal:
            outcome = {"code": refusal.code, "message": refusal.message}
        else:
            outcome = {"output": effect.output}
            self._note(effect, instance_id, number, attempt)
        memory.store.touch_meta()
        self._agenda.after(self._agenda.timing.call_back, "act_done", instance_id, number, index, attempt, outcome)

    def _note(self, effect: Effect, instance_id: str, number: int, attempt: int) -> None:
        record = self._memory.record
        where = {"instance_id": instance_id, "stage": number}
        when = {"attempt": attempt, "at": self._agenda.now / SECOND}
        for posting in effect.postings:
            record.money.append({**where, "ledger": effect.ledger, "posting": posting, **when})
        if effect.payout is not None:
            record.payouts.append({**where, "payout": effect.payout, **when})

    def done(self, instance_id: str, number: int, index: int, attempt: int, outcome: dict[str, Any]) -> None:
        """The engine has the result of an attempt."""
        activity = self._pending(instance_id, number, index, attempt)
        if activity is None:
            return
        instance = self._memory.instances[instance_id]
        run = instance.runs[number]
        if "code" in outcome and outcome["code"] not in FINAL_REFUSALS:
            self._again(instance_id, number, index, activity, outcome["message"])
            return
        activity.running, activity.terminated_ns = False, self._agenda.now
        activity.attempt, activity.last_failure, activity.next_ns = 1, "", None
        if "code" in outcome:
            activity.error = outcome["message"]
            if activity.step.get("tolerates") != outcome["code"]:
                self._stages.finish(instance, run, "activity error", outcome["message"])
                return
        else:
            activity.output, activity.has_output = outcome["output"], outcome["output"] is not None
        if not self._stages.plan(instance, run):
            return
        self._agenda.after(self._agenda.timing.schedule_activity, "activity", instance_id, number)

    def time_out(self, instance_id: str, number: int, index: int, attempt: int) -> None:
        """An attempt has taken too long."""
        activity = self._pending(instance_id, number, index, attempt)
        if activity is not None:
            self._again(instance_id, number, index, activity, "activity StartToClose timeout")

    def _pending(self, instance_id: str, number: int, index: int, attempt: int) -> Activity | None:
        """The activity if this attempt of it is under way."""
        found = self._memory.open_run(instance_id, number)
        if found is None:
            return None
        activity = found[1].activities[index]
        if activity.terminated_ns is not None or activity.attempt != attempt or not activity.running:
            return None
        self._memory.store.touch(found[0])
        return activity

    def _again(self, instance_id: str, number: int, index: int, activity: Activity, failure: str) -> None:
        timing = self._agenda.timing
        pause = min(timing.first_retry * 2.0 ** min(activity.attempt - 1, 30), timing.longest_retry)
        activity.running = False
        activity.last_failure = failure
        activity.attempt += 1
        activity.next_ns = self._agenda.now + int(pause * SECOND)
        self._agenda.at(activity.next_ns, "act_start", instance_id, number, index, activity.attempt)

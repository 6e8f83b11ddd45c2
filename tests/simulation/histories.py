"""One random history: a run is started, perhaps by several attempts that die, then waited for, told or cancelled.

The server's own record judges. *Safety*: never two released runs for a key, no event consumed by another
stage than the one that is meant, no success for what did not succeed, nothing outlives its deadline and
last look, every exception names what may exist. *Liveness*: once the faults are over and time is left,
everything ends with a definite result; a client that always gives up fails here.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from orchestration_integrations import (
    AmbiguousRunError,
    AsyncOrchestrationHttpHook,
    EventNotDeliveredError,
    Instance,
    InstanceCancelledError,
    InstanceFailedError,
    InstanceStuckError,
    OrchestrationError,
    OrchestrationHttpHook,
    RunResult,
    Settings,
    WaitTimeoutError,
)
from orchestration_integrations.procedures.gate import gated
from orchestration_integrations.server import Core, VirtualClock
from orchestration_integrations.server.exchange import Request
from tests.gates import releases_of, variables_of

from .faulty import AsyncFaultyTransport, Crash, FaultyTransport, Plan

KEY = "run-1"
OTHER_KEY = "run-10"  # begins with the key: a comparison by prefix would take it for the key
SLACK = 0.15
LAST_LOOK = 5.1
BUDGET = 420.0
"""Seconds that are left for a call once the faults are over: more than the latest row needs."""


class Violation(AssertionError):
    """A promise was broken."""


def payment(source: str = "world", destination: str = "shop") -> dict[str, Any]:
    """A payment of 100."""
    return {
        "send": {
            "source": {"account": {"id": source}},
            "destination": {"account": {"id": destination}},
            "amount": {"amount": "100", "asset": "USD/2"},
        }
    }


def approval(event: str = "approve") -> dict[str, Any]:
    """A stage that waits for somebody."""
    return {"wait_event": {"event": event}}


DELAY = {"delay": {"duration": "1s"}}
# name -> (stages, the event to send, the stage it is meant for before any gate, that stage must be named)
SHAPES: dict[str, tuple[list[dict[str, Any]], str | None, int, bool]] = {
    "pays": ([payment()], None, 0, False),
    "pays twice with approval": ([payment(), approval(), payment()], "approve", 1, False),
    "approves twice": ([approval(), DELAY, approval(), payment()], "approve", 0, True),
    "delays, then approval": ([DELAY, approval(), payment()], "approve", 1, False),
    "lacks funds": ([payment(source="poor")], None, 0, False),
    "fails": ([payment(destination="bad account!")], None, 0, False),
    "key in a stage": ([approval("${runKey}"), payment()], KEY, 0, False),
}


@dataclass
class Report:
    """What a history was and came to, for counting."""

    seed: int
    counts: Counter[str] = field(default_factory=Counter)


@dataclass
class History:
    """The state of one history."""

    seed: int
    rng: random.Random
    clock: VirtualClock
    core: Core
    plan: Plan
    asynchronous: bool
    is_gated: bool
    stored: bool
    shape: str
    report: Report
    chosen: str | None = None
    given: str = ""
    crashed: int = 0

    def call(self, method: str, *args: Any, crash: bool = False, **kwargs: Any) -> Any:
        """Call a hook of its own, as a new process would; its callback may be where it dies."""
        plan = self.plan
        plan.requests = 0
        plan.crash_at = self.rng.choice([0, 0, 1, 1, 2, 2, 3, 4, 5, 7, 10]) if crash else None
        plan.crash_before = self.rng.random() < 0.5
        settings = Settings(base_url="http://orchestration")
        if not self.asynchronous:
            hook = OrchestrationHttpHook(settings, clock=self.clock, transport=FaultyTransport(plan))
            hook.expect(self.given)
            try:
                return getattr(hook, method)(*args, **kwargs)
            finally:
                hook.close()

        async def main() -> Any:
            transport = AsyncFaultyTransport(plan)
            other = AsyncOrchestrationHttpHook(settings, clock=self.clock, transport=transport)
            other.expect(self.given)
            try:
                answer = getattr(other, method)(*args, **kwargs)
                return await answer if inspect.isawaitable(answer) else answer
            finally:
                await other.close()

        return asyncio.run(main())

    def broken(self, what: str) -> Violation:
        return Violation(
            f"{what}\nseed {self.seed}: generation {self.core.generation}, {self.shape!r}, "
            f"{'gated' if self.is_gated else 'ungated'}, {'async' if self.asynchronous else 'sync'}, "
            f"{'with' if self.stored else 'without'} a store; replay with "
            f"python -m tests.simulation.soak --seed {self.seed}"
        )

    def row_lost(self, instance_id: str) -> bool:
        """Whether the server lost the row of a stage while its database was away: no event can reach that stage."""
        exchange = self.core.handle(Request("GET", f"/instances/{instance_id}/history", "", {}, b""))
        launched = json.loads(exchange.reply.body)["data"] if exchange.reply and exchange.reply.status == 200 else []
        shown = self.shown(instance_id)
        return len(launched) > len({row["stage"] for row in shown.get("status") or []})

    def shown(self, instance_id: str) -> dict[str, Any]:
        """What the server shows of an instance; empty where it shows nothing."""
        exchange = self.core.handle(Request("GET", f"/instances/{instance_id}", "", {}, b""))
        return json.loads(exchange.reply.body)["data"] if exchange.reply and exchange.reply.status == 200 else {}

    def truth(self, instance_id: str) -> dict[str, Any] | None:
        """How a run really ended; None while it runs."""
        return next((one for one in self.core.record().ended if one["instance_id"] == instance_id), None)


def run_history(seed: int, generation: int | None = None) -> Report:
    """Play one history. Raises Violation."""
    rng = random.Random(seed)
    random.seed(seed)
    clock = VirtualClock()
    chosen_generation = generation or rng.choice([1, 2, 3])
    core = Core(chosen_generation, clock=clock, seed=seed, faults=False)
    intensity = rng.choice([0.0, 0.05, 0.15, 0.35])
    plan = Plan(rng, clock, core, 0.0, clock.time(), random.Random(f"misread {seed}"))
    is_gated = rng.random() < 0.7
    shape = rng.choice(list(SHAPES))
    report = Report(seed)
    history = History(seed, rng, clock, core, plan, rng.random() < 0.3, is_gated, rng.random() < 0.6, shape, report)
    stages, event, target, named = SHAPES[shape]
    definition = {"name": shape, "stages": stages}
    if is_gated:
        definition = gated(definition)
    workflow = history.call("create_workflow", definition)
    neighbours = [
        history.call("run_workflow", workflow.id, variables_of(workflow, OTHER_KEY))
        for _ in range(rng.choice([0, 1, 3]))
    ]
    clock.sleep(rng.choice([0, 1, 400]))
    plan.intensity = intensity
    plan.quiet_at = clock.time() + (rng.choice([0, 5, 20, 60]) if intensity else 0)
    plan.schedule_outages()
    instance = _start(history, workflow.id)
    if instance is not None:
        if instance.id in {one.id for one in neighbours}:
            raise history.broken("another key's run was adopted")
        _after_start(history, instance, event, target + is_gated, named)
    _judge_key(history)
    _judge_neighbours(history, [one.id for one in neighbours])
    report.counts[f"generation {chosen_generation}"] += 1
    report.counts["async" if history.asynchronous else "sync"] += 1
    for kind, count in plan.injected.items():
        report.counts[f"fault {kind}"] += count
    return report


# ---- start -----------------------------------------------------------------------------------------


def _start(history: History, workflow_id: str) -> Instance | None:
    begun = history.clock.time()
    since = datetime.fromtimestamp(begun, timezone.utc)
    variables: dict[str, Any] = {}
    attempts = history.rng.choice([0, 0, 1, 1, 2, 3])
    plan = history.plan
    fresh = True

    def store(instance_id: str) -> None:
        if history.rng.random() < 0.1 and plan.crash_at is not None:
            raise Crash
        if history.stored:
            history.chosen = instance_id
        if history.rng.random() < 0.1 and plan.crash_at is not None:
            raise Crash

    for number in range(attempts + 1):
        final = number == attempts
        if final:
            timeout = max(0.0, plan.quiet_at - history.clock.time()) + BUDGET
        else:
            timeout = history.rng.choice([3.0, 20.0, 60.0])
        started_at = history.clock.time()
        try:
            instance = history.call(
                "start",
                workflow_id,
                variables,
                run_key=KEY,
                first_attempt=fresh,
                since=since if history.rng.random() < 0.8 else None,
                chosen=history.chosen,
                on_chosen=store,
                timeout=timeout,
                crash=not final,
            )
        except Crash:
            history.crashed += 1
            fresh = False
            history.report.counts["crashes in start"] += 1
            history.clock.sleep(history.rng.choice([0, 0.01, 1, 10]))
            continue
        except OrchestrationError as error:
            fresh = fresh and not isinstance(error, AmbiguousRunError)
            _judge_start_error(history, error, final)
            _judge_time(history, started_at, timeout, 0.0, "start")
            continue
        _judge_time(history, started_at, timeout, 0.0, "start")
        history.report.counts["starts that ended with an instance"] += 1
        history.given = instance.id
        return instance
    return None


def _judge_start_error(history: History, error: OrchestrationError, final: bool) -> None:
    history.report.counts[f"start: {type(error).__name__}"] += 1
    mine = [one for one in history.core.record().started if one["variables"].get("runKey") == KEY]
    if not isinstance(error, AmbiguousRunError):
        if mine:
            raise history.broken(f"a run exists, and start said {error!r}") from error
        if final:
            raise history.broken(f"start gave up although the faults are over: {error!r}") from error
        return
    if error.run_key != KEY or KEY not in str(error):
        raise history.broken(f"the error does not name the key: {error!r}")
    if not final:
        return
    if any(history.row_lost(one["instance_id"]) for one in mine):
        history.report.counts["rows that the server lost"] += 1
        return
    if history.is_gated:
        if history.chosen is not None:
            raise history.broken(f"a gated start with an id on record gave up: {error!r}") from error
        if len(error.candidates) < 2:
            raise history.broken(f"a gated start gave up without several candidates: {error!r}") from error
    elif not (history.crashed or history.plan.lost_submits):
        raise history.broken(f"no submit was ambiguous, and start said {error!r}") from error


def _judge_key(history: History) -> None:
    record = history.core.record()
    mine = {one["instance_id"] for one in record.started if one["variables"].get("runKey") == KEY}
    if history.is_gated:
        released = releases_of(record, KEY)
        if len(released) > 1:
            raise history.broken(f"two runs were released: {released}")
        paid = {one["instance_id"] for one in record.money} & mine
        if len(paid) > 1:
            raise history.broken(f"two runs paid: {paid}")
    elif len(mine) > 1:
        raise history.broken(f"two runs were started: {mine}")


def _judge_neighbours(history: History, neighbours: list[str]) -> None:
    record = history.core.record()
    touched = {one["instance_id"] for one in releases_of(record, KEY)} & set(neighbours)
    touched |= {one["instance_id"] for one in record.aborts} & set(neighbours)
    if touched:
        raise history.broken(f"another key's runs were touched: {touched}")


def _judge_time(history: History, begun: float, timeout: float, more: float, what: str) -> None:
    took = history.clock.time() - begun
    if took > timeout + more + SLACK:
        raise history.broken(f"{what} took {took:.2f} s of {timeout:.2f} s")


# ---- afterwards ------------------------------------------------------------------------------------


def _after_start(history: History, instance: Instance, event: str | None, stage: int, named: bool) -> None:
    doing = history.rng.choice(["wait", "wait", "event", "event", "cancel", "leave"])
    if doing == "leave":
        return
    if doing == "event" and event is not None:
        _send(history, instance, event, stage if named or history.rng.random() < 0.3 else None, stage)
    if doing == "cancel":
        history.clock.sleep(history.rng.choice([0, 0.05, 0.3, 2, 12]))
        _cancel(history, instance.id)
    _wait(history, instance.id, final=False)
    _wait(history, instance.id, final=True)


def _send(history: History, instance: Instance, event: str, named: int | None, stage: int) -> None:
    crashed = False
    for final in (False, True):
        timeout = history.rng.choice([2.0, 30.0])
        if final:
            timeout = max(0.0, history.plan.quiet_at - history.clock.time()) + BUDGET
        begun = history.clock.time()
        try:
            told = history.call(
                "send_event_when_ready",
                instance.id,
                event,
                stage=named,
                timeout=timeout,
                crash=not final and history.rng.random() < 0.5,
            )
        except Crash:
            crashed = True
            history.report.counts["crashes in send_event"] += 1
            continue
        except EventNotDeliveredError as error:
            _judge_time(history, begun, timeout, LAST_LOOK, "send_event_when_ready")
            history.report.counts[f"event not delivered: {error.reason}"] += 1
            if instance.id not in str(error):
                raise history.broken(f"the error does not name the instance: {error!r}") from error
            if error.reason == "stage_over" and not _released(history, instance.id, event, stage):
                raise history.broken(f"no event had released the stage, and it said {error!r}") from error
            if error.reason == "instance_ended" and history.truth(instance.id) is None:
                raise history.broken(f"the instance runs, and it said {error!r}") from error
            crashed = crashed or error.reason == "unknown"
            # Where a later stage waits for the same name, a lost event is never sent again.
            once_only = SHAPES[history.shape][3] and error.reason == "unknown"
            gave_up = final and error.reason in ("unknown", "not_ready") and not once_only
            if gave_up and _comes_to(history, instance.id, stage):
                raise history.broken(f"an event gave up although the faults are over: {error!r}") from error
            if final or error.reason in ("stage_over", "instance_ended"):
                break
            continue
        except OrchestrationError as error:
            raise history.broken(f"an event ended with {error!r}") from error
        _judge_time(history, begun, timeout, LAST_LOOK, "send_event_when_ready")
        history.report.counts["events delivered"] += 1
        if told.id != instance.id or len(_released(history, instance.id, event, stage)) != 1:
            raise history.broken("an event was called delivered, and the stage was not released by it")
        break
    for one in history.core.record().released:
        if one["instance_id"] == instance.id and one["event"] == event and one["stage"] != stage:
            raise history.broken(f"an event released stage {one['stage']} instead of {stage}")


def _released(history: History, instance_id: str, event: str, stage: int) -> list[dict[str, Any]]:
    return [
        one
        for one in history.core.record().released
        if (one["instance_id"], one["event"], one["stage"]) == (instance_id, event, stage)
    ]


def _comes_to(history: History, instance_id: str, stage: int) -> bool:
    """Whether the instance ever comes to wait in that stage (a payment that fails before it may keep it away)."""
    if history.row_lost(instance_id):
        history.report.counts["rows that the server lost"] += 1
        return False
    return history.shape != "lacks funds" and history.truth(instance_id) is None


def _cancel(history: History, instance_id: str) -> None:
    quiet = history.plan.is_quiet()
    begun = history.clock.time()
    before = history.truth(instance_id)
    try:
        outcome = history.call("cancel", instance_id, timeout=15.0)
    except OrchestrationError as error:
        raise history.broken(f"a cancel ended with {error!r}") from error
    _judge_time(history, begun, 15.0, 4.0, "cancel")
    truth = history.truth(instance_id)
    history.report.counts[f"cancel: {outcome.status}"] += 1
    error_text = truth["error"] if truth is not None else None
    if outcome.status == "cancelled" and (truth is None or error_text != "canceled"):
        raise history.broken(f"cancelled was said, and the truth is {truth}")
    if outcome.status == "already_ended" and (truth is None or error_text == "canceled"):
        raise history.broken(f"already_ended was said, and the truth is {truth}")
    if outcome.status == "never_started":
        raise history.broken("never_started was said of a run that started")
    if outcome.status == "not_confirmed" and truth is not None and not history.shown(instance_id).get("terminated"):
        history.report.counts["ends that the server lost"] += 1
    elif outcome.status == "not_confirmed" and quiet and (history.core.generation != 2 or before is not None):
        raise history.broken("a cancel was not confirmed although the faults are over")
    if outcome.status in ("cancelled", "already_ended") and truth is not None:
        paid = {one["stage"] for one in history.core.record().money if one["instance_id"] == instance_id}
        told = {one.stage for one in outcome.moved.transactions}
        if outcome.moved.complete and not outcome.in_flight and paid - told:
            raise history.broken(f"stages {paid} paid, and the outcome tells of {told}")


def _wait(history: History, instance_id: str, final: bool) -> None:
    clock = history.clock
    timeout = max(0.0, history.plan.quiet_at - clock.time()) + 60.0 if final else history.rng.choice([0.0, 1.7, 25.0])
    heard: list[Any] = []
    begun = clock.time()
    quiet = history.plan.is_quiet()
    deadline = begun + timeout
    try:
        result = history.call(
            "wait",
            instance_id,
            timeout=timeout,
            poll_interval=history.rng.choice([0.5, 5.0, 30.0]),
            on_stage=heard.append,
            fail_after_attempts=3 if final else None,
        )
    except (InstanceFailedError, InstanceCancelledError) as error:
        truth = history.truth(instance_id)
        cancelled = truth is not None and truth["error"] == "canceled"
        if truth is None or not truth["error"] or cancelled != isinstance(error, InstanceCancelledError):
            raise history.broken(f"the truth is {truth}, and it said {error!r}") from error
        name, moved = type(error).__name__, error.moved
    except InstanceStuckError as error:
        if error.reason != "attempts" or (history.shape not in ("lacks funds",) and quiet):
            raise history.broken(f"it is not stuck: {error!r}") from error
        name, moved = "stuck", None
    except WaitTimeoutError as error:
        truth = history.truth(instance_id)
        if quiet and truth is not None and not history.shown(instance_id).get("terminated"):
            history.report.counts["ends that the server lost"] += 1
        elif quiet and truth is not None and truth["at"] < deadline - SLACK:
            raise history.broken(f"it had ended before the deadline, and it said {error!r}") from error
        name, moved = "timeout", None
        if instance_id not in str(error):
            raise history.broken(f"the error does not name the instance: {error!r}") from error
    except OrchestrationError as error:
        raise history.broken(f"a wait ended with {error!r}") from error
    else:
        truth = history.truth(instance_id)
        if truth is None or truth["error"] is not None or not isinstance(result, RunResult):
            raise history.broken(f"success was said, and the truth is {truth}")
        name, moved = "succeeded", result.moved
    _judge_time(history, begun, timeout, LAST_LOOK, "wait")
    history.report.counts[f"wait: {name}"] += 1
    if moved is not None:
        _judge_moved(history, instance_id, moved)
    _judge_stage_events(history, heard, name)


def _judge_moved(history: History, instance_id: str, moved: Any) -> None:
    times: Counter[int] = Counter(
        one["stage"] for one in history.core.record().money if one["instance_id"] == instance_id
    )
    told = {one.stage: one for one in moved.transactions}
    if moved.complete and history.truth(instance_id)["error"] is None and set(times) != set(told):
        raise history.broken(f"stages {set(times)} paid, and it told of {set(told)}")
    for stage, count in times.items():
        if count > 1:
            history.report.counts["payments that the server made twice"] += 1
            if stage in told and not told[stage].maybe_repeated:
                raise history.broken(f"stage {stage} paid {count} times, and it did not warn")


def _judge_stage_events(history: History, heard: list[Any], ended: str) -> None:
    seen: set[tuple[int, str]] = set()
    highest = -1
    for one in heard:
        if one.kind not in ("begun", "ended"):
            continue
        if (one.stage, one.kind) in seen:
            raise history.broken(f"stage {one.stage} was told {one.kind} twice")
        seen.add((one.stage, one.kind))
        if one.stage < highest or (one.kind == "ended" and (one.stage, "begun") not in seen):
            raise history.broken("stages were told out of order")
        highest = max(highest, one.stage)
    if ended in ("succeeded", "InstanceFailedError", "InstanceCancelledError"):
        open_stages = {stage for stage, kind in seen if kind == "begun"} - {s for s, kind in seen if kind == "ended"}
        if open_stages:
            raise history.broken(f"stages {open_stages} were never told to have ended")

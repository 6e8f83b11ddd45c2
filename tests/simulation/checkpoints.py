"""Histories of checkpoints: one payment in several transfers, in the hands of processes that work at the same time.

Waiters of one run, of one attempt or of several, let it pass its checkpoints; others stop it: from outside, as its
waiter, on behalf of an attempt whose waiter lives elsewhere. Between any two effects of one process any other may go
on, a process may stand still for a while, or die. Wrong events arrive beside the right ones, so that a pass may lie in
the queue of its stage; owners change their mind; holds are taken back. The server's own record judges: **nothing moves
after it was said that a run is held, and no checkpoint is passed without an owner that was just asked.**
"""

from __future__ import annotations

import itertools
import json
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx

from orchestration_integrations import (
    InstanceCancelledError,
    InstanceFailedError,
    InstanceStuckError,
    OrchestrationError,
    OrchestrationHttpHook,
    RecordConflictError,
    RunResult,
    Settings,
    SqliteRunStore,
)
from orchestration_integrations.http_hook.steps import Ended, advance
from orchestration_integrations.ownership.keeping import resume
from orchestration_integrations.ownership.owned_run import OwnedRun
from orchestration_integrations.ownership.record import RunRecord, RunStore
from orchestration_integrations.ownership.request import OwnedRequest
from orchestration_integrations.procedures.checkpoints import Guard
from orchestration_integrations.procedures.effects import Do, Pause
from orchestration_integrations.procedures.gate import (
    checkpoint_event,
    checkpointed,
    checkpoints_of,
    parsed_checkpoint,
    parsed_event,
)
from orchestration_integrations.procedures.key_lock import KeyLock
from orchestration_integrations.procedures.wait_arguments import WaitArguments
from orchestration_integrations.run_store import MemoryRunStore
from orchestration_integrations.server import Core, VirtualClock
from orchestration_integrations.server.exchange import Request

from .faulty import Crash, FaultyTransport, Plan
from .histories import Violation

KEY = "order-17"
BUDGET = 500.0
"""Seconds that are left for a call once the faults are over."""
OWNER_ANSWER_SECONDS = 10.0
SLACK = 0.5
STEPS = 4000
"""Effects of all processes after which the happenings of a history are over."""
ADDRESS = "http://orchestration"
STORES = (
    "memory",
    "memory",
    "memory",
    "marks beside",
    "marks beside",
    "marks beside",
    "memory",
    "marks beside",
    "file",
)


def paying(amount: int, shop: str = "shop", source: str = "world") -> dict[str, Any]:
    """A payment to a shop."""
    return {
        "send": {
            "source": {"account": {"id": source}},
            "destination": {"account": {"id": shop}},
            "amount": {"amount": str(amount), "asset": "USD/2"},
        }
    }


def pausing(seconds: int) -> dict[str, Any]:
    """A stage that moves nothing."""
    return {"delay": {"duration": f"{seconds}s"}}


SHAPES: dict[str, list[dict[str, Any]]] = {
    "three transfers": [paying(1), paying(2), paying(4)],
    "with pauses": [paying(1), pausing(3), paying(2), pausing(1), paying(4)],
    "a pause first": [pausing(2), paying(1), paying(2)],
    "a long pause": [paying(1), pausing(25), paying(2)],
    "fails at the end": [paying(1), paying(2, "bad account!")],
}


class AwayError(OSError):
    """The store, the place of the marks or the owner is away."""


class KeptStore(MemoryRunStore):
    """A store that compares and sets, and outlives every process."""

    def __init__(self, since: datetime) -> None:
        super().__init__()
        self.since = since

    @property
    def complete_since(self) -> datetime | None:
        return self.since


class FileStore(SqliteRunStore):
    """A file that was made before the history began."""

    since: datetime

    @property
    def complete_since(self) -> datetime | None:
        return self.since


class LastWriterStore(KeptStore):
    """A framework's store: the last writer of a record wins. Only a choice has a unique name, as each mark has."""

    def __init__(self, since: datetime) -> None:
        super().__init__(since)
        self.marks: dict[str, str] = {}

    def save(self, record: RunRecord) -> None:
        self._records[record.key] = record


@dataclass
class Actor:
    """A process at work."""

    name: str
    kind: str
    hook: OrchestrationHttpHook
    steps: Generator[float, None, Any] | None = None
    run: OwnedRun | None = None
    request: OwnedRequest | None = None
    due: float = 0.0
    wish: str = "yes"
    said_yes_at: float | None = None
    answered_at: float = 0.0
    asked_since_send: bool = False
    taken_over: bool = False
    looked: int = 0
    looked_at: float = 0.0
    wants_new: bool = False
    number: int = 0

    def drop(self) -> None:
        """It dies."""
        if self.steps is not None:
            self.steps.close()
        self.steps = None
        if self.run is not None:
            self.run.close()


@dataclass
class Claim:
    """Somebody was told that a run is held."""

    by: str
    instance_id: str
    looked: int
    at: int
    money: int
    released: int


@dataclass
class CheckpointHistory:
    """The state of one history."""

    seed: int
    rng: random.Random
    clock: VirtualClock
    core: Core
    plan: Plan
    store_kind: str
    shape: str
    folder: Path
    counts: Counter[str] = field(default_factory=Counter)
    shared: Any = None
    actors: list[Actor] = field(default_factory=list)
    tries: int = 0
    new_asked: int = 0
    asks_at_checkpoint: bool = False
    tells_attempts: bool = True
    store_faults: float = 0.0
    store_crash: float = 0.0
    freezes: float = 0.0
    pauses: int = 0
    noise: float = 0.0
    crowds: int = 0
    """How often others come when a waiter is about to let the run pass a checkpoint."""
    first_at: float = 0.0
    ticks: int = 0
    claims: list[Claim] = field(default_factory=list)
    holds_taken_back: list[tuple[int, str, float]] = field(default_factory=list)
    passes_sent: set[tuple[str, str]] = field(default_factory=set)
    settled: set[str] = field(default_factory=set)
    told: set[str] = field(default_factory=set)
    events: list[str] = field(default_factory=list)

    def tick(self) -> int:
        """The number of a moment: effects of one instant of the clock come one after the other all the same."""
        self.ticks += 1
        return self.ticks

    def say(self, text: str) -> None:
        """Note what happens, for whoever reads a violation."""
        self.events.append(f"{self.clock.time() - self.first_at:.2f} [{self.ticks}] {text}")

    def broken(self, what: str) -> Violation:
        """A promise was broken."""
        told = "\n  ".join(self.events[-60:])
        return Violation(
            f"{what}\nseed {self.seed}: generation {self.core.generation}, {self.shape!r}, store {self.store_kind!r}"
            f"\n  {told}\nreplay with python -m tests.simulation.soak --checkpoints --seed {self.seed}"
        )

    # ---- the server's truth ------------------------------------------------------------------------

    def mine(self) -> list[dict[str, Any]]:
        """The runs of the key that really started."""
        return [one for one in self.core.record().started if one["variables"].get("runKey") == KEY]

    def truth(self, instance_id: str) -> dict[str, Any] | None:
        """How a run really ended; None while it runs."""
        return next((one for one in self.core.record().ended if one["instance_id"] == instance_id), None)

    def stands_at(self, instance_id: str) -> tuple[int | None, bool]:
        """(the stage behind the checkpoint at which a run really stands, whether a pass of it lies in the queue)."""
        self.core.pump()
        instance = self.core.engine.instances[instance_id]
        run = instance.runs.get(max(instance.runs, default=-1))  # its row may be lost
        if instance.ended or run is None or run.kind != "wait_event" or run.terminated_ns is not None:
            return None, False
        event = run.resolved["event"]
        found = parsed_checkpoint(event)
        return (found[1] if found else None), event in (*run.queue, *run.batch, *run.later)

    def on_record(self) -> RunRecord | None:
        """The record of the key, as it is stored."""
        found: RunRecord | None = self.shared.load(KEY)
        return found

    # ---- what happens to holds ---------------------------------------------------------------------

    def took_back(self, actor: Actor | None, instance_id: str) -> None:
        """A hold of a run is gone. The next attempt may take that of a run at its gate, where nothing has begun, also
        where another process has released it while this one stood still since its look."""
        looked_at = self.clock.time() if actor is None else actor.looked_at
        released = [one["at"] for one in self.core.record().released if one["instance_id"] == instance_id]
        if (
            any(at <= looked_at for at in released)
            and self.truth(instance_id) is None
            and actor is not None
            and not actor.wants_new
        ):
            raise self.broken(f"{actor.name} took back a hold of {instance_id}, and nobody had asked for that")
        self.say(f"   the hold of {instance_id[:8]} is taken back")
        self.holds_taken_back.append((self.tick(), instance_id, self.clock.time()))

    def said_held(self, actor: Actor, instance_id: str, number: int | None) -> None:
        """Somebody was told that a run is held: it must be true now, and stay true until the hold is taken back."""
        self.counts[f"held, told to {actor.kind}"] += 1
        self.counts[f"held on generation {self.core.generation}"] += 1
        self.say(f"   {actor.name}: {instance_id[:8]} is held")
        record = self.core.record()
        gone = any(at > actor.looked and one == instance_id for at, one, _ in self.holds_taken_back)
        truth = self.truth(instance_id)
        if truth is None and not gone and not self.core.engine.instances[instance_id].cancelled:
            really, lies = self.stands_at(instance_id)
            if really is None or (number is not None and really != number):
                raise self.broken(f"{actor.name} said that {instance_id} is held at {number}, and it is at {really}")
            if lies:
                raise self.broken(f"{actor.name} said that {instance_id} is held, and a pass lies in the queue")
        elif truth is not None and not gone and truth["error"] != "canceled":
            raise self.broken(f"{actor.name} said that {instance_id} is held, and it ended so: {truth}")
        self.claims.append(
            Claim(actor.name, instance_id, actor.looked, self.tick(), len(record.money), len(record.released))
        )

    def judge_claims(self) -> None:
        """Nothing moves after a run was said to be held, until the hold is taken back."""
        record = self.core.record()
        for claim in self.claims:
            later = [*record.released[claim.released :], *record.money[claim.money :]]
            moved = [one["at"] for one in later if one["instance_id"] == claim.instance_id]
            back = [when for at, one, when in self.holds_taken_back if one == claim.instance_id and at > claim.looked]
            if moved and not any(when <= min(moved) for when in back):
                raise self.broken(f"{claim.by} was told that {claim.instance_id} is held, and it moved afterwards")

    def judge_passes(self) -> None:
        """Each checkpoint is passed once, by the event of its own run and stage, which somebody sent."""
        seen: set[tuple[str, int]] = set()
        stages = checkpointed({"stages": SHAPES[self.shape]})["stages"]
        texts = {one["instance_id"]: one["variables"]["runGate"] for one in self.mine()}
        for one in self.core.record().released:
            instance_id, stage, event = one["instance_id"], one["stage"], one["event"]
            if (instance_id, stage) in seen:
                raise self.broken(f"stage {stage} of {instance_id} was passed twice")
            seen.add((instance_id, stage))
            number = checkpoints_of(stages).get(stage)
            if number is not None and event != checkpoint_event(texts[instance_id], number):
                raise self.broken(f"stage {stage} of {instance_id} was passed by {event!r}")
            if number is not None and (instance_id, event) not in self.passes_sent:
                raise self.broken(f"stage {stage} of {instance_id} was passed, and no waiter had sent that")


class FaultyPart:
    """Something of the caller's whose calls fail, or work and lose their answer, or are where a process dies."""

    def __init__(self, history: CheckpointHistory, actor: Actor | None) -> None:
        self._history = history
        self._actor = actor

    def _call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        history, actor = self._history, self._actor
        rng, noisy = history.rng, not history.plan.is_quiet()
        if actor is not None:
            actor.looked = history.tick()
        if noisy and rng.random() < history.store_crash:
            raise Crash
        if noisy and rng.random() < history.store_faults:
            history.counts["store away"] += 1
            raise AwayError("the store is away")
        answer = method(*arguments)
        if noisy and rng.random() < history.store_faults:
            history.counts["answers of the store lost"] += 1
            raise AwayError("the answer of the store was lost")
        if noisy and rng.random() < history.store_crash:
            raise Crash
        return answer


class FaultyPlace(FaultyPart):
    """A place of marks."""

    def __init__(self, history: CheckpointHistory, actor: Actor | None) -> None:
        super().__init__(history, actor)
        self._marks = history.shared.marks

    def read(self, name: str) -> str | None:
        return self._call(self._marks.get, name)  # type: ignore[no-any-return]

    def write(self, name: str, text: str) -> None:
        self._call(self._marks.__setitem__, name, text)

    def remove(self, name: str) -> None:
        def remove() -> None:
            if self._marks.pop(name, None) is not None and name.startswith("hold/"):
                self._history.took_back(self._actor, name.removeprefix("hold/"))

        self._call(remove)


class FaultyStore(FaultyPart):
    """A store of records."""

    def __init__(self, history: CheckpointHistory, actor: Actor | None) -> None:
        super().__init__(history, actor)
        self._inner: RunStore = history.shared
        if isinstance(self._inner, LastWriterStore):
            self.mark_place = FaultyPlace(history, actor)

    @property
    def complete_since(self) -> datetime | None:
        return self._inner.complete_since

    def load(self, key: str) -> RunRecord | None:
        if self._actor is not None:
            self._actor.looked_at = self._history.clock.time()
        found: RunRecord | None = self._call(self._inner.load, key)
        return None if found is None else RunRecord.from_json(found.to_json())

    def save(self, record: RunRecord) -> None:
        def save() -> None:
            before = self._inner.load(KEY)
            self._inner.save(record)
            beside = isinstance(self._inner, LastWriterStore)  # where a hold in the record is no hold yet
            was_held = before is not None and before.hold and before.instance_id == record.instance_id
            if was_held and not record.hold and not beside and record.instance_id is not None:
                self._history.took_back(self._actor, record.instance_id)
            if record.state == "told" and record.instance_id is not None:
                self._history.told.add(record.instance_id)

        self._call(save)

    def choose(self, key: str, round: int, instance_id: str) -> str:
        return str(self._call(self._inner.choose, key, round, instance_id))

    def settle(self, key: str) -> None:
        self._inner.settle(key)


class WatchedTransport(FaultyTransport):
    """Sees what one process sends, and has wrong events arrive right before a pass."""

    def __init__(self, history: CheckpointHistory) -> None:
        super().__init__(history.plan)
        self.history = history
        self.actor: Actor | None = None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if self.actor is not None and request.method == "POST" and path.endswith("/events"):
            name = json.loads(request.content)["name"]
            if parsed_event(name) is not None or parsed_checkpoint(name) is not None:
                self._judge(self.actor, path.split("/")[-2], name)
        return super().handle_request(request)

    def _judge(self, actor: Actor, instance_id: str, event: str) -> None:
        history = self.history
        if not actor.asked_since_send:
            raise history.broken(f"{actor.name} sent {event} without asking its owner")
        found = parsed_checkpoint(event)
        since = actor.said_yes_at if found is not None else actor.answered_at
        late = since is None or history.clock.time() - since > OWNER_ANSWER_SECONDS + SLACK
        if actor.said_yes_at is None or late:
            raise history.broken(f"{actor.name} sent {event} on an old answer of its owner")
        if actor.run is not None and actor.run.superseded:
            raise history.broken(f"{actor.name} knew that another attempt has the run, and sent {event}")
        actor.asked_since_send = False
        if found is None:
            return
        if (instance_id, event) in history.passes_sent:
            history.counts["passes sent again"] += 1
            history.counts["passes that lay in the queue"] += history.stands_at(instance_id)[1]
        history.passes_sent.add((instance_id, event))
        history.counts["passes sent"] += 1
        history.say(f"   {actor.name} passes the checkpoint before stage {found[1]}")
        if history.noise and history.rng.random() < history.noise:
            disturb(history, instance_id, 2)
            history.counts["passes behind wrong events"] += 1


def disturb(history: CheckpointHistory, instance_id: str, count: int) -> None:
    """Wrong events arrive."""
    body = b'{"name": "who knows"}'
    headers = {"content-length": str(len(body)), "content-type": "application/json"}
    for _ in range(count):
        history.core.handle(Request("POST", f"/instances/{instance_id}/events", "", headers, body))


# ---- processes -----------------------------------------------------------------------------------------


def performed(history: CheckpointHistory, actor: Actor, procedure: Any) -> Generator[float, None, Any]:
    """Perform a procedure one effect at a time, so that others may go on between any two. Yields seconds to wait."""
    try:
        step = advance(procedure, None, None)
        while not isinstance(step, Ended):
            result, error = None, None
            if isinstance(step, Pause):
                yield step.seconds
            else:
                yield 0.0
                history.tick()
                try:
                    result = actor.hook.effect(step)
                except OrchestrationError as caught:
                    if not isinstance(step, Do):
                        raise
                    error = caught
            step = advance(procedure, result, error)
        return step.value
    finally:
        procedure.close()


def new_actor(history: CheckpointHistory, name: str, kind: str) -> Actor:
    """A process of its own."""
    transport = WatchedTransport(history)
    hook = OrchestrationHttpHook(Settings(base_url=ADDRESS), clock=history.clock, transport=transport)
    actor = transport.actor = Actor(name, kind, hook, due=history.clock.time(), number=len(history.actors))
    history.actors.append(actor)
    return actor


def own(history: CheckpointHistory, actor: Actor, request: OwnedRequest) -> OwnedRun:
    """The actor's work on the key, with an owner and its own view of the store."""
    rng, clock = history.rng, history.clock

    def word() -> str:
        if not history.plan.is_quiet():
            if rng.random() < 0.05:
                raise AwayError("the owner cannot be asked")
            if rng.random() < 0.03:
                clock.sleep(rng.choice([0.5, 4.0, 11.0]))
        return "superseded" if actor.taken_over and history.tells_attempts else actor.wish

    def owner() -> str:
        if history.crowds and actor.kind == "a waiter" and rng.random() < 0.4:
            history.crowds -= 1
            rng.choice([second_process, second_process, cancel_from_outside, stop_for_attempt])(history)
        actor.asked_since_send = True
        asked_at = clock.time()
        answer = word()
        # Before a release its word stands from when it is given, at a checkpoint from when it is asked.
        actor.said_yes_at = asked_at if answer == "yes" else None
        actor.answered_at = clock.time()
        return answer

    def owner_at(number: int) -> str:
        answer = "unwanted" if not history.plan.is_quiet() and rng.random() < 0.02 else word()
        actor.said_yes_at = actor.said_yes_at if answer == "yes" else None
        return answer

    run = actor.hook.owning(
        request,
        store=FaultyStore(history, actor),
        owner=owner,
        at_checkpoint=owner_at if history.asks_at_checkpoint else None,
    )
    run._key_lock = KeyLock(f"checkpoints {history.seed}, process {actor.number}", KEY)
    real = run.stop

    def stop(*arguments: Any, **options: Any) -> Any:
        outcome = yield from real(*arguments, **options)
        if outcome is not None:
            judge_outcome(history, actor, run.instance_id or "", outcome)
        return outcome

    run.stop = stop  # type: ignore[method-assign]
    actor.run, actor.request = run, request
    return run


def request_of(history: CheckpointHistory, how: str, timeout: float) -> OwnedRequest:
    """What the next attempt asks for."""
    history.tries += 1
    return OwnedRequest(
        workflow={"name": history.shape, "stages": SHAPES[history.shape]},
        run_key=KEY,
        how=how,  # type: ignore[arg-type]
        attempt=f"try {history.tries}",
        since=datetime.fromtimestamp(history.first_at, timezone.utc),
        checkpoints=True,
        timeout=timeout,
    )


def waits(history: CheckpointHistory, actor: Actor, timeout: float) -> Callable[[str, Guard], Any]:
    """How a process waits."""
    poll = history.rng.choice([0.5, 2.0, 5.0])
    listener = (lambda event: None) if history.rng.random() < 0.3 else None

    def waiting(instance_id: str, guard: Guard) -> Any:
        return actor.hook.waiting_for(
            instance_id, WaitArguments(timeout=timeout, poll_interval=poll), on_stage=listener, guard=guard
        )

    return waiting


def attempt(history: CheckpointHistory, how: str, *, final: bool = False) -> Actor:
    """An attempt begins, whether or not earlier ones still live."""
    rng = history.rng
    for other in history.actors:
        other.taken_over = True
    if how == "new":
        history.new_asked += 1
    request = request_of(history, how, BUDGET if final else rng.choice([5.0, 20.0, 60.0]))
    actor = new_actor(history, f"{request.attempt} ({how})", "a waiter")
    actor.wants_new = how == "new"
    run = own(history, actor, request)
    timeout = BUDGET * 2 if final else rng.choice([4.0, 30.0, 120.0])
    on_timeout = rng.choice(["cancel", "leave"])
    actor.steps = performed(history, actor, run.run(waits(history, actor, timeout), on_timeout=on_timeout))
    history.say(f"{actor.name} begins")
    return actor


def second_process(history: CheckpointHistory) -> None:
    """Another process of the attempt that has the run waits too: deferred, or restarted and not yet dead."""
    record = history.on_record()
    first = next((one for one in history.actors if record and one.run and one.request.attempt == record.attempt), None)  # type: ignore[union-attr]
    if record is None or record.instance_id is None or first is None or first.request is None:
        return
    actor = new_actor(history, f"{first.name}, process {len(history.actors)}", "a waiter")
    actor.taken_over, actor.wish = first.taken_over, first.wish
    run = own(history, actor, first.request)
    instance_id = record.instance_id
    timeout, on_timeout = history.rng.choice([4.0, 30.0, 120.0]), history.rng.choice(["cancel", "leave"])

    def work() -> Any:
        yield from run.load()
        return (yield from run.attend(instance_id, waits(history, actor, timeout), on_timeout=on_timeout))

    actor.steps = performed(history, actor, work())
    history.counts["second processes"] += 1
    history.say(f"{actor.name} waits too")


def stop_for_attempt(history: CheckpointHistory) -> None:
    """A process that does not wait stops the run on behalf of the attempt that has it."""
    record = history.on_record()
    first = next((one for one in history.actors if record and one.run and one.request.attempt == record.attempt), None)  # type: ignore[union-attr]
    if record is None or first is None or first.request is None:
        return
    actor = new_actor(history, f"a stop for {first.name}", "a stop for the waiter")
    run = own(history, actor, first.request)

    def work() -> Any:
        yield from run.load()
        return (yield from run.stop(15.0, by="a user", waiter_is_here=False))

    actor.steps = performed(history, actor, work())
    history.counts["stops for a waiter"] += 1
    history.say(f"{actor.name} begins")


def cancel_from_outside(history: CheckpointHistory) -> None:
    """Somebody who knows the record cancels the run."""
    record = history.on_record()
    if record is None or record.instance_id is None:
        return
    actor = new_actor(history, f"a cancel, process {len(history.actors)}", "a cancel from outside")
    actor.hook.expect(record.instance_id)
    store = FaultyStore(history, actor)
    actor.steps = cancels(history, actor, store, record.instance_id)
    history.counts["cancels from outside"] += 1
    history.say(f"{actor.name} begins")


def cancels(history: CheckpointHistory, actor: Actor, store: Any, instance_id: str) -> Generator[float, None, Any]:
    """A cancel from outside, and what it says."""
    # A row that came late before all was quiet may be late still.
    quiet = history.plan.is_quiet() and history.core.engine.visible_instance(instance_id) is not None
    ended, pauses = history.truth(instance_id) is not None, history.pauses
    timeout = history.rng.choice([5.0, 15.0, 15.0, 15.0])
    outcome = yield from performed(history, actor, actor.hook.plans.cancel(instance_id, timeout, store, KEY))
    judge_outcome(history, actor, instance_id, outcome)
    certain = outcome.status in ("cancelled", "already_ended")
    punctual = quiet and not history.freezes and history.pauses == pauses
    if punctual and (history.core.generation != 2 or ended) and not certain and not end_lost(history):
        raise history.broken(f"the world was quiet, and a cancel came to {outcome.status}")
    return outcome


def judge_outcome(history: CheckpointHistory, actor: Actor, instance_id: str, outcome: Any) -> None:
    """What a cancel says is true."""
    truth = history.truth(instance_id)
    history.counts[f"cancel: {outcome.status}"] += 1
    history.say(f"   {actor.name}: {outcome.status}")
    error = truth["error"] if truth is not None else None
    if outcome.status == "held":
        if outcome.checkpoint is None:
            raise history.broken(f"{actor.name} said held, and not where")
        history.said_held(actor, instance_id, outcome.checkpoint)
    elif outcome.status == "cancelled" and error != "canceled":
        raise history.broken(f"{actor.name} said cancelled, and the truth is {truth}")
    elif outcome.status == "already_ended" and (truth is None or error == "canceled"):
        raise history.broken(f"{actor.name} said already_ended, and the truth is {truth}")
    elif outcome.status == "never_started":
        raise history.broken(f"{actor.name} said never_started of a run that started")


def interrupt(history: CheckpointHistory) -> None:
    """A waiter is interrupted; its process cancels its run by a fresh hook before it ends."""
    living = waiters(history)
    if not living:
        return
    waiter = history.rng.choice(living)
    waiter.drop()
    if waiter.run is None or waiter.request is None or waiter.run.instance_id is None:
        return
    actor = new_actor(history, f"{waiter.name}, interrupted", "an interrupted waiter")
    run = own(history, actor, waiter.request)
    run.take_over(waiter.run)
    run.keeper.store = FaultyStore(history, actor)
    actor.steps = performed(history, actor, run.stop(15.0, by="an interrupt"))
    history.counts["interrupts"] += 1
    history.say(f"{actor.name}")


def waiters(history: CheckpointHistory) -> list[Actor]:
    """Those that live and wait."""
    return [one for one in history.actors if one.steps is not None and one.kind == "a waiter"]


def take_back_the_hold(history: CheckpointHistory) -> bool:
    """A user lets a held run go on."""
    actor = new_actor(history, "a user", "a user")
    actor.wants_new = True
    try:
        resume(FaultyStore(history, actor), KEY)
    except (AwayError, RecordConflictError, Crash):
        return False
    history.counts["holds taken back by a user"] += 1
    return True


# ---- a history -----------------------------------------------------------------------------------------


def run_checkpoint_history(seed: int, generation: int | None = None) -> Counter[str]:
    """Play one history. Raises Violation."""
    with tempfile.TemporaryDirectory(prefix="checkpoints-") as folder:
        return _run(seed, generation, Path(folder))


def _run(seed: int, generation: int | None, folder: Path) -> Counter[str]:
    rng = random.Random(f"checkpoints {seed}")
    random.seed(seed)
    clock = VirtualClock()
    core = Core(generation or rng.choice([1, 2, 2, 3]), clock=clock, seed=seed, faults=False)
    intensity = rng.choice([0.0, 0.0, 0.03, 0.1, 0.25])
    plan = Plan(rng, clock, core, 0.0, clock.time(), random.Random(f"misread checkpoints {seed}"))
    history = CheckpointHistory(seed, rng, clock, core, plan, rng.choice(STORES), rng.choice(list(SHAPES)), folder)
    since = datetime.fromtimestamp(clock.time(), timezone.utc) - timedelta(days=30)
    if history.store_kind == "file":
        history.shared = FileStore(folder / "runs.db")
        history.shared.since = since
    else:
        history.shared = (KeptStore if history.store_kind == "memory" else LastWriterStore)(since)
    history.first_at = clock.time()
    is_quiet = intensity == 0.0 and rng.random() < 0.4
    history.store_faults = 0.0 if is_quiet else rng.choice([0.0, 0.0, 0.03, 0.15])
    history.store_crash = 0.0 if is_quiet else rng.choice([0.0, 0.0, 0.01, 0.03])
    history.freezes = rng.choice([0.0, 0.01, 0.04])
    history.noise = rng.choice([0.0, 0.3, 1.0])
    history.crowds = rng.choice([0, 1, 3])
    history.asks_at_checkpoint = rng.random() < 0.25
    history.tells_attempts = rng.random() < 0.6
    plan.intensity = intensity
    plan.quiet_at = clock.time() + (0 if is_quiet else rng.choice([10, 40, 120]))
    plan.schedule_outages()
    _play(history)
    history.counts[f"generation {core.generation}"] += 1
    history.counts[f"store {history.store_kind}"] += 1
    return history.counts


def _play(history: CheckpointHistory) -> None:
    rng, clock, plan = history.rng, history.clock, history.plan
    attempt(history, rng.choice(["first", "again"]))
    left = rng.choice([1, 2, 3, 4, 6, 8])
    often = rng.choice([0.01, 0.03, 0.08])
    for _ in range(STEPS):
        if left and rng.random() < often:
            left -= 1
            _happens(history)
        if not _one_step(history):
            if not left:
                break
            left -= 1
            _happens(history)
    for actor in history.actors:
        if actor.kind != "a waiter" or history.store_kind == "marks beside" or rng.random() < 0.5:
            actor.drop()
    clock.sleep(max(0.0, plan.quiet_at - clock.time()) + 0.1)
    history.freezes, history.crowds = 0.0, 0
    _end_well(history)
    for actor in history.actors:
        actor.drop()
    clock.sleep(60)
    for one in history.mine():
        disturb(history, one["instance_id"], 3)
    clock.sleep(60)
    history.judge_claims()
    history.judge_passes()
    _judge_payments(history)


def _happens(history: CheckpointHistory) -> None:
    """Something happens between two effects."""
    rng = history.rng
    what = rng.choices(
        ["attempt", "clear", "second", "dies", "cancel", "stop", "interrupt", "mind", "resume", "wrong event", "time"],
        weights=[3, 1.5, 2, 3, 4, 1.5, 1.5, 2, 1.5, 2, 1],
    )[0]
    living = waiters(history)
    if what in ("attempt", "clear"):
        if history.store_kind == "marks beside" and what == "clear":
            for one in living:
                one.drop()  # its store promises nothing for two attempts at once
        attempt(history, "again" if what == "attempt" else "new")
    elif what == "second":
        second_process(history)
    elif what == "dies" and living:
        actor = rng.choice(living)
        actor.drop()
        history.counts["deaths"] += 1
        history.say(f"{actor.name} dies")
    elif what == "cancel":
        cancel_from_outside(history)
    elif what == "stop":
        stop_for_attempt(history)
    elif what == "interrupt":
        interrupt(history)
    elif what == "mind" and living:
        actor = rng.choice(living)
        actor.wish = "yes" if actor.wish != "yes" else "unwanted"
        history.counts["owners that changed their mind"] += 1
        history.say(f"{actor.name}: its owner says {actor.wish} now")
    elif what == "resume":
        take_back_the_hold(history)
    elif what == "wrong event":
        for one in history.mine()[-1:]:
            disturb(history, one["instance_id"], rng.choice([1, 3]))
    else:
        history.clock.sleep(rng.choice([0.2, 3, 30]))  # all processes stand still
        history.pauses += 1


def _one_step(history: CheckpointHistory) -> bool:
    """One process performs one effect. False: none lives."""
    rng, clock = history.rng, history.clock
    alive = [one for one in history.actors if one.steps is not None]
    if not alive:
        return False
    earliest = min(one.due for one in alive)
    if earliest > clock.time():
        clock.sleep(earliest - clock.time() + 1e-6)
    actor = rng.choice([one for one in alive if one.due <= clock.time()] or alive)
    assert actor.steps is not None
    try:
        seconds = next(actor.steps)
        if history.freezes and rng.random() < history.freezes * (8 if actor.asked_since_send else 1):
            seconds += rng.choice([0.3, 2.0, 9.5, 11.0, 40.0])
            history.counts["processes that stood still"] += 1
        actor.due = clock.time() + seconds
        return True
    except StopIteration as end:
        if actor.kind == "a waiter":
            _judge_result(history, actor, end.value)
    except Crash:
        history.say(f"   {actor.name} dies at its store")
        history.counts["deaths"] += 1
    except (OrchestrationError, AwayError) as error:
        _judge_error(history, actor, error)
    actor.steps = None
    if actor.run is not None:
        actor.run.close()
    return True


def _judge_result(history: CheckpointHistory, actor: Actor, result: Any) -> None:
    """A success is a success."""
    if not isinstance(result, RunResult):
        raise history.broken(f"{actor.name} returned {result!r}")
    truth = history.truth(result.instance.id)
    history.counts["successes"] += 1
    history.say(f"   {actor.name}: {result.instance.id[:8]} succeeded")
    if truth is None or truth["error"] is not None:
        raise history.broken(f"{actor.name} called a success what ended so: {truth}")
    paid = [one for one in history.core.record().money if one["instance_id"] == result.instance.id]
    wanted = sum("send" in stage for stage in SHAPES[history.shape])
    if len({one["stage"] for one in paid}) != wanted:
        raise history.broken(f"{actor.name} called a success what paid {paid}")
    history.told.add(result.instance.id)


def _judge_error(history: CheckpointHistory, actor: Actor, error: Exception) -> None:
    history.counts[type(error).__name__] += 1
    history.say(f"   {actor.name}: {type(error).__name__}: {str(error)[:200]}")
    if isinstance(error, InstanceFailedError | InstanceCancelledError):
        truth = history.truth(error.instance_id)
        cancelled = truth is not None and truth["error"] == "canceled"
        if truth is None or not truth["error"] or cancelled != isinstance(error, InstanceCancelledError):
            raise history.broken(f"the truth is {truth}, and {actor.name} said {error!r}") from error
        history.told.add(error.instance_id)
    if isinstance(error, InstanceStuckError):
        if error.reason != "held":
            raise history.broken(f"it is not stuck: {error!r}") from error
        history.said_held(actor, error.instance_id, None)
    if "held amid" in str(error) or "it may still go on" in str(error):
        history.counts["a stop amid a pass"] += 1


def _end_well(history: CheckpointHistory) -> None:
    """Once the faults are over, a living owner and a user who takes holds back bring every run to its end."""
    last = ""
    for _ in range(6):
        take_back_the_hold(history)
        actor = attempt(history, "again", final=True)
        while actor.steps is not None:
            _one_step(history)
        said = history.events[-1]
        record = history.on_record()
        if record is not None and record.instance_id is not None:
            truth = history.truth(record.instance_id)
            if truth is not None and record.instance_id in history.told:
                return
        last = said
        if any(row_lost(history, one["instance_id"]) for one in history.mine()) or end_lost(history):
            history.counts["rows that the server lost"] += 1
            return
        if "WaitTimeoutError" in said:
            break  # nobody needs a second wait of a thousand seconds
    raise history.broken(f"the faults are over, and no attempt came to an end: {last}")


def row_lost(history: CheckpointHistory, instance_id: str) -> bool:
    """Whether the server lost the row of an instance or of a stage while its database was away."""
    answers = []
    for path in (f"/instances/{instance_id}/history", f"/instances/{instance_id}"):
        exchange = history.core.handle(Request("GET", path, "", {}, b""))
        good = exchange.reply is not None and exchange.reply.status == 200
        answers.append(json.loads(exchange.reply.body)["data"] if good and exchange.reply else None)
    launched, shown = answers
    return shown is None or len(launched or []) > len({row["stage"] for row in shown.get("status") or []})


def end_lost(history: CheckpointHistory) -> bool:
    """Whether an instance has ended and reads running for good."""
    for one in history.mine():
        exchange = history.core.handle(Request("GET", f"/instances/{one['instance_id']}", "", {}, b""))
        if exchange.reply is None or exchange.reply.status != 200:
            continue
        shown = json.loads(exchange.reply.body)["data"]
        if history.truth(one["instance_id"]) is not None and not shown.get("terminated"):
            return True
    return False


def _judge_payments(history: CheckpointHistory) -> None:
    """Never two releases of a key, unless the first run had ended and a new one was asked for."""
    released: dict[str, float] = {}
    rounds: Counter[int] = Counter()
    for one in history.core.record().released:
        gate = parsed_event(one["event"])
        if gate is not None and gate.key == KEY:
            released.setdefault(one["instance_id"], one["at"])
            rounds[gate.round] += 1
    if any(count > 1 for count in rounds.values()):
        raise history.broken(f"a round was released more than once: {rounds}")
    in_order = sorted(released.items(), key=lambda one: one[1])
    paid = {one["instance_id"] for one in history.core.record().money}
    if len(paid) > 1 + history.new_asked:
        raise history.broken(f"{len(paid)} runs paid, and {history.new_asked} new ones were asked for")
    for (earlier, _), (later, at) in itertools.pairwise(in_order):
        truth = history.truth(earlier)
        if truth is None or truth["at"] > at + SLACK:
            raise history.broken(f"run {later} was released at {at}, and run {earlier} ended so: {truth}")

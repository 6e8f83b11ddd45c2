"""Histories of owners: one payment in the hands of many attempts that die, are killed, cleared, edited, superseded.

The layer that users touch decides which payment a call means. Here that layer is played with: attempts of one key
start, die before or after any effect, any load and any save; the store fails, or saves and its answer is lost; an owner
changes its mind; two attempts are at work at once, one of them long given up; variables, definition and the server's
address are edited; a new run is asked for while the old one runs; an unknown fate is settled. The server's own record
judges, under one rule: *a key names one payment*.
"""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any
from unittest import mock

import httpx

from orchestration_integrations import (
    AmbiguousRunError,
    InstanceCancelledError,
    InstanceFailedError,
    InstanceStuckError,
    KeyReusedError,
    OrchestrationError,
    OrchestrationHttpHook,
    OwnerGoneError,
    OwnerUnreachableError,
    RecordConflictError,
    RunResult,
    Settings,
    ValidationError,
    WaitTimeoutError,
    WrongServerError,
)
from orchestration_integrations.http_hook.interrupts import cancel_interrupted
from orchestration_integrations.http_hook.steps import Ended, advance
from orchestration_integrations.ownership import beginning
from orchestration_integrations.ownership.owned_run import OwnedRun
from orchestration_integrations.ownership.record import RunRecord, RunStore, follows
from orchestration_integrations.ownership.request import OwnedRequest
from orchestration_integrations.ownership.resolve import Question, Shows, Verdict
from orchestration_integrations.procedures.checkpoints import Guard
from orchestration_integrations.procedures.gate import OPENING, parsed_event
from orchestration_integrations.procedures.key_lock import KeyLock
from orchestration_integrations.procedures.wait_arguments import WaitArguments
from orchestration_integrations.run_store import MemoryRunStore
from orchestration_integrations.server import Core, VirtualClock
from orchestration_integrations.server.exchange import Request

from .faulty import Crash, FaultyTransport, Plan
from .frameworks import Airflow, PlainPython, Prefect, some_framework
from .histories import Violation

KEY = "order-17"
BUDGET = 500.0
"""Seconds that are left for a call once the faults are over: more than the latest row and an owner's silence need."""
OWNER_ANSWER_SECONDS = 10.0
SLACK = 0.5
ADDRESS, ALIAS, ELSEWHERE = "http://orchestration", "http://alias", "http://elsewhere"
STORES = ("durable", "durable", "durable", "by overwriting", "for this process", "one a pod", "two pods")


def paying(amount: str = "${amount}", shop: str = "shop") -> dict[str, Any]:
    """A payment to a shop."""
    return {
        "send": {
            "source": {"account": {"id": "world"}},
            "destination": {"account": {"id": shop}},
            "amount": {"amount": amount, "asset": "USD/2"},
        }
    }


SHAPES: dict[str, list[dict[str, Any]]] = {
    "pays": [paying()],
    "pays later": [{"delay": {"duration": "20s"}}, paying()],
    "pays twice": [paying(), {"delay": {"duration": "8s"}}, paying()],
    "carries its key": [paying(shop="${runKey}"), {"delay": {"duration": "5s"}}],
    "fails": [paying(shop="bad account!")],
    "takes long": [{"delay": {"duration": "150s"}}, paying()],
    "fails late": [paying(), {"delay": {"duration": "3s"}}, paying(shop="bad account!")],
}


class StoreError(OSError):
    """The store is away."""


class DurableStore(MemoryRunStore):
    """A store that outlives every process, as a database does. ``since``: when it was made."""

    def __init__(self, since: datetime | None) -> None:
        super().__init__()
        self.since = since

    @property
    def complete_since(self) -> datetime | None:
        return self.since


class OverwritingStore(DurableStore):
    """A store that cannot compare before it stores: the last writer wins. Only a choice has a unique name."""

    overwrote = False
    """An attempt that was overtaken has stored its record over that of a later one."""

    def save(self, record: RunRecord) -> None:
        self.overwrote = self.overwrote or not follows(self._records.get(record.key), record)
        self._records[record.key] = record


@dataclass
class Attempt:
    """One attempt at work: a process of its own."""

    number: int
    name: str
    request: OwnedRequest
    amount: int
    asked_new: bool
    hook: OrchestrationHttpHook
    run: OwnedRun
    transport: WatchedTransport
    wish: str = "yes"
    said_yes_at: float | None = None
    asked_since_send: bool = False
    steps: Generator[None, None, Any] | None = None
    taken_over: bool = False
    looked_at: float = 0.0
    manner: str = "waits"
    answered_before: bool = False
    resumptions: int = 1
    store: Any = None
    owner: Any = None


class WatchedTransport(FaultyTransport):
    """Sees what one attempt sends."""

    def __init__(self, history: OwnerHistory) -> None:
        super().__init__(history.plan)
        self.history = history
        self.attempt: Attempt | None = None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if self.attempt is not None:
            self.history.sends(self.attempt, request)
        return super().handle_request(request)


@dataclass
class OwnerHistory:
    """The state of one history."""

    seed: int
    rng: random.Random
    clock: VirtualClock
    core: Core
    plan: Plan
    framework: PlainPython | Airflow | Prefect
    store_kind: str
    is_gated: bool
    shape: str
    counts: Counter[str] = field(default_factory=Counter)
    shared: RunStore | None = None
    pods: dict[int, RunStore] = field(default_factory=dict)
    amount: int = 100
    definition_changes: int = 0
    address: str = ADDRESS
    attempts: list[Attempt] = field(default_factory=list)
    new_asked: int = 0
    store_faults: float = 0.0
    store_crash: float = 0.0
    first_at: float = 0.0
    workflow_id: str = ""
    owner_tells_attempts: bool = True
    told_ends: set[str] = field(default_factory=set)
    told_success: set[str] = field(default_factory=set)
    returned: set[tuple[str, int]] = field(default_factory=set)
    events: list[str] = field(default_factory=list)
    settled: set[str] = field(default_factory=set)
    one_payment: bool = False
    """Nobody asks for another one."""

    # ---- stores ------------------------------------------------------------------------------------

    def store(self) -> FaultyStore:
        """The store as a new process finds it."""
        now = datetime.fromtimestamp(self.clock.time(), timezone.utc)
        if self.store_kind == "for this process":
            return self._faulty(MemoryRunStore())
        if self.store_kind == "one a pod":
            return self._faulty(DurableStore(now))
        if self.has_pods:  # each of which comes back to its own record; sometimes a new pod comes
            pod = self.rng.choice([0, 0, 1, 1, None])
            return self._faulty(DurableStore(None) if pod is None else self.pods.setdefault(pod, DurableStore(None)))
        if self.shared is None:
            kind = OverwritingStore if self.store_kind == "by overwriting" else DurableStore
            self.shared = kind(now - timedelta(days=30))
        return self._faulty(self.shared)

    @property
    def remembers(self) -> bool:
        """Whether a later attempt finds what an earlier one put on record."""
        return self.store_kind in ("durable", "by overwriting")

    @property
    def has_pods(self) -> bool:
        """Several records know of each other by the server alone; it takes many calls until their rounds differ."""
        return self.store_kind == "two pods"

    @property
    def two_at_once(self) -> bool:
        """Two attempts were at work together on a run without a gate, and the store cannot compare: docs/keys.md
        promises nothing then."""
        return not self.is_gated and isinstance(self.shared, OverwritingStore) and self.shared.overwrote

    def _faulty(self, inner: RunStore) -> FaultyStore:
        return FaultyStore(self, inner)

    # ---- what an attempt sends ---------------------------------------------------------------------

    def sends(self, attempt: Attempt, request: httpx.Request) -> None:
        """Judge a request as it leaves."""
        path = request.url.path
        if request.method == "POST" and path.endswith("/events"):
            name = json.loads(request.content)["name"]
            if not str(name).startswith(OPENING):
                return
            if not attempt.asked_since_send:
                raise self.broken(f"attempt {attempt.name} released without asking its owner")
            if attempt.said_yes_at is None or self.clock.time() - attempt.said_yes_at > OWNER_ANSWER_SECONDS + SLACK:
                raise self.broken(f"attempt {attempt.name} released on an old answer of its owner")
            attempt.asked_since_send = False
        if request.method == "PUT" and path.endswith("/abort") and attempt.taken_over:
            later = {one.run.instance_id for one in self.attempts if one.number > attempt.number}
            looked_long_ago = self.clock.time() - attempt.looked_at > OWNER_ANSWER_SECONDS + SLACK
            if path.split("/")[-2] in later and (looked_long_ago or not self.remembers):
                raise self.broken(f"attempt {attempt.name} was superseded and cancelled another attempt's run")

    def broken(self, what: str) -> Violation:
        """A promise was broken."""
        told = "\n  ".join(self.events)
        return Violation(
            f"{what}\nseed {self.seed}: generation {self.core.generation}, {self.shape!r}, "
            f"{'gated' if self.is_gated else 'ungated'}, "
            f"store {self.store_kind!r}, {self.framework.name}\n  {told}\nreplay with "
            f"python -m tests.simulation.soak --owners --seed {self.seed}"
        )

    # ---- the server's truth ------------------------------------------------------------------------

    def mine(self) -> list[dict[str, Any]]:
        """The runs of the key that really started."""
        return [one for one in self.core.record().started if one["variables"].get("runKey") == KEY]

    def truth(self, instance_id: str) -> dict[str, Any] | None:
        """How a run really ended; None while it runs."""
        return next((one for one in self.core.record().ended if one["instance_id"] == instance_id), None)

    def payers(self) -> list[str]:
        """The runs of the key that moved money, in the order of their first payment."""
        mine = {one["instance_id"] for one in self.mine()}
        return list(dict.fromkeys(one["instance_id"] for one in self.core.record().money if one["instance_id"] in mine))

    def released_at(self) -> dict[str, float]:
        """When the runs of the key could first move something."""
        if not self.is_gated:
            return {one["instance_id"]: one["at"] for one in self.mine()}
        found: dict[str, float] = {}
        for one in self.core.record().released:
            gate = parsed_event(one["event"])
            if gate is not None and gate.key == KEY:
                found.setdefault(one["instance_id"], one["at"])
        return found


class FaultyStore:
    """A store whose calls fail, or work and lose their answer, or are where a process dies."""

    def __init__(self, history: OwnerHistory, inner: RunStore) -> None:
        self._history = history
        self._inner = inner
        self.attempt: Attempt | None = None

    @property
    def complete_since(self) -> datetime | None:
        return self._inner.complete_since

    def _call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        history = self._history
        rng, noisy = history.rng, not history.plan.is_quiet()
        if noisy and rng.random() < history.store_crash:
            history.counts["crashes before the store"] += 1
            raise Crash
        if noisy and rng.random() < history.store_faults:
            history.counts["store away"] += 1
            raise StoreError("the store is away")
        answer = method(*arguments)
        if self.attempt is not None:
            self.attempt.looked_at = history.clock.time()
        if noisy and rng.random() < history.store_faults:
            history.counts["answers of the store lost"] += 1
            raise StoreError("the answer of the store was lost")
        if noisy and rng.random() < history.store_crash:
            history.counts["crashes after the store"] += 1
            raise Crash
        return answer

    def load(self, key: str) -> RunRecord | None:
        found: RunRecord | None = self._call(self._inner.load, key)
        # Through its stored form, as every real store does.
        return None if found is None else RunRecord.from_json(found.to_json())

    def save(self, record: RunRecord) -> None:
        def save(made: RunRecord) -> None:
            self._inner.save(made)
            if made.state == "told" and made.instance_id is not None:
                self._history.told_ends.add(made.instance_id)

        self._call(save, record)

    def choose(self, key: str, round: int, instance_id: str) -> str:
        return str(self._call(self._inner.choose, key, round, instance_id))

    def settle(self, key: str) -> None:
        self._inner.settle(key)


# ---- a history -----------------------------------------------------------------------------------------


def run_owner_history(seed: int, generation: int | None = None) -> Counter[str]:
    """Play one history. Raises Violation."""
    rng = random.Random(f"owners {seed}")
    random.seed(seed)
    clock = VirtualClock()
    core = Core(generation or rng.choice([1, 2, 3]), clock=clock, seed=seed, faults=False)
    intensity = rng.choice([0.0, 0.0, 0.05, 0.15, 0.3])
    plan = Plan(rng, clock, core, 0.0, clock.time(), random.Random(f"misread owners {seed}"))
    history = OwnerHistory(
        seed,
        rng,
        clock,
        core,
        plan,
        some_framework(rng),
        rng.choice(STORES),
        rng.random() < 0.75,
        rng.choice(list(SHAPES)),
    )
    if history.framework.name != "plain" and not history.remembers:
        history.store_kind = "durable"  # frameworks keep records
    history.is_gated = history.is_gated or history.has_pods  # nothing else tells them of each other
    history.first_at = clock.time()
    history.one_payment = history.has_pods and rng.random() < 0.6
    history.store_faults = rng.choice([0.0, 0.0, 0.05, 0.2])
    history.owner_tells_attempts = rng.random() < 0.6
    history.store_crash = rng.choice([0.0, 0.03, 0.1])
    setup = OrchestrationHttpHook(Settings(base_url=ADDRESS), clock=clock, transport=FaultyTransport(plan))
    if not history.is_gated:
        history.workflow_id = setup.create_workflow(definition_of(history)).id
    clock.sleep(rng.choice([0, 5]))
    plan.intensity = intensity
    plan.quiet_at = clock.time() + rng.choice([10, 60, 240])
    plan.schedule_outages()

    real = beginning.resolve

    def counted(question: Question, shows: Shows) -> Verdict:
        verdict = real(question, shows)
        history.counts[f"row {verdict.row:2}: {verdict.kind}"] += 1
        return verdict

    with mock.patch.object(beginning, "resolve", counted):
        _play(history)
    history.counts[f"generation {core.generation}"] += 1
    history.counts[f"store {history.store_kind}"] += 1
    history.counts[f"facts of {history.framework.name}"] += 1
    return history.counts


def _play(history: OwnerHistory) -> None:
    rng, clock, plan = history.rng, history.clock, history.plan
    for number in range(rng.choice([3, 5, 8, 12] if history.has_pods else [1, 2, 2, 3, 4, 5])):
        _one_event(history, number)
    _resume_all(history)
    clock.sleep(max(0.0, plan.quiet_at - clock.time()) + 0.1)
    _last_attempt(history)
    _judge_payments(history)


def definition_of(history: OwnerHistory) -> dict[str, Any]:
    """The definition as it stands in the user's file now."""
    name = "payout" + "!" * (history.definition_changes // 2)
    stages = list(SHAPES[history.shape])
    if history.definition_changes % 2:
        stages.append({"delay": {"duration": "1s"}})
    return {"name": name, "stages": stages}


def _one_event(history: OwnerHistory, number: int) -> None:
    rng = history.rng
    what = rng.choices(
        ["attempt", "edit", "rename", "move", "new", "again in the same attempt", "resume", "sleep", "settle"],
        weights=[8, 1.5, 1, 1, 3, 1.5, 3, 2, 0.7],
    )[0]
    if isinstance(history.framework, Airflow):
        history.framework.ended = not any(one.steps is not None for one in history.attempts)
    if what == "attempt" or (what == "new" and (not history.attempts or history.one_payment)):
        _attempt(history)
    elif what == "edit":
        history.amount = rng.choice([100, 250])
        history.events.append(f"the amount is {history.amount} now")
        _attempt(history)
    elif what == "rename" and history.is_gated and history.remembers:  # else it is another workflow, and docs say so
        history.definition_changes += rng.choice([1, 2])
        history.events.append("the definition was edited")
        _attempt(history)
    elif what == "move":
        history.address = rng.choice([ADDRESS, ALIAS])
        history.events.append(f"the server's address is {history.address} now")
        _attempt(history)
    elif what == "new":
        _attempt(history, new=history.framework.name != "prefect")  # which has no clear
    elif what == "again in the same attempt" and history.attempts:
        _attempt(history, same=True)
    elif what == "resume":
        _resume_one(history)
    elif what == "settle" and history.shared is not None and _fate_is_over(history):
        history.shared.settle(KEY)
        history.new_asked += 1
        history.settled |= {one["instance_id"] for one in history.mine()}
        history.events.append("the user settled the key")
        _attempt(history)
    else:
        history.clock.sleep(rng.choice([0.1, 3, 30, 400]))


def _fate_is_over(history: OwnerHistory) -> bool:
    """A user settles only what has ended, and nothing that another attempt is still at work on."""
    return all(history.truth(one["instance_id"]) is not None for one in history.mine()) and not any(
        one.steps is not None for one in history.attempts
    )


def _new_attempt(history: OwnerHistory, *, new: bool, same: bool, final: bool = False) -> Attempt:
    rng, clock = history.rng, history.clock
    number = len(history.attempts) + 1
    first = number == 1 and rng.random() < 0.7
    store = history.store()
    history.framework.next_attempt(rng, new=new, same=same)
    born = datetime.fromtimestamp(history.first_at, timezone.utc)
    timeout = BUDGET if final else rng.choice([5.0, 20.0, 60.0])
    record = history.shared.load(KEY) if history.remembers and history.shared is not None else None
    said = history.framework.request(record, new=new, first=first, born=born)
    name = said["attempt"]
    request = OwnedRequest(
        workflow=definition_of(history) if history.is_gated else history.workflow_id,
        variables={"amount": history.amount},
        run_key=KEY,
        since=born if rng.random() < 0.8 else None,
        rerun_failed=not final and rng.random() < 0.15 and not history.one_payment,
        shared_key=history.has_pods,
        timeout=timeout,
        **said,
    )
    transport = WatchedTransport(history)
    hook = OrchestrationHttpHook(Settings(base_url=history.address), clock=clock, transport=transport)

    def owner() -> str:
        attempt.asked_since_send = True
        if not history.plan.is_quiet() and rng.random() < 0.05:
            raise StoreError("the owner cannot be asked")
        answer = "superseded" if attempt.taken_over and history.owner_tells_attempts else attempt.wish
        attempt.said_yes_at = clock.time() if answer == "yes" else None
        return answer

    run = hook.owning(request, store=store, owner=owner)
    run._key_lock = KeyLock(f"history {history.seed}, process {number}", KEY)  # each attempt is a process of its own
    attempt = Attempt(number, name, request, history.amount, new, hook, run, transport)
    attempt.answered_before = _answered_before(history, name)
    transport.attempt = store.attempt = attempt
    attempt.store, attempt.owner = store, owner
    if not final:
        attempt.manner = rng.choices(["waits", "is deferred", "starts only"], weights=[3, 2, 1])[0]
        attempt.resumptions = rng.choice([1, 1, 2])
    history.attempts.append(attempt)
    return attempt


def _attempt(history: OwnerHistory, *, new: bool = False, same: bool = False) -> None:
    rng = history.rng
    if same and (not history.attempts or history.has_pods):  # a pod calls once: its key is shared
        return
    for other in history.attempts:
        if other.steps is not None and not history.remembers:
            _drop(history, other)  # two at once are kept apart by a store that they share, or not at all
    attempt = _new_attempt(history, new=new, same=same)
    if new:
        history.new_asked += 1
    for other in history.attempts[:-1]:
        other.taken_over = True
    history.events.append(
        f"{history.clock.time() - history.first_at:.1f}: {attempt.name} ({attempt.request.how}, {attempt.amount})"
    )
    attempt.steps = _steps(history, attempt)
    fate = rng.choices(
        ["to its end", "dies", "pauses", "interrupted", "unwanted"],
        weights=[3, 3, 3 if history.remembers else 0, 1.5, 1.5],
    )[0]
    _go_on(history, attempt, fate)


def _steps(history: OwnerHistory, attempt: Attempt) -> Generator[None, None, Any]:
    """Perform the attempt, one effect at a time."""
    run, hook, rng = attempt.run, attempt.hook, history.rng
    timeout = BUDGET * 2 if history.plan.is_quiet() else rng.choice([2.0, 30.0, 120.0])

    def waiting(instance_id: str, guard: Guard) -> Any:
        arguments = WaitArguments(timeout=timeout, poll_interval=rng.choice([0.5, 5.0]))
        return hook.waiting_for(instance_id, arguments, guard=guard)

    on_timeout = rng.choice(["cancel", "leave"])
    try:
        if attempt.manner == "waits":
            return (yield from _performed(hook, run.run(waiting, on_timeout=on_timeout)))
        instance = yield from _performed(hook, run.begin())
        if attempt.manner == "starts only":
            yield from _performed(hook, run.returned())
            return instance
        # Deferred: other processes of the same attempt go on, perhaps two, each told by its trigger or by nobody.
        run.close()
        for number in range(attempt.resumptions):
            resumed = hook.owning(attempt.request, store=attempt.store, owner=attempt.owner)
            resumed._key_lock = KeyLock(f"history {history.seed}, process {attempt.number}, resumed {number}", KEY)
            yield from _performed(hook, resumed.load())
            attempt.run = resumed
            result = yield from _performed(hook, resumed.attend(instance.id, waiting, on_timeout=on_timeout))
        return result
    finally:
        run.close()


def _performed(hook: OrchestrationHttpHook, procedure: Any) -> Generator[None, None, Any]:
    """Perform a procedure, one effect at a time."""
    try:
        step = advance(procedure, None, None)
        while not isinstance(step, Ended):
            yield
            try:
                result, error = hook.effect(step), None
            except OrchestrationError as caught:
                result, error = None, caught
            step = advance(procedure, result, error)
        return step.value
    finally:
        procedure.close()


def _go_on(history: OwnerHistory, attempt: Attempt, fate: str) -> None:
    """Let an attempt go on until its fate."""
    rng, plan = history.rng, history.plan
    plan.crash_at = None
    at = rng.choice([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 30, 60]) if fate != "to its end" else -1
    assert attempt.steps is not None
    done = 0
    try:
        while True:
            if done == at and fate != "to its end":
                if fate == "pauses":
                    history.events.append(f"   {attempt.name} pauses after {done} effects")
                    history.counts["pauses"] += 1
                    return
                if fate == "dies":
                    raise Crash
                if fate == "interrupted":
                    raise KeyboardInterrupt
                history.events.append(f"   {attempt.name} is unwanted after {done} effects")
                attempt.wish = "unwanted"
                history.counts["unwanted"] += 1
            next(attempt.steps)
            done += 1
    except StopIteration as end:
        _judge_result(history, attempt, end.value)
    except Crash:
        history.events.append(f"   {attempt.name} dies after {done} effects")
        history.counts["deaths"] += 1
        _drop(history, attempt)
        return
    except KeyboardInterrupt as error:
        _drop(history, attempt)
        history.events.append(f"   {attempt.name} is interrupted after {done} effects")
        history.counts["interrupts"] += 1
        try:
            cancel_interrupted(attempt.hook, attempt.run, error)
        except Crash:
            history.counts["deaths"] += 1
    except (OrchestrationError, StoreError) as error:
        history.events.append(f"   {attempt.name}: {type(error).__name__}: {str(error)[:110]}")
        _judge_error(history, attempt, error)
    attempt.steps = None
    attempt.run.close()


def _drop(history: OwnerHistory, attempt: Attempt) -> None:
    if attempt.steps is not None:
        attempt.steps.close()
    attempt.steps = None
    attempt.run.close()


def _resume_one(history: OwnerHistory) -> None:
    paused = [one for one in history.attempts if one.steps is not None]
    if paused:
        attempt = history.rng.choice(paused)
        history.events.append(f"   {attempt.name} goes on")
        _go_on(history, attempt, history.rng.choice(["to its end", "to its end", "dies"]))


def _resume_all(history: OwnerHistory) -> None:
    for attempt in history.attempts:
        if attempt.steps is not None:
            history.events.append(f"   {attempt.name} goes on")
            _go_on(history, attempt, "to its end")


# ---- judging -------------------------------------------------------------------------------------------


def _judge_result(history: OwnerHistory, attempt: Attempt, result: Any) -> None:
    """A success means that these variables were paid, by a run that succeeded."""
    if history.remembers and history.store_faults == 0 and attempt.answered_before:
        raise history.broken(f"a second call of {attempt.name} got an answer under the same key")
    history.returned.add((attempt.name, attempt.number))
    if attempt.manner == "starts only":
        history.counts["starts that did not wait"] += 1
        history.events.append(f"   {attempt.name}: {result.id[:8]} was started")
        _judge_variables(history, attempt, result.id)
        return
    history.counts["successes"] += 1
    if not isinstance(result, RunResult):
        raise history.broken(f"{attempt.name} returned {result!r}")
    instance_id = result.instance.id
    history.events.append(f"   {attempt.name}: {instance_id[:8]} succeeded")
    truth = history.truth(instance_id)
    if truth is None or truth["error"] is not None:
        raise history.broken(f"{attempt.name} called a success what ended so: {truth}")
    _judge_variables(history, attempt, instance_id)
    history.told_success.add(instance_id)
    history.told_ends.add(instance_id)


def _judge_variables(history: OwnerHistory, attempt: Attempt, instance_id: str) -> None:
    """The run that a caller was given pays what the caller asked for."""
    started = next((one for one in history.mine() if one["instance_id"] == instance_id), None)
    if started is None:
        raise history.broken(f"{attempt.name} returned a run of another key")
    if started["variables"].get("amount") != str(attempt.amount):
        raise history.broken(
            f"{attempt.name} asked for {attempt.amount} and was told of {started['variables'].get('amount')}"
        )


def _judge_error(history: OwnerHistory, attempt: Attempt, error: Exception) -> None:
    history.counts[type(error).__name__] += 1
    if isinstance(error, InstanceFailedError | InstanceCancelledError):
        truth = history.truth(error.instance_id)
        cancelled = truth is not None and truth["error"] == "canceled"
        if truth is None or not truth["error"] or cancelled != isinstance(error, InstanceCancelledError):
            raise history.broken(f"the truth is {truth}, and {attempt.name} said {error!r}") from error
    running = [one["instance_id"] for one in history.mine() if history.truth(one["instance_id"]) is None]
    released = [one for one in history.released_at() if one in running]
    text = str(error)
    known = attempt.run.instance_id if not attempt.run.superseded else None
    if isinstance(error, OrchestrationError) and known in released and known not in text and KEY not in text:
        raise history.broken(f"{attempt.name} said nothing of {known}, which runs: {error!r}") from error
    if isinstance(error, InstanceFailedError | InstanceCancelledError):
        history.told_ends.add(error.instance_id)
        history.returned.add((attempt.name, attempt.number))
    refused = isinstance(error, KeyReusedError) and error.differs == "caller"
    others = any(name == attempt.name and number != attempt.number for name, number in history.returned)
    if refused and not (attempt.answered_before or others):
        raise history.broken(f"no other call of {attempt.name} had the key, and it said {error!r}") from error
    if isinstance(error, AmbiguousRunError) and (error.run_key != KEY or KEY not in text):
        raise history.broken(f"the error does not name the key: {error!r}") from error


def _answered_before(history: OwnerHistory, name: str) -> bool:
    """Whether another call of the same attempt has got its answer."""
    record = history.shared.load(KEY) if history.shared is not None else None
    if record is not None and record.attempt == name and record.returned:
        return True  # also a run that was given up and then seen cancelled, or a death right after that was saved
    return any(name == returned for returned, _ in history.returned)


def _judge_payments(history: OwnerHistory) -> None:
    """A second run may move something only after the first had ended, and only where a new one was asked for."""
    released = sorted(history.released_at().items(), key=lambda one: one[1])
    asked = history.new_asked + sum(one.request.rerun_failed for one in history.attempts)
    payers = history.payers()
    if history.two_at_once and len(released) > 1 + asked:
        history.counts["two at once, and neither gate nor store to tell"] += 1
        return
    if len(payers) > 1 + asked:
        raise history.broken(f"{len(payers)} runs paid, and {asked} new ones were asked for: {payers}")
    for (earlier, _), (later, at) in itertools.pairwise(released):
        truth = history.truth(earlier)
        if truth is None or truth["at"] > at + SLACK:
            if history.two_at_once:
                return
            raise history.broken(f"run {later} was released at {at}, and run {earlier} ended so: {truth}")
        known = earlier in history.told_ends or truth["error"] == "canceled" or earlier in history.settled
        if earlier in payers and not known and not (history.has_pods and asked):  # by another pod, in a round like it
            raise history.broken(f"run {later} was released, and nobody was told that run {earlier} had paid")
    rounds = Counter(_round_of(history, one) for one, _ in released)
    twice = [number for number, count in rounds.items() if count > 1]
    if history.is_gated and twice and not (history.has_pods and asked):
        raise history.broken(f"round {twice} was released more than once: {released}")


def _round_of(history: OwnerHistory, instance_id: str) -> int:
    for one in history.core.record().released:
        gate = parsed_event(one["event"])
        if one["instance_id"] == instance_id and gate is not None:
            return gate.round
    return -1


def _last_attempt(history: OwnerHistory) -> None:
    """Once the faults are over an attempt ends with a definite result."""
    for other in history.attempts:
        _drop(history, other)
        other.taken_over = True
    history.address = ADDRESS
    attempt = _new_attempt(history, new=False, same=False, final=True)
    history.events.append(f"{history.clock.time() - history.first_at:.1f}: the last one, {attempt.name}")
    attempt.steps = _steps(history, attempt)
    try:
        while True:
            next(attempt.steps)
    except StopIteration as end:
        _judge_result(history, attempt, end.value)
    except OrchestrationError as error:
        history.events.append(f"   {attempt.name}: {type(error).__name__}: {str(error)[:200]}")
        _judge_error(history, attempt, error)
        if not _may_end_so(history, attempt, error):
            raise history.broken(f"the faults are over, and the last attempt ended with {error!r}") from error


def _may_end_so(history: OwnerHistory, attempt: Attempt, error: OrchestrationError) -> bool:
    if isinstance(error, InstanceFailedError | InstanceCancelledError):
        return True
    edited = len({one.amount for one in history.attempts}) > 1 or history.definition_changes > 0
    if isinstance(error, KeyReusedError):
        return edited and error.differs != "caller"
    if isinstance(error, ValidationError):
        return not history.is_gated and not history.remembers and "vouches for nothing" in str(error)
    lost = any(_row_lost(history, one["instance_id"]) for one in history.mine())
    if isinstance(error, InstanceStuckError):
        return error.reason == "never_started" and not history.is_gated
    if lost or _end_lost(history):
        history.counts["rows that the server lost"] += 1
        return True
    if isinstance(error, AmbiguousRunError):
        if not history.is_gated:
            return True  # nothing vouches for the first attempt, or a submit was lost
        return not history.remembers and len(error.candidates) > 1
    if isinstance(error, WrongServerError):
        # The record names the other address, and the run there was never seen or not released yet.
        return len({one.hook.settings.base_url for one in history.attempts}) > 1
    return False


def _row_lost(history: OwnerHistory, instance_id: str) -> bool:
    answers = []
    for path in (f"/instances/{instance_id}/history", f"/instances/{instance_id}"):
        exchange = history.core.handle(Request("GET", path, "", {}, b""))
        good = exchange.reply is not None and exchange.reply.status == 200
        answers.append(json.loads(exchange.reply.body)["data"] if good and exchange.reply else None)
    launched, shown = answers
    if shown is None:
        return True
    return len(launched or []) > len({row["stage"] for row in shown.get("status") or []})


def _end_lost(history: OwnerHistory) -> bool:
    """An instance that has ended and reads running for good: the server lost the write of its end."""
    for one in history.mine():
        exchange = history.core.handle(Request("GET", f"/instances/{one['instance_id']}", "", {}, b""))
        if exchange.reply is None or exchange.reply.status != 200:
            continue
        shown = json.loads(exchange.reply.body)["data"]
        if history.truth(one["instance_id"]) is not None and not shown.get("terminated"):
            return True
    return False


EXPECTED = (WaitTimeoutError, OwnerGoneError, OwnerUnreachableError, RecordConflictError)
"""Ends of an attempt that a later one mends."""

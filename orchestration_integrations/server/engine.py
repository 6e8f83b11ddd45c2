"""The workflow engine as a discrete-event simulation: no thread, no socket, no waiting.

A heap holds what is to happen, each entry an instant, a kind and plain arguments. `pump(now)` does
everything that is due up to `now`, in the order of time, and each step happens *at its own instant*
however late the pump comes. So the engine needs nobody to drive it: whoever asks it something pumps
first and finds what would have happened by then. Moving the clock by a week costs as much as the
steps that fall into that week.

The real server is three things that fail apart, and so is this one:

- the **engine** keeps the truth (`StageRun`, timers, retries) and forgets nothing; while it is away nothing goes on;
- the **workers** do the steps; while they are away, steps wait (they are parked, then done in order);
- the **database** holds rows that the workers write about the truth. Generation 1 loses a write while it is away;
  later generations wait and write again.

Behind them is the **ledger**: stopped, it stalls, and what had reached it takes effect when it comes back.
"""

from __future__ import annotations

import heapq
import random
import uuid
from typing import TYPE_CHECKING, Any

from . import definitions, golang, sending
from .clock import SECOND, Clock
from .ledger import FINAL_REFUSALS, Ledger, Refused
from .record import Record
from .state import Activity, Instance, StageRow, StageRun, Workflow

if TYPE_CHECKING:
    from collections.abc import Callable

    from .exchange import Exchange
    from .store import Store
    from .timing import Timing

PARTS = ("workers", "engine", "database", "ledger")
_WORK = ("engine", "workers")
_NEEDS: dict[str, tuple[str, ...]] = {
    "initiate": ("engine", "workers", "database"),
    "begin": _WORK,
    "launch_stage": _WORK,
    "timer": _WORK,
    "wake": _WORK,
    "stage_done": _WORK,
    "cancel": _WORK,
    "activity": _WORK,
    "act_start": _WORK,
    "act_done": _WORK,
    "act_timeout": ("engine",),
}
_WRITES = ("begin", "launch_stage", "stage_done")
NO_ROWS = "sql: no rows in result set"
COMPLETED = "workflow execution already completed"
DEADLINE = "context deadline exceeded"
REFUSED = "dial tcp database:5432: connect: connection refused"
BROKEN = "FATAL: terminating connection due to administrator command (SQLSTATE=57P01)"
POOL = 2
"""Connections that the database's end breaks: as many requests hear of that, later ones of a refused connection."""


class SignalError(Exception):
    """An event or an abort that the engine refuses; the text is what it would say."""


class DatabaseAwayError(Exception):
    """The database can't be reached."""


class Engine:
    """State and steps of one server. Not thread-safe: its owner holds a lock."""

    def __init__(
        self, generation: int, clock: Clock, timing: Timing, store: Store, record: Record, rng: random.Random
    ) -> None:
        self.generation = generation
        self.clock = clock
        self.timing = timing
        self.store = store
        self.record = record
        self.rng = rng
        self.now = clock.now_ns()
        self.workflows: dict[str, Workflow] = {}
        self.instances: dict[str, Instance] = {}
        self.ledger = Ledger()
        self.up = dict.fromkeys(PARTS, True)
        self.broken_connections = 0
        self.stale_writes = 0
        self.parked: list[tuple[str, list[Any]]] = []
        self.stalled: list[list[Any]] = []
        self._heap: list[tuple[int, int, str, list[Any]]] = []
        self._seq = 0
        self._exchanges: dict[int, Exchange] = {}
        self._held: dict[int, Callable[[bool], None]] = {}
        self._waiters: dict[str, list[Exchange]] = {}
        self._steps: dict[str, Callable[..., None]] = {
            "run_insert": self._run_insert,
            "run_start": self._run_start,
            "launch": self._launch,
            "answer": self._answer,
            "deadline": self._deadline,
            "initiate": self._initiate,
            "begin": self._begin,
            "launch_stage": self._launch_stage,
            "timer": self._timer,
            "wake": self._wake,
            "stage_done": self._stage_done,
            "cancel": self._cancel,
            "activity": self._activity,
            "act_start": self._act_start,
            "act_call": self._act_call,
            "act_done": self._act_done,
            "act_timeout": self._act_timeout,
        }
        self.ended_hooks: list[Callable[[Instance], None]] = []

    # ---- time --------------------------------------------------------------------------------

    def at(self, instant_ns: int, kind: str, *args: Any) -> None:
        """Have a step done at an instant."""
        self._seq += 1
        entry = (max(instant_ns, self.now), self._seq, kind, list(args))
        heapq.heappush(self._heap, entry)
        self.store.event(entry)

    def after(self, seconds: float, kind: str, *args: Any) -> None:
        """Have a step done after about so long."""
        spread = 1.0 + self.timing.jitter * (2.0 * self.rng.random() - 1.0)
        self.at(self.now + int(seconds * spread * SECOND), kind, *args)

    def next_due(self) -> int | None:
        """When the next step is due; None: nothing will happen by itself."""
        return self._heap[0][0] if self._heap else None

    def pump(self, now_ns: int) -> bool:
        """Do all that is due up to `now_ns`. Returns whether there was anything."""
        heap, worked = self._heap, False
        while heap and heap[0][0] <= now_ns:
            due, seq, kind, args = heapq.heappop(heap)
            self.store.event_done(seq)
            worked = True
            self.now = max(self.now, due)
            if self._can(kind):
                self._steps[kind](*args)
            else:
                self.parked.append((kind, args))
                self.store.touch_meta()
        self.now = max(self.now, now_ns)
        return worked

    def _can(self, kind: str) -> bool:
        needs = _NEEDS.get(kind)
        if needs is None:
            return True
        up = self.up
        if self.generation > 1 and kind in _WRITES and not up["database"]:
            return False
        return all(up[part] for part in needs)

    def restore(self, entries: list[tuple[int, int, str, list[Any]]]) -> None:
        """Take pending steps back in after a restart. Those that belong to a request are gone with it."""
        self._heap = list(entries)
        heapq.heapify(self._heap)
        self._seq = max((e[1] for e in entries), default=0)

    def uuid(self) -> str:
        """A fresh id."""
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    # ---- parts of the server that come and go -------------------------------------------------

    def stop_part(self, part: str) -> None:
        """Take a part away; again is harmless."""
        if not self.up[part]:
            return
        self.up[part] = False
        if part == "database":
            self.broken_connections = POOL
            self.stale_writes = 1
        self.store.touch_meta()

    def start_part(self, part: str) -> None:
        """Bring it back; what waited for it goes on."""
        if self.up[part]:
            return
        self.up[part] = True
        self.store.touch_meta()
        resume = self.now + int(self.timing.resume * SECOND)
        if part == "ledger":
            stalled, self.stalled = self.stalled, []
            for n, args in enumerate(stalled):
                self.at(resume + n, "act_call", *args)
        parked, self.parked = self.parked, []
        for n, (kind, args) in enumerate(parked):
            if part == "database" and kind == "begin" and self.generation == 2:
                # The write had been done when its answer was lost, and is done again: the row stands there twice.
                args = [*args[:2], True]
            self.at(resume + n, kind, *args)
        if part == "engine":
            held, self._held = self._held, {}
            for go_on in held.values():
                go_on(True)

    def check_database(self) -> None:
        """DatabaseAwayError with the text that a request would hear now."""
        if self.up["database"]:
            return
        if self.broken_connections:
            self.broken_connections -= 1
            raise DatabaseAwayError(BROKEN)
        raise DatabaseAwayError(REFUSED)

    def hold_for_engine(self, go_on: Callable[[bool], None]) -> None:
        """Call `go_on(True)` when the engine is back, `go_on(False)` when a request waits no longer for it."""
        self._seq += 1
        self._held[self._seq] = go_on
        self.at(self.now + int(self.timing.request_deadline * SECOND), "deadline", self._seq)

    def _deadline(self, token: int) -> None:
        go_on = self._held.pop(token, None)
        if go_on is not None:
            go_on(False)

    # ---- starting a run ------------------------------------------------------------------------

    def submit(
        self, exchange: Exchange | None, workflow: Workflow, variables: dict[str, str], wait: bool, late_ns: int = 0
    ) -> None:
        """A run request. The answer goes through `exchange.on_instance` and `on_error`; None: nobody asks."""
        self._seq += 1
        token = self._seq
        if exchange is not None:
            self._exchanges[token] = exchange
        first = "run_insert" if self.generation == 1 else "launch"
        delay = self.timing.row_insert if self.generation == 1 else self.timing.run_start
        self.after(delay, first, token, exchange is None, workflow.id, variables, wait, late_ns)

    def _lost(self, token: int, unattended: bool) -> Exchange | None:
        """The exchange if its client is still there."""
        exchange = self._exchanges.get(token)
        if unattended or (exchange is not None and not exchange.gone):
            return exchange
        self._exchanges.pop(token, None)
        raise _ClientGone

    def _run_insert(
        self, token: int, unattended: bool, workflow_id: str, variables: dict[str, str], wait: bool, late_ns: int
    ) -> None:
        try:
            exchange = self._lost(token, unattended)
        except _ClientGone:
            return
        try:
            self.check_database()
        except DatabaseAwayError as error:
            self._fail(token, exchange, str(error))
            return
        instance = self.add_instance(self.uuid(), workflow_id, variables, late_ns)
        self.after(self.timing.run_start, "run_start", token, unattended, instance.id, wait)

    def add_instance(self, instance_id: str, workflow_id: str, variables: dict[str, str], late_ns: int) -> Instance:
        """A row without a run."""
        visible = self.now + late_ns if late_ns else 0
        instance = Instance(instance_id, workflow_id, self.now, variables, visible)
        self.instances[instance_id] = instance
        self.store.touch(instance)
        return instance

    def _run_start(self, token: int, unattended: bool, instance_id: str, wait: bool) -> None:
        try:
            exchange = self._lost(token, unattended)
        except _ClientGone:
            return  # the row stays: a ghost
        if not self.up["engine"]:

            def go_on(back: bool) -> None:
                if back:
                    self.after(self.timing.resume, "run_start", token, unattended, instance_id, wait)
                else:
                    self._fail(token, exchange, DEADLINE)

            self.hold_for_engine(go_on)
            return
        self._started(self.instances[instance_id])
        self._answer_soon(token, exchange, instance_id, wait)

    def _launch(
        self, token: int, unattended: bool, workflow_id: str, variables: dict[str, str], wait: bool, late_ns: int
    ) -> None:
        try:
            exchange = self._lost(token, unattended)
        except _ClientGone:
            return
        if not self.up["engine"]:

            def go_on(back: bool) -> None:
                if back:
                    args = (token, unattended, workflow_id, variables, wait, late_ns)
                    self.after(self.timing.resume, "launch", *args)
                else:
                    self._fail(token, exchange, DEADLINE)

            self.hold_for_engine(go_on)
            return
        self.after(self.timing.initiate, "initiate", token, self.uuid(), workflow_id, variables, wait, late_ns)

    def _initiate(
        self, token: int, instance_id: str, workflow_id: str, variables: dict[str, str], wait: bool, late_ns: int
    ) -> None:
        self._started(self.add_instance(instance_id, workflow_id, variables, late_ns))
        exchange = self._exchanges.get(token)
        self._answer_soon(token, exchange, instance_id, wait)

    def _started(self, instance: Instance) -> None:
        instance.started = True
        self.store.touch(instance)
        self.record.started.append(
            {
                "instance_id": instance.id,
                "workflow_id": instance.workflow_id,
                "variables": dict(instance.variables),
                "at": self.now / SECOND,
            }
        )
        self.after(self.timing.first_stage, "begin", instance.id, 0)

    def _answer_soon(self, token: int, exchange: Exchange | None, instance_id: str, wait: bool) -> None:
        if exchange is None:
            return
        if wait and self.generation != 2:
            self._exchanges.pop(token, None)
            self._waiters.setdefault(instance_id, []).append(exchange)
        else:
            self.after(self.timing.run_answer, "answer", token, instance_id, wait)

    def _answer(self, token: int, instance_id: str, waited: bool) -> None:
        exchange = self._exchanges.pop(token, None)
        if exchange is not None and exchange.on_instance is not None:
            exchange.on_instance(self.instances[instance_id], waited)

    def _fail(self, token: int, exchange: Exchange | None, text: str) -> None:
        self._exchanges.pop(token, None)
        if exchange is not None and exchange.on_error is not None:
            exchange.on_error(text)

    # ---- stages ----------------------------------------------------------------------------------

    def _stages(self, instance: Instance) -> list[Any]:
        return self.workflows[instance.workflow_id].stages or []

    def _write(self) -> bool:
        """Whether a worker's write to the database comes through."""
        if not self.up["database"]:
            return False
        if self.stale_writes and self.generation == 1:
            self.stale_writes = 0
            return False
        return True

    def _begin(self, instance_id: str, number: int, twice: bool = False) -> None:
        instance = self.instances[instance_id]
        if number >= len(self._stages(instance)):
            self._end(instance, "")
            return
        if instance.cancelled and self.generation > 1:
            self._end(instance, "canceled")
            return
        if self._write():
            for _ in range(1 + twice):
                instance.rows.append(StageRow(number, self.now, self.uuid()))
            self.store.touch(instance)
        self.after(self.timing.launch, "launch_stage", instance_id, number)

    def _launch_stage(self, instance_id: str, number: int) -> None:
        instance = self.instances[instance_id]
        ((kind, raw),) = self._stages(instance)[number].items()
        try:
            if instance.cancelled:
                raise definitions.DefinitionError("canceled")
            resolved = definitions.resolve(kind, raw, instance.variables, self.generation)
            missing = definitions.requirements(kind, resolved, self.generation)
            if missing is not None:
                raise definitions.DefinitionError(missing)
        except definitions.DefinitionError as error:
            # The run takes the time at which it was woken for now, and that lies before the row's first instant.
            instant = self.now - int((self.timing.launch + self.timing.workflow_clock_lag) * SECOND)
            self._close_row(instance, number, str(error), instant)
            self._end(instance, str(error), instant)
            return
        run = StageRun(number, kind, definitions.shown_input(kind, resolved, self.generation), resolved, self.now)
        instance.runs[number] = run
        self.store.touch(instance)
        if kind == "delay":
            self._start_timer(instance, run)
        elif kind in ("send", "update"):
            try:
                run.steps = sending.plan(kind, resolved, self.generation)
            except sending.StageFailed as error:
                self._finish(instance, run, str(error), str(error))
                return
            self.after(self.timing.schedule_activity, "activity", instance_id, number)

    def _start_timer(self, instance: Instance, run: StageRun) -> None:
        duration, until = run.resolved["duration"], run.resolved["until"]
        length = duration if until is None else golang.parse_instant(until) - self.now
        if length <= 0:
            self.after(self.timing.timer, "timer", instance.id, run.number)
            return
        shortest = int(self.timing.shortest_delay * SECOND)
        extra = int(self.timing.timer * (1.0 + self.rng.random()) * SECOND)
        self.at(self.now + max(length, shortest) + extra, "timer", instance.id, run.number)

    def _open(self, instance_id: str, number: int) -> tuple[Instance, StageRun] | None:
        instance = self.instances[instance_id]
        run = instance.runs.get(number)
        if run is None or run.terminated_ns is not None:
            return None
        return instance, run

    def _timer(self, instance_id: str, number: int) -> None:
        found = self._open(instance_id, number)
        if found is not None:
            self._finish(*found, "", "")

    def _finish(self, instance: Instance, run: StageRun, shown: str, error: str) -> None:
        """The stage's work is over: `shown` stands in the history, `error` in the rows."""
        run.terminated_ns = self.now
        run.error = shown
        self.store.touch(instance)
        self.after(self.timing.close_stage, "stage_done", instance.id, run.number, error)

    def _stage_done(self, instance_id: str, number: int, error: str) -> None:
        instance = self.instances[instance_id]
        self._close_row(instance, number, error, self.now)
        if error:
            self._end(instance, error)
        elif number + 1 >= len(self._stages(instance)):
            self._end(instance, "")
        else:
            self.after(self.timing.next_stage, "begin", instance_id, number + 1)

    def _close_row(self, instance: Instance, number: int, error: str, instant_ns: int) -> None:
        row = next((r for r in instance.rows if r.stage == number), None)
        if row is not None and self._write():
            row.terminated_ns, row.error = instant_ns, error
            self.store.touch(instance)

    def _end(self, instance: Instance, error: str, instant_ns: int | None = None) -> None:
        instance.ended = True
        instance.end_error = error
        self.store.touch(instance)
        self.record.ended.append(
            {
                "instance_id": instance.id,
                "workflow_id": instance.workflow_id,
                "error": error or None,
                "at": self.now / SECOND,
            }
        )
        if self._write():
            instance.terminated_ns = self.now if instant_ns is None else instant_ns
            instance.error = error
            # A row that was written anew stands at the end of the table: lists have no order to rely on.
            self.instances[instance.id] = self.instances.pop(instance.id)
        for exchange in self._waiters.pop(instance.id, ()):
            if exchange.on_instance is not None:
                exchange.on_instance(instance, True)

    # ---- events and aborts -------------------------------------------------------------------------

    def signal(self, instance: Instance, name: str) -> None:
        """Deliver an event to the stage whose row is the last. SignalError."""
        number = max(row.stage for row in instance.rows)
        run = instance.runs.get(number)
        if run is None:
            raise SignalError(f"workflow not found for ID: {instance.id}-{number}")
        if run.terminated_ns is not None:
            raise SignalError(COMPLETED)
        if run.kind != "wait_event":
            self._heard(instance, number, name, False)
            return
        # An event wakes the stage up, or, if a wake-up is under way, waits for the next one.
        if run.waking:
            run.later.append(name)
        else:
            run.waking = True
            run.batch = [name]
            self.after(self.timing.wake, "wake", instance.id, number)
        self.store.touch(instance)

    def _wake(self, instance_id: str, number: int) -> None:
        found = self._open(instance_id, number)
        if found is None:
            return
        instance, run = found
        run.queue += run.batch
        wanted = run.resolved["event"]
        # Up to generation 2 a wake-up takes one event and leaves the others lying there, heard by nobody
        # until a further event wakes the stage again.
        takes = 1 if self.generation < 3 else len(run.queue)
        for _ in range(min(takes, len(run.queue))):
            name = run.queue.pop(0)
            self._heard(instance, number, name, name == wanted)
            if name == wanted:
                self._finish(instance, run, "", "")
                return
        run.batch, run.later = run.later, []
        run.waking = bool(run.batch)
        if run.waking:
            self.after(self.timing.wake, "wake", instance_id, number)
        self.store.touch(instance)

    def _heard(self, instance: Instance, number: int, name: str, released: bool) -> None:
        entry = {"instance_id": instance.id, "stage": number, "event": name, "at": self.now / SECOND}
        self.record.events.append({**entry, "released": released})
        if released:
            self.record.released.append(entry)

    def abort(self, instance: Instance) -> None:
        """Ask the run to end; it does so a moment later. SignalError."""
        suffix = "-main" if self.generation > 2 else ""
        if not instance.started:
            raise SignalError(f"workflow not found for ID: {instance.id}{suffix}")
        if self.generation == 2:
            # Addressed to the launcher, which is over: either way nothing happens to the run.
            if self.rng.random() < 0.5:
                raise SignalError(COMPLETED)
            return
        if instance.ended:
            if self.generation > 2:
                raise SignalError(COMPLETED)
            return
        self.record.aborts.append({"instance_id": instance.id, "at": self.now / SECOND})
        self.after(self.timing.cancel, "cancel", instance.id)

    def _cancel(self, instance_id: str) -> None:
        instance = self.instances[instance_id]
        if instance.ended or instance.cancelled:
            return
        instance.cancelled = True
        self.store.touch(instance)
        run = instance.runs.get(max(instance.runs, default=-1))
        if run is None or run.terminated_ns is not None:
            return
        for activity in run.activities:
            if activity.terminated_ns is None and not activity.running:
                activity.attempt, activity.last_failure, activity.next_ns = 1, "", None
        self._finish(instance, run, "canceled", "canceled")

    # ---- activities: the calls to the ledger ---------------------------------------------------------

    def _activity(self, instance_id: str, number: int) -> None:
        found = self._open(instance_id, number)
        if found is None:
            return
        instance, run = found
        if not run.steps:
            self._finish(instance, run, "", "")
            return
        step = run.steps.pop(0)
        run.activities.append(Activity(step["name"], step, self.now, next_ns=self.now))
        self.store.touch(instance)
        self._act_start(instance_id, number, len(run.activities) - 1, 1)

    def _act_start(self, instance_id: str, number: int, index: int, attempt: int) -> None:
        found = self._open(instance_id, number)
        if found is None:
            return
        activity = found[1].activities[index]
        if activity.terminated_ns is not None or activity.attempt != attempt:
            return
        activity.running = True
        self.store.touch(found[0])
        limit = self.now + int(self.timing.attempt_limit * SECOND)
        self.at(limit, "act_timeout", instance_id, number, index, attempt)
        self.after(self.timing.call, "act_call", instance_id, number, index, attempt)

    def _act_call(self, instance_id: str, number: int, index: int, attempt: int) -> None:
        """The call reaches the ledger: from here on it takes effect, whatever the engine thinks of the attempt."""
        if not self.up["ledger"]:
            self.stalled.append([instance_id, number, index, attempt])
            self.store.touch_meta()
            return
        activity = self.instances[instance_id].runs[number].activities[index]
        key = f"{instance_id}-{number}-{index}" if self.generation > 1 else None
        outcome: dict[str, Any]
        try:
            output, postings = sending.perform(activity.step, self.ledger, self.now, key)
            outcome = {"output": output}
        except Refused as refusal:
            postings = []
            outcome = {"code": refusal.code, "message": refusal.message}
        self.store.touch_meta()
        for posting in postings:
            ledger = posting.pop("ledger")
            self.record.money.append(
                {
                    "instance_id": instance_id,
                    "stage": number,
                    "ledger": ledger,
                    "posting": posting,
                    "attempt": attempt,
                    "at": self.now / SECOND,
                }
            )
        self.after(self.timing.call_back, "act_done", instance_id, number, index, attempt, outcome)

    def _pending(self, instance_id: str, number: int, index: int, attempt: int) -> Activity | None:
        found = self._open(instance_id, number)
        if found is None:
            return None
        activity = found[1].activities[index]
        if activity.terminated_ns is not None or activity.attempt != attempt or not activity.running:
            return None
        self.store.touch(found[0])
        return activity

    def _act_done(self, instance_id: str, number: int, index: int, attempt: int, outcome: dict[str, Any]) -> None:
        activity = self._pending(instance_id, number, index, attempt)
        if activity is None:
            return
        instance = self.instances[instance_id]
        run = instance.runs[number]
        if "code" in outcome and outcome["code"] not in FINAL_REFUSALS:
            self._again(instance_id, number, index, activity, outcome["message"])
            return
        activity.running, activity.terminated_ns = False, self.now
        activity.attempt, activity.last_failure, activity.next_ns = 1, "", None
        if "code" in outcome:
            activity.error = outcome["message"]
            self._finish(instance, run, "activity error", outcome["message"])
            return
        activity.output, activity.has_output = outcome["output"], outcome["output"] is not None
        try:
            run.steps += sending.follow(activity.step, outcome["output"], run.resolved, self.generation)
        except sending.StageFailed as error:
            self._finish(instance, run, str(error), str(error))
            return
        self.after(self.timing.schedule_activity, "activity", instance_id, number)

    def _act_timeout(self, instance_id: str, number: int, index: int, attempt: int) -> None:
        activity = self._pending(instance_id, number, index, attempt)
        if activity is not None:
            self._again(instance_id, number, index, activity, "activity StartToClose timeout")

    def _again(self, instance_id: str, number: int, index: int, activity: Activity, failure: str) -> None:
        pause = min(self.timing.first_retry * 2.0 ** min(activity.attempt - 1, 30), self.timing.longest_retry)
        activity.running = False
        activity.last_failure = failure
        activity.attempt += 1
        activity.next_ns = self.now + int(pause * SECOND)
        self.at(activity.next_ns, "act_start", instance_id, number, index, activity.attempt)


class _ClientGone(Exception):
    """The client of a run request disconnected."""

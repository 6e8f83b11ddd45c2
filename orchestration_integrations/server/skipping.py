"""Time that skips: where all that is left is waiting, the server's clock jumps to what comes next.

**Who waits.** Time moves for somebody who waits, never by itself:

- a wait of this package in the same process, between two looks at a run of this server (told by a `Waits`);
- a client that asks the same question for the third time while nothing has changed on the server: it polls. That is all
  that is seen of other processes, of sensors that poke, of other languages;
- a request for a run with `wait=true`, held until the run has ended.

**When that is all that is left.** No other request is under way, none that changes something came in the last moments,
and no wait of this process is awake: one that has something to see sees it before the next jump. So a run that was
started and is then cancelled, with nobody waiting in between, is cancelled at the instant at which it was started. A
client that polls after an abort looks whether that took effect: for a while it moves nothing.

**How far.** To the next thing that happens by itself: the end of a delay, the next attempt of a payment; and on through
what follows within a quarter of a second, such as the change of a stage. Nothing is left out, each step happens at its
own instant. An event that nobody sends is no such thing. A payment that fails is tried again for ever, so only its
first attempts are: after those, time does not move for its sake, or it would race away without an end.

**Time limits.** What is skipped counts against the limit of each wait of this process, so a wait of an hour ends before
a delay of a day does, as it would. Such a limit is reached only after some real seconds in which nothing but waiting
happened: somebody who is not seen here, a thread that is about to send the event, may need them. All other limits (of
an exchange, of a call, of a cancel; of other processes) are real time.

Nothing here reads a clock that a test may have frozen.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol

from .clock import MILLISECOND, SECOND, monotonic_ns
from .standing import where_it_stands

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Set

    from .core import Core
    from .exchange import Exchange, Request
    from .state import Instance

PATIENCE = 3.0
"""Real seconds of nothing but waiting, after which the time limits of waits pass too."""
MOST_ATTEMPTS = 20
"""Attempts of one payment for which time moves: some 20 minutes."""
_TICK = 0.003
_QUIET_NS = 20 * MILLISECOND
"""Since the last request that changes something."""
_AFTER_LIMIT_NS = SECOND
"""Since a limit was reached: whoever waited gives up, and may cancel its run, before time moves for others."""
_AFTER_ABORT_NS = 20 * SECOND
"""Since an abort was asked for; whoever polls then waits for its effect."""
_ASKED_OFTEN = 3
_SETTLED_NS = SECOND // 4
_MOST_STEPS = 10_000
_READS = frozenset({"get_instance", "get_instance_history", "get_stage_history", "list_instances"})
_OF_AN_OPEN_STAGE = frozenset({"timer", "activity", "act_start", "act_call", "act_done", "act_timeout"})

logger = logging.getLogger("orchestration_integrations.server")


class Waits(Protocol):
    """The waits of this process for some instances, at one moment."""

    @property
    def awake(self) -> int:
        """How many of them do not sleep."""
        ...

    @property
    def known(self) -> Set[str]:
        """The instances that one of them waits for."""
        ...

    @property
    def instances(self) -> Set[str]:
        """Those that one sleeps for."""
        ...

    @property
    def left(self) -> float | None:
        """The least seconds that one that sleeps has until its time limit."""
        ...

    def let_pass(self, seconds: float, changed: Iterable[str]) -> None:
        """So much time has passed for those that sleep, and these instances have changed."""
        ...


class NoWaits:
    """Where the waits of this process are not known."""

    awake = 0
    known: Set[str] = frozenset()
    instances: Set[str] = frozenset()
    left: float | None = None

    def __init__(self, instances: Set[str] = frozenset()) -> None:
        pass

    def let_pass(self, seconds: float, changed: Iterable[str]) -> None:
        """There is nobody to tell."""


class Polls:
    """Which questions are asked again and again while nothing changes. Used under the core's lock."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._asked: Counter[tuple[str, str]] = Counter()
        self._seen: dict[str, object] = {}
        self._at = (-1, 0)
        self._changes = 0
        self._not_before = 0
        self.changed_ns = 0
        """When the last request came that changes something, in real nanoseconds."""

    def hear(self, request: Request, exchange: Exchange) -> None:
        """A request came in."""
        if not exchange.operation:
            return
        if request.method != "GET":
            self._changes += 1
            self.changed_ns = monotonic_ns()
        if exchange.operation == "abort_instance":
            self._not_before = monotonic_ns() + _AFTER_ABORT_NS
        elif exchange.operation in _READS:
            self._note_sight(request.path.rsplit("/", 1)[-1])
            self._forget_what_is_old()
            self._asked[request.path, request.query] += 1

    def _note_sight(self, name: str) -> None:
        instance = self._core.engine.instances.get(name)
        if instance is not None:
            self._seen[name] = _face(instance, self._core.engine.now)

    def unseen(self, instances: Iterable[str]) -> list[str]:
        """Those that have changed since they were last read by their id."""
        now, known = self._core.engine.now, self._core.engine.instances
        return [one for one in instances if one in self._seen and self._seen[one] != _face(known[one], now)]

    def _forget_what_is_old(self) -> None:
        now = (self._core.engine.agenda.done, self._changes)
        if now != self._at:
            self._at = now
            self._asked.clear()

    def somebody_polls(self) -> bool:
        """Whether somebody waits by asking."""
        self._forget_what_is_old()
        return monotonic_ns() >= self._not_before and any(often >= _ASKED_OFTEN for often in self._asked.values())


class Skipping:
    """Moves the clock of one server while all that is left is waiting; in a thread of its own.

    Args:
        core: the server.
        waits_for: tells of the waits of this process for instances; by default none is known.
        patience: real seconds of nothing but waiting after which time limits of waits pass.
    """

    def __init__(
        self, core: Core, waits_for: Callable[[Set[str]], Waits] = NoWaits, patience: float = PATIENCE
    ) -> None:
        self.waits_for = waits_for
        self.patience = patience
        self._core = core
        self._polls = Polls(core)
        self._known: tuple[object, ...] = ()
        self._idle_ns = self._not_before = monotonic_ns()
        self._told = False
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; again is harmless."""
        if self._thread is None:
            self._end.clear()
            self._core.hears.append(self._polls.hear)
            self._thread = threading.Thread(target=self._run, name="orchestration-time", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Time goes on as usual; again is harmless."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._core.hears.remove(self._polls.hear)
            self._end.set()
            if thread is not threading.current_thread():
                thread.join(5)

    def _run(self) -> None:
        while not self._end.wait(_TICK):
            try:
                self.look()
            except Exception:
                logger.exception("the server's time no longer skips")
                return

    def look(self) -> None:
        """Jump if all that is left is waiting."""
        core = self._core
        with core.lock:
            core.pump()
            waits = self.waits_for(core.engine.instances.keys())
            real = monotonic_ns()
            self._note_what_happens(waits, real)
            if not self._only_waiting(waits, real):
                return
            unseen = self._polls.unseen(waits.instances)
            if unseen:
                waits.let_pass(0.0, unseen)
                return
            now = core.clock.now_ns()
            due = self._next_step(waits, now)
            limit = None if waits.left is None else now + int(max(waits.left, 0.0) * SECOND) + MILLISECOND
            if limit is not None and (due is None or limit < due):
                if real - self._idle_ns >= self.patience * SECOND:
                    self._jump(waits, limit, limit)
                    self._not_before = real + _AFTER_LIMIT_NS
            elif due is not None:
                self._jump(waits, due, limit)
            elif real - self._idle_ns >= self.patience * SECOND:
                self._tell_that_it_stands(waits)

    def _note_what_happens(self, waits: Waits, real: int) -> None:
        known = (self._polls.changed_ns, self._core.engine.agenda.done, waits.known)
        if known != self._known:
            self._known = known
            self._idle_ns = real
            self._told = False

    def _only_waiting(self, waits: Waits, real: int) -> bool:
        core, waiters = self._core, self._core.engine.starting.waiters
        if waits.awake or len(core.held) > waiters or real < self._not_before:
            return False
        if real - self._polls.changed_ns < _QUIET_NS:
            return False
        return bool(waits.instances or waiters or self._polls.somebody_polls())

    def _next_step(self, waits: Waits, now: int) -> int | None:
        """When something happens next by itself that time moves for."""
        engine = self._core.engine
        dues = [engine.agenda.next_of(self._counts)]
        dues += [one.visible_ns for name in waits.instances if (one := engine.instances[name]).visible_ns > now]
        return min((due for due in dues if due is not None), default=None)

    def _counts(self, kind: str, args: list[Any]) -> bool:
        if kind == "deadline":  # of a request, which is under way
            return False
        if kind not in _OF_AN_OPEN_STAGE:
            return True
        found = self._core.engine.memory.open_run(args[0], args[1])
        if found is None:
            return False
        if not kind.startswith("act_"):
            return True
        activity = found[1].activities[args[2]]
        if activity.terminated_ns is not None or activity.attempt != args[3]:
            return False
        return bool(activity.attempt <= MOST_ATTEMPTS)

    def _jump(self, waits: Waits, target: int, limit: int | None) -> None:
        core = self._core
        instances = core.engine.instances
        begun = core.clock.now_ns()
        before = {name: _face(instances[name], begun) for name in waits.instances}
        moved = 0
        for _ in range(_MOST_STEPS):
            step = max(0, target - core.clock.now_ns())
            core.move_ns(step)
            moved += step
            now = core.clock.now_ns()
            following = self._next_step(waits, now)
            if following is None or following > now + _SETTLED_NS or (limit is not None and following > limit):
                break
            target = following
        changed = [name for name, face in before.items() if _face(instances[name], now) != face]
        waits.let_pass(moved / SECOND, changed)
        self._idle_ns = monotonic_ns()

    def _tell_that_it_stands(self, waits: Waits) -> None:
        if self._told or not waits.instances:
            return
        self._told = True
        instances = self._core.engine.instances
        names = sorted(waits.instances)[:5]
        stands = "; ".join(f"run {name} {where_it_stands(instances[name])}" for name in names)
        logger.warning("time stands still: nothing on the server happens by itself. %s", stands)


def _face(instance: Instance, now: int) -> tuple[Any, ...]:
    """What of an instance a wait can see."""
    run = instance.runs.get(max(instance.runs, default=-1))
    rows = [(row.stage, row.terminated_ns) for row in instance.rows]
    if run is None:
        return (instance.visible_ns > now, instance.terminated_ns, rows)
    attempts = [(activity.attempt, activity.terminated_ns) for activity in run.activities]
    return (instance.visible_ns > now, instance.terminated_ns, rows, run.number, run.terminated_ns, attempts)

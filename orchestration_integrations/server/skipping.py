"""Time that skips: where all that is left is waiting, the server's clock jumps to what comes next.

**The rule.** Time moves only while somebody is seen to wait and nobody is seen to do anything else; it moves to the
next thing that happens by itself, and no further; and what it moves counts against each wait that it moves for.

**Somebody waits.** Never does time move by itself. A wait is one of these:

- a known one: of this package, in this process, asleep between two looks at a run of this server (see
  `same_process`). Waits for one run or many, triggers, tasks, Airflow's sensors and the delivery of an event are known;
- a client that polls, another process or another language (see `sights`);
- a request for a run with `wait=true`, held until the run has ended.

**Nobody does anything else.** Time stands while a request is under way, from its arrival until the last byte of its
answer; for a moment after one that changes something; while a known wait is awake, or cannot read its run; and while
one has not yet seen what its run has become: that one is woken, and looks first. So a run that was started and is then
cancelled, with nobody waiting in between, is cancelled at the instant at which it was started. And whoever asks for an
abort wants to see whether that takes effect: for 20 s time moves to nothing that would happen to that run, whoever
waits for it, unless it has ended.

**The next thing.** The end of a delay, the next attempt of a payment; and on through what follows within a quarter of
a second, such as the change of a stage. Nothing is left out, each step happens at its own instant. An event that nobody
sends is no such thing. A payment that fails is tried again for ever, so only its first attempts are: after those, time
does not move for its sake, or it would race away without an end.

**What it moves counts.** A wait of an hour ends before a delay of a day does, as it would. Such a limit is reached only
after some real seconds in which nothing but waiting happened: somebody who is not seen here, a thread that is about to
send the event, may need them. All other limits (of an exchange, of a call, of a cancel; of other processes) are real
time, and what keeps them in this process moves nothing: a hook that reads outside a wait does not wait.

**And if it cannot go on,** each further request is refused with the reason, and `stop` raises it: a test whose time
stands for that may wait for ever, or prove nothing.

Nothing here reads a clock that a test may have frozen.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from .clock import MILLISECOND, SECOND, monotonic_ns
from .same_process import Waits, waits_here
from .sights import Sights
from .standing import where_it_stands

if TYPE_CHECKING:
    from collections.abc import Callable, Set

    from .core import Core

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
"""Since an abort was asked for; whoever looks then waits for its effect."""
_SETTLED_NS = SECOND // 4
_MOST_STEPS = 10_000
_OF_AN_OPEN_STAGE = frozenset({"timer", "activity", "act_start", "act_call", "act_done", "act_timeout"})

logger = logging.getLogger("orchestration_integrations.server")


class Skipping:
    """Moves the clock of one server while all that is left is waiting; in a thread of its own.

    Args:
        core: the server.
        waits_for: tells of the waits of this process for instances.
    """

    def __init__(self, core: Core, waits_for: Callable[[Set[str]], Waits] = waits_here) -> None:
        self._waits_for = waits_for
        self._patience = PATIENCE
        self._core = core
        self._sights = Sights(core, waits_for)
        self._known: tuple[object, ...] = ()
        self._idle_ns = self._not_before = monotonic_ns()
        self._told = False
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def patience(self) -> float:
        """Real seconds of nothing but waiting after which the time limits of waits pass; 3."""
        return self._patience

    @patience.setter
    def patience(self, seconds: float) -> None:
        self._patience = checked_patience(seconds)

    def start(self) -> None:
        """Begin; again is harmless."""
        if self._thread is None:
            self._end.clear()
            self._core.hears.append(self._sights.hear)
            self._core.overs.append(self._sights.over)
            self._thread = threading.Thread(target=self._run, name="orchestration-time", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Time goes on as usual; again is harmless."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._core.hears.remove(self._sights.hear)
            self._core.overs.remove(self._sights.over)
            self._end.set()
            if thread is not threading.current_thread():
                thread.join(5)

    def _run(self) -> None:
        while not self._end.wait(_TICK):
            try:
                self.look()
            except Exception as error:
                logger.exception("the server's time no longer skips")
                self._core.fail(f"the server's time no longer skips: {error!r}", error)
                return

    def look(self) -> None:
        """Jump if all that is left is waiting."""
        core = self._core
        with core.lock:
            core.pump()
            waits = self._waits_for(core.engine.instances.keys())
            real = monotonic_ns()
            self._note_what_happens(waits, real)
            if not self._only_waiting(waits, real):
                return
            unseen = self._sights.unseen(waits.instances)
            if unseen:
                waits.let_pass(0.0, unseen)
                return
            now = core.clock.now_ns()
            due = self._next_step(waits, now)
            limit = None if waits.left is None else now + int(max(waits.left, 0.0) * SECOND) + MILLISECOND
            stop = self._next_of_aborted(real)
            target = min((one for one in (due, limit) if one is not None), default=None)
            is_patient = real - self._idle_ns < self.patience * SECOND
            if target is None:
                if not is_patient:
                    self._tell_that_it_stands(waits)
            elif stop is not None and target >= stop:
                return
            elif target == due:
                self._jump(waits, target, min((one for one in (limit, stop) if one is not None), default=None))
            elif not is_patient:
                self._jump(waits, target, target)
                self._not_before = real + _AFTER_LIMIT_NS

    def _note_what_happens(self, waits: Waits, real: int) -> None:
        known = (self._sights.changed_ns, self._core.engine.agenda.done, waits.known)
        if known != self._known:
            self._known = known
            self._idle_ns = real
            self._told = False

    def _only_waiting(self, waits: Waits, real: int) -> bool:
        core, waiters = self._core, self._core.engine.starting.waiters
        if waits.awake or core.under_way > waiters or real < self._not_before:
            return False
        if real - self._sights.changed_ns < _QUIET_NS:
            return False
        return bool(waits.instances or waiters or self._sights.somebody_polls())

    def _next_step(self, waits: Waits, now: int) -> int | None:
        """When something happens next by itself that time moves for."""
        engine = self._core.engine
        dues = [engine.agenda.next_of(self._counts)]
        dues += [one.visible_ns for name in waits.instances if (one := engine.instances[name]).visible_ns > now]
        return min((due for due in dues if due is not None), default=None)

    def _next_of_aborted(self, real: int) -> int | None:
        """When something happens next to a run that somebody wants to see aborted."""
        aborted = self._sights.aborted_since(real - _AFTER_ABORT_NS)
        if not aborted:
            return None
        return self._core.engine.agenda.next_of(lambda kind, args: bool(args) and args[0] in aborted)

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
        core, face = self._core, self._sights.face
        before = {name: face(name) for name in waits.instances}
        moved = 0
        for _ in range(_MOST_STEPS):
            step = max(0, target - core.clock.now_ns())
            core.move_ns(step)
            moved += step
            now = core.clock.now_ns()
            following = self._next_step(waits, now)
            if following is None or following > now + _SETTLED_NS or (limit is not None and following >= limit):
                break
            target = following
        changed = [name for name, was in before.items() if face(name) != was]
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


def checked_patience(seconds: object) -> float:
    """What may be given as patience. ValueError: it is no number of seconds from 0."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds >= 0:
        raise ValueError(f"patience must be a number of seconds from 0, not {seconds!r}")
    return float(seconds)

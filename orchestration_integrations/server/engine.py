"""The workflow engine as a discrete-event simulation: no thread, no socket, no waiting.

An agenda holds what is to happen, each step an instant, a kind and plain arguments. `pump(now)` does
everything that is due up to `now`, in the order of time, and each step happens *at its own instant*
however late the pump comes. So the engine needs nobody to drive it: whoever asks it something pumps
first and finds what would have happened by then. Moving the clock by a week costs as much as the
steps that fall into that week.

The real server is three things that fail apart, and so is this one:

- the **engine** keeps the truth (`StageRun`, timers, retries) and forgets nothing; while it is away nothing goes on;
- the **workers** do the steps; while they are away, steps wait (they are parked, then done in order);
- the **database** holds rows that the workers write about the truth. Generation 1 loses a write while it is away;
  later generations wait and write again.

Behind them are the **services** that activities call, the ledger, the wallets and the payments: a stopped one stalls,
and what had reached it takes effect when it comes back.

What the steps do stands in four modules, each of which schedules the others' steps by name: `starting` (a request
becomes a run), `stages` (rows and work), `signals` (events and aborts), `activities` (calls to services). `parts`
says what can be done at all. This module holds the table of steps and nothing else of its own.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from .activities import Activities
from .agenda import Agenda
from .clock import Clock
from .memory import Memory
from .parts import Parts
from .record import Record
from .signals import Signals
from .stages import Stages
from .starting import Starting

if TYPE_CHECKING:
    from collections.abc import Callable

    from .ledger import Ledger
    from .state import Instance, Workflow
    from .store import Entry, Store
    from .timing import Timing


class Engine:
    """The engine of one server. Not thread-safe: its owner holds a lock.

    Attributes:
        memory: what the server knows.
        parts: which of its parts are there.
        starting, signals: what a request can ask for.
    """

    def __init__(
        self, generation: int, clock: Clock, timing: Timing, store: Store, record: Record, rng: random.Random
    ) -> None:
        self.generation = generation
        self.agenda = Agenda(clock, timing, store, rng)
        self.memory = Memory(generation, store, record)
        self.parts = Parts(generation, self.agenda, store)
        self.starting = Starting(self.agenda, self.memory, self.parts)
        stages = Stages(self.agenda, self.memory, self.parts, self.starting.has_ended)
        self.signals = Signals(self.agenda, self.memory, stages)
        activities = Activities(self.agenda, self.memory, self.parts, stages)
        self._steps: dict[str, Callable[..., None]] = {
            "run_insert": self.starting.run_insert,
            "run_start": self.starting.run_start,
            "launch": self.starting.launch,
            "initiate": self.starting.initiate,
            "answer": self.starting.answer,
            "deadline": self.parts.deadline,
            "begin": stages.begin,
            "launch_stage": stages.launch,
            "timer": stages.timer,
            "stage_done": stages.done,
            "wake": self.signals.wake,
            "release": self.signals.release,
            "cancel": self.signals.cancel,
            "activity": activities.begin_next,
            "act_start": activities.start,
            "act_call": activities.call,
            "act_done": activities.done,
            "act_timeout": activities.time_out,
        }

    def add_step(self, kind: str, perform: Callable[..., None]) -> None:
        """Have steps of a further kind performed."""
        self._steps[kind] = perform

    @property
    def now(self) -> int:
        """The instant up to which everything has happened, in nanoseconds since 1970."""
        return self.agenda.now

    @property
    def workflows(self) -> dict[str, Workflow]:
        """All workflows, by id."""
        return self.memory.workflows

    @property
    def instances(self) -> dict[str, Instance]:
        """All instances, by id."""
        return self.memory.instances

    @property
    def ledger(self) -> Ledger:
        """The ledger behind the server."""
        return self.memory.ledger

    def next_due(self) -> int | None:
        """When the next step is due; None: nothing will happen by itself."""
        return self.agenda.next_due()

    def pump(self, now_ns: int) -> bool:
        """Do all that is due up to `now_ns`. Returns whether there was anything."""
        worked = False
        while (step := self.agenda.take(now_ns)) is not None:
            worked = True
            kind, args = step
            if self.parts.can_do(kind):
                self._steps[kind](*args)
            else:
                self.parts.park(kind, args)
        return worked

    def restore(self, entries: list[Entry]) -> None:
        """Take pending steps back in after a restart."""
        self.agenda.restore(entries)

    def visible_instance(self, instance_id: str) -> Instance | None:
        """An instance whose row can be read by now."""
        instance = self.instances.get(instance_id)
        return None if instance is None or instance.visible_ns > self.now else instance

"""What clients have seen, and who waits by asking: both from requests whose answers went out whole.

**A sight.** An instance was seen as it was when it was read by its id and the answer, a good one, went out to its last
byte. What was never read so is unseen.

**Polling.** Somebody asks the same question for the third time, at least 0.3 s after the first, nothing has changed on
the server since, and between the times are pauses of about the same length. An answer that failed is no answer:
whoever asks again after it asks the first question still. And it ends: who has not asked again within a few of its own
pauses waits no more. A hook of this process is no such client: what it waits for is known (see `same_process`), and
whatever else it reads, it does not wait for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .clock import MILLISECOND, SECOND, monotonic_ns
from .same_process import is_of_a_hook_here

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Set

    from .core import Core
    from .exchange import Exchange, Request
    from .same_process import Waits
    from .state import Instance

_READS = frozenset({"get_instance", "get_instance_history", "get_stage_history", "list_instances"})
_ASKED_OFTEN = 3
_ASKED_FOR_NS = 300 * MILLISECOND
"""Or three questions of one test in a row would be polling."""
_LEAST_PAUSE_NS = 10 * MILLISECOND
_ALIKE = 4
"""Of two pauses of one who polls, the longer is so many times the shorter at most."""
_PAUSES_UNTIL_GONE = 3
_LEAST_UNTIL_GONE_NS = SECOND


class _Asked:
    """How often a question was asked, in real nanoseconds."""

    __slots__ = ("at", "pause", "since", "times")

    def __init__(self, at: int) -> None:
        self.at = self.since = at
        self.pause = 0
        self.times = 1

    def again(self, begun: int, ended: int) -> None:
        earlier, pause, gone_at = self.at, begun - self.at, self.gone_at
        self.at = ended
        if begun > gone_at and self.times > 1:
            self.times, self.pause, self.since = 1, 0, ended
        elif pause < _LEAST_PAUSE_NS:
            return
        elif self.times > 1 and not self.pause <= pause * _ALIKE <= self.pause * _ALIKE * _ALIKE:
            self.times, self.pause, self.since = 2, pause, earlier
        else:
            self.times, self.pause = self.times + 1, pause

    @property
    def polls(self) -> bool:
        return self.times >= _ASKED_OFTEN and self.at - self.since >= _ASKED_FOR_NS

    @property
    def gone_at(self) -> int:
        return self.at + max(_LEAST_UNTIL_GONE_NS, _PAUSES_UNTIL_GONE * self.pause)


class Sights:
    """Hears of each request as it comes, and of each exchange as it ends. Used under the core's lock.

    Args:
        core: the server.
        waits_for: the waits of this process for some instances.
    """

    def __init__(self, core: Core, waits_for: Callable[[Set[str]], Waits]) -> None:
        self._core = core
        self._waits_for = waits_for
        self._asked: dict[tuple[str, str], _Asked] = {}
        self._reads: dict[Exchange, tuple[tuple[str, str] | None, int, tuple[int, int]]] = {}
        self._looks: dict[Exchange, tuple[str, object]] = {}
        self._seen: dict[str, object] = {}
        self._at = (-1, 0)
        self._changes = 0
        self._aborts: dict[str, int] = {}
        self.changed_ns = 0
        """When the last request came that changes something, in real nanoseconds."""

    def hear(self, request: Request, exchange: Exchange) -> None:
        """A request came in."""
        if not exchange.operation:
            return
        now = monotonic_ns()
        if request.method != "GET":
            self._changes += 1
            self.changed_ns = now
        if exchange.operation == "abort_instance":
            self._aborts[request.path.split("/")[-2]] = now
        elif exchange.operation in _READS:
            question = None if self._is_of_this_process(request) else (request.path, request.query)
            self._reads[exchange] = (question, now, self._state())
            name = request.path.rsplit("/", 1)[-1]
            if name in self._core.engine.instances:
                self._looks[exchange] = (name, self.face(name))

    def over(self, exchange: Exchange) -> None:
        """An exchange has ended, in whatever way."""
        look, read = self._looks.pop(exchange, None), self._reads.pop(exchange, None)
        if not exchange.whole or exchange.reply is None or not 200 <= exchange.reply.status < 300:
            return
        if look is not None:
            self._seen[look[0]] = look[1]
        if read is not None and read[0] is not None and read[2] == self._state():
            self._forget_what_is_old()
            self._note_question(read[0], read[1])

    def _is_of_this_process(self, request: Request) -> bool:
        if is_of_a_hook_here(request.client):
            return True
        named = {part for part in request.path.split("/") if part in self._core.engine.instances}
        return bool(named) and bool(self._waits_for(named).known)

    def _note_question(self, question: tuple[str, str], begun: int) -> None:
        known = self._asked.get(question)
        if known is None:
            self._asked[question] = _Asked(monotonic_ns())
        else:
            known.again(begun, monotonic_ns())

    def face(self, name: str) -> tuple[Any, ...]:
        """What of an instance a wait can see now."""
        return _face(self._core.engine.instances[name], self._core.clock.now_ns())

    def unseen(self, instances: Iterable[str]) -> list[str]:
        """Those that look otherwise than when they were last seen, or were never seen, and can be."""
        now, known = self._core.clock.now_ns(), self._core.engine.instances
        return [one for one in instances if known[one].visible_ns <= now and self._seen.get(one) != self.face(one)]

    def _state(self) -> tuple[int, int]:
        return (self._core.engine.agenda.done, self._changes)

    def _forget_what_is_old(self) -> None:
        now = self._state()
        if now != self._at:
            self._at = now
            self._asked.clear()

    def somebody_polls(self) -> bool:
        """Whether somebody waits by asking."""
        self._forget_what_is_old()
        now = monotonic_ns()
        return any(one.polls and now < one.gone_at for one in self._asked.values())

    def aborted_since(self, instant: int) -> set[str]:
        """The instances that an abort was asked for since a real instant, and that have not ended."""
        known = self._core.engine.instances
        self._aborts = {
            name: at
            for name, at in self._aborts.items()
            if at > instant and name in known and known[name].terminated_ns is None
        }
        return set(self._aborts)


def _face(instance: Instance, now: int) -> tuple[Any, ...]:
    run = instance.runs.get(max(instance.runs, default=-1))
    rows = [(row.stage, row.terminated_ns) for row in instance.rows]
    if run is None:
        return (instance.visible_ns > now, instance.terminated_ns, rows)
    attempts = [(activity.attempt, activity.terminated_ns) for activity in run.activities]
    return (instance.visible_ns > now, instance.terminated_ns, rows, run.number, run.terminated_ns, attempts)

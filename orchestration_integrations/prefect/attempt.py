"""Which attempt of which payment a call is: facts, keys, numbers. No Prefect in here, and no I/O.

What Prefect shows of a call changes with every retry: a task run has another id after a retry of its flow, a nested
task after a retry of the task that calls it, a subflow that is called from a task has a new run each time. What stays
is the outermost flow run (outside a flow: the outermost task run), and below it the names of the subflows. So a key is
made of these and of the step that the caller names; a call without a name is told by its content and a number, since
equal calls are interchangeable.

An attempt is a *path*: all flow runs and task runs that enclose the call, each with its ``run_count``. Two paths tell
how two calls relate: where they differ first in a ``run_count``, whatever has it was retried, and the later call comes
*again*; where they differ first in an id, the calls stand *beside* each other in one attempt of what encloses both,
and a key can belong to one of them only.
"""

from __future__ import annotations

import hashlib
import json
import threading
import uuid
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..ownership.keys import structured_key
from ..ownership.record import RunRecord

PROCESS = uuid.uuid4().hex
"""Names this process: that a caller raised is known in its own process only."""
_REMEMBERED = 1000
"""Outermost runs whose numbers are remembered; the oldest are forgotten first."""


@dataclass(frozen=True)
class Enclosure:
    """A flow run or a task run around a call.

    Attributes:
        id: of the run.
        run_count: its attempts so far.
        is_flow: it is a flow run.
        name: of a subflow whose steps are its own: what stays of it over the retries of what calls it. Else empty.
        began: when this execution of a flow run began, as text: a flow run that is suspended and resumed is executed
            anew without being counted. Empty where that cannot be seen.
        resumed: it was executed before.
    """

    id: str
    run_count: int
    is_flow: bool = False
    name: str = ""
    began: str = ""
    resumed: bool = False

    @property
    def attempt(self) -> tuple[int, str]:
        """Tells its executions apart; a later one is greater."""
        return self.run_count, self.began


Relation = Literal["same", "again", "beside", "apart"]


@dataclass(frozen=True)
class AttemptFacts:
    """Where a call stands.

    Attributes:
        path: what encloses the call, the outermost first; at least one.
        process: names the process.
        whole: the call is all that the innermost task run does, so a second call of that attempt is this one, executed
            anew: Dask does so where a worker died, and Prefect counts no attempt for it.
    """

    path: tuple[Enclosure, ...]
    process: str = PROCESS
    whole: bool = False

    @property
    def root(self) -> str:
        """The run that outlives every retry."""
        return self.path[0].id

    @property
    def flow_runs(self) -> tuple[Enclosure, ...]:
        """The flow runs around the call, the outermost first."""
        return tuple(one for one in self.path if one.is_flow)

    @property
    def name(self) -> str:
        """Names the attempt."""
        return " ".join(f"{one.id}:{one.run_count}:{one.began}" for one in self.path)

    @property
    def later(self) -> bool:
        """Whether an earlier attempt may have done something."""
        return any(one.run_count > 1 or one.resumed for one in self.path)

    def key(self, *parts: object) -> str:
        """The key of what these parts name."""
        return structured_key(self.root, *[f"flow:{one.name}" for one in self.path if one.name], *parts)

    def on_record(self, call: str = "") -> dict[str, Any]:
        """For the record of a key. ``call``: what an unnamed call is told by, but for its variables."""
        return {
            "path": [[one.id, one.run_count, one.began] for one in self.path],
            "flow_run_id": self.root if self.path[0].is_flow else "",
            "process": self.process,
            "call": call,
        }

    def relation(self, recorded: Mapping[str, Any]) -> Relation:
        """How this call relates to the one whose facts are on record: ``apart`` where nothing encloses both."""
        path = recorded.get("path")
        if not isinstance(path, list) or not path or path[0][0] != self.root:
            return "apart"
        for (their_id, *their_attempt), mine in zip(path, self.path):  # noqa: B905  # the shorter one decides
            if their_id != mine.id:
                return "beside"
            if tuple(their_attempt) != mine.attempt:
                return "again"
        return "same" if len(path) == len(self.path) else "beside"

    def is_overtaken_by(self, record: RunRecord) -> bool:
        """Whether a later attempt of what encloses this one has the key."""
        if self.relation(record.facts) != "again":
            return False
        theirs = {their_id: tuple(attempt) for their_id, *attempt in record.facts["path"]}
        return any(one.id in theirs and theirs[one.id] > one.attempt for one in self.path)

    def is_rival(self, record: RunRecord) -> bool:
        """Whether a call beside this one has the key: it got its answer, or runs in another process.

        A call of this process that raised before an end was known has let the key go.
        """
        relation = self.relation(record.facts)
        if relation not in ("same", "beside") or (relation == "same" and self.whole):
            return False
        return record.returned or record.facts.get("process") != self.process


# ---- the owner ----------------------------------------------------------------------------------------

OwnerSays = Literal["yes", "unwanted", "superseded"]
_OVER = ("CANCELLING", "CANCELLED", "CRASHED", "FAILED")
_AGAIN = ("SCHEDULED", "PENDING")


@dataclass(frozen=True)
class FlowState:
    """A flow run as Prefect's API shows it now: type of its state, ``run_count``, name of the state for messages."""

    type: str
    run_count: int
    name: str = ""


def owner_says(flow_runs: Sequence[Enclosure], now: Sequence[FlowState | None], *, left: bool) -> OwnerSays:
    """Whether an attempt still wants its run.

    Args:
        flow_runs: around the call, as they were when the attempt began, the outermost first.
        now: the same flow runs as they are; None for one that was deleted.
        left: this process has left the innermost flow's code, so that only its submitted tasks still run.
    """
    for number, (was, state) in enumerate(zip(flow_runs, now, strict=True)):
        if state is None:
            return "unwanted"
        if state.run_count > was.run_count or state.type in _AGAIN:
            return "superseded"  # another attempt is at work, or will be
        if state.type in _OVER:
            return "unwanted"
        if left and number == len(flow_runs) - 1:
            if state.type == "PAUSED":
                return "superseded"  # suspended: it comes back to its run
            if state.type == "RUNNING":
                return "unwanted"  # interrupted: only then is the code left before an end is known
    return "yes"


# ---- keys ---------------------------------------------------------------------------------------------


@dataclass
class _Node:
    """What calls within one run have got.

    Attributes:
        numbers: in the order in which they were first given.
        taken: by attempt of the run: those that its calls have or had.
    """

    numbers: list[int] = field(default_factory=list)
    taken: dict[tuple[int, str], set[int]] = field(default_factory=dict)


@dataclass
class _Numbers:
    """The numbers of equal unnamed calls: by run that encloses them, and who has each."""

    nodes: dict[str, _Node] = field(default_factory=dict)
    holders: dict[int, frozenset[str]] = field(default_factory=dict)
    given: int = 0

    def give(self, path: Sequence[Enclosure], *, whole: bool) -> int:
        number = self._executed(path[-1]) if whole else None
        if number is None:
            number = self._known(path)
        if number is None:
            number = self.given
            self.given += 1
        for one in path:
            node = self.nodes.setdefault(one.id, _Node())
            if number not in node.numbers:
                node.numbers.append(number)
            node.taken.setdefault(one.attempt, set()).add(number)
        self.holders[number] = frozenset(one.id for one in path)
        return number

    def _executed(self, task: Enclosure) -> int | None:
        """The number of a task run's only call, where this process has executed that attempt before."""
        node = self.nodes.get(task.id)
        return next(iter(node.taken.get(task.attempt, ())), None) if node is not None else None

    def _known(self, path: Sequence[Enclosure]) -> int | None:
        """The first number that the innermost retried run had and this attempt of it has not taken yet."""
        for one in reversed(path):
            node = self.nodes.get(one.id)
            if node is None:
                continue
            taken = node.taken.get(one.attempt, set())
            for number in node.numbers:
                holder = self.holders.get(number)
                if number not in taken and (holder is None or one.id in holder):
                    return number
        return None

    def take_back(self, number: int, path: Sequence[Enclosure]) -> None:
        for one in path:
            self.nodes[one.id].taken[one.attempt].discard(number)
        self.holders.pop(number, None)


@dataclass
class Claim:
    """The key that a call was given, with what tells an unnamed call but for its variables."""

    key: str
    call: str = ""
    _numbers: _Numbers | None = None
    _number: int = 0
    _path: tuple[Enclosure, ...] = ()

    def give_back(self) -> None:
        """After the call raised without an end: the next equal call takes it up. May be called twice."""
        with _lock:
            numbers, self._numbers = self._numbers, None
            if numbers is not None:
                numbers.take_back(self._number, self._path)


@dataclass
class _Given:
    """What this process has given out under one outermost run: numbers by what is counted, callers by key."""

    numbers: dict[str, _Numbers] = field(default_factory=dict)
    callers: dict[str, Mapping[str, Any]] = field(default_factory=dict)


_given: OrderedDict[str, _Given] = OrderedDict()
_lock = threading.Lock()


def claim_step(facts: AttemptFacts, step: str) -> Claim:
    """The key of a named step."""
    return Claim(facts.key(f"step:{step}"))


def claim_call(facts: AttemptFacts, workflow: str | Mapping[str, Any], texts: Mapping[str, str]) -> Claim:
    """The key of a call without a name: the n-th equal call has number n.

    A retry of whatever encloses the call comes back to the number that the call had; a number that was given back is
    the next one given.
    """
    call = f"call:{content_digest(workflow, {})}"
    what = content_digest(workflow, texts)
    with _lock:
        given = _given.setdefault(facts.root, _Given())
        _given.move_to_end(facts.root)
        while len(_given) > _REMEMBERED:
            _given.popitem(last=False)
        numbers = given.numbers.setdefault(facts.key(call, what), _Numbers())
        number = numbers.give(facts.path, whole=facts.whole)
        key = facts.key(call, what, number)
        given.callers[key] = facts.on_record()
    return Claim(key, facts.key(call), numbers, number, facts.path)


def content_digest(workflow: str | Mapping[str, Any], texts: Mapping[str, str]) -> str:
    """Tells calls of other content apart."""
    text = json.dumps([workflow, sorted(texts.items())], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def not_come_back_to(facts: AttemptFacts, claim: Claim, records: Iterable[RunRecord]) -> list[RunRecord]:
    """Unnamed calls of earlier attempts that this attempt has not come back to, and that the call may be.

    A call whose key is not on record may be one of the same workflow with other variables; and where no earlier call
    had its workflow, one whose definition was edited. Nobody can tell.

    Args:
        facts: of this attempt.
        claim: of the call.
        records: of the outermost run.
    """
    with _lock:
        callers = dict(_given.get(facts.root, _Given()).callers)
    if not claim.call:
        return []
    unnamed = [record for record in records if record.facts.get("call") and record.workflow_id]
    known = any(record.facts.get("call") == claim.call for record in unnamed)
    return [
        record
        for record in unnamed
        if (not known or record.facts.get("call") == claim.call)
        and facts.relation(callers.get(record.key, record.facts)) == "again"
    ]

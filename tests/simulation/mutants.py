"""The rules about money, broken on purpose: each mutant must be caught by the histories.

A mutant is a context manager that replaces one rule by the mistake that an integration would make.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from msgspec.structs import replace

from orchestration_integrations.api import decoding
from orchestration_integrations.api.errors import AmbiguousRunError, UnreadableAnswerError
from orchestration_integrations.ownership import beginning, comparing, keeping, marks, observing, owned_run
from orchestration_integrations.ownership.resolve import Verdict
from orchestration_integrations.procedures import cancel, checkpoint_watch, checkpoints, events, start, waiting
from orchestration_integrations.procedures.effects import Ask, ask, do
from orchestration_integrations.run_store import MemoryRunStore


@contextmanager
def retries_a_submit_on_timeout() -> Iterator[None]:
    """A run whose answer was lost is simply sent again."""
    with mock.patch.object(start, "is_ambiguous", return_value=False):
        with mock.patch.object(beginning, "is_ambiguous", return_value=False):
            yield


@contextmanager
def compares_keys_by_prefix() -> Iterator[None]:
    """``run-10`` is taken for ``run-1``."""
    with mock.patch.object(start, "is_same_key", lambda found, wanted: str(found).startswith(wanted)):
        yield


@contextmanager
def trusts_204() -> Iterator[None]:
    """An accepted abort is called a cancelled run."""
    real = cancel._outcome

    def outcome(status: Any, instance: Any, answer: str, *rest: Any) -> Any:
        return (yield from real("cancelled" if answer == "204" else status, instance, answer, *rest))

    with mock.patch.object(cancel, "_outcome", outcome):
        yield


@contextmanager
def trusts_absence() -> Iterator[None]:
    """No row shows the run, so it is started again."""
    real = beginning.Beginning._look_for_proof

    def look_for_proof(self: Any, lost: Any) -> Any:
        try:
            return (yield from real(self, lost))
        except AmbiguousRunError as error:
            if error.candidates:
                raise
        return (yield from self._starting.submit(None, "runGate"))

    with mock.patch.object(beginning.Beginning, "_look_for_proof", look_for_proof):
        yield


@contextmanager
def drops_the_last_look() -> Iterator[None]:
    """At the deadline the wait is over, whatever has happened since the last poll."""

    def read(self: waiting.Waiting, now: float) -> waiting.Next:
        if self.deadline is not None and now >= self.deadline:
            return self._timeout()
        return waiting.Read(self.deadline)

    with mock.patch.object(waiting.Waiting, "_read", read):
        yield


@contextmanager
def forgets_what_was_chosen() -> Iterator[None]:
    """An attempt chooses anew although an earlier one had stored its choice, and takes any of several."""

    def load(self: keeping.Keeper, *, resumed: bool = False) -> Any:
        self.record = None
        return None
        yield

    def vouches(self: keeping.Keeper) -> bool:
        return True

    with mock.patch.object(keeping.Keeper, "load", load), mock.patch.object(keeping.Keeper, "vouches", vouches):
        with mock.patch.object(keeping.Keeper, "how", return_value="first"):
            yield


@contextmanager
def calls_the_absent_ended() -> Iterator[None]:
    """Not to be seen running, in a list or after a pause, is taken for having succeeded."""
    real = waiting.Waiting.feed

    def feed(self: waiting.Waiting, seen: waiting.Observation, now: float) -> waiting.Step:
        if isinstance(seen, waiting.Absent | waiting.Paused) and self.instance is not None:
            return waiting.Step(waiting.End("succeeded", self.instance))
        return real(self, seen, now)

    with mock.patch.object(waiting.Waiting, "feed", feed):
        yield


@contextmanager
def sends_events_blindly() -> Iterator[None]:
    """An event is sent to whatever stage runs, and 204 is believed."""

    def deliver(delivery: Any, stage: int, instance: Any, nap: Any, *, resend: bool) -> Any:
        yield from do(delivery.event_call, None)
        return instance

    with mock.patch.object(events, "_deliver", deliver):
        yield


@contextmanager
def always_gives_up() -> Iterator[None]:
    """A client that is never wrong because it never says anything."""
    real = beginning.Beginning.run

    def run(self: beginning.Beginning) -> Any:
        yield from real(self)
        raise self._starting.ambiguous("who knows", ())

    with mock.patch.object(beginning.Beginning, "run", run):
        yield


# ---- whose run it is -------------------------------------------------------------------------------


@contextmanager
def compares_no_content() -> Iterator[None]:
    """A used key with another amount comes back to the first payment."""
    with mock.patch.object(comparing.Comparing, "check", return_value=None):
        yield


@contextmanager
def asks_no_owner() -> Iterator[None]:
    """A run is released although nobody wants it any more."""

    def permit(self: Any, instance_id: str) -> Any:
        return
        yield

    with mock.patch.object(owned_run.OwnedRun, "_permit", permit):
        yield


@contextmanager
def asks_the_owner_once() -> Iterator[None]:
    """The owner's first answer stands for all later sends."""
    real = owned_run.OwnedRun._permit

    def permit(self: Any, instance_id: str) -> Any:
        if not getattr(self, "asked", False):
            yield from real(self, instance_id)
            self.asked = True

    with mock.patch.object(owned_run.OwnedRun, "_permit", permit):
        yield


@contextmanager
def saves_afterwards() -> Iterator[None]:
    """What was done is put on record after it was done."""
    real = keeping.Keeper.note_seen

    def save(self: keeping.Keeper, record: Any) -> Any:
        self.record = record
        return
        yield

    def note_seen(self: keeping.Keeper, instance: Any) -> Any:
        if self.store is not None and self.record is not None:
            stored = (yield Ask(self.store.load, (self.record.key,))).value
            revision = (stored.revision if stored is not None else 0) + 1
            self.record = replace(self.record, revision=revision)
            yield Ask(self.store.save, (self.record,))
        yield from real(self, instance)

    with mock.patch.object(keeping.Keeper, "save", save), mock.patch.object(keeping.Keeper, "note_seen", note_seen):
        yield


@contextmanager
def chooses_by_overwriting() -> Iterator[None]:
    """The last choice of an instance wins."""
    with mock.patch.object(MemoryRunStore, "choose", lambda self, key, round, instance_id: instance_id):
        yield


@contextmanager
def computes_the_event_anew() -> Iterator[None]:
    """What opens a gate is computed from what is asked for now."""
    real = beginning.Beginning._release

    def release(self: Any, instance_id: str, gate: str | None, others: Any, **how: Any) -> Any:
        text = self._comparing.content.gate_text(self._request.run_key, 0).text
        return (yield from real(self, instance_id, text, others, **how))

    with mock.patch.object(beginning.Beginning, "_release", release):
        yield


@contextmanager
def looks_into_its_own_record_alone() -> Iterator[None]:
    """A run of the key that another record has released is not looked for."""
    with mock.patch.object(beginning, "may_be_elsewhere", return_value=False):
        yield


@contextmanager
def lets_the_loser_cancel() -> Iterator[None]:
    """An attempt that another one has superseded cancels the run all the same."""

    def hold(self: keeping.Keeper, by: str = "") -> Any:
        return self.instance_id is not None
        yield

    def still_mine(self: keeping.Keeper) -> Any:
        return
        yield

    with mock.patch.object(keeping.Keeper, "hold", hold), mock.patch.object(keeping.Keeper, "still_mine", still_mine):
        yield


@contextmanager
def lets_another_caller_pass() -> Iterator[None]:
    """A second call of one attempt gets the first one's run."""
    real = keeping.Keeper.load

    def load(self: keeping.Keeper, *, resumed: bool = False) -> Any:
        return (yield from real(self, resumed=True))

    with mock.patch.object(keeping.Keeper, "load", load):
        yield


@contextmanager
def starts_anew_what_is_unknown() -> Iterator[None]:
    """A clear of a run whose fate is unknown starts another one."""
    real = beginning.resolve

    def resolve(question: Any, shows: Any) -> Verdict:
        if question.how == "new" and shows == "nothing" and not question.gated:
            return Verdict("new round", 8)
        return real(question, shows)

    with mock.patch.object(beginning, "resolve", resolve):
        yield


@contextmanager
def starts_anew_beside_a_run() -> Iterator[None]:
    """A new run is started while the old one goes on."""
    real = beginning.resolve

    def resolve(question: Any, shows: Any) -> Verdict:
        verdict = real(question, shows)
        return Verdict("new round", 15) if verdict.kind == "cancel first" else verdict

    with mock.patch.object(beginning, "resolve", resolve):
        yield


@contextmanager
def takes_a_lost_record_for_none() -> Iterator[None]:
    """A store that is away is read as an empty one."""
    real = keeping.Keeper.load

    def load(self: keeping.Keeper, *, resumed: bool = False) -> Any:
        try:
            return (yield from real(self, resumed=resumed))
        except OSError:
            self.record = None
            return None

    with mock.patch.object(keeping.Keeper, "load", load):
        yield


@contextmanager
def takes_every_store_for_complete() -> Iterator[None]:
    """An empty file in a new pod is taken for proof that nothing was started."""
    with mock.patch.object(keeping.Keeper, "vouches", return_value=True):
        yield


@contextmanager
def takes_any_end_for_unmoved() -> Iterator[None]:
    """A run that we cancelled is started anew although it had paid."""
    real = observing.Observer._nothing_launched

    def nothing_launched(self: Any, instance: Any, behind: int) -> Any:
        yield from real(self, instance, behind)
        return True

    with mock.patch.object(observing.Observer, "_nothing_launched", nothing_launched):
        yield


# ---- answers that are not the answer --------------------------------------------------------------------


@contextmanager
def takes_an_unreadable_list_for_an_empty_one() -> Iterator[None]:
    """A list that cannot be read shows no run, so one is started."""
    real = decoding.decode_page

    def decode_page(*arguments: Any, **how: Any) -> decoding.Page:
        try:
            return real(*arguments, **how)
        except UnreadableAnswerError:
            return decoding.Page(rows=(), next=None, cursored=False)

    with mock.patch.object(decoding, "decode_page", decode_page):
        yield


@contextmanager
def takes_the_answer_about_another_run() -> Iterator[None]:
    """Whatever instance an answer shows is the one that was asked for."""
    real = decoding.decode_instance

    def decode_instance(body: bytes, what: str, **asked: Any) -> Any:
        return real(body, what)

    with mock.patch.object(decoding, "decode_instance", decode_instance):
        yield


# ---- checkpoints -----------------------------------------------------------------------------------


@contextmanager
def _guards_with(changed: Callable[[Any, int], Any]) -> Iterator[None]:
    """The guard works with other marks: ``changed`` makes them of the real ones."""
    real = owned_run.OwnedRun.guard

    def guard(self: Any, number: int) -> Any:
        true_marks = self._marks
        self._marks = lambda: changed(self, true_marks())
        try:
            return (yield from real(self, number))
        finally:
            del self._marks

    with mock.patch.object(owned_run.OwnedRun, "guard", guard):
        yield


class _Marks:
    """The real marks, some of whose answers are wrong."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


@contextmanager
def asks_the_owner_after_the_pass() -> Iterator[None]:
    """A checkpoint is passed, and then its owner is asked."""

    def try_to_pass(instance: Any, number: Any, guard: Any, versions: Any, now: Any, until: Any) -> Any:
        def late(number: int) -> Any:
            return "pass"
            yield

        tried = yield from checkpoints.try_to_pass(instance, number, late, versions, now, until)
        if tried.outcome == "sent" and guard is not None:
            yield from guard(tried.standing.number)
        return tried

    with mock.patch.object(waiting, "try_to_pass", try_to_pass):
        yield


@contextmanager
def passes_without_looking_for_a_stop() -> Iterator[None]:
    """A pass is announced and sent, and nobody looks whether a stop was asked for."""

    class Blind(_Marks):
        def held(self) -> Any:
            return
            yield

    with _guards_with(lambda run, real: Blind(real)):
        yield


@contextmanager
def looks_for_a_stop_before_it_announces() -> Iterator[None]:
    """A stop is looked for, then the pass is announced and sent: a stop may have come in between."""

    class Once(_Marks):
        looked = False

        def held(self) -> Any:
            if self.looked:
                return None
            self.looked = True
            return (yield from self.real.held())

    with _guards_with(lambda run, real: Once(real)):
        yield


@contextmanager
def announces_no_pass() -> Iterator[None]:
    """A pass is sent, and nothing says so to whoever stops the run."""

    class Silent(_Marks):
        def announce(self, number: int) -> Any:
            return
            yield

    with _guards_with(lambda run, real: Silent(real)):
        yield


@contextmanager
def announces_in_the_first_attempt_only() -> Iterator[None]:
    """An attempt that goes on with the run of an earlier one takes the pass for announced."""

    class First(_Marks):
        def __init__(self, run: Any, real: Any) -> None:
            super().__init__(real)
            self.attempt = run.request.attempt

        def announce(self, number: int) -> Any:
            if self.attempt == "try 1":
                yield from self.real.announce(number)

    with _guards_with(First):
        yield


@contextmanager
def says_held_amid_a_pass() -> Iterator[None]:
    """A run at a checkpoint is said to be held although a pass was announced, and may lie in the queue of its stage."""

    def excludes(self: cancel.Holding, standing: Any, now: Any) -> Any:
        return now.monotonic() >= self.since and (yield from self.stands())

    with mock.patch.object(cancel.Holding, "excludes", excludes):
        yield


@contextmanager
def takes_a_stop_amid_a_pass_for_a_hold() -> Iterator[None]:
    """A waiter that sees a stop says held, although another one may have sent the pass."""
    real = checkpoint_watch.CheckpointWatch.tried

    def tried(self: Any, one: Any, now: float) -> Any:
        return real(self, replace(one, outcome="held") if one.outcome == "held amid pass" else one, now)

    with mock.patch.object(checkpoint_watch.CheckpointWatch, "tried", tried):
        yield


@contextmanager
def takes_back_what_another_announced() -> Iterator[None]:
    """Whoever sees a stop takes the announcement of the pass back, also where another waiter relies on it."""
    real = owned_run.OwnedRun.guard

    def guard(self: Any, number: int) -> Any:
        permit = yield from real(self, number)
        if permit != "held amid pass":
            return permit
        if self._place is not None:
            yield from ask(self._place.remove, f"passing/{self.instance_id}/{number}")
        else:
            record = yield from self.keeper.refreshed()
            kept = tuple(one for one in record.passing if one != number)
            yield from self.keeper.save_mine(record.changed(passing=kept))
        return "held"

    with mock.patch.object(owned_run.OwnedRun, "guard", guard):
        yield


@contextmanager
def believes_in_a_stop_that_was_taken_back() -> Iterator[None]:
    """A run is said to be held by a stop, although the stop was taken back meanwhile."""
    real = marks.holding_of

    def holding_of(some: Any, since: float) -> cancel.Holding:
        def stands() -> Any:
            return True
            yield

        return cancel.Holding(real(some, since).announced, stands, since)

    with mock.patch.object(marks, "holding_of", holding_of), mock.patch.object(owned_run, "holding_of", holding_of):
        yield


@contextmanager
def believes_in_a_stop_without_its_mark() -> Iterator[None]:
    """A run is said to be held by what its record says, where its waiters look elsewhere."""

    def look_where_it_stands(self: Any, observer: Any, seen: Any, record: Any) -> Any:
        if seen.shows == "runs" and self.has_checkpoints is not False:
            yield from observer.read_standing(seen, record, None)

    with mock.patch.object(beginning.Beginning, "_look_where_it_stands", look_where_it_stands):
        yield


@contextmanager
def passes_each_checkpoint_with_one_send() -> Iterator[None]:
    """A pass that shows no effect is never sent again, so one that lies in the queue lies there for good."""
    real = checkpoint_watch.CheckpointWatch.is_due

    def is_due(self: Any, now: float) -> bool:
        return not self._sent and real(self, now)

    with mock.patch.object(checkpoint_watch.CheckpointWatch, "is_due", is_due):
        yield


CHECKPOINT_MUTANTS: tuple[Callable[[], Any], ...] = (
    asks_the_owner_after_the_pass,
    passes_without_looking_for_a_stop,
    announces_no_pass,
    announces_in_the_first_attempt_only,
    says_held_amid_a_pass,
    takes_a_stop_amid_a_pass_for_a_hold,
    takes_back_what_another_announced,
    believes_in_a_stop_that_was_taken_back,
    believes_in_a_stop_without_its_mark,
    passes_each_checkpoint_with_one_send,
)

OWNER_MUTANTS: tuple[Callable[[], Any], ...] = (
    compares_no_content,
    asks_no_owner,
    asks_the_owner_once,
    saves_afterwards,
    chooses_by_overwriting,
    computes_the_event_anew,
    looks_into_its_own_record_alone,
    lets_the_loser_cancel,
    lets_another_caller_pass,
    starts_anew_what_is_unknown,
    starts_anew_beside_a_run,
    takes_a_lost_record_for_none,
    takes_every_store_for_complete,
    takes_any_end_for_unmoved,
    takes_an_unreadable_list_for_an_empty_one,
)

MUTANTS: tuple[Callable[[], Any], ...] = (
    retries_a_submit_on_timeout,
    compares_keys_by_prefix,
    trusts_204,
    trusts_absence,
    drops_the_last_look,
    forgets_what_was_chosen,
    calls_the_absent_ended,
    sends_events_blindly,
    always_gives_up,
    takes_the_answer_about_another_run,
)

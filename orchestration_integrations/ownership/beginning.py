"""Finding or starting the run that a call means: the table, carried out.

One loop: ask the table what has to be looked at, look, ask it what to do, do it. What is done either gives the run,
or changes something (a submit whose answer was lost, a release that met a ghost), after which the table is asked
again. Everything is validated before the first intent is put on record.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import msgspec

from ..api.errors import (
    KeyReusedError,
    OrchestrationError,
    RecordConflictError,
    UnreadableRecordError,
    is_ambiguous,
    summary,
)
from ..api.models import Instance
from ..procedures.cancel import cancel
from ..procedures.content import UNKNOWN
from ..procedures.effects import Now, Procedure, ask_or_raise
from ..procedures.gate import parsed_text
from ..procedures.gated_start import GatedStart, shows_release
from ..procedures.limits import CANCEL_SECONDS
from ..procedures.listing import Versions
from ..procedures.ungated_start import UngatedStart
from ..procedures.variables import GATE_VARIABLE
from . import doubts, refusals
from .asked_workflow import AskedWorkflow
from .begun import Did, did
from .choosing import Round, choose
from .comparing import Comparing
from .elsewhere import is_another_payment, may_be_elsewhere, released_elsewhere, to_adopt
from .keeping import Keeper
from .marks import Hold, Marks
from .observing import Observer, Seen
from .record import GOOD_END, NO_HOLD, AdoptedElsewhereError, RunRecord
from .resolve import How, Kind, Question, Verdict, observation, resolve
from .same_server import check_server
from .start_of_key import start_of_key

logger = logging.getLogger("orchestration_integrations.ownership")

CANCEL_FOR_NEW_SECONDS = CANCEL_SECONDS
"""Seconds that a run gets to end after the cancel that a new run asks for."""
_SUBMITS: tuple[Kind, ...] = ("start", "new round", "cancel first")


class Beginning:
    """One attempt's way to its run.

    Args:
        keeper: has the record.
        permit: asks the owner before a release; raises where the run is not wanted.
        on_chosen: told the instance's id before its release; what it raises keeps the run from being released.
        marks: of the run on record, where they stand beside the record; None where they stand in it.

    Attributes:
        has_checkpoints: of the workflow; None while that is not known.
        did: what this attempt did to have its run; None while it has none.
    """

    def __init__(
        self,
        keeper: Keeper,
        permit: Callable[[str | None], Procedure[None]],
        on_chosen: Callable[[str], object] | None,
        marks: Callable[[], Marks | None],
        versions: Versions,
        now: Now,
    ) -> None:
        self._marks = marks
        self._keeper = keeper
        self._request = keeper.request
        self._on_chosen = on_chosen
        self._versions = versions
        self._now = now
        self._permit = permit
        self._comparing = Comparing(keeper, versions, now)
        self._gated = self._submitted = self._outchosen = False
        self._settled = False  # the user's word about what is not known decides what is done
        self.has_checkpoints: bool | None = None
        self._stopped = False
        self._hold: Hold | None = None
        self._proven = False  # no earlier attempt can have chosen a run that stands unreleased
        self.did: Did | None = None

    def run(self) -> Procedure[Instance]:
        """Find or start the run. See ``OwnedRun.begin``."""
        keeper = self._keeper
        record = yield from keeper.load()
        how, token = keeper.how(), keeper.has_token()
        if self._request.settled and not token:
            logger.warning("run key %s: the given token settles nothing that is on record", self._request.run_key)
        starting = self._starting = start_of_key(keeper, record, how, self._permit, self._versions, self._now)
        self._gated_start, self._ungated_start = GatedStart(starting), UngatedStart(starting)
        asked = AskedWorkflow(self._request, keeper, starting, self._comparing, self._versions, self._now)
        yield from asked.read(record, how)
        self._gated, self.has_checkpoints = asked.gated, asked.has_checkpoints
        if record is None:
            how = self._how_without_record(how)
            starting.fresh = how == "first"
            starting.submit_may_exist = not starting.fresh
            self._proven = how == "first"
        elif how == "first":  # the caller knows better than the doubt on record
            starting.fresh, starting.submit_may_exist, self._proven = True, False, True
            starting.since = self._request.since  # not that of the doubt, which looks back to earlier attempts
        else:
            self._proven = record.state == "intended" and keeper.vouches() and not record.doubt
        yield from check_server(keeper, starting, how, token, self._run_is_gated(), self._versions, self._now)
        self._observer = self._observing()
        while True:
            yield from self._look_for_stop()
            question = self._question(how, token)
            seen = yield from self._observe(self._observer, question, token)
            keeper.note_shown(seen.told, seen.instance)
            token = token and keeper.has_token()  # a word about what was not shown settles nothing else
            question = msgspec.structs.replace(question, token=token)
            verdict = resolve(question, seen.shows)
            self._settled = verdict != resolve(msgspec.structs.replace(question, token=False), seen.shows)
            logger.debug("key %s: row %d: %s (%s)", self._request.run_key, verdict.row, verdict.kind, seen.shows)
            yield from self._compare(verdict, seen, how)
            if asked.missing and verdict.kind in _SUBMITS:
                yield from asked.create(keeper.record, how)
                self._observer = self._observing()
                continue  # another call may have put it there meanwhile, and a run of this key into it
            other = None if asked.missing or self._submitted else (yield from self._elsewhere(verdict.kind, seen))
            instance = other if other is not None else (yield from self._act(verdict, seen))
            if instance is not None:
                kind = verdict.kind if other is None else "adopt"
                self.did = did(kind, instance, submitted=self._submitted, at_gate=self._stands_at_gate(seen))
                return instance
            if verdict.kind == "cancel first":
                how, token = "again", False
            token = token and (not self._outchosen or keeper.has_token())  # it may have settled another run

    def _observing(self) -> Observer:
        comparing, key_variable = self._comparing, self._request.key_variable
        steps = self._starting, self._gated_start, self._ungated_start
        return Observer(*steps, comparing.workflow, comparing.content, key_variable, self._versions, self._now)

    def _run_is_gated(self) -> bool:
        """Whether what is on record was submitted with a gate. The workflow asked for now may be another one."""
        record = self._keeper.record
        if record is None or record.content == UNKNOWN or not record.workflow_id:
            return self._gated
        return bool(record.gate) and (self._gated or not record.doubt)

    def _how_without_record(self, how: How) -> How:
        """A look costs little where there is a gate; where there is none, a store that vouches has the only word."""
        if how == "first":
            return "again" if self._gated and self._request.shared_key else "first"
        return "first" if not self._gated and self._keeper.vouches() else how

    # ---- what the table is asked -------------------------------------------------------------------

    def _question(self, how: How, token: bool) -> Question:
        record = self._keeper.record
        # An intent of a store that does not vouch proves nothing about other processes.
        doubt = record is not None and record.doubt and how == "first"
        unproven = record is not None and record.state == "intended" and (not self._proven or doubt)
        return Question(
            on_record="none" if record is None or unproven else record.state,
            how=how,
            gated=self._run_is_gated(),
            token=token,
            seen=record is not None and record.seen,
            held=record is not None and record.hold,
            stopped=self._stopped,
            good=record is not None and record.end == GOOD_END,
            rerun=self._request.rerun_failed and record is not None and record.told_by != self._request.attempt,
        )

    def _look_for_stop(self) -> Procedure[None]:
        """Whether somebody has asked for a stop of the run on record. The mark that was seen is kept in mind."""
        record = self._keeper.record
        self._stopped, self._hold = False, None
        if record is None or record.state != "chosen" or record.instance_id is None:
            return
        marks = self._marks()
        if marks is not None:
            self._hold = yield from marks.held()
        self._stopped = record.hold or self._hold is not None

    def _stands_at_gate(self, seen: Seen) -> bool:
        """Whether the run on record was not released yet."""
        instance = seen.instance
        return self._run_is_gated() and instance is not None and not shows_release(instance)

    def _look_where_it_stands(self, observer: Observer, seen: Seen, record: RunRecord) -> Procedure[None]:
        """Whether a stop holds the run at a checkpoint. Whoever waits for it does not look into the record: a stop that
        stands there alone is put up first where they look."""
        marks = self._marks()
        if seen.shows != "runs" or self.has_checkpoints is False:
            return
        if marks is not None and self._hold is None:
            self._hold = Hold(record.held_by, record.held_since)
            if not (yield from marks.hold(self._hold)):
                return
        yield from observer.read_standing(seen, record, marks)

    def _let_go(self) -> Procedure[None]:
        """Take a stop back that stands beside the record, if it is the one that was seen; the one in it goes with the
        next saving."""
        marks = self._marks()
        if marks is not None and self._hold is not None:
            yield from marks.let_go(self._hold)

    def _submitted_elsewhere(self) -> bool:
        """Whether what is on record was submitted to another workflow than the one that is asked for now."""
        record = self._keeper.record
        return record is not None and record.workflow_id not in ("", self._starting.workflow_id)

    def _observe(self, observer: Observer, question: Question, token: bool) -> Procedure[Seen]:
        record = self._keeper.record
        wanted = observation(question)
        if wanted == "nothing":
            return Seen("unasked")
        if wanted == "look":
            number = record.round if record is not None and record.workflow_id and not record.doubt else None
            return (yield from observer.look(number, proven=self._proven, at_once=self._submitted))
        if wanted == "proof":
            if self._submitted_elsewhere():
                return Seen("nothing")
            return (yield from self._prove(once=token))
        if record is None or record.instance_id is None:
            raise UnreadableRecordError(
                f"the record of key {self._request.run_key} says {question.on_record} and names no instance",
                run_key=self._request.run_key,
            )
        gated = self._run_is_gated()
        seen = yield from observer.read_chosen(record, record.instance_id, token, gated)
        if self._comparing.is_of_another(seen):
            self.has_checkpoints = None
        if self._stopped:
            yield from self._look_where_it_stands(observer, seen, record)
        nameless = gated and not record.gate and seen.shows not in ("unknown id", "ghost", "ended before release")
        # Where only the id is known, what it stands for is read from the run's own gate.
        unread = nameless and not (yield from observer.read_gate(record.instance_id, seen))
        if unread and self._keeper.store is not None:
            raise refusals.gate_unread(self._starting, record.instance_id, seen.gate_unread)
        return seen

    def _prove(self, *, once: bool = False) -> Procedure[Seen]:
        seen = yield from self._observer.prove(once=once)
        seen.candidates = yield from self._keeper.not_of_others(seen.candidates)
        return seen

    def _compare(self, verdict: Verdict, seen: Seen, how: How) -> Procedure[None]:
        """Refuse other content. Where a new run was asked for, that tells the old one's end, so the next may follow."""
        try:
            self._comparing.check(verdict.kind, seen)
        except KeyReusedError:
            if verdict.kind == "report" and how == "new" and seen.instance is not None:
                yield from self._keeper.conclude(seen.instance.state)
            raise

    # ---- what the table decides --------------------------------------------------------------------

    def _act(self, verdict: Verdict, seen: Seen) -> Procedure[Instance | None]:
        """Do what the table says. None: something changed, so it has to be asked again."""
        kind, record = verdict.kind, self._keeper.record
        if kind == "start":
            return (yield from self._start(record.round if record is not None else 0))
        if kind == "new round":
            if self._keeper.store is None and self._request.chosen is not None:
                return seen.instance  # the caller keeps the record, so a new round is the caller's to decide
            return (yield from self._start_round(seen))
        if kind in ("adopt", "choose", "key reused"):
            return (yield from self._take_found(seen, released=kind == "adopt"))
        if kind == "continue" and self._stopped and self._stands_at_gate(seen):
            if record is not None and not record.hold:
                raise refusals.stopped_at_gate(self._keeper)
            # Nothing of it had begun: as after a cancel that took effect there, the next attempt goes on.
            kind = "resume"
        if kind in ("continue", "resume"):
            return (yield from self._continue(seen, resume=kind == "resume"))
        if kind == "report held" and record is not None:
            # Strictly: whoever has taken the stop back meanwhile has changed the record, or the mark.
            yield from self._keeper.save(self._keeper.claimed(record))
            marks = self._marks()
            if marks is None or (yield from marks.held()) is not None:
                raise (yield from refusals.held(self._keeper, seen, self._versions, self._now))
            return None
        if kind == "report":
            if record is not None:
                yield from self._keeper.save_late(self._keeper.claimed(record))
            return seen.instance
        if kind == "cancel first":
            return (yield from self._cancel_for_new(seen))
        if kind == "wrong server":
            raise refusals.wrong_server(self._keeper, seen)
        raise (yield from self._ambiguous(verdict, seen))

    def _ambiguous(self, verdict: Verdict, seen: Seen) -> Procedure[OrchestrationError]:
        starting, keeper, record = self._starting, self._keeper, self._keeper.record
        doubt = doubts.put_on_record(keeper, starting.workflow_id, self._comparing.content, gated=self._gated)
        if seen.found:
            yield from doubt
        known = refusals.of_known_run(starting, keeper.instance_id, verdict.row, seen)
        if known is not None:
            return known
        elsewhere = record.workflow_id if record is not None and self._submitted_elsewhere() else None
        why = refusals.ungated_submit(self._observer.provable, elsewhere)
        if record is None:
            if self._request.may_say_first:
                why += "; for a key that was never used, say first_attempt=True"
            yield from doubt
        return starting.ambiguous(why, seen.candidates)

    def _next_round(self) -> int:
        record = self._keeper.record
        return max([record.round if record is not None else 0, *self._starting.rounds]) + 1

    def _start_round(self, seen: Seen) -> Procedure[Instance | None]:
        another = is_another_payment(self._keeper, seen, settled=self._settled)
        return (yield from self._start(self._next_round(), another=another))

    def _start(self, number: int, *, another: bool = False) -> Procedure[Instance | None]:
        """Save the intent, submit, choose, release. ``another``: of a new round."""
        keeper, starting, before = self._keeper, self._starting, self._keeper.record
        gate = self._comparing.content.gate_text(self._request.run_key, number) if self._gated else None
        if gate is None:
            yield from starting.permit(None)  # its submit releases it; a record of an intent would leave it in doubt
        content, proven = self._comparing.content, self._proven
        intent = keeper.intended(number, gate, starting.workflow_id, content, proven=proven, another=another)
        yield from keeper.save(intent)
        if before is not None and before.round != number:
            # This round begins here: nothing was submitted for it, and no run of it was chosen.
            logger.info("run key %s: round %d", self._request.run_key, number)
            self._proven, starting.submit_may_exist = True, False
        self._submitted, keeper.shown = True, None  # nothing was shown of what is submitted now
        while True:
            try:
                instance = yield from starting.submit(gate, GATE_VARIABLE)
                submitted_at = self._now.monotonic()
            except OrchestrationError as error:
                if not is_ambiguous(error):
                    raise
                if gate is None:
                    return (yield from self._look_for_proof(error))
                look = yield from self._gated_start.look_for_lost(gate.text, error)
                if look.released or look.waiting:
                    return None  # the table decides about what is there
                continue
            break
        if gate is None:
            keeper.submitted = instance.id
            yield from self._choose_submitted(instance.id, number)
            shown = yield from self._ungated_start.shown(instance)
            yield from keeper.note_seen(shown)
            return shown
        keeper.at_gate = instance.id
        if not (yield from self._choose(instance.id, gate.text, number)):
            return None
        return (yield from self._release(instance.id, gate.text, (), submitted_at=submitted_at))

    def _choose_submitted(self, instance_id: str, number: int) -> Procedure[None]:
        """Choose the run of a submit without a gate, which pays already: where the key stands for another run by now,
        both may have paid."""
        try:
            chosen = yield from self._choose(instance_id, None, number)
        except (RecordConflictError, AdoptedElsewhereError) as error:
            known = yield from self._keeper.stands_for()
            if known == instance_id:
                raise  # another attempt has found this very run, and goes on with it
            raise refusals.submitted_beside(self._starting, instance_id, known, error) from error
        except Exception as error:
            refusals.tell_submitted(error, instance_id, on_record=self._keeper.instance_id is not None)
            raise
        if not chosen:
            raise refusals.submitted_beside(self._starting, instance_id, self._keeper.instance_id)

    def _look_for_proof(self, lost: OrchestrationError) -> Procedure[Instance | None]:
        """An ungated submit whose answer was lost: only proof is taken."""
        why = self._starting.lost_ungated = f"its submit got no answer ({summary(lost)})"
        seen = yield from self._prove()
        self._keeper.shown = seen.told
        if seen.shows == "proof" and seen.instance is not None:
            return (yield from self._adopt(seen.instance.id))
        if not self._observer.provable:
            why += "; no stage carries the key, so nothing can be proved"
        raise self._starting.ambiguous(why, seen.candidates, lost) from lost

    def _take_found(self, seen: Seen, *, released: bool) -> Procedure[Instance | None]:
        """Choose a run that a look found; the oldest, where several wait."""
        if not seen.found:
            return (yield from self._adopt(seen.instance.id if seen.instance is not None else ""))
        found = seen.found[0]
        if not (yield from self._choose(found.instance.id, found.gate.text, found.gate.round, released=released)):
            return None
        if released:
            return (yield from self._shown(found.instance.id))
        others = [run.instance.id for run in seen.found[1:]] if self._submitted else []
        return (yield from self._release(found.instance.id, found.gate.text, others))

    def _adopt(self, instance_id: str) -> Procedure[Instance | None]:
        """Go on with a run of an ungated workflow that carries the key."""
        record = self._keeper.record
        if not (yield from self._choose(instance_id, None, record.round if record is not None else 0)):
            return None
        return (yield from self._shown(instance_id))

    def _elsewhere(self, kind: Kind, seen: Seen) -> Procedure[Instance | None]:
        """The run that another record of the key has released, chosen instead of what the table says; None for none."""
        keeper, at_gate = self._keeper, self._stands_at_gate(seen)
        if not self._gated or not may_be_elsewhere(keeper, kind, seen, at_gate=at_gate, settled=self._settled):
            return None
        found = yield from released_elsewhere(keeper, self._gated_start, kind, seen.instance)
        self._settled = self._settled or (len(found) > 1 and keeper.has_token())
        if not found or self._settled:
            return None
        run = refusals.the_only_one(self._starting, found)
        self._comparing.check("adopt", Seen("one released", found=[run]))
        number = self._next_round()  # in its own round another instance was chosen here
        workflow_id, content = self._starting.workflow_id, self._comparing.content
        intent = to_adopt(keeper, run, number, workflow_id, content, own_stands=at_gate)
        yield from keeper.save(intent)
        if not (yield from self._choose(run.instance.id, run.gate.text, number, released=True)):
            return None
        return (yield from self._shown(run.instance.id))

    def _shown(self, instance_id: str) -> Procedure[Instance]:
        instance = yield from self._starting.read_found(instance_id)
        yield from self._keeper.note_seen(instance)
        return instance

    def _choose(self, instance_id: str, text: str | None, number: int, *, released: bool = False) -> Procedure[bool]:
        """Choose an instance, put it on record, and tell the caller where it is not released yet.

        Returns:
            False where another one was chosen before: that one is on record then, and the table decides about it.
        """
        workflow_id, content = self._starting.workflow_id, self._comparing.content
        round = Round(number, parsed_text(text), workflow_id, content, proven=self._proven)
        if not (yield from choose(self._keeper, instance_id, text, round)):
            self._outchosen = True
            return False
        if self._on_chosen is not None and not released:
            yield from ask_or_raise(self._on_chosen, instance_id)
        return True

    def _continue(self, seen: Seen, *, resume: bool) -> Procedure[Instance | None]:
        keeper, record = self._keeper, self._keeper.record
        if record is None or record.instance_id is None:
            return None
        gate = record.gate or (seen.found[0].gate.text if seen.found else "")
        if resume:
            yield from self._let_go()
        yield from keeper.save(keeper.claimed(record, gate=gate, **(NO_HOLD if resume else {})))
        if self._run_is_gated():
            return (yield from self._release(record.instance_id, gate or None, ()))
        if seen.instance is not None:
            yield from keeper.note_seen(seen.instance)
        return seen.instance

    def _release(
        self, instance_id: str, gate: str | None, others: Sequence[str], *, submitted_at: float | None = None
    ) -> Procedure[Instance | None]:
        self._keeper.at_gate = None
        released = yield from self._gated_start.release(instance_id, gate, others, submitted_at=submitted_at)
        yield from self._keeper.note_seen(released.instance)
        return released.instance if released.how == "released" else None  # else the table decides what follows

    def _cancel_for_new(self, seen: Seen) -> Procedure[Instance | None]:
        """Row 15: a new run is wanted while the old one runs."""
        keeper, starting, instance = self._keeper, self._starting, seen.instance
        if instance is None or keeper.record is None:
            return None
        # The facts stay those of the old run: an attempt that dies in here must not lose that a new one is wanted.
        self._hold = Hold("a new run was asked for", keeper.instant())
        on_hold = keeper.record.held_by_stop(self._hold.by, self._hold.since)
        yield from keeper.save(msgspec.structs.replace(on_hold, attempt=self._request.attempt, returned=False))
        marks = self._marks()
        if marks is not None:
            yield from marks.hold(self._hold)
        outcome = yield from cancel(
            instance.id,
            timeout=CANCEL_FOR_NEW_SECONDS,
            versions=self._versions,
            now=self._now,
            permit=keeper.still_mine,
            on_record=True,
        )
        starting.until = max(starting.until, self._now.monotonic() + self._request.timeout)
        yield from self._let_go()
        if outcome.status == "cancelled":
            self._comparing.check("new round", seen)
            other = yield from self._elsewhere("new round", seen)
            refusals.tell_old_run_is_cancelled(starting.key, instance.id, outcome, anew=other is None)
            return other if other is not None else (yield from self._start_round(seen))
        yield from keeper.save(keeper.claimed(keeper.record, **NO_HOLD))
        refusals.tell_old_run_goes_on(starting.key, instance.id, outcome)
        return None

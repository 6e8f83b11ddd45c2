"""The steps of a start, on a server that knows no idempotency key. What follows from what they find is decided in
``ownership``.

Nothing that can be observed ever proves that a submit did *not* start a run: its row can appear hours later. So a
second submit must be harmless, or must not happen.

**Gated.** The definition's first stage waits for an event of its own (see ``gate``). A run that was created but not
released moves nothing, and its key can be read in its history. So a second submit is harmless: *one* run is chosen,
its id is put on record, and only then it is released.

**Ungated.** One submit. If its answer is lost, or an earlier attempt may have submitted, only proof that a run of the
key exists is taken: the key as a whole string in a stage's history. Never a second submit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Literal

import msgspec

from ..api.calls import abort_instance, get_instance, get_instance_history, get_workflow, run_workflow, send_event
from ..api.definitions import has_crowded_string, placeholders, strings_of
from ..api.errors import (
    AmbiguousRunError,
    AuthenticationError,
    NotFoundError,
    OrchestrationError,
    RateLimitedError,
    TransportError,
    ValidationError,
    is_ambiguous,
    is_passing,
    is_unexplained,
    summary,
)
from ..api.instants import UNKNOWN_INSTANT
from ..api.models import Instance, StageRun, Workflow
from ..telemetry import count
from .effects import Backoff, Now, Procedure, do, insist, pause
from .gate import OPENING, GateText, opening_event, own_stages, parsed_event
from .listing import Versions, snapshot
from .waiting import is_old

logger = logging.getLogger("orchestration_integrations.procedures")

CLOCK_SKEW = timedelta(minutes=5)
"""How far the server's clock may be behind ours when candidates are chosen by age."""
KEY_AGE = timedelta(days=7)
"""How old a key may be where the caller does not say since when it is in use; runs before that are not looked at."""
LOOK_SECONDS = 2.0
"""Seconds for which a lost run is looked for before a gated submit is repeated."""
SUBMIT_SECONDS = 1.0
"""Seconds that must be left for a submit to be begun."""
RELEASE_SHOWS_SECONDS = 5.0
"""Seconds that an earlier attempt's release gets to show, where several candidates stand."""
ANSWER_HOLDS_SECONDS = 10.0
"""Seconds for which the owner's word stands: what it allowed is sent by then, or the owner is asked again."""


class Found(msgspec.Struct, frozen=True):
    """A run of the key, as the server shows it."""

    instance: Instance
    gate: GateText


class Proof(msgspec.Struct, frozen=True):
    """A run whose history carries the key."""

    instance: Instance
    history: Sequence[StageRun]


class Look(msgspec.Struct):
    """What a look found of the key: released runs, and unreleased ones that wait; the oldest first."""

    released: list[Found] = msgspec.field(default_factory=list)
    waiting: list[Found] = msgspec.field(default_factory=list)

    def of_round(self, number: int | None) -> Look:
        """Only the runs of one round; the highest that there is, for None."""
        if number is None:
            number = max((one.gate.round for one in (*self.released, *self.waiting)), default=0)
        return Look(
            released=[one for one in self.released if one.gate.round == number],
            waiting=[one for one in self.waiting if one.gate.round == number],
        )

    def with_text(self, text: str) -> Look:
        """Only the runs whose gate says this."""
        return Look(
            released=[one for one in self.released if one.gate.text == text],
            waiting=[one for one in self.waiting if one.gate.text == text],
        )


class Released(msgspec.Struct, frozen=True):
    """How a release ended: ``released``, ``ended`` (before it could be released), ``ghost`` (no run stands behind the
    row). ``instance``: as last read."""

    how: Literal["released", "ended", "ghost"]
    instance: Instance


class Starting:
    """What the steps of one start share.

    Args:
        workflow_id: what is to run.
        key: of the run.
        texts: all variables as they are sent, but for the text of the gate.
        since: the key was not used before; None where that is not known.
        fresh: the key was never used before, so all runs of it are of this very attempt.
        timeout: seconds for all steps together.
        permit: asks the owner before anything is released; raises where the owner does not want it.
    """

    def __init__(
        self,
        *,
        workflow_id: str,
        key: str,
        texts: Mapping[str, str],
        since: datetime | None,
        fresh: bool,
        timeout: float,
        permit: Callable[[str], Procedure[None]],
        versions: Versions,
        now: Now,
    ) -> None:
        self.workflow_id = workflow_id
        self.key = key
        self.texts = texts
        self.since = since
        self.fresh = fresh
        self.timeout = timeout
        self.permit = permit
        self.versions = versions
        self.now = now
        self.until = now.monotonic() + timeout
        self.begun = now.time()
        self.foreign: set[str] = set()
        self.rounds: set[int] = set()
        self.submit_may_exist = not fresh  # by an earlier attempt
        self.token: str | None = None

    def left(self) -> float:
        """Seconds until all must be over."""
        return self.until - self.now.monotonic()

    def earliest(self) -> datetime:
        """No run of this key can be older."""
        if self.since is not None:
            return self.since - CLOCK_SKEW
        # By the server's clock: a row that this very attempt caused, or one as old as a key may be.
        ours = min(self.begun, self.now.server_time())
        span = timedelta(seconds=self.timeout) + CLOCK_SKEW if self.fresh else KEY_AGE
        return datetime.fromtimestamp(ours, timezone.utc) - span

    def ambiguous(self, why: str, candidates: Sequence[str], cause: BaseException | None = None) -> AmbiguousRunError:
        """The error for a run that may exist."""
        earliest = self.since or (datetime.fromtimestamp(self.begun, timezone.utc) if self.fresh else self.earliest())
        named = f"; candidates: {', '.join(candidates)}" if candidates else ""
        settle = f"; once you know how it ended, settled={self.token!r} allows a new run" if self.token else ""
        error = AmbiguousRunError(
            f"a run of workflow {self.workflow_id} with key {self.key} may exist: {why}{named}{settle}",
            workflow_id=self.workflow_id,
            run_key=self.key,
            window=(earliest, datetime.fromtimestamp(max(self.now.time(), self.begun), timezone.utc)),
            candidates=candidates,
            token=self.token,
        )
        error.__cause__ = cause
        return error

    # Submitting

    def submit(self, gate: GateText | None, gate_variable: str) -> Procedure[Instance]:
        """One submit; repeated only where the first surely did nothing.

        Raises:
            OrchestrationError: ``is_ambiguous`` says whether it may have started a run.
        """
        texts = dict(self.texts) if gate is None else {**self.texts, gate_variable: gate.text}
        call = run_workflow(self.workflow_id, texts, version=self.versions.plain)
        backoff = Backoff(self.now)
        while True:
            try:
                if self.left() < min(SUBMIT_SECONDS, self.timeout / 2):
                    # Cut short, it would be ambiguous for no need.
                    raise TransportError("there is no time left for a submit", sent=False)
                return (yield from do(call, self.until))
            except OrchestrationError as error:
                if is_ambiguous(error):
                    self.submit_may_exist = True
                    count("ambiguous_submits", operation="run_workflow")
                    raise
                surely_nothing = isinstance(error, RateLimitedError) or is_passing(error) or error.before_send
                wait = backoff.seconds(error)
                if not surely_nothing or self.now.monotonic() + wait >= self.until:
                    if self.submit_may_exist:
                        why = f"an earlier submit may have started it, and now: {summary(error)}"
                        raise self.ambiguous(why, (), error) from error
                    raise
            yield from pause(wait)

    # Looking for runs of a gated workflow

    def look(self) -> Procedure[Look]:
        """All runs of this key that the server shows, at one history call per candidate.

        Raises:
            AmbiguousRunError: the list, or a row that may be of this key, could not be read.
        """
        found = Look()
        for row in (yield from self._candidates()):
            history = yield from self._history_of(row)
            if not history:
                continue  # a ghost or a run that has not begun: it cannot have been released
            first = history[0]
            gate = parsed_event(first.input.get("event")) if first.name == "RunWaitEvent" else None
            if gate is None or not is_same_key(gate.key, self.key):
                self.foreign.add(row.id)
                continue
            self.rounds.add(gate.round)
            if first.terminated and first.error is None:
                found.released.append(Found(row, gate))
            elif first.terminated or row.terminated:
                self.foreign.add(row.id)  # aborted before its release: it counts as none
            else:
                found.waiting.append(Found(row, gate))
        found.released.sort(key=_age)
        found.waiting.sort(key=_age)
        return found

    def settled_look(self, number: int | None) -> Procedure[Look]:
        """A look; where several unreleased runs stand there, an earlier attempt's release gets time to show."""
        show_until = self.now.monotonic() + RELEASE_SHOWS_SECONDS
        backoff = Backoff(self.now, first=0.2)
        while True:
            found = (yield from self.look()).of_round(number)
            wait = backoff.seconds()
            over = self.now.monotonic() + wait >= min(show_until, self.until)
            if found.released or len(found.waiting) < 2 or over:
                return found
            yield from pause(wait)

    def look_for_lost(self, gate: str, lost: OrchestrationError) -> Procedure[Look]:
        """After a lost answer: look for runs with this gate for a while, then let the caller submit again, which is
        harmless here.

        Raises:
            AmbiguousRunError: time is over.
        """
        look_until = min(self.until, self.now.monotonic() + LOOK_SECONDS)
        backoff = Backoff(self.now, first=0.2)
        while True:
            found = (yield from self.look()).with_text(gate)
            if found.released or found.waiting:
                return found
            wait = backoff.seconds(lost)
            if self.now.monotonic() + wait >= self.until:
                why = f"its submit got no answer ({summary(lost)}) and no list shows it yet"
                raise self.ambiguous(why, (), lost)
            if self.now.monotonic() >= look_until:
                return found
            yield from pause(wait)

    def _candidates(self) -> Procedure[list[Instance]]:
        """Rows of the workflow that are young enough to be of this key and not known to be another's."""
        try:
            rows = yield from snapshot(self.workflow_id, self.versions, self.now, self.until)
        except OrchestrationError as error:
            raise self.ambiguous(f"the list of instances could not be read ({summary(error)})", (), error) from error
        earliest = self.earliest()
        return [
            row
            for row in rows
            if row.id not in self.foreign and (row.created_at == UNKNOWN_INSTANT or row.created_at >= earliest)
        ]

    def _history_of(self, row: Instance) -> Procedure[Sequence[StageRun]]:
        """The history of a candidate; empty where no stage of it has begun.

        Raises:
            AmbiguousRunError: stages have begun, and their history cannot be read: it may be of this key.
        """
        history: Sequence[StageRun] = ()
        unreadable: OrchestrationError | None = None
        try:
            history = yield from insist(get_instance_history(row.id, self.versions.plain), self.now, self.until)
        except OrchestrationError as error:
            unreadable = error
        if history:
            return history
        try:
            instance = yield from insist(get_instance(row.id, self.versions.plain), self.now, self.until)
        except OrchestrationError as error:
            # Also where it is "not found": the list has it, and nothing deletes instances.
            raise self.ambiguous(f"instance {row.id} could not be read ({summary(error)})", (row.id,), error) from error
        if not instance.status:
            return ()
        if unreadable is None and not shows_release(instance):
            return ()  # its first stage is not launched yet, or failed before its work
        why = f"the history of instance {row.id} cannot be read"
        raise self.ambiguous(f"{why} ({summary(unreadable)})" if unreadable else why, (row.id,), unreadable)

    def read_found(self, instance_id: str) -> Procedure[Instance]:
        """An instance that a look found, by its id.

        Raises:
            AmbiguousRunError: it could not be read.
        """
        try:
            return (yield from insist(get_instance(instance_id, self.versions.plain), self.now, self.until))
        except OrchestrationError as error:
            why = f"instance {instance_id} could not be read ({summary(error)})"
            raise self.ambiguous(why, (instance_id,), error) from error

    # Releasing

    def release(self, chosen: str, gate: str | None, others: Sequence[str] = ()) -> Procedure[Released]:
        """Send the gate's event until the gate of the chosen run is seen to be behind it.

        Nothing else waits for that event, so repeating it releases nothing else, and takes an earlier one out of the
        stage's queue. The owner is asked before each time it is sent.

        Args:
            chosen: the instance.
            gate: the text of its gate, as it was recorded or seen; None: it is read from the run itself.
            others: lost submits of this attempt, aborted afterwards where they still wait.

        Raises:
            AmbiguousRunError: it is not confirmed; the run may be released all the same.
        """
        read = get_instance(chosen, self.versions.plain)
        backoff = Backoff(self.now, first=0.03, longest=2.0)
        trouble = "its row did not appear"
        send_at = 0.0
        resend = Backoff(self.now, first=0.3, longest=5.0)
        asked_engine = 0
        begun = self.now.monotonic()
        while True:
            wait = backoff.seconds()
            try:
                instance = yield from do(read, self.until)
            except NotFoundError as error:
                trouble = f"the server does not know it ({summary(error)})"
            except OrchestrationError as error:
                if not (is_passing(error) or is_unexplained(error)):
                    why = f"instance {chosen} was chosen, and: {summary(error)}"
                    raise self.ambiguous(why, (chosen,), error) from error
                trouble, wait = summary(error), max(wait, error.retry_after or 0.0)
            else:
                if shows_release(instance):
                    yield from self._abort_others(others, gate)
                    return Released("released", instance)
                if instance.terminated:
                    return Released("ended", instance)
                if not instance.status:
                    trouble = "the server shows no stage of it"
                    if is_old(instance, self.now.server_time(), self.now.monotonic() - begun):
                        asked_engine += yield from unknown_to_engine(chosen, self.versions, self.until)
                        if asked_engine >= 2:
                            return Released("ghost", instance)
                else:
                    trouble = "its gate is still closed"
                    if gate is None:
                        known = yield from self.gate_of(chosen)
                        gate = known.text if known is not None else None
                    if gate is not None and self.now.monotonic() >= send_at:
                        sent, said, after = yield from self._open(chosen, gate)
                        trouble = said or trouble
                        if sent:
                            backoff = Backoff(self.now, first=0.03, longest=2.0)
                        if after is not None:
                            send_at = self.now.monotonic() + max(resend.seconds(), after)
            if self.now.monotonic() + wait >= self.until:
                why = f"instance {chosen} was chosen, and its release is not confirmed: {trouble}; go on with chosen="
                raise self.ambiguous(why, (chosen, *others))
            yield from pause(wait)

    def _open(self, chosen: str, gate: str) -> Procedure[tuple[bool, str, float | None]]:
        """Send the event once, if the owner allows it.

        Returns:
            (whether it was taken, what went wrong, seconds before it may be sent again; None: at once).
        """
        yield from self.permit(chosen)
        allowed = min(self.until, self.now.monotonic() + ANSWER_HOLDS_SECONDS)
        try:
            yield from do(send_event(chosen, opening_event(gate), self.versions.plain), allowed)
        except NotFoundError as error:
            return False, summary(error), None  # the stage is not launched yet, which takes milliseconds
        except AuthenticationError as error:
            why = f"instance {chosen} was chosen, and may not be released: {summary(error)}"
            raise self.ambiguous(why, (chosen,), error) from error
        except OrchestrationError as error:
            return False, summary(error), error.retry_after or 0.0
        return True, "", 0.0

    def gate_of(self, chosen: str) -> Procedure[GateText | None]:
        """What the gate of a run says, as the engine shows it; None while it shows none.

        Raises:
            ValidationError: it waits at a gate of another key.
        """
        try:
            history = yield from do(get_instance_history(chosen, self.versions.plain), self.until)
        except OrchestrationError:
            return None
        event = history[0].input.get("event") if history and history[0].name == "RunWaitEvent" else None
        gate = parsed_event(event)
        if gate is None:
            return None
        if not is_same_key(gate.key, self.key):
            raise ValidationError(
                f"chosen: instance {chosen} waits at the gate of key {gate.key}, not of {self.key}", path="chosen"
            )
        return gate

    def _abort_others(self, others: Sequence[str], gate: str | None) -> Procedure[None]:
        """Lost submits of this attempt that still wait: best effort, they move nothing. No effect on generation 2."""
        for other in others:
            if self.left() <= 0:
                return
            try:
                history = yield from do(get_instance_history(other, self.versions.plain), self.until)
                waits = bool(history) and not history[0].terminated
                if waits and gate is not None and history[0].input.get("event") == opening_event(gate):
                    yield from do(abort_instance(other, self.versions.plain), self.until)
            except OrchestrationError as error:
                logger.info("unreleased instance %s was left waiting: %s", other, summary(error))

    # Runs of an ungated workflow

    def shown(self, instance: Instance) -> Procedure[Instance]:
        """The run whose answer arrived, once its row can be read: whoever gets the id next need not know it is
        young."""
        backoff = Backoff(self.now, first=0.05)
        while True:
            try:
                return (yield from do(get_instance(instance.id, self.versions.plain), self.until))
            except OrchestrationError as error:
                wait = backoff.seconds(error)
            if self.now.monotonic() + wait >= self.until:
                return instance
            yield from pause(wait)

    def proofs(self, places: Collection[tuple[int, str]]) -> Procedure[tuple[list[Proof], list[str]]]:
        """(runs whose history carries the key, ids of all candidates); the oldest first.

        Args:
            places: (number of a stage, path in its input) where the definition says that the key stands.
        """
        rows = yield from self._candidates()
        rows.sort(key=lambda row: (row.created_at, row.id))
        proven: list[Proof] = []
        for row in rows if places else ():
            history: Sequence[StageRun]
            try:
                history = yield from do(get_instance_history(row.id, self.versions.plain), self.until)
            except OrchestrationError:
                continue
            shown = [
                text
                for number, run in enumerate(history)
                for path, text in strings_of(run.input)
                if (number, path) in places
            ]
            if shown and all(is_same_key(text, self.key) for text in shown):
                proven.append(Proof(row, history))
            elif row.terminated:
                self.foreign.add(row.id)  # all that will ever stand in its history has been read
        return proven, [row.id for row in rows]


def _age(found: Found) -> tuple[datetime, str]:
    return found.instance.created_at, found.instance.id


def is_same_key(found: object, wanted: str) -> bool:
    """Keys are compared as whole strings: ``run-1`` is not ``run-10``."""
    return found == wanted


def shows_release(instance: Instance) -> bool:
    """Whether the rows of an instance say that its gate is behind it."""
    return any(
        row.stage > 0 or (row.stage == 0 and row.terminated_at is not None and row.error is None)
        for row in instance.status
    )


def unknown_to_engine(instance_id: str, versions: Versions, until: float | None) -> Procedure[int]:
    """1 where the engine says that it does not know the run, 0 where it did not say, -2 where it does know it."""
    try:
        yield from do(get_instance_history(instance_id, versions.plain), until)
    except NotFoundError as error:
        return 1 if error.error_code is not None else 0  # without a code it was a gateway that answered
    except OrchestrationError:
        return 0
    return -2


def check_placeholders(
    workflow: Workflow, texts: Mapping[str, str], allow_unbound: bool, versions: Versions, now: Now, until: float
) -> Procedure[None]:
    """Refuse what the server would fill in wrongly.

    Raises:
        ValidationError: a placeholder has no value, or two of them stand in one string on a server that empties it.
    """
    if not allow_unbound:
        for path, name in placeholders(own_stages(workflow.stages)):
            if name not in texts:
                raise ValidationError(
                    f"{path} of workflow {workflow.id} needs the variable {name!r}, which has no value: the server "
                    "would fill in nothing or a default; give it, or allow_unbound=True",
                    path=f"variables.{name}",
                )
    crowded = has_crowded_string(own_stages(workflow.stages))
    if crowded is not None:
        # Generation 1 takes all from the first ${ to the last } for one unknown name. It has no v2.
        try:
            yield from insist(get_workflow(workflow.id, "v2"), now, until)
        except NotFoundError as error:
            if error.error_code is None:
                raise ValidationError(
                    f"{crowded} of workflow {workflow.id} has two variables in one string, which this generation of "
                    "the server replaces by nothing; join them in one variable",
                    path=crowded,
                ) from None


def unreleased(
    workflow_id: str, versions: Versions, now: Now, until: float
) -> Procedure[tuple[tuple[Instance, str], ...]]:
    """(instance, run key) of each run of a gated workflow that still waits for its release, oldest first.

    Lost submits leave such runs; they move nothing. One history call per running instance.
    """
    found: list[tuple[Instance, str]] = []
    for row in (yield from snapshot(workflow_id, versions, now, until)):
        if row.terminated:
            continue
        history = yield from insist(get_instance_history(row.id, versions.plain), now, until)
        event = history[0].input.get("event") if history and history[0].name == "RunWaitEvent" else None
        if isinstance(event, str) and event.startswith(OPENING) and not history[0].terminated:
            gate = parsed_event(event)
            found.append((row, gate.key if gate is not None else event.removeprefix(OPENING)))
    found.sort(key=lambda one: (one[0].created_at, one[0].id))
    return tuple(found)

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

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone

from ..api.calls import get_instance, run_workflow
from ..api.errors import (
    AmbiguousRunError,
    AuthenticationError,
    OrchestrationError,
    RateLimitedError,
    StateUnknownError,
    TransportError,
    UnreadableAnswerError,
    ValidationError,
    is_ambiguous,
    is_inconclusive,
    is_mendable,
    retold,
    summary,
)
from ..api.instants import UNKNOWN_INSTANT
from ..api.models import Instance
from ..telemetry import count
from .effects import Backoff, Now, Procedure, do, insist, pause
from .gate import GateText
from .listing import Versions, snapshot
from .moved import NOTHING_READ

CLOCK_SKEW = timedelta(minutes=5)
"""How far the server's clock may be behind ours when candidates are chosen by age."""
KEY_AGE = timedelta(days=7)
"""How old a key may be where the caller does not say since when it is in use; runs before that are not looked at."""
SUBMIT_SECONDS = 1.0
"""Seconds that must be left for a submit to be begun."""
_GOES_ON = "an attempt with the same key goes on from there"
_LATER = "this attempt released nothing; an attempt with the same key looks again"


def is_same_key(found: object, wanted: str) -> bool:
    """Keys are compared as whole strings: ``run-1`` is not ``run-10``."""
    return found == wanted


def earliest_of(since: datetime, now: Now) -> datetime:
    """No run that was submitted at ``since``, by our clock, can be older, by the server's."""
    behind = max(0.0, now.time() - now.server_time())
    return since - CLOCK_SKEW - timedelta(seconds=behind)


def no_token() -> None:
    """Nothing is on record that a word of the user could settle."""


class Starting:
    """What the steps of one start share.

    Args:
        workflow_id: what is to run.
        key: of the run.
        texts: all variables as they are sent, but for the text of the gate.
        since: the key was not used before; None where that is not known.
        fresh: the key was never used before, so all runs of it are of this very attempt.
        timeout: seconds for all steps together.
        comes_again: a later attempt has the same key and finds what this one has left. Then a server that cannot be
            read leaves nothing in doubt that the later attempt could not find out.
        permit: asks the owner before a run is released, or one without a gate is submitted (None); raises where the
            owner does not want it.
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
        comes_again: bool,
        permit: Callable[[str | None], Procedure[None]],
        versions: Versions,
        now: Now,
    ) -> None:
        self.workflow_id = workflow_id
        self.key = key
        self.texts = texts
        self.since = since
        self.fresh = fresh
        self.timeout = timeout
        self.comes_again = comes_again
        self.permit = permit
        self.versions = versions
        self.now = now
        self.until = now.monotonic() + timeout
        self.begun = now.time()
        self.foreign: set[str] = set()
        self.rounds: set[int] = set()
        self.submit_may_exist = not fresh  # by an earlier attempt
        self.lost_ungated = ""  # why the fate of a submit of this attempt is unknown that no gate holds back
        self.token: Callable[[], str | None] = no_token  # settles what is not known of the run on record

    def left(self) -> float:
        """Seconds until all must be over."""
        return self.until - self.now.monotonic()

    def earliest(self) -> datetime:
        """No run of this key can be older."""
        if self.since is not None:
            return earliest_of(self.since, self.now)
        # By the server's clock: a row that this very attempt caused, or one as old as a key may be.
        ours = min(self.begun, self.now.server_time())
        span = timedelta(seconds=self.timeout) + CLOCK_SKEW if self.fresh else KEY_AGE
        return datetime.fromtimestamp(ours, timezone.utc) - span

    def ambiguous(
        self,
        why: str,
        candidates: Sequence[str],
        cause: BaseException | None = None,
        *,
        what: str | None = None,
    ) -> AmbiguousRunError:
        """The error for a run that may exist, or for ``what`` else is not known."""
        earliest = self.since or (datetime.fromtimestamp(self.begun, timezone.utc) if self.fresh else self.earliest())
        named = f"; candidates: {', '.join(candidates)}" if candidates else ""
        token = self.token()
        anew = f"; settled={token!r} pays anew: only once you know that it did not pay, and will not"
        settle = anew if token else ""
        of = f" of workflow {self.workflow_id}" if self.workflow_id else ""
        error = AmbiguousRunError(
            f"{what or f'a run{of} with key {self.key} may exist'}: {why}{named}{settle}",
            workflow_id=self.workflow_id,
            run_key=self.key,
            window=(earliest, datetime.fromtimestamp(max(self.now.time(), self.begun), timezone.utc)),
            candidates=candidates,
            token=token,
        )
        error.__cause__ = cause
        return error

    def unread(
        self,
        why: str,
        error: OrchestrationError | None,
        candidates: Sequence[str] = (),
        *,
        instance_id: str | None = None,
        what: str | None = None,
    ) -> OrchestrationError:
        """The error for a server that could not be read, so that this attempt could not go on.

        Where a later attempt with the key can find out, nothing is ambiguous, and nothing is to be settled: it is the
        error itself, or StateUnknownError where the run is known. Else it is an AmbiguousRunError.

        Args:
            why: what could not be read.
            error: what the read has ended with; None where the run is there, and did not get on.
            candidates: ids of instances that may be the run.
            instance_id: the run, where it is on record.
            what: instead of "a run may exist".
        """
        if self.lost_ungated:
            return self.ambiguous(f"{self.lost_ungated}, and {why}", candidates, error)
        refused = instance_id is not None and isinstance(error, ValidationError)  # a read of what is on record
        later = self.comes_again and (error is None or refused or is_mendable(error))
        if not later or (error is None and instance_id is None):
            return self.ambiguous(why, candidates or ((instance_id,) if instance_id else ()), error, what=what)
        if error is not None and (instance_id is None or isinstance(error, AuthenticationError)):
            unsure = f"{what}: {why}" if what else f"a run with key {self.key} may exist: {why}; {_LATER}"
            told = retold(error, unsure if instance_id is None else f"{why}; {_GOES_ON}")
            told.run_may_exist = True
            return told
        made = StateUnknownError(
            f"{why}; {_GOES_ON}",
            instance_id=instance_id or "",
            instance=None,
            moved=NOTHING_READ,
        )
        made.retry_after = error.retry_after if error is not None else None
        made.__cause__ = error
        return made

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
                begun = self.now.server_time()
                return self._made_now((yield from do(call, self.until)), begun)
            except OrchestrationError as error:
                if is_ambiguous(error):
                    self.submit_may_exist = True
                    count("ambiguous_submits", operation="run_workflow")
                    raise
                surely_nothing = isinstance(error, RateLimitedError) or is_inconclusive(error) or error.before_send
                wait = backoff.seconds(error)
                if not surely_nothing or self.now.monotonic() + wait >= self.until:
                    if self.submit_may_exist:
                        why = f"an earlier submit may have started it, and now: {summary(error)}"
                        if gate is not None:
                            raise self.unread(why, error) from error
                        raise self.ambiguous(why, (), error) from error
                    raise
            yield from pause(wait)
            if gate is None:
                yield from self.permit(None)

    def _made_now(self, instance: Instance, begun: float) -> Instance:
        """The answer to a submit, refused where it is about a run that is older than the submit."""
        earliest = datetime.fromtimestamp(begun, timezone.utc) - CLOCK_SKEW
        if instance.created_at != UNKNOWN_INSTANT and instance.created_at < earliest:
            raise UnreadableAnswerError(
                f"run of workflow {self.workflow_id}: the answer is about instance {instance.id}, which is older",
                status_code=200,
                server_message=f"it is about instance {instance.id}, which is older than the submit",
            )
        return instance

    # Reading

    def is_mine(self, key: object) -> bool:
        """Whether a run that carries ``key`` is a run of this start's key."""
        return is_same_key(key, self.key)

    def candidates(self) -> Procedure[list[Instance]]:
        """Rows of the workflow that are young enough to be of this key and not known to be another's."""
        try:
            rows = yield from snapshot(self.workflow_id, self.versions, self.now, self.until)
        except OrchestrationError as error:
            raise self.unread(f"the list of instances could not be read ({summary(error)})", error) from error
        earliest = self.earliest()
        return [
            row
            for row in rows
            if row.id not in self.foreign and (row.created_at == UNKNOWN_INSTANT or row.created_at >= earliest)
        ]

    def read_found(self, instance_id: str) -> Procedure[Instance]:
        """An instance that a look found, by its id.

        Raises:
            StateUnknownError, AuthenticationError, AmbiguousRunError: it could not be read; see ``unread``.
        """
        try:
            instance = yield from insist(get_instance(instance_id, self.versions.plain), self.now, self.until)
        except OrchestrationError as error:
            why = f"instance {instance_id} was found and chosen, and then it could not be read ({summary(error)})"
            raise self.unread(why, error, instance_id=instance_id) from error
        self.versions.remembered.note_look(instance, self.now.monotonic())
        return instance

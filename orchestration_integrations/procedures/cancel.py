"""Cancelling an instance, and saying what is true afterwards.

An abort is a request: 204 comes before any effect, and on one generation of the server without
any. Only reading the instance until it has ended says that it was cancelled; a run that stands at a
checkpoint which nobody lets it pass is ``held``; everything else that is not seen to end is
``not_confirmed``. Repeating a cancel is harmless, so an abort whose answer was
lost or refused by a passing fault is sent again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from ..api.calls import abort_instance, get_instance, get_instance_history
from ..api.errors import (
    AuthenticationError,
    NotFoundError,
    OrchestrationError,
    ValidationError,
    is_ambiguous,
    is_gateways_404,
    is_inconclusive,
    says_completed,
    summary,
)
from ..api.models import ActivityRun, CancelOutcome, Instance
from .checkpoints import Standing, standing_at
from .effects import Backoff, Now, Procedure, do, pause
from .gate import stands_at_gate
from .gated_start import shows_release
from .ghosts import is_old, unknown_to_engine
from .limits import HELD_AFTER, LEAST, OWNER_ANSWER_SECONDS, ROW_GRACE
from .listing import Versions
from .moved import NOTHING_READ, read_moved

MOVED_SECONDS = 3.0
"""Seconds at most for reading what had moved."""
REPEAT_AFTER = 3.0
"""Seconds after which an accepted abort that shows no effect is sent again."""


class Holding(msgspec.Struct, frozen=True):
    """A stop that stands where every waiter of the run looks before it lets the run pass a checkpoint.

    Attributes:
        announced: whether a pass of this checkpoint was ever announced. What it raises counts as yes.
        stands: whether nobody has taken the stop back, asked after ``announced``. What it raises counts as no.
        since: monotonic seconds from which on a waiter that has not seen the stop can no longer send anything.
    """

    announced: Callable[[int], Procedure[bool]]
    stands: Callable[[], Procedure[bool]]
    since: float

    def excludes(self, standing: Standing, now: Now) -> Procedure[bool]:
        """Whether nobody has let the run pass this checkpoint, and nobody will."""
        if now.monotonic() < self.since:
            return False
        try:
            return not (yield from self.announced(standing.number)) and (yield from self.stands())
        except Exception:
            return False


def cancel(
    instance_id: str,
    *,
    timeout: float,
    versions: Versions,
    now: Now,
    row_grace: float = ROW_GRACE,
    permit: Callable[[], Procedure[None]] | None = None,
    holding: Holding | None = None,
    on_record: bool = False,
) -> Procedure[CancelOutcome]:
    """Abort, then read until the instance has ended or ``timeout`` seconds have passed. All is over a second later.

    Args:
        permit: asked before each abort; what it raises ends the cancel. Its word holds for ten seconds.
        holding: a stop that stands already: with it a run at a checkpoint that nobody will pass is ``held``.
        on_record: a record says that the server gave this id, so a run stands behind it whatever a read says.

    An abort that was sent may take effect whatever its answer and later reads say. So a read that fails never ends
    the cancel before its limit: the outcome is ``not_confirmed`` then.

    Raises:
        NotFoundError: the server answers, and knows no such instance.
        AuthenticationError, ValidationError: reading it is refused, until the limit where an abort was taken or may
            have been, else at once; the message tells how the abort was answered.
            ``run_may_exist`` of each of these is True where an abort was taken, or may have been, or the instance is
            there or on record: then nobody knows what became of it. It is False where nothing of an instance is known
            and the abort was refused as well: nothing was done, and the settings or the id are wrong.
    """
    begun = now.monotonic()
    until = begun + timeout
    over = until + LEAST
    call = abort_instance(instance_id, versions.plain)
    answer = ""
    taken = refused = False
    instance: Instance | None = None
    abort_at = begun
    answered_at: float | None = None
    not_found_since: float | None = None
    asked_engine = 0
    backoff = Backoff(now, first=0.05, longest=1.0)
    while True:
        if now.monotonic() >= abort_at:
            allowed = max(until, now.monotonic() + LEAST)
            if permit is not None:
                yield from permit()
                allowed = min(allowed, now.monotonic() + OWNER_ANSWER_SECONDS)
            try:
                yield from do(call, allowed)
                said, again, taken = "204", REPEAT_AFTER, True
                answered_at = now.monotonic() if answered_at is None else answered_at
            except OrchestrationError as error:
                said, taken = summary(error), taken or is_ambiguous(error)
                refused = isinstance(error, AuthenticationError | ValidationError)
                hopeless = not is_inconclusive(error) or says_completed(error)
                again = REPEAT_AFTER if hopeless else max(0.3, error.retry_after or 0.0)
                if answered_at is None and getattr(error, "status_code", None) is not None:
                    answered_at = now.monotonic()
            answer = answer or said
            abort_at = now.monotonic() + again
        looked_at = now.monotonic()
        denied: AuthenticationError | ValidationError | None = None
        try:
            instance = yield from do(get_instance(instance_id, versions.plain), over)
            not_found_since = None
        except NotFoundError as error:
            if not_found_since is None:
                not_found_since = looked_at
            if is_gateways_404(error):
                not_found_since = None
            elif instance is not None or looked_at - not_found_since >= row_grace:
                known = ", though it is on record: is this another server? It may still run and move money"
                unknown = NotFoundError(
                    f"instance {instance_id} is unknown to the server ({summary(error)}; the abort was answered "
                    f"{answer}){known if on_record else ''}",
                    status_code=error.status_code,
                    error_code=error.error_code,
                )
                unknown.run_may_exist = on_record or taken or instance is not None
                raise unknown from error
        except (AuthenticationError, ValidationError) as error:
            denied = error
            if not taken:
                raise _unread(instance_id, denied, answer, on_record or not refused) from denied
        except OrchestrationError:
            pass  # of a read; the abort may have been taken all the same
        if instance is not None and instance.terminated:
            status: Literal["cancelled", "already_ended"] = (
                "cancelled" if instance.state == "cancelled" else "already_ended"
            )
            return (yield from _outcome(status, instance, answer, versions, now, over))
        known_for = now.monotonic() - begun
        if instance is not None and not instance.status and is_old(instance, now.server_time(), known_for):
            asked_engine += yield from unknown_to_engine(instance_id, versions, until)
            if asked_engine >= 2:
                return (yield from _outcome("never_started", instance, answer, versions, now, over))
        wait = backoff.seconds()
        last = now.monotonic() + wait > until
        patient = answered_at is None or now.monotonic() - answered_at < HELD_AFTER
        standing = None
        if instance is not None and (last or (holding is not None and not patient)):
            standing = yield from _standing(instance, versions, over)
        if standing is not None and holding is not None and (yield from holding.excludes(standing, now)):
            return (yield from _outcome("held", instance, answer, versions, now, over, standing))
        if last and denied is not None:
            raise _unread(instance_id, denied, answer, may_exist=True) from denied
        if last:
            at_gate = instance is not None and (yield from _at_gate(instance, versions, over))
            return (yield from _outcome("not_confirmed", instance, answer, versions, now, over, standing, at_gate))
        yield from pause(wait)


def _unread(
    instance_id: str, denied: AuthenticationError | ValidationError, answer: str, may_exist: bool
) -> AuthenticationError | ValidationError:
    unread = type(denied)(
        f"instance {instance_id} may still run and move money: the abort was answered {answer}, and its state may not "
        f"be read: {denied}",
        status_code=denied.status_code,
        error_code=denied.error_code,
        server_message=denied.message,
    )
    unread.run_may_exist = may_exist
    return unread


def _standing(instance: Instance, versions: Versions, over: float) -> Procedure[Standing | None]:
    try:
        return (yield from standing_at(instance, versions, over))
    except OrchestrationError:
        return None


def _at_gate(instance: Instance, versions: Versions, over: float) -> Procedure[bool]:
    """Whether the engine shows the instance at its gate. What cannot be read is no."""
    if instance.terminated or not instance.status or shows_release(instance):
        return False
    try:
        return stands_at_gate((yield from do(get_instance_history(instance.id, versions.plain, strict=True), over)))
    except OrchestrationError:
        return False


def _outcome(
    status: Literal["cancelled", "already_ended", "never_started", "held", "not_confirmed"],
    instance: Instance | None,
    answer: str,
    versions: Versions,
    now: Now,
    over: float,
    standing: Standing | None = None,
    at_gate: bool = False,
) -> Procedure[CancelOutcome]:
    moved = NOTHING_READ
    in_flight: tuple[ActivityRun, ...] = ()
    if instance is not None:
        reading = yield from read_moved(instance, versions, now, min(over, now.monotonic() + MOVED_SECONDS))
        moved, in_flight = reading.moved, reading.in_flight
    ended = status in ("cancelled", "already_ended")
    return CancelOutcome(
        status=status,
        instance=instance,
        abort_answer=answer,
        moved=moved,
        in_flight=in_flight if ended else (),
        checkpoint=None if standing is None else standing.number,
        at_gate=at_gate,
    )

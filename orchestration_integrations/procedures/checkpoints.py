"""Standing at a checkpoint, and letting a run pass it.

A run that stands at a checkpoint moves nothing, on every generation of the server, until somebody sends the one event
that it waits for. Whoever waits for the run sends it: **ask the owner, look for a stop, announce the pass, look once
more, send.** Whoever wants to stop the run does the reverse: puts the stop on record, then looks whether a pass was
announced. So one of the two always sees the other, and a stop that finds no pass announced knows that the run stands
there for good. An announcement is never taken back: two waiters may have relied on one.

A pass that was announced may have been sent, and one that was sent may lie in the queue of the stage, where any later
event takes it out. So it is never said of such a checkpoint that the run is held there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from ..api.calls import get_instance_history, send_event
from ..api.errors import OrchestrationError, OwnerGoneError, OwnerUnreachableError, is_ambiguous, summary
from ..api.models import Instance
from .effects import Now, Procedure, ask, do
from .gate import parsed_checkpoint, parsed_event
from .gated_start import shows_release
from .limits import OWNER_ANSWER_SECONDS
from .listing import Versions

Permit = Literal["pass", "held", "held amid pass"]
"""What a guard says: ``held``: a stop was asked for, and nobody has announced a pass of this checkpoint;
``held amid pass``: a stop was asked for, and a pass of this checkpoint may have been sent before."""
Guard = Callable[[int], Procedure[Permit]]
"""Asked with the user's number of the stage behind the checkpoint, right before its event is sent, each time. It raises
OwnerGoneError where the run may not go on, OwnerUnreachableError where it is to be asked again later."""


class CallersGuard:
    """A guard that asks the caller alone, who keeps no record.

    Args:
        instance_id: for messages.
        asked: with the user's number of the stage; ``yes`` lets the run go on to it.
    """

    def __init__(self, instance_id: str, asked: Callable[[int], str]) -> None:
        self._instance_id = instance_id
        self._asked = asked

    def __call__(self, number: int) -> Procedure[Permit]:
        """As of ``Guard``."""
        answer = yield from ask(self._asked, number)
        if answer.error is not None:
            raise OwnerUnreachableError(
                f"at_checkpoint could not say whether instance {self._instance_id} may go on to stage {number} "
                f"({type(answer.error).__name__}: {answer.error})",
                run_key=None,
                instance_id=self._instance_id,
            ) from answer.error
        if answer.value != "yes":
            raise OwnerGoneError(
                f"at_checkpoint did not let instance {self._instance_id} go on to stage {number}: it stands there, and "
                "it was not cancelled",
                run_key=None,
                instance_id=self._instance_id,
            )
        return "pass"


class Standing(msgspec.Struct, frozen=True):
    """Where a run stands.

    Attributes:
        stage: the checkpoint, by the server's number.
        number: the stage behind it, by the user's number.
        event: what the checkpoint waits for, as the engine shows it.
        since: epoch seconds by the server's clock.
    """

    stage: int
    number: int
    event: str
    since: float


class PassTried(msgspec.Struct, frozen=True):
    """What became of one try to pass a checkpoint.

    Attributes:
        outcome: ``sent``; ``lost``: it may have been taken; ``refused``: it was not; ``not ready``: the stage does not
            listen yet; ``unasked``: the owner cannot be asked; ``unguarded``: nobody may pass it; or the guard's word.
        standing: the checkpoint; None where it does not listen yet.
        detail: what went wrong; empty for nothing.
        retry_after: seconds that the server asked for.
    """

    outcome: Literal["sent", "lost", "refused", "not ready", "unasked", "unguarded", "held", "held amid pass"]
    standing: Standing | None = None
    detail: str = ""
    retry_after: float = 0.0


def standing_at(instance: Instance, versions: Versions, until: float | None) -> Procedure[Standing | None]:
    """Where the instance listens at a checkpoint: its work is launched and waits. None where it does not.

    Raises:
        OrchestrationError: its history could not be read.
    """
    if instance.terminated or not instance.status or not shows_release(instance):
        return None
    history = yield from do(get_instance_history(instance.id, versions.plain, strict=True), until)
    stage = len(history) - 1  # the engine's word: a row of the server's can be lost
    if stage < 1 or history[stage].name != "RunWaitEvent" or history[stage].terminated:
        return None
    if any(row.stage > stage for row in instance.status):
        return None
    event = history[stage].input.get("event")
    found, gate = parsed_checkpoint(event), parsed_event(history[0].input.get("event"))
    if found is None or found[0] != gate or not isinstance(event, str):
        return None  # a text of the user's may look like one of ours, but not like those of this run
    return Standing(stage=stage, number=found[1], event=event, since=history[stage].started_at.timestamp())


def try_to_pass(
    instance: Instance, number: int | None, guard: Guard | None, versions: Versions, now: Now, until: float | None
) -> Procedure[PassTried]:
    """One try: see that the checkpoint listens, ask, send. Whether it was passed is for a later read to say.

    The event is sent within ten seconds of the guard's being asked, or not at all.

    Args:
        instance: as just read.
        number: the stage behind the checkpoint, by the user's number; None where only the engine knows it.
        guard: None: nobody may let it pass.
        until: monotonic seconds by which it must be over; None for no limit.

    Raises:
        OwnerGoneError: and whatever else the guard raises; nothing was sent.
    """
    try:
        standing = yield from standing_at(instance, versions, until)
    except OrchestrationError as error:
        return PassTried("not ready", detail=summary(error), retry_after=error.retry_after or 0.0)
    if standing is None or number not in (None, standing.number):
        return PassTried("not ready")
    if guard is None:
        return PassTried("unguarded", standing=standing)
    asked_at = now.monotonic()
    try:
        permit = yield from guard(standing.number)
    except OwnerUnreachableError as error:
        return PassTried("unasked", standing=standing, detail=str(error))
    if permit != "pass":
        return PassTried(permit, standing=standing)
    allowed = asked_at + OWNER_ANSWER_SECONDS
    if now.monotonic() >= allowed:
        return PassTried("refused", standing=standing, detail="the owner took too long to answer")
    try:
        call = send_event(instance.id, standing.event, versions.plain)
        yield from do(call, allowed if until is None else min(until, allowed))
    except OrchestrationError as error:
        outcome: Literal["lost", "refused"] = "lost" if is_ambiguous(error) else "refused"
        return PassTried(outcome, standing=standing, detail=summary(error), retry_after=error.retry_after or 0.0)
    return PassTried("sent", standing=standing)

"""Sending an event so that the stage that is meant takes it, and no other ever does.

The server delivers an event to whatever stage began last, swallows it where that stage does not
wait for the name, and answers 204 all the same. So: wait until the stage begun last is the launched
``wait_event`` for that name, send, and see that this stage ended.

A 204 after which the stage still waits may mean that the event lies in its queue (one is taken out
per wake-up, and only an arriving event wakes it). A *nudge*, an event of a random name that nobody
waits for, takes it out; a second event of the right name could outlive the stage and release a later
one. An ambiguous answer is looked into before anything is repeated, and where a later stage waits
for the same name nothing is ever repeated.

*The stage did not wait for it* is said only where that was seen. Where the server refuses the event, or does not show
whether the stage waits, its reason is what is told: see ``_Trouble``.

The events of gates and checkpoints are not for this procedure: whoever sends one by hand pays without asking whether
the payment is still wanted, and whether another run of the key was chosen. The owner protocol sends them itself.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from ..api.calls import get_instance, get_instance_history, get_workflow, send_event
from ..api.definitions import awaited_event, may_become
from ..api.errors import (
    EventNotDeliveredError,
    NotDelivered,
    NotFoundError,
    OrchestrationError,
    ValidationError,
    is_ambiguous,
    is_denial,
    is_gateways_404,
    is_inconclusive,
    retold,
    summary,
)
from ..api.models import Instance, StageStatus
from .effects import Backoff, Now, Procedure, ask_or_raise, do, insist, pause
from .gate import is_own_event, is_own_stage
from .limits import LAST_LOOK, LEAST, READ_BUDGET, ROW_GRACE
from .listing import Versions
from .naps import Nap, Times, plain_nap
from .waiting import Waiting
from .wording import stage_counted

NUDGE_SECONDS = 0.7
"""Seconds that a stage gets to end by itself before the first nudge; each further nudge waits longer."""
LONGEST_NUDGE_SECONDS = 15.0
NUDGES_BEFORE_RESEND = 2
"""Nudges after an answer that was lost, before the event itself may be sent again."""
REFUSED_SECONDS = 5.0
"""Seconds for which the server may refuse the event, or the look whether a stage waits, before that is told: a gateway
that is being changed refuses for a moment."""


def send_event_when_ready(
    instance_id: str,
    name: str,
    *,
    stage: int | None,
    timeout: float | None,
    versions: Versions,
    now: Now,
    row_grace: float = ROW_GRACE,
    before_send: Callable[[], object] | None = None,
    nap: Nap = plain_nap,
) -> Procedure[Instance]:
    """Deliver an event to the stage that waits for it.

    Args:
        nap: how time passes between two looks whether the stage listens.
        before_send: called right before the event is sent, each time; what it raises keeps it from being sent.

    Raises:
        ValidationError: it is the event of a gate or of a checkpoint; nothing was sent.
        EventNotDeliveredError: with the reason. ``not_ready`` without an ``instance``: whether the stage waits could
            not be read, or the server did not take the event.
        NotFoundError: the server knows no such instance.
        AuthenticationError, ValidationError, ServerError: the server refuses the event, or a read; nothing was sent.
            ``run_may_exist`` is True where a read was refused of an instance that had been seen.
    """
    delivery = _Delivery(instance_id, name, versions, now, timeout, before_send)
    instance = yield from delivery.read(row_grace)
    waiting_stages = yield from delivery.stages_for(instance, stage)
    target = _target(delivery, waiting_stages, stage, instance)
    resend = waiting_stages is not None and len(waiting_stages) == 1
    return (yield from _deliver(delivery, target, instance, nap, resend=resend))


_REFUSAL = (
    "this event opens a gate or a checkpoint. Only the owner of the run may send it, who asks first whether the "
    "payment is still wanted and whether another run was chosen. Run again with the same key (start, run_once, a run "
    "task, the command run): that releases the run and lets it pass. If a stop holds it, take that back first: "
    "orchestration-integrations runs resume KEY"
)


def refusal_of(name: str) -> str:
    """Why this event is not to be sent by hand, and what to do instead; empty where it may be."""
    return _REFUSAL if is_own_event(name) else ""


def refuse_own_event(name: str) -> None:
    """Refuse the event of a gate or of a checkpoint.

    Raises:
        ValidationError: it is one.
    """
    if refusal_of(name):
        raise ValidationError(_REFUSAL, path="name")


class _Trouble(msgspec.Struct, frozen=True):
    """Why the event was not sent, although its stage had begun.

    Attributes:
        error: what the server answered, or did not.
        of_look: to the look whether the stage waits; else to the event.
        since: monotonic seconds since which it refuses; None: reading or sending again may help.
    """

    error: OrchestrationError
    of_look: bool
    since: float | None


class _Delivery:
    """What the steps of one delivery share.

    Attributes:
        seen: the instance as it was last read; None before.
        trouble: with the last look or the last event; None where that look was answered.
        names: the events that the stages of its definition wait for, without those of the gate and of checkpoints.
        stages: of its definition; None while they are not known.
    """

    def __init__(
        self,
        instance_id: str,
        name: str,
        versions: Versions,
        now: Now,
        timeout: float | None,
        before_send: Callable[[], object] | None,
    ) -> None:
        self.times = Times(now)
        self.sleep = Waiting(instance_id, deadline=None if timeout is None else self.times.at() + timeout)
        self.instance_id = instance_id
        self.name = name
        self.versions = versions
        self.now = now
        self.before_send = before_send
        self.event_call = send_event(instance_id, name, versions.plain)
        self.seen: Instance | None = None
        self.trouble: _Trouble | None = None
        self.names: Sequence[str] = ()
        self.stages: Sequence[Mapping[str, Any]] | None = None

    @property
    def until(self) -> float:
        """Monotonic seconds at which it is given up."""
        until = self.times.until(self.sleep.deadline)
        return float("inf") if until is None else until

    def named(self, stage: int) -> str:
        """How an error names the stage that the server calls so."""
        return stage_counted(stage, self.stages)

    def failed(self, reason: NotDelivered, why: str, instance: Instance | None) -> EventNotDeliveredError:
        message = f"event {self.name!r} to instance {self.instance_id} was not delivered: {why}"
        if reason == "unknown":
            message = f"event {self.name!r} to instance {self.instance_id} may not have been delivered: {why}"
        return EventNotDeliveredError(message, reason=reason, instance_id=self.instance_id, instance=instance)

    def unreadable(self, error: OrchestrationError, *, sent: bool) -> OrchestrationError:
        """What a read that was given up means. Once the event was sent, no error hides that it may have arrived; where
        it was not, an instance that was seen before says nothing of now."""
        why = f"a read failed ({summary(error)})"
        if sent:
            return self.failed("unknown", why, self.seen)
        if is_inconclusive(error):
            return self.failed("not_ready", why, None)
        refused = retold(error, str(error))
        refused.run_may_exist = self.seen is not None
        return refused

    def note(self, error: OrchestrationError, *, of_look: bool) -> None:
        """The look, or the event, has met this."""
        if is_denial(error):
            self.trouble = None  # the work of the stage is not launched yet, or over: the rows tell which
            return
        refused = not is_inconclusive(error)
        before = self.trouble.since if self.trouble is not None else None
        since = (self.now.monotonic() if before is None else before) if refused else None
        self.trouble = _Trouble(error, of_look, since)

    @property
    def is_refused(self) -> bool:
        """Whether the server has refused for so long that it is not asked again."""
        since = None if self.trouble is None else self.trouble.since
        return since is not None and self.now.monotonic() - since >= REFUSED_SECONDS

    def not_sent(self, stage: int, instance: Instance) -> OrchestrationError:
        """Why nothing was sent, where the instance goes on and the stage is not over."""
        if self.trouble is None:
            return self.failed("not_ready", f"{self.named(stage)} did not wait for it in time", instance)
        error = self.trouble.error
        if self.trouble.of_look:
            why = f"whether {self.named(stage)} waits for it could not be read"
        else:
            why = f"{self.named(stage)} waited for it, and the server did not take it"
        if self.trouble.since is None:
            return self.failed("not_ready", f"{why} ({summary(error)})", None)
        refused = retold(error, f"event {self.name!r} to instance {self.instance_id} was not delivered: {why}: {error}")
        refused.run_may_exist = self.trouble.of_look
        return refused

    def limit(self) -> float:
        """Monotonic seconds by which a read that fails again and again is given up."""
        at = self.now.monotonic()
        return max(min(self.until, at + READ_BUDGET), at + LEAST)

    def read(self, row_grace: float) -> Procedure[Instance]:
        """The instance, waiting for a row that is late."""
        begun = self.now.monotonic()
        backoff = Backoff(self.now)
        call = get_instance(self.instance_id, self.versions.plain)
        while True:
            try:
                self.seen = yield from insist(call, self.now, self.limit())
                return self.seen
            except OrchestrationError as error:
                if is_gateways_404(error) or not isinstance(error, NotFoundError):
                    raise self.unreadable(error, sent=False) from error
                if self.now.monotonic() - begun >= min(row_grace, self.until - begun):
                    raise
            yield from pause(backoff.seconds())

    def stages_for(self, instance: Instance, wanted: int | None) -> Procedure[list[int] | None]:
        """The stages of the definition that may wait for the name; None where the definition can't be read.

        Raises:
            ValidationError: a gate or a checkpoint is meant.
        """
        call = get_workflow(instance.workflow_id, self.versions.plain)
        try:
            workflow = yield from insist(call, self.now, self.limit())
        except OrchestrationError as error:
            if is_denial(error):
                return None  # deleted, on a server that then hides it
            raise self.unreadable(error, sent=False) from error
        self.stages = workflow.stages
        waiting: list[int] = []
        own: list[int] = []
        for number, stage in enumerate(workflow.stages):
            event = awaited_event(stage)
            if event is not None and may_become(event, self.name):
                (own if is_own_stage(stage) else waiting).append(number)
            if event is not None and not is_own_stage(stage):
                self.names = [*self.names, event]
        if wanted in own or (own and not waiting):
            raise ValidationError(_REFUSAL, path="name")
        return waiting


COUNTS = "stage= counts a gate too: in a run with one, the first stage of the definition is stage=1"


def _target(delivery: _Delivery, waiting: Sequence[int] | None, stage: int | None, instance: Instance) -> int:
    if waiting is None:
        if stage is None:
            why = "its definition cannot be read, so no one knows which stages wait for it; say which with stage="
            raise delivery.failed("repeated_name", why, instance)
        return stage
    if stage is not None:
        if stage not in waiting:
            named = ", ".join(f"stage={one}" for one in waiting) or "no stage"
            do = "do" if len(waiting) > 1 else "does"
            raise delivery.failed(
                "no_such_stage", f"stage={stage} does not wait for it; {named} {do}. {COUNTS}", instance
            )
        return stage
    if not waiting:
        named = ", ".join(map(repr, dict.fromkeys(delivery.names)))
        known = f"they wait for {named}" if named else "none of them waits for an event"
        raise delivery.failed("no_such_stage", f"no stage waits for it; {known}", instance)
    if len(waiting) > 1:
        stages = ", ".join(f"stage={one}" for one in waiting)
        why = f"several stages may wait for it: say which one is meant, {stages}. {COUNTS}"
        raise delivery.failed("repeated_name", why, instance)
    return waiting[0]


def _instance_ended(delivery: _Delivery, stage: int, sent: bool, instance: Instance) -> EventNotDeliveredError:
    row = _row(instance, stage)
    unheard = not sent or (row is not None and row.error is not None)
    why = f"the instance has ended ({instance.state})"
    return delivery.failed("instance_ended" if unheard else "unknown", why, instance)


def _row(instance: Instance, stage: int) -> StageStatus | None:
    """The row of the stage, the last where a number stands twice."""
    return next((row for row in reversed(instance.status) if row.stage == stage), None)


def _ended(instance: Instance, stage: int) -> bool:
    """Whether the stage ended well: its own row says so, or a later stage has begun."""
    rows = [row for row in instance.status if row.stage == stage]
    if any(row.terminated_at is not None and row.error is None for row in rows):
        return True
    if any(row.error is not None for row in rows):
        return False
    # A row can stay open for good where the server lost a write.
    return any(other.stage > stage for other in instance.status) or (bool(rows) and instance.state == "succeeded")


def _deliver(delivery: _Delivery, stage: int, instance: Instance, nap: Nap, *, resend: bool) -> Procedure[Instance]:
    now = delivery.now
    sent = lost = seen = False
    nudges = 0
    nudge_at = 0.0
    pace = Backoff(now, longest=5.0)
    least = min(LEAST, max(0.0, delivery.until - now.monotonic()) / 2)  # no send without time for its answer
    while True:
        if sent and _ended(instance, stage):
            return instance
        if instance.terminated:
            raise _instance_ended(delivery, stage, sent, instance)
        if _ended(instance, stage):
            raise delivery.failed("stage_over", f"{delivery.named(stage)} was already over", instance)
        begun = _row(instance, stage) is not None
        if begun and not seen:
            seen = True
            pace = Backoff(now, first=0.05, longest=1.0)
        may_send = not sent or (lost and resend and nudges >= NUDGES_BEFORE_RESEND)
        if begun and may_send and delivery.until - now.monotonic() >= least:
            if (yield from _listens(delivery, stage)):
                outcome = yield from _send(delivery)
                if outcome != "refused":
                    sent, lost = True, outcome == "lost"
                    pace = Backoff(now, first=0.05, longest=1.0)
                    nudges, nudge_at = 0, now.monotonic() + NUDGE_SECONDS
            if not sent and delivery.is_refused:
                return (yield from _last_look(delivery, stage, sent))
        elif sent and now.monotonic() >= nudge_at:
            nudges += 1
            nudge_at = now.monotonic() + min(NUDGE_SECONDS * (nudges + 1), LONGEST_NUDGE_SECONDS)
            yield from _nudge(delivery)
        wait = pace.seconds()
        if now.monotonic() + wait >= delivery.until:
            return (yield from _last_look(delivery, stage, sent))
        at = delivery.times.at()
        yield from nap(delivery.sleep, at, at + wait)
        instance = yield from _read_again(delivery, sent)


def _listens(delivery: _Delivery, stage: int) -> Procedure[bool]:
    """Whether the stage's work is launched and waits for this very name: the row alone comes too early."""
    call = get_instance_history(delivery.instance_id, delivery.versions.plain, strict=True)
    try:
        history = yield from do(call, _capped(delivery))
    except OrchestrationError as error:
        delivery.note(error, of_look=True)
        return False
    waits = (
        len(history) == stage + 1
        and history[stage].name == "RunWaitEvent"
        and not history[stage].terminated
        and history[stage].input.get("event") == delivery.name
    )
    if not waits or (delivery.trouble is not None and delivery.trouble.of_look):
        delivery.trouble = None
    return waits


def _capped(delivery: _Delivery) -> float | None:
    return None if delivery.until == float("inf") else delivery.until


def _send(delivery: _Delivery) -> Procedure[str]:
    """``taken`` (204), ``lost`` (may have been taken) or ``refused`` (surely was not)."""
    if delivery.before_send is not None:
        yield from ask_or_raise(delivery.before_send)
    try:
        yield from do(delivery.event_call, _capped(delivery))
    except OrchestrationError as error:
        if is_ambiguous(error):
            return "lost"
        delivery.note(error, of_look=False)
        if error.retry_after:
            yield from pause(min(error.retry_after, max(0.0, delivery.until - delivery.now.monotonic())))
        return "refused"
    return "taken"


def _nudge(delivery: _Delivery) -> Procedure[None]:
    call = send_event(delivery.instance_id, f"nudge-{uuid.uuid4()}", delivery.versions.plain)
    try:
        yield from do(call, _capped(delivery))
    except OrchestrationError:
        return  # it is harmless whether it arrived or not


def _read_again(delivery: _Delivery, sent: bool) -> Procedure[Instance]:
    call = get_instance(delivery.instance_id, delivery.versions.plain)
    try:
        delivery.seen = yield from insist(call, delivery.now, delivery.limit())
        return delivery.seen
    except OrchestrationError as error:
        raise delivery.unreadable(error, sent=sent) from error


def _last_look(delivery: _Delivery, stage: int, sent: bool) -> Procedure[Instance]:
    instance: Instance | None = None
    try:
        call = get_instance(delivery.instance_id, delivery.versions.plain)
        instance = yield from do(call, delivery.now.monotonic() + LAST_LOOK)
    except OrchestrationError as error:
        raise delivery.unreadable(error, sent=sent) from error
    if sent and _ended(instance, stage):
        return instance
    if instance.terminated:
        raise _instance_ended(delivery, stage, sent, instance)
    if sent:
        raise delivery.failed("unknown", f"it was sent, but {delivery.named(stage)} still waits", instance)
    if _ended(instance, stage):
        raise delivery.failed("stage_over", f"{delivery.named(stage)} was already over", instance)
    raise delivery.not_sent(stage, instance)

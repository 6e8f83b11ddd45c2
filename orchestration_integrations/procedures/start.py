"""Starting a run exactly once, on a server that knows no idempotency key.

Nothing that can be observed ever proves that a submit did *not* start a run: its row can appear
hours later. So a second submit must be harmless, or must not happen.

**Gated.** The definition's first stage waits for the event ``go:<run key>``. A run that was created but
not released moves nothing, and its key can be read in its history. So: look for the key; if a run of
it is released, adopt that; else submit until one stands there; choose *one*, have the caller store its
id, and only then release it. Choosing anew is what could release two, so an id that was stored as
chosen is released and no other; and where several unreleased runs stand there without one on record,
that is said and nothing is released.

**Ungated.** One submit. If its answer is lost, or an earlier attempt may have submitted, only proof that a
run of the key exists is taken: the key as a whole string in a stage's history. Never a second submit.

Both hold for callers one after another. Two callers at once for one key must be kept apart by
whoever calls.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec

from ..api.calls import abort_instance, get_instance, get_instance_history, get_workflow, run_workflow, send_event
from ..api.definitions import awaited_event, has_crowded_string, may_become, placeholders, strings_of, variable_texts
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
from .define import gate_event
from .effects import Backoff, Now, Procedure, do, insist, pause, tell
from .listing import Versions, snapshot

logger = logging.getLogger("orchestration_integrations.procedures")

CLOCK_SKEW = timedelta(minutes=5)
"""How far the server's clock may be behind ours when candidates are chosen by age."""
LOOK_SECONDS = 2.0
"""Seconds for which a lost run is looked for before a gated submit is repeated."""
SUBMIT_SECONDS = 1.0
"""Seconds that must be left for a submit to be begun."""
RELEASE_SHOWS_SECONDS = 5.0
"""Seconds that an earlier attempt's release gets to show, where several candidates stand."""


class StartRequest(msgspec.Struct):
    """What a start was asked to do, checked; nothing was sent yet. Fields as the hook's ``start`` documents them."""

    workflow_id: str
    variables: Mapping[str, Any] | None
    run_key: str | None
    first_attempt: bool
    since: datetime | None
    chosen: str | None
    on_chosen: Callable[[str], object] | None
    key_variable: str
    allow_unbound: bool
    timeout: float
    texts: dict[str, str] = msgspec.field(default_factory=dict)
    key: str = ""
    fresh: bool = False

    def __post_init__(self) -> None:
        self.texts = variable_texts(self.variables)
        if not isinstance(self.key_variable, str) or not self.key_variable:
            raise ValidationError("key_variable must be a non-empty string", path="key_variable")
        if self.run_key is not None and (not isinstance(self.run_key, str) or not self.run_key):
            raise ValidationError(f"run_key must be a non-empty string, not {self.run_key!r}", path="run_key")
        given = self.texts.pop(self.key_variable, None)
        if given is not None:
            where = f"variables.{self.key_variable}"
            if self.run_key is not None:
                raise ValidationError(
                    f"{where} is set beside run_key: give the key once, as run_key, or name another key_variable",
                    path=where,
                )
            if not given:
                raise ValidationError(f"{where} must not be empty: it is the key of the run", path=where)
            self.run_key = given
        if self.since is not None and (not isinstance(self.since, datetime) or self.since.tzinfo is None):
            raise ValidationError("since must be a datetime with a time zone", path="since")
        if self.chosen is not None and (not isinstance(self.chosen, str) or not self.chosen):
            raise ValidationError("chosen must be the id of an instance", path="chosen")
        self.fresh = self.run_key is None or self.first_attempt
        self.key = self.run_key if self.run_key is not None else uuid.uuid4().hex
        self.texts[self.key_variable] = self.key


class _Start:
    """What the steps of one start share."""

    def __init__(self, request: StartRequest, versions: Versions, now: Now) -> None:
        self.request = request
        self.versions = versions
        self.now = now
        self.until = now.monotonic() + request.timeout
        self.begun = now.time()
        self.event = gate_event(request.key_variable).replace(f"${{{request.key_variable}}}", request.key)
        self.foreign: set[str] = set()
        self.submit_may_exist = not request.fresh  # by an earlier attempt

    def left(self) -> float:
        return self.until - self.now.monotonic()

    def earliest(self) -> datetime | None:
        """No run of this key can be older; None where nothing is known."""
        if self.request.since is not None:
            return self.request.since - CLOCK_SKEW
        if self.request.fresh:
            # By the server's clock: a row that this very attempt caused.
            ours = min(self.begun, self.now.server_time())
            return datetime.fromtimestamp(ours - self.request.timeout, timezone.utc) - CLOCK_SKEW
        return None

    def ambiguous(self, why: str, candidates: Sequence[str], cause: BaseException | None = None) -> AmbiguousRunError:
        earliest = self.request.since or datetime.fromtimestamp(self.begun, timezone.utc)
        named = f"; candidates: {', '.join(candidates)}" if candidates else ""
        error = AmbiguousRunError(
            f"a run of workflow {self.request.workflow_id} with key {self.request.key} may exist: {why}{named}",
            workflow_id=self.request.workflow_id,
            run_key=self.request.key,
            window=(earliest, datetime.fromtimestamp(max(self.now.time(), self.begun), timezone.utc)),
            candidates=candidates,
        )
        error.__cause__ = cause
        return error


def start(request: StartRequest, versions: Versions, now: Now) -> Procedure[Instance]:
    """Start, adopt or go on with the one run of a key.

    Raises:
        NotFoundError: no such workflow, or it is deleted. Nothing was sent.
        ValidationError: a placeholder has no value, or the input is wrong. Nothing was sent.
        AmbiguousRunError: a run may exist; what is known stands in its attributes.
    """
    self = _Start(request, versions, now)
    try:
        workflow = yield from insist(get_workflow(request.workflow_id, versions.plain), now, self.until)
    except NotFoundError as error:
        if request.chosen is None:
            if request.fresh or error.error_code is not None:
                raise
            why = f"an earlier attempt may have started it, and a gateway answered for the server ({summary(error)})"
            raise self.ambiguous(why, (), error) from error
        return (yield from _release(self, request.chosen, ()))  # deleted meanwhile, on a server that then hides it
    except OrchestrationError as error:
        if request.fresh and request.chosen is None:
            raise
        why = f"an earlier attempt may have started it, and the workflow could not be read ({summary(error)})"
        raise self.ambiguous(why, (request.chosen,) if request.chosen else (), error) from error
    if workflow.deleted_at is not None and request.chosen is None:
        raise NotFoundError(f"workflow {request.workflow_id} was deleted at {workflow.deleted_at.isoformat()}")
    gate = _is_gated(workflow, request)
    if request.chosen is None:
        yield from _check_placeholders(self, workflow)
    if gate:
        return (yield from _gated(self))
    return (yield from _ungated(self, workflow))


# ---- before anything is sent -----------------------------------------------------------------------


def _is_gated(workflow: Workflow, request: StartRequest) -> bool:
    first = awaited_event(workflow.stages[0]) if workflow.stages else None
    if first is None or not first.startswith("go:${"):
        return False
    if first != gate_event(request.key_variable):
        raise ValidationError(
            f"the gate of workflow {workflow.id} waits for {first!r}: name its variable as key_variable",
            path="key_variable",
        )
    own = gate_event(request.key_variable).replace(f"${{{request.key_variable}}}", request.key)
    for number, stage in enumerate(workflow.stages[1:], start=1):
        event = awaited_event(stage)
        if event is not None and event.startswith("go:") and may_become(event, own):
            raise ValidationError(
                f"stages[{number}] of workflow {workflow.id} may wait for the gate's event: a release could skip it",
                path=f"stages[{number}].wait_event.event",
            )
    return True


def _check_placeholders(self: _Start, workflow: Workflow) -> Procedure[None]:
    if not self.request.allow_unbound:
        for path, name in placeholders(workflow.stages):
            if name not in self.request.texts:
                raise ValidationError(
                    f"{path} of workflow {workflow.id} needs the variable {name!r}, which has no value: the server "
                    "would fill in nothing or a default; give it, or allow_unbound=True",
                    path=f"variables.{name}",
                )
    crowded = has_crowded_string(workflow.stages)
    if crowded is not None:
        # Generation 1 takes all from the first ${ to the last } for one unknown name. It has no v2.
        try:
            yield from insist(get_workflow(workflow.id, "v2"), self.now, self.until)
        except NotFoundError as error:
            if error.error_code is None:
                raise ValidationError(
                    f"{crowded} of workflow {workflow.id} has two variables in one string, which this generation of "
                    "the server replaces by nothing; join them in one variable",
                    path=crowded,
                ) from None


# ---- the gated protocol ----------------------------------------------------------------------------


def is_same_key(found: object, wanted: str) -> bool:
    """Keys are compared as whole strings: ``run-1`` is not ``run-10``."""
    return found == wanted


class _Seen(msgspec.Struct):
    """What a look found of the key: released runs, and unreleased ones that still wait."""

    released: list[Instance] = msgspec.field(default_factory=list)
    waiting: list[Instance] = msgspec.field(default_factory=list)


def _gated(self: _Start) -> Procedure[Instance]:
    request = self.request
    if request.chosen is not None:
        if request.run_key is None:
            raise ValidationError("chosen needs the run_key that it was chosen for", path="run_key")
        return (yield from _release(self, request.chosen, ()))
    found = _Seen()
    if not request.fresh:
        found = yield from _settled_look(self)
    while True:
        if found.released:
            return (yield from _adopt(self, found.released))
        if len(found.waiting) == 1 or (found.waiting and request.fresh):
            # Fresh: all of these are lost submits of this very attempt, and none was released.
            chosen, others = found.waiting[0].id, [row.id for row in found.waiting[1:]]
            break
        if found.waiting:
            why = "several unreleased runs of it stand there, and none is on record as chosen; nothing was released"
            raise self.ambiguous(why, [row.id for row in found.waiting])
        try:
            instance = yield from _submit(self)
        except OrchestrationError as error:
            if not is_ambiguous(error):
                raise
            found = yield from _look_for_lost(self, error)
            continue
        chosen, others = instance.id, []
        break
    yield from tell(request.on_chosen, chosen)
    return (yield from _release(self, chosen, others))


def _submit(self: _Start) -> Procedure[Instance]:
    """One submit; repeated only where the first surely did nothing."""
    call = run_workflow(self.request.workflow_id, self.request.texts, version=self.versions.plain)
    backoff = Backoff(self.now)
    while True:
        try:
            if self.left() < min(SUBMIT_SECONDS, self.request.timeout / 2):
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


def _look_for_lost(self: _Start, lost: OrchestrationError) -> Procedure[_Seen]:
    """After a lost answer: look for a while, then let the caller submit again, which is harmless here."""
    look_until = min(self.until, self.now.monotonic() + LOOK_SECONDS)
    backoff = Backoff(self.now, first=0.2)
    while True:
        found = yield from _look(self)
        if found.released or found.waiting:
            return found
        wait = backoff.seconds(lost)
        if self.now.monotonic() + wait >= self.until:
            raise self.ambiguous(f"its submit got no answer ({summary(lost)}) and no list shows it yet", (), lost)
        if self.now.monotonic() >= look_until:
            return found
        yield from pause(wait)


def _settled_look(self: _Start) -> Procedure[_Seen]:
    """A look; where several unreleased runs stand there, an earlier attempt's release gets time to show."""
    show_until = self.now.monotonic() + RELEASE_SHOWS_SECONDS
    backoff = Backoff(self.now, first=0.2)
    while True:
        found = yield from _look(self)
        wait = backoff.seconds()
        if found.released or len(found.waiting) < 2 or self.now.monotonic() + wait >= min(show_until, self.until):
            return found
        yield from pause(wait)


def _candidates(self: _Start) -> Procedure[list[Instance]]:
    """Rows of the workflow that are young enough to be of this key and not known to be another's."""
    try:
        rows = yield from snapshot(self.request.workflow_id, self.versions, self.now, self.until)
    except OrchestrationError as error:
        raise self.ambiguous(f"the list of instances could not be read ({summary(error)})", (), error) from error
    earliest = self.earliest()
    return [
        row
        for row in rows
        if row.id not in self.foreign
        and (earliest is None or row.created_at == UNKNOWN_INSTANT or row.created_at >= earliest)
    ]


def _look(self: _Start) -> Procedure[_Seen]:
    """All runs of this key that the server shows, at one history call per candidate."""
    found = _Seen()
    for row in (yield from _candidates(self)):
        history = yield from _history_of(self, row)
        if not history:
            continue  # a ghost or a run that has not begun: it cannot have been released
        gate = history[0]
        if gate.name != "RunWaitEvent" or not is_same_key(gate.input.get("event"), self.event):
            self.foreign.add(row.id)
        elif gate.terminated and gate.error is None:
            found.released.append(row)
        elif gate.terminated or row.terminated:
            self.foreign.add(row.id)  # aborted before its release: it counts as none
        else:
            found.waiting.append(row)
    found.waiting.sort(key=lambda row: (row.created_at, row.id))
    return found


def _history_of(self: _Start, row: Instance) -> Procedure[Sequence[StageRun]]:
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
    if unreadable is None and not _shows_release(instance):
        return ()  # its first stage is not launched yet, or failed before its work
    why = f"the history of instance {row.id} cannot be read"
    raise self.ambiguous(f"{why} ({summary(unreadable)})" if unreadable else why, (row.id,), unreadable)


def _shows_release(instance: Instance) -> bool:
    """Whether the rows of an instance say that its gate is behind it."""
    return any(
        row.stage > 0 or (row.stage == 0 and row.terminated_at is not None and row.error is None)
        for row in instance.status
    )


def _adopt(self: _Start, released: Sequence[Instance]) -> Procedure[Instance]:
    if len(released) > 1:
        why = "more than one run of it is released already"
        raise self.ambiguous(why, [row.id for row in released])
    row = released[0]
    logger.info("run key %s: adopting instance %s", self.request.key, row.id, extra=_ids(self, row.id))
    try:
        return (yield from insist(get_instance(row.id, self.versions.plain), self.now, self.until))
    except OrchestrationError as error:
        raise self.ambiguous(f"instance {row.id} could not be read ({summary(error)})", (row.id,), error) from error


def _release(self: _Start, chosen: str, others: Sequence[str]) -> Procedure[Instance]:
    """Send ``go:<key>`` until the gate of the chosen run is seen to be behind it.

    Nothing else waits for that event, so repeating it releases nothing else, and takes an earlier one
    out of the stage's queue.
    """
    event = send_event(chosen, self.event, self.versions.plain)
    read = get_instance(chosen, self.versions.plain)
    backoff = Backoff(self.now, first=0.03, longest=2.0)
    trouble = "its row did not appear"
    send_at = 0.0
    resend = Backoff(self.now, first=0.3, longest=5.0)
    while True:
        wait = backoff.seconds()
        try:
            instance = yield from do(read, self.until)
        except NotFoundError as error:
            trouble = f"the server does not know it ({summary(error)})"
        except OrchestrationError as error:
            if not (is_passing(error) or is_unexplained(error)):
                raise self.ambiguous(
                    f"instance {chosen} was chosen, and: {summary(error)}", (chosen,), error
                ) from error
            trouble, wait = summary(error), max(wait, error.retry_after or 0.0)
        else:
            if _shows_release(instance):
                yield from _abort_others(self, others)
                return instance
            if instance.terminated:
                return instance
            trouble = "its gate is still closed" if instance.status else "the server shows no stage of it"
            if instance.status and self.now.monotonic() >= send_at:
                try:
                    yield from do(event, self.until)
                    send_at = self.now.monotonic() + resend.seconds()
                    backoff = Backoff(self.now, first=0.03, longest=2.0)
                except NotFoundError as error:
                    trouble = summary(error)  # the stage is not launched yet, which takes milliseconds
                except AuthenticationError as error:
                    why = f"instance {chosen} was chosen, and may not be released: {summary(error)}"
                    raise self.ambiguous(why, (chosen,), error) from error
                except OrchestrationError as error:
                    trouble = summary(error)
                    send_at = self.now.monotonic() + max(resend.seconds(), error.retry_after or 0.0)
        if self.now.monotonic() + wait >= self.until:
            why = f"instance {chosen} was chosen, and its release is not confirmed: {trouble}; go on with chosen="
            raise self.ambiguous(why, (chosen, *others))
        yield from pause(wait)


def _abort_others(self: _Start, others: Sequence[str]) -> Procedure[None]:
    """Lost submits of this attempt that still wait: best effort, they move nothing. No effect on generation 2."""
    for other in others:
        if self.left() <= 0:
            return
        try:
            history = yield from do(get_instance_history(other, self.versions.plain), self.until)
            if history and not history[0].terminated and history[0].input.get("event") == self.event:
                yield from do(abort_instance(other, self.versions.plain), self.until)
        except OrchestrationError as error:
            logger.info("unreleased instance %s was left waiting: %s", other, summary(error))


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
        if isinstance(event, str) and event.startswith("go:") and not history[0].terminated:
            found.append((row, event.removeprefix("go:")))
    found.sort(key=lambda one: (one[0].created_at, one[0].id))
    return tuple(found)


# ---- the ungated protocol --------------------------------------------------------------------------


def _ungated(self: _Start, workflow: Workflow) -> Procedure[Instance]:
    request = self.request
    if request.chosen is not None:
        return (yield from _known(self, request.chosen))
    provable = any(text == f"${{{request.key_variable}}}" for _, text in strings_of(list(workflow.stages)))
    if not request.fresh:
        why = "an earlier attempt may have submitted it, and this definition has no gate"
        return (yield from _proof(self, why, provable, None))
    if not provable:
        _warn_unprovable(workflow, request.key_variable)
    try:
        instance = yield from _submit(self)
    except OrchestrationError as error:
        if not is_ambiguous(error):
            raise
        return (yield from _proof(self, f"its submit got no answer ({summary(error)})", provable, error))
    yield from tell(request.on_chosen, instance.id)
    return (yield from _shown(self, instance))


def _shown(self: _Start, instance: Instance) -> Procedure[Instance]:
    """The run whose answer arrived, once its row can be read: whoever gets the id next need not know it is young."""
    backoff = Backoff(self.now, first=0.05)
    while True:
        try:
            return (yield from do(get_instance(instance.id, self.versions.plain), self.until))
        except OrchestrationError as error:
            wait = backoff.seconds(error)
        if self.now.monotonic() + wait >= self.until:
            return instance
        yield from pause(wait)


def _known(self: _Start, chosen: str) -> Procedure[Instance]:
    """The instance on record, waiting for a row that is late."""
    backoff = Backoff(self.now)
    while True:
        try:
            return (yield from insist(get_instance(chosen, self.versions.plain), self.now, self.until))
        except OrchestrationError as error:
            wait = backoff.seconds(error)
            if not isinstance(error, NotFoundError) or self.now.monotonic() + wait >= self.until:
                why = f"instance {chosen} is on record and could not be read ({summary(error)})"
                raise self.ambiguous(why, (chosen,), error) from error
        yield from pause(wait)


def _proof(self: _Start, why: str, provable: bool, cause: BaseException | None) -> Procedure[Instance]:
    """Adopt the run whose history carries the key; else say that there may be one."""
    backoff = Backoff(self.now, first=0.2)
    candidates: list[str] = []
    while True:
        rows = yield from _candidates(self)
        rows.sort(key=lambda row: (row.created_at, row.id))
        candidates = [row.id for row in rows]
        if not provable:
            raise self.ambiguous(f"{why}; no stage carries the key, so nothing can be proved", candidates, cause)
        proven = []
        for row in rows:
            history: Sequence[StageRun]
            try:
                history = yield from do(get_instance_history(row.id, self.versions.plain), self.until)
            except OrchestrationError:
                continue
            if any(is_same_key(text, self.request.key) for run in history for _, text in strings_of(run.input)):
                proven.append(row)
            elif row.terminated:
                self.foreign.add(row.id)  # all that will ever stand in its history has been read
        if len(proven) > 1:
            raise self.ambiguous("more than one run carries the key", [row.id for row in proven], cause)
        if proven:
            instance = yield from _adopt(self, proven)
            yield from tell(self.request.on_chosen, instance.id)
            return instance
        wait = backoff.seconds()
        if self.now.monotonic() + wait >= self.until:
            raise self.ambiguous(why, candidates, cause)
        yield from pause(wait)


_warned: set[tuple[str, str]] = set()


def _warn_unprovable(workflow: Workflow, key_variable: str) -> None:
    if (workflow.id, key_variable) not in _warned:
        _warned.add((workflow.id, key_variable))
        logger.warning(
            "workflow %s has no gate and no stage that carries ${%s}: if the answer to a run is lost, nothing can tell "
            "whether it started; define it with a gate",
            workflow.id,
            key_variable,
        )


def _ids(self: _Start, instance_id: str) -> dict[str, str]:
    return {"workflow_id": self.request.workflow_id, "instance_id": instance_id, "run_key": self.request.key}

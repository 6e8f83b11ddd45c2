"""Which run a call means: keys that stay the same over every retry, and what is on record of them.

A task run has another id after a retry of its flow, and so has a subflow's run. What stays is the
outermost flow run and, below it, the task run that stands for a subflow. A key is made of these and a
step: the name the caller gives, or else the workflow, a fingerprint of the variables and a count of
equal calls. Two equal calls are interchangeable, so their order does not matter.

On record, as a label of the outermost flow run: before the submit that a key is in use, and before the
release which instance was chosen. A key that is not on record was never submitted. In a retry, a call
whose key is not on record while an earlier run of the same scope is not claimed may be that run with
changed variables: nobody can tell, so it is an error and not a second payment.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect.transactions import get_transaction

from ..api.definitions import awaited_event, variable_texts
from ..api.errors import AmbiguousRunError, ValidationError
from ..api.models import Instance
from ..procedures.define import KEY_VARIABLE, gate_event
from ..settings import Settings
from .flow_runs import INSTANCE_LABEL, STEP_LABEL, Place, here, lineage, put_labels, run_logger
from .rollback import roll_back_with

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..http_hook import OrchestrationHttpHook

_as_its_caller: ContextVar[bool] = ContextVar("orchestration_as_its_caller", default=False)


@contextmanager
def steps_of_the_caller() -> Iterator[None]:
    """For a flow that only wraps tasks: as a subflow its steps count as those of the flow that calls it."""
    token = _as_its_caller.set(True)
    try:
        yield
    finally:
        _as_its_caller.reset(token)


@dataclass(frozen=True)
class RunRequest:
    """What is to run. Fields as ``run_workflow`` documents them."""

    workflow_id: str
    variables: Mapping[str, Any] | None = None
    step: str | None = None
    run_key: str | None = None
    rerun_failed: bool = False
    key_variable: str = KEY_VARIABLE
    allow_unbound: bool = False
    timeout: float = 60.0

    def __post_init__(self) -> None:
        if not isinstance(self.workflow_id, str) or not self.workflow_id:
            raise ValidationError(
                f"workflow_id must be a non-empty string, not {self.workflow_id!r}: did the task that gives it run?",
                path="workflow_id",
            )
        for name in ("step", "run_key"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value):
                raise ValidationError(f"{name} must be a non-empty string, not {value!r}", path=name)
        if self.step is not None and self.run_key is not None:
            raise ValidationError("step: give either step or run_key", path="step")


@dataclass(frozen=True)
class _Record:
    """What is on record of a key."""

    key: str
    workflow: str
    variables: str
    server: str
    scope: str
    at: str
    attempt: str
    task: str
    step: str = ""
    instance: str | None = None

    @property
    def label(self) -> str:
        return STEP_LABEL + hashlib.sha256(self.key.encode()).hexdigest()[:20]

    @property
    def since(self) -> datetime:
        return datetime.fromisoformat(self.at)

    def text(self) -> str:
        return json.dumps({name: value for name, value in self.__dict__.items() if value})

    @classmethod
    def read(cls, text: object) -> _Record | None:
        try:
            given = json.loads(str(text))
            return cls(**{name: given.get(name, "") for name in cls.__dataclass_fields__ if name != "instance"},
                       instance=given.get("instance"))  # fmt: skip
        except (ValueError, TypeError, AttributeError):
            return None


@dataclass
class _Scope:
    """The flow whose steps are counted, and the outermost flow run, which keeps the record."""

    root: UUID
    name: str
    attempt: str
    retried: bool
    subflow: bool
    holders: tuple[UUID, ...]
    records: dict[str, _Record]


@dataclass
class _Claims:
    """What this process has given out for one outermost flow run."""

    labels: dict[str, str] = field(default_factory=dict)
    counts: dict[tuple[str, str], dict[object, int]] = field(default_factory=dict)


_claims: OrderedDict[UUID, _Claims] = OrderedDict()
_lock = threading.Lock()


def _claims_of(root: UUID) -> _Claims:
    if root not in _claims:
        while len(_claims) >= 1000:
            _claims.popitem(last=False)
        _claims[root] = _Claims()
    _claims.move_to_end(root)
    return _claims[root]


def _scope(flow_run_id: UUID) -> _Scope:
    runs = lineage(flow_run_id)
    counted = runs[1:] if _as_its_caller.get() and len(runs) > 1 else runs
    below = [str(run.parent_task_run_id) for run in reversed(counted) if run.parent_task_run_id is not None]
    root = runs[-1]
    records = {}
    for name, value in root.labels.items():
        record = _Record.read(value) if name.startswith(STEP_LABEL) else None
        if record is not None:
            records[name] = record
    return _Scope(
        root=root.id,
        name=":".join([str(root.id), *below]),
        attempt=" ".join(f"{run.id}/{run.run_count}" for run in reversed(counted)),
        retried=any((run.run_count or 0) > 1 for run in runs),
        subflow=len(counted) > 1,
        holders=tuple(run.id for run in runs),
        records=records,
    )


@dataclass
class Plan:
    """How to call ``start`` for a request, and what to do with the id that it chooses."""

    request: RunRequest
    settings: Settings
    arguments: dict[str, Any]
    key: str | None
    instance_id: str | None = None
    _record: _Record | None = None
    _scope: _Scope | None = None

    def choose(self, instance_id: str) -> None:
        """Store the id where a retry, a hook and a transaction find it. Raises where it cannot be stored: then
        nothing is released."""
        self.instance_id = instance_id
        transaction = get_transaction()
        if transaction is not None:
            if here().task_run_id is not None:
                transaction.set("instance_id", instance_id)
            roll_back_with(transaction, self.settings, instance_id)
        if self._scope is None or self._record is None:
            return
        record = self._record = _replaced(self._record, instance=instance_id)
        told = {INSTANCE_LABEL + instance_id: record.key}
        put_labels(self._scope.root, {record.label: record.text(), **told})
        for holder in self._scope.holders:
            if holder != self._scope.root:
                put_labels(holder, told)


def _replaced(record: _Record, **changes: Any) -> _Record:
    return _Record(**{**record.__dict__, **changes})


def plan_run(settings: Settings, request: RunRequest, hook: OrchestrationHttpHook) -> Plan:
    """Find out which run is meant, and store that its key is in use. Blocking; ``hook`` only reads.

    Raises:
        AmbiguousRunError: an earlier attempt started a run that may be this one.
        ValidationError: the input is wrong.
    """
    texts = variable_texts(request.variables)
    run_key = request.run_key
    if run_key is None and request.key_variable in texts:
        run_key = texts.pop(request.key_variable) or None
    arguments: dict[str, Any] = {
        "variables": texts,
        "key_variable": request.key_variable,
        "allow_unbound": request.allow_unbound,
        "timeout": request.timeout,
    }
    place = here()
    if place.flow_run_id is None:
        # Nothing outlives the task run, and only it can be retried.
        first = run_key is None and place.task_attempt <= 1
        key = run_key or (f"task:{place.task_run_id}" if place.task_run_id is not None else None)
        return Plan(request, settings, {**arguments, "run_key": key, "first_attempt": first}, key)
    scope = _scope(place.flow_run_id)
    print_of_variables = hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()[:12]
    fresh = _Record(
        key="",
        workflow=request.workflow_id,
        variables=print_of_variables,
        server=settings.base_url,
        scope=scope.name,
        at=datetime.now(timezone.utc).isoformat(),
        attempt=scope.attempt,
        task=str(place.task_run_id or ""),
        step=request.step or "",
    )
    key = run_key or _key(scope, fresh, place)
    record, found = _current(scope, fresh, key, request, hook)
    with _lock:
        _claims_of(scope.root).labels[record.label] = scope.attempt
    if found:
        _refuse_other_server(record, settings)
        if record.variables != print_of_variables:
            run_logger().warning(
                "step %s was started with other variables; that run is gone on with", record.step or record.key
            )
        again = {"run_key": record.key, "first_attempt": False, "since": record.since, "chosen": record.instance}
        return Plan(request, settings, {**arguments, **again}, record.key, record.instance, record, scope)
    if run_key is None and (scope.retried or place.task_attempt > 1):
        _refuse_changed(scope, record)
    put_labels(scope.root, {record.label: record.text()})
    first = run_key is None and not (scope.retried and _is_gated(hook, request))
    return Plan(
        request, settings, {**arguments, "run_key": record.key, "first_attempt": first}, record.key, None, record, scope
    )


def _key(scope: _Scope, fresh: _Record, place: Place) -> str:
    if fresh.step:
        return f"{scope.name}:{fresh.step}"
    what = f"{fresh.workflow}:{fresh.variables}"
    with _lock:
        given = _claims_of(scope.root).counts.setdefault((scope.attempt, what), {})
        number = given.setdefault(place.task_run_id or object(), len(given))
    return f"{scope.name}:{what}:{number}"


def _current(
    scope: _Scope, fresh: _Record, key: str, request: RunRequest, hook: OrchestrationHttpHook
) -> tuple[_Record, bool]:
    """The newest record of a key, or the one to be made; and whether it stands there."""
    count = 0
    newest: _Record | None = None
    while True:
        record = _replaced(fresh, key=f"{key}:again-{count}" if count else key)
        stored = scope.records.get(record.label)
        if stored is None:
            break
        newest, count = stored, count + 1
    if newest is None:
        return record, False
    if not fresh.step and request.run_key is None and newest.attempt == scope.attempt and newest.task != fresh.task:
        raise ValidationError(
            "step: this flow run starts the same workflow with the same variables from several processes; name each "
            "start with step=",
            path="step",
        )
    if request.rerun_failed and newest.instance is not None and newest.server == fresh.server:
        state = hook.get_instance(newest.instance).state
        if state in ("failed", "cancelled"):
            run_logger().info("instance %s %s: running anew, as asked", newest.instance, state)
            return record, False
    return newest, True


def _refuse_other_server(record: _Record, settings: Settings) -> None:
    if record.server != settings.base_url:
        raise _ambiguous(
            record,
            f"it was begun on the server {record.server}, and the credentials now name {settings.base_url}",
            [record.instance] if record.instance else [],
        )


def _refuse_changed(scope: _Scope, record: _Record) -> None:
    with _lock:
        claimed = dict(_claims_of(scope.root).labels)
    doubtful = []
    for label, other in scope.records.items():
        if other.workflow != record.workflow or label == record.label:
            continue
        if other.scope == scope.name:
            # A named step of a flow that is not called by another is what its name says.
            doubt = claimed.get(label) != scope.attempt and (scope.subflow or not (record.step or other.step))
        else:
            doubt = label not in claimed and other.variables == record.variables
        if doubt and other.key.partition(":again-")[0] != record.key.partition(":again-")[0]:
            doubtful.append(other)
    if doubtful:
        raise _ambiguous(
            record,
            "an earlier attempt of the flow run started one that this attempt has not come back to: with other "
            "variables, or in another order; name each start with step=, or give run_key=",
            [other.instance for other in doubtful if other.instance],
            min(other.since for other in doubtful),
        )


def _ambiguous(
    record: _Record, why: str, candidates: Sequence[str], since: datetime | None = None
) -> AmbiguousRunError:
    named = f"; candidates: {', '.join(candidates)}" if candidates else ""
    return AmbiguousRunError(
        f"a run of workflow {record.workflow} with key {record.key} may exist: {why}{named}; nothing was started",
        workflow_id=record.workflow,
        run_key=record.key,
        window=(since or record.since, datetime.now(timezone.utc)),
        candidates=candidates,
    )


def _is_gated(hook: OrchestrationHttpHook, request: RunRequest) -> bool:
    """Whether looking for the key first costs nothing but a look."""
    stages = hook.get_workflow(request.workflow_id).stages
    return bool(stages) and awaited_event(stages[0]) == gate_event(request.key_variable)


def describe(instance: Instance, key: str | None) -> dict[str, Any]:
    """A started run as a small plain dict."""
    return {
        "instance_id": instance.id,
        "workflow_id": instance.workflow_id,
        "state": instance.state,
        "run_key": key,
    }

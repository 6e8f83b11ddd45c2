"""One call's start in Prefect: the key it is given, its owner and its store, brought to the owner protocol.

No rule about keys stands here: ``ownership`` decides what a call does. This module says who asks.
"""

from __future__ import annotations

import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Literal

from prefect.transactions import BaseTransaction, get_transaction

from ..api.definitions import variable_texts
from ..api.errors import AmbiguousRunError, ValidationError
from ..api.models import Instance
from ..http_hook import AsyncOrchestrationHttpHook, OrchestrationHttpHook
from ..ownership.keys import checked_run_key
from ..ownership.owned_run import OwnedRun
from ..ownership.record import RunRecord
from ..ownership.request import UNREAD_WORKFLOW, OwnedRequest
from ..procedures.limits import START_SECONDS
from ..settings import Settings
from .attempt import AttemptFacts, Claim, OwnerSays, claim_call, claim_step, not_come_back_to
from .cancelling import Target, owned_by_record, remedy_held
from .marks import marks_here
from .options import StartOptions
from .owner import Owner
from .place import Place, here, ids_here, run_logger
from .rollback import roll_back_with, users_transaction
from .run_records import PrefectRunStore, records_of_root

Hook = OrchestrationHttpHook | AsyncOrchestrationHttpHook
NAMES_OF_A_PAYMENT: tuple[Literal["step"], Literal["run_key"]] = ("step", "run_key")
"""The options that name a payment; at most one of them is given."""


@dataclass(frozen=True)
class RunRequest:
    """What is to run.

    Attributes:
        workflow: an id, or a definition, which is put on the server with a gate.
        variables: by name, as the caller gave them.
        options: of the start, complete.
        timeout: seconds for the start.
    """

    workflow: str | Mapping[str, Any]
    variables: Mapping[str, Any] | None
    options: StartOptions
    timeout: float = START_SECONDS

    def __post_init__(self) -> None:
        if not isinstance(self.workflow, str | Mapping) or not self.workflow:
            raise ValidationError(
                f"workflow_id must be a non-empty string, not {self.workflow!r}: did the task that gives it run?",
                path="workflow_id",
            )
        if self.variables is not None and not isinstance(self.variables, Mapping):
            raise ValidationError(
                f"variables must be a mapping, not a {type(self.variables).__name__}; for map give a list of mappings",
                path="variables",
            )
        for name in NAMES_OF_A_PAYMENT:
            value = self.options[name]
            if value is not None and (not isinstance(value, str) or not value):
                raise ValidationError(f"{name} must be a non-empty string, not {value!r}", path=name)
        if self.options["run_key"] is not None:
            checked_run_key(self.options["run_key"])
        if self.options["step"] is not None and self.options["run_key"] is not None:
            raise ValidationError("step: give either step or run_key", path="step")


class Start:
    """One call's start. ``prepare`` it, begin what ``owning`` gives, tell it ``begun`` or ``failed``.

    Attributes:
        key: of the run; None before ``prepare``.
        owner: of the run; None outside any run of Prefect.
        run: the work on the key; None before ``owning``.
    """

    def __init__(self, settings: Settings, request: RunRequest) -> None:
        self.settings = settings
        self.request = request
        self.key: str | None = None
        self.owner: Owner | None = None
        self.run: OwnedRun | None = None
        self._claim: Claim | None = None
        self._wanted: OwnedRequest | None = None
        self._store: PrefectRunStore | None = None
        self._around: BaseTransaction | None = None
        self._own_transaction: BaseTransaction | None = None
        self._hooked: set[str] = set()
        self._is_begun = False

    def prepare(self) -> None:
        """Find out who asks, and what for. Blocking.

        Raises:
            AmbiguousRunError: an earlier attempt started one that may be this one with other variables.
            ValidationError: the input is wrong.
        """
        request, wishes = self.request, self.request.options
        texts = variable_texts(request.variables)
        users_key = wishes["run_key"]
        if users_key is None and wishes["key_variable"] in texts:
            users_key = texts.pop(wishes["key_variable"])
            if wishes["step"] is not None:
                where = f"variables.{wishes['key_variable']}"
                raise ValidationError(f"step: {where} is the key of the run already; give one of them", path="step")
            if not users_key:
                where = f"variables.{wishes['key_variable']}"
                raise ValidationError(f"{where} must not be empty: it is the key of the run", path=where)
            checked_run_key(users_key)
        place = here()
        self._around = users_transaction()
        self._own_transaction = get_transaction() if ids_here()[1] is not None else None
        options: dict[str, Any] = {}
        if place is None:
            self.key = users_key or uuid.uuid4().hex
            options["how"] = "again" if users_key is not None else "first"
        else:
            facts = place.facts
            if users_key is not None:
                self.key, call = users_key, ""
                self._store = PrefectRunStore()
            else:
                self._claim = (
                    claim_step(facts, wishes["step"]) if wishes["step"] else claim_call(facts, request.workflow, texts)
                )
                self.key, call = self._claim.key, self._claim.call
                self._store = PrefectRunStore(complete_since=place.began)
                options["since"] = place.began
                _refuse_changed(facts, self._claim, self._store)
            self.owner = Owner(place)
            options.update(attempt=facts.name, facts=facts.on_record(call), rival=facts.is_rival)
        self._wanted = OwnedRequest(
            workflow=request.workflow,
            variables=texts,
            run_key=self.key,
            key_variable=wishes["key_variable"],
            shared_key=users_key is not None,
            settled=() if wishes["settled"] is None else (wishes["settled"],),
            rerun_failed=wishes["rerun_failed"],
            on_changed=wishes["on_changed"],
            fingerprint_ignores=wishes["fingerprint_ignores"],
            allow_unbound=wishes["allow_unbound"],
            strict_variables=wishes["strict_variables"],
            checkpoints=wishes["checkpoints"],
            remedy_held=remedy_held(self.key),
            timeout=request.timeout,
            **options,
        )

    def owning(self, hook: Hook) -> OwnedRun:
        """The work on the key, to be performed with this hook."""
        if self._wanted is None:
            raise RuntimeError("prepare comes first")
        self.run = hook.owning(
            self._wanted,
            store=self._store,
            owner=self._ask_owner,
            on_chosen=self._chosen,
            mark_place=marks_here() if self._store is None else None,
        )
        return self.run

    def begun(self, instance: Instance) -> None:
        """The run is there. Raises where the transaction around has been rolled back."""
        self._chosen(instance.id)
        self._is_begun = True

    def failed(self) -> None:
        """The call raised: unless the run's end was told, the next equal call takes the run up."""
        record = self.run.record if self.run is not None else None
        if self._claim is not None and (record is None or record.state != "told"):
            self._claim.give_back()

    def close(self) -> None:
        """Let the next caller of this process have the key."""
        if self.run is not None:
            self.run.close()

    @property
    def target(self) -> Target | None:
        """What to cancel; None while no instance is chosen."""
        if self.run is None or self.run.instance_id is None:
            return None
        return Target(self.settings, self.run.instance_id, run=self.run, waiter_is_here=True)

    @property
    def may_run_unknown(self) -> bool:
        """Whether a run without a gate may have been started whose instance nobody knows yet."""
        record = self.run.record if self.run is not None else None
        unknown = record is not None and record.state == "intended" and not record.gate
        return unknown and self.target is None

    def _ask_owner(self) -> OwnerSays:
        if self._around is not None and self._around.is_rolled_back():
            return "unwanted"
        if self.owner is None:
            return "yes"
        return self.owner.at_checkpoint() if self._is_begun else self.owner()

    def _chosen(self, instance_id: str) -> None:
        """Hand the instance to the transactions around. Raises where nothing is to be released."""
        if instance_id in self._hooked:
            return
        self._hooked.add(instance_id)
        if self._own_transaction is not None:
            self._own_transaction.set("instance_id", instance_id)
        roll_back_with(self._around, Target(self.settings, instance_id, run=self.run))


# ---- starts of earlier attempts ------------------------------------------------------------------------

_earlier: OrderedDict[tuple[object, ...], list[RunRecord]] = OrderedDict()
_lock = threading.Lock()


def _refuse_changed(facts: AttemptFacts, claim: Claim, store: PrefectRunStore) -> None:
    """An unnamed call that is not on record, in a retry, may be an earlier one with other variables.

    Raises:
        AmbiguousRunError: there is one that this attempt has not come back to.
    """
    if not claim.call or not facts.later or store.load(claim.key) is not None:
        return
    doubtful = not_come_back_to(facts, claim, _records_of_earlier_attempts(facts))
    if not doubtful:
        return
    claim.give_back()
    candidates = [one.instance_id for one in doubtful if one.instance_id]
    named = f"; candidates: {', '.join(candidates)}" if candidates else ""
    raise AmbiguousRunError(
        f"a run of workflow {doubtful[0].workflow_id} may exist: an earlier attempt started one that this attempt has "
        "not come back to, with other variables, another definition or in another order; nothing was started. Name "
        f"each start with step=, or give run_key={named}",
        workflow_id=doubtful[0].workflow_id,
        run_key=claim.key,
        window=(min(one.since for one in doubtful), datetime.now(timezone.utc)),
        candidates=candidates,
    )


def _records_of_earlier_attempts(facts: AttemptFacts) -> list[RunRecord]:
    """Read once in each attempt of whatever was retried last: earlier attempts add nothing any more."""
    last = max(number for number, one in enumerate(facts.path) if one.run_count > 1 or one.resumed)
    name = tuple((one.id, one.attempt) for one in facts.path[: last + 1])
    with _lock:
        known = _earlier.get(name)
    if known is None:
        known = records_of_root(uuid.UUID(facts.root), is_flow=facts.path[0].is_flow)
        with _lock:
            _earlier[name] = known
            while len(_earlier) > 100:
                _earlier.popitem(last=False)
    return known


# ---- going on with a run that was started before ----------------------------------------------------------


def attending(hook: Hook, place: Place | None, record: RunRecord | None, instance_id: str) -> OwnedRun:
    """The work on a run whose start has returned, for a wait. ``load`` it first.

    Args:
        hook: performs it.
        place: of the wait; its flow runs are asked before the run is let pass a checkpoint.
        record: of the run; None where none is known: then nothing is put on record.
        instance_id: the run.
    """
    owner = _owner_of_wait(place)
    if record is None:
        wanted = OwnedRequest(
            workflow=UNREAD_WORKFLOW,
            run_key=instance_id,
            chosen=instance_id,
            since=datetime.now(timezone.utc),
            remedy_held=remedy_held(None),
        )
        return hook.owning(wanted, owner=owner, mark_place=marks_here())
    run = owned_by_record(hook, PrefectRunStore(), record, owner=owner)
    run.keeper.superseded = place is not None and place.facts.is_overtaken_by(record)
    return run


def _owner_of_wait(place: Place | None) -> Callable[[], OwnerSays] | None:
    """Who is asked before a run is let pass a checkpoint; None outside any run of Prefect."""
    if place is not None:
        return Owner(place).at_checkpoint
    if ids_here() == (None, None):
        return None
    return _owner_found_late


def _owner_found_late() -> OwnerSays:
    """Prefect's API could not tell where the wait stands: until it can, nothing is let pass."""
    place = here()
    return Owner(place)() if place is not None else "yes"


def record_of(place: Place | None, instance_id: str, run_key: str | None) -> RunRecord | None:
    """The record of an instance, by its key or from the records of the flow run. Blocking; None where there is none.

    What cannot be read is passed over: a wait needs no record.
    """
    if place is None:
        return None
    candidates: list[RunRecord] = []
    try:
        if run_key is not None:
            found = PrefectRunStore().load(run_key)
            candidates = [found] if found is not None else []
        elif place.root_flow_run_id is not None:
            candidates = records_of_root(place.root_flow_run_id)
    except Exception as error:
        run_logger().warning("instance %s: its record could not be read: %r", instance_id, error)
    return next((one for one in candidates if one.instance_id == instance_id), None)

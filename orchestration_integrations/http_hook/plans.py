"""What each method of the hooks does, as a procedure: arguments checked, nothing sent.

Imported with the first hook and not with its module, since the module is imported wherever a DAG is parsed.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, cast

from .. import telemetry
from ..api import calls
from ..api.calls import Call
from ..api.definitions import validated_definition, variable_text, variable_texts
from ..api.errors import (
    AmbiguousRunError,
    OrchestrationError,
    StateUnknownError,
    ValidationError,
    is_ambiguous,
    summary,
)
from ..api.models import (
    CancelOutcome,
    EnsuredTrigger,
    EnsuredWorkflow,
    Instance,
    Moved,
    RunResult,
    StageEvent,
    StandingRun,
    Workflow,
)
from ..api.numbers import at_least_zero, checked_flag
from ..ownership.marks import MarkPlace
from ..ownership.outside_stop import OutsideStop
from ..ownership.owned_run import OwnedRun
from ..ownership.record import RunStore
from ..ownership.request import OwnedRequest
from ..procedures import cancel, define, define_trigger, events, waiting
from ..procedures.cancel import Holding
from ..procedures.checkpoints import CallersGuard, Guard
from ..procedures.effects import Do, Procedure, insist
from ..procedures.listing import PageCall, Versions, list_all
from ..procedures.moved import NOTHING_READ
from ..procedures.naps import plain_nap
from ..procedures.outages import Outage, OutageNews
from ..procedures.standing_runs import standing_runs
from ..procedures.verdicts import cancel_verdict
from ..procedures.wait_arguments import Shares, WaitArguments
from ..settings import Settings
from .callbacks import owner_of
from .procedure_clock import ProcedureClock

if TYPE_CHECKING:
    from .waits import Place

logger = logging.getLogger("orchestration_integrations.hook")

KNOWN_IDS = 10_000
"""Ids given by the server that a hook remembers."""


class Plans:
    """The procedures of one hook.

    Args:
        settings: of the hook.
        clock: for its procedures.
        asynchronous: the hook can await what users give it.
        place_of_wait: gives each wait, by the id of its instance, the place where it sleeps; told whether it may share
            a poll.
    """

    def __init__(
        self,
        settings: Settings,
        clock: ProcedureClock,
        *,
        asynchronous: bool,
        place_of_wait: Callable[[str, Shares], Place | None] = lambda instance_id, shares: None,
    ) -> None:
        self.settings = settings
        self._place_of_wait = place_of_wait
        self.clock = clock
        self.versions = Versions(settings.api_version)
        self.asynchronous = asynchronous
        self._given_ids: dict[str, None] = {}

    @property
    def given_ids(self) -> tuple[str, ...]:
        """The ids that the server gave, as far as this hook knows."""
        return tuple(self._given_ids)

    def expect(self, instance_id: str) -> None:
        """Tell this hook an id that the server once gave, as one that was stored by another process.

        A run stands behind it, so that its row may be late: ``wait``, ``cancel`` and
        ``send_event_when_ready`` then don't take "not found" for an answer for an hour, or their limit.
        """
        self._given_ids[instance_id] = None
        if len(self._given_ids) > KNOWN_IDS:
            self._given_ids = dict.fromkeys(list(self._given_ids)[KNOWN_IDS // 2 :])

    def _remember(self, instance: Instance) -> Instance:
        self.expect(instance.id)
        return instance

    def _row_grace(self, instance_id: str, short: float, long: float) -> float:
        return long if instance_id in self._given_ids else short

    def create_workflow(self, definition: Mapping[str, Any]) -> Call[Workflow]:
        return calls.create_workflow(validated_definition(definition), self.versions.plain)

    def listing(self, page: PageCall) -> Procedure[tuple[Any, ...]]:
        return list_all(page, self.versions)

    def list_instances(self, workflow_id: str | None, running: bool | None) -> Procedure[tuple[Instance, ...]]:
        if running is not None:
            checked_flag(running, "running")

        def page(version: calls.Version, cursor: str | None) -> Call[Any]:
            return calls.list_instances(version, cursor, workflow_id=workflow_id, running=running is True)

        page("v1", None)  # refuses a bad id before anything is sent
        rows = yield from self.listing(page)
        return tuple(row for row in rows if running is None or row.terminated is not running)

    def run_workflow(self, workflow_id: str, variables: Mapping[str, Any] | None, wait: bool) -> Procedure[Instance]:
        call = calls.run_workflow(workflow_id, variable_texts(variables), wait=wait, version=self.versions.plain)
        begun = self.clock.time()
        try:
            instance: Instance = yield Do(call, retried=True)
        except OrchestrationError as error:
            # Where the server holds the request, its error can come from the wait after the start.
            if not is_ambiguous(error) and not (wait and (getattr(error, "status_code", None) or 0) >= 500):
                raise
            telemetry.count("ambiguous_submits", operation=call.operation)
            candidates = yield from self._started_since(workflow_id, begun)
            window = tuple(datetime.fromtimestamp(at, timezone.utc) for at in (begun, self.clock.time()))
            raise AmbiguousRunError(
                f"a run of workflow {workflow_id} may have started: {summary(error)}; it was not repeated",
                workflow_id=workflow_id,
                run_key=None,
                window=cast("tuple[datetime, datetime]", window),
                candidates=candidates,
            ) from error
        self._remember(instance)
        if not wait:
            return instance
        # The answer of a waiting run can come early and can hide a failure: only a GET by id decides.
        try:
            read: Instance = yield Do(calls.get_instance(instance.id, self.versions.plain), retried=True)
        except OrchestrationError as error:
            raise StateUnknownError(
                f"instance {instance.id} was started, and could not be read afterwards: {summary(error)}",
                instance_id=instance.id,
                instance=None,
                moved=NOTHING_READ,
            ) from error
        return read

    def _started_since(self, workflow_id: str, begun: float) -> Procedure[tuple[str, ...]]:
        """Best effort, one read: runs that may be the one whose answer was lost."""
        earliest = datetime.fromtimestamp(begun + (self.clock.server_time() - self.clock.time()) - 5.0, timezone.utc)
        try:
            page = yield Do(calls.list_instances(self.versions.plain, workflow_id=workflow_id))
        except OrchestrationError:
            return ()
        return tuple(row.id for row in page.rows if row.created_at >= earliest)

    def start(
        self,
        workflow_id: str,
        variables: Mapping[str, Any] | None,
        run_key: str | None,
        on_chosen: Callable[[str], object] | None,
        wants: Callable[[], bool] | None,
        **options: Any,
    ) -> Procedure[Instance]:
        calls.get_workflow(workflow_id)  # refuses a bad id before anything is sent
        key_variable = options["key_variable"]
        given = dict(variables) if isinstance(variables, Mapping) else variables
        if run_key is None and isinstance(given, dict) and key_variable in given:
            run_key = variable_text(key_variable, given.pop(key_variable))
            if not run_key:
                where = f"variables.{key_variable}"
                raise ValidationError(f"{where} must not be empty: it is the key of the run", path=where)
        first_attempt = options.pop("first_attempt")
        checked_flag(first_attempt, "first_attempt")
        fresh = run_key is None or first_attempt
        if run_key is None and options["chosen"] is not None:
            raise ValidationError("chosen needs the run_key that it was chosen for", path="run_key")
        wanted = OwnedRequest(
            workflow=workflow_id,
            variables=given,
            run_key=uuid.uuid4().hex if run_key is None else run_key,
            how="first" if fresh else "again",
            wait_for_key=True,
            may_say_first=True,
            **{**options, "timeout": at_least_zero(options["timeout"], "timeout")},
        )
        run = self.owning(wanted, on_chosen=on_chosen, owner=owner_of(wants, "wants", asynchronous=self.asynchronous))
        try:
            instance = yield from run.begin()
        finally:
            run.close()
        self._remember(instance)
        return instance

    def owning(
        self,
        wanted: OwnedRequest,
        *,
        store: RunStore | None = None,
        owner: Any = None,
        at_checkpoint: Any = None,
        on_chosen: Callable[[str], object] | None = None,
        mark_place: MarkPlace | None = None,
    ) -> OwnedRun:
        """One attempt's work on one key, for whoever performs its procedures with this hook. Sends nothing.

        Args:
            wanted: what the caller wants.
            store: where the record of the key is kept; None: nowhere.
            owner: asked before each release and each pass of a checkpoint: ``yes``, ``unwanted`` or ``superseded``;
                None: it always wants the run.
            at_checkpoint: asked besides before each pass, with the user's number of the stage behind the checkpoint.
            on_chosen: told the id before the release of a run that this attempt chose.
            mark_place: where the marks of the run are; None: where the store says, else in the record.
        """

        def told(instance_id: str) -> object:
            self.expect(instance_id)
            return on_chosen(instance_id) if on_chosen is not None else None

        return OwnedRun(
            wanted,
            server=self.settings.base_url,
            store=store,
            owner=owner,
            at_checkpoint=at_checkpoint,
            on_chosen=told,
            mark_place=mark_place,
            versions=self.versions,
            now=self.clock,
        )

    def waiting_for(
        self,
        instance_id: str,
        arguments: WaitArguments,
        on_stage: Callable[[StageEvent], object] | None = None,
        guard: Guard | None = None,
        on_outage: Callable[[OutageNews], object] | None = None,
    ) -> Procedure[RunResult]:
        """Wait for an instance. Sends nothing until it is performed.

        Args:
            instance_id: whom to wait for.
            arguments: how.
            on_stage: as for the hook's ``wait``.
            on_outage: called when reads begin to fail, and when they work again; None: the log is told.
            guard: asked before a checkpoint is passed; None: nobody may let the instance pass one.
        """
        tells = on_stage is not None or arguments.fail_after_attempts is not None
        state = self.wait_state(instance_id, arguments, detail=tells)
        state.passes = guard is not None
        shares = arguments.shares or ("never" if tells else "always")
        return self._wait(state, on_stage, guard, shares, on_outage)

    def wait_state(self, instance_id: str, arguments: WaitArguments, *, detail: bool = False) -> waiting.Waiting:
        """The state of a wait that has not begun.

        Args:
            instance_id: whom to wait for.
            arguments: how.
            detail: it tells of stages.
        """
        calls.get_instance(instance_id)  # refuses a bad id
        row_grace = arguments.row_grace
        if row_grace is None:
            row_grace = self._row_grace(instance_id, waiting.ROW_GRACE, waiting.ROW_PATIENCE)
        return waiting.Waiting(
            instance_id,
            deadline=arguments.ends_at(self.clock.time()),
            poll_interval=arguments.poll_interval,
            detail=detail or arguments.fail_after_attempts is not None,
            fail_after_attempts=arguments.fail_after_attempts,
            row_grace=row_grace,
            read_budget=arguments.read_budget,
            limit=arguments.named_limit,
            outage=Outage(self.settings.base_url, arguments.gives_up),
        )

    def guard_of(self, instance_id: str, at_checkpoint: Callable[[int], object] | None) -> Guard | None:
        """The guard of a wait that keeps no record: the caller's word alone."""
        asked = owner_of(at_checkpoint, "at_checkpoint", asynchronous=self.asynchronous)
        return None if asked is None else CallersGuard(instance_id, asked)

    def _wait(
        self,
        state: waiting.Waiting,
        on_stage: Callable[[StageEvent], object] | None,
        guard: Guard | None,
        shares: Shares,
        on_outage: Callable[[OutageNews], object] | None,
    ) -> Procedure[RunResult]:
        instance_id = state.instance_id
        outcome = "error"
        place = self._place_of_wait(instance_id, shares)
        nap = plain_nap if place is None else place.nap
        try:
            result = yield from waiting.wait(state, self.versions, self.clock, on_stage, guard, nap, on_outage)
            outcome = "succeeded"
        except OrchestrationError as error:
            outcome = type(error).__name__
            _warn_of_repeats(instance_id, getattr(error, "moved", NOTHING_READ))
            raise
        finally:
            if place is not None:
                place.leave()
            telemetry.count("waits", outcome=outcome)
        _warn_of_repeats(instance_id, result.moved)
        return result

    def send_event_when_ready(
        self,
        instance_id: str,
        name: str,
        stage: int | None,
        timeout: float | None,
        before_send: Callable[[], object] | None,
    ) -> Procedure[Instance]:
        calls.send_event(instance_id, name)  # refuses bad input before anything is sent
        events.refuse_own_event(name)
        if stage is not None and (not isinstance(stage, int) or isinstance(stage, bool) or stage < 0):
            raise ValidationError(f"stage must be a whole number from 0, not {stage!r}", path="stage")
        seconds = None if timeout is None else at_least_zero(timeout, "timeout")
        return self._deliver(instance_id, name, stage, seconds, before_send)

    def _deliver(
        self,
        instance_id: str,
        name: str,
        stage: int | None,
        timeout: float | None,
        before_send: Callable[[], object] | None,
    ) -> Procedure[Instance]:
        place = self._place_of_wait(instance_id, "never")
        try:
            return (
                yield from events.send_event_when_ready(
                    instance_id,
                    name,
                    stage=stage,
                    timeout=timeout,
                    versions=self.versions,
                    now=self.clock,
                    row_grace=self._row_grace(instance_id, waiting.ROW_GRACE, waiting.ROW_PATIENCE),
                    before_send=before_send,
                    nap=plain_nap if place is None else place.nap,
                )
            )
        finally:
            if place is not None:
                place.leave()

    def cancel(
        self, instance_id: str, timeout: float, store: RunStore | None, run_key: str | None
    ) -> Procedure[CancelOutcome]:
        calls.get_instance(instance_id)  # refuses a bad id before anything is sent
        if (store is None) != (run_key is None):
            raise ValidationError("run_key: give store and run_key together", path="run_key")
        if store is None or run_key is None:
            return (yield from self.cancelling(instance_id, timeout, None))
        stop = OutsideStop(store, run_key, instance_id, self.clock)
        goes_on = yield from stop.is_wanted()
        return (yield from stop.over(self.cancelling(instance_id, timeout, stop.put_up(), on_record=goes_on)))

    def cancelling(
        self, instance_id: str, timeout: float, stop: Procedure[Holding | None] | None, *, on_record: bool = False
    ) -> Procedure[CancelOutcome]:
        calls.get_instance(instance_id)  # refuses a bad id before anything is sent
        until = self.clock.monotonic() + at_least_zero(timeout, "timeout")
        holding = None if stop is None else (yield from stop)
        seconds = max(0.0, until - self.clock.monotonic())
        outcome = yield from cancel.cancel(
            instance_id,
            timeout=seconds,
            versions=self.versions,
            now=self.clock,
            row_grace=self._row_grace(instance_id, waiting.ROW_GRACE, waiting.ROW_PATIENCE),
            holding=holding,
            on_record=on_record,
        )
        _warn_of_repeats(instance_id, outcome.moved)
        verdict = cancel_verdict(outcome)
        logger.log(
            logging.INFO if verdict.sure else logging.WARNING,
            "cancel of instance %s: %s (the abort was answered %s)%s",
            instance_id,
            outcome.status,
            outcome.abort_answer,
            "" if verdict.sure else f"; {verdict.text}",
            extra={"instance_id": instance_id, "outcome": outcome.status},
        )
        return outcome

    def list_standing(self, workflow_id: str) -> Procedure[tuple[StandingRun, ...]]:
        until = self.clock.monotonic() + self.settings.retry_budget
        yield from insist(
            calls.get_workflow(workflow_id, self.versions.plain), self.clock, until
        )  # an unknown one raises
        return (yield from standing_runs(workflow_id, self.versions, self.clock, until))

    def list_unreleased(self, workflow_id: str) -> Procedure[tuple[tuple[Instance, str], ...]]:
        standing = yield from self.list_standing(workflow_id)
        return tuple((one.instance, one.run_key) for one in standing if one.checkpoint is None)

    def ensure_workflow(
        self, definition: Mapping[str, Any], gate: bool, checkpoints: bool
    ) -> Procedure[EnsuredWorkflow]:
        return define.ensure_workflow(
            definition, gate=gate, checkpoints=checkpoints, versions=self.versions, now=self.clock
        )

    def ensure_trigger(
        self,
        event: str,
        workflow_id: str,
        filter: str | None,
        variables: Mapping[str, str] | None,
        allow_unbound: bool,
    ) -> Procedure[EnsuredTrigger]:
        return define_trigger.ensure_trigger(
            event,
            workflow_id,
            filter=filter,
            variables=variables,
            allow_unbound=allow_unbound,
            versions=self.versions,
            now=self.clock,
        )


def _warn_of_repeats(instance_id: str, moved: Moved) -> None:
    for transaction in moved.transactions:
        if transaction.maybe_repeated:
            logger.warning(
                "instance %s: transaction %s of stage %d may have been made twice: check the ledger",
                instance_id,
                transaction.id,
                transaction.stage,
                extra={"instance_id": instance_id, "stage": transaction.stage},
            )

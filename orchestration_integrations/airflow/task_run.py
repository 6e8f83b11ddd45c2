"""One try of a run task at work: it brings the facts of the try, its record and its owner to the owner protocol.

Which run is meant, what is adopted, refused or started anew is decided in ``ownership``. What is decided here is
Airflow's: what a kill means, when the triggerer waits instead, and what is said in the task's log.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..api.errors import (
    AmbiguousRunError,
    InstanceCancelledError,
    InstanceFailedError,
    InstanceStuckError,
    NotFoundError,
    OrchestrationError,
    OwnerGoneError,
    StateUnknownError,
    ValidationError,
    WaitTimeoutError,
    is_gateways_404,
    retold,
    summary,
)
from ..api.models import Instance, Moved, RunResult, StageEvent
from ..ownership.owned_run import Refused
from ..ownership.request import OwnedRequest
from ..procedures.checkpoints import Guard
from ..procedures.effects import Procedure
from ..procedures.ends import End, EndKind, error_of
from ..procedures.moved import NOTHING_READ, Reading
from ..procedures.named_workflow import WorkflowName
from ..procedures.wait_arguments import WaitArguments
from ..procedures.waiting import ROW_PATIENCE
from ..procedures.wording import run_summary, stage_line
from .attempt import asked
from .checkpointing import REMEDY_HELD, TaskCheckpoints, failure_advice
from .compat import (
    Context,
    TaskDeferred,
    attempt_of,
)
from .errors import gone_for_good, is_unread, told, with_advice
from .giving_up import cancel, choice, is_late, leave, retry_follows
from .hooks import OrchestrationHook
from .limits import MOST_DEFERRALS, Limit, deferral_limit
from .links import ABOUT_KEY, INSTANCE_ID_KEY
from .one_pass import GoesOn, one_pass
from .owner import CallingStore, Calls, TaskOwner
from .run_records import check_index, marked_try, records_of, settled_token, settled_variable
from .skipped import keep_deadline
from .summary import told_moved
from .taking_up import take_up
from .task_times import TaskTimes

if TYPE_CHECKING:
    from ..http_hook import OrchestrationHttpHook
    from ..ownership.owned_run import OwnedRun
    from .run_operator import OrchestrationRunWorkflowOperator

ENDED = ("succeeded", "failed", "cancelled")


class TaskRun:
    """One try at work.

    Attributes:
        moved, state: what the run had moved and how it stood when the task last read it; None where it has not.
        starting: the run is still to be found, started or taken up.
        resumes: this process goes on, after a deferral, with what its try has begun.
        begun: the run that it has begun, as its deferral says; None where that does not say it.
        left_alone: what the kill of this process says of a run that is left alone; empty for nothing.
        came_of_kill: what the kill of this process came to; empty for none.
        seen_running: the last look of this process, other than those of a wait, has shown that the run runs.

    Args:
        operator: with its templates filled in.
        context: of the task.
        began: epoch seconds at which Airflow called the operator.
        resumes, begun: as above.
    """

    def __init__(
        self,
        operator: OrchestrationRunWorkflowOperator,
        context: Context,
        began: float,
        *,
        resumes: bool = False,
        begun: str | None = None,
    ) -> None:
        self.operator = operator
        self.context = context
        self.times = TaskTimes(operator, context, began)
        self.log = operator.log
        self.hook = OrchestrationHook(operator.orchestration_conn_id)
        self.attempt = attempt_of(context)
        self.calls = Calls()
        self.owner = TaskOwner(self.attempt, self.calls)
        self.records = records_of(self.attempt, context)
        self.store = None if self.records is None else CallingStore(self.records, self.calls)
        self.checkpoints = TaskCheckpoints(operator, self.attempt, self.calls)
        self.run: OwnedRun | None = None
        self.instance_id: str | None = None
        self.starting = True
        self.resumes, self.begun = resumes, begun
        self.left_alone = self.came_of_kill = ""
        self.seen_running = False
        self.moved: Moved | None = None
        self.state: str | None = None

    def knows_of(self, error: Exception) -> bool:
        """Whether an error comes of the run of this task: the try has found it, or has looked for it and could read
        what there is, and did not refuse its input."""
        missed = type(error) is ValidationError or is_unread(error)
        return self.instance_id is not None or (self.run is not None and not missed)

    @property
    def http(self) -> OrchestrationHttpHook:
        """The hook that performs everything but the cancel of a killed task."""
        return self.hook.get_conn()

    def close(self) -> None:
        """Give back what this process holds."""
        if self.run is not None:
            self.run.close()

    # Starting

    def execute(self) -> dict[str, Any]:
        """Start or find the run, then wait for it here or in the triggerer."""
        operator = self.operator
        try:
            run = self.run = self.owning(self._request(), on_chosen=self._noticed)
            instance = self.http.perform(run.begin())
            self._noticed(instance.id, run.did or "goes on with")
        finally:
            self.starting = False
        limit = self.times.limit()
        if instance.terminated:
            return self._attend(instance.id, limit, self._wait(limit, ends_only=True))
        if not operator.wait_for_termination:
            self.http.perform(run.returned())
            self.state = instance.state
            return run_summary(instance, None)
        if operator.deferrable:
            # An id that the server gave may be without a row for long; one that was seen may not.
            raise self._deferral(instance.id, limit, 0, None if instance.status else ROW_PATIENCE)
        return self._attend(instance.id, limit, self._wait(limit))

    def owning(self, request: OwnedRequest, on_chosen: Any = None) -> OwnedRun:
        """The work of this try on its run."""
        return self.http.owning(
            request,
            store=self.store,
            owner=self.owner,
            at_checkpoint=self.checkpoints.at_checkpoint,
            mark_place=self.checkpoints.place,
            on_chosen=on_chosen,
        )

    def _request(self) -> OwnedRequest:
        operator, attempt = self.operator, self.attempt
        given = operator.run_key is not None
        key = str(operator.run_key) if given else attempt.key
        workflow = operator.workflow_id
        if operator.workflow_name not in (None, ""):
            workflow = WorkflowName(operator.workflow_name)
        elif workflow in (None, ""):
            workflow = operator.read_definition()
        if given:
            self.calls(check_index, attempt, key)
        tokens = (operator.settled,) if operator.settled else ()
        record = None
        if self.records is None:
            how = asked(attempt, None)
        else:
            record = self.calls(self.records.stored)
            marked = None if record is None else self.calls(marked_try, attempt)
            how = asked(attempt, record, marked_try=marked, rerun_on_clear=operator.rerun_on_clear)
            how = self.records.check_key(record, key, how)
            token = None if record is None else self.calls(settled_token, attempt)
            tokens = tokens if token is None else (*tokens, token)
        self.checkpoints.begin(how, None if record is None else record.instance_id)
        return OwnedRequest(
            workflow=workflow,
            variables=operator.variables,
            run_key=key,
            key_variable=operator.key_variable,
            how=how,
            shared_key=given,
            since=None if given else attempt.first_instant,
            settled=tokens,
            rerun_failed=operator.rerun_failed,
            on_changed=operator.on_changed,
            fingerprint_ignores=operator.fingerprint_ignores,
            fixed_content=attempt.map_index >= 0,
            attempt=attempt.name,
            decided_on="" if record is None else record.attempt,
            facts=attempt.facts,
            allow_unbound=operator.allow_unbound,
            strict_variables=operator.strict_variables,
            checkpoints=operator.checkpoints,
            remedy_held=REMEDY_HELD,
            timeout=operator.start_timeout,
        )

    def _noticed(self, instance_id: str, did: str = "has") -> None:
        """Have the id where other tasks, callbacks and the link find it. What fails here keeps a run unreleased.

        ``did``: what this try did with the instance."""
        if instance_id == self.instance_id:
            return
        url = self.http.settings.instance_link(instance_id, self._workflow_id())
        about = {"instance_id": instance_id, "conn_id": self.operator.orchestration_conn_id, "url": url}
        self.instance_id = instance_id  # first: a kill may come amid the calls below
        self.log.info("try %s %s instance %s: %s", self.attempt.try_number, did, instance_id, url)
        if self.run is not None and self.run.has_checkpoints is not False:
            self.checkpoints.chosen(instance_id)  # before the ids too: of such a run a cancel can say that it is held
        self.calls(self._push, ABOUT_KEY, about)  # before the id: whoever sees the id can have the run cancelled
        self.calls(self._push, INSTANCE_ID_KEY, instance_id)

    def _workflow_id(self) -> str | None:
        """The workflow of the run, where it is on record."""
        record = self.run.record if self.run is not None else None
        return (record.workflow_id or None) if record is not None else None

    def _push(self, key: str, value: Any) -> None:
        if self.operator.do_xcom_push:
            self.context["ti"].xcom_push(key=key, value=value)

    # Waiting

    def _wait(self, limit: Limit, *, ends_only: bool = False) -> Any:
        """What waits for an instance, as ``attend`` needs it."""

        def waiting(instance_id: str, guard: Guard) -> Procedure[RunResult]:
            arguments = WaitArguments(
                deadline=limit.deadline,
                limit=self.times.named(limit),
                poll_interval=self.times.poll_interval,
                fail_after_attempts=None if ends_only else self.operator.fail_after_attempts,
                read_budget=self.operator.read_budget,
                row_grace=ROW_PATIENCE,
            )
            return self.http.waiting_for(instance_id, arguments, None if ends_only else self._log_stage, guard)

        return waiting

    def _log_stage(self, event: StageEvent) -> None:
        line = stage_line(event)
        if line:
            self.log.info("%s", line)

    def _attend(
        self, instance_id: str, limit: Limit, waiting: Any, moved: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Wait by ``waiting`` and return or raise the end, which is on record then."""
        if self.run is None:
            raise StateUnknownError("no run was begun", **_about(instance_id, None))
        try:
            result = self.http.perform(
                self.run.attend(
                    instance_id,
                    waiting,
                    on_timeout=lambda error: choice(self, error, limit),
                    cancel_seconds=limit.cancel_seconds(time.time()),
                )
            )
        except (InstanceFailedError, InstanceCancelledError) as error:
            self.checkpoints.ended(self.http, error.instance)
            raise
        self.checkpoints.ended(self.http, result.instance)
        self.moved, self.state = result.moved, result.instance.state
        returned = run_summary(result.instance, moved if moved is not None else result.moved)
        if returned["maybe_repeated"]:
            self.log.warning("instance %s: money may have moved twice: check the ledger", instance_id)
        self.log.info("instance %s has succeeded", instance_id)
        return returned

    def _deferral(self, instance_id: str, limit: Limit, resumed: int, row_grace: float | None = None) -> TaskDeferred:
        """What is raised to leave the wait to the triggerer.

        Raises:
            OwnerGoneError: this process was killed, so that no triggerer is to wait for the run.
        """
        from .triggers import OrchestrationInstanceTrigger

        if self.owner.gone is not None:
            gone, key = self.owner.gone, None if self.run is None else self.run.request.run_key
            raise OwnerGoneError(
                self.came_of_kill, run_key=key, instance_id=instance_id, superseded=gone == "superseded"
            )
        keep_deadline(self.context, limit.deadline)
        return TaskDeferred(
            trigger=OrchestrationInstanceTrigger(
                instance_id=instance_id,
                orchestration_conn_id=self.operator.orchestration_conn_id,
                deadline=limit.deadline,
                limit=self.times.named(limit),
                poll_interval=self.times.poll_interval,
                fail_after_attempts=self.operator.fail_after_attempts,
                read_budget=self.operator.read_budget,
                cancel_on_kill=self.operator.cancel_on_kill,
                row_grace=row_grace,
                passes=self.run is not None and self.run.has_checkpoints is not False,
                failed_before=self.checkpoints.failed_before,
            ),
            method_name="execute_complete",
            kwargs={
                "instance_id": instance_id,
                "deadline": limit.deadline,
                "limited_by": limit.by,
                "resumed": resumed,
            },
            timeout=deferral_limit(limit.deadline),
        )

    # Going on after the triggerer

    def resume(
        self, event: Any, instance_id: str | None, deadline: float | None, limited_by: str, resumed: int
    ) -> dict[str, Any]:
        """Go on where the triggerer has told something. Its word is a hint: the server decides."""
        said: Mapping[str, Any] = event if isinstance(event, Mapping) else {}
        instance_id = self._taken_up(instance_id or said.get("instance_id"))
        limit = self.times.limit_after(instance_id, deadline, limited_by)
        if said.get("instance_id") not in (None, instance_id):
            said = {}
        status = said.get("status")
        over = limit.deadline is not None and time.time() >= limit.deadline
        moved = told_moved(said.get("result"), instance_id) if status == "succeeded" else None
        ghost = status == "stuck" and said.get("reason") == "never_started"
        if not ghost and (over or status in ("timeout", "stuck")):
            return self._attend(instance_id, limit, self._last_look(said, self.times.named(limit)))
        if status == "checkpoint" or ghost:
            self.log.info("instance %s: the triggerer leaves it to this worker: %s", instance_id, said.get("message"))
            try:
                return self._attend(instance_id, limit, one_pass(self, limit))
            except GoesOn:
                if not ghost:
                    raise self._deferral(instance_id, limit, resumed) from None
        message = str(said.get("message") or "nothing usable")
        trouble: OrchestrationError = StateUnknownError(
            f"waiting for instance {instance_id} failed in the triggerer: {message}", **_about(instance_id, None)
        )
        try:
            ended = self.ended(instance_id)
        except OrchestrationError as error:
            self.log.warning("instance %s could not be read: %s", instance_id, error)
            trouble, ended = unread(instance_id, error), None
        else:
            if ended is None:
                self.log.warning("instance %s: the triggerer reported: %s %s", instance_id, status, message)
        if ended is not None:
            ours = moved if ended.state == "succeeded" else None
            return self._attend(instance_id, limit, self._wait(limit, ends_only=True), ours)
        if resumed < MOST_DEFERRALS:
            raise self._deferral(instance_id, limit, resumed + 1, ROW_PATIENCE)
        return self._attend(instance_id, limit, self._given_up(trouble, limit))

    def after_failed_deferral(self, failure: BaseException) -> dict[str, Any]:
        """Airflow has ended the deferral itself. A fresh look first: the run may have ended meanwhile."""
        instance_id = self._taken_up(None)
        limit = self.times.limit()
        try:
            ended = self.ended(instance_id)
        except OrchestrationError as error:
            self.log.error("instance %s could not be read: %s", instance_id, error)
            ended = None
        if ended is not None:
            self.log.info("the deferral failed (%s), but instance %s has ended", failure, instance_id)
            return self._attend(instance_id, limit, self._wait(limit, ends_only=True))
        why = "the deferral took too long" if is_late(failure) else "the deferral failed"
        if choice(self, failure, limit) == "leave":
            follows = retry_follows(self, failure)
            left = leave(self, "; the next try continues with it" if follows else "; no retry follows")
        else:
            outcome, left = cancel(self, why, limit)
            if outcome is not None and outcome.status == "already_ended":
                return self._attend(instance_id, limit, self._wait(limit, ends_only=True))
        self.log.error("%s; %s", why, left)
        raise failure

    def _taken_up(self, instance_id: Any) -> str:
        try:
            return take_up(self, instance_id)
        finally:
            self.starting = False

    def _last_look(self, said: Mapping[str, Any], named_limit: str) -> Any:
        """One look that decides, for a wait that the triggerer has given up."""

        def waiting(instance_id: str, guard: Guard) -> Procedure[RunResult]:
            try:
                at_once = WaitArguments(deadline=time.time(), limit=named_limit, row_grace=ROW_PATIENCE)
                return (yield from self.http.waiting_for(instance_id, at_once, guard=guard))
            except WaitTimeoutError as error:
                error.args = (error.told,)  # what becomes of the run is said by the error that is raised from this one
                reason = str(said.get("message") or "")
                about = _about(instance_id, error.instance, error.moved)
                if said.get("status") == "stuck":
                    stuck = reason or f"instance {instance_id} is stuck"
                    raise InstanceStuckError(stuck, reason="attempts", **about) from error
                late = WaitTimeoutError(reason or error.told, **about)
                late.seen_running = error.seen_running
                raise late from error

        return waiting

    def _given_up(self, trouble: OrchestrationError, limit: Limit) -> Any:
        """The wait that the triggerer could not perform: it ends with ``trouble``. Where the run turns out to have
        ended, a wait for its end."""
        troubles = [trouble]

        def waiting(instance_id: str, guard: Guard) -> Procedure[RunResult]:
            if troubles:
                raise troubles.pop()
            result: RunResult = yield from self._wait(limit, ends_only=True)(instance_id, guard)
            return result

        return waiting

    def ended(self, instance_id: str) -> Instance | None:
        """The instance where it has ended; None where it runs, or its row may be late."""
        self.seen_running = False
        try:
            instance = self.http.get_instance(instance_id)
        except NotFoundError as error:
            if is_gateways_404(error):
                raise
            record = self.run.record if self.run is not None else None
            if record is None or not record.seen:
                return None  # its row may be late
            raise retold(
                error,
                f"instance {instance_id}, for which this task waited, is unknown to {self.http.settings.base_url} "
                f"({summary(error)}): is this another server?",
            ) from error
        self.seen_running = not instance.terminated
        return instance if instance.terminated else None

    # Telling

    def told(self, error: OrchestrationError) -> OrchestrationError:
        """The error as Airflow should take it, with what its user can do about it."""
        self.moved = getattr(error, "moved", None)
        self.state = getattr(getattr(error, "instance", None), "state", None)
        if isinstance(error, AmbiguousRunError):
            if error.token is not None:
                name = settled_variable(self.attempt.parts)
                error.args = (f"{error}; or: airflow variables set {name} {error.token}",)
            return error if self.operator.retry_ambiguous else told(error)
        if isinstance(error, OwnerGoneError) and self.checkpoints.failed:
            rerun = self.operator.rerun_on_clear
            return gone_for_good(error, failure_advice(self.checkpoints.failed, error.outcome, rerun))
        if isinstance(error, OwnerGoneError) and error.superseded and self.left_alone:
            error.args = (self.left_alone,)
        record = None if self.run is None else self.run.record
        known = self.instance_id or (None if record is None else record.instance_id)
        if record is not None and record.end is not None:
            known = None  # it has ended, so it cannot run on
        made = told(error)
        with_advice(made, known, lambda: retry_follows(self, made), self.operator.rerun_failed)
        return made


def unread(instance_id: str, error: OrchestrationError) -> OrchestrationError:
    """What a wait tells whose reads have ended with an error: they are refused, or have failed for too long."""
    if isinstance(error, NotFoundError) and not is_gateways_404(error):
        return error
    kind: EndKind = "error" if isinstance(error, Refused) and not is_gateways_404(error) else "unknown"
    return error_of(End(kind, None, summary(error), error), instance_id, Reading(NOTHING_READ))


def _about(instance_id: str, instance: Instance | None, moved: Moved | None = None) -> dict[str, Any]:
    return {"instance_id": instance_id, "instance": instance, "moved": NOTHING_READ if moved is None else moved}

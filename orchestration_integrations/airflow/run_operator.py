"""Running a workflow as a task: start once, wait, and tell the truth about the end, over tries and clears.

The order of things is what makes it safe: the intent is written down before the submit, the instance's id
before its release, its end before it is reported. See ``run_record`` for what a try finds there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Literal

from ..api.definitions import awaited_event
from ..api.errors import (
    AmbiguousRunError,
    InstanceCancelledError,
    InstanceFailedError,
    InstanceStuckError,
    NotFoundError,
    OrchestrationError,
    StateUnknownError,
    ValidationError,
    WaitTimeoutError,
    summary,
)
from ..api.models import CancelOutcome, Instance, Moved, StageEvent
from ..procedures.waiting import ROW_PATIENCE
from .compat import (
    AIRFLOW_3,
    DEFERRAL_FAILURES,
    AirflowException,
    BaseOperator,
    Context,
    default_deferrable,
    is_deferral_timeout,
    state_of_task,
)
from .errors import told, wrong_server
from .hooks import DEFAULT_CONN_ID, OrchestrationHook
from .links import ABOUT_KEY, INSTANCE_ID_KEY, OrchestrationInstanceLink, instance_url
from .run_record import Attempt, RecordStore, RunRecord, attempt_of, rerun_key
from .summary import run_summary, stage_line, told_moved

if TYPE_CHECKING:
    from ..http_hook import OrchestrationHttpHook

KILL_SECONDS = 3.0 if AIRFLOW_3 else 15.0
"""Seconds for a cancel while the task is being killed: Airflow 3 sends SIGKILL 5 s after SIGTERM."""
CANCEL_SECONDS = 15.0
SETTLE_SECONDS = 10.0
"""Seconds that a run which a clear should have cancelled gets to end, before it is taken for alive."""
DEFER_MARGIN = 60.0
"""Seconds that Airflow's own limit of a deferral lies behind the wait's deadline."""
BAD_ENDS = ("failed", "cancelled", "never_started")
"""Ends after which ``rerun_failed`` starts another run."""
MOST_DEFERRALS = 5
"""Times that a wait is resumed after a trigger that told nothing usable, before the task fails."""


@dataclass(frozen=True)
class _Limit:
    """When waiting ends, and by whose wish. ``deadline`` in epoch seconds, None for never."""

    deadline: float | None
    by: Literal["timeout", "execution_timeout"]


class OrchestrationRunWorkflowOperator(BaseOperator):  # type: ignore[misc]
    """Run a workflow once and wait for its end.

    Tries of one task share one run: a retry attaches to it, reports its end, and submits only where
    nothing was submitted. A clear by a user starts a new run once the earlier one has ended.

    Args:
        workflow_id: what to run. One of this, definition and path.
        definition: mapping, or YAML or JSON text; ensured on the server with a gate, which makes runs exactly-once.
        path: file with a definition.
        variables: by name; see ``variable_texts`` for the types. A placeholder without a value is an error.
        run_key: identifies the run. Default: made of the ids of DAG, run, task and map index and of the clear
            generation. One that is given is used as it is, so that a clear adopts the run that has it.
        wait_for_termination: False: return once the run is started; wins over deferrable.
        deferrable: wait in the triggerer; default: Airflow's ``operators.default_deferrable``.
        poll_interval: seconds between polls, once they have slowed down; 5.
        timeout: seconds from the start of the try after which waiting ends; None for never.
        on_timeout: ``cancel`` or ``leave`` the run when waiting ends without its end.
        cancel_on_kill: cancel the run when the task is killed: marked, cleared, timed out by Airflow.
        rerun_failed: a retry after a reported failure starts a new run. Its first stages move money again.
        fail_after_attempts: give up once a payment failed so often in a row; None for never.
        retry_ambiguous: let Airflow retry where it is unknown whether a run was started. The retry looks
            for the run again and never submits an ungated one twice.
        allow_unbound: let placeholders without a value pass.
        key_variable: the variable that carries the run key.
        start_timeout: seconds for starting the run; 60.
        orchestration_conn_id: the connection.

    Returns (XCom): ``instance_id``, ``workflow_id``, ``state``, ``stages_completed``, ``transactions``,
    ``maybe_repeated`` (check the ledger). The XCom ``instance_id`` is pushed as soon as the id is known.

    Raises:
        InstanceFailedError, InstanceCancelledError: how the run ended; also at each further try.
        InstanceStuckError, WaitTimeoutError: waiting ended; the message says what became of the run.
        AmbiguousRunError: a run may have started; not retried by default.
        NotFoundError, ValidationError, ConfigurationError: not retried.
    """

    template_fields: Sequence[str] = (
        "orchestration_conn_id",
        "workflow_id",
        "definition",
        "path",
        "variables",
        "run_key",
    )
    template_fields_renderers = {"definition": "json", "variables": "json"}  # noqa: RUF012
    operator_extra_links = (OrchestrationInstanceLink(),)
    ui_color = "#d9e6f2"

    def __init__(
        self,
        *,
        workflow_id: Any = None,
        definition: Any = None,
        path: Any = None,
        variables: Any = None,
        run_key: Any = None,
        wait_for_termination: bool = True,
        deferrable: bool | None = None,
        poll_interval: float = 5.0,
        timeout: float | timedelta | None = None,
        on_timeout: Literal["cancel", "leave"] = "cancel",
        cancel_on_kill: bool = True,
        rerun_failed: bool = False,
        fail_after_attempts: int | None = None,
        retry_ambiguous: bool = False,
        allow_unbound: bool = False,
        key_variable: str = "runKey",
        start_timeout: float = 60.0,
        orchestration_conn_id: str = DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.workflow_id = workflow_id
        self.definition = definition
        self.path = path
        self.variables = variables
        self.run_key = run_key
        self.wait_for_termination = wait_for_termination
        self.deferrable = default_deferrable() if deferrable is None else deferrable
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.on_timeout = on_timeout
        self.cancel_on_kill = cancel_on_kill
        self.rerun_failed = rerun_failed
        self.fail_after_attempts = fail_after_attempts
        self.retry_ambiguous = retry_ambiguous
        self.allow_unbound = allow_unbound
        self.key_variable = key_variable
        self.start_timeout = start_timeout
        self.orchestration_conn_id = orchestration_conn_id
        self._active: _Run | None = None

    # Entry points of Airflow

    def execute(self, context: Context) -> dict[str, Any] | None:
        """Start or find the run, then wait for it here or in the triggerer."""
        try:
            _check(self)
            return self._active_run(context).execute()
        except OrchestrationError as error:
            raise self._told(error) from error.__cause__

    def execute_complete(
        self,
        context: Context,
        event: Any = None,
        instance_id: str | None = None,
        deadline: float | None = None,
        limited_by: str = "timeout",
        resumed: int = 0,
        **later: Any,
    ) -> dict[str, Any] | None:
        """Go on after the triggerer. An event is a hint: the server decides."""
        limit = _Limit(deadline, "execution_timeout" if limited_by == "execution_timeout" else "timeout")
        try:
            return self._active_run(context).resume(event, instance_id, limit, resumed)
        except OrchestrationError as error:
            raise self._told(error) from error.__cause__

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """As Airflow's; a deferral that failed or timed out must not leave a run behind that nobody waits for."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except DEFERRAL_FAILURES as failure:
            try:
                return self._active_run(context).after_failed_deferral(failure)
            except OrchestrationError as error:
                raise self._told(error) from failure

    def on_kill(self) -> None:
        """Cancel the run, on fresh connections and within seconds."""
        if self._active is not None:
            self._active.on_kill()

    # Inside

    def _active_run(self, context: Context) -> _Run:
        self._active = _Run(self, context)
        return self._active

    def _told(self, error: OrchestrationError) -> OrchestrationError:
        """The error as Airflow should take it: some must not be tried again."""
        if isinstance(error, AmbiguousRunError) and self.retry_ambiguous:
            return error
        return told(error)


def _check(operator: OrchestrationRunWorkflowOperator) -> None:
    """Refuse wrong arguments before anything is sent; they may be templates until now."""
    given = [name for name in ("workflow_id", "definition", "path") if getattr(operator, name) not in (None, "")]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        raise ValidationError(f"give exactly one of workflow_id, definition and path, not {found}", path="workflow_id")
    if operator.workflow_id is not None and given == ["workflow_id"] and not isinstance(operator.workflow_id, str):
        raise ValidationError(
            f"workflow_id must be a string, not a {type(operator.workflow_id).__name__}", path="workflow_id"
        )
    if operator.on_timeout not in ("cancel", "leave"):
        raise ValidationError(f"on_timeout must be cancel or leave, not {operator.on_timeout!r}", path="on_timeout")
    if operator.variables is not None and not isinstance(operator.variables, Mapping):
        raise ValidationError(
            f"variables must be a mapping, not a {type(operator.variables).__name__}", path="variables"
        )
    if operator.run_key is not None and (not isinstance(operator.run_key, str) or operator.run_key in ("", "None")):
        raise ValidationError(f"run_key must be a non-empty string, not {operator.run_key!r}", path="run_key")
    _seconds(operator.timeout, "timeout")


def _seconds(value: float | timedelta | None, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e10:
        raise ValidationError(f"{name} must be a number of seconds from 0 or a timedelta, not {value!r}", path=name)
    return float(value)


def _has_row(instance: Instance) -> bool:
    """Whether the server has shown its row: the answer to a submit has no stages yet."""
    return bool(instance.status) or instance.terminated


class _Run:
    """One try of the task at work: what it knows, and what it does next."""

    def __init__(self, operator: OrchestrationRunWorkflowOperator, context: Context) -> None:
        self.operator = operator
        self.context = context
        self.log = operator.log
        self.hook = OrchestrationHook(operator.orchestration_conn_id)
        self.store = RecordStore(context)
        self.attempt: Attempt = attempt_of(context)
        self.record: RunRecord | None = None
        self.instance_id: str | None = None
        self.starting = False

    @property
    def http(self) -> OrchestrationHttpHook:
        return self.hook.get_conn()

    # Starting

    def execute(self) -> dict[str, Any] | None:
        self.starting = True
        try:
            instance = self._started()
        finally:
            self.starting = False
        operator = self.operator
        if not operator.wait_for_termination:
            if instance.terminated:
                return self._wait_here(instance.id, self._limit())
            self._reported("left running")
            return run_summary(instance, None)
        if operator.deferrable and not instance.terminated:
            # An id that the server gave may be without a row for long; one that was seen may not.
            grace = None if _has_row(instance) else ROW_PATIENCE
            self._defer(instance.id, self._limit(), 0, grace)
        return self._wait_here(instance.id, self._limit())

    def _started(self) -> Instance:
        """The one run of this task: found or newly started."""
        record = self.record = self.store.load()
        if record is None:
            earlier = self._of_earlier_generation()
            return earlier if earlier is not None else self._start_without_record()
        self._check_server(record)
        cleared = self.operator.run_key is None and self.attempt.was_cleared(record)
        known = self._known(record)
        if known is not None and not known.terminated and cleared:
            known = self._settled(known)
            if not known.terminated:
                self.log.warning(
                    "the task was cleared, but its run %s goes on and could not be cancelled: waiting for that one, "
                    "since a second run would pay twice",
                    known.id,
                )
                self._save(record, max_tries=self.attempt.max_tries, cleared=False)
                cleared = False
        if cleared and known is not None and record.end is None and known.state != "cancelled":
            self.log.warning(
                "the task was cleared, but its run %s had ended as %s, which was not reported yet: reporting that; "
                "clear the task again to run anew",
                known.id,
                known.state,
            )
            self._save(record, max_tries=self.attempt.max_tries, cleared=False)
            cleared = False
        if cleared and (known is not None or record.instance_id is None):
            return self._start_new(record, max(self.attempt.generation, record.generation + 1), 0)
        if record.end in BAD_ENDS and self._rerun_wanted(record):
            return self._start_new(record, record.generation, record.rerun + 1)
        if known is not None and (known.terminated or record.started):
            self.log.info("attaching to instance %s, which an earlier try started", known.id)
            self._noticed(known.id)
            self._save(record, try_number=self.attempt.try_number, started=True, seen=True)
            return known
        return self._submit(record, first_attempt=False, chosen=record.instance_id)

    def _check_server(self, record: RunRecord) -> None:
        base_url = self.hook.settings().base_url
        if record.server == base_url:
            return
        if record.end is not None and self.attempt.was_cleared(record) and self.operator.run_key is None:
            return  # that run is over and a new one is wanted: it may go elsewhere
        raise wrong_server(
            f"the run of this task was submitted to {record.server}, and the connection "
            f"{self.operator.orchestration_conn_id!r} now points to {base_url}: nothing was submitted there. "
            "Restore the connection, or delete the task's state once you know how that run ended"
        )

    def _known(self, record: RunRecord) -> Instance | None:
        """The instance on record as the server has it now; None where none is, or its row is not there yet."""
        if record.instance_id is None:
            return None
        try:
            return self.http.get_instance(record.instance_id)
        except NotFoundError as error:
            if not record.seen:
                return None
            raise wrong_server(
                f"instance {record.instance_id} of this task is unknown to {record.server}, where it was seen before: "
                f"this is another server or another stack ({summary(error)}); nothing was submitted"
            ) from error

    def _settled(self, known: Instance) -> Instance:
        """The cancel that a clear caused may still be on its way."""
        self.log.info("the task was cleared while instance %s ran: looking whether it ends", known.id)
        until = time.monotonic() + SETTLE_SECONDS
        try:
            return self.http.wait(known.id, timeout=SETTLE_SECONDS, poll_interval=1.0).instance
        except (InstanceFailedError, InstanceCancelledError) as error:
            return error.instance or known
        except (WaitTimeoutError, InstanceStuckError, StateUnknownError):
            self.log.debug("not ended within %.0f s", time.monotonic() - until + SETTLE_SECONDS)
            return known

    def _rerun_wanted(self, record: RunRecord) -> bool:
        return self.operator.rerun_failed and record.end_try < self.attempt.try_number

    def _start_new(self, earlier: RunRecord, generation: int, rerun: int) -> Instance:
        why = f"instead of the {earlier.end or 'ended'} one" if rerun else "since the task was cleared"
        self.log.info("a new run is started %s (instance %s)", why, earlier.instance_id)
        workflow_id = earlier.workflow_id if rerun else self._workflow_id()
        record = self._new_record(workflow_id, generation, rerun)
        return self._submit(record, first_attempt=True, chosen=None)

    def _start_without_record(self) -> Instance:
        attempt = self.attempt
        workflow_id = self._workflow_id()
        record = self._new_record(workflow_id, attempt.generation, 0)
        explicit = self.operator.run_key is not None
        first = attempt.first_of_generation and not (explicit and attempt.generation > 0)
        if first and explicit:
            first = not self._is_gated(workflow_id)  # the key may be in use already, and a look is harmless
        if first:
            return self._submit(record, first_attempt=True, chosen=None)
        record.since = attempt.first_instant.isoformat()
        instance = self._submit(record, first_attempt=False, chosen=None, anytime=explicit)
        while self.operator.rerun_failed and not self.store.durable and record.rerun < self._earlier_tries():
            if instance.state not in ("failed", "cancelled"):
                break
            self.log.info("instance %s has %s: looking for the run that replaces it", instance.id, instance.state)
            record = self._new_record(workflow_id, attempt.generation, record.rerun + 1)
            record.since = attempt.first_instant.isoformat()
            instance = self._submit(record, first_attempt=False, chosen=None, anytime=explicit)
        return instance

    def _earlier_tries(self) -> int:
        return self.attempt.try_number - self.attempt.generation - 1

    def _is_gated(self, workflow_id: str) -> bool:
        stages = self.http.get_workflow(workflow_id).stages
        return bool(stages) and (awaited_event(stages[0]) or "").startswith("go:${")

    def _of_earlier_generation(self) -> Instance | None:
        """Without a record: the run of an earlier generation that this one has to go on with.

        On the first try that is one which still runs. On a further try, where this generation has no run of its
        own, the try before may have waited for an earlier one that has ended since: its end is reported, for a
        new run could pay twice. Only gated runs can be found, by the event of their gate.
        """
        attempt, operator = self.attempt, self.operator
        if self.store.durable or attempt.generation == 0 or operator.run_key is not None:
            return None
        workflow_id = self._workflow_id()
        if not self._is_gated(workflow_id):
            return None
        first = attempt.first_of_generation
        own = f"go:{attempt.base_key(attempt.generation)}"
        earlier = {f"go:{attempt.base_key(number)}" for number in range(attempt.generation)}
        found: list[Instance] = []
        for row in self.http.list_instances(workflow_id, running=True if first else None):
            try:
                history = self.http.get_instance_history(row.id)
            except OrchestrationError:
                continue
            event = history[0].input.get("event") if history else None
            key = event.partition("#")[0] if isinstance(event, str) else ""
            if key == own:
                return None
            if key in earlier and history[0].terminated and history[0].error is None:
                found.append(row)
        for row in sorted(found, key=lambda one: one.created_at, reverse=True):
            known = self.http.get_instance(row.id)
            if not known.terminated:
                known = self._settled(known)
            if known.terminated and known.state == "cancelled":
                continue
            self.log.warning(
                "the task was cleared, but its earlier run %s was not cancelled: its end is this task's, "
                "since a second run could pay twice; once it has ended, clear the task again to run anew",
                known.id,
            )
            self._noticed(known.id)
            return known
        return None

    def _workflow_id(self) -> str:
        """The workflow to run; a definition is ensured on the server first, with a gate."""
        operator = self.operator
        if operator.definition in (None, "") and operator.path in (None, ""):
            return str(operator.workflow_id)
        ensured = self.http.ensure_workflow(read_definition(operator.definition, operator.path), gate=True)
        self.log.info("workflow %s %s", ensured.workflow.id, "was created" if ensured.created else "is reused")
        return ensured.workflow.id

    def _new_record(self, workflow_id: str, generation: int, rerun: int) -> RunRecord:
        base = self.operator.run_key if self.operator.run_key is not None else self.attempt.base_key(generation)
        return RunRecord(
            key=rerun_key(base, rerun),
            server=self.hook.settings().base_url,
            workflow_id=workflow_id,
            generation=generation,
            max_tries=self.attempt.max_tries,
            try_number=self.attempt.try_number,
            since=datetime.now(timezone.utc).isoformat(),
            rerun=rerun,
        )

    def _submit(self, record: RunRecord, *, first_attempt: bool, chosen: str | None, anytime: bool = False) -> Instance:
        """Start by the record, which is written down first."""
        self.record = record
        self._save(record, try_number=self.attempt.try_number)
        instance = self.http.start(
            record.workflow_id,
            self.operator.variables,
            run_key=record.key,
            first_attempt=first_attempt,
            since=None if anytime else record.since_instant,
            chosen=chosen,
            on_chosen=self._chosen,
            key_variable=self.operator.key_variable,
            allow_unbound=self.operator.allow_unbound,
            timeout=self.operator.start_timeout,
        )
        if self.instance_id != instance.id:
            self._noticed(instance.id)
        self._save(record, instance_id=instance.id, started=True, seen=_has_row(instance))
        self.log.info("instance %s of workflow %s, run key %s", instance.id, record.workflow_id, record.key)
        return instance

    def _chosen(self, instance_id: str) -> None:
        """Told before the release: what fails here fails the start, and nothing is released."""
        record = self.record
        if record is not None:
            self._save(record, instance_id=instance_id)
        self._noticed(instance_id)

    def _noticed(self, instance_id: str) -> None:
        self.instance_id = instance_id
        ti = self.context["ti"]
        ti.xcom_push(key=INSTANCE_ID_KEY, value=instance_id)
        about = {
            "instance_id": instance_id,
            "conn_id": self.operator.orchestration_conn_id,
            "url": instance_url(self.hook.settings().base_url, instance_id),
        }
        ti.xcom_push(key=ABOUT_KEY, value=about)

    def _save(self, record: RunRecord, **changes: Any) -> None:
        for name, value in changes.items():
            setattr(record, name, value)
        self.store.save(record)

    # Waiting

    def _limit(self) -> _Limit:
        """Anchored at the start of the try, in epoch seconds, so that it means the same on every host."""
        started = self.context["ti"].start_date
        begun = started.timestamp() if started is not None else time.time()
        own = _seconds(self.operator.timeout, "timeout")
        execution = self.operator.execution_timeout
        deadline = None if own is None else begun + own
        if self.operator.deferrable and execution is not None:
            # Airflow 3 does not apply it to a deferred task.
            by_airflow = begun + execution.total_seconds()
            if deadline is None or by_airflow < deadline:
                return _Limit(by_airflow, "execution_timeout")
        return _Limit(deadline, "timeout")

    def _wait_here(self, instance_id: str, limit: _Limit) -> dict[str, Any] | None:
        try:
            result = self.http.wait(
                instance_id,
                deadline=limit.deadline,
                poll_interval=self.operator.poll_interval,
                on_stage=self._log_stage,
                fail_after_attempts=self.operator.fail_after_attempts,
            )
        except OrchestrationError as error:
            return self._ended_badly(error, limit)
        return self._succeeded(result.instance, result.moved)

    def _log_stage(self, event: StageEvent) -> None:
        self.log.info("%s", stage_line(event))

    def _defer(self, instance_id: str, limit: _Limit, resumed: int, row_grace: float | None = None) -> None:
        from .triggers import OrchestrationInstanceTrigger

        remaining = None
        if limit.deadline is not None:
            remaining = timedelta(seconds=max(0.0, limit.deadline - time.time()) + DEFER_MARGIN)
        self.operator.defer(
            trigger=OrchestrationInstanceTrigger(
                instance_id=instance_id,
                orchestration_conn_id=self.operator.orchestration_conn_id,
                deadline=limit.deadline,
                poll_interval=self.operator.poll_interval,
                fail_after_attempts=self.operator.fail_after_attempts,
                cancel_on_kill=self.operator.cancel_on_kill,
                row_grace=row_grace,
            ),
            method_name="execute_complete",
            kwargs={
                "instance_id": instance_id,
                "deadline": limit.deadline,
                "limited_by": limit.by,
                "resumed": resumed,
            },
            timeout=remaining,
        )

    def resume(self, event: Any, instance_id: str | None, limit: _Limit, resumed: int) -> dict[str, Any] | None:
        said = event if isinstance(event, Mapping) else {}
        instance_id = self._take_up(instance_id or said.get("instance_id"))
        if said.get("instance_id") not in (None, instance_id):
            said = {}
        status = said.get("status")
        instance = self._read(instance_id)
        if instance.terminated:
            moved = told_moved(said.get("result"), instance_id) if status == "succeeded" else None
            if moved is not None and instance.state == "succeeded":
                return self._succeeded(instance, moved)
            return self._wait_here(instance_id, _Limit(None, limit.by))
        message = str(said.get("message") or f"instance {instance_id} was still running")
        nothing = Moved(stages_completed=0, transactions=(), complete=False)
        about: dict[str, Any] = {"instance_id": instance_id, "instance": instance, "moved": nothing}
        over = limit.deadline is not None and time.time() >= limit.deadline
        if status == "stuck":
            return self._ended_badly(InstanceStuckError(message, reason="attempts", **about), limit)
        if status == "timeout" or over:
            return self._ended_badly(WaitTimeoutError(message, **about), limit)
        self.log.warning("instance %s runs, and the triggerer said: %s %s", instance_id, status, message)
        if resumed < MOST_DEFERRALS:
            self._defer(instance_id, limit, resumed + 1)
        left = self._leave_or_cancel(instance_id, "the wait was broken off again and again")
        raise StateUnknownError(
            f"waiting for instance {instance_id} failed in the triggerer: {message}; {left}", **about
        )

    def _take_up(self, instance_id: Any) -> str:
        """Go on with an instance in a new process."""
        self.record = self.store.load()
        if not instance_id and self.record is not None:
            instance_id = self.record.instance_id
        if not instance_id:
            ti = self.context["ti"]
            instance_id = ti.xcom_pull(task_ids=ti.task_id, key=INSTANCE_ID_KEY, map_indexes=ti.map_index)
        if not isinstance(instance_id, str) or not instance_id:
            raise wrong_server("it is not on record which instance this task waited for; it may still run")
        if self.record is not None:
            self._check_server(self.record)
        self.instance_id = instance_id
        return instance_id

    def _read(self, instance_id: str) -> Instance:
        try:
            return self.http.get_instance(instance_id)
        except NotFoundError as error:
            raise wrong_server(
                f"instance {instance_id}, for which this task waited, is unknown to "
                f"{self.hook.settings().base_url} ({summary(error)}): is this another server?"
            ) from error

    def after_failed_deferral(self, failure: BaseException) -> dict[str, Any] | None:
        """A fresh look first: the run may have ended meanwhile."""
        instance_id = self._take_up(None)
        timed_out = is_deferral_timeout(failure)
        try:
            instance = self._read(instance_id)
        except OrchestrationError as error:
            self.log.error("instance %s may still run, it could not be read: %s", instance_id, error)
            raise failure from error
        if instance.terminated:
            self.log.info("the deferral failed (%s), but instance %s has ended", failure, instance_id)
            return self._wait_here(instance_id, _Limit(None, "timeout"))
        if timed_out:
            outcome = self._on_timeout(instance_id, self._limit())
            if outcome is not None and outcome.status == "already_ended":
                return self._wait_here(instance_id, _Limit(None, "timeout"))
        else:
            self.log.error("%s", self._leave_or_cancel(instance_id, "the deferral failed"))
        raise failure

    def _leave_or_cancel(self, instance_id: str, why: str) -> str:
        """A wait that broke down: a further try takes the run up again; without one, nobody would."""
        if self.attempt.retry_follows:
            return f"{why}; instance {instance_id} still runs, the next try attaches to it"
        if not self.operator.cancel_on_kill:
            return f"{why}; instance {instance_id} still runs (cancel_on_kill=False)"
        return self._outcome_text(self._cancel(instance_id))

    # Ends

    def _succeeded(self, instance: Instance, moved: Moved | Mapping[str, Any]) -> dict[str, Any]:
        self._reported("succeeded")
        returned = run_summary(instance, moved)
        if returned["maybe_repeated"]:
            self.log.warning("instance %s: money may have moved twice: check the ledger", instance.id)
        self.log.info("instance %s has succeeded", instance.id)
        return returned

    def _reported(self, state: str) -> None:
        record = self.record
        if record is None:
            return
        self._save(
            record,
            end=state,
            end_try=self.attempt.try_number,
            try_number=self.attempt.try_number,
            max_tries=self.attempt.max_tries,
        )

    def _ended_badly(self, error: OrchestrationError, limit: _Limit) -> dict[str, Any] | None:
        """Raise what the end means; return a result where the run ended well at the last moment."""
        if isinstance(error, InstanceFailedError | InstanceCancelledError):
            self._reported("failed" if isinstance(error, InstanceFailedError) else "cancelled")
            if not self.operator.rerun_failed:
                self.log.error("a retry will report this again and run nothing: to run anew, clear the task")
        elif isinstance(error, InstanceStuckError) and error.reason == "never_started":
            self._reported("never_started")
        elif isinstance(error, WaitTimeoutError | InstanceStuckError):
            return self._gave_up(error, limit)
        elif isinstance(error, NotFoundError):
            raise wrong_server(str(error)) from error
        raise error

    def _gave_up(self, error: WaitTimeoutError | InstanceStuckError, limit: _Limit) -> dict[str, Any] | None:
        """Waiting ended before the run did: cancel it, unless it is to be left, and say what came of that."""
        outcome = self._on_timeout(error.instance_id, limit)
        if outcome is not None and outcome.status == "already_ended":
            return self._wait_here(error.instance_id, _Limit(None, limit.by))
        if outcome is None:
            left = "it was left running (a retry goes on waiting for it)"
        else:
            left = self._outcome_text(outcome)
            if outcome.status in ("cancelled", "never_started"):
                self._reported(outcome.status)
        instance = outcome.instance if outcome is not None and outcome.instance is not None else error.instance
        message = f"{str(error).removesuffix('; it was not cancelled')}; {left}"
        about: dict[str, Any] = {
            "instance_id": error.instance_id,
            "instance": instance,
            "moved": outcome.moved if outcome is not None and outcome.instance is not None else error.moved,
        }
        if isinstance(error, InstanceStuckError):
            raise InstanceStuckError(message, reason=error.reason, **about) from error
        raise WaitTimeoutError(message, **about) from error

    def _on_timeout(self, instance_id: str, limit: _Limit) -> CancelOutcome | None:
        if limit.by == "execution_timeout":
            wanted = self.operator.cancel_on_kill
        else:
            wanted = self.operator.on_timeout == "cancel"
        return self._cancel(instance_id) if wanted else None

    def _cancel(self, instance_id: str) -> CancelOutcome:
        return self.http.cancel(instance_id, timeout=CANCEL_SECONDS)

    def _outcome_text(self, outcome: CancelOutcome) -> str:
        if outcome.status == "cancelled":
            if outcome.in_flight:
                names = ", ".join(activity.name for activity in outcome.in_flight)
                return f"it was cancelled amid {names}: that money may have moved, check the ledger"
            return "it was cancelled"
        if outcome.status == "never_started":
            return "it never started"
        if outcome.status == "already_ended":
            return "it has ended by itself meanwhile"
        answer = outcome.abort_answer
        return f"it STILL RUNS as far as can be seen: the abort was answered with {answer} and did not end it"

    # Kills

    def on_kill(self) -> None:
        """Runs inside a signal handler: fresh connections, short limits, and nothing that needs the main thread.

        On Airflow 3 the interrupted code would go on afterwards. Amid a start it must not: it could still
        submit or release what nobody waits for any more.
        """
        self._cancel_killed()
        if self.starting:
            raise AirflowException("killed while the run was being started; it was not released")

    def _cancel_killed(self) -> None:
        if self.instance_id is None:
            record = self.record
            if record is not None:
                self.log.warning(
                    "killed while the run with key %s was being started: a gated one is not released; "
                    "an ungated one may have started",
                    record.key,
                )
            return
        marking = threading.Thread(target=self._mark_clear, daemon=True)
        if self.store.durable and self.record is not None:
            marking.start()
        if self.operator.cancel_on_kill:
            try:
                with self.hook.fresh_conn(timeout=2.0, retry_budget=2.0) as http:
                    outcome = http.cancel(self.instance_id, timeout=KILL_SECONDS)
                self.log.info("killed; instance %s: %s", self.instance_id, self._outcome_text(outcome))
            except OrchestrationError as error:
                self.log.error("killed; instance %s was not cancelled and may still run: %s", self.instance_id, error)
        else:
            self.log.info("killed; instance %s is left running (cancel_on_kill=False)", self.instance_id)
        if marking.is_alive():
            marking.join(1.0)

    def _mark_clear(self) -> None:
        """A kill because the task was cleared asks for a new run; one by a dying worker does not."""
        attempt, record = self.attempt, self.record
        if record is None:
            return
        try:
            state = state_of_task(attempt.dag_id, attempt.run_id, attempt.task_id, attempt.map_index)
            if state == "restarting":
                self._save(record, cleared=True)
        except Exception:
            self.log.warning("could not note why the task was killed", exc_info=True)


def read_definition(definition: Any, path: Any) -> Mapping[str, Any]:
    """A definition given as a mapping, as text or as a file.

    Raises:
        ValidationError: it is none, or the file can't be read.
    """
    from ..api.yaml_text import parse_definition

    if definition in (None, ""):
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read()
        except (OSError, UnicodeDecodeError) as error:
            raise ValidationError(f"path: {path!r} cannot be read: {error}", path="path") from None
        found = parse_definition(text, str(path))
    elif isinstance(definition, str):
        found = parse_definition(definition)
    else:
        found = definition
    if not isinstance(found, Mapping):
        raise ValidationError(f"a definition must be a mapping, not a {type(found).__name__}", path="definition")
    return found

"""The operator that runs a workflow as a task: parameters in, results out. See ``task_run`` for a try at work."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Literal

from ..api.errors import OrchestrationError
from ..api.numbers import at_least_zero, checked_flag
from ..procedures.limits import POLL_SECONDS, READ_BUDGET, START_SECONDS
from ..procedures.wait_arguments import WaitArguments
from .arguments import check_run, poll_seconds_of, seconds_of
from .checkpointing import check_checkpoints
from .compat import DEFERRAL_FAILURES, BaseOperator, Context, is_deferrable
from .definition_fields import DefinitionFields
from .earlier_run import tell_earlier_run
from .errors import told
from .hooks import DEFAULT_CONN_ID
from .killing import on_kill
from .links import OrchestrationInstanceLink
from .task_run import TaskRun


class OrchestrationRunWorkflowOperator(DefinitionFields, BaseOperator):  # type: ignore[misc]
    """Run a workflow once and wait for its end.

    All tries of one task share one run: a retry continues with it, or reports its end, and submits only if nothing was
    submitted before. If a user clears the task, it starts a new run once the earlier one has ended or was cancelled.
    The run key names one payment: the task refuses it with other variables or another workflow.

    Args:
        workflow_id: what to run. Give one of this, workflow_name, definition and path.
        workflow_name: the name of what to run. Exactly one workflow on the server must have it. A run that has begun
            is bound to the workflow that had the name then: if the name means another one by now, a retry is refused.
        definition: a mapping, or YAML or JSON text, or the name of a file (``.yaml``, ``.yml``, ``.json``) that is a
            template. The task puts it on the server with a gate, so that no run is ever started twice for one key.
        path: the path of a file with a definition, which is read as it is. The task looks for a relative path or name
            in the folder of the DAG's file, then in the DAG's ``template_searchpath``.
        variables: by name; see ``variable_texts`` for the types. A placeholder without a value is an error, and so
            is a rendered text that holds the word ``None``.
        run_key: names the payment. Default: made of the ids of DAG, run, task and map index. One that is given is
            shared by all tasks that give it: a run that already has the key is continued, or its end is reported.
        wait_for_termination: wait for the end of the run; default True. With False the task returns once the run is
            started, whatever ``deferrable`` says.
        deferrable: wait in the triggerer; default: Airflow's ``operators.default_deferrable``.
        poll_interval: seconds between two polls at most: a number, a timedelta, or a template of a number; default 5.
        timeout: seconds (a number, a timedelta, or a template of a number) from the start of the try after which
            waiting ends; None (default) for never.
        on_timeout: what becomes of a run that has not ended when the waiting ends: ``cancel`` (default) or ``leave``.
            So too at ``fail_after_attempts``, and where the run cannot be read any more and no retry follows.
        cancel_on_kill: cancel the run when the task is killed, which means: marked failed, cleared, or timed out by
            Airflow. Default True.
        rerun_failed: a retry after a reported failure starts a new run, whose first stages move money again. Default
            False: the retry reports the failure again. A run that was cancelled while a payment was under way has to
            be settled first.
        rerun_on_clear: False: a cleared task reports the recorded end of its run, as a retry does. Default True.
        on_changed: ``refuse`` (default) other variables or another workflow under a used key, or ``adopt`` the run
            that has it.
        fingerprint_ignores: names of variables that may differ between tries; default none.
        settled: the ``token`` of an AmbiguousRunError, default None. Give it once you know that that run did not pay
            and will not; the call may then start a new run, which moves money again.
        fail_after_attempts: stop waiting once a payment has failed this many times in a row; None (default) for never.
        read_budget: stop waiting once all reads have failed for so many seconds; default 120. If a retry follows, the
            run is left to it; else ``on_timeout`` decides. The same where the server refuses the reads.
        retry_ambiguous: allow a retry where it is unknown whether a run was started. The retry looks
            for the run again and never submits an ungated one twice. Default False.
        allow_unbound: let placeholders without a value pass; the server fills in nothing or a default. Default False:
            they are a ValidationError.
        strict_variables: refuse a variable that no placeholder of the workflow asks for, which is often a mistyped
            name. Default False: a warning in the task's log names it.
        allow_none_text: names of variables whose text may hold the word ``None``; default none.
        key_variable: the variable that carries the run key; default ``runKey``.
        checkpoints: put a checkpoint before each stage of a given definition that moves money; a workflow that is given
            by its id or name must have them. Before the run passes one, the task asks whether it may. So a cancel
            holds the run there, on every generation of the server. Default False: no checkpoint is put in, and a
            workflow that has some is let pass them all the same.
        hold_on_failure: a run whose next checkpoint is reached is not let pass it once another task of the DAG run has
            failed since this task began. Default None: True, but False for teardowns and for tasks whose trigger rule
            lets them run after a failure.
        start_timeout: seconds for starting the run; default 60. When they are over, the task raises StateUnknownError
            if a run is on record, AmbiguousRunError if one may exist and nobody can find out, else the last error.
        orchestration_conn_id: the id of the connection; default ``orchestration_default``.

    Returns (XCom): ``instance_id``, ``workflow_id``, ``state``, ``stages_completed``, ``transactions``,
    ``maybe_repeated`` (check the ledger); what was not read is None, and then ``complete`` is False. The XCom
    ``instance_id`` is pushed as soon as the id is known.

    Raises:
        InstanceFailedError, InstanceCancelledError: the run failed or was cancelled; each further try raises it again.
        InstanceStuckError, WaitTimeoutError: the waiting ended; the message says what became of the run. With
            ``reason="held"`` the run stands at a checkpoint, held by a cancel: not retried; a clear lets it go on.
        StateUnknownError: the run could not be read; the next try goes on with it. AuthenticationError, NotFoundError
            and ValidationError with ``run_may_exist``, where the server refuses the reads: they are retried too.
        AmbiguousRunError: a run may have started, and the server's answers do not tell; not retried by default.
        KeyReusedError: the key stands for another payment; not retried.
        WrongServerError, UnreadableRecordError: not retried; the message says what to do.
        OwnerGoneError: the task was marked, cleared or taken over, or another task has failed (``hold_on_failure``);
            nothing more was released, and no further checkpoint was passed.
        NotFoundError, ValidationError, ConfigurationError: of what the task asks for; not retried.
    """

    template_fields: Sequence[str] = (
        "orchestration_conn_id",
        "workflow_id",
        "workflow_name",
        "definition",
        "path",
        "variables",
        "run_key",
        "settled",
        "timeout",
        "poll_interval",
    )
    template_fields_renderers = {"definition": "json", "variables": "json"}  # noqa: RUF012
    operator_extra_links = (OrchestrationInstanceLink(),)
    ui_color = "#d9e6f2"

    def __init__(
        self,
        *,
        workflow_id: Any = None,
        workflow_name: Any = None,
        definition: Any = None,
        path: Any = None,
        variables: Any = None,
        run_key: Any = None,
        wait_for_termination: bool = True,
        deferrable: bool | None = None,
        poll_interval: float | timedelta | str = POLL_SECONDS,
        timeout: float | timedelta | str | None = None,
        on_timeout: Literal["cancel", "leave"] = "cancel",
        cancel_on_kill: bool = True,
        rerun_failed: bool = False,
        rerun_on_clear: bool = True,
        on_changed: Literal["refuse", "adopt"] = "refuse",
        fingerprint_ignores: Sequence[str] = (),
        settled: str | None = None,
        fail_after_attempts: int | None = None,
        read_budget: float = READ_BUDGET,
        retry_ambiguous: bool = False,
        allow_unbound: bool = False,
        strict_variables: bool = False,
        allow_none_text: Sequence[str] = (),
        key_variable: str = "runKey",
        checkpoints: bool = False,
        hold_on_failure: bool | None = None,
        start_timeout: float = START_SECONDS,
        orchestration_conn_id: str = DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        check_checkpoints(checkpoints, wait_for_termination, hold_on_failure)
        flags = {
            "wait_for_termination": wait_for_termination,
            "cancel_on_kill": cancel_on_kill,
            "rerun_failed": rerun_failed,
            "rerun_on_clear": rerun_on_clear,
            "retry_ambiguous": retry_ambiguous,
            "allow_unbound": allow_unbound,
            "strict_variables": strict_variables,
        }
        for name, value in flags.items():
            checked_flag(value, name)
        super().__init__(**kwargs)
        self.workflow_id = workflow_id
        self.workflow_name = workflow_name
        self.definition = definition
        self.path = path
        self.variables = variables
        self.run_key = run_key
        self.wait_for_termination = wait_for_termination
        self.deferrable = is_deferrable(deferrable)
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.on_timeout = on_timeout
        self.cancel_on_kill = cancel_on_kill
        self.rerun_failed = rerun_failed
        self.rerun_on_clear = rerun_on_clear
        self.on_changed = on_changed
        self.fingerprint_ignores = fingerprint_ignores
        self.settled = settled
        self.fail_after_attempts = fail_after_attempts
        self.read_budget = read_budget
        self.retry_ambiguous = retry_ambiguous
        self.allow_unbound = allow_unbound
        self.strict_variables = strict_variables
        self.allow_none_text = allow_none_text
        self.key_variable = key_variable
        self.checkpoints = checkpoints
        self.hold_on_failure = hold_on_failure
        self.start_timeout = start_timeout
        self.orchestration_conn_id = orchestration_conn_id
        self._active: TaskRun | None = None
        self._killed = False

    # Entry points of Airflow

    def execute(self, context: Context) -> Any:
        """Start or find the run, then wait for it here or in the triggerer."""

        def begin(run: TaskRun) -> dict[str, Any]:
            return run.execute()

        return self._perform(context, begin)

    def execute_complete(
        self,
        context: Context,
        event: Any = None,
        instance_id: str | None = None,
        deadline: float | None = None,
        limited_by: str = "timeout",
        resumed: int = 0,
        **later: Any,
    ) -> Any:
        """Go on after the triggerer. An event is a hint: the server decides."""

        def resume(run: TaskRun) -> dict[str, Any]:
            return run.resume(event, instance_id, deadline, limited_by, resumed)

        return self._perform(context, resume, resumes=True, begun=instance_id)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """As Airflow's; a deferral that failed or timed out must not leave a run behind that nobody waits for."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except DEFERRAL_FAILURES as caught:
            failure = caught

        def look(run: TaskRun) -> dict[str, Any]:
            return run.after_failed_deferral(failure)

        return self._perform(context, look, resumes=True)

    def on_kill(self) -> None:
        """Cancel the run where the kill means that, on fresh connections and within seconds."""
        if self._active is None:
            self._killed = True
            self.log.warning(
                "killed before this try had looked for its run: one that was started before was not cancelled yet and "
                "may still run"
            )
        else:
            on_kill(self._active)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """What OpenLineage's provider, where it is installed, is told of the run and of the money that it moved."""
        from .openlineage import lineage_of

        return None if self._active is None else lineage_of(self._active)

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> Any:
        """The same of a run whose task has failed: it may have moved money before."""
        return self.get_openlineage_facets_on_complete(task_instance)

    # Inside

    def _perform(
        self, context: Context, step: Callable[[TaskRun], Any], *, resumes: bool = False, begun: str | None = None
    ) -> Any:
        """One step of a try. What the process holds is given back however it ends, by a deferral too."""
        began = time.time()
        run: TaskRun | None = None
        try:
            run = self._active = TaskRun(self, context, began, resumes=resumes, begun=begun)
            if self._killed:
                self._killed = False
                on_kill(run)
            if not resumes:
                self._prepare(context)
            return step(run)
        except OrchestrationError as error:
            if run is None:
                raise told(error) from error.__cause__
            raised = run.told(error)
            if not run.knows_of(error):
                tell_earlier_run(run, raised)
            raise raised from error.__cause__
        except Exception as error:
            if run is not None and not run.knows_of(error):
                tell_earlier_run(run, error)
            raise
        finally:
            if run is not None:
                run.close()

    def _prepare(self, context: Context) -> None:
        """Refuse wrong arguments before anything is sent; they may be templates until now."""
        check_run(
            workflow_id=self.workflow_id,
            workflow_name=self.workflow_name,
            definition=self.definition,
            path=self.path,
            variables=self.variables,
            run_key=self.run_key,
            on_timeout=self.on_timeout,
            allow_none_text=self.allow_none_text,
        )
        check_checkpoints(self.checkpoints, self.wait_for_termination, self.hold_on_failure)
        at_least_zero(self.start_timeout, "start_timeout")
        WaitArguments(
            timeout=seconds_of(self.timeout, "timeout"),
            poll_interval=poll_seconds_of(self.poll_interval),
            fail_after_attempts=self.fail_after_attempts,
            read_budget=self.read_budget,
        )

"""Operators: create a workflow, run one, send an event, cancel an instance."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from ..api.definitions import awaited_event, may_become
from ..api.errors import (
    EventNotDeliveredError,
    NotFoundError,
    OrchestrationError,
    OwnerGoneError,
    OwnerUnreachableError,
    ValidationError,
)
from ..api.numbers import checked_flag
from ..procedures.limits import CANCEL_SECONDS, POLL_SECONDS
from ..procedures.wait_arguments import WaitArguments
from ..procedures.wording import cancel_summary
from .arguments import instance_ids, named, needed_seconds_of, poll_seconds_of, seconds_of, stage_of
from .cancelling import RETRY_SECONDS, cancel_all
from .compat import (
    DEFERRAL_FAILURES,
    AirflowException,
    AirflowSkipException,
    BaseOperator,
    Context,
    TaskDeferred,
    attempt_of,
    is_deferrable,
)
from .definition_fields import DefinitionFields
from .errors import EventNotDeliveredFailure, final, told
from .hooks import DEFAULT_CONN_ID, OrchestrationHook
from .limits import deferral_limit
from .marks import VariableMarks, parts_of, put_up_hold
from .owner import Calls, TaskOwner
from .run_operator import OrchestrationRunWorkflowOperator
from .run_records import EventNote
from .skipped import deadline_after, keep_deadline

SEND_SECONDS = 60.0
"""Seconds for delivering an event to a stage that was seen listening."""

__all__ = [
    "OrchestrationCancelInstanceOperator",
    "OrchestrationCreateWorkflowOperator",
    "OrchestrationRunWorkflowOperator",
    "OrchestrationSendEventOperator",
]


class OrchestrationCreateWorkflowOperator(DefinitionFields, BaseOperator):  # type: ignore[misc]
    """Make sure that a definition is on the server; an equal one is reused.

    Args:
        definition: a mapping, or YAML or JSON text, or the name of a file (``.yaml``, ``.yml``, ``.json``) that is a
            template. Give this or path.
        path: the path of a file with a definition, which is read as it is. The task looks for a relative path or name
            in the folder of the DAG's file, then in the DAG's ``template_searchpath``.
        gate: put a gate before its first stage, so that no run is ever started twice for one key. Default False.
        checkpoints: put a checkpoint before each stage that moves money; needs ``gate=True``. Default False.
        orchestration_conn_id: the id of the connection; default ``orchestration_default``.

    Returns (XCom): the workflow's id.
    """

    template_fields: Sequence[str] = ("definition", "path", "orchestration_conn_id")
    template_fields_renderers = {"definition": "json"}  # noqa: RUF012
    ui_color = "#d9e6f2"

    def __init__(
        self,
        *,
        definition: Any = None,
        path: Any = None,
        gate: bool = False,
        checkpoints: bool = False,
        orchestration_conn_id: str = DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        checked_flag(gate, "gate")
        if checked_flag(checkpoints, "checkpoints") and not gate:
            raise ValidationError("checkpoints: they need a gate; give gate=True too", path="checkpoints")
        super().__init__(**kwargs)
        self.definition = definition
        self.path = path
        self.gate = gate
        self.checkpoints = checkpoints
        self.orchestration_conn_id = orchestration_conn_id

    def execute(self, context: Context) -> str:
        """Make sure that it is on the server."""
        try:
            definition = self.read_definition()
            with OrchestrationHook(self.orchestration_conn_id).fresh_conn() as http:
                ensured = http.ensure_workflow(definition, gate=self.gate, checkpoints=self.checkpoints)
        except OrchestrationError as error:
            raise told(error) from error.__cause__
        self.log.info("workflow %s %s", ensured.workflow.id, "was created" if ensured.created else "is reused")
        return ensured.workflow.id


class OrchestrationSendEventOperator(BaseOperator):  # type: ignore[misc]
    """Send an event to the stage of an instance that waits for it, and see that it was taken.

    Args:
        instance_id: the instance that is to receive it.
        event: the name of the event.
        stage: the number of the stage that is meant, if several wait for the same name: from 0, a gate included.
        timeout: seconds (a number, a timedelta, or a template of a number) from the start of the try until the stage
            must have taken the event; None (default) for no limit.
        deferrable: wait for the stage in the triggerer; the event itself is sent by a worker.
            Default: Airflow's ``operators.default_deferrable``.
        poll_interval: seconds between two looks of the triggerer at most, given in the same ways; default 5.
        orchestration_conn_id: the id of the connection; default ``orchestration_default``.

    Returns (XCom): ``instance_id``, ``event``, ``state`` of the instance after it.

    Raises:
        EventNotDeliveredError: ``reason`` says why. Airflow retries it only if nothing was sent and the stage may still
            listen.
    """

    template_fields: Sequence[str] = (
        "instance_id",
        "event",
        "stage",
        "orchestration_conn_id",
        "timeout",
        "poll_interval",
    )
    ui_color = "#d9e6f2"

    def __init__(
        self,
        *,
        instance_id: Any,
        event: Any,
        stage: Any = None,
        timeout: float | timedelta | str | None = None,
        deferrable: bool | None = None,
        poll_interval: float | timedelta | str = POLL_SECONDS,
        orchestration_conn_id: str = DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.instance_id = instance_id
        self.event = event
        self.stage = stage
        self.timeout = timeout
        self.deferrable = is_deferrable(deferrable)
        self.poll_interval = poll_interval
        self.orchestration_conn_id = orchestration_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Deliver it here, or wait in the triggerer first."""
        try:
            self._check()
            deadline = self._deadline(context)
            if self.deferrable:
                keep_deadline(context, deadline)
                raise self._deferral(deadline)
            return self._send(context, deadline)
        except OrchestrationError as error:
            raise told(error) from error.__cause__

    def execute_complete(
        self, context: Context, event: Any = None, deadline: float | None = None, **later: Any
    ) -> dict[str, Any]:
        """Send it, whatever the triggerer saw: the delivery looks for itself."""
        said = event if isinstance(event, Mapping) else {}
        self.log.info("the triggerer reported: %s %s", said.get("status"), said.get("message"))
        try:
            deadline = deadline_after(context, self.instance_id, deadline, lambda: self._deadline(context))
            if deadline is not None and said.get("status") == "timeout":
                deadline = min(deadline, time.time())
            return self._send(context, deadline)
        except OrchestrationError as error:
            raise told(error) from error.__cause__

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """As Airflow's; where the deferral failed the delivery is tried all the same, within a short time."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except DEFERRAL_FAILURES as failure:
            self.log.warning("the deferral failed (%s): trying to deliver at once", failure)
            return self.execute_complete(context, None, deadline=time.time())

    def _check(self) -> None:
        for name in ("instance_id", "event"):
            named(getattr(self, name), name)
        stage_of(self.stage)
        WaitArguments(timeout=seconds_of(self.timeout, "timeout"), poll_interval=poll_seconds_of(self.poll_interval))

    def _deadline(self, context: Context) -> float | None:
        seconds = seconds_of(self.timeout, "timeout")
        if seconds is None:
            return None
        started = context["ti"].start_date
        return (started.timestamp() if started is not None else time.time()) + seconds

    def _deferral(self, deadline: float | None) -> TaskDeferred:
        """What is raised to leave the wait for the stage to the triggerer."""
        from .triggers import OrchestrationStageTrigger

        return TaskDeferred(
            trigger=OrchestrationStageTrigger(
                instance_id=self.instance_id,
                stage=stage_of(self.stage),
                until="listening",
                event=self.event,
                orchestration_conn_id=self.orchestration_conn_id,
                deadline=deadline,
                poll_interval=poll_seconds_of(self.poll_interval),
            ),
            method_name="execute_complete",
            kwargs={"deadline": deadline},
            timeout=deferral_limit(deadline),
        )

    def _send(self, context: Context, deadline: float | None) -> dict[str, Any]:
        stage = stage_of(self.stage)
        timeout: float | None = None
        if deadline is not None:
            timeout = max(1.0, deadline - time.time())
        elif self.deferrable:
            timeout = SEND_SECONDS
        sending = _Sending(context, self.instance_id, self.event)
        with OrchestrationHook(self.orchestration_conn_id).fresh_conn() as http:
            url = http.settings.instance_link(self.instance_id)
            self.log.info("sending event %r to instance %s once it listens: %s", self.event, self.instance_id, url)
            if sending.tried and stage is not None and _waits_often(http, self.instance_id, self.event):
                raise EventNotDeliveredFailure(
                    f"an earlier try may have sent {self.event!r} to instance {self.instance_id}, and several stages "
                    "wait for that name: sending it again could skip one",
                    reason="unknown",
                    instance_id=self.instance_id,
                )
            try:
                instance = http.send_event_when_ready(
                    self.instance_id, self.event, stage=stage, timeout=timeout, before_send=sending.before_send
                )
            except EventNotDeliveredError as error:
                if sending.tried and _is_past(error):
                    self.log.warning("an earlier try or another sender has already delivered it: %s", error)
                    instance = http.get_instance(self.instance_id)
                elif error.reason == "not_ready":
                    raise
                else:
                    raise final(error) from error
        return {"instance_id": instance.id, "event": self.event, "state": instance.state}


class _Sending:
    """What comes right before an event is sent: is it still wanted, and the note that it may have been sent.

    Attributes:
        tried: an earlier try of this task may have sent this event to this instance.
    """

    def __init__(self, context: Context, instance_id: str, event: str) -> None:
        attempt = attempt_of(context)
        self._instance_id = instance_id
        self._ours = {"instance_id": instance_id, "event": event}
        self._owner = TaskOwner(attempt, Calls())
        self._note = EventNote(attempt, context)
        try:
            self.tried = self._note.read() == self._ours
        except ValueError as error:
            raise ValidationError(
                f"whether an earlier try has sent the event cannot be read: {error}", path="event"
            ) from None

    def before_send(self) -> None:
        """Ask the owner, then write the note: a try that dies after it may have sent the event.

        Raises:
            OwnerGoneError: the task was marked, cleared or taken over; nothing was sent.
            OwnerUnreachableError: Airflow could not be asked; nothing was sent.
        """
        try:
            word = self._owner()
        except Exception as error:
            raise OwnerUnreachableError(
                f"whether the event to instance {self._instance_id} is still wanted could not be found out "
                f"({error!r}); it was not sent",
                run_key=None,
                instance_id=self._instance_id,
            ) from error
        if word != "yes":
            raise OwnerGoneError(
                f"this task was marked, cleared or taken over, so the event to instance {self._instance_id} was not "
                "sent",
                run_key=None,
                instance_id=self._instance_id,
                superseded=word == "superseded",
            )
        self._note.write(self._ours)


def _waits_often(http: Any, instance_id: str, event: str) -> bool:
    try:
        stages = http.get_workflow(http.get_instance(instance_id).workflow_id).stages
    except NotFoundError:
        return True
    names = [awaited_event(stage) for stage in stages]
    return sum(1 for name in names if name is not None and may_become(name, event)) > 1


def _is_past(error: EventNotDeliveredError) -> bool:
    """Whether the stage that waited for the event is behind the instance, without an error."""
    if error.reason == "stage_over":
        return True
    return error.reason == "instance_ended" and error.instance is not None and error.instance.state == "succeeded"


class OrchestrationCancelInstanceOperator(BaseOperator):  # type: ignore[misc]
    """Cancel an instance and say what is true afterwards. Use it with a trigger rule or as a teardown.

    Args:
        instance_id: the instance to cancel, or a list of them (also as the text that a template makes of a list).
            Nothing (None, empty, the text "None") skips the task.
        fail_if_not_confirmed: fail if nobody saw an instance end. Default False: only the outcome says so.
        timeout: seconds (a number, a timedelta, or a template of a number) for the instance, or for all of a list
            together, to end; default 15. Reading what they had moved may take three more.
        orchestration_conn_id: the id of the connection; default ``orchestration_default``.

    Returns (XCom): ``status`` (``cancelled``, ``already_ended``, ``never_started``, ``held``, ``not_confirmed``),
    ``instance_id``, ``state``, ``abort_answer``, ``in_flight`` (activities whose money may have moved all the
    same), and what had moved: ``stages_completed``, ``transactions``, ``maybe_repeated``, with ``complete`` False where
    not all of it was read; ``stages_completed`` None: nothing was. For a list: ``status`` (the worst) and
    ``instances``. ``held``: the instance stands at a checkpoint, and the task that runs it does not let it pass; this
    takes ten seconds to be sure of.
    """

    template_fields: Sequence[str] = ("instance_id", "orchestration_conn_id", "timeout")
    ui_color = "#f2dcd9"

    def __init__(
        self,
        *,
        instance_id: Any,
        fail_if_not_confirmed: bool = False,
        timeout: float | timedelta | str = CANCEL_SECONDS,
        orchestration_conn_id: str = DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.instance_id = instance_id
        self.fail_if_not_confirmed = checked_flag(fail_if_not_confirmed, "fail_if_not_confirmed")
        self.timeout = timeout
        self.orchestration_conn_id = orchestration_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Cancel, read until it has ended or the time is over."""
        try:
            seconds = needed_seconds_of(self.timeout, "timeout")
            ids, several = instance_ids(self.instance_id)
        except OrchestrationError as error:
            raise told(error) from None
        if not ids:
            raise AirflowSkipException("there is no instance to cancel")
        outcomes: list[dict[str, Any]] = []
        hook = OrchestrationHook(self.orchestration_conn_id)
        dag_id, run_id, task_id, _ = parts = parts_of(context)
        marks, by = VariableMarks(parts), f"task {task_id} of {dag_id} {run_id}"
        with hook.fresh_conn(retry_budget=RETRY_SECONDS) if several else hook.fresh_conn() as http:
            if several:
                all_told = cancel_all({"": http}, [("", one) for one in ids], seconds, marks, by)
                for (_, one), what in all_told.items():
                    outcomes.append(cancel_summary(one, what.outcome))
                    if what.unseen:
                        self.log.error("instance %s may still run: %s", one, what.unseen)
            else:
                try:
                    stop = put_up_hold(marks, ids[0], by, http.plans.clock)
                    outcome = http.perform(http.cancelling(ids[0], seconds, stop))
                    outcomes.append(cancel_summary(ids[0], outcome))
                except OrchestrationError as error:
                    raise told(error) from error.__cause__
        unsure = [one["instance_id"] for one in outcomes if one["status"] == "not_confirmed"]
        if unsure and self.fail_if_not_confirmed:
            raise AirflowException(f"these instances were not seen to end and may still run: {', '.join(unsure)}")
        if not several:
            return outcomes[0]
        return {"status": worst_of(outcomes), "instances": outcomes}


_WORST = ("not_confirmed", "held", "cancelled", "never_started", "already_ended")


def worst_of(outcomes: Sequence[Mapping[str, Any]]) -> str:
    """The status that most needs someone's attention."""
    found = {str(one["status"]) for one in outcomes}
    return next(one for one in _WORST if one in found)

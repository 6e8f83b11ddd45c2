"""Sensors: wait for what others do to an instance. They never change anything.

Every option means the same in the modes poke, reschedule and deferrable: an end that is not the expected
one fails at once (with ``soft_fail``: skips), a passing fault of the network does not.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal

from ..api.errors import (
    InstanceCancelledError,
    InstanceFailedError,
    NotFoundError,
    OrchestrationError,
    ValidationError,
    is_gateways_404,
)
from ..api.models import Instance, Moved, StageRun
from .compat import (
    AirflowException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    Context,
    PokeReturnValue,
    StartTriggerArgs,
    default_deferrable,
)
from .errors import NotAsExpectedFailure, final, told
from .hooks import DEFAULT_CONN_ID, OrchestrationHook

DEFER_MARGIN = 60.0
ROW_GRACE = 10.0
"""Seconds for which an id may be unknown to the server: rows can be late."""
UPSTREAM_GRACE = 3600.0
"""The same for an id that comes from upstream: the server gave it, so a run stands behind it however late its row."""
MOST_DEFERRALS = 5
_TRIGGERS = "orchestration_integrations.airflow.triggers"
_STATES = ("succeeded", "failed", "cancelled")


class _Sensor(BaseSensorOperator):  # type: ignore[misc]
    """What both sensors share: the modes, and what their options mean in each."""

    def __init__(
        self,
        *,
        instance_id: Any,
        orchestration_conn_id: str = DEFAULT_CONN_ID,
        deferrable: bool | None = None,
        start_from_trigger: bool = False,
        poke_interval: float | timedelta = 5.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.instance_id = instance_id
        self.orchestration_conn_id = orchestration_conn_id
        self.deferrable = default_deferrable() if deferrable is None else deferrable
        self.start_from_trigger = bool(start_from_trigger and self.deferrable)
        # A template or an XCom of another task: what is filled in later.
        self._from_upstream = not isinstance(instance_id, str) or "{" in instance_id
        self._started: float | None = None
        self._hook: OrchestrationHook | None = None

    # What a sensor looks for

    def _check(self) -> None:
        if not isinstance(self.instance_id, str) or self.instance_id in ("", "None"):
            raise ValidationError(
                f"instance_id must be the id of an instance, not {self.instance_id!r}", path="instance_id"
            )
        if self.deferrable and self.exponential_backoff:
            raise ValidationError(
                "exponential_backoff cannot be had together with deferrable: a trigger slows down by itself",
                path="exponential_backoff",
            )

    def _look(self) -> dict[str, Any] | None:
        """The result where it has come, None where it may still come. Raises a failure where it cannot."""
        raise NotImplementedError

    def _trigger(self, deadline: float | None) -> Any:
        raise NotImplementedError

    # Modes

    def execute(self, context: Context) -> Any:
        """Wait here, in rescheduled pieces, or in the triggerer."""
        try:
            self._check()
        except ValidationError as error:
            raise told(error) from None
        if not self.deferrable:
            return super().execute(context)
        found = self._guarded_look(context)
        if found is not None:
            return found
        started = context["ti"].start_date
        begun = started.timestamp() if started is not None else time.time()
        self._defer(begun + float(self.timeout), 0)
        return None

    def poke(self, context: Context) -> Any:
        """One look."""
        found = self._look_told(context)
        return False if found is None else PokeReturnValue(is_done=True, xcom_value=found)

    def execute_complete(
        self, context: Context, event: Any = None, deadline: float | None = None, resumed: int = 0, **later: Any
    ) -> Any:
        """Go on after the triggerer. An event is a hint: the server decides."""
        found = self._guarded_look(context)
        if found is not None:
            return found
        said = event if isinstance(event, Mapping) else {}
        if said.get("status") == "timeout" or (deadline is not None and time.time() >= deadline):
            raise AirflowSensorTimeout(
                f"instance {self.instance_id}: not as expected within {self.timeout:.0f} s: {said.get('message')}"
            )
        if resumed >= MOST_DEFERRALS and not self.silent_fail:
            raise NotAsExpectedFailure(f"waiting failed in the triggerer again and again: {said.get('message')}")
        self._defer(deadline, resumed + 1)
        return None

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """As Airflow's, with ``never_fail`` on all its versions."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except AirflowSkipException:
            raise
        except AirflowException as error:
            if self.never_fail:
                raise AirflowSkipException("Skipping due to never_fail is set to True.") from error
            raise

    def _guarded_look(self, context: Context) -> dict[str, Any] | None:
        """A look outside the poking loop of Airflow, under the same options."""
        try:
            return self._look_told(context)
        except AirflowException as error:
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException(str(error)) from error
            raise
        except OrchestrationError as error:
            if self.silent_fail:
                self.log.error("looking failed: %s", error)
                return None
            if self.never_fail:
                raise AirflowSkipException(str(error)) from error
            raise

    def _look_told(self, context: Context) -> dict[str, Any] | None:
        started = context["ti"].start_date
        self._started = started.timestamp() if started is not None else self._started or time.time()
        self._from_upstream = self._from_upstream or (getattr(context["ti"], "map_index", None) or -1) >= 0
        try:
            return self._look()
        except NotFoundError:
            raise  # a row can be late: another try may find it
        except OrchestrationError as error:
            raise told(error) from error.__cause__

    def _defer(self, deadline: float | None, resumed: int) -> None:
        remaining = None
        if deadline is not None:
            remaining = timedelta(seconds=max(0.0, deadline - time.time()) + DEFER_MARGIN)
        self.defer(
            trigger=self._trigger(deadline),
            method_name="execute_complete",
            kwargs={"deadline": deadline, "resumed": resumed},
            timeout=remaining,
        )

    def _starting_args(self, trigger: str, **kwargs: Any) -> StartTriggerArgs:
        """How Airflow starts the trigger without a worker; templates in it are filled in from Airflow 3.3 on."""
        return StartTriggerArgs(
            trigger_cls=f"{_TRIGGERS}.{trigger}",
            next_method="execute_complete",
            trigger_kwargs={
                "instance_id": self.instance_id,
                "orchestration_conn_id": self.orchestration_conn_id,
                "poll_interval": self.poke_interval,
                **kwargs,
            },
            next_kwargs=None,
            timeout=timedelta(seconds=float(self.timeout)),
        )

    # Reading

    def _http(self) -> Any:
        if self._hook is None:
            self._hook = OrchestrationHook(self.orchestration_conn_id)
        return self._hook.get_conn()

    def _row_grace(self) -> float:
        return UPSTREAM_GRACE if self._from_upstream else ROW_GRACE

    def _instance(self) -> Instance | None:
        try:
            instance: Instance = self._http().get_instance(self.instance_id)
        except NotFoundError as error:
            waited = time.time() - (self._started or 0.0)
            if is_gateways_404(error) or waited < self._row_grace():
                return None
            raise
        return instance


_NO_ARGS = StartTriggerArgs(
    trigger_cls=f"{_TRIGGERS}.OrchestrationInstanceTrigger", next_method="execute_complete", trigger_kwargs={}
)


class OrchestrationInstanceSensor(_Sensor):
    """Wait until an instance has ended as expected.

    Args:
        instance_id: whose end.
        expected: ``succeeded``, ``failed`` or ``cancelled``, or several of them. Another end fails the task at once.
        deferrable: wait in the triggerer; default: Airflow's ``operators.default_deferrable``.
        start_from_trigger: with deferrable: begin in the triggerer, without a worker.
        orchestration_conn_id: the connection.

    Takes the arguments of Airflow's sensors: ``poke_interval`` (5 s), ``timeout``, ``mode``, ``soft_fail`` …
    Returns (XCom) ``instance_id``, ``workflow_id``, ``state``.
    """

    template_fields: Sequence[str] = ("instance_id", "expected", "orchestration_conn_id")
    start_trigger_args = _NO_ARGS
    start_from_trigger = False

    def __init__(self, *, instance_id: Any, expected: Any = "succeeded", **kwargs: Any) -> None:
        super().__init__(instance_id=instance_id, **kwargs)
        self.expected = expected
        if self.start_from_trigger:
            self.start_trigger_args = self._starting_args("OrchestrationInstanceTrigger")

    def _expected(self) -> tuple[str, ...]:
        wanted = (self.expected,) if isinstance(self.expected, str) else tuple(self.expected or ())
        if not wanted or any(one not in _STATES for one in wanted):
            raise ValidationError(f"expected must be of {', '.join(_STATES)}, not {self.expected!r}", path="expected")
        return wanted

    def _check(self) -> None:
        super()._check()
        self._expected()

    def _look(self) -> dict[str, Any] | None:
        instance = self._instance()
        if instance is None or not instance.terminated:
            return None
        if instance.state in self._expected():
            return {"instance_id": instance.id, "workflow_id": instance.workflow_id, "state": instance.state}
        raise final(unexpected_end(instance, " or ".join(self._expected())))

    def _trigger(self, deadline: float | None) -> Any:
        from .triggers import OrchestrationInstanceTrigger

        return OrchestrationInstanceTrigger(
            instance_id=self.instance_id,
            orchestration_conn_id=self.orchestration_conn_id,
            deadline=deadline,
            poll_interval=max(0.1, float(self.poke_interval)),
            row_grace=self._row_grace(),
        )


class OrchestrationStageSensor(_Sensor):
    """Wait until a stage has begun, has ended, or listens for an event.

    Args:
        instance_id: whose stage.
        stage: its number, from 0 (a gate is stage 0).
        until: ``begun``, ``ended`` (without an error) or ``listening``.
        event: with ``listening``: the name it must listen for; None for any.
        deferrable, start_from_trigger, orchestration_conn_id: as of ``OrchestrationInstanceSensor``.

    Fails at once where it can no longer happen: the stage ended with an error, or is over and listens no more,
    or the instance has ended before.
    """

    template_fields: Sequence[str] = ("instance_id", "stage", "until", "event", "orchestration_conn_id")
    start_trigger_args = dataclasses.replace(_NO_ARGS, trigger_cls=f"{_TRIGGERS}.OrchestrationStageTrigger")
    start_from_trigger = False

    def __init__(
        self,
        *,
        instance_id: Any,
        stage: Any,
        until: Literal["begun", "ended", "listening"] = "ended",
        event: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(instance_id=instance_id, **kwargs)
        self.stage = stage
        self.until = until
        self.event = event
        if self.start_from_trigger:
            self.start_trigger_args = self._starting_args(
                "OrchestrationStageTrigger", stage=self.stage, until=self.until, event=self.event
            )

    def _number(self) -> int:
        text = str(self.stage).strip()
        if isinstance(self.stage, bool) or not text.isdecimal():
            raise ValidationError(f"stage must be a whole number from 0, not {self.stage!r}", path="stage")
        return int(text)

    def _check(self) -> None:
        super()._check()
        self._number()
        if self.until not in ("begun", "ended", "listening"):
            raise ValidationError(f"until must be begun, ended or listening, not {self.until!r}", path="until")
        if self.event is not None and self.until != "listening":
            raise ValidationError('event needs until="listening"', path="event")

    def _look(self) -> dict[str, Any] | None:
        instance = self._instance()
        if instance is None:
            return None
        number = self._number()
        row = next((one for one in reversed(instance.status) if one.stage == number), None)
        history: Sequence[StageRun] = ()
        if self.until == "listening" and row is not None and row.terminated_at is None and not instance.terminated:
            history = self._http().get_instance_history(instance.id)
        if stage_reached(instance, history, number, self.until, self.event):
            return {"instance_id": instance.id, "stage": number, "until": self.until, "event": self.event}
        return None

    def _trigger(self, deadline: float | None) -> Any:
        from .triggers import OrchestrationStageTrigger

        return OrchestrationStageTrigger(
            instance_id=self.instance_id,
            stage=self._number(),
            until=self.until,
            event=self.event,
            orchestration_conn_id=self.orchestration_conn_id,
            deadline=deadline,
            poll_interval=max(0.1, float(self.poke_interval)),
            row_grace=self._row_grace(),
        )


def stage_reached(instance: Instance, history: Sequence[StageRun], stage: int, until: str, event: str | None) -> bool:
    """Whether a stage is where it should be.

    Raises:
        NotAsExpectedFailure: it can never be.
    """
    row = next((one for one in reversed(instance.status) if one.stage == stage), None)
    if row is None:
        if instance.terminated or any(one.stage > stage for one in instance.status):
            raise NotAsExpectedFailure(f"instance {instance.id} is {instance.state}; stage {stage} never began")
        return False
    if until == "begun":
        return True
    over = row.terminated_at is not None or instance.terminated or any(one.stage > stage for one in instance.status)
    failed = row.error or (instance.failure if over and row.terminated_at is None else None)
    if over and failed:
        raise NotAsExpectedFailure(f"instance {instance.id}: stage {stage} has ended with an error: {failed}")
    if until == "ended":
        return over
    if over:
        raise NotAsExpectedFailure(f"instance {instance.id}: stage {stage} is over and listens no more")
    if len(history) <= stage:
        return False
    run = history[stage]
    name = run.input.get("event")
    if run.name != "RunWaitEvent" or (event is not None and name != event):
        raise NotAsExpectedFailure(f"instance {instance.id}: stage {stage} ({run.name}) does not listen for {event!r}")
    return not run.terminated


def unexpected_end(instance: Instance, expected: str) -> OrchestrationError:
    """The error for an instance that ended otherwise than expected."""
    nothing = Moved(stages_completed=0, transactions=(), complete=False)
    about: dict[str, Any] = {"instance_id": instance.id, "instance": instance, "moved": nothing}
    why = f": {instance.failure}" if instance.failure else ""
    message = f"instance {instance.id} was to be {expected} and is {instance.state}{why}"
    if instance.state == "failed":
        return InstanceFailedError(message, **about)
    if instance.state == "cancelled":
        return InstanceCancelledError(message, **about)
    return NotAsExpectedFailure(message)

"""Sensors: they wait for what others do to an instance, and never change anything.

Every option means the same in the modes poke, reschedule and deferrable; ``sensor_options`` says what. An end that is
not the expected one fails the task at once, a passing fault of the network does not.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal

from ..api.errors import (
    InstanceCancelledError,
    InstanceFailedError,
    NotFoundError,
    OrchestrationError,
    TransportError,
    ValidationError,
    is_gateways_404,
)
from ..api.models import Instance, Moved, StageRun
from ..procedures.limits import POLL_SECONDS, ROW_GRACE, ROW_PATIENCE
from .arguments import needed_seconds_of, stage_of
from .compat import (
    DEFERRAL_FAILURES,
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    BaseOperator,
    BaseSensorOperator,
    Context,
    PokeReturnValue,
    StartTriggerArgs,
    TaskDeferred,
    first_start,
    is_deferrable,
    is_deferral_timeout,
)
from .errors import NotAsExpectedFailure, final, told
from .hooks import DEFAULT_CONN_ID, OrchestrationHook
from .limits import MOST_DEFERRALS, deferral_limit
from .poking import Pokes, pokes_of, unguarded
from .sensor_options import Options, is_configuration
from .skipped import deadline_after, keep_deadline
from .stage_reached import stage_reached, stages_of
from .trigger_start import refuse_seconds_to_come, refuse_what_a_triggerer_cannot_render

_TRIGGERS = "orchestration_integrations.airflow.triggers"
_STATES = ("succeeded", "failed", "cancelled")
_KNOWN_NOW = (int, float, timedelta)


class _Sensor(BaseSensorOperator):  # type: ignore[misc]
    """What both sensors share: the modes, and what their options mean in each."""

    def __init__(
        self,
        *,
        instance_id: Any,
        orchestration_conn_id: str = DEFAULT_CONN_ID,
        deferrable: bool | None = None,
        start_from_trigger: bool = False,
        poke_interval: Any = POLL_SECONDS,
        timeout: Any = None,
        **kwargs: Any,
    ) -> None:
        now = {"poke_interval": poke_interval, **({} if timeout is None else {"timeout": timeout})}
        # Airflow refuses a template here, which becomes a number before anybody reads it: see _read_seconds.
        later = {name: now.pop(name) for name, value in tuple(now.items()) if not isinstance(value, _KNOWN_NOW)}
        super().__init__(**now, **kwargs)
        for name, value in later.items():
            setattr(self, name, value)
        self.instance_id = instance_id
        self.orchestration_conn_id = orchestration_conn_id
        self.deferrable = is_deferrable(deferrable)
        self.start_from_trigger = bool(start_from_trigger and self.deferrable)
        # A template or an XCom of another task: what is filled in later.
        self._from_upstream = not isinstance(instance_id, str) or "{" in instance_id
        self._hook: OrchestrationHook | None = None
        self._judged: Exception | None = None
        self._pokes: Pokes | None = None

    # What a sensor looks for

    def _read_seconds(self) -> None:
        """Turn what templates have come to into numbers."""
        self.timeout: float = needed_seconds_of(self.timeout, "timeout")
        self.poke_interval: float = needed_seconds_of(self.poke_interval, "poke_interval")

    def _check(self) -> None:
        if not isinstance(self.instance_id, str) or self.instance_id in ("", "None"):
            raise ValidationError(
                f"instance_id must be the id of an instance, not {self.instance_id!r}", path="instance_id"
            )
        if self.deferrable and self.exponential_backoff:
            raise ValidationError(
                "exponential_backoff cannot be used together with deferrable: a trigger slows down by itself",
                path="exponential_backoff",
            )

    def _look(self, context: Context) -> dict[str, Any] | None:
        """The result where it has come, None where it may still come. Raises a failure where it cannot."""
        raise NotImplementedError

    def _trigger(self, deadline: float | None) -> Any:
        raise NotImplementedError

    # Modes

    def execute(self, context: Context) -> Any:
        """Wait here, in rescheduled pieces, or in the triggerer."""
        with self._by_options():
            try:
                self._read_seconds()
                self._check()
            except ValidationError as error:
                raise told(error) from None
            if not self.reschedule or self.deferrable:
                self._tell_url()
            if not self.deferrable:
                return self._poked(context)
            found = self._guarded_look(context)
            if found is not None:
                return found
            raise self._deferral(context, _start_of_try(context) + float(self.timeout), 0)

    def _poked(self, context: Context) -> Any:
        """As Airflow's ``execute``."""
        pokes = self._pokes = pokes_of(self, context)
        try:
            return unguarded(super().execute)(context)
        finally:
            if pokes is not None:
                pokes.ends()
            self._pokes = None

    def poke(self, context: Context) -> Any:
        """Look once."""
        pokes = self._pokes
        if pokes is not None:
            pokes.looks(self.instance_id)
        found = self._guarded_look(context)
        if found is not None:
            return PokeReturnValue(is_done=True, xcom_value=found)
        if pokes is not None and pokes.sleeps():
            raise self._too_late("a test's server skipped the rest")
        return False

    def _too_late(self, why: object) -> Exception:
        timeout: Exception = AirflowSensorTimeout(
            f"instance {self.instance_id}: not as expected within {self.timeout:.0f} s: {why}"
        )
        return timeout

    def execute_complete(
        self, context: Context, event: Any = None, deadline: float | None = None, resumed: int = 0, **later: Any
    ) -> Any:
        """Go on after the triggerer. An event is a hint: the server decides."""
        found = self._guarded_look(context)
        if found is not None:
            return found
        said = event if isinstance(event, Mapping) else {}
        anew = _start_of_try(context) + float(self.timeout)
        deadline = deadline_after(context, self.instance_id, deadline, lambda: anew)
        if said.get("status") == "timeout" or (deadline is not None and time.time() >= deadline):
            raise self._too_late(said.get("message"))
        if resumed >= MOST_DEFERRALS:
            self._go_on_after(TransportError(f"waiting failed in the triggerer again and again: {said.get('message')}"))
        raise self._deferral(context, deadline, resumed + 1)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """As Airflow's, with the sensor's options as ``sensor_options`` says."""
        with self._by_options():
            try:
                self._read_seconds()
            except ValidationError as error:
                raise told(error) from None
            try:
                return BaseOperator.resume_execution(self, next_method, next_kwargs, context)
            except DEFERRAL_FAILURES as failure:
                if is_deferral_timeout(failure):
                    raise self._too_late(failure) from failure
                self._go_on_after(failure)
            deadline = _start_of_try(context) + float(self.timeout)
            return self.execute_complete(context, None, deadline=deadline)

    # Options

    @property
    def _options(self) -> Options:
        return Options(self.soft_fail, self.silent_fail, self.never_fail)

    @contextmanager
    def _by_options(self) -> Iterator[None]:
        """Have this sensor's verdict on an error count, not that of Airflow's poking loop, which differs by mode."""
        self._judged = None
        try:
            yield
        except AirflowException as error:
            if self._judged is not None:
                raise self._judged from error.__cause__
            if isinstance(error, AirflowSensorTimeout):
                raise self._options.verdict(error) or error from error.__cause__
            raise

    def _go_on_after(self, error: Exception) -> None:
        """Raise what an error comes to; return where the sensor is to look again."""
        verdict = self._options.verdict(error)
        if verdict is None:
            self.log.error("looking failed: %s", error)
            return
        self._judged = verdict
        if is_configuration(verdict) and not isinstance(verdict, AirflowFailException):
            # Airflow's poking loop lets only this class pass whatever the options are.
            raise AirflowFailException(str(verdict)) from verdict.__cause__
        raise verdict from error if verdict is not error else error.__cause__

    def _guarded_look(self, context: Context) -> dict[str, Any] | None:
        self._from_upstream = self._from_upstream or (getattr(context["ti"], "map_index", None) or -1) >= 0
        try:
            try:
                return self._look(context)
            except NotFoundError:
                raise  # a row can be late: another try may find it
            except OrchestrationError as error:
                raise told(error) from error.__cause__
        except Exception as error:
            if self._pokes is not None:
                self._pokes.cannot_read = True
            self._go_on_after(error)
        return None

    def _deferral(self, context: Context, deadline: float | None, resumed: int) -> TaskDeferred:
        """What is raised to leave the wait to the triggerer."""
        keep_deadline(context, deadline)
        return TaskDeferred(
            trigger=self._trigger(deadline),
            method_name="execute_complete",
            kwargs={"deadline": deadline, "resumed": resumed},
            timeout=deferral_limit(deadline),
        )

    def _starting_args(self, trigger: str, **kwargs: Any) -> StartTriggerArgs:
        """How Airflow starts the trigger without a worker."""
        given = {"instance_id": self.instance_id, "orchestration_conn_id": self.orchestration_conn_id, **kwargs}
        refuse_what_a_triggerer_cannot_render(given)
        refuse_seconds_to_come({"poke_interval": self.poke_interval, "timeout": self.timeout})
        return StartTriggerArgs(
            trigger_cls=f"{_TRIGGERS}.{trigger}",
            next_method="execute_complete",
            trigger_kwargs={**given, "poll_interval": self.poke_interval},
            next_kwargs=None,
            timeout=timedelta(seconds=float(self.timeout)),
        )

    # Reading

    def _http(self) -> Any:
        if self._hook is None:
            self._hook = OrchestrationHook(self.orchestration_conn_id)
        return self._hook.get_conn()

    def _tell_url(self) -> None:
        try:
            url = self._http().settings.instance_link(self.instance_id)
        except Exception as error:
            # The look that follows fails by it.
            self.log.debug("the address of the instance is unknown: %s", error)
            return
        self.log.info("waiting for instance %s: %s", self.instance_id, url)

    def _row_grace(self) -> float:
        return ROW_PATIENCE if self._from_upstream else ROW_GRACE

    def _instance(self, context: Context) -> Instance | None:
        try:
            instance: Instance = self._http().get_instance(self.instance_id)
        except NotFoundError as error:
            if is_gateways_404(error):
                return None
            begun = first_start(context) if self.reschedule and not self.deferrable else None
            if time.time() - (_start_of_try(context) if begun is None else begun) < self._row_grace():
                return None
            raise
        return instance


def _start_of_try(context: Context) -> float:
    """Epoch seconds at which this try, or this piece of a rescheduled one, has begun."""
    started = context["ti"].start_date
    return float(started.timestamp()) if started is not None else time.time()


_ENDED = {"succeeded": "has succeeded", "failed": "has failed", "cancelled": "was cancelled"}
_NO_ARGS = StartTriggerArgs(
    trigger_cls=f"{_TRIGGERS}.OrchestrationInstanceTrigger", next_method="execute_complete", trigger_kwargs={}
)


class OrchestrationInstanceSensor(_Sensor):
    """Wait until an instance has ended as expected.

    Args:
        instance_id: the instance to wait for.
        expected: ``succeeded`` (default), ``failed`` or ``cancelled``, or several of them. Another end fails the task
            at once.
        deferrable: wait in the triggerer; default: Airflow's ``operators.default_deferrable``.
        start_from_trigger: with deferrable: begin in the triggerer, without a worker; default False. The triggerer then
            renders the templates (Airflow 3.3), which must not ask Airflow for anything: ``xcom_pull``, ``var``,
            ``conn``.
        orchestration_conn_id: the id of the connection; default ``orchestration_default``.

    It also takes the arguments of Airflow's sensors: ``poke_interval`` (default 5 s) and ``timeout`` (seconds, a
    timedelta, or a template of a number, which ``start_from_trigger`` cannot fill in), ``mode``, ``soft_fail``,
    ``silent_fail``, ``never_fail``; ``sensor_options`` says what the last three mean.

    Returns (XCom): ``instance_id``, ``workflow_id``, ``state``.

    Raises:
        InstanceFailedError, InstanceCancelledError: it ended in another way than the expected one; Airflow does not
            retry that.
        AirflowSensorTimeout: ``timeout`` seconds have passed.
        NotFoundError: the server has not known the id for ten seconds (an hour if it came from another task).
        ConfigurationError, ValidationError: the connection or an argument is wrong, whatever the options are.
    """

    template_fields: Sequence[str] = ("instance_id", "expected", "orchestration_conn_id", "timeout", "poke_interval")
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
            raise ValidationError(
                f"expected must name one or more of {', '.join(_STATES)}, not {self.expected!r}", path="expected"
            )
        return wanted

    def _check(self) -> None:
        super()._check()
        self._expected()

    def _look(self, context: Context) -> dict[str, Any] | None:
        instance = self._instance(context)
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
        instance_id: the instance whose stage is meant.
        stage: its number, from 0 (a gate is stage 0).
        until: ``begun``, ``ended`` (default; without an error) or ``listening``.
        event: with ``listening``: the name it must listen for; None (default) for any.
        deferrable, start_from_trigger, orchestration_conn_id: as for ``OrchestrationInstanceSensor``.

    It fails at once if what it waits for can no longer happen: the stage ended with an error, or is over and listens
    no more, or the instance has ended before.
    """

    template_fields: Sequence[str] = (
        "instance_id",
        "stage",
        "until",
        "event",
        "orchestration_conn_id",
        "timeout",
        "poke_interval",
    )
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
        number = stage_of(self.stage)
        if number is None:
            raise ValidationError(f"stage must be a whole number from 0, not {self.stage!r}", path="stage")
        return number

    def _check(self) -> None:
        super()._check()
        self._number()
        if self.until not in ("begun", "ended", "listening"):
            raise ValidationError(f"until must be begun, ended or listening, not {self.until!r}", path="until")
        if self.event is not None and self.until != "listening":
            raise ValidationError('event needs until="listening"', path="event")

    def _look(self, context: Context) -> dict[str, Any] | None:
        instance = self._instance(context)
        if instance is None:
            return None
        number = self._number()
        row = next((one for one in reversed(instance.status) if one.stage == number), None)
        history: Sequence[StageRun] = ()
        if self.until == "listening" and row is not None and row.terminated_at is None and not instance.terminated:
            history = self._http().get_instance_history(instance.id)
        if stage_reached(instance, history, number, self.until, self.event, lambda: stages_of(self._http(), instance)):
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


def unexpected_end(instance: Instance, expected: str) -> OrchestrationError:
    """The error for an instance whose end is not the expected one."""
    nothing = Moved(stages_completed=0, transactions=(), complete=False)
    about: dict[str, Any] = {"instance_id": instance.id, "instance": instance, "moved": nothing}
    why = f": {instance.failure}" if instance.failure else ""
    message = (
        f"instance {instance.id} {_ENDED.get(instance.state, instance.state)}; the sensor expected {expected!r}{why}"
    )
    if instance.state == "failed":
        return InstanceFailedError(message, **about)
    if instance.state == "cancelled":
        return InstanceCancelledError(message, **about)
    return NotAsExpectedFailure(message)

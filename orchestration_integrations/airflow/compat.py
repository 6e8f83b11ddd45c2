# mypy: disable-error-code="import-not-found"
"""Everything that is imported from Airflow, from where Airflow 2.11 and 3.x both have it without a deprecation."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timezone
from importlib import import_module
from importlib.metadata import version
from typing import Any, NamedTuple, Protocol, TypeVar

from ..api.numbers import checked_flag
from .attempt import Attempt

T = TypeVar("T")

AIRFLOW_VERSION_TEXT = version("apache-airflow")
AIRFLOW_VERSION = tuple(int(part) for part in AIRFLOW_VERSION_TEXT.split(".")[:2])
AIRFLOW_3 = AIRFLOW_VERSION >= (3, 0)
AIRFLOW_3_3 = AIRFLOW_VERSION >= (3, 3)
"""From here on there are a task state store, ``on_kill`` of triggers and retry policies."""
TRIGGERS_REACH_VARIABLES = AIRFLOW_3_3 or not AIRFLOW_3
"""Whether a trigger may read and set Variables. On 3.1 doing so ends the triggerer, again after each restart."""

_COMPAT = "airflow.providers.common.compat.sdk"


def first_of(name: str, *modules: str) -> Any:
    """A name from the first module that has it; None where none has.

    The compatibility package that comes with Airflow has most names without a deprecation, but which ones depends on
    its own version, and Airflow's constraints pin old ones.
    """
    for module in (_COMPAT, *modules):
        try:
            return getattr(import_module(module), name)
        except (ImportError, AttributeError):
            continue
    return None


def _exception(name: str) -> Any:
    return first_of(name, "airflow.sdk.exceptions", "airflow.exceptions")


AirflowException = _exception("AirflowException")
AirflowFailException = _exception("AirflowFailException")
AirflowNotFoundException = _exception("AirflowNotFoundException")
AirflowSensorTimeout = _exception("AirflowSensorTimeout")
AirflowSkipException = _exception("AirflowSkipException")
TaskDeferred = _exception("TaskDeferred")
TaskDeferralError = _exception("TaskDeferralError")
TaskDeferralTimeout = _exception("TaskDeferralTimeout") or TaskDeferralError
BaseHook = first_of("BaseHook", "airflow.sdk", "airflow.hooks.base")
BaseNotifier = first_of(
    "BaseNotifier", "airflow.sdk", "airflow.sdk.bases.notifier", "airflow.notifications.basenotifier"
)
BaseOperator = first_of("BaseOperator", "airflow.sdk", "airflow.models.baseoperator")
BaseOperatorLink = first_of("BaseOperatorLink", "airflow.sdk", "airflow.models.baseoperatorlink")
BaseSensorOperator = first_of("BaseSensorOperator", "airflow.sdk", "airflow.sensors.base")
PokeReturnValue = first_of("PokeReturnValue", "airflow.sdk", "airflow.sensors.base")
DecoratedOperator = first_of("DecoratedOperator", "airflow.sdk.bases.decorator", "airflow.decorators.base")
Context = first_of("Context", "airflow.sdk", "airflow.utils.context")
XCom = first_of("XCom", "airflow.sdk.execution_time.xcom", "airflow.models.xcom")
task_decorator_factory = first_of("task_decorator_factory", "airflow.sdk.bases.decorator", "airflow.decorators.base")
determine_kwargs = first_of("determine_kwargs", "airflow.sdk.bases.decorator", "airflow.utils.operator_helpers")
conf = first_of("conf", "airflow.sdk.configuration", "airflow.configuration")
mask_secret = first_of("mask_secret", "airflow.sdk.log", "airflow.utils.log.secrets_masker")
StartTriggerArgs = first_of("StartTriggerArgs", "airflow.triggers.base")
TriggerEvent = first_of("TriggerEvent", "airflow.triggers.base")
BaseTrigger = first_of("BaseTrigger", "airflow.triggers.base")
BaseEventTrigger = first_of("BaseEventTrigger", "airflow.triggers.base") or BaseTrigger
"""What an AssetWatcher needs. A triggerer counts each of them as a watcher, so a trigger of a task is none."""
NEVER_EXPIRE = first_of("NEVER_EXPIRE", "airflow.sdk")
RetryDecision = first_of("RetryDecision", "airflow.sdk.definitions.retry_policy")
RetryPolicy = first_of("RetryPolicy", "airflow.sdk.definitions.retry_policy")
_async_connection = first_of("get_async_connection", "airflow.providers.common.compat.connection")

DEFERRAL_FAILURES: tuple[type[Exception], ...] = (TaskDeferralError, TaskDeferralTimeout)
"""What a task resumes with where its deferral failed."""
_TIMEOUT_TEXTS = ("Trigger/execution timeout", "Trigger timeout")
USER_ACTION = "__airflow_user_action__"
"""The message with which Airflow 3.3 cancels a trigger whose task a user marked or cleared."""


def is_deferral_timeout(error: BaseException) -> bool:
    """Whether a failed deferral ran out of time. Some versions know only one class, and say it in the text."""
    if TaskDeferralTimeout is not TaskDeferralError:
        return isinstance(error, TaskDeferralTimeout)
    return any(text in str(error) for text in _TIMEOUT_TEXTS)


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function that may ask Airflow something, in a thread, so that it does not block the event loop.

    A plain thread will not do: what asks Airflow 3.0 or 3.1 there reads the triggerer's only connection from an event
    loop of its own, and the triggerer hangs for good. In a thread of ``asgiref`` the triggerer's loop asks.
    """
    from asgiref.sync import sync_to_async

    answer: T = await sync_to_async(function, thread_sensitive=False)(*arguments)
    return answer


async def get_async_connection(conn_id: str) -> Any:
    """A connection, read without blocking the event loop: in a thread, where this version cannot do so itself."""
    found = _async_connection
    if found is not None:
        return await found(conn_id=conn_id)
    return await in_thread(BaseHook.get_connection, conn_id)


class AssetStore(Protocol):
    """Where Airflow 3.3 keeps state for one asset, as a trigger reaches it."""

    async def aget(self, key: str, default: Any = None) -> Any: ...

    async def aset(self, key: str, value: Any) -> None: ...


def asset_stores(trigger: Any) -> tuple[AssetStore, ...]:
    """A store for each asset that watches by a trigger; none before Airflow 3.3, or where no asset does.

    Watchers with equal arguments share one trigger, of all their assets. Airflow's accessor then refuses to read or
    write by itself, and does not say which assets it is for: so they are taken from where it holds them.
    """
    accessors: Any = getattr(trigger, "asset_state_store", None)
    if not hasattr(accessors, "aget") or not hasattr(accessors, "aset"):
        return ()
    single = [one for held in ("_by_name", "_by_uri") for one in getattr(accessors, held, {}).values()]
    return tuple(single) or (accessors,)


def is_deferrable(deferrable: Any) -> bool:
    """Whether an operator waits in the triggerer; where its argument is None, Airflow's configuration says it.

    Raises:
        ValidationError: the argument is neither True, False nor None.
    """
    if deferrable is None:
        return bool(conf.getboolean("operators", "default_deferrable", fallback=False))
    return checked_flag(deferrable, "deferrable")


class Sight(NamedTuple):
    """What Airflow says of a task instance at one moment.

    Attributes:
        state: None where it has none.
        try_number: None where Airflow does not say it (3.x).
        other_process: another process than this one is at work on it (2.11).
    """

    state: str | None
    try_number: int | None = None
    other_process: bool = False


def sight_of_task(parts: tuple[str, str, str, int], *, in_trigger: bool = False) -> Sight:
    """What Airflow says of a task instance: over its execution API, or on 2.11 from the database.

    Args:
        parts: ids of DAG, run and task, and the map index.
        in_trigger: asked by a triggerer, whose process is never the task's own.
    """
    dag_id, run_id, task_id, map_index = parts
    if not AIRFLOW_3:
        return _sight_of_row(parts, in_trigger)
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    told: dict[str, Any] = RuntimeTaskInstance.get_task_states(
        dag_id=dag_id,
        task_ids=[task_id],
        run_ids=[run_id],
        map_index=map_index if map_index >= 0 else None,
    )
    states = told.get(run_id) or {}
    return Sight(_text(states.get(shown_task(task_id, map_index))))


def _sight_of_row(parts: tuple[str, str, str, int], in_trigger: bool) -> Sight:
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session

    dag_id, run_id, task_id, map_index = parts
    with create_session() as session:
        row = (
            session.query(TaskInstance.state, TaskInstance.try_number, TaskInstance.pid)
            .filter(
                TaskInstance.dag_id == dag_id,
                TaskInstance.run_id == run_id,
                TaskInstance.task_id == task_id,
                TaskInstance.map_index == map_index,
            )
            .one_or_none()
        )
    if row is None:
        return Sight("removed")
    state, try_number, pid = row
    ours = not in_trigger and pid == os.getpid()
    if ours and _text(state) in ("scheduled", "queued"):
        state = "running"  # dag.test() runs tasks in place and never says so; the scheduler would have set another try
    return Sight(_text(state), try_number, not in_trigger and pid is not None and not ours)


def state_of_dag_run(dag_id: str, run_id: str) -> str | None:
    """The state of a DAG run."""
    if AIRFLOW_3:
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        return _text(RuntimeTaskInstance.get_dagrun_state(dag_id, run_id))
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session

    with create_session() as session:
        return _text(session.query(DagRun.state).filter(DagRun.dag_id == dag_id, DagRun.run_id == run_id).scalar())


def failed_tasks(dag_id: str, run_id: str) -> frozenset[str]:
    """The task instances of a DAG run that have failed for good: ``task``, or ``task_3`` with a map index."""
    if not AIRFLOW_3:
        from airflow.models.taskinstance import TaskInstance
        from airflow.utils.session import create_session

        with create_session() as session:
            rows = (
                session.query(TaskInstance.task_id, TaskInstance.map_index)
                .filter(TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id, TaskInstance.state == "failed")
                .all()
            )
        return frozenset(shown_task(task_id, map_index) for task_id, map_index in rows)
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    # A count costs the same however many tasks there are, and mostly says that there is nothing to be read.
    if not RuntimeTaskInstance.get_ti_count(dag_id=dag_id, run_ids=[run_id], states=["failed"]):
        return frozenset()
    told: dict[str, Any] = RuntimeTaskInstance.get_task_states(dag_id=dag_id, run_ids=[run_id])
    return frozenset(name for name, state in (told.get(run_id) or {}).items() if _text(state) == "failed")


def shown_task(task_id: str, map_index: int) -> str:
    """A task instance as Airflow 3 names it among the states of a DAG run."""
    return task_id if map_index < 0 else f"{task_id}_{map_index}"


def asked_variable(name: str) -> str | None:
    """A Variable, asked of Airflow 3 itself; None where it has none. Raises where Airflow cannot be asked."""
    from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
    from airflow.sdk.execution_time.comms import ErrorResponse, GetVariable
    from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

    try:
        answer = SUPERVISOR_COMMS.send(GetVariable(key=name))
    except AirflowRuntimeError as error:
        answer = error.error
    if isinstance(answer, ErrorResponse):
        if answer.error == ErrorType.VARIABLE_NOT_FOUND:
            return None
        raise AirflowRuntimeError(answer)
    value: str | None = answer.value
    return value


def _text(state: Any) -> str | None:
    return None if state is None else str(getattr(state, "value", state))


def first_start(context: Any) -> float | None:
    """Epoch seconds at which a rescheduled sensor's try began; None where it was not rescheduled yet."""
    ti = context["ti"]
    if AIRFLOW_3:
        first = ti.get_first_reschedule_date(context)
    else:
        from airflow.models.taskreschedule import TaskReschedule
        from airflow.utils.session import create_session

        with create_session() as session:
            first = (
                session.query(TaskReschedule.start_date)
                .filter(
                    TaskReschedule.dag_id == ti.dag_id,
                    TaskReschedule.task_id == ti.task_id,
                    TaskReschedule.run_id == ti.run_id,
                    TaskReschedule.map_index == ti.map_index,
                    TaskReschedule.try_number == ti.try_number,
                )
                .order_by(TaskReschedule.id.asc())
                .limit(1)
                .scalar()
            )
    return None if first is None else float(first.timestamp())


def is_timeout_of_airflow(error: BaseException | None) -> bool:
    """Whether Airflow has ended the task by ``execution_timeout``: its ``on_kill`` is called then, too."""
    return error is not None and any(one.__name__ == "AirflowTaskTimeout" for one in type(error).__mro__)


def attempt_of(context: Any) -> Attempt:
    """The running try, from a task's context."""
    ti = context["ti"]
    dag_run = context.get("dag_run")
    now = datetime.now(timezone.utc)
    instants = [one for one in (getattr(dag_run, "start_date", None), ti.start_date) if one is not None]
    max_tries = ti.max_tries if ti.max_tries is not None else 0
    clear_number = getattr(dag_run, "clear_number", None) if AIRFLOW_3_3 else None
    return Attempt(
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=-1 if ti.map_index is None else ti.map_index,
        try_number=ti.try_number,
        max_tries=max_tries,
        retries=max_tries if AIRFLOW_3 else (ti.task.retries or 0),
        clear_number=clear_number,
        first_instant=min([*instants, now]),
    )


__all__ = [
    "AIRFLOW_3",
    "AIRFLOW_3_3",
    "AIRFLOW_VERSION_TEXT",
    "DEFERRAL_FAILURES",
    "NEVER_EXPIRE",
    "TRIGGERS_REACH_VARIABLES",
    "USER_ACTION",
    "AirflowException",
    "AirflowFailException",
    "AirflowNotFoundException",
    "AirflowSensorTimeout",
    "AirflowSkipException",
    "AssetStore",
    "BaseEventTrigger",
    "BaseHook",
    "BaseNotifier",
    "BaseOperator",
    "BaseOperatorLink",
    "BaseSensorOperator",
    "BaseTrigger",
    "Context",
    "DecoratedOperator",
    "PokeReturnValue",
    "RetryDecision",
    "RetryPolicy",
    "Sight",
    "StartTriggerArgs",
    "TaskDeferralError",
    "TaskDeferralTimeout",
    "TaskDeferred",
    "TriggerEvent",
    "XCom",
    "asked_variable",
    "asset_stores",
    "attempt_of",
    "conf",
    "determine_kwargs",
    "failed_tasks",
    "first_of",
    "first_start",
    "get_async_connection",
    "in_thread",
    "is_deferrable",
    "is_deferral_timeout",
    "is_timeout_of_airflow",
    "mask_secret",
    "shown_task",
    "sight_of_task",
    "state_of_dag_run",
    "task_decorator_factory",
]

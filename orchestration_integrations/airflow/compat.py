# mypy: disable-error-code="import-not-found"
"""Everything that is imported from Airflow, from where Airflow 2.11 and 3.x both have it without a deprecation."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from airflow.providers.common.compat.connection import get_async_connection
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseHook,
    BaseOperator,
    BaseOperatorLink,
    BaseSensorOperator,
    Context,
    PokeReturnValue,
    TaskDeferred,
    XCom,
    conf,
    mask_secret,
)
from airflow.providers.common.compat.triggers import BaseEventTrigger
from airflow.triggers.base import StartTriggerArgs, TriggerEvent

AIRFLOW_VERSION_TEXT = version("apache-airflow")
AIRFLOW_VERSION = tuple(int(part) for part in AIRFLOW_VERSION_TEXT.split(".")[:2])
AIRFLOW_3 = AIRFLOW_VERSION >= (3, 0)
AIRFLOW_3_3 = AIRFLOW_VERSION >= (3, 3)
"""From here on there are a task state store, ``on_kill`` of triggers and retry policies."""

if AIRFLOW_3:
    from airflow.sdk.exceptions import TaskDeferralError
else:
    from airflow.exceptions import TaskDeferralError

if AIRFLOW_3_3:
    from airflow.sdk import NEVER_EXPIRE
    from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy
    from airflow.sdk.exceptions import TaskDeferralTimeout
else:
    NEVER_EXPIRE = None
    RetryDecision = RetryPolicy = None
    TaskDeferralTimeout = TaskDeferralError

DEFERRAL_FAILURES: tuple[type[Exception], ...] = (TaskDeferralError, TaskDeferralTimeout)
"""What a task resumes with where its deferral failed."""
_TIMEOUT_TEXT = "Trigger/execution timeout"
USER_ACTION = "__airflow_user_action__"
"""The message with which Airflow 3.3 cancels a trigger whose task a user marked or cleared."""


def is_deferral_timeout(error: BaseException) -> bool:
    """Whether a failed deferral ran out of time (2.11 knows only one class, and says it in the text)."""
    if TaskDeferralTimeout is not TaskDeferralError:
        return isinstance(error, TaskDeferralTimeout)
    return _TIMEOUT_TEXT in str(error)


def default_deferrable() -> bool:
    """Airflow's configured default for ``deferrable``."""
    return bool(conf.getboolean("operators", "default_deferrable", fallback=False))


def state_of_task(dag_id: str, run_id: str, task_id: str, map_index: int) -> str | None:
    """The state of a task instance as Airflow 3 tells it over its execution API; None where it does not."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    told: dict[str, Any] = RuntimeTaskInstance.get_task_states(
        dag_id=dag_id,
        task_ids=[task_id],
        run_ids=[run_id],
        map_index=map_index if map_index >= 0 else None,
    )
    states = told.get(run_id) or {}
    name = task_id if map_index < 0 else f"{task_id}_{map_index}"
    state = states.get(name)
    return None if state is None else str(getattr(state, "value", state))


def state_of_task_instance_row(task_instance: Any) -> str | None:
    """The same on Airflow 2, where a triggerer reads the database itself."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session

    with create_session() as session:
        state = (
            session.query(TaskInstance.state)
            .filter(
                TaskInstance.dag_id == task_instance.dag_id,
                TaskInstance.run_id == task_instance.run_id,
                TaskInstance.task_id == task_instance.task_id,
                TaskInstance.map_index == task_instance.map_index,
            )
            .scalar()
        )
    return None if state is None else str(getattr(state, "value", state))


__all__ = [
    "AIRFLOW_3",
    "AIRFLOW_3_3",
    "AIRFLOW_VERSION_TEXT",
    "DEFERRAL_FAILURES",
    "NEVER_EXPIRE",
    "USER_ACTION",
    "AirflowException",
    "AirflowFailException",
    "AirflowNotFoundException",
    "AirflowSensorTimeout",
    "AirflowSkipException",
    "BaseEventTrigger",
    "BaseHook",
    "BaseOperator",
    "BaseOperatorLink",
    "BaseSensorOperator",
    "Context",
    "PokeReturnValue",
    "RetryDecision",
    "RetryPolicy",
    "StartTriggerArgs",
    "TaskDeferralError",
    "TaskDeferralTimeout",
    "TaskDeferred",
    "TriggerEvent",
    "XCom",
    "conf",
    "default_deferrable",
    "get_async_connection",
    "is_deferral_timeout",
    "mask_secret",
    "state_of_task",
    "state_of_task_instance_row",
]

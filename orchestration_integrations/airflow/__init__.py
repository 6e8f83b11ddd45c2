"""The Airflow provider: hook, operators, sensors, triggers. The names below load when they are first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .callbacks import cancel_instances_on_failure
    from .hooks import OrchestrationHook
    from .links import OrchestrationInstanceLink
    from .operators import (
        OrchestrationCancelInstanceOperator,
        OrchestrationCreateWorkflowOperator,
        OrchestrationRunWorkflowOperator,
        OrchestrationSendEventOperator,
    )
    from .record_care import remove_old_records, settle_run
    from .retry_policy import OrchestrationRetryPolicy
    from .sensors import OrchestrationInstanceSensor, OrchestrationStageSensor
    from .triggers import OrchestrationInstanceEndedTrigger, OrchestrationInstanceTrigger, OrchestrationStageTrigger

_HOMES = {
    "callbacks": ("cancel_instances_on_failure",),
    "hooks": ("OrchestrationHook",),
    "links": ("OrchestrationInstanceLink",),
    "operators": (
        "OrchestrationCancelInstanceOperator",
        "OrchestrationCreateWorkflowOperator",
        "OrchestrationRunWorkflowOperator",
        "OrchestrationSendEventOperator",
    ),
    "record_care": ("remove_old_records", "settle_run"),
    "retry_policy": ("OrchestrationRetryPolicy",),
    "sensors": ("OrchestrationInstanceSensor", "OrchestrationStageSensor"),
    "triggers": ("OrchestrationInstanceEndedTrigger", "OrchestrationInstanceTrigger", "OrchestrationStageTrigger"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "OrchestrationCancelInstanceOperator",
    "OrchestrationCreateWorkflowOperator",
    "OrchestrationHook",
    "OrchestrationInstanceEndedTrigger",
    "OrchestrationInstanceLink",
    "OrchestrationInstanceSensor",
    "OrchestrationInstanceTrigger",
    "OrchestrationRetryPolicy",
    "OrchestrationRunWorkflowOperator",
    "OrchestrationSendEventOperator",
    "OrchestrationStageSensor",
    "OrchestrationStageTrigger",
    "cancel_instances_on_failure",
    "remove_old_records",
    "settle_run",
]


def __getattr__(name: str) -> Any:
    module = _HOME_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{module}"), name)

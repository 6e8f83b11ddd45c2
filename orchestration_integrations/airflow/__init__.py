"""The Airflow provider: hook, operators, sensors, triggers. The names below load when they are first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy_names import lazy_names

if TYPE_CHECKING:
    from .callbacks import cancel_instances_on_failure
    from .decorators import orchestration_task
    from .hooks import OrchestrationHook
    from .links import OrchestrationInstanceLink
    from .notifications import OrchestrationCancelInstanceNotifier, OrchestrationSendEventNotifier
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
    "decorators": ("orchestration_task",),
    "hooks": ("OrchestrationHook",),
    "links": ("OrchestrationInstanceLink",),
    "notifications": ("OrchestrationCancelInstanceNotifier", "OrchestrationSendEventNotifier"),
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
__all__ = [
    "OrchestrationCancelInstanceNotifier",
    "OrchestrationCancelInstanceOperator",
    "OrchestrationCreateWorkflowOperator",
    "OrchestrationHook",
    "OrchestrationInstanceEndedTrigger",
    "OrchestrationInstanceLink",
    "OrchestrationInstanceSensor",
    "OrchestrationInstanceTrigger",
    "OrchestrationRetryPolicy",
    "OrchestrationRunWorkflowOperator",
    "OrchestrationSendEventNotifier",
    "OrchestrationSendEventOperator",
    "OrchestrationStageSensor",
    "OrchestrationStageTrigger",
    "cancel_instances_on_failure",
    "orchestration_task",
    "remove_old_records",
    "settle_run",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)

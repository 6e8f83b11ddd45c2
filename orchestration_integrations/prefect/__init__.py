"""Run money flows on a Formance Orchestration server from Prefect flows.

Blocks, tasks, a flow, hooks and a context manager. A run that a flow started is cancelled when the flow is, and a flow
that is retried comes back to the run that it had started. The names below load when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy_names import lazy_names

if TYPE_CHECKING:
    from .changing import (
        abort_instance,
        abort_instance_async,
        cancel_instance,
        cancel_instance_async,
        create_trigger,
        create_trigger_async,
        create_workflow,
        create_workflow_async,
        delete_trigger,
        delete_trigger_async,
        delete_workflow,
        delete_workflow_async,
    )
    from .context import (
        workflow_instance,
    )
    from .credentials import (
        OrchestrationCredentials,
    )
    from .errors import (
        FlowRunCancelledError,
    )
    from .flows import (
        cancel_instances_of_flow_run,
        run_workflow_and_wait,
        run_workflow_and_wait_async,
    )
    from .hooks import (
        cancel_instances,
    )
    from .reading import (
        get_instance,
        get_instance_async,
        get_instance_history,
        get_instance_history_async,
        get_server_info,
        get_server_info_async,
        get_stage_history,
        get_stage_history_async,
        get_trigger,
        get_trigger_async,
        get_workflow,
        get_workflow_async,
        list_instances,
        list_instances_async,
        list_trigger_occurrences,
        list_trigger_occurrences_async,
        list_triggers,
        list_triggers_async,
        list_workflows,
        list_workflows_async,
        test_trigger,
        test_trigger_async,
    )
    from .run_records import (
        resume_run,
        settle_run,
    )
    from .tasks import (
        run_workflow,
        run_workflow_async,
        send_event,
        send_event_async,
        wait_for_instance,
        wait_for_instance_async,
    )
    from .workflow import (
        OrchestrationRun,
        OrchestrationWorkflow,
    )

_HOMES = {
    "changing": (
        "abort_instance",
        "abort_instance_async",
        "cancel_instance",
        "cancel_instance_async",
        "create_trigger",
        "create_trigger_async",
        "create_workflow",
        "create_workflow_async",
        "delete_trigger",
        "delete_trigger_async",
        "delete_workflow",
        "delete_workflow_async",
    ),
    "context": ("workflow_instance",),
    "credentials": ("OrchestrationCredentials",),
    "errors": ("FlowRunCancelledError",),
    "flows": (
        "cancel_instances_of_flow_run",
        "run_workflow_and_wait",
        "run_workflow_and_wait_async",
    ),
    "hooks": ("cancel_instances",),
    "reading": (
        "get_instance",
        "get_instance_async",
        "get_instance_history",
        "get_instance_history_async",
        "get_server_info",
        "get_server_info_async",
        "get_stage_history",
        "get_stage_history_async",
        "get_trigger",
        "get_trigger_async",
        "get_workflow",
        "get_workflow_async",
        "list_instances",
        "list_instances_async",
        "list_trigger_occurrences",
        "list_trigger_occurrences_async",
        "list_triggers",
        "list_triggers_async",
        "list_workflows",
        "list_workflows_async",
        "test_trigger",
        "test_trigger_async",
    ),
    "run_records": (
        "resume_run",
        "settle_run",
    ),
    "tasks": (
        "run_workflow",
        "run_workflow_async",
        "send_event",
        "send_event_async",
        "wait_for_instance",
        "wait_for_instance_async",
    ),
    "workflow": (
        "OrchestrationRun",
        "OrchestrationWorkflow",
    ),
}
__all__ = [
    "FlowRunCancelledError",
    "OrchestrationCredentials",
    "OrchestrationRun",
    "OrchestrationWorkflow",
    "abort_instance",
    "abort_instance_async",
    "cancel_instance",
    "cancel_instance_async",
    "cancel_instances",
    "cancel_instances_of_flow_run",
    "create_trigger",
    "create_trigger_async",
    "create_workflow",
    "create_workflow_async",
    "delete_trigger",
    "delete_trigger_async",
    "delete_workflow",
    "delete_workflow_async",
    "get_instance",
    "get_instance_async",
    "get_instance_history",
    "get_instance_history_async",
    "get_server_info",
    "get_server_info_async",
    "get_stage_history",
    "get_stage_history_async",
    "get_trigger",
    "get_trigger_async",
    "get_workflow",
    "get_workflow_async",
    "list_instances",
    "list_instances_async",
    "list_trigger_occurrences",
    "list_trigger_occurrences_async",
    "list_triggers",
    "list_triggers_async",
    "list_workflows",
    "list_workflows_async",
    "resume_run",
    "run_workflow",
    "run_workflow_and_wait",
    "run_workflow_and_wait_async",
    "run_workflow_async",
    "send_event",
    "send_event_async",
    "settle_run",
    "test_trigger",
    "test_trigger_async",
    "wait_for_instance",
    "wait_for_instance_async",
    "workflow_instance",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)

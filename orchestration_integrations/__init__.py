"""Run money flows on a Formance Orchestration server: the shared hook, its models, its errors.

Nothing heavy is imported here: the names below load when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .lazy_names import lazy_names
from .version import __version__

if TYPE_CHECKING:
    from .api.errors import (
        AmbiguousRunError,
        AmbiguousSubmitError,
        AuthenticationError,
        ConfigurationError,
        EventNotDeliveredError,
        InstanceCancelledError,
        InstanceFailedError,
        InstanceStuckError,
        KeyReusedError,
        NotFoundError,
        OrchestrationError,
        OwnerGoneError,
        OwnerUnreachableError,
        RateLimitedError,
        RecordConflictError,
        ServerError,
        StateUnknownError,
        TransportError,
        UnreadableRecordError,
        ValidationError,
        WaitTimeoutError,
        WrongServerError,
    )
    from .api.models import (
        ActivityRun,
        CancelOutcome,
        EnsuredWorkflow,
        Instance,
        Moved,
        Occurrence,
        RunResult,
        ServerInfo,
        StageEvent,
        StageRun,
        StageStatus,
        Transaction,
        Trigger,
        Workflow,
    )
    from .http_hook import AsyncOrchestrationHttpHook, OrchestrationHttpHook
    from .ownership.record import RunRecord, RunStore
    from .run_store import MemoryRunStore, SqliteRunStore
    from .settings import Settings

_HOMES = {
    "api.errors": (
        "AmbiguousRunError",
        "AmbiguousSubmitError",
        "AuthenticationError",
        "ConfigurationError",
        "EventNotDeliveredError",
        "InstanceCancelledError",
        "InstanceFailedError",
        "InstanceStuckError",
        "WrongServerError",
        "UnreadableRecordError",
        "RecordConflictError",
        "OwnerUnreachableError",
        "OwnerGoneError",
        "KeyReusedError",
        "NotFoundError",
        "OrchestrationError",
        "RateLimitedError",
        "ServerError",
        "StateUnknownError",
        "TransportError",
        "ValidationError",
        "WaitTimeoutError",
    ),
    "api.models": (
        "ActivityRun",
        "CancelOutcome",
        "EnsuredWorkflow",
        "Instance",
        "Moved",
        "Occurrence",
        "RunResult",
        "ServerInfo",
        "StageEvent",
        "StageRun",
        "StageStatus",
        "Transaction",
        "Trigger",
        "Workflow",
    ),
    "http_hook": ("AsyncOrchestrationHttpHook", "OrchestrationHttpHook"),
    "ownership.record": ("RunRecord", "RunStore"),
    "run_store": ("MemoryRunStore", "SqliteRunStore"),
    "settings": ("Settings",),
}
__all__ = [
    "ActivityRun",
    "AmbiguousRunError",
    "AmbiguousSubmitError",
    "AsyncOrchestrationHttpHook",
    "AuthenticationError",
    "CancelOutcome",
    "ConfigurationError",
    "EnsuredWorkflow",
    "EventNotDeliveredError",
    "Instance",
    "InstanceCancelledError",
    "InstanceFailedError",
    "InstanceStuckError",
    "KeyReusedError",
    "MemoryRunStore",
    "Moved",
    "NotFoundError",
    "Occurrence",
    "OrchestrationError",
    "OrchestrationHttpHook",
    "OwnerGoneError",
    "OwnerUnreachableError",
    "RateLimitedError",
    "RecordConflictError",
    "RunRecord",
    "RunResult",
    "RunStore",
    "ServerError",
    "ServerInfo",
    "Settings",
    "SqliteRunStore",
    "StageEvent",
    "StageRun",
    "StageStatus",
    "StateUnknownError",
    "Transaction",
    "TransportError",
    "Trigger",
    "UnreadableRecordError",
    "ValidationError",
    "WaitTimeoutError",
    "Workflow",
    "WrongServerError",
    "__version__",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)

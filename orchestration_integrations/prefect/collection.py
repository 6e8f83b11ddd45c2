"""What Prefect loads of this package by itself: the blocks. The entry point ``prefect.collections`` names this."""

from .credentials import OrchestrationCredentials
from .workflow import OrchestrationWorkflow

__all__ = ["OrchestrationCredentials", "OrchestrationWorkflow"]

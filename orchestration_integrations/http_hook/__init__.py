"""The hooks: every operation of the API and every procedure, performed over HTTP, blocking or not."""

from .asynchronous.hook import AsyncOrchestrationHttpHook
from .blocking.hook import OrchestrationHttpHook

__all__ = ["AsyncOrchestrationHttpHook", "OrchestrationHttpHook"]

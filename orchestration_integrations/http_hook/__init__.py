"""The hooks: every operation of the API and every procedure, performed over HTTP, blocking or not."""

from .hook import AsyncOrchestrationHttpHook, OrchestrationHttpHook

__all__ = ["AsyncOrchestrationHttpHook", "OrchestrationHttpHook"]

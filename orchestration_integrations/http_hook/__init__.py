"""The hooks: every operation of the API and every procedure, performed over HTTP, blocking or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy_names import lazy_names

if TYPE_CHECKING:
    from .asynchronous.hook import AsyncOrchestrationHttpHook
    from .blocking.hook import OrchestrationHttpHook

__all__ = ["AsyncOrchestrationHttpHook", "OrchestrationHttpHook"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {"asynchronous.hook": ("AsyncOrchestrationHttpHook",), "blocking.hook": ("OrchestrationHttpHook",)},
)

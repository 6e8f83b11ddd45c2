"""Operators: create a workflow, run one, send an event, cancel an instance."""

from __future__ import annotations

from .run_operator import OrchestrationRunWorkflowOperator

__all__ = ["OrchestrationRunWorkflowOperator"]

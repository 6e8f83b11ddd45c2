"""What went wrong, in words that anybody may read who sees the page."""

from __future__ import annotations

import logging

from ..api.errors import OrchestrationError

logger = logging.getLogger(__name__)


def problem_text(error: Exception) -> str:
    """What an error means. One that nobody foresaw is named by its type alone: its text may hold anything."""
    if isinstance(error, OrchestrationError):
        return str(error)
    logger.warning("the page met an error that it did not foresee: %s", type(error).__name__)
    return f"the page itself failed: {type(error).__name__}"

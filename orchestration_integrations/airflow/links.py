"""The link from a task to its instance."""

from __future__ import annotations

import logging
from typing import Any

from .compat import BaseOperatorLink, XCom

INSTANCE_ID_KEY = "instance_id"
ABOUT_KEY = "orchestration_instance"
"""XCom with ``instance_id``, ``conn_id`` and ``url``: what belongs together is pushed together."""

logger = logging.getLogger("orchestration_integrations.airflow")


class OrchestrationInstanceLink(BaseOperatorLink):  # type: ignore[misc]
    """Opens the instance that this try of the task ran; empty where there is none yet."""

    name = "Orchestration instance"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The URL, never an error: a page of Airflow depends on it."""
        try:
            about = XCom.get_value(key=ABOUT_KEY, ti_key=ti_key)
        except Exception:
            logger.debug("no link for %s", ti_key, exc_info=True)
            return ""
        url = about.get("url") if isinstance(about, dict) else None
        return url if isinstance(url, str) else ""

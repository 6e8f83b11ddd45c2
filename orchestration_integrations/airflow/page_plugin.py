# mypy: disable-error-code="import-not-found,import-untyped,misc"
"""The live page as a tab of each task instance, on Airflow 3.1 and later: `[orchestration] ui_url` says where it is.

Every process of Airflow loads its plugins, so this module loads nothing else of this package.
"""

from __future__ import annotations

import logging
import re
from typing import Any

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

logger = logging.getLogger(__name__)

_ADDRESS = re.compile(r"https?://[^\s/?#{}@]+(/[^\s?#{}]*)?", re.IGNORECASE)
ROUTE = "/#/task/{DAG_ID}/{RUN_ID}/{TASK_ID}/{MAP_INDEX}"
"""Where the page shows the run of a task instance, found by its run key. Airflow fills in the names, encoded. Where a
task is not mapped it leaves ``{MAP_INDEX}``, which the page takes for -1."""


def views_of(address: str) -> list[dict[str, Any]]:
    """The tab; none where no address of the page is known, or where it is none that a tab can open.

    Args:
        address: of the live page, such as ``https://page.example``. A template, which a connection's ``ui_url`` may
            be, has no place for the names of a task.
    """
    address = address.strip().rstrip("/")
    if not address:
        return []
    if _ADDRESS.fullmatch(address) is None:
        logger.warning("[orchestration] ui_url has to be the address of the live page, as https://page.example; no tab")
        return []
    return [
        {
            "name": "Orchestration",
            "href": address + ROUTE,
            "destination": "task_instance",
            "url_route": "orchestration",
        }
    ]


class OrchestrationPagePlugin(AirflowPlugin):
    """Shows the live page beside a task instance."""

    name = "orchestration_page"
    external_views = views_of(conf.get("orchestration", "ui_url", fallback=""))

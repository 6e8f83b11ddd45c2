# mypy: disable-error-code="import-not-found,import-untyped,misc"
"""The live page as a tab of each task instance, on Airflow 3.1 and later: `[orchestration] ui_url` says where it is.

Every process of Airflow loads its plugins, so this module loads nothing else of this package.
"""

from __future__ import annotations

from typing import Any

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

ROUTE = "/#/task/{DAG_ID}/{RUN_ID}/{TASK_ID}/{MAP_INDEX}"
"""Where the page shows the run of a task instance, found by its run key. Airflow fills in the names, encoded."""


def views_of(address: str) -> list[dict[str, Any]]:
    """The tab; none where no address of the page is known."""
    address = address.strip().rstrip("/")
    if not address:
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

"""A DAG that starts when payouts of a workflow have ended, without a task that waits (Airflow 3.0 and later).

The triggerer watches the workflow whose id stands in the environment variable ``PAYOUT_WORKFLOW_ID`` of the DAG
processor. One run of the DAG may get several events, each with several instances. On Airflow 3.3 each end comes once,
also across restarts of the triggerer; one that dies within seconds after an event may repeat it, with the same
``instance_id``.
"""

from __future__ import annotations

import os
from datetime import datetime
from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, task

from orchestration_integrations.airflow.triggers import OrchestrationInstanceEndedTrigger

WORKFLOW_ID = os.environ.get("PAYOUT_WORKFLOW_ID", "")

ended_payouts = Asset(
    "ended_payouts",
    watchers=[
        AssetWatcher(
            name="ends_of_payouts", trigger=OrchestrationInstanceEndedTrigger(workflow_id=WORKFLOW_ID, poll_interval=10)
        )
    ]
    if WORKFLOW_ID
    else [],
)


@task
def book(triggering_asset_events: Any = None) -> list[str]:
    """The ids of the payouts that have ended. A booking by ``instance_id`` takes a repeat for what it is."""
    booked: list[str] = []
    for events in (triggering_asset_events or {}).values():
        for event in events:
            for payout in event.extra.get("payload", {}).get("instances", ()):
                print(f"payout {payout['instance_id']} has {payout['state']}")
                booked.append(payout["instance_id"])
    return booked


with DAG(
    dag_id="start_on_end", schedule=[ended_payouts], start_date=datetime(2024, 1, 1), catchup=False, tags=["payments"]
) as dag:
    book()

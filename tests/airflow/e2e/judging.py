"""What the record of a server of generation 2 says of runs with checkpoints."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import quote

from orchestration_integrations import OrchestrationHttpHook
from orchestration_integrations.server import EmbeddedServer
from tests.outside import eventually

SEND = {
    "send": {
        "source": {"account": {"id": "world"}},
        "destination": {"account": {"id": "${to}"}},
        "amount": {"amount": 100, "asset": "EUR/2"},
    }
}
QUIET_SECONDS = 6.0
"""Seconds after which a run that stands still is taken to stand for good."""


def pays(pause: str) -> str:
    """Two payments with a pause between them."""
    return json.dumps({"name": f"pays {pause}", "stages": [SEND, {"delay": {"duration": pause}}, SEND]})


def starts(server: EmbeddedServer, run_id: str) -> list[str]:
    """Instances that were started for a DAG run."""
    part = f"/{quote(run_id, safe=' .:+@=,')}/"
    return [row["instance_id"] for row in server.record().started if part in row["variables"].get("runKey", "")]


def paid(server: EmbeddedServer, instance_id: str) -> list[float]:
    """When an instance has moved money."""
    return [row["at"] for row in server.record().money if row["instance_id"] == instance_id]


def until_it_stands(server: EmbeddedServer, instance_id: str) -> None:
    """The instance stands at the checkpoint between its two payments, for good: it pays nothing more."""

    def stands() -> bool:
        with OrchestrationHttpHook(base_url=server.url) as http:
            last: Any = http.get_instance_history(instance_id)[-1]
        return str(last.input.get("event", "")).endswith(":2") and not last.terminated

    eventually(stands, f"instance {instance_id} stands at its checkpoint")
    time.sleep(QUIET_SECONDS)
    assert stands()
    assert len(paid(server, instance_id)) == 1

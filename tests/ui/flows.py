"""Workflows and runs that the page is shown with."""

from __future__ import annotations

import json
from typing import Any

import httpx

from orchestration_integrations import OrchestrationHttpHook
from orchestration_integrations.server import EmbeddedServer


def send(source: str, destination: str, amount: str, asset: str = "EUR/2") -> dict[str, Any]:
    return {
        "send": {
            "source": {"account": {"id": source}},
            "destination": {"account": {"id": destination}},
            "amount": {"amount": amount, "asset": asset},
        }
    }


PAYOUT = {
    "name": "payout",
    "stages": [
        send("world", "sales", "${amount}"),
        {"wait_event": {"event": "approved"}},
        send("sales", "merchants:${merchant}", "1050"),
    ],
}
UNFUNDED = {"name": "refund", "stages": [send("refunds:empty", "users:u1", "990")]}
CHECKPOINTED = {"name": "settlement", "stages": [send("world", "pool", "5000"), send("pool", "m:1", "2500")]}
SCRIPT = {"name": "<script>document.title='taken'</script>", "stages": [{"wait_event": {"event": "<img src=x>"}}]}
VARIABLES = {"amount": "1250", "merchant": "m1"}


def listening(hook: OrchestrationHttpHook, run_key: str = "order-17") -> str:
    """A released run that has paid once and waits for the event "approved"."""
    workflow = hook.ensure_workflow(PAYOUT, gate=True).workflow
    return hook.start(workflow.id, VARIABLES, run_key=run_key).id


def fired(server: EmbeddedServer, hook: OrchestrationHttpHook, *, name: str = "large payments") -> str:
    """A trigger that has begun a run, and has once failed to."""
    workflow = hook.ensure_workflow({"name": "notify", "stages": [send("world", "fees", "${amount}")]}).workflow
    body = {
        "name": name,
        "event": "SAVED_PAYMENT",
        "workflowID": workflow.id,
        "filter": 'event.amount > 1000 && event.asset == "EUR/2"',
        "vars": {"amount": "event.amount", "reference": "event.metadata.reference"},
    }
    answer = httpx.post(f"{server.url}/triggers", json=body, trust_env=False).raise_for_status()
    for number, metadata in enumerate(({"reference": "r-1"}, None)):
        payload = {"id": f"p{number}", "amount": 1250, "asset": "EUR/2", "metadata": metadata}
        server.world(f"publish {json.dumps({'type': 'SAVED_PAYMENT', 'payload': payload})}")
    found: str = answer.json()["data"]["id"]
    return found

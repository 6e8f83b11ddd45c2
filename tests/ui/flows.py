"""Workflows and runs that the page is shown with."""

from __future__ import annotations

from typing import Any

from orchestration_integrations import OrchestrationHttpHook


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

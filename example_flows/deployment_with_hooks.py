"""A deployment whose runs leave no payment behind, however they end.

The wait cancels its instance when the flow run is cancelled or its process is told to end. The hooks cover
what no process can do for itself: it was killed. They run elsewhere, so they load the credentials by name.

    ORCHESTRATION_URL=http://127.0.0.1:8080 python example_flows/deployment_with_hooks.py   # serves the flow
"""

from prefect import flow

from orchestration_integrations.prefect import (
    OrchestrationCredentials,
    cancel_instances,
    create_workflow,
    run_workflow,
    wait_for_instance,
)

CREDENTIALS = "orchestration"
"""The name of the stored block."""

SUBSCRIPTION = {
    "name": "subscription",
    "stages": [
        {"delay": {"duration": "${trial}"}},
        {
            "send": {
                "source": {"account": {"id": "world"}},
                "destination": {"account": {"id": "subscriptions:${subscriber}"}},
                "amount": {"amount": 990, "asset": "EUR/2"},
            }
        },
    ],
}

cancel = cancel_instances(CREDENTIALS)


@flow(name="subscription", on_cancellation=[cancel], on_crashed=[cancel], on_failure=[cancel])
def subscription(subscriber: str = "001", trial: str = "720h") -> dict:
    """Charge after the trial, unless this flow run ends before."""
    workflow_id = create_workflow(CREDENTIALS, SUBSCRIPTION, gate=True)
    run = run_workflow(CREDENTIALS, workflow_id, {"subscriber": subscriber, "trial": trial}, step="charge")
    return wait_for_instance(CREDENTIALS, run, poll_interval=30)


if __name__ == "__main__":
    OrchestrationCredentials.from_env().save(CREDENTIALS, overwrite=True)
    subscription.serve(name="subscription")

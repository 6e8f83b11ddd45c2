"""The same from asynchronous flows: two payments side by side, the second one cancelled if the first one fails.

ORCHESTRATION_URL=http://127.0.0.1:8080 python example_flows/asynchronous.py
"""

import asyncio

from prefect import flow

from orchestration_integrations.prefect import (
    OrchestrationCredentials,
    create_workflow_async,
    workflow_instance,
)

PAYMENT = {
    "name": "side-by-side",
    "stages": [
        {
            "send": {
                "source": {"account": {"id": "world"}},
                "destination": {"account": {"id": "${payee}"}},
                "amount": {"amount": 100, "asset": "EUR/2"},
            }
        },
    ],
}


@flow(name="side-by-side", retries=1)
async def side_by_side(first: str = "users:001", second: str = "users:002") -> list[str]:
    """Pay both; whatever raises inside `async with` cancels the runs that it opened."""
    credentials = OrchestrationCredentials.from_env()
    workflow_id = await create_workflow_async(credentials, PAYMENT, gate=True)
    waiting = {"timeout": 600, "poll_interval": 1}
    async with (
        workflow_instance(credentials, workflow_id, {"payee": first}, step="first", **waiting) as one,
        workflow_instance(credentials, workflow_id, {"payee": second}, step="second", **waiting) as other,
    ):
        results = await asyncio.gather(one.await_for_completion(), other.await_for_completion())
    return [result["instance_id"] for result in results]


if __name__ == "__main__":
    for instance_id in asyncio.run(side_by_side()):
        print(f"instance {instance_id} succeeded")

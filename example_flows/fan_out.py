"""Pay many at once. A retry of the flow comes back to each payment; those that were not started yet are started then.

ORCHESTRATION_URL=http://127.0.0.1:8080 python example_flows/fan_out.py
"""

from prefect import flow

from orchestration_integrations.prefect import (
    OrchestrationCredentials,
    create_workflow,
    run_workflow,
    wait_for_instance,
)

PAYMENT = {
    "name": "salary",
    "stages": [
        {
            "send": {
                "source": {"account": {"id": "world"}},
                "destination": {"account": {"id": "${payee}"}},
                "amount": {"amount": "${amount}", "asset": "EUR/2"},
            }
        },
    ],
}


@flow(name="pay-all", retries=2, retry_delay_seconds=5)
def pay_all(salaries: dict[str, int]) -> dict[str, str]:
    """Pay all of them; returns the instance of each."""
    credentials = OrchestrationCredentials.from_env()
    workflow_id = create_workflow(credentials, PAYMENT, gate=True)
    waits = {}
    for payee, amount in salaries.items():
        # The step names the payment, whatever the order in which a retry comes to it.
        run = run_workflow.submit(credentials, workflow_id, {"payee": payee, "amount": amount}, step=f"salary-{payee}")
        waits[payee] = wait_for_instance.submit(credentials, run, timeout=600, poll_interval=1)
    return {payee: wait.result()["instance_id"] for payee, wait in waits.items()}


if __name__ == "__main__":
    for payee, instance_id in pay_all({"users:001": 100, "users:002": 250, "users:003": 75}).items():
        print(f"{payee}: instance {instance_id} succeeded")

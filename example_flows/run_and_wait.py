"""Put a payment's definition on the server, run it, wait for its end.

ORCHESTRATION_URL=http://127.0.0.1:8080 python example_flows/run_and_wait.py
"""

from prefect import flow

from orchestration_integrations.prefect import OrchestrationCredentials, create_workflow, run_workflow_and_wait

PAYMENT = {
    "name": "payment",
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


@flow(name="pay", retries=2, retry_delay_seconds=5)
def pay(payee: str = "users:001", amount: int = 100) -> dict:
    """Pay, once: a retry of this flow comes back to the run that it had started."""
    # Loaded inside the flow: a block that is given as a parameter is stored with its secrets masked.
    credentials = OrchestrationCredentials.from_env()
    workflow_id = create_workflow(credentials, PAYMENT, gate=True)
    return run_workflow_and_wait(
        credentials, workflow_id, {"payee": payee, "amount": amount}, step="pay", timeout=600, poll_interval=1
    )


if __name__ == "__main__":
    result = pay()
    print(f"instance {result['instance_id']} {result['state']}: {len(result['transactions'])} transactions")

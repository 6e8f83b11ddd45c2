"""Pay many at once. A retry of the flow comes back to each payment; those that were not started yet are started then.

ORCHESTRATION_URL=http://127.0.0.1:8080 python example_flows/fan_out.py
"""

from prefect import flow, unmapped

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
    payees = list(salaries)
    # One call for each of the lists' places; `unmapped` is the same for all. A mapping is mapped over too, so a list of
    # mappings is what `variables` needs. The step names the payment, whatever the order in which a retry comes to it.
    runs = run_workflow.map(
        unmapped(credentials),
        unmapped(workflow_id),
        [{"payee": payee, "amount": salaries[payee]} for payee in payees],
        step=[f"salary-{payee}" for payee in payees],
    )
    # A start that is refused keeps no other payment from being waited for: its error is raised once they have ended.
    runs.wait()
    started = [run for run in runs if run.state.is_completed()]
    waits = wait_for_instance.map(unmapped(credentials), started, timeout=unmapped(600), poll_interval=unmapped(1))
    waits.wait()
    runs.result()
    return {payee: result["instance_id"] for payee, result in zip(payees, waits.result(), strict=True)}


if __name__ == "__main__":
    for payee, instance_id in pay_all({"users:001": 100, "users:002": 250, "users:003": 75}).items():
        print(f"{payee}: instance {instance_id} succeeded")

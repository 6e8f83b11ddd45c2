"""Cancel a payment under way when anything else in the flow fails.

Whatever fails inside `with transaction():` rolls all of it back, and a run is rolled back by cancelling it.

    ORCHESTRATION_URL=http://127.0.0.1:8080 python example_flows/cancel_by_transaction.py
"""

from prefect import flow, task
from prefect.transactions import transaction

from orchestration_integrations.prefect import (
    OrchestrationCredentials,
    create_workflow,
    run_workflow,
    wait_for_instance,
)

ORDER = {
    "name": "order",
    "stages": [
        {
            "send": {
                "source": {"account": {"id": "world"}},
                "destination": {"account": {"id": "orders:${order}"}},
                "amount": {"amount": "${amount}", "asset": "EUR/2"},
            }
        },
        {"delay": {"duration": "${cooling_off}"}},
        {
            "send": {
                "source": {"account": {"id": "orders:${order}"}},
                "destination": {"account": {"id": "shop"}},
                "amount": {"amount": "${amount}", "asset": "EUR/2"},
            }
        },
    ],
}


class OutOfStock(Exception):
    """There is nothing to send."""


@task
def reserve_goods(in_stock: bool) -> None:
    """The other half of the order."""
    if not in_stock:
        raise OutOfStock


@flow(name="order")
def order(number: int = 1, in_stock: bool = True, cooling_off: str = "2s") -> dict:
    """Take the money and reserve the goods: both, or cancel the payment before the shop has it."""
    credentials = OrchestrationCredentials.from_env()
    workflow_id = create_workflow(credentials, ORDER, gate=True)
    variables = {"order": number, "amount": 4200, "cooling_off": cooling_off}
    with transaction():
        run = run_workflow(credentials, workflow_id, variables, step="payment")
        reserve_goods(in_stock)
        return wait_for_instance(credentials, run, timeout=600, poll_interval=1)


if __name__ == "__main__":
    result = order()
    print(f"instance {result['instance_id']} {result['state']}: {len(result['transactions'])} transactions")

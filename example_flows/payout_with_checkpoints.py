"""A payout in three transfers that a failed check stops between the first and the second, on every server.

On servers of generation 2 an abort does nothing. With checkpoints the run waits before each further transfer until the
flow that waits for it lets it go on, and a flow that has failed does not: the run is held there.

    ORCHESTRATION_URL=http://127.0.0.1:8080 python example_flows/payout_with_checkpoints.py
"""

import time

from prefect import flow, task
from prefect.transactions import transaction

from orchestration_integrations.prefect import (
    OrchestrationCredentials,
    create_workflow,
    run_workflow,
    wait_for_instance,
)


def transfer(destination: str, amount: str) -> dict:
    """A stage that pays."""
    return {
        "send": {
            "source": {"account": {"id": "world"}},
            "destination": {"account": {"id": destination}},
            "amount": {"amount": amount, "asset": "EUR/2"},
        }
    }


PAYOUT = {
    "name": "payout",
    "stages": [
        transfer("reserve:${order}", "${reserve}"),
        {"delay": {"duration": "${clearing}"}},
        transfer("sellers:${order}", "${net}"),
        transfer("fees", "${fee}"),
    ],
}


class Suspicious(Exception):
    """Nobody is to be paid."""


@task
def screen(order: int, suspicious: bool) -> None:
    """Ask whoever knows. That takes its time, and the first transfer is made meanwhile."""
    time.sleep(1)
    if suspicious:
        raise Suspicious(f"order {order}")


@flow(name="payout")
def payout(order: int = 1, suspicious: bool = False, clearing: str = "3s") -> dict:
    """Pay in three transfers, as long as nothing speaks against it."""
    credentials = OrchestrationCredentials.from_env()
    workflow_id = create_workflow(credentials, PAYOUT, gate=True, checkpoints=True)
    variables = {"order": order, "reserve": 100, "net": 2000, "fee": 50, "clearing": clearing}
    with transaction():
        run = run_workflow(credentials, workflow_id, variables, step="payout", checkpoints=True)
        print(f"run key: {run['run_key']}")  # resume_run(…) with it lets a run go on that is held
        result = wait_for_instance.submit(credentials, run, timeout=600)
        screen(order, suspicious)
        return result.result()


if __name__ == "__main__":
    result = payout()
    print(f"instance {result['instance_id']} {result['state']}: {len(result['transactions'])} transactions")

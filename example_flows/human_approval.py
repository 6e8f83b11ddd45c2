"""Reserve money, ask a human, then pay or give the money back.

The flow run is suspended while it waits for the answer: no process runs meanwhile. Once it is resumed it begins
again, and comes back to the instance that it had started.

    ORCHESTRATION_URL=http://127.0.0.1:8080 python example_flows/human_approval.py   # serves the flow
"""

from prefect import flow
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput

from orchestration_integrations.prefect import (
    OrchestrationCredentials,
    create_workflow,
    run_workflow,
    send_event,
    wait_for_instance,
)


def transfer(source: str, destination: str) -> dict:
    """A stage that moves the amount."""
    return {
        "send": {
            "source": {"account": {"id": source}},
            "destination": {"account": {"id": destination}},
            "amount": {"amount": "${amount}", "asset": "EUR/2"},
        }
    }


PAYOUT = {
    "name": "approved-payout",
    "stages": [
        transfer("world", "reserved"),
        {"wait_event": {"event": "decided"}},
        transfer("reserved", "${payee}"),
    ],
}


class Decision(RunInput):
    """What is asked."""

    approved: bool


@flow(name="approved-payout", persist_result=True)
def approved_payout(payee: str = "users:001", amount: int = 100) -> str:
    """Pay once a human agrees; without that the money stays reserved."""
    credentials = OrchestrationCredentials.from_env()
    workflow_id = create_workflow(credentials, PAYOUT, gate=True)
    run = run_workflow(credentials, workflow_id, {"payee": payee, "amount": amount}, step="payout")
    decision = suspend_flow_run(wait_for_input=Decision, timeout=7 * 86400)
    if not decision.approved:
        return f"instance {run['instance_id']} was not approved: the money stays reserved, the instance waits"
    send_event(credentials, run, "decided", timeout=60)
    result = wait_for_instance(credentials, run, timeout=600, poll_interval=1)
    return f"instance {result['instance_id']} {result['state']}"


if __name__ == "__main__":
    approved_payout.serve(name="approved-payout")

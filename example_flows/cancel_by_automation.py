"""Automations that cancel the runs of flow runs whose whole machine was lost: there nobody is left to run a hook.

A flow run tells Prefect every 30 seconds that it is alive. One that was silent for three times as long is marked as
Crashed; the instances of each one that is Crashed or Cancelled are cancelled by a deployment on another machine.

    export ORCHESTRATION_URL=http://127.0.0.1:8080 PREFECT_FLOWS_HEARTBEAT_FREQUENCY=30
    python example_flows/cancel_by_automation.py watch       # on one machine
    python example_flows/cancel_by_automation.py subscribe   # on another one: kill it
"""

import sys
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

from prefect import flow, serve
from prefect.automations import Automation
from prefect.client.schemas.objects import StateType
from prefect.deployments.runner import EntrypointType
from prefect.events.actions import ChangeFlowRunState, RunDeployment
from prefect.events.schemas.automations import EventTrigger, Posture

from orchestration_integrations.prefect import (
    OrchestrationCredentials,
    cancel_instances_of_flow_run,
    create_workflow,
    run_workflow,
    wait_for_instance,
)

CREDENTIALS = "orchestration"
"""The name of the stored block."""
TAG = "moves-money"
"""Flow runs with this tag are watched."""
SILENCE = timedelta(seconds=90)
"""How long a flow run may say nothing: several times the seconds of PREFECT_FLOWS_HEARTBEAT_FREQUENCY."""

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


def of_the_event(template: str) -> dict[str, str]:
    """A parameter of a deployment that Prefect fills in from the event that an automation heard."""
    return {"__prefect_kind": "jinja", "template": template}


def automations(deployment_id: UUID, silence: timedelta = SILENCE) -> list[Automation]:
    """Those two that are needed.

    Args:
        deployment_id: of ``cancel_instances_of_flow_run``.
        silence: after which a flow run counts as lost.
    """
    any_flow_run = {"prefect.resource.id": "prefect.flow-run.*"}
    watched = {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"}
    lost = EventTrigger(
        posture=Posture.Proactive,
        match=any_flow_run,
        match_related=watched,
        for_each={"prefect.resource.id"},
        after={"prefect.flow-run.heartbeat"},
        expect={"prefect.flow-run.*"},  # the next sign of life, or the end
        threshold=1,
        within=silence,
    )
    over = EventTrigger(
        posture=Posture.Reactive,
        match=any_flow_run,
        match_related=watched,
        for_each={"prefect.resource.id"},
        expect={"prefect.flow-run.Crashed", "prefect.flow-run.Cancelled"},
        threshold=1,
        within=timedelta(0),
    )
    parameters = {
        "credentials": CREDENTIALS,
        "flow_run_id": of_the_event("{{ event.resource.id | replace('prefect.flow-run.', '') }}"),
        # As JSON, since a template gives a text, and this is a number.
        "run_count": {"__prefect_kind": "json", "value": of_the_event("{{ event.resource.get('prefect.run-count') }}")},
    }
    return [
        Automation(
            name="flow runs that say nothing any more have crashed",
            trigger=lost,
            actions=[ChangeFlowRunState(state=StateType.CRASHED, message="It said nothing for too long.")],
        ),
        Automation(
            name="instances of flow runs that are over are cancelled",
            trigger=over,
            actions=[RunDeployment(source="selected", deployment_id=deployment_id, parameters=parameters)],
        ),
    ]


def watch(silence: timedelta = SILENCE) -> None:
    """Create the automations anew, and serve what they run."""
    deployment = cancel_instances_of_flow_run.to_deployment(
        name="by-automation", entrypoint_type=EntrypointType.MODULE_PATH
    )
    for automation in automations(deployment.apply(), silence):
        with suppress(ValueError):  # there is none the first time
            Automation.read(name=automation.name).delete()
        automation.create()
    serve(deployment)


@flow(name="subscription-without-hooks")
def subscription(subscriber: str = "001", trial: str = "720h") -> dict:
    """Charge after the trial, unless this flow run ends before."""
    workflow_id = create_workflow(CREDENTIALS, SUBSCRIPTION, gate=True)
    run = run_workflow(CREDENTIALS, workflow_id, {"subscriber": subscriber, "trial": trial}, step="charge")
    return wait_for_instance(CREDENTIALS, run, poll_interval=30)


if __name__ == "__main__":
    OrchestrationCredentials.from_env().save(CREDENTIALS, overwrite=True)
    if sys.argv[1] == "watch":
        watch(timedelta(seconds=float(sys.argv[2])) if len(sys.argv) > 2 else SILENCE)
    else:
        subscription.serve(name="subscription-without-hooks", tags=[TAG])

"""The automations of the example: what no hook can do, since the whole process group of a flow run was killed."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.exceptions import ObjectNotFound
from prefect.states import Scheduled

from orchestration_integrations.server import EmbeddedServer

from .conftest import LONG, Process, errors_of, releases, until

EXAMPLE = str(Path(__file__).parents[2] / "example_flows" / "cancel_by_automation.py")
SILENCE = 40
"""Seconds; Prefect takes no less than 30 between two signs of life."""


def deployment_id(name: str) -> Any:
    def known() -> Any:
        with get_client(sync_client=True) as client:
            try:
                return client.read_deployment_by_name(name).id
            except ObjectNotFound:
                return None

    return until(known, f"{name} is deployed", 2 * LONG)


def automation_names() -> set[str]:
    with get_client(sync_client=True) as client:
        rows = client.request("POST", "/automations/filter").json()
    return {row["name"] for row in rows}


@pytest.mark.usefixtures("prefect_api")
def test_a_flow_run_that_is_lost_with_its_runner_leaves_no_run_behind() -> None:
    with EmbeddedServer(generation=3) as server:
        env = {"ORCHESTRATION_URL": server.url, "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}
        watching = Process("watch", sys.executable, EXAMPLE, "watch", str(SILENCE), **env)
        running = Process("subscribe", sys.executable, EXAMPLE, "subscribe", **env)
        try:
            of_the_flow = deployment_id("subscription-without-hooks/subscription-without-hooks")
            of_the_cancel = deployment_id("cancel-instances-of-flow-run/by-automation")
            until(lambda: len(automation_names()) == 2, "the automations are there")
            with get_client(sync_client=True) as client:
                flow_run = client.create_flow_run_from_deployment(of_the_flow, state=Scheduled())
            until(lambda: len(releases(server)) == 1, "the run is released", 2 * LONG)
            os.killpg(running.popen.pid, signal.SIGKILL)  # the flow and its runner: nobody can run a hook

            until(lambda: errors_of(server), "the instance has ended", 2 * LONG)
            assert errors_of(server) == dict.fromkeys(releases(server), "canceled")
            assert server.record().money == []
            with get_client(sync_client=True) as client:
                assert client.read_flow_run(flow_run.id).state.name == "Crashed"
                only = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[of_the_cancel]))
                (cancel,) = client.read_flow_runs(flow_run_filter=only)
            assert cancel.parameters["flow_run_id"] == str(flow_run.id)
            assert int(cancel.parameters["run_count"]) == 1
            assert "Traceback" not in watching.text()
        finally:
            running.end()
            watching.end()

"""A server that cannot be read while a flow waits for its run, or while a retry begins to go on with it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prefect import flow, task

from orchestration_integrations import StateUnknownError
from orchestration_integrations.prefect import (
    OrchestrationCredentials,
    run_workflow,
    run_workflow_and_wait,
    wait_for_instance,
    wait_for_instance_async,
)
from orchestration_integrations.server import EmbeddedServer
from tests.prefect.conftest import defined

pytestmark = pytest.mark.usefixtures("prefect_api")
SHORT = {"name": "short", "stages": [{"delay": {"duration": "2s"}}]}


@pytest.mark.parametrize("way", ["blocking", "not blocking"])
def test_the_log_of_the_run_tells_of_an_outage_and_of_its_end(
    server: EmbeddedServer, credentials: OrchestrationCredentials, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    workflow_id = defined(server, SHORT)

    @flow
    def waits() -> Any:
        instance_id = run_workflow(credentials, workflow_id)["instance_id"]
        server.fault("get_instance", "status", count=3, code=503)
        return wait_for_instance(credentials, instance_id, poll_interval=0.3)

    @flow
    async def waits_async() -> Any:
        instance_id = run_workflow(credentials, workflow_id)["instance_id"]
        server.fault("get_instance", "status", count=3, code=503)
        return await wait_for_instance_async(credentials, instance_id, poll_interval=0.3)

    result = waits() if way == "blocking" else asyncio.run(waits_async())
    assert result["state"] == "succeeded"
    began, ended = [one for one in caplog.records if "be read" in one.getMessage()]
    assert (began.levelname, ended.levelname) == ("WARNING", "INFO")
    assert began.name.startswith("prefect.")
    assert f"of {server.url} cannot be read since" in began.getMessage()


def test_a_retry_that_meets_an_outage_leads_to_another_retry(
    server: EmbeddedServer, credentials: OrchestrationCredentials
) -> None:
    workflow_id = defined(server, SHORT)
    said: list[Any] = []

    @task(retries=3)
    def pays() -> Any:
        if len(said) == 1:
            server.fault("any", "status", count=-1, code=503)
        if len(said) == 2:
            server.core.clear_faults()
        try:
            said.append(run_workflow(credentials, workflow_id, timeout=1.5)["instance_id"])
        except StateUnknownError as error:
            said.append(str(error))
        if len(said) < 3:
            raise RuntimeError("the task breaks down")
        return said[-1]

    @flow
    def outer() -> Any:
        return pays()

    instance_id = outer()
    assert [row["instance_id"] for row in server.record().started] == [instance_id]
    first, second, third = said
    assert first == third == instance_id
    assert f"instance {instance_id} of key" in second
    assert "goes on from there" in second


def test_a_flow_says_what_it_did_to_have_its_run(
    server: EmbeddedServer, credentials: OrchestrationCredentials, caplog: pytest.LogCaptureFixture
) -> None:
    workflow_id = defined(server, SHORT)

    @flow
    def pays() -> Any:
        return run_workflow_and_wait(credentials, workflow_id, run_key="order-1")

    for word in ("started", "comes back to"):
        instance_id = pays()["instance_id"]
        lines = [one.getMessage() for one in caplog.records if one.name.startswith("prefect.")]
        assert any(line.startswith(f"{word} instance {instance_id} of workflow {workflow_id}") for line in lines), lines
        caplog.clear()

"""Pages of lists: a cursor alone goes on with what its first page was asked for."""

from __future__ import annotations

import httpx
import pytest

from orchestration_integrations import OrchestrationHttpHook
from orchestration_integrations.server import EmbeddedServer

WAITS = [{"wait_event": {"event": "go"}}]


@pytest.mark.parametrize("generation", [2, 3])
def test_a_cursor_keeps_the_filters_of_its_first_page(generation: int) -> None:
    with EmbeddedServer(generation=generation) as server, OrchestrationHttpHook(base_url=server.url) as hook:
        many, few = (hook.create_workflow({"name": name, "stages": WAITS}).id for name in ("many", "few"))
        for number in range(125):
            hook.run_workflow(many)
            if number % 20 == 0:
                hook.run_workflow(few)
        query = {"workflowID": many, "running": "true", "pageSize": "100"}
        found: list[str] = []
        while query:
            cursor = httpx.get(f"{server.url}/v2/instances", params=query, trust_env=False).json()["cursor"]
            found += [row["workflowID"] for row in cursor["data"]]
            query = {"cursor": cursor["next"]} if cursor["hasMore"] else {}
        assert found == [many] * 125
        assert len(list(hook.list_instances(workflow_id=many))) == 125

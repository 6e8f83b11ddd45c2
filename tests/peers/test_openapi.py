"""Schemathesis reads the server's own OpenAPI document and sends whatever it allows, and what it doesn't."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error, response_schema_conformance

from orchestration_integrations.server import EmbeddedServer

with EmbeddedServer(generation=3) as _server:
    DOCUMENT = schemathesis.openapi.from_url(f"{_server.url}/openapi.json").exclude(path_regex="/triggers")
WAITING = {"stages": [{"wait_event": {"event": "go"}}]}


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer(generation=3, seed=1) as started:
        yield started


@pytest.fixture(scope="module")
def client(server: EmbeddedServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url) as opened:
        yield opened


def _ids(client: httpx.Client) -> dict[str, object]:
    """Ids of a workflow and of a run of it."""
    workflow = client.post("/workflows", json=WAITING).json()["data"]["id"]
    instance = client.post(f"/workflows/{workflow}/instances", json={}).json()["data"]["id"]
    return {"workflowID": workflow, "instanceID": instance, "number": 0}


def _conforms(ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case) -> bool | None:
    """Successes have the described shape. An error may be empty: a stage that is no number gets a bare 404."""
    return response_schema_conformance(ctx, response, case) if response.status_code < 300 else None


@settings(
    max_examples=40,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@DOCUMENT.parametrize()
def test_no_request_breaks_the_server(case: schemathesis.Case, server: EmbeddedServer, client: httpx.Client) -> None:
    case.call_and_validate(base_url=server.url, checks=[not_a_server_error, _conforms], timeout=10)
    if case.path_parameters:
        known = _ids(client)
        case.path_parameters = {name: known[name] for name in case.path_parameters}
        case.call_and_validate(base_url=server.url, checks=[not_a_server_error, _conforms], timeout=10)

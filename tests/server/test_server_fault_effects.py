"""What counts as a fault's effect, and which faults can have one at all."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from orchestration_integrations.server import EmbeddedServer
from orchestration_integrations.server.faults import CONTENT, NETWORK, OPERATIONS, WORK
from orchestration_integrations.server.misread import HOWS

from .conftest import delay, send


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer(seed=1) as one:
        yield one


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, trust_env=False) as one:
        yield one


def created(client: httpx.Client, *stages: Any) -> str:
    return str(client.post("/workflows", json={"name": "payout", "stages": list(stages)}).json()["data"]["id"])


IMPOSSIBLE = [
    ("get_instance", "shuffled", {}),
    ("get_instance", "misread", {"how": "no_next"}),
    ("get_instance", "misread", {"how": "object"}),
    ("list_instances", "misread", {"how": "other_id"}),
    ("list_workflows", "misread", {"how": "no_filter"}),
    ("send_event", "misread", {"how": "bom"}),
    ("info", "hidden", {}),
    ("abort_instance", "unknown_fields", {}),
    ("get_workflow", "late_row", {}),
]


@pytest.mark.parametrize(("operation", "kind", "options"), IMPOSSIBLE)
def test_a_fault_that_can_change_nothing_cannot_be_set(
    server: EmbeddedServer, operation: str, kind: str, options: Any
) -> None:
    with pytest.raises(ValueError, match=f"can change nothing about '{operation}', only about "):
        server.fault(operation, kind, **options)
    server.fault("any", kind, **options)


def test_every_fault_can_change_some_operation(server: EmbeddedServer) -> None:
    named = [(kind, {}) for kind in (*NETWORK, *WORK, *CONTENT) if kind != "misread"]
    for kind, options in [*named, *(("misread", {"how": how}) for how in HOWS)]:
        possible = 0
        for operation in OPERATIONS:
            try:
                server.fault(operation, kind, **options)
                possible += 1
            except ValueError:
                pass
        assert possible, kind


def test_a_request_that_is_left_as_it_is_was_not_met(server: EmbeddedServer, client: httpx.Client) -> None:
    workflow = created(client, send())
    cases: list[tuple[str, str, dict[str, Any], str]] = [
        ("any", "hidden", {}, f"/workflows/{workflow}"),
        ("list_workflows", "shuffled", {}, "/workflows"),
        ("list_workflows", "misread", {"how": "no_next"}, "/workflows"),  # version 1 has no pages
        ("list_instances", "misread", {"how": "other_workflow"}, "/instances"),
        ("list_instances", "misread", {"how": "no_filter"}, "/instances?running=true"),
        ("get_workflow", "gzip_bomb", {"megabytes": 1}, "/workflows/nobody"),
    ]
    for operation, kind, options, path in cases:
        with pytest.raises(AssertionError, match="came inside the block, and it could change nothing about them"):
            with server.fault(operation, kind, **options) as fault:
                client.get(path)
        assert fault.met == 0
        assert server.calls()[-1].faults == ()
    with pytest.raises(AssertionError, match="the fault 'late_row' met no request"):
        with server.fault("run_workflow", "late_row"):
            client.post("/workflows/nobody/instances")


def test_a_fault_counts_what_it_has_changed(server: EmbeddedServer, client: httpx.Client) -> None:
    workflow = created(client, send())
    with server.fault("get_workflow", "hidden", count=4) as fault:
        texts = []
        for name in (workflow, "nobody", workflow, "nobody", "nobody"):
            texts.append(client.get(f"/workflows/{name}").json().get("errorMessage", "")[:8])
        assert texts == ["", "internal", "", "internal", "sql: no "]
        assert fault.met == 2
    with server.fault("get_workflow", "unknown_fields", count=5) as fault:
        client.get(f"/workflows/{workflow}")
    assert fault.met == 1
    assert [one.faults for one in server.calls("get_workflow")[-2:]] == [(), ("unknown_fields",)]


def test_a_late_answer_counts_when_it_is_there(server: EmbeddedServer, client: httpx.Client) -> None:
    workflow = created(client, delay("1h"))
    with server.fault("run_workflow", "misread", how="other_id") as fault:
        client.post(f"/workflows/{workflow}/instances")
        assert fault.met == 1
    assert server.calls("run_workflow")[-1].faults == ("misread",)


@pytest.mark.parametrize("skip", [0, 1, 2])
def test_skip_counts_requests_that_pass_unharmed(server: EmbeddedServer, client: httpx.Client, skip: int) -> None:
    server.fault("info", "status", code=500)
    server.fault("info", "status", code=503, skip=skip)
    statuses = [client.get("/_info").status_code for _ in range(5)]
    assert statuses == [500, *itertools.repeat(200, skip), 503, *itertools.repeat(200, 3 - skip)]


def test_a_fault_is_good_for_one_block(server: EmbeddedServer, client: httpx.Client) -> None:
    fault = server.fault("info", "status", count=2)
    with fault:
        client.get("/_info")
    with pytest.raises(ValueError, match="was used before"):
        with fault:
            client.get("/_info")
    used_up = server.fault("info", "status")
    client.get("/_info")
    taken_back = server.fault("info", "status")
    taken_back.take_back()
    for one in (used_up, taken_back):
        with pytest.raises(ValueError, match="was used before"), one:
            pass
    earlier = server.fault("info", "status", count=-1)
    client.get("/_info")
    with pytest.raises(AssertionError, match="met no request"), earlier:
        pass

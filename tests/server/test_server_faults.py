"""Faults: what is done, what is answered, and what the client sees, in process and over a socket."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from orchestration_integrations.server import EmbeddedServer, Timing

from .conftest import WAIT

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import World

    MakeWorld = Callable[..., World]

ALL = pytest.mark.parametrize("generation", [1, 2, 3])


def runs(w: World) -> int:
    w.clock.sleep(1)
    return len(w.core.record().started)


@ALL
@pytest.mark.parametrize(("kind", "started"), [("cut_before", 0), ("refuse", 0), ("cut_after", 1), ("truncated", 1)])
def test_cuts(world: MakeWorld, generation: int, kind: str, started: int) -> None:
    w = world(generation)
    workflow = w.workflow(WAIT)
    w.core.fault("run_workflow", kind)
    wanted = httpx.ConnectError if kind == "refuse" else httpx.RemoteProtocolError
    with pytest.raises(wanted):
        w.client.post(f"/workflows/{workflow}/instances")
    assert runs(w) == started
    assert w.client.post(f"/workflows/{workflow}/instances").status_code == 201


@ALL
def test_a_cut_amid_a_run_leaves_nothing_a_ghost_or_a_run(world: MakeWorld, generation: int) -> None:
    w = world(generation, timing=Timing(jitter=0))
    workflow = w.workflow(WAIT)
    outcomes: dict[str, list[float]] = {"nothing": [], "ghost": [], "run": []}
    for tenths in range(0, 120, 4):
        before, ran = len(w.core.engine.instances), len(w.core.record().started)
        w.core.fault("run_workflow", "cut_amid", after=tenths / 10000)
        with pytest.raises(httpx.RemoteProtocolError):
            w.client.post(f"/workflows/{workflow}/instances")
        now_ran = runs(w)
        rows = len(w.core.engine.instances) - before
        outcomes["run" if now_ran > ran else "ghost" if rows else "nothing"].append(tenths)
    assert outcomes["nothing"]
    assert len(outcomes["run"]) > 15
    assert bool(outcomes["ghost"]) is (generation == 1)
    assert max(outcomes["nothing"]) < min(outcomes["run"])
    if generation == 1:
        assert max(outcomes["nothing"]) < min(outcomes["ghost"])
        assert max(outcomes["ghost"]) < min(outcomes["run"])


@ALL
def test_a_stall_comes_after_the_work(world: MakeWorld, generation: int) -> None:
    w = world(generation)
    workflow = w.workflow(WAIT)
    w.core.fault("run_workflow", "stall", seconds=20)
    begun = w.clock.time()
    with pytest.raises(httpx.ReadTimeout):
        w.client.post(f"/workflows/{workflow}/instances", timeout=5)
    assert w.clock.time() - begun == pytest.approx(5)
    assert runs(w) == 1
    w.core.fault("get_workflow", "stall", seconds=3)
    begun = w.clock.time()
    assert w.client.get(f"/workflows/{workflow}", timeout=5).status_code == 200
    assert w.clock.time() - begun == pytest.approx(3, abs=0.01)


@ALL
@pytest.mark.parametrize("work", [False, True])
def test_a_status_instead_of_an_answer(world: MakeWorld, generation: int, work: bool) -> None:
    w = world(generation)
    workflow = w.workflow(WAIT)
    w.core.fault("run_workflow", "status", code=429, retry_after=7, work=work)
    answer = w.client.post(f"/workflows/{workflow}/instances")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")
    assert runs(w) == int(work)


@ALL
def test_a_gateways_page(world: MakeWorld, generation: int) -> None:
    w = world(generation)
    w.core.fault("any", "html", 2)
    for path in ("/_info", "/workflows"):
        answer = w.client.get(path)
        assert (answer.status_code, answer.headers["Content-Type"]) == (502, "text/html")
        assert answer.text.startswith("<html>")
    assert w.client.get("/_info").status_code == 200


@ALL
def test_a_dripping_body(world: MakeWorld, generation: int) -> None:
    w = world(generation)
    workflow = w.workflow(WAIT)
    w.core.fault("get_workflow", "slow", 2, bytes_per_second=10)
    begun = w.clock.time()
    answer = w.client.get(f"/workflows/{workflow}", timeout=1)
    assert w.clock.time() - begun == pytest.approx(len(answer.content) / 10, rel=0.05)
    with pytest.raises(httpx.ReadTimeout):
        w.client.get(f"/workflows/{workflow}", timeout=0.05)


@ALL
def test_a_late_row(world: MakeWorld, generation: int) -> None:
    w = world(generation)
    workflow = w.workflow(WAIT)
    w.core.fault("run_workflow", "late_row", seconds=60)
    answer = w.client.post(f"/workflows/{workflow}/instances")
    assert answer.status_code == 201
    i = answer.json()["data"]["id"]
    assert runs(w) == 1
    assert w.client.get(f"/instances/{i}").status_code in (404, 500)
    assert w.client.get(f"/instances/{i}/history").status_code in (404, 500)
    assert w.event(i).status_code in (404, 500)
    assert w.get("/instances") == []
    w.clock.sleep(60)
    assert w.instance(i)["terminated"] is False
    assert [row["id"] for row in w.get("/instances")] == [i]


@ALL
def test_a_late_row_and_a_lost_answer_can_meet(world: MakeWorld, generation: int) -> None:
    w = world(generation)
    workflow = w.workflow(WAIT)
    w.core.fault("run_workflow", "late_row", seconds=60)
    w.core.fault("run_workflow", "cut_after")
    with pytest.raises(httpx.RemoteProtocolError):
        w.client.post(f"/workflows/{workflow}/instances")
    assert (runs(w), w.get("/instances")) == (1, [])


@ALL
def test_a_ghost(world: MakeWorld, generation: int) -> None:
    w = world(generation)
    workflow = w.workflow(WAIT)
    w.core.fault("run_workflow", "ghost")
    assert w.client.post(f"/workflows/{workflow}/instances").status_code == 500
    assert runs(w) == 0
    w.clock.sleep(3600)
    (ghost,) = w.get("/instances?running=true")
    assert "status" not in w.instance(ghost["id"])
    status = 404 if generation == 3 else 500
    assert w.client.get(f"/instances/{ghost['id']}/history").status_code == status
    assert w.abort(ghost["id"]).status_code == status


@ALL
def test_hidden_messages_unknown_fields_and_shuffled_lists(world: MakeWorld, generation: int) -> None:
    w = world(generation)
    workflow = w.workflow(WAIT)
    ids = [w.run(workflow) for _ in range(12)]
    w.core.fault("get_instance", "hidden")
    assert w.error(w.client.get("/instances/nope"))[2] == "internal server error"
    w.core.fault("get_instance", "unknown_fields")
    shown = w.instance(ids[0])
    assert "fromTheFuture" in shown
    assert "fromTheFuture" in shown["status"][0]
    w.core.fault("list_instances", "shuffled", 5)
    orders = {tuple(row["id"] for row in w.get("/instances")) for _ in range(5)}
    assert len(orders) > 1
    assert {frozenset(order) for order in orders} == {frozenset(ids)}


@ALL
def test_faults_are_taken_in_turn(world: MakeWorld, generation: int) -> None:
    w = world(generation)
    w.core.fault("info", "status", 2, code=503, skip=1)
    w.core.fault("info", "html")
    assert [w.client.get("/_info").status_code for _ in range(5)] == [502, 200, 503, 503, 200]
    w.core.fault("info", "html", -1)
    assert {w.client.get("/_info").status_code for _ in range(5)} == {502}
    w.core.clear_faults()
    assert w.client.get("/_info").status_code == 200


@pytest.mark.parametrize(
    ("operation", "kind", "options"),
    [
        ("nope", "html", {}),
        ("info", "nope", {}),
        ("info", "stall", {"minutes": 1}),
        ("info", "stall", {"seconds": -1}),
        ("info", "stall", {"count": 1.5}),
    ],
)
def test_a_fault_that_does_not_exist_is_refused(
    world: MakeWorld, operation: str, kind: str, options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"nope|minutes|seconds|count"):
        world(2).core.fault(operation, kind, **options)


@ALL
def test_over_a_socket(generation: Any) -> None:
    with EmbeddedServer(generation) as server, httpx.Client(base_url=server.url, timeout=5) as client:
        workflow = client.post("/workflows", json={"stages": [WAIT]}).json()["data"]["id"]
        started = 0
        for kind, runs_more in (("cut_before", 0), ("cut_after", 1), ("truncated", 1)):
            server.fault("run_workflow", kind)
            with pytest.raises(httpx.RemoteProtocolError):
                client.post(f"/workflows/{workflow}/instances")
            started += runs_more
            assert len(server.record().started) == started
        server.fault("get_workflow", "cut_amid")
        with pytest.raises(httpx.TransportError):
            client.get(f"/workflows/{workflow}")
        server.fault("info", "stall", seconds=30)
        with pytest.raises(httpx.ReadTimeout):
            client.get("/_info", timeout=0.1)
        server.fault("info", "slow", bytes_per_second=400)
        begun = time.monotonic()
        assert "version" in client.get("/_info").json()
        assert time.monotonic() > begun
        server.fault("info", "status", code=503, retry_after=1)
        assert client.get("/_info").headers["Retry-After"] == "1"
        assert client.get("/_info").status_code == 200

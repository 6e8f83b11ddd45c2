"""Answers that are not the answer, as a plain client sees them, in process and over a socket."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import time
import tracemalloc
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from orchestration_integrations.server import (
    AsyncInProcessTransport,
    Core,
    EmbeddedServer,
    InProcessTransport,
    Unanswerable,
    VirtualClock,
)
from orchestration_integrations.server.misread import BOM, HOWS, SIGN_IN_PAGE, ZERO_TIME

from .conftest import WAIT, delay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .conftest import World

    MakeWorld = Callable[..., World]

ALL = pytest.mark.parametrize("generation", [1, 2, 3])
LATER = pytest.mark.parametrize("generation", [2, 3])
IN_PLACE = {
    "null": b'{"data":null}',
    "ids": b'{"data":["0b5d"]}',
    "message": b'{"data":{"message":"upstream request timeout"}}',
    "empty_cursor": b'{"cursor":{}}',
    "empty_page": b'{"cursor":{"hasMore":true,"data":[]}}',
    "empty": b"",
    "sign_in": SIGN_IN_PAGE,
}


def misread(w: World, operation: str, how: str, path: str) -> Any:
    """What is read where a list or a thing was asked for; the next answer is whole again."""
    w.core.fault(operation, "misread", how=how)
    answer = w.client.get(path)
    assert answer.status_code == 200
    assert w.client.get(path).json() != answer.json()
    return answer.json()


class TestInPlaceOfAnAnswer:
    @ALL
    @pytest.mark.parametrize("how", IN_PLACE)
    def test_stands_other_content(self, world: MakeWorld, generation: int, how: str) -> None:
        w = world(generation)
        w.workflow(WAIT)
        w.core.fault("list_workflows", "misread", how=how)
        answer = w.client.get("/workflows")
        assert (answer.status_code, answer.content) == (200, IN_PLACE[how])
        kind = "text/html; charset=utf-8" if how == "sign_in" else "application/json"
        assert answer.headers["Content-Type"] == kind

    @ALL
    @pytest.mark.parametrize("how", IN_PLACE)
    def test_also_where_nothing_is_expected(self, world: MakeWorld, generation: int, how: str) -> None:
        w = world(generation)
        i = w.start(WAIT)
        w.core.fault("any", "misread", 3, how=how)
        answers = [w.event(i, "wrong"), w.client.delete(f"/workflows/{w.workflow_of(i)}")]
        if generation != 2:
            answers.append(w.abort(i))
        assert {(a.status_code, a.content) for a in answers} == {(200, IN_PLACE[how])}
        w.clock.sleep(1)
        assert [e["event"] for e in w.core.record().events] == ["wrong"]
        assert w.core.engine.workflows[w.workflow_of(i)].deleted_ns is not None
        assert (w.core.record().aborts != []) is (generation != 2)

    @ALL
    @pytest.mark.parametrize("how", [how for how in HOWS if how not in ("object", "no_filter", "no_next")])
    def test_a_run_is_started_all_the_same(self, world: MakeWorld, generation: int, how: str) -> None:
        w = world(generation)
        workflow = w.workflow(WAIT)
        w.core.fault("run_workflow", "misread", how=how)
        answer = w.client.post(f"/workflows/{workflow}/instances")
        assert answer.status_code == (200 if how == "sign_in" else 201)
        w.clock.sleep(1)
        (started,) = w.core.record().started
        assert started["workflow_id"] == workflow
        assert (answer.content.find(started["instance_id"].encode()) > 0) is (how not in {*IN_PLACE, "other_id"})

    @ALL
    def test_an_error_is_left_alone(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        for how in HOWS:
            w.core.fault("any", "misread", how=how)
            assert w.error(w.client.get("/instances/nope"))[2] == "Instance not found"


class TestContent:
    @ALL
    def test_an_object_for_a_list(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        assert misread_empty(w) == {"data": {}}
        i = w.start(WAIT)
        body = misread(w, "list_instances", "object", "/instances")
        assert (body["data"]["id"], body["data"]["terminated"]) == (i, False)
        history = misread(w, "get_instance_history", "object", f"/instances/{i}/history")
        assert history["data"]["name"] == "RunWaitEvent"

    @LATER
    def test_an_object_for_the_rows_of_a_cursor(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        i = w.start(WAIT)
        cursor = misread(w, "list_instances", "object", "/v2/instances")["cursor"]
        assert (cursor["data"]["id"], cursor["hasMore"]) == (i, False)

    @ALL
    def test_a_list_for_an_object(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        i = w.start(WAIT)
        assert [row["id"] for row in misread(w, "get_instance", "list", f"/instances/{i}")["data"]] == [i]

    @ALL
    def test_another_id(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        i = w.start(WAIT)
        other = misread(w, "get_instance", "other_id", f"/instances/{i}")["data"]
        assert other["id"] != i
        assert len(other["id"]) == len(i)
        assert [row["instanceID"] for row in other["status"]] == [other["id"]]
        workflow = w.workflow_of(i)
        assert misread(w, "get_workflow", "other_id", f"/workflows/{workflow}")["data"]["id"] != workflow

    @ALL
    def test_another_workflow(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        i = w.start(WAIT)
        workflow = w.workflow_of(i)
        shown = misread(w, "get_instance", "other_workflow", f"/instances/{i}")["data"]
        assert shown["id"] == i
        assert shown["workflowID"] != workflow
        (row,) = misread(w, "list_instances", "other_workflow", f"/instances?workflowID={workflow}")["data"]
        assert row["id"] == i
        assert row["workflowID"] != workflow
        assert generation == 1 or row["workflow"]["id"] == row["workflowID"]

    @ALL
    def test_a_list_whose_filters_got_lost(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        mine, other, ended = w.start(WAIT), w.start(WAIT), w.start(delay("1ms"), settle=3)
        path = f"/instances?running=true&workflowID={w.workflow_of(mine)}"
        rows = misread(w, "list_instances", "no_filter", path)["data"]
        assert {row["id"] for row in rows} == {mine, other, ended}
        assert [row["id"] for row in w.get(path)] == [mine]

    @LATER
    def test_more_without_a_next(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        workflow = w.workflow(WAIT)
        for _ in range(3):
            w.run(workflow)
        for path in ("/v2/instances", "/v2/instances?pageSize=2"):
            cursor = misread(w, "list_instances", "no_next", path)["cursor"]
            assert (cursor["hasMore"], "next" in cursor, len(cursor["data"]) > 0) == (True, False, True)

    @ALL
    def test_a_byte_order_mark(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        w.core.fault("info", "misread", how="bom")
        assert w.client.get("/_info").content == BOM + w.client.get("/_info").content

    @ALL
    def test_a_zero_time(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        i = w.start(delay("1ms"), WAIT, settle=3)
        shown = misread(w, "get_instance", "zero_time", f"/instances/{i}")["data"]
        assert (shown["terminated"], shown["terminatedAt"]) == (False, ZERO_TIME)
        ends = {row["stage"]: row["terminatedAt"] for row in shown["status"]}
        assert ends[1] == ZERO_TIME != ends[0]
        history = misread(w, "get_instance_history", "zero_time", f"/instances/{i}/history")["data"]
        assert [entry["terminatedAt"] == ZERO_TIME for entry in history] == [False, True]
        (row,) = misread(w, "list_instances", "zero_time", "/instances")["data"]
        assert row["terminatedAt"] == ZERO_TIME
        workflow = misread(w, "get_workflow", "zero_time", f"/workflows/{w.workflow_of(i)}")["data"]
        assert workflow["deletedAt"] == ZERO_TIME

    @ALL
    def test_an_answer_without_what_would_change_goes_out_as_it_is(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        for how in ("object", "list", "other_id", "other_workflow", "no_filter", "no_next", "zero_time"):
            w.core.fault("any", "misread", how=how)
            assert w.client.get("/_info").json().keys() == {"version"}

    def test_meets_a_late_row(self, world: MakeWorld) -> None:
        w = world(2)
        workflow = w.workflow(WAIT)
        w.core.fault("run_workflow", "late_row", seconds=60)
        w.core.fault("run_workflow", "misread", how="sign_in")
        assert w.client.post(f"/workflows/{workflow}/instances").content == SIGN_IN_PAGE
        assert w.get("/instances") == []
        w.clock.sleep(61)
        assert len(w.get("/instances")) == 1

    def test_a_token_endpoint_can_be_misread_too(self, world: MakeWorld) -> None:
        w = world(2, token="s3cret")
        w.core.fault("token", "misread", how="sign_in")
        form = {"grant_type": "client_credentials", "client_id": "me", "client_secret": "s3cret"}
        assert w.client.post("/api/auth/oauth/token", data=form).content == SIGN_IN_PAGE
        assert w.core.record().tokens == 1


def misread_empty(w: World) -> Any:
    w.core.fault("list_instances", "misread", how="object")
    return w.client.get("/instances").json()


class TestStatuses:
    @pytest.mark.parametrize("code", [507, 529, *range(520, 531)])
    @pytest.mark.parametrize("kind", ["status", "html"])
    def test_that_no_standard_knows(self, world: MakeWorld, kind: str, code: int) -> None:
        w = world(2)
        w.core.fault("info", kind, code=code)
        answer = w.client.get("/_info")
        assert answer.status_code == code
        if kind == "html":
            assert answer.text.startswith(f"<html>\r\n<head><title>{code}")

    def test_a_gateways_page_is_as_before(self, world: MakeWorld) -> None:
        w = world(2)
        w.core.fault("info", "html")
        assert "<title>502 Bad Gateway</title>" in w.client.get("/_info").text


@pytest.mark.parametrize(
    ("kind", "options", "names"),
    [
        ("misread", {}, "how"),
        ("misread", {"how": "upside down"}, "sign_in"),
        ("misread", {"how": ["object"]}, "how"),
        ("status", {"code": 101}, "code"),
        ("status", {"code": 600}, "code"),
        ("html", {"code": "502"}, "code"),
        ("interim", {"code": 101}, "code"),
        ("interim", {"code": 200}, "code"),
        ("interim", {"times": 1.5}, "times"),
        ("slow_head", {"bytes_per_second": "fast"}, "bytes_per_second"),
        ("gzip_bomb", {"megabytes": -1}, "megabytes"),
        ("status", {"work": "yes"}, "work"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    world: MakeWorld, kind: str, options: dict[str, Any], names: str
) -> None:
    with pytest.raises(ValueError, match=names):
        world(2).core.fault("info", kind, **options)


class TestInProcess:
    """There are no bytes of a head: what comes before the body takes its time."""

    @ALL
    def test_a_slow_head(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        w.core.fault("info", "slow_head", 2, bytes_per_second=5)
        begun = w.clock.time()
        with pytest.raises(httpx.ReadTimeout):
            w.client.get("/_info", timeout=1)
        assert w.clock.time() - begun == pytest.approx(1)
        assert w.client.get("/_info", timeout=60).status_code == 200
        assert 15 < w.clock.time() - begun < 60

    @ALL
    def test_informational_answers(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        workflow = w.workflow(WAIT)
        w.core.fault("run_workflow", "interim")
        begun = w.clock.time()
        with pytest.raises(httpx.ReadTimeout):
            w.client.post(f"/workflows/{workflow}/instances", timeout=3)
        assert w.clock.time() - begun == pytest.approx(3)
        assert len(w.core.record().started) == 1
        w.core.fault("info", "interim", times=10, every=0.5)
        begun = w.clock.time()
        assert w.client.get("/_info", timeout=30).status_code == 200
        assert w.clock.time() - begun == pytest.approx(5, abs=0.01)
        w.core.fault("info", "interim")
        with pytest.raises(Unanswerable):
            w.client.get("/_info", timeout=None)

    def test_a_task_waits_no_longer_than_it_wants_to(self) -> None:
        clock = VirtualClock()
        core = Core(2, clock=clock, seed=1)

        async def main() -> float:
            async with httpx.AsyncClient(transport=AsyncInProcessTransport(core, clock), base_url="http://s") as client:
                core.fault("info", "interim")
                begun = clock.time()
                with pytest.raises(httpx.ReadTimeout):
                    await client.get("/_info", timeout=2)
                core.fault("info", "slow_head", bytes_per_second=1000)
                assert (await client.get("/_info", timeout=2)).status_code == 200
                return clock.time() - begun

        assert asyncio.run(main()) == pytest.approx(2.2, abs=0.15)

    @ALL
    def test_a_bomb(self, world: MakeWorld, generation: int) -> None:
        w = world(generation)
        workflow = w.workflow(WAIT)
        w.core.fault("get_workflow", "gzip_bomb", 2, megabytes=3)
        answer = w.client.get(f"/workflows/{workflow}")
        assert (answer.headers["Content-Encoding"], answer.json()["data"]["id"]) == ("gzip", workflow)
        assert len(answer.content) > 3 * 2**20
        assert int(answer.headers["Content-Length"]) < 2**16
        with w.client.stream("GET", f"/workflows/{workflow}") as streamed:
            raw = b"".join(streamed.iter_raw())
        assert gzip.decompress(raw) == answer.content


# ---- over a socket ---------------------------------------------------------------------------------


@contextmanager
def connected(server: EmbeddedServer, request: str) -> Iterator[socket.socket]:
    """A connection on which a request was sent."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            f"{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode()
        )
        yield connection


def received(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    data = b""
    while chunk := connection.recv(65536):
        data += chunk
    return data


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer(2, seed=1) as running:
        yield running


class TestOverASocket:
    def test_informational_answers_without_an_end(self, server: EmbeddedServer) -> None:
        server.fault("info", "interim", every=0.02)
        line = b"HTTP/1.1 102 Processing\r\n\r\n"
        with connected(server, "GET /_info") as connection:
            data = b""
            while len(data) < 10 * len(line):
                data += connection.recv(1024)
        assert data.startswith(line * 10)
        assert (line * 50).startswith(data)

    def test_informational_answers_before_the_real_one(self, server: EmbeddedServer) -> None:
        server.fault("info", "interim", code=103, every=0.001, times=3)
        with connected(server, "GET /_info") as connection:
            data = received(connection)
        assert data.startswith(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 3 + b"HTTP/1.1 200 OK\r\n")
        head, _, body = data.split(b"\r\n\r\n", 3)[3].partition(b"\r\n\r\n")
        assert b"connection: close" in head
        assert json.loads(body) == {"version": "v2.2.0"}
        server.fault("info", "interim", every=0.001, times=3)
        assert httpx.get(f"{server.url}/_info").json() == {"version": "v2.2.0"}

    def test_no_read_timeout_ends_them(self, server: EmbeddedServer) -> None:
        server.fault("info", "interim", every=0.05, times=20)
        begun = time.monotonic()
        assert httpx.get(f"{server.url}/_info", timeout=0.9).status_code == 200
        assert time.monotonic() - begun > 0.9

    def test_a_slow_head(self, server: EmbeddedServer) -> None:
        server.fault("info", "slow_head", bytes_per_second=100)
        begun = time.monotonic()
        with connected(server, "GET /_info") as connection:
            first = connection.recv(1)
            assert first == b"H"
            data = first + received(connection)
        head, _, body = data.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert time.monotonic() - begun > 0.8 * len(head) / 100
        assert json.loads(body) == {"version": "v2.2.0"}

    def test_the_work_is_done_before_a_slow_head(self, server: EmbeddedServer) -> None:
        workflow = httpx.post(f"{server.url}/workflows", json={"stages": [WAIT]}).json()["data"]["id"]
        before = len(server.record().started)
        server.fault("run_workflow", "slow_head", bytes_per_second=10)
        with connected(server, f"POST /workflows/{workflow}/instances") as connection:
            assert connection.recv(1) == b"H"
        assert len(server.record().started) == before + 1

    def test_clients_that_leave_are_forgotten(self, server: EmbeddedServer) -> None:
        for kind, options in (("interim", {"every": 0.01}), ("slow_head", {"bytes_per_second": 50})):
            server.fault("info", kind, **options)
            with connected(server, "GET /_info") as connection:
                connection.recv(10)
        assert httpx.get(f"{server.url}/_info").status_code == 200
        until = time.monotonic() + 20
        while server.core.held and time.monotonic() < until:
            time.sleep(0.02)  # the server hears of it when it writes next
        assert server.core.held == set()

    def test_a_bomb(self, server: EmbeddedServer) -> None:
        server.fault("info", "gzip_bomb", megabytes=1024)
        with connected(server, "GET /_info") as connection:
            data = b""
            while b"\r\n\r\n" not in data:
                data += connection.recv(65536)
            head, _, body = data.partition(b"\r\n\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
            length = int(fields[b"content-length"])
            while len(body) < length:
                body += connection.recv(65536)
        assert fields[b"content-encoding"] == b"gzip"
        assert length < 4 * 2**20
        unpacked, unpacker = 0, zlib.decompressobj(31)
        tracemalloc.start()
        try:
            rest = body
            while rest:
                unpacked += len(unpacker.decompress(rest, 2**24))
                rest = unpacker.unconsumed_tail
            unpacked += len(unpacker.flush())
        finally:
            tracemalloc.stop()
        assert unpacker.eof
        assert unpacked == 2**30 + len('{"version":"v2.2.0"}')

    @pytest.mark.parametrize("code", [507, 520, 530])
    def test_statuses_that_no_standard_knows(self, server: EmbeddedServer, code: int) -> None:
        server.fault("info", "status", code=code)
        with connected(server, "GET /_info") as connection:
            assert received(connection).startswith(f"HTTP/1.1 {code} ".encode())

    def test_a_sign_in_page_where_no_content_is_expected(self, server: EmbeddedServer) -> None:
        workflow = httpx.post(f"{server.url}/workflows", json={"stages": [WAIT]}).json()["data"]["id"]
        server.fault("delete_workflow", "misread", how="sign_in")
        with connected(server, f"DELETE /workflows/{workflow}") as connection:
            data = received(connection)
        assert data.startswith(b"HTTP/1.1 200 OK\r\n")
        assert data.endswith(b"\r\n\r\n" + SIGN_IN_PAGE)

    def test_a_byte_order_mark(self, server: EmbeddedServer) -> None:
        server.fault("info", "misread", how="bom")
        with connected(server, "GET /_info") as connection:
            assert received(connection).endswith(b"\r\n\r\n\xef\xbb\xbf" + b'{"version":"v2.2.0"}')

    def test_over_the_control_calls(self, server: EmbeddedServer) -> None:
        post = f"{server.url}/_control/fault"
        fault = {"operation": "list_workflows", "kind": "misread", "count": 1, "how": "empty_page"}
        assert httpx.post(post, json=fault).status_code == 204
        assert httpx.get(f"{server.url}/workflows").json() == {"cursor": {"hasMore": True, "data": []}}
        refused = httpx.post(post, json={**fault, "how": "nonsense"})
        assert refused.status_code == 400
        assert "how must be one of" in refused.json()["errorMessage"]

    def test_a_stop_does_not_wait_for_a_drip(self) -> None:
        with EmbeddedServer(1) as running:
            running.fault("info", "interim", every=0.01)
            with connected(running, "GET /_info") as connection:
                connection.recv(10)
                begun = time.monotonic()
                running.stop()
        assert time.monotonic() - begun < 5


def test_without_a_known_connection_the_answer_goes_out_whole() -> None:
    """As an ASGI app in a foreign server nothing is known of connections."""
    from orchestration_integrations.server import create_app

    app = create_app(2)
    app.state.core.fault("info", "slow_head")

    async def main() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
            return await client.get("/_info")

    assert asyncio.run(main()).json() == {"version": "v2.2.0"}


def test_the_transport_may_be_shared() -> None:
    clock = VirtualClock()
    core = Core(2, clock=clock, seed=1)
    with httpx.Client(transport=InProcessTransport(core, clock), base_url="http://s") as client:
        core.fault("any", "misread", -1, how="empty")
        assert client.get("/_info").content == b""
        core.clear_faults()
        assert client.get("/_info").json() == {"version": "v2.2.0"}


@pytest.mark.parametrize(("kind", "options"), [("slow_head", {"bytes_per_second": 2}), ("interim", {"every": 0.5})])
def test_a_client_that_leaves_amid_a_head_is_no_crash_of_the_server(
    kind: str, options: dict[str, float], caplog: pytest.LogCaptureFixture
) -> None:
    """Its connection is closed already, so there is none to cut."""
    with EmbeddedServer(2) as server:
        server.fault("info", kind, 1, **options)
        with pytest.raises(httpx.TimeoutException):
            httpx.get(f"{server.url}/_info", timeout=0.3, trust_env=False)
        time.sleep(0.8)  # it looks at its connection every 0.5 s
    assert "Traceback" not in caplog.text

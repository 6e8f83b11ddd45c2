"""Addresses, auth, the token endpoint, the control calls, triggers, and the server's own description."""

from __future__ import annotations

import json
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection
from typing import TYPE_CHECKING

import pytest

from orchestration_integrations.server import EmbeddedServer

from .conftest import WAIT, send

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import World

    MakeWorld = Callable[..., World]

ALL = pytest.mark.parametrize("generation", [1, 2, 3])
TOKEN = "/api/auth/oauth/token"


@ALL
def test_every_path_is_served_at_the_root_and_under_the_base_path(world: MakeWorld, generation: int) -> None:
    w = world(generation)
    workflow = w.workflow(WAIT)
    for base in ("", "/api/orchestration"):
        assert w.client.get(f"{base}/_info").status_code == 200
        assert w.client.get(f"{base}/workflows/{workflow}").json()["data"]["id"] == workflow
        assert w.client.get(f"{base}/v2/workflows").status_code == (404 if generation == 1 else 200)
        assert w.client.get(f"{base}/v2/_info").status_code == 404
        assert w.client.get(f"{base}/nothing").text == "404 page not found\n"
    assert w.client.get("/api/orchestrationx/_info").status_code == 404


@ALL
def test_a_path_with_a_broken_escape_is_refused(generation: int) -> None:
    with EmbeddedServer(generation) as server:
        connection = HTTPConnection(server.url.removeprefix("http://"), timeout=30)
        connection.request("GET", "/workflows/%zz")  # not by httpx, whose versions differ in what they send
        assert connection.getresponse().status == 400
        connection.close()


@ALL
def test_the_date_header_is_the_servers_clock(world: MakeWorld, generation: int) -> None:
    w = world(generation)
    w.core.advance(86400 * 30)
    shown = parsedate_to_datetime(w.client.get("/_info").headers["Date"]).timestamp()
    assert abs(shown - w.clock.time()) <= 1


@ALL
def test_a_token_is_demanded(world: MakeWorld, generation: int) -> None:
    w = world(generation, token="s3cret")
    get = w.client.get
    assert get("/workflows").status_code == 401
    assert get("/workflows", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert get("/workflows", headers={"Authorization": "Basic czNjcmV0"}).status_code == 401
    assert get("/workflows", headers={"Authorization": "Bearer s3cret"}).status_code == 200
    assert get("/_healthcheck").status_code == 200
    form = {"grant_type": "client_credentials", "client_id": "me", "client_secret": "s3cret"}
    issued = w.client.post(TOKEN, data=form).json()
    assert issued["token_type"] == "bearer"
    bearer = {"Authorization": f"Bearer {issued['access_token']}"}
    assert get("/workflows", headers=bearer).status_code == 200
    w.core.advance(issued["expires_in"] + 1)
    assert get("/workflows", headers=bearer).status_code == 401
    assert w.core.record().tokens == 1


def test_the_token_endpoint(world: MakeWorld) -> None:
    w = world(2, token="s3cret")
    form = {"grant_type": "client_credentials", "client_id": "me", "client_secret": "no"}
    assert w.client.post(TOKEN, data=form).status_code == 401
    assert w.client.post(TOKEN, data={"grant_type": "password"}).status_code == 400
    basic = w.client.post(TOKEN, data={"grant_type": "client_credentials"}, auth=("me", "s3cret"))
    assert basic.status_code == 200
    w.core.fault("token", "status", code=503)
    assert w.client.post(TOKEN, data=form).status_code == 503


@ALL
def test_control_calls(world: MakeWorld, generation: int) -> None:
    w = world(generation, token="s3cret")
    post = w.client.post
    w.client.headers["Authorization"] = "Bearer s3cret"
    workflow = w.workflow(send(), {"delay": {"duration": "24h"}})
    del w.client.headers["Authorization"]
    fault = {"operation": "any", "kind": "status", "count": 1, "code": 418}
    assert post("/_control/fault", json=fault).status_code == 204
    assert w.client.get("/workflows").status_code == 418
    assert post("/_control/fault", json={"operation": "nope", "kind": "html"}).status_code == 400
    assert post("/_control/fault", content=b"{").status_code == 400
    w.client.headers["Authorization"] = "Bearer s3cret"
    i = w.run(workflow)
    assert post("/_control/advance", json={"seconds": 90000}).status_code == 204
    assert w.instance(i)["terminated"] is True
    record = w.client.get("/_control/record").json()
    assert [e["instance_id"] for e in record["started"]] == [i]
    assert [e["posting"]["amount"] for e in record["money"]] == [100]
    assert record["requests"]["run_workflow"] == 1
    assert w.client.get("/_control/balances/default/bank").json() == {"USD/2": 100}
    assert w.client.get("/_control/balances/default/world").json() == {"USD/2": -100}
    assert post("/_control/world", json={"what": "workers stopped"}).status_code == 204
    assert post("/_control/world", json={"what": "workers asleep"}).status_code == 400
    assert w.core.engine.parts.up["workers"] is False


@ALL
def test_no_control_calls_unless_asked_for(world: MakeWorld, generation: int) -> None:
    w = world(generation, faults=False)
    for answer in (w.client.get("/_control/record"), w.client.post("/_control/world", json={"what": "engine stopped"})):
        assert answer.status_code == 404
    assert w.core.engine.parts.up["engine"] is True


@ALL
def test_the_description_names_what_is_served(world: MakeWorld, generation: int) -> None:
    w = world(generation)
    paths = w.client.get("/openapi.json").json()["paths"]
    for path, methods in paths.items():
        for method in methods:
            answer = w.client.request(method, path.replace("{", "").replace("}", ""))
            assert answer.status_code != 405, (method, path)
            assert answer.text != "404 page not found\n", (method, path)
    assert ("/v2/triggers" in paths, "/v2/instances" in paths) == (generation > 1, generation > 1)


@ALL
def test_odd_bodies_get_an_answer(world: MakeWorld, generation: int) -> None:
    w = world(generation)
    workflow = w.workflow(WAIT)
    i = w.run(workflow)
    bodies = [b"", b"{", b"[" * 5000, b"\xff\xfe", b'{"stages":{}}', b'"\\ud800"', b"1e999", b"NaN", b"null", b"[null]"]
    bodies += [
        b'{"stages":[null]}',
        b'{"stages":[{"delay":5}]}',
        b'{"stages":[{"send":{"source":{},"destination":{}}}]}',
    ]
    for body in bodies:
        for path in ("/workflows", f"/workflows/{workflow}/instances", f"/instances/{i}/events"):
            for kind in ("application/json", "text/vnd.yaml"):
                answer = w.client.post(path, content=body, headers={"Content-Type": kind})
                assert answer.status_code < (500 if generation == 3 else 501), (path, body)
                assert not answer.content or json.loads(answer.content)


class TestTriggers:
    def test_a_message_starts_a_run_once_per_payment(self, world: MakeWorld) -> None:
        w = world(2)
        workflow = w.workflow({"wait_event": {"event": "${a}"}})
        body = {
            "event": "SAVED_PAYMENT",
            "workflowID": workflow,
            "filter": "event.amount > 100",
            "vars": {"a": "event.id"},
        }
        trigger = w.client.post("/triggers", json=body).json()["data"]
        for payload in ({"id": "p1", "amount": 250}, {"id": "p1", "amount": 250}, {"id": "p2", "amount": 5}):
            w.core.world("publish " + json.dumps({"type": "SAVED_PAYMENT", "payload": payload}))
        w.clock.sleep(1)
        (occurrence,) = w.get(f"/triggers/{trigger['id']}/occurrences")
        assert w.history(occurrence["workflowInstanceID"])[0]["input"] == {"event": "p1"}
        assert len(w.core.record().started) == 1
        tested = w.client.post(f"/v2/triggers/{trigger['id']}/test", json={"amount": 101, "id": 7}).json()["data"]
        assert tested == {"filter": {"match": True}, "variables": {"a": {"value": "7"}}}
        assert w.client.delete(f"/triggers/{trigger['id']}").status_code == 204
        assert w.client.delete(f"/triggers/{trigger['id']}").status_code == 404

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            ({"event": "E", "filter": "event.amount >"}, 400),
            ({"event": "E", "vars": {"a": "event."}}, 400),
            ({"workflowID": "x"}, 400),
            ({"event": "E", "workflowID": "nope"}, 404),
            ({"event": "E", "vars": {"a": 1}}, 500),
        ],
    )
    def test_refusals(self, world: MakeWorld, body: dict[str, object], status: int) -> None:
        w = world(2)
        given = {"workflowID": w.workflow(WAIT), **body}
        assert w.client.post("/triggers", json=given).status_code == status

    def test_generation_1_has_none(self, world: MakeWorld) -> None:
        assert world(1).client.get("/triggers").status_code == 404

    def test_lists(self, world: MakeWorld) -> None:
        w = world(2)
        workflow = w.workflow(WAIT)
        for _ in range(20):
            w.client.post("/triggers", json={"event": "E", "workflowID": workflow})
        assert (len(w.get("/triggers")), len(w.get("/triggers?pageSize=100"))) == (15, 20)
        assert w.client.get("/v2/triggers").json()["cursor"]["hasMore"] is True
        assert w.client.get("/triggers?name=x").status_code == 500
        assert w.get("/triggers/nope/occurrences") == []

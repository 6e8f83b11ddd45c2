"""Who may read the page and who may act through it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration_integrations import OrchestrationHttpHook, Settings
from orchestration_integrations.api.errors import ConfigurationError
from orchestration_integrations.server import EmbeddedServer, create_app
from orchestration_integrations.ui.guard import Guard, foreign_request, origin_of
from orchestration_integrations.ui.serving import PageServer
from tests.ui.flows import PAYOUT, SCRIPT, VARIABLES

TOKEN = "a-token-of-the-server"


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as server:
        yield server


def client(url: str, **headers: str) -> httpx.Client:
    return httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=20)


def run_path(server: EmbeddedServer) -> str:
    with OrchestrationHttpHook(base_url=server.url) as hook:
        workflow = hook.ensure_workflow(PAYOUT, gate=True).workflow
    return f"/_ui/api/workflows/{workflow.id}/runs"


def good_headers(url: str) -> dict[str, str]:
    token = client(url).get("/_ui/api/session").json()["actionToken"]
    return {"origin": url, "x-page-action": token, "content-type": "application/json"}


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": None}, 403),
        ({"x-page-action": None}, 403),
        ({"x-page-action": "guessed"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"host": "evil.example"}, 403),
        ({}, 200),
    ],
)
def test_no_other_web_site_can_act(server: EmbeddedServer, change: dict[str, str | None], status: int) -> None:
    path = run_path(server)
    headers = {name: value for name, value in (good_headers(server.url) | change).items() if value is not None}
    answer = client(server.url).post(path, headers=headers, json={"variables": VARIABLES, "runKey": "k"})
    assert answer.status_code == status, answer.text
    assert len(server.record().started) == (status == 200)


def test_a_name_that_was_pointed_at_this_machine_reads_and_acts_on_nothing(server: EmbeddedServer) -> None:
    path = run_path(server)
    foreign = {"host": "rebound.example:80", "origin": "http://rebound.example:80"}
    assert client(server.url).get("/_ui/api/instances", headers=foreign).status_code == 403
    assert client(server.url).get("/_ui/api/session", headers=foreign).status_code == 403
    assert client(server.url).post(path, headers=good_headers(server.url) | foreign, json={}).status_code == 403


def test_no_other_web_site_can_act_on_the_embedded_servers_own_api(server: EmbeddedServer) -> None:
    path = run_path(server)
    api = path.removeprefix("/_ui/api").replace("/runs", "/instances")
    for headers in ({"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
        assert client(server.url).post(api, headers=headers, json=VARIABLES).status_code == 403
        assert client(server.url).post("/_control/advance", headers=headers, json={"seconds": 1}).status_code == 403
    assert not server.record().started
    assert client(server.url).post(api, headers={"origin": server.url}, json=VARIABLES).status_code == 201
    assert client(server.url).post(api, json=VARIABLES).status_code == 201


def test_with_a_token_the_page_needs_it_too() -> None:
    with EmbeddedServer(token=TOKEN) as server:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": TOKEN}, {"cookie": f"token={TOKEN}"}):
            for path in ("session", "instances", "workflows", "live", "instances/i", "instances/i/live"):
                assert client(server.url, **headers).get(f"/_ui/api/{path}").status_code == 401
        shown = client(server.url)
        assert shown.get("/").status_code == 200
        assert TOKEN not in shown.get("/").text
        signed_in = client(server.url, authorization=f"Bearer {TOKEN}")
        session = signed_in.get("/_ui/api/session").json()
        assert session["problem"] is None
        assert signed_in.get("/_ui/api/instances", headers={"host": "any.example"}).json()["problem"] is None
        acting = {"origin": server.url, "x-page-action": session["actionToken"]}
        assert client(server.url).post("/_ui/api/instances/i/cancel", headers=acting, json={}).status_code == 401


def test_a_page_in_front_of_a_server_only_reads_unless_it_is_allowed_more(server: EmbeddedServer) -> None:
    path = run_path(server)
    with PageServer(Settings(base_url=server.url)) as page:
        session = client(page.url).get("/_ui/api/session").json()
        assert (session["actions"], session["actionToken"]) == (False, None)
        headers = {"origin": page.url, "x-page-action": "", "content-type": "application/json"}
        refused = client(page.url).post(path, headers=headers, json={"variables": VARIABLES, "runKey": "k"})
        assert refused.status_code == 403
        assert "--allow-actions" in refused.json()["message"]
    assert not server.record().started


def test_a_page_for_everybody_needs_a_token(server: EmbeddedServer) -> None:
    with pytest.raises(ConfigurationError, match="give a token, or listen on"):
        PageServer(Settings(base_url=server.url), host="0.0.0.0")


def test_a_servers_credentials_stay_with_the_page() -> None:
    with EmbeddedServer(token=TOKEN) as server:
        settings = Settings(base_url=server.url, client_id="c", client_secret=TOKEN)
        with PageServer(settings, token="of-the-page") as page:
            signed_in = client(page.url, authorization="Bearer of-the-page")
            session = signed_in.get("/_ui/api/session")
            assert session.json()["problem"] is None
            assert TOKEN not in session.text
            assert client(page.url, authorization=f"Bearer {TOKEN}").get("/_ui/api/session").status_code == 401


def test_what_a_server_says_is_data(server: EmbeddedServer) -> None:
    with OrchestrationHttpHook(base_url=server.url) as hook:
        workflow = hook.create_workflow(SCRIPT)
    shown = client(server.url)
    answer = shown.get(f"/_ui/api/workflows/{workflow.id}")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.json()["name"] == SCRIPT["name"]
    policy = shown.get("/").headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


def test_only_named_origins_may_frame_the_page(server: EmbeddedServer) -> None:
    with PageServer(Settings(base_url=server.url), embedders=(origin_of("https://airflow.example/"),)) as page:
        assert "frame-ancestors https://airflow.example" in client(page.url).get("/").headers["content-security-policy"]


@pytest.mark.parametrize("text", ["airflow.example", "https://a.example/path", "https://a b", "https://a;b", "*", ""])
def test_an_origin_has_to_be_one(text: str) -> None:
    with pytest.raises(ConfigurationError, match="embed_in"):
        origin_of(text)


def test_nothing_outside_the_pages_own_files_is_served(server: EmbeddedServer) -> None:
    shown = client(server.url)
    for path in ("/_ui/../page.py", "/_ui/%2e%2e/page.py", "/_ui/..%2fpage.py", "/_ui/static/app.js", "/_ui/"):
        assert shown.get(path).status_code in (404, 405)
    scripts = shown.get("/_ui/app.js")
    assert scripts.headers["content-type"].startswith("text/javascript")
    assert "content-security-policy" in scripts.headers


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "[::1]:8080", "10.0.0.7:8080", "app.localhost"])
def test_addresses_and_localhost_are_this_machine(host: str) -> None:
    assert Guard(token=None, actions=False).refusal("GET", {"host": host}) is None


@pytest.mark.parametrize(
    "host", ["", "evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "[", "10.0.0.7.x"]
)
def test_other_names_are_not(host: str) -> None:
    refusal = Guard(token=None, actions=False).refusal("GET", {"host": host})
    assert refusal is not None
    assert refusal.status == 403


def test_programs_send_no_origin_and_are_not_foreign() -> None:
    assert foreign_request({"host": "127.0.0.1:8080"}) is None
    assert foreign_request({"host": "127.0.0.1:8080", "origin": "http://127.0.0.1:8080"}) is None
    assert foreign_request({"host": "127.0.0.1:8080", "origin": "http://127.0.0.1:8081"}) is not None
    assert foreign_request({"host": "", "origin": "null"}) is not None


# ---- blank tokens ------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["", " ", "\t\n"])
def test_a_blank_token_opens_nothing(token: str) -> None:
    with pytest.raises(ConfigurationError, match="token: is blank"):
        PageServer(Settings(base_url="http://127.0.0.1:1"), host="0.0.0.0", token=token)
    with pytest.raises(ConfigurationError, match="token: is blank"):
        Guard(token=token, actions=True)
    for make in (EmbeddedServer, create_app):
        with pytest.raises(ValueError, match="token: is blank"):
            make(2, token=token)


@given(st.text(" \t\n", max_size=3), st.text(" \t\n", max_size=3), st.sampled_from(["Bearer", "bearer", "Basic", ""]))
def test_only_the_token_itself_is_the_token(before: str, after: str, scheme: str) -> None:
    guard = Guard(token=f"{before}a-token{after}", actions=False)

    def status(given: str) -> int:
        refusal = guard.refusal("GET", {"authorization": f"{scheme} {given}", "host": "evil.example"})
        return 200 if refusal is None else refusal.status

    right = scheme.lower() == "bearer"
    assert status("a-token") == (200 if right else 401)
    assert status("") == status(" ") == status("a-toke") == status("other") == 401


def test_outer_blanks_of_a_servers_token_do_not_count() -> None:
    with EmbeddedServer(token=f" {TOKEN}\n") as server:
        assert client(server.url, authorization=f"Bearer {TOKEN}").get("/workflows").status_code == 200
        assert client(server.url, authorization=f"Bearer {TOKEN}").get("/_ui/api/session").status_code == 200
        assert client(server.url, authorization="Bearer").get("/workflows").status_code == 401


# ---- names of this machine ----------------------------------------------------------------------------


def test_a_rebound_name_reads_and_acts_on_nothing_of_the_embedded_servers_api(server: EmbeddedServer) -> None:
    api = run_path(server).removeprefix("/_ui/api").replace("/runs", "/instances")
    foreign = {"host": "rebound.example", "origin": "http://rebound.example"}
    shown = client(server.url)
    assert shown.post(api, headers=foreign, json=VARIABLES).status_code == 403
    assert shown.post(api, headers={"host": "rebound.example"}, json=VARIABLES).status_code == 403
    assert shown.get("/workflows", headers=foreign).status_code == 403
    assert shown.post("/_control/advance", headers=foreign, json={"seconds": 1}).status_code == 403
    assert "--allow-host" in shown.get("/workflows", headers=foreign).json()["errorMessage"]
    assert not server.record().started


@pytest.mark.parametrize("host", ["localhost:8080", "localhost", "127.0.0.1", "127.0.0.1:1", "[::1]:1", "10.0.0.7:80"])
def test_a_plain_client_of_this_machine_is_served(server: EmbeddedServer, host: str) -> None:
    for path in ("/workflows", "/_ui/api/session"):
        assert client(server.url).get(path, headers={"host": host}).status_code == 200


def test_a_name_that_was_allowed_is_served() -> None:
    asked = {"host": "Orchestration.internal:8080"}
    with EmbeddedServer(allow_hosts=("orchestration.internal",)) as server:
        for path in ("/workflows", "/_ui/api/session"):
            assert client(server.url).get(path, headers=asked).status_code == 200
            assert client(server.url).get(path, headers={"host": "other.internal"}).status_code == 403
        with PageServer(Settings(base_url=server.url), hosts=("orchestration.internal",)) as page:
            assert client(page.url).get("/_ui/api/session", headers=asked).status_code == 200
            assert client(page.url).get("/_ui/api/session", headers={"host": "other.internal"}).status_code == 403


def test_whoever_carries_the_token_may_use_any_name() -> None:
    with EmbeddedServer(token=TOKEN) as server:
        shown = client(server.url, host="any.example")
        assert shown.get("/workflows", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
        assert shown.get("/workflows", headers={"authorization": "Bearer wrong"}).status_code == 403
        assert shown.post("/_control/advance", json={"seconds": 1}).status_code == 403
        assert client(server.url).post("/_control/advance", json={"seconds": 1}).status_code in (200, 204)


def test_a_server_for_everybody_answers_to_any_name() -> None:
    with EmbeddedServer(host="0.0.0.0") as server:
        address = server.url.replace("0.0.0.0", "127.0.0.1")
        assert client(address).get("/workflows", headers={"host": "orchestration:8080"}).status_code == 200
        assert client(address).get("/_ui/api/session", headers={"host": "orchestration:8080"}).status_code == 403

"""What the environment says: what is given explicitly wins, and what cannot be used is a clear error (group U)."""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestration_integrations import ConfigurationError, Settings
from orchestration_integrations.http_hook import proxies
from tests.conftest import open_hook
from tests.scripted import Got, ScriptedServer, instance, respond
from tests.tunnels import TlsServer, make_certificate

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


# ---- explicit arguments -----------------------------------------------------------------------------


def test_what_is_given_wins_also_where_it_is_the_default(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """U2: ``verify=True`` and ``timeout=10.0`` lost to the environment."""
    monkeypatch.setenv("ORCHESTRATION_URL", "https://o.example")
    monkeypatch.setenv("ORCHESTRATION_VERIFY", "false")
    monkeypatch.setenv("ORCHESTRATION_TIMEOUT", "3")
    monkeypatch.setenv("ORCHESTRATION_API_VERSION", "v2")
    hook = open_hook(kind, verify=True, timeout=10.0, api_version="auto")
    assert (hook.settings.verify, hook.settings.timeout, hook.settings.api_version) == (True, 10.0, "auto")
    assert hook.settings.base_url == "https://o.example"
    assert open_hook(kind).settings.timeout == 3.0


def test_all_settings_can_be_given(kind: str) -> None:
    """U2."""
    given: dict[str, Any] = {"scope": "a b", "retry_budget": 7.0, "max_connections": 3, "timeout": 2.0}
    hook = open_hook(kind, base_url="http://localhost", client_id="c", client_secret="s", **given)
    assert {name: getattr(hook.settings, name) for name in given} == given


def test_credentials_that_are_given_replace_those_of_the_environment(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATION_URL", "https://o.example")
    monkeypatch.setenv("ORCHESTRATION_CLIENT_ID", "c")
    monkeypatch.setenv("ORCHESTRATION_CLIENT_SECRET", "s")
    hook = open_hook(kind, token="t")
    assert (hook.settings.token, hook.settings.client_id) == ("t", None)


def test_settings_and_fields_are_not_mixed(kind: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_hook(kind, Settings(base_url="http://localhost"), timeout=10.0)
    assert caught.value.field == "timeout"


# ---- proxies ------------------------------------------------------------------------------------------


def through(proxy: ScriptedServer) -> list[str]:
    return [got.target for got in proxy.got]


def test_a_proxy_is_used(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer(lambda got: respond(200, instance())) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        assert open_hook(kind, base_url="http://orchestration.example").get_instance("i").id == "i"
        assert through(proxy) == ["http://orchestration.example/instances/i"]


def test_no_proxy_names_hosts_that_are_reached_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "inside.example,.corp.example")
    for host, by_proxy in {"o.example": True, "inside.example": False, "a.corp.example": False}.items():
        assert (proxies.proxy_for(httpx.URL(f"https://{host}/x")) is not None) is by_proxy


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "o.localhost"])
def test_this_machine_is_never_reached_by_a_proxy(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """U6."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://proxy.example:3128")
    assert proxies.proxy_for(httpx.URL(f"http://{host}:8080/x")) is None


def test_a_server_on_loopback_answers_beside_a_proxy(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """U6."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with ScriptedServer(lambda got: respond(200, instance())) as server:
        assert open_hook(kind, base_url=server.url).get_instance("i").id == "i"


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("HTTP_PROXY", "http://", "HTTP_PROXY is no address"),
        ("HTTP_PROXY", "ftp://proxy.example", "HTTP_PROXY is no address"),
        ("ALL_PROXY", "http://proxy.example:port", "ALL_PROXY is no address"),
    ],
)
def test_a_proxy_that_is_none_is_a_clear_error(
    kind: str, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, says: str
) -> None:
    """U1."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=says) as caught:
        open_hook(kind, base_url="http://orchestration.example").get_instance("i")
    assert caught.value.field == "proxy"


def test_a_socks_proxy_without_its_package_is_a_clear_error(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """U1: a raw ImportError."""
    monkeypatch.setenv("ALL_PROXY", "socks5://proxy.example:1080")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="socksio") as caught:
        open_hook(kind, base_url="http://orchestration.example").send_event("i", "go")
    assert caught.value.field == "proxy"


# ---- certificates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_missing_bundle_is_a_clear_error(kind: str, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """U1: a raw FileNotFoundError."""
    monkeypatch.setenv(variable, "/nonexistent/bundle.pem")
    with pytest.raises(ConfigurationError, match=variable) as caught:
        open_hook(kind, base_url="https://127.0.0.1:1").get_instance("i")
    assert caught.value.field == "verify"


def test_a_missing_bundle_does_not_matter_without_tls(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """U1."""
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent/bundle.pem")
    with ScriptedServer(lambda got: respond(200, instance())) as server:
        assert open_hook(kind, base_url=server.url).get_instance("i").id == "i"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of its own authority, for 127.0.0.1."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_the_environment_may_name_the_authorities(
    kind: str, monkeypatch: pytest.MonkeyPatch, certificate: Path, variable: str
) -> None:
    with TlsServer(certificate) as server:
        url = server.url.replace("http:", "https:")
        monkeypatch.setenv(variable, str(certificate / "cert.pem"))
        assert open_hook(kind, base_url=url, own_connections=True).get_instance("i").id == "i"


def test_verify_wins_over_the_environment(kind: str, monkeypatch: pytest.MonkeyPatch, certificate: Path) -> None:
    with TlsServer(certificate) as server:
        url = server.url.replace("http:", "https:")
        monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent/bundle.pem")
        for verify in (str(certificate / "cert.pem"), False):
            assert open_hook(kind, base_url=url, verify=verify).get_instance("i").id == "i"


def test_a_certificate_that_is_not_trusted_is_told_at_once(kind: str, certificate: Path) -> None:
    """T9: six tries, and no hint."""
    with TlsServer(certificate) as server:
        url = server.url.replace("http:", "https:")
        with pytest.raises(ConfigurationError, match="set verify to the path") as caught:
            open_hook(kind, base_url=url, own_connections=True).run_workflow("w")
        assert caught.value.field == "verify"
        assert server.handshakes == 1
        assert server.got == []


# ---- the rest ---------------------------------------------------------------------------------------------


def test_netrc_is_not_read(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials come from the settings alone."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login somebody password geheim\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    seen: list[Got] = []

    def answer(got: Got) -> Any:
        seen.append(got)
        return respond(200, instance())

    with ScriptedServer(answer) as server:
        open_hook(kind, base_url=server.url).get_instance("i")
    assert "authorization" not in seen[0].headers


def test_a_host_that_is_not_ascii_is_reached_by_its_encoded_name(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """U1: a raw UnicodeEncodeError."""
    seen: list[Got] = []

    def answer(got: Got) -> Any:
        seen.append(got)
        return respond(200, instance())

    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        text = host.decode() if isinstance(host, bytes) else host
        return real("127.0.0.1" if text == "xn--bcher-kva.example" else host, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with ScriptedServer(answer) as server:
        port = server.url.rsplit(":", 1)[1]
        hook = open_hook(kind, base_url=f"http://bücher.example:{port}", retry_budget=1)
        assert hook.get_instance("i").id == "i"
    assert seen[0].headers["host"] == f"xn--bcher-kva.example:{port}"

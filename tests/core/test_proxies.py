"""A proxy stands between: what was sent, how long it takes, whom an error names (http, https and SOCKS proxies)."""

from __future__ import annotations

import base64
import socket
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import pytest

from orchestration_integrations import (
    AmbiguousRunError,
    ConfigurationError,
    OrchestrationHttpHook,
    Settings,
    TransportError,
)
from orchestration_integrations.api.errors import may_have_left
from tests.conftest import open_hook
from tests.scripted import Got, ScriptedServer, cut, instance, respond
from tests.tunnels import HOST, TlsServer, TunnelProxy, make_certificate

SLACK = 2.5
"""Seconds that a busy machine may add."""
PASSWORD = "PASSWORD77"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def hook_of(kind: str, certificate: Path) -> Any:
    """Opens a hook that trusts the certificate and reaches HOST, or another server, in 1.5 seconds."""

    def opened(scheme: str = "https", **options: Any) -> Any:
        given = {"timeout": 1.5, "retry_budget": 1.6, "verify": str(certificate / "cert.pem"), **options}
        return open_hook(kind, Settings(base_url=f"{scheme}://{HOST}", **given), own_connections=True)

    return opened


def with_password(proxy: Any) -> str:
    return str(proxy.url).replace("://", f"://bob:{PASSWORD}@")


# ---- TLS within TLS -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [10, 300_000])
def test_a_tls_server_is_reached_behind_a_tls_proxy(
    hook_of: Any, monkeypatch: pytest.MonkeyPatch, certificate: Path, length: int
) -> None:
    """The authority that ``verify`` names counts for both. The blocking hook let the proxy read the token."""

    def answer(got: Got) -> Any:
        return respond(200, instance(error="x" * length)) if got.method == "GET" else respond(204)

    with TlsServer(certificate, answer) as server, TunnelProxy(server, tls=certificate) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        hook = hook_of(timeout=10, token=PASSWORD)
        assert hook.get_instance("i").error == "x" * length
        assert hook.get_instance("i").id == "i"
        hook.send_event("i", "e" * length)
        assert len(server.got[-1].body) > length
        assert server.got[-1].headers["authorization"] == f"Bearer {PASSWORD}"
        assert PASSWORD.encode() not in proxy.carried
        assert all(head.startswith(f"CONNECT {HOST}:443 ".encode()) for head in proxy.heads)


@pytest.mark.parametrize("outer", [True, False])
def test_a_handshake_that_drips_through_a_proxy_keeps_the_time(
    hook_of: Any, monkeypatch: pytest.MonkeyPatch, certificate: Path, outer: bool
) -> None:
    """Each byte of it had the whole time again: ``cancel(timeout=1)`` took 70 s."""
    with (
        TlsServer(certificate) as server,
        TunnelProxy(server, tls=certificate if outer else None, every=0.05) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        began = time.monotonic()
        assert hook_of(timeout=10).cancel("i", timeout=0.5).status == "not_confirmed"
        assert time.monotonic() - began < 0.5 + SLACK
        with pytest.raises(TransportError, match=f"https://{HOST} could not be reached: ConnectTimeout") as caught:
            hook_of().run_workflow("w")
        assert not caught.value.sent
        assert server.got == []


@pytest.mark.parametrize("outer", [True, False])
def test_a_certificate_behind_a_proxy_is_checked_for_the_servers_name(
    kind: str, monkeypatch: pytest.MonkeyPatch, certificate: Path, outer: bool
) -> None:
    with TlsServer(certificate) as server, TunnelProxy(server, tls=certificate if outer else None) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        hook = open_hook(kind, base_url="https://other.example", verify=str(certificate / "cert.pem"))
        with pytest.raises(ConfigurationError, match="the server's certificate") as caught:
            hook.run_workflow("w")
        assert caught.value.field == "verify"
        assert not may_have_left(caught.value)


def test_verify_counts_for_a_tls_proxy_of_a_plain_server(
    kind: str, monkeypatch: pytest.MonkeyPatch, certificate: Path
) -> None:
    """Its certificate was checked with the authorities of certifi, whatever the settings said."""
    with TlsServer(certificate) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("http:", "https:"))
        for verify in (str(certificate / "cert.pem"), False):
            assert open_hook(kind, base_url=f"http://{HOST}", verify=verify).get_instance("i").id == "i"
        with pytest.raises(ConfigurationError, match=r"the proxy https://127.0.0.1:\d+ \(HTTP_PROXY\)") as caught:
            open_hook(kind, base_url=f"http://{HOST}", own_connections=True).get_instance("i")
        assert caught.value.field == "verify"


# ---- what was sent --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_run_whose_tunnel_never_stood_was_not_sent(
    hook_of: Any, monkeypatch: pytest.MonkeyPatch, certificate: Path, scheme: str
) -> None:
    """The bytes of CONNECT counted as sent: a run was unknown that had not left."""
    head = b"HTTP/1.1 200 OK\r\n" + b"X-Filler: abc\r\n" * 40
    with TunnelProxy(answer=head, slowly=0.05, tls=certificate if scheme == "https" else None) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", with_password(proxy))
        with pytest.raises(TransportError) as caught:
            hook_of().run_workflow("w")
        assert not caught.value.sent
        assert f"{proxy.url} (HTTPS_PROXY)" in str(caught.value)
        assert HOST not in str(caught.value)
        assert PASSWORD not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_run_that_went_through_a_tunnel_may_have_started(
    hook_of: Any, monkeypatch: pytest.MonkeyPatch, certificate: Path, scheme: str
) -> None:
    with (
        TlsServer(certificate, lambda got: cut) as server,
        TunnelProxy(server, tls=certificate if scheme == "https" else None) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(AmbiguousRunError):
            hook_of().run_workflow("w")
        assert [got.method for got in server.got].count("POST") == 1


def test_a_run_that_a_proxy_was_handed_may_have_started(hook_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer(lambda got: cut) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        with pytest.raises(AmbiguousRunError):
            hook_of("http").run_workflow("w")


def test_what_a_socks_proxy_is_asked_is_no_request(hook_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("socksio")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peers: list[socket.socket] = []

        def serve() -> None:
            peer, _ = listener.accept()
            peers.append(peer)
            peer.recv(100)
            peer.sendall(b"\x05\x00")
            peer.recv(100)
            peer.sendall(b"\x05\x04\x00\x01\x00\x00\x00\x00\x00\x00")  # the host cannot be reached

        threading.Thread(target=serve, daemon=True).start()
        place = f"127.0.0.1:{listener.getsockname()[1]}"
        monkeypatch.setenv("ALL_PROXY", f"socks5://{place}")
        with pytest.raises(TransportError) as caught:
            hook_of("http", retry_budget=0.5).run_workflow("w")
        assert not caught.value.sent
        assert f"the proxy socks5://{place} (ALL_PROXY)" in str(caught.value)
        for peer in peers:
            peer.close()


# ---- whom an error names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_away_is_named(hook_of: Any, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv(f"{scheme.upper()}_PROXY", f"http://bob:{PASSWORD}@127.0.0.1:{port}")
    with pytest.raises(TransportError) as caught:
        hook_of(scheme).run_workflow("w")
    assert not caught.value.sent
    assert f"the proxy http://127.0.0.1:{port} ({scheme.upper()}_PROXY)" in str(caught.value)
    assert HOST not in str(caught.value)
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("status", [407, 502])
def test_a_refusing_proxy_is_named_and_never_quoted(hook_of: Any, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    reason = f"Denied for bob:{PASSWORD}".encode()
    with TunnelProxy(answer=b"HTTP/1.1 %d %s\r\nContent-Length: 0\r\n\r\n" % (status, reason)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", with_password(proxy))
        with pytest.raises((ConfigurationError, TransportError), match=f"status {status}") as caught:
            hook_of().run_workflow("w")
        assert isinstance(caught.value, ConfigurationError) is (status == 407)
        assert not may_have_left(caught.value)
        assert f"{proxy.url} (HTTPS_PROXY)" in str(caught.value)
        assert PASSWORD not in "".join(traceback.format_exception(caught.value))
        assert PASSWORD in base64.b64decode(proxy.heads[0].split(b"Basic ")[1].split(b"\r\n")[0]).decode()


def test_a_proxy_that_hands_nothing_on_is_not_taken_for_the_server(
    hook_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its 407 was the server's refusal."""

    def answer(got: Got) -> Any:
        return lambda peer, _: peer.sendall(
            f"HTTP/1.1 407 {PASSWORD}\r\nContent-Length: {len(PASSWORD)}\r\n\r\n{PASSWORD}".encode()
        )

    with ScriptedServer(answer) as proxy:
        monkeypatch.setenv("HTTP_PROXY", with_password(proxy))
        with pytest.raises(ConfigurationError, match="status 407") as caught:
            hook_of("http").run_workflow("w")
        assert caught.value.field == "proxy"
        assert not may_have_left(caught.value)
        assert f"{proxy.url} (HTTP_PROXY)" in str(caught.value)
        assert PASSWORD not in "".join(traceback.format_exception(caught.value))
        assert len(proxy.got) == 1


def test_what_is_no_http_is_not_quoted(kind: str) -> None:
    """It can be what was sent: h11 tells the line that it could not read."""

    def answer(got: Got) -> Any:
        text = b"HTTP/1.1 200 OK\r\nBad Header %s\r\n\r\n" % got.headers["authorization"].encode()
        return lambda peer, _: peer.sendall(text)

    with ScriptedServer(answer) as server:
        with pytest.raises(TransportError, match="RemoteProtocolError: illegal header line") as caught:
            open_hook(kind, base_url=server.url, token=PASSWORD, retry_budget=0.5).get_instance("i")
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))


# ---- what is no proxy -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        "http://127.0.0.1:0",
        "http://my proxy:80",
        "http://a..b:3128",
        f"http://{'a' * 70}.example:3128",
        "http://[::1",
        "http://[::g]:80",
        "127.0.0.1:port",
        "http://127.0.0.1.5:80",
        "socks5://127.0.0.1:99999",
        "socks4://127.0.0.1:1080",
        "http://proxy.example:3128?x=1",
        "http://bob:12#geheim@proxy.example:80",
        "http://bob:12/geheim@proxy.example:80",
        "http://bob:12?geheim@proxy.example:80",
        "http://bob:ge@heim@proxy.example:80",
    ],
)
def test_what_is_no_proxy_is_refused_by_its_variable(hook_of: Any, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HTTP_PROXY", value)
    with pytest.raises(ConfigurationError, match="HTTP_PROXY is no address of a proxy") as caught:
        hook_of("http").run_workflow("w")
    assert caught.value.field == "proxy"
    assert "heim" not in "".join(traceback.format_exception(caught.value))


def test_a_port_that_is_too_large_is_no_other_port(hook_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system takes it modulo 65536: whoever listened there got the request and its token."""
    with ScriptedServer(lambda got: respond(200, instance())) as server:
        port = int(server.url.rsplit(":", 1)[1])
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port + 65536}")
        with pytest.raises(ConfigurationError) as caught:
            hook_of("http", token="t").get_instance("i")
        assert caught.value.field == "proxy"
        assert server.got == []
    with pytest.raises(ConfigurationError):
        Settings(base_url="http://127.0.0.1:0")


@pytest.mark.parametrize("spelling", ["{url}/", " {url} ", "{place}", "http://bob:p%40ss@{place}"])
def test_a_proxy_may_be_written_in_several_ways(hook_of: Any, monkeypatch: pytest.MonkeyPatch, spelling: str) -> None:
    with ScriptedServer(lambda got: respond(200, instance())) as proxy:
        monkeypatch.setenv("HTTP_PROXY", spelling.format(url=proxy.url, place=proxy.url.removeprefix("http://")))
        assert hook_of("http").get_instance("i").id == "i"
        if "bob" in spelling:
            sent = proxy.got[0].headers["proxy-authorization"].removeprefix("Basic ")
            assert base64.b64decode(sent) == b"bob:p@ss"


# ---- a client certificate ---------------------------------------------------------------------------------------


def test_an_encrypted_key_is_refused_and_nobody_is_asked(certificate: Path) -> None:
    """OpenSSL asked for the password on the terminal, and waited there, while it held a lock."""
    code = textwrap.dedent("""
        import sys
        from orchestration_integrations import ConfigurationError, OrchestrationHttpHook
        try:
            OrchestrationHttpHook(base_url="https://127.0.0.1:1", cert=tuple(sys.argv[1:])).get_instance("i")
        except ConfigurationError as error:
            print(error.field, error)
    """)
    files = [str(certificate / name) for name in ("cert.pem", "secret.pem")]
    done = subprocess.run(
        [sys.executable, "-c", code, *files], capture_output=True, text=True, timeout=60, input="geheim\n"
    )
    assert done.stdout.startswith("cert cert: the key of the client certificate is encrypted")
    assert "pass phrase" not in done.stdout + done.stderr


def test_a_client_certificate_is_for_the_server_alone(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestration_integrations.http_hook import tls

    shown: list[bool] = []
    real = tls.ssl_context

    def noted(settings: Settings, *, cert: bool = True) -> Any:
        shown.append(cert)
        return real(settings, cert=cert)

    monkeypatch.setattr(tls, "ssl_context", noted)
    files = (str(certificate / "cert.pem"), str(certificate / "key.pem"))
    with TlsServer(certificate) as server, TunnelProxy(server, tls=certificate) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        settings = Settings(base_url=f"https://{HOST}", cert=files, verify=files[0])
        assert OrchestrationHttpHook(settings, own_connections=True).get_instance("i").id == "i"
    assert shown == [True, False]

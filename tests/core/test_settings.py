"""One normaliser for every way in: addresses, strict coercion, and secrets that stay inside."""

import os
import pickle

import httpx
import pytest
from hypothesis import given as drawn
from hypothesis import settings as drawing
from hypothesis import strategies as st

from orchestration_integrations import ConfigurationError, OrchestrationHttpHook, Settings
from orchestration_integrations.api import calls
from orchestration_integrations.clock import SYSTEM_CLOCK
from orchestration_integrations.http_hook.exchange import Deadline, Exchange

URLS = [
    ("https://api.example.com", "https://api.example.com"),
    ("https://api.example.com/", "https://api.example.com"),
    ("https://api.example.com/api/orchestration", "https://api.example.com/api/orchestration"),
    ("https://api.example.com/api/orchestration///", "https://api.example.com/api/orchestration"),
    ("https://api.example.com//api//orchestration", "https://api.example.com/api/orchestration"),
    ("api.example.com", "https://api.example.com"),
    ("api.example.com:8443/api/orchestration", "https://api.example.com:8443/api/orchestration"),
    ("HTTPS://API.Example.COM/Api", "https://api.example.com/Api"),
    ("https://api.example.com:443/x", "https://api.example.com/x"),
    ("http://api.example.com:80", "http://api.example.com"),
    ("http://api.example.com:8080", "http://api.example.com:8080"),
    ("localhost:3068", "http://localhost:3068"),
    ("127.0.0.1:3068/api/orchestration/", "http://127.0.0.1:3068/api/orchestration"),
    ("http://[::1]:8080/x/", "http://[::1]:8080/x"),
    ("::1", "http://[::1]"),
    ("[2001:db8::1]:8080", "https://[2001:db8::1]:8080"),
    ("  https://api.example.com  ", "https://api.example.com"),
    ("https://Bücher.example/x", "https://xn--bcher-kva.example/x"),
    ("http://straße.example:8080", "http://xn--strae-oqa.example:8080"),
    ("https://api_1.example.com.", "https://api_1.example.com."),
    ("fe80::1%25eth0", "https://[fe80::1%25eth0]"),
]


@pytest.mark.parametrize(("given", "expected"), URLS)
def test_base_url(given, expected):
    assert Settings(base_url=given).base_url == expected


@pytest.mark.parametrize(("given", "expected"), URLS)
def test_an_id_cannot_leave_its_path(given, expected):
    settings = Settings(base_url=given)
    exchange = Exchange(settings, SYSTEM_CLOCK)
    for odd, encoded in [
        ("a/b", "a%2Fb"),
        ("../x", "..%2Fx"),
        ("..", "%2E%2E"),
        ("a?b#c d", "a%3Fb%23c%20d"),
        ("%2e%2e", "%252e%252e"),
        ("é", "%C3%A9"),
    ]:
        request = exchange.request(calls.get_instance(odd), Deadline(SYSTEM_CLOCK, 0))
        path = expected.split("://", 1)[1].partition("/")[2]
        wanted = ("/" + path if path else "") + f"/instances/{encoded}"
        assert request.url.raw_path.decode() == wanted


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "   ",
        "ftp://x",
        "https://",
        "https://user:geheim@x",
        "https://x?y=1",
        "https://x#y",
        "https://x/a/../b",
        "https://x:port",
        "https://x:99999",
        "https://[::g]",
        "https://x/api/orchestration/v2",
        "https://x y",
        "https://x/a\x7fb",
        "https://x\x85/a",
        "https://x/a\u200bb",
        "https://x/\ud800",
        "https://x\\y/a",
        "https://a..b",
        "https://-a.example",
        f"https://{'a' * 64}.example",
        "https://a%20b",
        "https://a|b",
        "https://☃☃..example",
        "https://1.2.3.400",
        "https://[::1]x",
        "https://x/a/%2e%2E/b",
        None,
        5,
    ],
)
def test_a_bad_address_names_the_field_and_not_the_password(bad):
    with pytest.raises(ConfigurationError) as caught:
        Settings(base_url=bad)
    assert caught.value.field == "base_url"
    assert "base_url" in str(caught.value)
    assert "geheim" not in str(caught.value)


@drawing(max_examples=400, deadline=None)
@drawn(st.text(st.characters(), min_size=1, max_size=20) | st.text("ab.:/[]%@?#é\x7f-_1 ", min_size=1, max_size=20))
def test_what_is_taken_as_an_address_can_be_sent_to(text):
    """U1: an address is refused by name, or a request to it can be written on the wire."""
    try:
        address = Settings(base_url=text).base_url
    except ConfigurationError as refused:
        address, field = None, refused.field
    if address is None:
        assert field == "base_url"
        return
    request = httpx.Request("GET", f"{address}/instances/x")
    assert request.url.raw_host.isascii()
    assert request.url.raw_path.endswith(b"/instances/x")
    assert all(value.isascii() for pair in request.headers.raw for value in pair)
    assert Settings(base_url=address).base_url == address


def test_token_url_is_the_stacks_own():
    assert Settings(base_url="https://x:8443/api/orchestration").token_url == "https://x:8443/api/auth/oauth/token"
    assert Settings(base_url="x", token_url="https://auth/y").token_url == "https://auth/y"


@pytest.mark.parametrize(
    ("text", "value"), [("false", False), ("False", False), ("0", False), ("no", False), ("true", True), ("1", True)]
)
def test_booleans_are_read_as_written(text, value):
    assert Settings(base_url="x", verify=text).verify is value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("verify", "maybe"),
        ("verify", "/no/such/bundle.pem"),
        ("verify", 3),
        ("cert", "/no/such/cert.pem"),
        ("cert", ("a", "b", "c")),
        ("timeout", "soon"),
        ("timeout", 0),
        ("timeout", -1),
        ("timeout", True),
        ("timeout", float("nan")),
        ("retry_budget", "inf"),
        ("max_connections", 0),
        ("max_connections", "2.5"),
        ("api_version", "v3"),
        ("token", 5),
        ("token", "**********"),
        ("token", "sch\nlüssel"),
        ("client_id", "only"),
        ("client_secret", "only"),
        ("client_id", "a\nb"),
        ("client_secret", "a\ud800"),
        ("scope", "read\x7f"),
        ("cert", "."),
        ("cert", ("/no/such/cert.pem", "/no/such/key.pem")),
    ],
)
def test_strict_coercion_names_the_field(field, value):
    with pytest.raises(ConfigurationError) as caught:
        Settings(base_url="https://x", **{field: value})
    assert caught.value.field in {field, "client_id", "client_secret"}
    if field not in ("client_id", "client_secret"):
        assert caught.value.field == field


def test_texts_become_numbers(tmp_path):
    bundle = tmp_path / "ca.pem"
    bundle.write_text("")
    settings = Settings(base_url="x", timeout="2.5", retry_budget="30", max_connections="4", verify=str(bundle))
    assert (settings.timeout, settings.retry_budget, settings.max_connections) == (2.5, 30.0, 4)
    assert settings.verify == str(bundle)


def test_both_kinds_of_credentials_are_refused():
    with pytest.raises(ConfigurationError) as caught:
        Settings(base_url="x", token="t", client_id="a", client_secret="b")
    assert caught.value.field == "token"


def test_secrets_are_in_no_repr():
    settings = Settings(base_url="x", client_id="visible", client_secret="geheim1")
    hook = OrchestrationHttpHook(base_url="x", token="geheim2")
    for text in (repr(settings), str(settings), repr(hook)):
        assert "geheim" not in text
    assert "visible" in repr(settings)
    assert settings.secrets == ("geheim1",)


def test_from_env(monkeypatch):
    monkeypatch.delenv("ORCHESTRATION_URL", raising=False)
    with pytest.raises(ConfigurationError, match="ORCHESTRATION_URL"):
        Settings.from_env()
    monkeypatch.setenv("ORCHESTRATION_URL", "https://x/api/orchestration")
    monkeypatch.setenv("ORCHESTRATION_CLIENT_ID", "id")
    monkeypatch.setenv("ORCHESTRATION_CLIENT_SECRET", "secret")
    monkeypatch.setenv("ORCHESTRATION_VERIFY", "false")
    settings = Settings.from_env()
    assert (settings.base_url, settings.client_id, settings.verify) == ("https://x/api/orchestration", "id", False)
    assert OrchestrationHttpHook().settings == settings
    assert OrchestrationHttpHook(timeout=3.0).settings.timeout == 3.0


def test_what_is_given_wins_over_the_environment(monkeypatch):
    """U2, U5: each field by itself, and credentials as one choice."""
    monkeypatch.setenv("ORCHESTRATION_URL", "https://x")
    monkeypatch.setenv("ORCHESTRATION_TOKEN", "from-env")
    monkeypatch.setenv("ORCHESTRATION_TIMEOUT", "3")
    monkeypatch.setenv("ORCHESTRATION_VERIFY", "false")
    monkeypatch.setenv("ORCHESTRATION_MAX_CONNECTIONS", "7")
    assert Settings.from_env().max_connections == 7
    elsewhere = Settings.from_env(base_url="https://y", timeout=10.0, verify=True)
    assert (elsewhere.base_url, elsewhere.token, elsewhere.timeout, elsewhere.verify) == (
        "https://y",
        "from-env",
        10.0,
        True,
    )
    assert Settings.from_env(client_id="a", client_secret="b").token is None
    monkeypatch.delenv("ORCHESTRATION_TOKEN")
    monkeypatch.setenv("ORCHESTRATION_CLIENT_ID", "a")
    monkeypatch.setenv("ORCHESTRATION_CLIENT_SECRET", "b")
    assert Settings.from_env(token="t").client_id is None
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env(tiemout=1)
    assert caught.value.field == "tiemout"


@pytest.mark.parametrize(
    ("variable", "value", "field"),
    [("TIMEOUT", "soon", "timeout"), ("URL", "ftp://x", "base_url"), ("VERIFY", "/no/such", "verify")],
)
def test_a_wrong_value_of_the_environment_names_its_variable(monkeypatch, variable, value, field):
    monkeypatch.setenv("ORCHESTRATION_URL", "http://127.0.0.1:1")
    monkeypatch.setenv(f"ORCHESTRATION_{variable}", value)
    with pytest.raises(ConfigurationError, match=rf"{value}.*\(from ORCHESTRATION_{variable}\)") as caught:
        Settings.from_env()
    assert caught.value.field == field
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env(**{field: "ftp://?" if field == "base_url" else "~~"})
    assert "(from" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("ftp://shop.example", "ftp://shop.example"),
        ("https://me:geheim@shop.example/x", "https://…@shop.example/x"),
        ("me:ge/heim@shop.example:1", "…@shop.example:1"),
        ("https://me:geheim%40shop.example", "https://…@shop.example"),
        ("https://me:geheim", "https://me:…"),
        ("https://a:1:geheim", "https://a:…"),
        ("https://ada:cafe/x", "https://ada:…/x"),
        ("https://::1:zz", "https://:…"),
        ("geheim@x://shop.example", "…://shop.example"),
        ("https://shop.example/x?token=geheim", "https://shop.example/x…"),
        ("https://shop.example/x#geheim", "https://shop.example/x…"),
        ("http://shop.example/a b", "http://shop.example/a b"),
        ("https://[::1]:99999", "https://[::1]:99999"),
    ],
)
def test_a_wrong_address_is_shown_without_what_may_be_a_secret(url, shown):
    with pytest.raises(ConfigurationError) as caught:
        Settings(base_url=url)
    assert str(caught.value).endswith(f"; given: {shown!r}")
    assert "heim" not in str(caught.value)


def test_an_unknown_setting_names_the_one_that_may_be_meant():
    with pytest.raises(ConfigurationError, match=r"tiemout: unknown setting \(did you mean timeout\?\)"):
        Settings.from_fields({"base_url": "x", "tiemout": 1})


@pytest.mark.parametrize("field", ["verify", "cert"])
def test_a_file_that_cannot_be_read_is_named(field, tmp_path, monkeypatch):
    bundle = tmp_path / "locked.pem"
    bundle.write_text("")
    monkeypatch.setattr(os, "access", lambda path, mode: path != str(bundle))  # root may read every file
    with pytest.raises(ConfigurationError) as caught:
        Settings(base_url="x", **{field: str(bundle)})
    assert caught.value.field == field


def test_from_fields_takes_empty_for_default_and_refuses_unknown():
    settings = Settings.from_fields({"base_url": "x", "token": "", "verify": None, "timeout": "5"})
    assert (settings.token, settings.verify, settings.timeout) == (None, True, 5.0)
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_fields({"base_url": "x", "tiemout": 5})
    assert caught.value.field == "tiemout"


def test_settings_beside_fields_are_refused():
    with pytest.raises(ConfigurationError) as caught:
        OrchestrationHttpHook(Settings(base_url="x"), token="t")
    assert caught.value.field == "token"


def test_errors_survive_pickling():
    error = pickle.loads(pickle.dumps(ConfigurationError("timeout: bad", field="timeout")))
    assert (str(error), error.field) == ("timeout: bad", "timeout")

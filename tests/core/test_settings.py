"""One normaliser for every way in: addresses, strict coercion, and secrets that stay inside."""

import pickle

import pytest

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

"""Connections become settings, strictly; secrets stay secret."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any
from urllib.parse import quote

import pytest

from orchestration_integrations import ConfigurationError, OrchestrationError, OrchestrationHttpHook
from orchestration_integrations.airflow import hooks
from orchestration_integrations.airflow.hooks import OrchestrationHook, settings_of
from orchestration_integrations.server import EmbeddedServer
from tests.airflow.framework import Connection

SECRET = "pl@nted/secret+x"


def connection(**fields: Any) -> Any:
    extra = fields.pop("extra", None)
    if extra is not None and not isinstance(extra, str):
        extra = json.dumps(extra)
    return Connection(conn_id="c", conn_type="orchestration", extra=extra, **fields)


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"host": "https://a.example/api/orchestration"}, "https://a.example/api/orchestration"),
        ({"host": "https://a.example/api/orchestration/"}, "https://a.example/api/orchestration"),
        ({"host": "a.example"}, "https://a.example"),
        ({"host": "a.example", "port": 8443}, "https://a.example:8443"),
        ({"host": "a.example:8443"}, "https://a.example:8443"),
        ({"host": "a.example:8443", "port": 8443}, "https://a.example:8443"),
        ({"host": "http://a.example/x", "port": 81}, "http://a.example:81/x"),
        ({"host": "a.example", "schema": "http"}, "http://a.example"),
        ({"host": "a.example", "schema": "api/orchestration"}, "https://a.example/api/orchestration"),
        ({"host": "localhost", "port": 8080}, "http://localhost:8080"),
        ({"host": "[::1]", "port": 8080}, "http://[::1]:8080"),
        ({"host": "::1", "port": 8080}, "http://[::1]:8080"),
        ({"host": "[::1]:8080"}, "http://[::1]:8080"),
    ],
)
def test_urls(fields: dict[str, Any], url: str) -> None:
    assert settings_of(connection(**fields)).base_url == url


@pytest.mark.parametrize(
    ("uri", "url", "password"),
    [
        ("orchestration://id:s%2Fc@a.example:8443/api/orchestration?verify=false&timeout=5", None, "s/c"),
        ("orchestration://https%3A%2F%2Fa.example%3A8443%2Fapi%2Forchestration?verify=false&timeout=5", None, None),
    ],
)
def test_uris(monkeypatch: pytest.MonkeyPatch, uri: str, url: str | None, password: str | None) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_BY_URI", uri)
    settings = OrchestrationHook("by_uri").settings()
    assert settings.base_url == "https://a.example:8443/api/orchestration"
    assert settings.verify is False
    assert settings.timeout == 5.0
    assert settings.client_secret == password


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, "host"),
        ({"host": "a.example:1", "port": 2}, "port"),
        ({"host": "https://user:pw@a.example"}, "base_url"),
        ({"host": "a.example", "login": "id"}, "client_secret"),
        ({"host": "a.example", "login": "id", "password": "x", "extra": {"token": "t"}}, "token"),
        ({"host": "a.example", "extra": "[]"}, "extra"),
        ({"host": "a.example", "extra": '"text"'}, "extra"),
        ({"host": "a.example", "extra": "nonsense"}, "extra"),
        ({"host": "a.example", "extra": {"verify": "perhaps"}}, "verify"),
        ({"host": "a.example", "extra": {"timeout": "soon"}}, "timeout"),
        ({"host": "a.example", "extra": {"api_version": "v9"}}, "api_version"),
        ({"host": "a.example", "extra": {"token": "***"}}, "token"),
    ],
)
def test_wrong_connections_name_their_field(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings_of(connection(**fields))
    assert caught.value.field == named


@pytest.mark.parametrize("extra", [{"verify": "false"}, {"extra__orchestration__verify": "false"}, {"verify": False}])
def test_extras_by_both_names(extra: dict[str, Any]) -> None:
    assert settings_of(connection(host="a.example", extra=extra)).verify is False


def test_a_plain_extra_wins_over_a_prefixed_one_and_empty_ones_count_for_nothing() -> None:
    extra = {"extra__orchestration__timeout": "3", "timeout": "4", "scope": "", "token_url": None}
    settings = settings_of(connection(host="a.example", extra=extra))
    assert settings.timeout == 4.0
    assert settings.scope is None


def test_extras_stored_as_a_text_in_a_text() -> None:
    assert settings_of(connection(host="a.example", extra=json.dumps(json.dumps({"timeout": 4})))).timeout == 4.0


def test_an_unknown_extra_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "orchestration_integrations.airflow"):
        settings_of(connection(host="a.example", extra={"tiemout": "4"}))
    assert "tiemout" in caplog.text


def test_ids_are_quoted_whole(server: Any) -> None:
    http = OrchestrationHook().get_conn()
    assert isinstance(http, OrchestrationHttpHook)
    with pytest.raises(OrchestrationError):
        http.get_instance("../workflows")
    assert server.record().requests.get("list_workflows", 0) == 0


def use(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> OrchestrationHook:
    monkeypatch.setenv("AIRFLOW_CONN_GUARDED", json.dumps({"conn_type": "orchestration", **fields}))
    return OrchestrationHook("guarded")


def test_secrets_and_fetched_tokens_are_masked(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    masked: set[str] = set()
    monkeypatch.setattr(hooks, "mask_secret", masked.add)
    with EmbeddedServer(token=SECRET) as server, caplog.at_level(logging.DEBUG):
        hook = use(monkeypatch, host=server.url, login="client", password=SECRET)
        with hook.get_conn() as http:
            http.list_workflows()
            shown = repr(http) + repr(http.settings) + repr(vars(hook))
        (token,) = server.core.tokens._issued
        assert {SECRET, quote(SECRET, safe=""), token} <= masked
        for one in (SECRET, token):
            assert one not in shown
            assert one not in caplog.text


def test_the_async_twin_masks_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    masked: set[str] = set()
    monkeypatch.setattr(hooks, "mask_secret", masked.add)
    with EmbeddedServer(token=SECRET) as server:
        hook = use(monkeypatch, host=server.url, login="client", password=SECRET)

        async def read() -> None:
            async with await hook.get_async_conn() as http:
                await http.list_workflows()

        asyncio.run(read())
        assert {SECRET, *server.core.tokens._issued} <= masked


def test_a_slow_look_up_of_the_connection_does_not_block_the_loop(monkeypatch: pytest.MonkeyPatch, server: Any) -> None:
    """Neither it nor anything else on the way to the client may stop what else the triggerer does."""
    hook = OrchestrationHook()

    async def main() -> int:
        beats = 0

        async def beat() -> None:
            nonlocal beats
            while True:
                beats += 1
                await asyncio.sleep(0.01)

        heart = asyncio.create_task(beat())
        real = hooks.get_async_connection

        async def slow(conn_id: str) -> Any:
            await asyncio.sleep(0.3)
            return await real(conn_id)

        monkeypatch.setattr(hooks, "get_async_connection", slow)
        async with await hook.get_async_conn() as http:
            await http.get_server_info()
        heart.cancel()
        return beats

    assert asyncio.run(main()) >= 10


@pytest.mark.parametrize("generation", [1, 2, 3])
def test_test_connection_tells_what_it_found(server: Any, generation: int) -> None:
    good, message = OrchestrationHook().test_connection()
    assert good is True
    assert server.url in message
    assert "no credentials" in message
    assert "server version" in message


def test_test_connection_tells_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedServer(token=SECRET) as server:
        right = use(monkeypatch, host=server.url, extra=json.dumps({"token": SECRET})).test_connection()
        assert right[0] is True
        assert "bearer token" in right[1]
        refused = use(monkeypatch, host=server.url, extra=json.dumps({"token": "other"})).test_connection()
        assert refused[0] is False
        assert "refused" in refused[1]
        wrong_path = use(
            monkeypatch, host=f"{server.url}/nowhere", extra=json.dumps({"token": SECRET})
        ).test_connection()
        assert wrong_path[0] is False
    assert use(monkeypatch, host="").test_connection()[0] is False
    nobody = use(monkeypatch, host="http://127.0.0.1:9", extra=json.dumps({"retry_budget": 1})).test_connection()
    assert nobody[0] is False
    for _, message in (right, refused, wrong_path, nobody):
        assert SECRET not in message

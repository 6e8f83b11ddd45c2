"""Amounts, links and the command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration_integrations import Settings
from orchestration_integrations.api.errors import ConfigurationError
from orchestration_integrations.server import EmbeddedServer
from orchestration_integrations.ui.amounts import amount_text
from orchestration_integrations.ui.money import side_text


@pytest.mark.parametrize(
    ("amount", "asset", "text"),
    [
        (1250, "EUR/2", "12.50 EUR"),
        ("5", "EUR/2", "0.05 EUR"),
        (-5, "EUR/2", "-0.05 EUR"),
        (str(10**24 + 1), "USD/6", "1,000,000,000,000,000,000.000001 USD"),
        (2**53 - 1, "USD/6", "9,007,199,254.740991 USD"),
        (2**53, "USD/6", "≈ 9,007,199,254.740990 USD"),
        (12345678901234567168, "EUR/2", "≈ 123,456,789,012,346,000.00 EUR"),
        (-12345678901234567168, "COIN", "≈ -12345678901234600000 COIN"),
        (1.5e3, "EUR/2", "15.00 EUR"),
        (7, "JPY/0", "7 JPY"),
        (7, "COIN", "7 COIN"),
        (1.23e24, "EUR/2", "≈ 12,300,000,000,000,000,000,000.00 EUR"),
        (0.5, "EUR/2", "≈ 0.5 EUR/2"),
        ("${amount}", "EUR/2", "${amount} EUR/2"),
        (None, None, ""),
    ],
)
def test_amounts(amount: object, asset: object, text: str) -> None:
    assert amount_text(amount, asset) == text


@given(st.integers(), st.integers(0, 20))
def test_no_digit_of_an_amount_is_lost(amount: int, digits: int) -> None:
    text = amount_text(str(amount), f"X/{digits}").removesuffix(" X")
    assert int(text.replace(",", "").replace(".", "")) == amount


@given(st.integers(), st.integers(0, 20))
def test_no_digit_of_an_amount_is_invented(amount: int, digits: int) -> None:
    text = amount_text(amount, f"X/{digits}").removesuffix(" X")
    about, shown = text.startswith("≈ "), int(text.removeprefix("≈ ").replace(",", "").replace(".", ""))
    assert about == (abs(amount) >= 2**53)
    if not about:
        assert shown == amount
    else:
        assert len(str(abs(shown)).rstrip("0")) <= 15
        assert abs(shown - amount) * 10**14 <= abs(amount)


def test_sides() -> None:
    assert side_text({"account": {"id": "a:b", "ledger": "l"}}) == "a:b"
    assert side_text({"wallet": {"name": "alice", "balance": "main"}}) == "wallet alice"
    assert side_text({"wallet": {"id": "w", "balance": "held"}}) == "wallet w (held)"
    assert side_text({"payment": {"id": "p"}}) == "payment p"
    assert side_text({"later": {}}) == "later"
    assert side_text(None) == "?"


@pytest.mark.parametrize(
    ("ui_url", "link"),
    [
        (None, "http://127.0.0.1:1/instances/i%2F1"),
        ("http://page:8088/", "http://page:8088/#/instances/i%2F1"),
        ("https://c.example/w/{workflow_id}/i/{instance_id}?a=1", "https://c.example/w/w%261/i/i%2F1?a=1"),
    ],
)
def test_ui_url_says_what_people_open(ui_url: str | None, link: str) -> None:
    assert Settings(base_url="http://127.0.0.1:1", ui_url=ui_url).instance_link("i/1", "w&1") == link


def test_a_link_without_the_workflow_it_needs_is_the_servers() -> None:
    settings = Settings(base_url="http://127.0.0.1:1", ui_url="https://c/{workflow_id}/{instance_id}")
    assert settings.instance_link("i") == "http://127.0.0.1:1/instances/i"
    assert Settings(base_url="http://127.0.0.1:1", ui_url="https://c/").instance_link("i") == "https://c/#/instances/i"


@pytest.mark.parametrize(
    "ui_url",
    [
        "page",
        "ftp://p",
        "https://",
        "javascript:alert(1)",
        "https://c/{id}",
        "https://c/{workflow_id}",
        "https://c/#/x",
        "https://c/{instance_id",
    ],
)
def test_a_wrong_ui_url_is_refused_by_its_name(ui_url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings(base_url="http://127.0.0.1:1", ui_url=ui_url)
    assert caught.value.field == "ui_url"


COMMAND = (sys.executable, "-m", "orchestration_integrations.cli", "ui")


def test_the_command_serves_the_page_of_a_server_until_it_is_stopped() -> None:
    with EmbeddedServer(token="of-the-server") as server:
        environment = {**os.environ, "ORCHESTRATION_TOKEN": "of-the-server"}
        command = [*COMMAND, "--url", server.url, "--port", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            session = httpx.get(f"{url}_ui/api/session", trust_env=False, timeout=10).json()
            assert (session["server"], session["actions"], session["problem"]) == (server.url, False, None)
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "base_url"),
        (["--url", "http://127.0.0.1:1", "--host", "0.0.0.0"], "give a token"),
        (["--url", "http://127.0.0.1:1", "--embed-in", "nowhere"], "embed_in"),
        (["--url", "http://127.0.0.1:1", "--page-token", ""], "--page-token: is blank"),
        (["--url", "http://127.0.0.1:1", "--page-token", " "], "--page-token: is blank"),
        (["--url", "http://127.0.0.1:1", "--token", ""], "--token: is blank"),
        (["--url", "http://127.0.0.1:1", "--client-id", "c", "--client-secret", ""], "--client-secret: is blank"),
    ],
)
def test_the_command_refuses_what_is_wrong(arguments: list[str], said: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ORCHESTRATION_")}
    ended = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, env=environment, timeout=30)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ORCHESTRATION_")}
    return {**kept, **more}


def test_a_page_token_that_is_set_but_empty_is_refused() -> None:
    command = [*COMMAND, "--url", "http://127.0.0.1:1", "--host", "0.0.0.0"]
    ended = subprocess.run(
        command, capture_output=True, text=True, env=environment(ORCHESTRATION_PAGE_TOKEN=""), timeout=30
    )
    assert ended.returncode == 2
    assert "ORCHESTRATION_PAGE_TOKEN: is blank" in ended.stderr


def test_serve_refuses_a_blank_token() -> None:
    command = [*COMMAND[:-1], "serve", "--port", "0", "--token", ""]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=30)
    assert ended.returncode == 2
    assert "token: is blank" in ended.stderr


def test_the_command_takes_the_pages_token_from_a_variable_and_has_the_options_of_a_connection() -> None:
    secrets = {"ORCHESTRATION_PAGE_TOKEN": "of-the-page", "ORCHESTRATION_CLIENT_SECRET": "of-the-server"}
    with EmbeddedServer(token="of-the-server") as server:
        command = [*COMMAND, "--url", server.url, "--client-id", "c", "--http-timeout", "3", "--port", "0", "--json"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(**secrets))
        try:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            assert told == {"type": "page", "url": told["url"], "actions": False, "upstream": server.url}
            address = f"{told['url']}_ui/api/session"
            assert httpx.get(address, trust_env=False, timeout=10).status_code == 401
            signed_in = {"authorization": "Bearer of-the-page"}
            assert httpx.get(address, headers=signed_in, trust_env=False, timeout=10).json()["problem"] is None
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stdout.read() == ""


def test_no_secret_stands_in_an_error_of_the_command() -> None:
    secret = "a-secret-of-the-page"
    command = [*COMMAND, "--url", f"ftp://host/{secret}", "--page-token", secret]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=30)
    assert ended.returncode == 2
    assert secret not in ended.stderr + ended.stdout


def test_each_field_of_the_object_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    assert "| `page` | `ui` | `url` `actions` `upstream` |" in text

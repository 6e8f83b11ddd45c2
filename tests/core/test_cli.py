"""The command, as a shell and a pipe see it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import orchestration_integrations
from orchestration_integrations import OrchestrationHttpHook
from orchestration_integrations.cli import app
from orchestration_integrations.server import EmbeddedServer

WAITS = {"name": "waits", "stages": [{"delay": {"duration": "1h"}}]}
HIDDEN = "geheimnis-4711"
ROOT = Path(__file__).parents[2]


def left_behind(hook: OrchestrationHttpHook, key: str) -> tuple[str, str]:
    """The ids of a workflow and of a run of it that was never released."""
    workflow = hook.ensure_workflow(WAITS, gate=True).workflow
    left = hook.run_workflow(workflow.id, {"runKey": key, "runGate": key}).id
    until = time.monotonic() + 30
    while not hook.list_unreleased(workflow.id) and time.monotonic() < until:
        time.sleep(0.02)  # until its first stage has begun
    return workflow.id, left


@pytest.fixture
def command(monkeypatch):
    """Runs the command with no more of the environment than is given."""
    for name in ("URL", "TOKEN", "CLIENT_ID", "CLIENT_SECRET", "TOKEN_URL"):
        monkeypatch.delenv(f"ORCHESTRATION_{name}", raising=False)

    def run(*arguments, **env):
        return CliRunner().invoke(app, list(arguments), env=env)

    return run


@pytest.mark.parametrize("key", ["order [17]", "[red]x[/]", "[/]", "a\x1b[2Jb", "two\nlines\tof text", "k" * 300])
def test_a_pipe_gets_whole_ids_and_the_key_as_it_is(command, key):
    """U5: nothing is cut, nothing in a key is markup, and one run is one line."""
    with EmbeddedServer(2) as server, OrchestrationHttpHook(base_url=server.url) as hook:
        workflow_id, instance_id = left_behind(hook, key)
        said = command("unreleased", workflow_id, "--url", server.url, COLUMNS="20")
    assert said.exit_code == 0, said.output
    (line,) = said.stdout.splitlines()
    shown_id, shown_key, _, where, _, _ = line.split("\t")
    assert where == "at its gate"
    assert shown_id == instance_id
    assert shown_key == (key if key.isprintable() else repr(key)[1:-1])
    assert "\x1b" not in said.output


@pytest.mark.parametrize("way", ["--url", "environment"])
def test_an_address_keeps_the_token_of_the_environment(command, way):
    """U5."""
    with EmbeddedServer(2, token=HIDDEN) as server, OrchestrationHttpHook(base_url=server.url, token=HIDDEN) as hook:
        workflow_id, instance_id = left_behind(hook, "k")
        if way == "--url":
            elsewhere = "http://127.0.0.1:9"
            said = command(
                "unreleased", workflow_id, "--url", server.url, ORCHESTRATION_URL=elsewhere, ORCHESTRATION_TOKEN=HIDDEN
            )
        else:
            said = command("unreleased", workflow_id, ORCHESTRATION_URL=server.url, ORCHESTRATION_TOKEN=HIDDEN)
        refused = command("unreleased", workflow_id, "--url", server.url)
    assert said.stdout.startswith(instance_id), said.output
    assert refused.exit_code == 2
    assert HIDDEN not in said.output + refused.output


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({}, "ORCHESTRATION_URL"),
        ({"ORCHESTRATION_URL": "ftp://x"}, "base_url"),
        ({"ORCHESTRATION_URL": "https://x", "ORCHESTRATION_TOKEN": f"{HIDDEN}\x7f"}, "token"),
        ({"ORCHESTRATION_URL": "https://x", "ORCHESTRATION_CLIENT_SECRET": HIDDEN}, "client_id"),
        ({"ORCHESTRATION_URL": "https://x", "ORCHESTRATION_VERIFY": "/no/such/bundle.pem"}, "verify"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(command, env, named):
    said = command("unreleased", "w", **env)
    assert said.exit_code == 2
    assert len(said.stderr.splitlines()) == 1
    assert named in said.stderr
    assert HIDDEN not in said.output


def without(*modules: str, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own where some modules are not installed."""
    program = f"""
import sys
for name in {modules!r}:
    sys.modules[name] = None
from orchestration_integrations.cli import app
app({arguments!r})
"""
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(
    ("missing", "extra"), [(("uvicorn",), "[cli,server]"), (("starlette",), "[cli,server]"), (("typer",), "[cli]")]
)
def test_a_missing_extra_is_one_clear_line(missing, extra):
    """U5."""
    done = without(*missing, arguments=["serve", "--port", "0", "--token", HIDDEN])
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"pip install 'orchestration-integrations{extra}'" in line
    assert HIDDEN not in done.stdout + done.stderr


def test_a_traceback_shows_no_token(monkeypatch):
    """U5: whatever breaks, and whatever the version of typer shows by itself."""
    program = f"""
from orchestration_integrations import cli
from orchestration_integrations.server import embedded

class Broken:
    def __init__(self, *args, **kwargs):
        raise RuntimeError("broken")

embedded.EmbeddedServer = Broken
cli.app(["serve", "--token", "{HIDDEN}"])
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "RuntimeError" in done.stderr
    assert "broken" in done.stderr
    assert HIDDEN not in done.stdout + done.stderr
    assert isinstance(app, typer.Typer)
    assert app.pretty_exceptions_show_locals is False


def test_version(command):
    said = command("--version")
    assert said.exit_code == 0
    assert said.stdout.strip() == orchestration_integrations.__version__


def test_no_address_names_the_option_and_the_variable(command):
    said = command("unreleased", "w")
    assert said.exit_code == 2
    assert "--url" in said.stderr
    assert "ORCHESTRATION_URL" in said.stderr


@pytest.mark.parametrize("way", ["--url", "ORCHESTRATION_URL"])
def test_a_wrong_address_is_shown_with_where_it_came_from(command, way):
    wrong = f"ftp://me:{HIDDEN}@shop.example/x?token={HIDDEN}"
    said = command("unreleased", "w", "--url", wrong) if way == "--url" else command("unreleased", "w", **{way: wrong})
    assert said.exit_code == 2
    assert "the scheme must be http or https; given: 'ftp://…@shop.example/x…'" in said.stderr
    assert f"(from {way})" in said.stderr
    assert HIDDEN not in said.output


def test_a_wait_tells_the_standard_error_of_an_outage(command):
    with EmbeddedServer(2) as server, OrchestrationHttpHook(base_url=server.url) as hook:
        workflow = hook.create_workflow({"name": "short", "stages": [{"delay": {"duration": "2s"}}]})
        instance_id = hook.run_workflow(workflow.id).id
        server.fault("get_instance", "status", 3, code=503)
        said = command("wait", instance_id, "--url", server.url, "--poll-interval", "0.2")
    assert said.exit_code == 0, said.output
    began, ended = said.stderr.splitlines()
    assert began.startswith(f"{server.url} cannot be read since ")
    assert ended.startswith(f"{server.url} can be read again")
    assert "can" not in said.stdout

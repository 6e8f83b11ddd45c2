"""The command's view of the records."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from orchestration_integrations import OrchestrationHttpHook, SqliteRunStore
from orchestration_integrations.cli import app
from orchestration_integrations.server import EmbeddedServer

PAYS = {
    "name": "pays",
    "stages": [
        {
            "send": {
                "source": {"account": {"id": "world"}},
                "destination": {"account": {"id": "shop"}},
                "amount": {"amount": "5", "asset": "USD/2"},
            }
        }
    ],
}


@pytest.fixture
def command(tmp_path):
    def run(*arguments, **options):
        return CliRunner().invoke(app, ["runs", *arguments, "--store", str(tmp_path / "runs.db")], **options)

    return run


def test_records_are_listed_shown_and_settled(command, tmp_path):
    store = SqliteRunStore(tmp_path / "runs.db")
    assert "no key is on record" in command("list").stderr
    with EmbeddedServer(2) as server, OrchestrationHttpHook(base_url=server.url) as hook:
        first = hook.run_once(PAYS, run_key="order [17]", store=store).instance.id
        listed = command("list")
        assert listed.exit_code == 0
        assert listed.stdout.split("\t")[:4] == ["order [17]", "told", "succeeded", first]
        assert json.loads(command("show", "order [17]").stdout)["instance_id"] == first
        refused = command("settle", "order [17]", input="n\n")
        assert refused.exit_code == 2
        assert "will pay again" in refused.stderr
        assert hook.run_once(PAYS, run_key="order [17]", store=store).instance.id == first
        assert command("settle", "order [17]", "--yes").exit_code == 0
        assert "(settled)" in command("list").stdout
        assert hook.run_once(PAYS, run_key="order [17]", store=store).instance.id != first
        assert server.balance("shop", "USD/2") == 10


def test_what_is_not_there_is_told_and_not_made(command, tmp_path):
    missing = command("list")
    assert (missing.exit_code, "there is no file" in missing.stderr) == (2, True)
    assert not (tmp_path / "runs.db").exists()
    SqliteRunStore(tmp_path / "runs.db")
    for arguments in (["show", "k"], ["settle", "k", "--yes"]):
        said = command(*arguments)
        assert (said.exit_code, "no record of run key k" in said.stderr) == (2, True)

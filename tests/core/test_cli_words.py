"""What the command says: in words that can be typed in a shell, and with no date and no advice that is untrue."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone

import pytest

from orchestration_integrations import AmbiguousRunError, KeyReusedError, OrchestrationHttpHook, ValidationError
from orchestration_integrations.cli.as_options import as_options
from orchestration_integrations.server import EmbeddedServer
from tests.commands import ROOT, environment, invoked

PAYS = {
    "name": "pays",
    "stages": [
        {
            "send": {
                "source": {"account": {"id": "world"}},
                "destination": {"account": {"id": "shop:${who}"}},
                "amount": {"amount": "5", "asset": "EUR/2"},
            }
        }
    ],
}


@pytest.fixture
def server():
    with EmbeddedServer(2) as started:
        yield started


@pytest.fixture
def hook(server):
    with OrchestrationHttpHook(base_url=server.url) as made:
        yield made


@pytest.fixture
def env(server, tmp_path):
    (tmp_path / "pays.json").write_text(json.dumps(PAYS))
    return {"ORCHESTRATION_URL": server.url, "ORCHESTRATION_STORE": str(tmp_path / "runs.db")}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("give it, or allow_unbound=True; is 'x' meant?", "give it, or --allow-unbound; is 'x' meant?"),
        ("on_changed='adopt' goes on with it", "--on-changed adopt goes on with it"),
        ("; settled='0-3f2a' pays anew", "; --settled 0-3f2a pays anew"),
        ("create it again with ensure_workflow(…, gate=True, checkpoints=True)",
         "create it again by workflows apply FILE --gate --checkpoints"),
        ("call again with its run key, or give at_checkpoint=", "call again with its run key"),
        ("say which one is meant, stage=1, stage=3. stage= counts a gate too",
         "say which one is meant, --stage 1, --stage 3. --stage counts a gate too"),
        ("the ledger said: timeout=10s, settled=no", "the ledger said: timeout=10s, settled=no"),
    ],
)  # fmt: skip
def test_a_remedy_is_an_option(error, said):
    assert as_options(error) == said


def test_the_subject_of_an_error_is_the_option_that_was_wrong():
    assert as_options(ValidationError("run_key: is empty", path="run_key")) == "--run-key: is empty"
    assert as_options(ValidationError("run_key: is empty", path="other")) == "run_key: is empty"


def test_errors_name_options_that_the_command_has(env, tmp_path):
    run = ["run", str(tmp_path / "pays.json"), "--run-key", "k", "--json"]
    unbound = invoked(*run, env=env)
    assert (unbound.exit_code, "or --allow-unbound" in unbound.stderr) == (2, True), unbound.stderr
    assert "--allow-unbound" in json.loads(unbound.stdout)["message"]
    assert invoked(*run, "--var", "who=a", env=env).exit_code == 0
    changed = invoked(*run, "--var", "who=b", env=env)
    assert json.loads(changed.stdout)["error"] == KeyReusedError.__name__
    assert "--on-changed adopt goes on with that instance" in changed.stderr
    wrong = invoked(*run, "--var", "who=a", "--on-timeout", "stop", env=env)
    assert wrong.stderr.startswith("--on-timeout must be cancel or leave")
    assert invoked(*run, "--allow-unbound", "--run-key", "other", env=env).exit_code in (1, 3)  # it was submitted


def test_an_event_that_was_not_delivered_names_the_stage_of_the_definition(env, hook, server):
    """The gate is a stage of the server's, and nobody's who wrote a definition."""
    definition = {"name": "abab", "stages": [{"wait_event": {"event": name}} for name in ("a", "b", "a", "b")]}
    instance_id = hook.start(hook.ensure_workflow(definition, gate=True).workflow.id).id

    def refused(name, *more):
        done = invoked("events", "send", instance_id, name, "--timeout", "0.5", *more, env=env)
        assert done.exit_code in (2, 4), done.stderr
        return done.stderr

    assert "stage 1 (wait_event; 2 on the server) did not wait for it in time" in refused("b", "--stage", "2")
    assert "which one is meant, --stage 1, --stage 3. --stage counts a gate too" in refused("a")
    assert "--stage 2 does not wait for it; --stage 1, --stage 3 do. --stage counts" in refused("a", "--stage", "2")
    hook.send_event_when_ready(instance_id, "a", stage=1, timeout=20)
    assert "stage 0 (wait_event; 1 on the server) was already over" in refused("a", "--stage", "1")
    server.fault("get_workflow", "status", -1, code=404, error_code="NOT_FOUND")
    assert "stage 1 on the server was already over" in refused("a", "--stage", "1")
    assert "say which with --stage" in refused("a")


def test_the_first_call_of_a_key_without_a_gate_is_not_told_as_a_payment_of_last_week(env, hook, server):
    """Nothing was submitted, so the first advice is what ends it, and no date says otherwise."""
    workflow_id = hook.create_workflow(PAYS).id
    told = invoked("run", "pays", "--run-key", "p 1", "--var", "who=a", "--json", env=env)
    assert (told.exit_code, json.loads(told.stdout)["error"]) == (3, AmbiguousRunError.__name__)
    assert "say --first-attempt" in told.stderr
    (first,) = [line for line in told.stderr.splitlines() if line.startswith("  1. ")]
    assert "--first-attempt" in first
    assert "run the same command again" not in told.stderr
    found = json.loads(invoked("reconcile", workflow_id, "--run-key", "p 1", "--json", env=env).stdout)
    week_ago = (datetime.now(timezone.utc) - timedelta(days=7)).date().isoformat()
    assert f"on record without a submit; it looks back to {week_ago}" in found["reason"]
    assert "intended" not in found["reason"]
    assert server.record().started == []
    assert invoked("run", "pays", "--run-key", "p 1", "--var", "who=a", "--first-attempt", env=env).exit_code == 0


def test_a_submit_without_an_answer_is_told_with_its_own_date(env, hook, server):
    hook.create_workflow(PAYS)
    server.fault("run_workflow", "cut_before", 1)
    run = ["run", "pays", "--run-key", "k", "--var", "who=a", "--first-attempt"]
    told = invoked(*run, env=env)
    assert (told.exit_code, "1. run the same command again" in told.stderr) == (3, True)
    found = json.loads(invoked("reconcile", "pays", "--run-key", "k", "--json", env=env).stdout)
    assert found["reason"].startswith(f"on record as intended since {datetime.now(timezone.utc).date().isoformat()}")


def test_a_start_without_an_answer_ends_in_its_own_time(env, tmp_path, server):
    """``--timeout`` ends the wait and does not cut the start off, as the help says."""
    server.fault("send_event", "stall", 100, seconds=600)
    began = time.monotonic()
    run = ["run", str(tmp_path / "pays.json"), "--run-key", "k", "--var", "who=a"]
    told = invoked(*run, "--timeout", "1", "--start-timeout", "1", "--http-timeout", "2", env=env)
    assert told.exit_code == 3, told.stderr
    assert time.monotonic() - began < 30
    shown = " ".join(invoked("run", "--help", env={**env, "COLUMNS": "200"}).stdout.split())
    assert "Seconds from the call until it stops to wait" in shown
    assert "--timeout does not cut them off" in shown


def test_the_package_itself_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "orchestration_integrations", "--version"],
        capture_output=True, text=True, check=True, timeout=60, env=environment(), cwd=ROOT,
    )  # fmt: skip
    assert done.stdout.strip()

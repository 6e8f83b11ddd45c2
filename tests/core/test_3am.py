"""docs/3am.md: its commands, in their order, on a server that has lost an answer."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from orchestration_integrations import OrchestrationHttpHook
from orchestration_integrations.server import EmbeddedServer
from tests.commands import ROOT, environment

PAGE = (ROOT / "docs" / "3am.md").read_text()
PAYOUT = {
    "name": "payout",
    "stages": [
        {
            "send": {
                "source": {"account": {"id": "world"}},
                "destination": {"account": {"id": "${merchant}"}},
                "amount": {"amount": "1250", "asset": "EUR/2"},
            }
        }
    ],
}


def commands_of(step: str) -> list[str]:
    """The commands below a heading, one a line."""
    (section,) = [part for part in PAGE.split("\n## ")[1:] if part.startswith(f"{step}. ")]
    return [line for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL) for line in block.splitlines()]


class Night:
    """Runs commands of the page as they stand there, with the variables that the error gave."""

    def __init__(self, url, folder):
        self.variables = {
            "ORCHESTRATION_URL": url, "ORCHESTRATION_STORE": str(folder / "runs.db"), "WORKFLOW": "payout",
            "KEY": "order-17", "MERCHANT": "merchants:m1",
        }  # fmt: skip

    def run(self, command):
        """Exit status, standard output, standard error of one command of the page."""
        line = command.replace("orchestration-integrations", f"{sys.executable} -m orchestration_integrations.cli", 1)
        env = environment(**self.variables)
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=env, check=False, timeout=120)
        return done.returncode, done.stdout, done.stderr

    def steps(self, step):
        """Exit statuses of the commands below a heading."""
        return [self.run(command)[0] for command in commands_of(step)]


@pytest.fixture(params=["the payment was made", "it was not"])
def night(request, tmp_path):
    with EmbeddedServer(2) as server, OrchestrationHttpHook(base_url=server.url) as hook:
        made = Night(server.url, tmp_path)
        made.server, made.paid = server, request.param == "the payment was made"
        hook.create_workflow(PAYOUT)
        server.fault("run_workflow", "cut_after" if made.paid else "cut_before")
        code, out, _ = made.run(f"{commands_of('2')[0]} --first-attempt --json")
        told = json.loads(out)
        assert (code, told["error"]) == (3, "AmbiguousRunError")
        made.variables["TOKEN"] = told["token"]
        made.variables["CANDIDATE"] = "".join(told["candidates"])
        yield made


def test_the_commands_of_the_page_end_in_one_payment(night):
    assert night.steps("1") == [0]
    assert night.steps("2") == [3], "nothing proves anything"
    for command in commands_of("3"):
        code, out, _ = night.run(f"{command} --json")
        found = {one["finding"]: one for one in map(json.loads, out.splitlines())}
        assert (code, found["ambiguous"]["run_key"]) == (3, "order-17"), "the key is ambiguous"
        candidates = [night.variables["CANDIDATE"]] if night.paid else []
        assert found["ambiguous"]["instances"] == candidates
        assert f"--settled {night.variables['TOKEN']}" in found["ambiguous"]["advice"]
        runs = found["ungated"]["instances"] if "ungated" in found else []
        assert runs == ([] if "--run-key" in command else candidates)
    assert night.server.balance("merchants:m1", "EUR/2") == (1250 if night.paid else 0)
    if night.paid:
        code, shown, _ = night.run(commands_of("4")[0])
        assert (code, "merchants:m1" in shown) == (0, True)
        assert night.steps("5a") == [0, 0, 6], "it is paid, and it is too late for a cancel"
        assert night.steps("5b") == [0], "its token settles nothing any more"
    else:
        assert night.variables["CANDIDATE"] == ""
        assert night.steps("5b") == [0]
        assert night.steps("5b") == [0], "the token settles no later fate"
    assert night.server.balance("merchants:m1", "EUR/2") == 1250


def test_the_server_is_away(tmp_path):
    night = Night("http://127.0.0.1:9", tmp_path)
    assert night.run(f"{commands_of('1')[0]} --retry-budget 1")[0] == 3

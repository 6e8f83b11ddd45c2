"""The example scripts: killed at random moments and run again, every order is paid once."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from orchestration_integrations.server import EmbeddedServer

SCRIPTS = Path(__file__).parents[2] / "example_scripts"
CASES = 100


@pytest.mark.proof
@pytest.mark.parametrize(("script", "longest"), [("pay_once.py", 0.9), ("pay_in_a_block.py", 2.4)])
def test_a_killed_script_pays_once(script, longest, tmp_path):
    rng = random.Random(script)
    amounts = {f"order-{number}": 1 + number for number in range(CASES)}
    with EmbeddedServer(2) as server:
        lines = [
            {
                "url": server.url,
                "script": str(SCRIPTS / script),
                "order": order,
                "amount": amount,
                "store": str(tmp_path / "runs.db"),
                "kill_after": [rng.random() ** 2 * longest for _ in range(rng.choice([1, 1, 2, 3]))],
            }
            for order, amount in amounts.items()
        ]
        done = subprocess.run(
            [sys.executable, "-m", "tests.ownership.killed_scripts"],
            input="\n".join(map(json.dumps, lines)),
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert done.returncode == 0, done.stderr
        record = server.record()
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == CASES
    killed = sum("killed" in one for result in results for one in result["before"])
    for result in results:
        assert result["last"].get("code") == 0, result
    paid = Counter(str(one["posting"]["amount"]) for one in record.money)
    assert paid == Counter(str(amount) for amount in amounts.values())
    assert killed > CASES / 3

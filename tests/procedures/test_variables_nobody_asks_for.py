"""U8: a variable that no placeholder asks for is told, or refused: it is often a name that was misspelt."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from orchestration_integrations import MemoryRunStore, ValidationError
from orchestration_integrations.server import EmbeddedServer
from tests.conftest import open_hook

PAYOUT = {
    "name": "payout",
    "stages": [
        {
            "send": {
                "source": {"account": {"id": "world"}},
                "destination": {"account": {"id": "shop"}},
                "amount": {"amount": "${amount}", "asset": "EUR/2"},
            }
        }
    ],
}


@pytest.fixture(scope="module")
def server() -> Any:
    with EmbeddedServer(2) as server:
        yield server


@pytest.mark.parametrize("how", ["start", "run_once"])
def test_a_misspelt_variable_is_told_or_refused(
    kind: str, server: EmbeddedServer, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    hook = open_hook(kind, base_url=server.url)
    workflow = hook.ensure_workflow(PAYOUT, gate=True).workflow
    variables = {"amount": 100, "amuont": 7}

    def call(**options: Any) -> Any:
        key = f"{kind}-{how}-{options}"
        if how == "start":
            return hook.start(workflow.id, variables, run_key=key, **options)
        return hook.run_once(workflow.id, variables, run_key=key, store=MemoryRunStore(), first_attempt=True, **options)

    before = len(server.record().started)
    with pytest.raises(ValidationError, match="amuont"):
        call(strict_variables=True)
    assert len(server.record().started) == before
    with caplog.at_level(logging.WARNING):
        call()
    assert "amuont" in caplog.text
    assert len(server.record().started) == before + 1

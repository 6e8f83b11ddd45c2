"""Tasks that a task runner runs in other processes, where Prefect makes the flow's context anew for each."""

from __future__ import annotations

import pytest

from orchestration_integrations.server import EmbeddedServer

from .conftest import defined, short
from .pooled_flows import several

REFUSED = ("KeyReusedError", "RecordConflictError")
"""Which of the two depends on whether both calls came at the same moment."""


@pytest.mark.usefixtures("prefect_api")
def test_equal_calls_beside_each_other_never_share_a_payment(server: EmbeddedServer) -> None:
    """Who gets an instance was paid for: each by one of its own. The others are refused."""
    found = several(server.url, defined(server, short()), [None] * 4)
    paid = [one for one in found if one not in REFUSED]
    assert len(paid) == len(set(paid)) >= 1
    assert len(server.record().money) == len(paid)


@pytest.mark.usefixtures("prefect_api")
def test_one_step_twice_in_an_attempt_is_refused(server: EmbeddedServer) -> None:
    found = several(server.url, defined(server, short()), ["pay", "pay", "other"])
    assert sum(one in REFUSED for one in found) == 1
    assert len(set(found)) == 3
    assert len(server.record().money) == 2

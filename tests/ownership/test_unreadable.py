"""An owned run whose state can no longer be read: cancelled or left, as for a time-out, and said so."""

from __future__ import annotations

import pytest

from orchestration_integrations import MemoryRunStore, StateUnknownError
from tests.core.test_answers import SIGN_IN, World

LONG = {"name": "d", "stages": [{"delay": {"duration": "24h"}}]}


@pytest.mark.parametrize(("on_timeout", "said", "ends"), [("cancel", "was cancelled", 1), ("leave", "left running", 0)])
def test_a_run_whose_state_cannot_be_read_is_cancelled_or_left_as_asked(kind, on_timeout, said, ends):
    world = World(kind, generation=3)
    shown: list[str] = []

    def rewrite(request, body):
        if request.method == "PUT":
            shown.clear()
            return None
        if request.method != "GET" or "/history" in request.url.path or "/instances/" not in request.url.path:
            return None
        if len(shown) > 1:
            return SIGN_IN
        if any(row["stage"] > 0 for row in body["data"].get("status") or ()):
            shown.append("released")
        return None

    with pytest.raises(StateUnknownError, match=said) as caught:
        world.hook(rewrite).run_once(LONG, run_key="k", store=MemoryRunStore(), on_timeout=on_timeout, read_budget=30)
    instance = world.hook().get_instance(caught.value.instance_id)
    assert instance.terminated is bool(ends)
    assert world.core.record().requests.get("abort_instance", 0) == ends

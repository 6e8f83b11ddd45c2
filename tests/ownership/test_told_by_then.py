"""A deadline that comes amid a payment: what the cancelled run has made by its end is told with it."""

from __future__ import annotations

import pytest

from orchestration_integrations import OrchestrationHttpHook, Settings, SqliteRunStore, WaitTimeoutError
from orchestration_integrations.server import Core, InProcessTransport, VirtualClock

PAYS = {
    "name": "pays",
    "stages": [
        {
            "send": {
                "source": {"account": {"id": "world"}},
                "destination": {"account": {"id": "shop"}},
                "amount": {"amount": "100", "asset": "EUR/2"},
            }
        }
    ],
}


@pytest.mark.parametrize("generation", [1, 3])
def test_a_payment_that_arrives_amid_the_cancel_is_told(generation, tmp_path):
    told = {True: 0, False: 0}
    for number in range(40):
        clock = VirtualClock(1.8e9 + number * 0.0137)
        core = Core(generation, clock=clock, seed=number % 7)
        with OrchestrationHttpHook(
            Settings(base_url="http://o"), clock=clock, transport=InProcessTransport(core, clock)
        ) as hook:
            store = SqliteRunStore(tmp_path / f"{number}.db")
            with pytest.raises(WaitTimeoutError) as caught:
                hook.run_once(PAYS, run_key="k", store=store, timeout=0)
        text = str(caught.value)
        by_then = "; by then it had made 1 transaction" in text
        told[by_then] += 1
        if "it was cancelled" in text and not by_then:
            assert "may have moved" in text or core.balance("shop", "EUR/2") == 0, text
        assert not by_then or len(caught.value.moved.transactions) == 1
    assert told[True] > 0

"""The token of an unknown fate that stays in the caller's file settles that fate, and no later one of the same run."""

from __future__ import annotations

import pytest

from orchestration_integrations import (
    AmbiguousRunError,
    InstanceStuckError,
    OrchestrationHttpHook,
    OwnerGoneError,
    SqliteRunStore,
    WaitTimeoutError,
)
from orchestration_integrations.server import EmbeddedServer


def sending(account):
    return {
        "send": {
            "source": {"account": {"id": "world"}},
            "destination": {"account": {"id": account}},
            "amount": {"amount": "100", "asset": "EUR/2"},
        }
    }


PAYS = {"name": "pays", "stages": [sending("shop")]}
HELD = {"name": "held", "stages": [sending("shop"), sending("shop:rest")]}


@pytest.fixture(params=[1, 2, 3])
def server(request):
    with EmbeddedServer(request.param) as running:
        yield running


@pytest.fixture
def hook(server):
    with OrchestrationHttpHook(base_url=server.url) as opened:
        yield opened


@pytest.fixture
def store(tmp_path):
    return SqliteRunStore(tmp_path / "runs.db")


def pay(hook, store, definition=PAYS, **more):
    return hook.run_once(definition, run_key="k", store=store, poll_interval=0.05, **more)


@pytest.fixture
def token(server, hook, store, request):
    """Of a run whose row comes late."""
    server.fault("run_workflow", "late_row", 1, seconds=100)
    with pytest.raises(AmbiguousRunError) as caught:
        pay(hook, store, start_timeout=1, **getattr(request, "param", {}))
    server.advance(200)
    return caught.value.token


def test_it_settles_its_own_fate(server, hook, store):
    server.fault("run_workflow", "late_row", 1, seconds=100)
    with pytest.raises(AmbiguousRunError) as caught:
        pay(hook, store, start_timeout=1)
    made = pay(hook, store, settled=caught.value.token)
    assert made.instance.id not in caught.value.candidates
    assert server.balance("shop", "EUR/2") == 100


def test_the_run_is_there_by_now(server, hook, store, token):
    made = pay(hook, store, settled=token)
    assert len(server.record().started) == 1
    assert pay(hook, store, settled=token).instance.id == made.instance.id
    assert server.balance("shop", "EUR/2") == 100


@pytest.mark.parametrize("server", [1, 3], indirect=True)
def test_it_is_cancelled_amid_its_payment(server, hook, store, token):
    """Nobody knows whether that has arrived, which is another fate."""
    server.world("ledger stopped")
    again = {"settled": token, "rerun_failed": True}
    with pytest.raises(WaitTimeoutError):
        pay(hook, store, timeout=1, **again)
    with pytest.raises(AmbiguousRunError, match="may have arrived all the same") as caught:
        pay(hook, store, timeout=1, **again)
    assert caught.value.token != token
    server.world("ledger started")
    server.advance(60)
    with pytest.raises(AmbiguousRunError):
        pay(hook, store, **again)
    assert len(server.record().started) == 1
    made = pay(hook, store, settled=caught.value.token, rerun_failed=True)
    assert len(server.record().started) == 2, "this is the word for it"
    assert made.instance.state == "succeeded"


@pytest.mark.parametrize("server", [2], indirect=True)
@pytest.mark.parametrize("token", [{"definition": HELD, "checkpoints": True}], indirect=True)
def test_it_is_held_at_a_checkpoint(server, hook, store, token):
    asked = []
    with pytest.raises(OwnerGoneError, match="held"):
        pay(
            hook, store, HELD, checkpoints=True, settled=token, wants=lambda: asked.append(1) or len(asked) < 2
        )  # fmt: skip
    with pytest.raises(InstanceStuckError, match="held"):
        pay(hook, store, HELD, checkpoints=True, settled=token)
    assert len(server.record().started) == 1

"""The token of an unknown fate that stays in the caller's file settles that fate, and no later one of the same run."""

from __future__ import annotations

import pytest

from orchestration_integrations import (
    AmbiguousRunError,
    InstanceCancelledError,
    InstanceStuckError,
    OrchestrationHttpHook,
    OwnerGoneError,
    SqliteRunStore,
    WaitTimeoutError,
    WrongServerError,
)
from orchestration_integrations.ownership.beginning import Beginning
from orchestration_integrations.ownership.request import settle_token
from orchestration_integrations.procedures.gated_start import GatedStart
from orchestration_integrations.server import EmbeddedServer
from tests.outside import eventually


class Died(BaseException):
    """The process ends here."""


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
        pay(hook, store, start_timeout=3, **getattr(request, "param", {}))
    server.advance(200)
    return caught.value.token


def test_it_settles_its_own_fate(server, hook, store):
    server.fault("run_workflow", "late_row", 1, seconds=100)
    with pytest.raises(AmbiguousRunError) as caught:
        pay(hook, store, start_timeout=3)
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


@pytest.mark.parametrize("server", [1, 3], indirect=True)
def test_the_word_about_a_run_that_no_record_has_seen_settles_it(server, hook, store, monkeypatch):
    """The process dies right after the release; somebody cancels the run amid its payment."""
    real = GatedStart.release

    def dies(self, *arguments, **options):
        yield from real(self, *arguments, **options)
        raise Died

    server.world("ledger stopped")
    with monkeypatch.context() as patch:
        patch.setattr(GatedStart, "release", dies)
        with pytest.raises(Died):
            pay(hook, store, cancel_on_interrupt=False)
    assert not store.load("k").seen
    instance_id = store.load("k").instance_id
    eventually(lambda: len(hook.get_instance(instance_id).status) > 1, "its payment is under way", every=0.02)
    hook.cancel(instance_id)
    again = {"rerun_failed": True}
    with pytest.raises(InstanceCancelledError):
        pay(hook, store, **again)
    with pytest.raises(AmbiguousRunError) as caught:
        pay(hook, store, **again)
    server.world("ledger started")
    assert pay(hook, store, settled=caught.value.token, **again).instance.id != instance_id


@pytest.mark.parametrize("server", [2, 3], indirect=True)
def test_there_are_several_by_now(server, hook, store, tmp_path):
    """The submit has no gate, and its answer is lost; then another call pays under the key."""
    keyed = {"name": "keyed", "stages": [sending("${runKey}"), sending("shop")]}
    workflow_id = hook.create_workflow(keyed).id
    server.fault("run_workflow", "late_row", 1, seconds=100)
    server.fault("run_workflow", "cut_after", 1)
    with pytest.raises(AmbiguousRunError, match="got no answer") as caught:
        pay(hook, store, workflow_id, first_attempt=True, start_timeout=3)
    server.clear_faults()
    pay(hook, SqliteRunStore(tmp_path / "other.db"), workflow_id, first_attempt=True)
    server.advance(200)
    with pytest.raises(AmbiguousRunError, match="more than one run carries the key") as several:
        pay(hook, store, workflow_id, settled=caught.value.token, start_timeout=3)
    assert len(several.value.candidates) == 2
    assert several.value.token != caught.value.token
    pay(hook, store, workflow_id, settled=several.value.token)
    assert len(server.record().started) == 3


@pytest.mark.parametrize("server", [2], indirect=True)
def test_a_word_about_shown_runs_is_about_the_server_that_showed_them(server, hook, store, tmp_path):
    """Another server shows none of them, and nothing of what has been paid since."""
    for name in "ab":
        pay(hook, SqliteRunStore(tmp_path / f"{name}.db"), first_attempt=True)
    with pytest.raises(AmbiguousRunError) as caught:
        pay(hook, store)
    pay(hook, SqliteRunStore(tmp_path / "c.db"), first_attempt=True)
    with EmbeddedServer(2) as other, OrchestrationHttpHook(base_url=other.url) as elsewhere:
        with pytest.raises(WrongServerError):
            pay(elsewhere, store, settled=caught.value.token)
        assert other.balance("shop", "EUR/2") == 0
    with pytest.raises(AmbiguousRunError):
        pay(hook, store, settled=caught.value.token)


@pytest.mark.parametrize("server", [2, 3], indirect=True)
def test_the_word_about_a_submit_of_a_new_round_is_taken_at_the_next_call(server, hook, store, tmp_path, monkeypatch):
    """Several runs were shown and settled; then the submit's answer is lost, and the list is away."""
    keyed = {"name": "keyed", "stages": [sending("${runKey}"), sending("shop")]}
    workflow_id = hook.create_workflow(keyed).id
    for name in "ab":
        pay(hook, SqliteRunStore(tmp_path / f"{name}.db"), workflow_id, first_attempt=True)
    with pytest.raises(AmbiguousRunError, match="more than one run carries the key") as several:
        pay(hook, store, workflow_id, start_timeout=3)
    real = Beginning._look_for_proof

    def away(self, lost):
        server.fault("list_instances", "status", -1, code=503)
        return real(self, lost)

    server.fault("run_workflow", "cut_before", 1)
    with monkeypatch.context() as patch:
        patch.setattr(Beginning, "_look_for_proof", away)
        with pytest.raises(AmbiguousRunError, match="got no answer") as lost:
            pay(hook, store, workflow_id, start_timeout=3, settled=several.value.token)
    assert "list" in str(lost.value), str(lost.value)
    assert lost.value.token == settle_token(store.load("k"))

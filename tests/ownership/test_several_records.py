"""One key in several records (a file in each pod, one key in two DAG runs), whose callers come one after another."""

from __future__ import annotations

import threading
from datetime import datetime, timezone

import msgspec
import pytest

from orchestration_integrations import (
    AmbiguousRunError,
    InstanceCancelledError,
    InstanceFailedError,
    KeyReusedError,
    MemoryRunStore,
    OrchestrationHttpHook,
    OwnerGoneError,
    Settings,
    SqliteRunStore,
    WaitTimeoutError,
)
from orchestration_integrations.procedures import gated_start
from orchestration_integrations.server import Core, EmbeddedServer, InProcessTransport, VirtualClock
from tests.commands import invoked
from tests.outside import eventually


def sending(account):
    return {
        "send": {
            "source": {"account": {"id": "world"}},
            "destination": {"account": {"id": account}},
            "amount": {"amount": "${amount}", "asset": "EUR/2"},
        }
    }


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """A release shows at once here; on a real server it may take some seconds."""
    monkeypatch.setattr(gated_start, "RELEASE_SHOWS_SECONDS", 0.5)


PAYS = {"name": "pays", "stages": [sending("shop")]}
LATER = {"name": "later", "stages": [{"delay": {"duration": "2s"}}, sending("shop")]}
SLOW = {"name": "slow", "stages": [sending("shop"), {"delay": {"duration": "2s"}}, sending("shop:rest")]}


@pytest.fixture(params=[1, 3])
def server(request):
    """Generations on which an abort ends a run that stands at its gate."""
    with EmbeddedServer(request.param) as running:
        yield running


@pytest.fixture
def hook(server):
    with OrchestrationHttpHook(base_url=server.url) as opened:
        yield opened


@pytest.fixture
def stores(tmp_path):
    return [SqliteRunStore(tmp_path / f"{name}.db") for name in "abc"]


def pay(hook, store, amount="100", definition=PAYS, **more):
    return hook.run_once(definition, {"amount": amount}, run_key="k", store=store, poll_interval=0.05, **more)


def paid(server):
    return server.balance("shop", "EUR/2")


class Killed(BaseException):
    """The process ends here: nothing of it is done any more."""


def kill(_):
    raise Killed


def killed_before_release(hook, store, **more):
    with pytest.raises(Killed):
        pay(hook, store, cancel_on_interrupt=False, on_chosen=kill, **more)


def test_a_run_that_was_cancelled_at_its_gate_is_not_made_up_for_twice(server, hook, stores, caplog):
    with pytest.raises(OwnerGoneError, match="it was cancelled"):
        pay(hook, stores[0], wants=lambda: False)
    made = pay(hook, stores[1])
    again = pay(hook, stores[0])
    assert again.instance.id == made.instance.id
    assert paid(server) == 100
    assert "was released beside what is on record here" in caplog.text
    assert pay(hook, stores[0]).instance.id == made.instance.id, "it is on record by now"


def test_a_run_that_was_chosen_is_not_released_beside_another(server, hook, stores):
    """The row of the first run came so late that the second caller could not see it."""
    server.fault("run_workflow", "late_row", 1, seconds=2)
    killed_before_release(hook, stores[0])
    made = pay(hook, stores[1])
    server.advance(3)
    assert pay(hook, stores[0]).instance.id == made.instance.id
    assert paid(server) == 100
    assert len(server.record().released) == 1


def test_a_chosen_run_is_released_where_no_other_was(server, hook, stores):
    killed_before_release(hook, stores[0])
    chosen = stores[0].load("k").instance_id
    assert pay(hook, stores[0]).instance.id == chosen
    assert paid(server) == 100


def test_who_reran_a_failed_run_has_rerun_it_for_all(server, hook, stores):
    with pytest.raises(WaitTimeoutError):
        pay(hook, stores[0], definition=SLOW, timeout=1.0)
    with pytest.raises(InstanceCancelledError):  # the first to ask is told how it ended
        pay(hook, stores[1], definition=SLOW, rerun_failed=True)
    made = pay(hook, stores[1], definition=SLOW, rerun_failed=True)
    assert pay(hook, stores[0], definition=SLOW, rerun_failed=True).instance.id == made.instance.id
    assert (paid(server), server.balance("shop:rest", "EUR/2")) == (200, 100)


def test_what_was_adopted_in_a_round_of_its_own_hides_no_later_run(server, hook, stores):
    """The rounds of two records have different numbers by then."""
    for store in (stores[0], stores[1]):
        with pytest.raises((WaitTimeoutError, InstanceCancelledError)):
            pay(hook, store, definition=LATER, rerun_failed=True, timeout=0.5)
    with pytest.raises(WaitTimeoutError):
        pay(hook, stores[1], definition=LATER, rerun_failed=True, timeout=0.5)
    with pytest.raises(InstanceCancelledError):
        pay(hook, stores[0], definition=LATER, rerun_failed=True)
    made = pay(hook, stores[1], definition=LATER, rerun_failed=True)
    assert pay(hook, stores[0], definition=LATER, rerun_failed=True).instance.id == made.instance.id
    assert paid(server) == 100


def test_a_payment_that_was_asked_for_besides_is_made_besides(server, hook, stores):
    """A settled key wants another payment, also of an attempt that goes on after a crash."""
    ids = [pay(hook, stores[0]).instance.id, pay(hook, stores[1]).instance.id]
    stores[1].settle("k")
    ids.append(pay(hook, stores[1]).instance.id)
    stores[0].settle("k")
    killed_before_release(hook, stores[0])
    ids.append(pay(hook, stores[0]).instance.id)
    assert len(set(ids)) == 3
    assert paid(server) == 300
    assert pay(hook, stores[0]).instance.id == ids[-1]


def test_what_makes_up_for_a_payment_besides_is_made_besides_too(server, hook, stores):
    for store in stores[:2]:
        pay(hook, store)
    stores[1].settle("k")
    pay(hook, stores[1])
    stores[0].settle("k")
    with pytest.raises(OwnerGoneError):
        pay(hook, stores[0], wants=lambda: False)
    pay(hook, stores[0])
    assert paid(server) == 300


def test_a_history_that_nobody_can_read_keeps_no_chosen_run_back(server, hook, stores, caplog):
    """It is of another key, and the engine has forgotten it. The record proves whose run the chosen one is."""
    hook.run_once(PAYS, {"amount": "7"}, run_key="other", store=stores[1], poll_interval=0.05)
    killed_before_release(hook, stores[0])
    server.fault("get_instance_history", "status", 2, code=404, error_code="NOT_FOUND")
    pay(hook, stores[0])
    assert paid(server) == 107
    assert "whether another record has released a run was not read" in caplog.text


def test_runs_of_two_first_deployments_at_once_are_found_by_whoever_comes_later(server, stores):
    """Both create the definition, and both use the one that is found from then on."""
    barrier, first = threading.Barrier(2), {}

    def deploy(key, store):
        with OrchestrationHttpHook(base_url=server.url) as hook:
            barrier.wait()
            first[key] = hook.run_once(PAYS, {"amount": "100"}, run_key=key, store=store, poll_interval=0.05)

    threads = [threading.Thread(target=deploy, args=pair) for pair in zip("mn", stores, strict=False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with OrchestrationHttpHook(base_url=server.url) as hook:
        for key in "mn":
            later = hook.run_once(PAYS, {"amount": "100"}, run_key=key, store=stores[2], poll_interval=0.05)
            assert later.instance.id == first[key].instance.id
    assert paid(server) == 200


def test_what_another_record_paid_under_the_key_is_compared(server, hook, stores):
    with pytest.raises(OwnerGoneError):
        pay(hook, stores[0], wants=lambda: False)
    pay(hook, stores[1], amount="250")
    with pytest.raises(KeyReusedError, match="its variables differ"):
        pay(hook, stores[0])
    assert paid(server) == 250


def test_several_runs_beside_the_record_are_ambiguous(server, hook, stores):
    """Somebody's first_attempt=True was not true."""
    with pytest.raises(OwnerGoneError):
        pay(hook, stores[0], wants=lambda: False)
    ids = {pay(hook, stores[1]).instance.id}
    workflow = hook.ensure_workflow(PAYS, gate=True).workflow
    ids.add(hook.start(workflow.id, {"amount": "100"}, run_key="k", first_attempt=True).id)
    with pytest.raises(AmbiguousRunError) as caught:
        pay(hook, stores[0])
    assert set(caught.value.candidates) == ids


# ---- two rounds that make up for the same run ------------------------------------------------------------

TO = {"name": "to", "stages": [{"send": {**sending("${to}")["send"]}}]}


def rerun(hook, store, to="shop", definition=TO, **more):
    variables = {"amount": "100", "to": to}
    return hook.run_once(definition, variables, run_key="k", store=store, rerun_failed=True, poll_interval=0.05, **more)


def rerun_killed_before_release(hook, store, to="shop", definition=TO):
    """It is seen to stand at its gate."""
    with pytest.raises(Killed):
        rerun(hook, store, to, definition, cancel_on_interrupt=False, on_chosen=kill)
    instance_id = store.load("k").instance_id
    eventually(lambda: hook.get_instance_history(instance_id), "it stands at its gate", every=0.02)


def killed_reruns(hook, server, stores, gap):
    """Both have failed, and both make up for it: two runs stand at their gates, the second in a later round."""
    for store in stores[:2]:
        with pytest.raises(InstanceFailedError):
            rerun(hook, store, "bad account!")
    for store in (stores[1], stores[0]):
        rerun_killed_before_release(hook, store)
        server.advance(gap)
    assert [store.load("k").round for store in stores[:2]] == [2, 1]


GENERATIONS = pytest.mark.parametrize("server", [1, 2, 3], indirect=True)


@GENERATIONS
@pytest.mark.parametrize("gap", [0, 360, 86_400])
def test_an_older_run_that_is_released_later_is_found(server, hook, stores, gap):
    """It stood at its gate when the new round began, which is when the record looked last."""
    killed_reruns(hook, server, stores, gap)
    waits, made = stores[0].load("k").instance_id, rerun(hook, stores[1])
    assert rerun(hook, stores[0]).instance.id == made.instance.id
    assert paid(server) == 100
    assert waits not in stores[0].load("k").former, "it still stands there, and may be released by another record"


@GENERATIONS
@pytest.mark.parametrize("to", ["bad account!", "shop"])
def test_what_a_run_makes_up_for_is_no_payment_elsewhere(server, hook, stores, to):
    """The record does not know that it was its own: an older version kept no former runs."""
    with pytest.raises(InstanceFailedError):
        rerun(hook, stores[0], "bad account!")
    rerun_killed_before_release(hook, stores[0], to)
    record = stores[0].load("k")
    stores[1].save(msgspec.structs.replace(record, former=(), revision=1))
    if to == "shop":
        assert rerun(hook, stores[1], to).instance.id == record.instance_id
    else:
        with pytest.raises(InstanceFailedError, match=record.instance_id):
            rerun(hook, stores[1], to)
    assert paid(server) == (100 if to == "shop" else 0)


@GENERATIONS
def test_a_word_about_what_waits_says_nothing_of_what_has_paid_since(server, hook, stores):
    with pytest.raises(InstanceFailedError):
        rerun(hook, stores[0], "bad account!")
    rerun_killed_before_release(hook, stores[0])
    with pytest.raises(AmbiguousRunError, match="in a later round") as caught:
        rerun(hook, stores[2])
    rerun(hook, stores[0])
    stores[0].settle("k")
    rerun_killed_before_release(hook, stores[0])
    with pytest.raises(AmbiguousRunError, match="in a later round") as later:
        rerun(hook, stores[2], settled=caught.value.token)
    assert later.value.token != caught.value.token
    assert paid(server) == 100


@GENERATIONS
def test_the_word_counts_in_each_new_store(server, hook, stores):
    """A process without a file is given it by its caller."""
    killed_reruns(hook, server, stores, 0)
    rerun(hook, stores[1])
    told = []
    for _ in range(2):
        with pytest.raises(AmbiguousRunError) as caught:
            rerun(hook, MemoryRunStore())
        told.append(caught.value.token)
    assert told[0] == told[1]
    made = rerun(hook, MemoryRunStore(), settled=told[0]).instance.id
    assert made not in caught.value.candidates
    assert rerun(hook, MemoryRunStore(), settled=told[0]).instance.id == made, (
        "the runs that stand there are others now"
    )
    assert paid(server) == 200


@pytest.mark.parametrize("generation", [1, 2, 3])
def test_how_far_back_to_look_is_heard_beside_a_doubt(generation, stores):
    clock = VirtualClock(1.8e9)
    core = Core(generation, clock=clock)

    def hook():
        return OrchestrationHttpHook(
            Settings(base_url="http://o"), clock=clock, transport=InProcessTransport(core, clock)
        )

    began = datetime.fromtimestamp(clock.time() - 60, timezone.utc)
    made = pay(hook(), stores[0]).instance.id
    clock.sleep(30 * 86_400)
    for _ in range(2):  # two new pods, which look back seven days
        core.fault("run_workflow", "late_row", 1, seconds=100)
        killed_before_release(hook(), MemoryRunStore())
    clock.sleep(200)
    with pytest.raises(AmbiguousRunError, match="several unreleased runs"):
        pay(hook(), stores[1])
    assert pay(hook(), stores[1], since=began).instance.id == made
    assert core.balance("shop", "EUR/2") == 100


@GENERATIONS
def test_a_doubt_about_a_gated_run_lets_none_without_a_gate_pass(server, hook, stores):
    killed_reruns(hook, server, stores, 0)
    rerun(hook, stores[1])
    with pytest.raises(AmbiguousRunError):
        rerun(hook, stores[2])
    ungated = hook.create_workflow(TO).id
    with pytest.raises(AmbiguousRunError, match=r"without a gate|has no gate"):
        rerun(hook, stores[2], definition=ungated, start_timeout=3)
    assert paid(server) == 100


@GENERATIONS
def test_whoever_settles_a_key_without_a_record_pays_anew(server, hook, stores):
    killed_reruns(hook, server, stores, 0)
    known = {stores[0].load("k").instance_id, rerun(hook, stores[1]).instance.id}
    with pytest.raises(AmbiguousRunError):
        rerun(hook, stores[2])
    stores[2].settle("k")
    made = rerun(hook, stores[2]).instance.id
    assert made not in known
    assert rerun(hook, stores[2]).instance.id == made
    assert paid(server) == 200


@GENERATIONS
def test_whoever_has_no_record_releases_nothing_beside_a_payment(server, hook, stores):
    """Only a record tells whether somebody wants the run of the later round as another payment."""
    killed_reruns(hook, server, stores, 0)
    waits, made = stores[0].load("k").instance_id, rerun(hook, stores[1]).instance.id
    with pytest.raises(AmbiguousRunError, match="whether somebody wants that as another payment") as caught:
        rerun(hook, stores[2])
    assert caught.value.candidates[-2:] == (made, waits)
    assert caught.value.token
    with pytest.raises(AmbiguousRunError):
        hook.start(hook.get_instance(made).workflow_id, {"amount": "100", "to": "shop"}, run_key="k")
    assert paid(server) == 100
    if server.core.generation != 2:
        hook.cancel(waits)
        assert rerun(hook, stores[2]).instance.id == made, "the key stands for it, as the error says"
        assert paid(server) == 100


@GENERATIONS
def test_the_word_about_it_settles_it(server, hook, stores):
    killed_reruns(hook, server, stores, 0)
    known = {stores[0].load("k").instance_id, rerun(hook, stores[1]).instance.id}
    with pytest.raises(AmbiguousRunError) as caught:
        rerun(hook, stores[2])
    word = {"settled": caught.value.token}
    another = rerun(hook, stores[2], **word).instance.id
    assert another not in known
    assert rerun(hook, stores[2], **word).instance.id == another, "and no later one"
    assert rerun(hook, SqliteRunStore(f"{stores[0].path}.another"), **word).instance.id == another
    assert paid(server) == 200


@GENERATIONS
def test_the_payment_can_be_named(server, hook, stores):
    killed_reruns(hook, server, stores, 0)
    waits, made = stores[0].load("k").instance_id, rerun(hook, stores[1]).instance.id
    with pytest.raises(AmbiguousRunError):
        rerun(hook, stores[2])
    found = invoked("reconcile", "--run-key", "k", "--store", stores[2].path, "--url", server.url)
    assert f"without that record it says AmbiguousRunError; or, if nobody wants it: cancel {waits}" in found.stdout
    adopt = ["runs", "adopt", "k", "--store", str(stores[2].path), "--url", server.url, "--yes"]
    refused = invoked(*adopt, waits)
    assert (refused.exit_code, "was not released" in refused.stderr) == (2, True)
    done = invoked(*adopt, made)
    assert done.exit_code == 0, done.stderr
    assert rerun(hook, stores[2]).instance.id == made
    assert paid(server) == 100


@GENERATIONS
@pytest.mark.parametrize("to", ["bad account!", "shop"])
def test_whoever_has_no_record_makes_up_for_nothing(server, hook, stores, to):
    """Nobody has asked this caller for another payment, also where the last one has failed or was cancelled."""
    two = {**TO, "stages": [*TO["stages"], sending("bad account!")]}
    with pytest.raises(InstanceFailedError):
        rerun(hook, stores[0], to, definition=two)
    rerun_killed_before_release(hook, stores[0], to, definition=two)
    with pytest.raises(AmbiguousRunError):
        rerun(hook, stores[2], to, definition=two)
    with pytest.raises(InstanceFailedError):
        rerun(hook, stores[0], to, definition=two)
    assert paid(server) == (200 if to == "shop" else 0)


@pytest.mark.parametrize("server", [1, 3], indirect=True)
def test_the_word_about_several_runs_beside_the_record_settles_them(server, hook, stores):
    with pytest.raises(OwnerGoneError):
        pay(hook, stores[0], wants=lambda: False)
    pay(hook, stores[1])
    hook.start(hook.ensure_workflow(PAYS, gate=True).workflow.id, {"amount": "100"}, run_key="k", first_attempt=True)
    with pytest.raises(AmbiguousRunError) as caught:
        pay(hook, stores[0])
    killed_before_release(hook, stores[0], settled=caught.value.token)
    made = pay(hook, stores[0]).instance.id
    assert made not in caught.value.candidates
    eventually(lambda: paid(server) == 300, "all three have paid", every=0.05)


def test_a_word_about_a_fate_that_is_known_by_now_asks_for_no_other_payment(server, hook, stores):
    server.fault("run_workflow", "late_row", 1, seconds=100)
    with pytest.raises(AmbiguousRunError) as caught:
        pay(hook, stores[0], start_timeout=3)
    stale = {"settled": caught.value.token}
    server.advance(200)
    with pytest.raises(OwnerGoneError, match="it was cancelled"):
        pay(hook, stores[0], wants=lambda: False, **stale)
    made = pay(hook, stores[1])
    assert pay(hook, stores[0], **stale).instance.id == made.instance.id
    assert paid(server) == 100

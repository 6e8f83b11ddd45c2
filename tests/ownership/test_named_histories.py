"""Histories that once went wrong, or that are easy to get wrong, each by its name."""

from __future__ import annotations

import threading
import time
import uuid

import pytest

from orchestration_integrations import (
    InstanceFailedError,
    KeyReusedError,
    MemoryRunStore,
    OrchestrationHttpHook,
    OwnerGoneError,
    RecordConflictError,
    SqliteRunStore,
)
from orchestration_integrations.ownership.request import OwnedRequest
from orchestration_integrations.procedures.key_lock import KeyLock
from orchestration_integrations.server import EmbeddedServer
from tests.gates import releases_of


def sending(shop="shop"):
    return {
        "send": {
            "source": {"account": {"id": "world"}},
            "destination": {"account": {"id": shop}},
            "amount": {"amount": "${amount}", "asset": "USD/2"},
        }
    }


PAYS = {"name": "pays", "stages": [sending()]}
FAILS = {"name": "fails", "stages": [sending("bad account!")]}
LONG = {"name": "long", "stages": [{"delay": {"duration": "1h"}}, sending()]}


@pytest.fixture(params=[2, 3])
def server(request):
    with EmbeddedServer(request.param) as running:
        yield running


@pytest.fixture
def hook(server):
    with OrchestrationHttpHook(base_url=server.url, timeout=5.0) as opened:
        yield opened


@pytest.fixture
def store(tmp_path):
    return SqliteRunStore(tmp_path / "runs.db")


def waiting_by(hook):
    return lambda instance_id, guard: hook.waiting_for(instance_id, guard=guard)


def attempt(hook, store, name, *, owner=None, on_chosen=None, workflow=PAYS, amount=100, **more):
    """An attempt as a process of its own would make it."""
    request = OwnedRequest(
        workflow=workflow, variables={"amount": amount}, run_key="k", attempt=name, how=more.pop("how", "again"), **more
    )
    run = hook.owning(request, store=store, owner=owner, on_chosen=on_chosen)
    run._key_lock = KeyLock(uuid.uuid4().hex, "k")
    return run


def test_a_superseded_try_whose_slow_answer_arrives_after_the_next_has_released(server, hook, store):
    hook.ensure_workflow(PAYS, gate=True)
    server.fault("run_workflow", "stall", 1, seconds=1.5)
    slow = attempt(hook, store, "try 1")
    outcome = []

    def begin():
        try:
            outcome.append(hook.perform(slow.begin()))
        except RecordConflictError as error:
            outcome.append(error)

    first = threading.Thread(target=begin)
    first.start()
    time.sleep(0.4)  # its submit is under way
    second = attempt(hook, store, "try 2")
    instance = hook.perform(second.begin())
    result = hook.perform(second.attend(instance.id, waiting_by(hook)))
    first.join(30)
    assert isinstance(outcome[0], RecordConflictError)
    record = server.record()
    assert len(releases_of(record, "k")) == 1
    assert [one["instance_id"] for one in record.money] == [result.instance.id]
    assert record.aborts == []


def test_killed_after_told_and_before_the_framework_stored_success(server, hook, store):
    first = attempt(hook, store, "try 1")
    instance = hook.perform(first.begin())
    hook.perform(first.attend(instance.id, waiting_by(hook)))
    first.close()  # killed here: the end is told, and Airflow or Prefect never heard of it
    second = attempt(hook, store, "try 2")
    assert hook.perform(second.begin()).id == instance.id
    assert hook.perform(second.attend(instance.id, waiting_by(hook))).instance.state == "succeeded"
    assert server.balance("shop", "USD/2") == 100


def test_a_second_call_of_one_attempt_is_refused_and_one_that_raised_is_taken_up(server, hook, store):
    first = attempt(hook, store, "try 1", workflow=LONG)
    instance = hook.perform(first.begin())
    first.close()  # it raised without an end
    again = attempt(hook, store, "try 1", workflow=LONG)
    assert hook.perform(again.begin()).id == instance.id
    hook.perform(again.returned())
    again.close()
    with pytest.raises(KeyReusedError) as caught:
        hook.perform(attempt(hook, store, "try 1", workflow=LONG).begin())
    assert (caught.value.differs, caught.value.instance_id) == ("caller", instance.id)
    assert hook.perform(attempt(hook, store, "try 2", workflow=LONG).begin()).id == instance.id


def test_a_process_that_goes_on_for_an_attempt_of_the_past_touches_nothing(server, hook, store):
    """A deferral that is resumed late, after another try had settled the key and begun its own run."""
    first = attempt(hook, store, "try 1", workflow=FAILS)
    old = hook.perform(first.begin())
    with pytest.raises(InstanceFailedError):
        hook.perform(first.attend(old.id, waiting_by(hook)))
    first.close()
    new = hook.perform(attempt(hook, store, "try 2", workflow=LONG, how="new").begin())
    resumed = attempt(hook, store, "try 1", workflow=FAILS)
    hook.perform(resumed.load())
    assert resumed.superseded
    with pytest.raises(InstanceFailedError):
        hook.perform(resumed.attend(old.id, waiting_by(hook)))
    assert hook.perform(resumed.stop(1)) is None
    stored = store.load("k")
    assert (stored.attempt, stored.instance_id, stored.state, stored.end) == ("try 2", new.id, "chosen", None)
    assert server.record().aborts == []


def test_the_owner_changes_its_mind_between_the_submit_and_the_release(server, hook, store):
    wishes = iter(["superseded"])
    with pytest.raises(OwnerGoneError) as caught:
        hook.perform(attempt(hook, store, "try 1", owner=lambda: next(wishes)).begin())
    assert caught.value.superseded
    assert server.record().aborts == []
    assert releases_of(server.record(), "k") == []
    assert hook.perform(attempt(hook, store, "try 2", owner=lambda: "yes").begin()).id == caught.value.instance_id


def test_a_new_run_is_not_started_beside_one_that_goes_on(hook, server, store):
    """Only generation 3 can cancel; on generation 2 the old run goes on, and is waited for."""
    first = attempt(hook, store, "try 1", workflow=LONG)
    old = hook.perform(first.begin())
    first.close()
    cleared = hook.perform(attempt(hook, store, "try 2", workflow=LONG, how="new").begin())
    ended = {one["instance_id"]: one["error"] for one in server.record().ended}
    if cleared.id == old.id:
        assert ended == {}
    else:
        assert ended == {old.id: "canceled"}
        assert store.load("k").round == 1


def test_a_clear_with_other_content_tells_the_old_end_once(server, hook, store):
    first = attempt(hook, store, "try 1", workflow=FAILS)
    old = hook.perform(first.begin())
    first.close()
    end = time.monotonic() + 20
    while not hook.get_instance(old.id).terminated:
        assert time.monotonic() < end
        time.sleep(0.05)
    cleared = attempt(hook, store, "try 2", workflow=FAILS, amount=250, how="new")
    with pytest.raises(KeyReusedError, match="which has failed") as caught:
        hook.perform(cleared.begin())
    assert (caught.value.differs, caught.value.instance_id) == ("variables.amount", old.id)
    cleared.close()
    again = attempt(hook, store, "try 3", workflow=FAILS, amount=250, how="new")
    assert hook.perform(again.begin()).id != old.id
    assert store.load("k").round == 1


def test_a_lost_answer_of_a_save_does_not_make_a_stranger_of_its_own_attempt(server, hook, store):
    run = attempt(hook, store, "try 1", workflow=LONG)
    hook.perform(run.begin())
    store.save(run.record.changed(hold=True))  # stored, and its answer was lost
    outcome = hook.perform(run.stop(1.5))
    assert outcome is not None
    assert outcome.abort_answer
    assert not run.superseded


class OverwritingStore(MemoryRunStore):
    """A store that cannot compare: the last save stands. Something can happen right before the first choice."""

    def __init__(self):
        super().__init__()
        self.saved = {}
        self.before_choice = None

    def load(self, key):
        return self.saved.get(key)

    def save(self, record):
        self.saved[record.key] = record

    def choose(self, key, round, instance_id):
        happens, self.before_choice = self.before_choice, None
        if happens is not None:
            happens()
        return super().choose(key, round, instance_id)

    def settle(self, key):
        super().settle(key)
        self.saved[key] = super().load(key)


def test_a_settled_key_lets_one_new_run_start_and_not_one_more_for_whoever_comes_second(server, hook):
    store, others = OverwritingStore(), []
    store.settle("k")

    def another_pays_and_dies_before_it_tells():
        with OrchestrationHttpHook(base_url=server.url, timeout=5.0) as other:
            renamed = {**PAYS, "name": "renamed"}  # so that it does not find the run that waits
            instance = other.perform(attempt(other, store, "try 3", workflow=renamed).begin())
            others.append(other.wait(instance.id).instance.id)

    store.before_choice = another_pays_and_dies_before_it_tells
    second = attempt(hook, store, "try 2")
    instance = hook.perform(second.begin())
    assert [instance.id] == others
    assert server.balance("shop", "USD/2") == 100

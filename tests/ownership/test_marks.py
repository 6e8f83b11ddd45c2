"""The marks that waiters and stops leave for each other: whoever says that a run is held says the truth."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any

import pytest

from orchestration_integrations import (
    InstanceStuckError,
    MemoryRunStore,
    OrchestrationError,
    OrchestrationHttpHook,
    OwnerGoneError,
    Settings,
    SqliteRunStore,
    WaitTimeoutError,
)
from orchestration_integrations.http_hook.steps import Ended, advance
from orchestration_integrations.ownership.keeping import resume
from orchestration_integrations.ownership.marks import variable_name
from orchestration_integrations.ownership.record import RunRecord
from orchestration_integrations.ownership.request import OwnedRequest
from orchestration_integrations.procedures.content import UNKNOWN
from orchestration_integrations.procedures.limits import HELD_AFTER
from orchestration_integrations.procedures.wait_arguments import WaitArguments
from orchestration_integrations.server import Core, InProcessTransport, VirtualClock
from tests.simulation import mutants

KEY = "k"
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


def sending(amount: int) -> dict[str, Any]:
    return {
        "send": {
            "source": {"account": {"id": "world"}},
            "destination": {"account": {"id": "shop"}},
            "amount": {"amount": str(amount), "asset": "USD/2"},
        }
    }


PAYOUT = {"name": "payout", "stages": [sending(1), sending(2)]}


class Place(dict):
    """A framework's place of marks."""

    def read(self, name):
        return self.get(name)

    def write(self, name, text):
        self[name] = text

    def remove(self, name):
        self.pop(name, None)


class PlacedStore(MemoryRunStore):
    """A framework's store: the last writer of a record wins, and marks have a place of their own."""

    def __init__(self):
        super().__init__()
        self.mark_place = Place()

    def save(self, record):
        self._records[record.key] = record


@pytest.fixture(params=["in the record", "in a file", "in a place of their own"])
def store(request, tmp_path):
    if request.param == "in a file":
        return SqliteRunStore(tmp_path / "runs.db")
    return PlacedStore() if request.param == "in a place of their own" else MemoryRunStore()


@pytest.fixture(params=[1, 2, 3])
def generation(request):
    return request.param


class World:
    """A server on a virtual clock, and hooks of processes that share a store."""

    def __init__(self, generation, store):
        self.clock = VirtualClock()
        self.core = Core(generation, clock=self.clock, seed=1, faults=False)
        self.store = store

    def hook(self):
        settings = Settings(base_url="http://orchestration")
        return OrchestrationHttpHook(settings, clock=self.clock, transport=InProcessTransport(self.core, self.clock))

    def process(self, attempt="try 1"):
        """A process of an attempt, with what its guard will be asked by."""
        request = OwnedRequest(workflow=PAYOUT, run_key=KEY, attempt=attempt, how="again", checkpoints=True)
        hook = self.hook()
        run = hook.owning(request, store=self.store)
        return hook, run

    def paid(self):
        return sum(one["posting"]["amount"] for one in self.core.record().money)

    def at_the_checkpoint(self):
        """Start a run, and leave it standing before its second payment."""
        hook, run = self.process()
        instance = hook.perform(run.begin())
        run.close()
        self.clock.sleep(5)
        assert self.paid() == 1
        return instance.id

    def waiter(self):
        """Another process of the attempt that has the run."""
        hook, run = self.process()
        hook.perform(run.load())
        return hook, run


@pytest.fixture
def world(store):
    return World(2, store)


def following(hook, procedure, step):
    """The effect of a procedure that follows one."""
    try:
        return advance(procedure, hook.effect(step), None)
    except OrchestrationError as error:
        return advance(procedure, None, error)


def begin(hook, procedure, count):
    """Perform the first effects of a procedure. Returns what performs the rest and gives its result."""
    step = advance(procedure, None, None)
    for _ in range(count):
        step = following(hook, procedure, step)

    def rest():
        nonlocal step
        while not isinstance(step, Ended):
            step = following(hook, procedure, step)
        return step.value

    return rest


UNTIL_ANNOUNCED = 3
"""Effects of a guard without an owner: look for a stop, look for an announcement, announce."""


def test_an_announced_pass_on_which_another_waiter_relies_is_never_taken_back(world):
    """Two processes of one attempt stand at one checkpoint. One has announced the pass and the other has relied on
    that when a stop is put up: the first must not say that the run is held, since the other is about to send."""
    world.at_the_checkpoint()
    one_hook, one = world.waiter()
    rest = begin(one_hook, one.guard(1), UNTIL_ANNOUNCED)
    other_hook, other = world.waiter()
    assert other_hook.perform(other.guard(1)) == "pass"
    stop_hook, stop = world.waiter()
    assert stop_hook.perform(stop.stop(1.0, by="a user")).status == "not_confirmed"
    assert rest() == "held amid pass"
    assert stop_hook.perform(stop.stop(1.0, by="a user")).status == "not_confirmed"


def test_an_attempt_that_its_record_calls_superseded_lets_nothing_pass(world):
    """Whatever its owner says: another attempt has the run."""
    world.at_the_checkpoint()
    hook, run = world.waiter()
    run.keeper.superseded = True
    with pytest.raises(OwnerGoneError, match="another attempt has the run"):
        hook.perform(run.guard(1))
    assert world.paid() == 1


def test_a_guard_that_looks_for_a_stop_only_before_it_announces_is_noticed():
    """Histories meet that moment too rarely."""
    with mutants.looks_for_a_stop_before_it_announces(), pytest.raises(AssertionError):
        test_an_announced_pass_on_which_another_waiter_relies_is_never_taken_back(World(2, MemoryRunStore()))


def test_a_stop_that_stands_before_the_pass_is_announced_holds_the_run(world):
    world.at_the_checkpoint()
    stop_hook, stop = world.waiter()
    outcome = stop_hook.perform(stop.stop(5.0, by="a user"))
    assert (outcome.status, outcome.checkpoint) == ("held", 1)
    hook, run = world.waiter()
    assert hook.perform(run.guard(1)) == "held"
    assert hook.perform(run.guard(1)) == "held"  # the first time announced nothing


def test_a_hold_is_taken_back_wherever_it_stands(world, store):
    instance_id = world.at_the_checkpoint()
    assert world.hook().cancel(instance_id, store=store, run_key=KEY).status == "held"
    hook, run = world.process("try 2")
    with pytest.raises(InstanceStuckError, match="held by a stop"):
        hook.perform(run.begin())
    run.close()
    resume(store, KEY)
    hook, run = world.process("try 3")
    result = hook.perform(run.run(lambda one, guard: hook.waiting_for(one, guard=guard)))
    run.close()
    assert (result.instance.state, world.paid()) == ("succeeded", 3)


def test_a_run_is_not_held_by_a_stop_that_was_taken_back_meanwhile(world, store):
    instance_id = world.at_the_checkpoint()
    hook = world.hook()
    procedure = hook.plans.cancel(instance_id, 15.0, store, KEY)
    begun = world.clock.time()
    step = advance(procedure, None, None)
    resumed = False
    while not isinstance(step, Ended):
        if not resumed and world.clock.time() - begun > 9:
            resumed = True
            resume(store, KEY)
        step = following(hook, procedure, step)
    assert (step.value.status, step.value.checkpoint) == ("not_confirmed", 1)


def test_a_stop_on_record_whose_mark_was_lost_is_put_up_again():
    """A waiter looks at the place of the marks and not into the record: a run is held only by what stands there."""
    world = World(2, store := PlacedStore())
    instance_id = world.at_the_checkpoint()
    record = store.load(KEY)
    store.save(record.changed(hold=True, held_by="a user"))
    hook, run = world.process("try 2")
    with pytest.raises(InstanceStuckError, match="held by a stop"):
        hook.perform(run.begin())
    run.close()
    assert "a user" in store.mark_place[f"hold/{instance_id}"]


def test_a_stop_that_could_not_be_put_up_holds_nothing():
    """A store that is away keeps no run from being stopped, but nothing is held by it."""

    class Away(MemoryRunStore):
        away = False

        def save(self, record):
            if self.away:
                raise OSError("away")
            super().save(record)

    world = World(2, store := Away())
    instance_id = world.at_the_checkpoint()
    store.away = True
    outcome = world.hook().cancel(instance_id, store=store, run_key=KEY)
    assert (outcome.status, outcome.checkpoint) == ("not_confirmed", 1)
    hook, run = world.waiter()
    outcome = hook.perform(run.stop(5.0))
    assert (outcome.status, outcome.checkpoint) == ("not_confirmed", 1)


def test_marks_that_cannot_be_read_hold_nothing_and_let_nothing_pass():
    world = World(2, store := PlacedStore())
    instance_id = world.at_the_checkpoint()

    def away(name):
        raise OSError("away")

    store.mark_place.read = away
    assert world.hook().cancel(instance_id, store=store, run_key=KEY).status == "not_confirmed"
    hook, run = world.waiter()
    with pytest.raises(WaitTimeoutError, match="could not be found out"):
        hook.perform(
            run.attend(
                instance_id,
                lambda one, guard: hook.waiting_for(one, WaitArguments(timeout=20.0), guard=guard),
                on_timeout="leave",
            )
        )
    assert world.paid() == 1


def test_a_cancel_from_outside_is_held_ten_seconds_after_its_stop_and_not_before(generation, store):
    world = World(generation, store)
    instance_id = world.at_the_checkpoint()
    begun = world.clock.time()
    outcome = world.hook().cancel(instance_id, store=store, run_key=KEY)
    took = world.clock.time() - begun
    if generation == 2:
        assert (outcome.status, outcome.checkpoint) == ("held", 1)
        assert 10 <= took < 12
        world.clock.sleep(600)
        assert world.paid() == 1
    else:
        assert outcome.status == "cancelled"
        assert took < 1


def test_a_cancel_from_outside_that_is_over_before_is_not_confirmed(world, store):
    instance_id = world.at_the_checkpoint()
    outcome = world.hook().cancel(instance_id, store=store, run_key=KEY, timeout=8)
    assert (outcome.status, outcome.checkpoint) == ("not_confirmed", 1)


def test_the_waiter_itself_holds_its_run_at_once(generation, store):
    world = World(generation, store)
    world.at_the_checkpoint()
    hook, run = world.waiter()
    begun = world.clock.time()
    outcome = hook.perform(run.stop(15.0, by="its owner"))
    assert outcome.status == ("held" if generation == 2 else "cancelled")
    assert world.clock.time() - begun < HELD_AFTER + 1.5  # the longest pause between two looks is 1.25 s
    assert world.store.load(KEY).held_by == "its owner"


def test_without_a_record_a_cancel_only_says_where_the_run_stands():
    world = World(2, MemoryRunStore())
    instance_id = world.at_the_checkpoint()
    outcome = world.hook().cancel(instance_id)
    assert (outcome.status, outcome.checkpoint) == ("not_confirmed", 1)


def test_a_pass_that_lies_in_the_queue_keeps_a_run_from_being_called_held(world, store):
    """Wrong events came together with the pass, and its waiter died: any later event takes the pass out."""
    instance_id = world.at_the_checkpoint()
    hook, run = world.waiter()
    waiting = hook.waiting_for(instance_id, guard=run.guard)
    step = advance(waiting, None, None)
    while getattr(getattr(step, "call", None), "operation", "") != "send_event":
        step = following(hook, waiting, step)
    other = world.hook()
    other.send_event(instance_id, "who knows")
    for name in ("who knows", "who knows"):
        other.send_event(instance_id, name)
    hook.effect(step)
    waiting.close()
    world.clock.sleep(5)
    outcome = world.hook().cancel(instance_id, store=store, run_key=KEY)
    assert (outcome.status, outcome.checkpoint) == ("not_confirmed", 1)


def test_a_record_of_another_run_has_no_say():
    world = World(2, MemoryRunStore())
    instance_id = world.at_the_checkpoint()
    store = MemoryRunStore()
    other = RunRecord(
        key=KEY, state="chosen", workflow_id="w", server="s", since=NOW, content=UNKNOWN, instance_id="another"
    )
    store.save(other.changed())
    with pytest.raises(Exception, match="names instance another"):
        world.hook().cancel(instance_id, store=store, run_key=KEY)


def test_a_second_stop_is_not_taken_back_by_whoever_saw_the_first(world):
    """A clear has seen a stop, and lets the run go on; meanwhile another stop was put up and told as held."""
    world.at_the_checkpoint()
    hook, run = world.waiter()
    hook.perform(run.stop(5.0, by="the first"))
    first = hook.perform(run._marks().held())
    hook.perform(run.stop(5.0, by="the second"))
    hook.perform(run._marks().let_go(first))
    stands = hook.perform(run._marks().held())
    assert stands is not None
    assert stands.by == "the second"


def test_a_saving_that_met_a_stop_keeps_by_whom(world):
    instance_id = world.at_the_checkpoint()
    hook, run = world.waiter()
    outcome = world.hook().cancel(instance_id, store=world.store, run_key=KEY)
    assert outcome.status == "held"
    hook.perform(run.returned())
    if not isinstance(world.store, PlacedStore):
        assert (world.store.load(KEY).hold, world.store.load(KEY).held_by) == (True, "a cancel from outside")


def test_a_stop_that_was_taken_back_is_not_put_up_again_by_a_late_saving(world):
    world.at_the_checkpoint()
    hook, run = world.waiter()
    hook.perform(run.stop(5.0))
    resume(world.store, KEY)
    hook.perform(run.returned())
    if not isinstance(world.store, PlacedStore):
        assert world.store.load(KEY).hold is False


def test_a_text_of_the_users_is_no_checkpoint(world):
    """A run without checkpoints waits for an event whose name looks like one of another run's checkpoints."""
    text = "go:other~1" + "0" * 16 + "~0:5"
    hook = world.hook()
    stages = [PAYOUT["stages"][0], {"wait_event": {"event": "${approval}"}}]
    request = OwnedRequest(
        workflow={"name": "approved", "stages": stages}, variables={"approval": text}, run_key=KEY, how="again"
    )
    run = hook.owning(request, store=world.store)
    instance = hook.perform(run.begin())
    run.close()
    world.clock.sleep(5)
    outcome = hook.cancel(instance.id, store=world.store, run_key=KEY)
    assert (outcome.status, outcome.checkpoint) == ("not_confirmed", None)


def test_frameworks_take_the_names_of_marks():
    assert variable_name("hold/0b-1") == "orchestration_hold_0b-1"
    assert variable_name("passing/0b-1/12") == "orchestration_passing_0b-1_12"
    strange = variable_name("hold/Ünlike an id")
    assert re.fullmatch(r"orchestration_hold_[0-9a-f]{40}", strange)

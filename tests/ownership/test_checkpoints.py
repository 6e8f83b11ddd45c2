"""Checkpoints from plain Python: a stop holds before the next payment, on every generation of the server."""

from __future__ import annotations

import threading

import pytest
from typer.testing import CliRunner

from orchestration_integrations import (
    InstanceCancelledError,
    InstanceStuckError,
    MemoryRunStore,
    OrchestrationError,
    OrchestrationHttpHook,
    OwnerGoneError,
    Settings,
    SqliteRunStore,
    ValidationError,
    WaitTimeoutError,
)
from orchestration_integrations.cli import app
from orchestration_integrations.procedures.gate import checkpointed
from orchestration_integrations.server import EmbeddedServer
from tests.conftest import open_hook
from tests.outside import eventually


def sending(shop):
    return {
        "send": {
            "source": {"account": {"id": "world"}},
            "destination": {"account": {"id": shop}},
            "amount": {"amount": "100", "asset": "USD/2"},
        }
    }


THREE = {"name": "three", "stages": [sending("a"), sending("b"), {"delay": {"duration": "1ms"}}, sending("c")]}
ALL = ["a", "b", "c"]


@pytest.fixture(params=[1, 2, 3])
def server(request):
    with EmbeddedServer(request.param) as running:
        running.number = request.param
        yield running


@pytest.fixture
def store(tmp_path):
    return SqliteRunStore(tmp_path / "runs.db")


@pytest.fixture
def hook(kind, server):
    return open_hook(kind, Settings(base_url=server.url, timeout=2.0))


def paid(server):
    return [shop for shop in ALL if server.balance(shop, "USD/2") == 100]


def run(hook, store, key="k", **options):
    return hook.run_once(THREE, run_key=key, store=store, **{"checkpoints": True, "timeout": 60, **options})


def stopped(server, error):
    """What a stop at a checkpoint is called: generation 2 cannot cancel."""
    return "held at the checkpoint before stage" in str(error) if server.number == 2 else "was cancelled" in str(error)


# ---- passing ---------------------------------------------------------------------------------------


def test_each_payment_is_asked_for_and_made_once(server, hook, store):
    asked, told = [], []
    result = run(hook, store, at_checkpoint=lambda number: asked.append(number) or True, on_stage=told.append)
    assert result.instance.state == "succeeded"
    assert (paid(server), asked) == (ALL, [1, 3])
    assert [one["stage"] for one in server.record().released] == [0, 2, 5]
    at = [(event.checkpoint, event.kind) for event in told if event.checkpoint is not None]
    assert at == [(number, kind) for number in (1, 3) for kind in ("begun", "listening", "ended")]
    assert [event.own_stage for event in told if event.kind == "ended" and event.own_stage is not None] == [0, 1, 2, 3]
    assert store.load("k").passing == (1, 3)


def test_a_later_call_goes_on_from_the_checkpoint(server, hook, store):
    """The first waiter leaves at its deadline; nothing is stopped, so the next one lets the run go on."""

    def leaves(number):
        raise RuntimeError("cannot say")

    with pytest.raises(WaitTimeoutError, match=r"checkpoint before stage 1.*could not be found out \(RuntimeError\)"):
        run(hook, store, at_checkpoint=leaves, timeout=1.5, on_timeout="leave")
    assert paid(server) == ["a"]
    run(hook, store)
    assert paid(server) == ALL


def test_a_workflow_with_checkpoints_is_known_by_its_definition(server, hook, store):
    workflow = hook.ensure_workflow(THREE, gate=True, checkpoints=True).workflow
    hook.run_once(workflow.id, run_key="k", store=store, timeout=60)
    assert paid(server) == ALL


def test_the_same_payment_with_and_without_checkpoints(server, hook, store):
    first = hook.run_once(THREE, run_key="k", store=store, timeout=60)
    assert run(hook, store).instance.id == first.instance.id
    assert server.balance("a", "USD/2") == 100


# ---- stopping --------------------------------------------------------------------------------------


def test_an_owner_that_changes_its_mind_stops_the_next_payment(server, hook, store):
    wanted = iter([True, False])
    with pytest.raises(OwnerGoneError) as caught:
        run(hook, store, wants=lambda: next(wanted))
    assert stopped(server, caught.value)
    assert caught.value.instance_id == store.load("k").instance_id
    expected = InstanceStuckError if server.number == 2 else InstanceCancelledError
    with pytest.raises(expected) as caught:
        run(hook, store)
    assert server.number != 2 or (caught.value.reason == "held" and "runs resume" in str(caught.value))
    assert paid(server) == ["a"]


def test_a_time_out_at_a_checkpoint_stops_there(server, hook, store):
    def never(number):
        raise RuntimeError

    with pytest.raises(WaitTimeoutError) as caught:
        run(hook, store, at_checkpoint=never, timeout=1.0)
    assert stopped(server, caught.value)
    assert paid(server) == ["a"]


def test_a_cancel_from_outside_holds_before_the_next_payment(server, store):
    """On generation 2 it takes the ten seconds for which a waiter's question stands."""
    with (
        OrchestrationHttpHook(base_url=server.url) as waits,
        OrchestrationHttpHook(base_url=server.url) as stops,
    ):
        reached, go_on = threading.Event(), threading.Event()
        ends = []

        def at(number):
            reached.set()
            assert go_on.wait(30)
            return True

        def wait():
            try:
                ends.append(run(waits, store, at_checkpoint=at))
            except OrchestrationError as error:
                ends.append(error)

        waiting = threading.Thread(target=wait)
        waiting.start()
        assert reached.wait(30)
        outcomes = []
        stopping = threading.Thread(
            target=lambda: outcomes.append(stops.cancel(store.load("k").instance_id, store=store, run_key="k"))
        )
        stopping.start()
        eventually(lambda: store.load("k").hold, "the stop is on record", every=0.02)
        go_on.set()
        waiting.join(60)
        stopping.join(60)
    (end,), (outcome,) = ends, outcomes
    if server.number == 2:
        assert (outcome.status, outcome.checkpoint) == ("held", 1)
        assert (type(end), end.reason) == (InstanceStuckError, "held")
        assert "a cancel from outside" in str(store.load("k").held_by)
    else:
        assert outcome.status == "cancelled"
        assert isinstance(end, InstanceCancelledError)
    assert paid(server) == ["a"]


@pytest.mark.parametrize("server", [2], indirect=True)
@pytest.mark.parametrize("known", [True, False], ids=["with too little time", "without a record"])
def test_a_cancel_that_cannot_know_says_where_it_stood(server, hook, store, known):
    def never(number):
        raise RuntimeError

    with pytest.raises(WaitTimeoutError):
        run(hook, store, at_checkpoint=never, timeout=1.0, on_timeout="leave")
    about = {"store": store, "run_key": "k"} if known else {}
    outcome = hook.cancel(store.load("k").instance_id, timeout=2.5, **about)
    assert (outcome.status, outcome.checkpoint) == ("not_confirmed", 1)


@pytest.mark.parametrize("server", [2], indirect=True)
def test_a_held_run_goes_on_once_it_is_resumed(server, hook, store):
    wanted = iter([True, False])
    with pytest.raises(OwnerGoneError):
        run(hook, store, wants=lambda: next(wanted))
    held = store.load("k").instance_id
    workflow = hook.get_instance(held).workflow_id
    said = CliRunner().invoke(app, ["unreleased", workflow, "--url", server.url, "--store", store.path])
    (line,) = said.stdout.splitlines()
    assert line.split("\t")[:2] == [held, "k"]
    assert "at the checkpoint before stage 1" in line
    assert "no longer wants it" in line
    (standing,) = hook.list_standing(workflow)
    assert (standing.instance.id, standing.run_key, standing.checkpoint) == (held, "k", 1)
    assert hook.list_unreleased(workflow) == ()
    assert CliRunner().invoke(app, ["runs", "resume", "k", "--store", store.path]).exit_code == 0
    assert run(hook, store).instance.id == held
    assert paid(server) == ALL
    assert CliRunner().invoke(app, ["runs", "resume", "k", "--store", store.path]).exit_code == 2


@pytest.mark.parametrize("server", [2], indirect=True)
def test_a_settled_key_starts_another_run_beside_the_held_one(server, hook, store):
    wanted = iter([True, False])
    with pytest.raises(OwnerGoneError):
        run(hook, store, wants=lambda: next(wanted))
    held = store.load("k").instance_id
    store.settle("k")
    assert run(hook, store).instance.id != held
    assert paid(server) == ["b", "c"]  # "a" has got 100 twice: the user said so
    assert server.balance("a", "USD/2") == 200


# ---- a wait without a record -------------------------------------------------------------------------


def test_a_wait_that_may_not_let_it_pass_ends_at_once(server, hook):
    workflow = hook.ensure_workflow(THREE, gate=True, checkpoints=True).workflow
    instance = hook.start(workflow.id, run_key="k", first_attempt=True)
    told = []
    with pytest.raises(InstanceStuckError, match="at_checkpoint=") as caught:
        hook.wait(instance.id, timeout=60, on_stage=told.append)
    assert caught.value.reason == "held"
    assert told[-1].kind == "listening"
    assert told[-1].checkpoint == 1
    with pytest.raises(OwnerGoneError, match="stands there") as caught:
        hook.wait(instance.id, timeout=60, at_checkpoint=lambda number: number < 3)
    assert (caught.value.instance_id, paid(server)) == (instance.id, ["a", "b"])
    assert hook.wait(instance.id, timeout=60, at_checkpoint=lambda number: True).instance.state == "succeeded"
    assert paid(server) == ALL


@pytest.mark.parametrize("server", [2], indirect=True)
def test_at_checkpoint_must_be_a_function(server, hook, store):
    for wrong in ("yes", 5):
        with pytest.raises(ValidationError, match="at_checkpoint"):
            hook.wait("an-id", at_checkpoint=wrong)
        with pytest.raises(ValidationError, match="at_checkpoint"):
            run(hook, store, at_checkpoint=wrong)


# ---- definitions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", [2], indirect=True)
class TestDefinitions:
    def test_they_stand_before_each_further_payment_and_are_added_once(self, hook, server):
        made = hook.ensure_workflow(THREE, gate=True, checkpoints=True)
        kinds = [next(iter(stage)) for stage in made.workflow.stages]
        assert kinds == ["wait_event", "send", "wait_event", "send", "delay", "wait_event", "send"]
        assert [made.workflow.stages[number]["wait_event"]["event"] for number in (0, 2, 5)] == [
            "go:${runGate}",
            "go:${runGate}:1",
            "go:${runGate}:3",
        ]
        again = hook.ensure_workflow(THREE, gate=True, checkpoints=True)
        from_server = {"name": "three", "stages": made.workflow.stages}
        copied = hook.ensure_workflow(from_server, gate=True, checkpoints=True)
        assert again.workflow.id == copied.workflow.id == made.workflow.id
        assert (again.created, copied.created) == (False, False)

    def test_one_without_stays_what_it_is(self, hook, server):
        without = hook.ensure_workflow(THREE, gate=True).workflow
        assert hook.ensure_workflow(THREE, gate=True, checkpoints=True).workflow.id != without.id
        assert hook.ensure_workflow(THREE, gate=True).workflow.id == without.id

    def test_they_need_a_gate(self, hook, server):
        with pytest.raises(ValidationError, match="gate=True") as caught:
            hook.ensure_workflow(THREE, checkpoints=True)
        assert caught.value.path == "checkpoints"

    def test_a_workflow_that_was_to_have_them(self, hook, server, store):
        without = hook.ensure_workflow(THREE, gate=True).workflow
        with pytest.raises(ValidationError, match="none before stage 1") as caught:
            hook.run_once(without.id, run_key="k", store=store, checkpoints=True)
        assert caught.value.path == "checkpoints"
        assert (store.load("k"), server.record().started) == (None, [])
        single = hook.ensure_workflow({"name": "one", "stages": [sending("a")]}, gate=True).workflow
        hook.run_once(single.id, run_key="single", store=store, checkpoints=True, timeout=60)  # the gate is enough

    @pytest.mark.parametrize("event", ["go:${runGate}:0", "go:${runGate}:2", "go:${runGate}"])
    def test_one_in_the_wrong_place_is_refused_before_a_start(self, hook, server, event):
        """A pass of one could open the other."""
        stages = [{"wait_event": {"event": "go:${runGate}"}}, sending("a"), {"wait_event": {"event": event}}]
        wrong = hook.create_workflow({"name": "wrong", "stages": [*stages, sending("b")]})
        with pytest.raises(ValidationError, match=r"stages\[2\].*does not belong there"):
            hook.start(wrong.id, run_key="k", first_attempt=True)
        assert server.record().started == []

    def test_an_event_of_the_users_that_could_open_one_is_refused(self, hook, server):
        stages = [*THREE["stages"], {"wait_event": {"event": "go:${other}:3"}}]
        made = hook.ensure_workflow({"name": "near", "stages": stages}, gate=True, checkpoints=True).workflow
        with pytest.raises(ValidationError, match="a release could skip it"):
            hook.start(made.id, {"other": "x"}, run_key="k", first_attempt=True)


def test_a_kind_that_nobody_knows_counts_as_a_payment():
    stages = checkpointed({"stages": [{"delay": {}}, {"pay_out": {}}, {"update": {}}, {"wait_event": {}}]})["stages"]
    assert [next(iter(stage)) for stage in stages] == [
        "wait_event",
        "delay",
        "wait_event",
        "pay_out",
        "update",
        "wait_event",
    ]


def test_a_store_of_memory_holds_too(kind):
    with EmbeddedServer(2) as server:
        hook, store, wanted = open_hook(kind, Settings(base_url=server.url)), MemoryRunStore(), iter([True, False])
        with pytest.raises(OwnerGoneError, match="it is held"):
            run(hook, store, wants=lambda: next(wanted), first_attempt=True)
        assert paid(server) == ["a"]


# ---- a stop at the gate ------------------------------------------------------------------------------


@pytest.mark.parametrize("server", [2], indirect=True)
def test_a_run_that_was_stopped_at_its_gate_is_paid_whole_by_the_next_call(server, hook, store):
    """As where the stop took effect there: nothing of it had begun. It is not stopped again after its first payment."""
    with pytest.raises(OwnerGoneError):
        run(hook, store, wants=lambda: False)
    assert paid(server) == []
    run(hook, store)
    assert paid(server) == ALL


@pytest.mark.parametrize("server", [2], indirect=True)
def test_a_stop_that_comes_while_a_run_is_being_started_is_seen_before_its_release(server, hook, store):
    def stopped_meanwhile(instance_id):
        store.save(store.load("k").held_by_stop("somebody", None))

    with pytest.raises(OwnerGoneError, match="did not release"):
        run(hook, store, on_chosen=stopped_meanwhile)
    assert paid(server) == []


# ---- what is given -----------------------------------------------------------------------------------


@pytest.mark.parametrize("server", [2], indirect=True)
@pytest.mark.parametrize("answer", ["no", 1, object(), [False], None, 0])
def test_only_true_lets_a_run_go_on(server, hook, store, answer):
    with pytest.raises(OwnerGoneError):
        run(hook, store, at_checkpoint=lambda number: answer)
    assert paid(server) == ["a"]


@pytest.mark.parametrize("server", [2], indirect=True)
@pytest.mark.parametrize("wrong", ["yes", "false", 1, None, []])
def test_checkpoints_are_true_or_false(server, hook, store, wrong):
    with pytest.raises(ValidationError, match="True or False") as caught:
        run(hook, store, checkpoints=wrong)
    assert caught.value.path == "checkpoints"
    with pytest.raises(ValidationError, match="True or False"):
        hook.ensure_workflow(THREE, gate=True, checkpoints=wrong)


@pytest.mark.parametrize("server", [2], indirect=True)
def test_a_stop_under_a_key_that_nobody_used_is_refused(server, hook, store):
    """It would stand nowhere, and the run would go on."""
    run(hook, store)
    with pytest.raises(ValidationError, match="no record of run key typo") as caught:
        hook.cancel(store.load("k").instance_id, store=store, run_key="typo")
    assert caught.value.path == "run_key"


@pytest.mark.parametrize("server", [2], indirect=True)
def test_a_settled_key_is_not_resumed(server, hook, store):
    wanted = iter([True, False])
    with pytest.raises(OwnerGoneError):
        run(hook, store, wants=lambda: next(wanted))
    store.settle("k")
    said = CliRunner().invoke(app, ["runs", "resume", "k", "--store", store.path])
    assert (said.exit_code, "is settled" in said.output) == (1, True)


@pytest.mark.parametrize("server", [2], indirect=True)
def test_a_run_that_was_started_without_checkpoints_is_told_to_have_none(server, hook, store, caplog):
    later = {"name": "three", "stages": [{"delay": {"duration": "2s"}}, *THREE["stages"]]}
    with pytest.raises(WaitTimeoutError):
        hook.run_once(later, run_key="k", store=store, timeout=0.3, on_timeout="leave")
    hook.run_once(later, run_key="k", store=store, checkpoints=True, timeout=60)
    assert "goes on as it was started" in caplog.text
    assert paid(server) == ALL

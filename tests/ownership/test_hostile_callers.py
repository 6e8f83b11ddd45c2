"""What readers who had not seen the work tried, each as the kind that it stands for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from datetime import datetime, timedelta, timezone

import anyio
import pytest

from orchestration_integrations import (
    AmbiguousRunError,
    AsyncOrchestrationHttpHook,
    InstanceCancelledError,
    InstanceFailedError,
    KeyReusedError,
    MemoryRunStore,
    NotFoundError,
    OrchestrationHttpHook,
    OwnerGoneError,
    SqliteRunStore,
    ValidationError,
    WaitTimeoutError,
)
from orchestration_integrations.http_hook import held_back, interrupts
from orchestration_integrations.procedures.moved import NOTHING_READ
from orchestration_integrations.server import EmbeddedServer
from tests.gates import releases_of


def sending(shop="shop", **more):
    return {
        "send": {
            "source": {"account": {"id": "world"}},
            "destination": {"account": {"id": shop}},
            "amount": {"amount": "${amount}", "asset": "USD/2"},
            **more,
        }
    }


PAYS = {"name": "pays", "stages": [sending()]}
LATER = {"name": "later", "stages": [{"delay": {"duration": "2s"}}, sending()]}


@pytest.fixture
def server():
    with EmbeddedServer(3) as running:
        yield running


@pytest.fixture
def hook(server):
    with OrchestrationHttpHook(base_url=server.url, timeout=3.0) as opened:
        yield opened


@pytest.fixture
def store(tmp_path):
    return SqliteRunStore(tmp_path / "runs.db")


def paid(server):
    return server.balance("shop", "USD/2")


class Old(SqliteRunStore):
    """A file that is older than any key."""

    @property
    def complete_since(self):
        return datetime.now(timezone.utc) - timedelta(days=30)


def test_a_store_that_vouches_does_not_spare_the_look_at_a_gate(server, hook, tmp_path):
    one, other = Old(tmp_path / "one.db"), Old(tmp_path / "other.db")
    first = hook.run_once(PAYS, {"amount": 100}, run_key="k", store=one)
    assert hook.run_once(PAYS, {"amount": 100}, run_key="k", store=other).instance.id == first.instance.id
    with pytest.raises(KeyReusedError):
        hook.run_once(PAYS, {"amount": 55}, run_key="k", store=Old(tmp_path / "third.db"))
    assert paid(server) == 100


def test_a_token_is_dead_once_the_fate_is_known(server, hook, store):
    workflow = hook.create_workflow({"name": "carries", "stages": [sending("${runKey}")]})
    server.fault("run_workflow", "late_row", 1, seconds=6)
    server.fault("run_workflow", "cut_after", 1)
    arguments = {"run_key": "k", "store": store, "start_timeout": 4.0}
    with pytest.raises(AmbiguousRunError) as caught:
        hook.run_once(workflow.id, {"amount": 100}, first_attempt=True, **arguments)
    token = caught.value.token
    end = time.monotonic() + 20
    while not hook.list_instances(workflow.id):
        assert time.monotonic() < end
        time.sleep(0.1)
    for _ in range(3):
        hook.run_once(workflow.id, {"amount": 100}, settled=token, **{**arguments, "start_timeout": 10})
    assert server.balance("k", "USD/2") == 100


def test_a_token_that_settles_nothing_is_told(server, hook, store, caplog):
    hook.run_once(PAYS, {"amount": 100}, run_key="k", store=store)
    hook.run_once(PAYS, {"amount": 100}, run_key="k", store=store, settled="0-mistyped")
    assert "settles nothing" in caplog.text
    assert paid(server) == 100


@pytest.mark.parametrize(
    "error",
    [
        InstanceFailedError("another one failed", instance_id="other", instance=None, moved=NOTHING_READ),
        InstanceCancelledError("another one was cancelled", instance_id="other", instance=None, moved=NOTHING_READ),
        WaitTimeoutError("another one is late", instance_id="other", instance=None, moved=NOTHING_READ),
        NotFoundError("another one is not there", status_code=404),
        KeyReusedError("another key", run_key="x", differs="caller"),
        RuntimeError("a bug"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_a_listener_says_nothing_of_the_run(kind, server, store, error):
    def listener(event):
        raise error

    if kind == "sync":
        with OrchestrationHttpHook(base_url=server.url) as hook, pytest.raises(type(error), match="a") as caught:
            hook.run_once(LATER, {"amount": 5}, run_key="k", store=store, on_stage=listener)
    else:

        async def main():
            async with AsyncOrchestrationHttpHook(base_url=server.url) as hook:
                await hook.run_once(LATER, {"amount": 5}, run_key="k", store=store, on_stage=listener)

        with pytest.raises(type(error)) as caught:
            asyncio.run(main())
    assert caught.value is error
    assert [one["error"] for one in server.record().ended] == ["canceled"]
    record = store.load("k")
    assert (record.hold, record.end) == (True, None)
    assert paid(server) == 0


def test_an_asynchronous_wants_is_awaited_or_refused(server, store):
    async def wants():
        return False

    with OrchestrationHttpHook(base_url=server.url) as hook, pytest.raises(ValidationError) as caught:
        hook.run_once(PAYS, {"amount": 5}, run_key="k", store=store, wants=wants)
    assert caught.value.path == "wants"

    async def main():
        async with AsyncOrchestrationHttpHook(base_url=server.url) as hook:
            await hook.run_once(PAYS, {"amount": 5}, run_key="k", store=store, wants=wants)

    with pytest.raises(OwnerGoneError):
        asyncio.run(main())
    assert releases_of(server.record(), "k") == []


def test_content_is_compared_where_the_workflow_is_gone(server, hook, store):
    workflow = hook.ensure_workflow(PAYS, gate=True).workflow
    first = hook.run_once(workflow.id, {"amount": 100}, run_key="k", store=store)
    hook.delete_workflow(workflow.id)
    assert hook.run_once(workflow.id, {"amount": 100}, run_key="k", store=store).instance.id == first.instance.id
    with pytest.raises(KeyReusedError) as caught:
        hook.run_once(workflow.id, {"amount": 999}, run_key="k", store=store)
    assert caught.value.differs == "variables.amount"
    with pytest.raises(NotFoundError):
        hook.run_once("00000000-0000-4000-8000-000000000000", {"amount": 100}, run_key="k", store=store)
    with pytest.raises(KeyReusedError):
        hook.start(workflow.id, {"amount": 999}, run_key="k", chosen=first.instance.id)


def test_proof_is_the_key_where_the_definition_puts_it(server, hook, store):
    workflow = hook.create_workflow(
        {"name": "tagged", "stages": [sending("${merchant}", metadata={"key": "${runKey}"})]}
    )
    hook.start(workflow.id, {"amount": 5, "merchant": "m1"}, run_key="zz", first_attempt=True)
    for key in ("m1", "world"):
        with pytest.raises(AmbiguousRunError):
            hook.start(workflow.id, {"amount": 5, "merchant": "m1"}, run_key=key, timeout=1)
    assert hook.start(workflow.id, {"amount": 5, "merchant": "m1"}, run_key="zz").id


def test_a_store_that_is_away_does_not_keep_a_run_from_being_cancelled(server, hook, store):
    with pytest.raises(WaitTimeoutError) as caught:
        hook.run_once(LATER, {"amount": 5}, run_key="k", store=store, timeout=0.3, on_timeout="leave")

    class Away(MemoryRunStore):
        def load(self, key):
            raise OSError("away")

    assert hook.cancel(caught.value.instance_id, store=Away(), run_key="k").status == "cancelled"
    assert paid(server) == 0


def test_settling_while_a_call_waits_is_not_undone(server, hook, store):
    settled = []

    def settle(event):
        if not settled:
            settled.append(store.settle("k"))

    first = hook.run_once(LATER, {"amount": 5}, run_key="k", store=store, on_stage=settle)
    assert store.load("k").settled
    assert hook.run_once(LATER, {"amount": 5}, run_key="k", store=store).instance.id != first.instance.id


def test_a_forked_child_does_not_cancel_its_parents_run(server, hook, store):
    child = None
    try:
        with hook.owned_run(LATER, {"amount": 5}, run_key="k", store=store) as run:
            child = os.fork()
            if child == 0:
                raise SystemExit
    finally:
        if child == 0:
            os._exit(0)
    os.waitpid(child, 0)
    assert run.result.instance.state == "succeeded"
    assert server.record().aborts == []


def test_a_block_can_leave_its_run(server, hook, store):
    def fail():
        with hook.owned_run(LATER, {"amount": 5}, run_key="k", store=store, cancel_on_interrupt=False):
            raise RuntimeError("after all")

    with pytest.raises(RuntimeError):
        fail()
    assert server.record().aborts == []
    assert hook.run_once(LATER, {"amount": 5}, run_key="k", store=store).instance.state == "succeeded"


def test_what_an_attempt_has_not_taken_up_it_does_not_cancel(server, hook, tmp_path, caplog):
    store = SqliteRunStore(tmp_path / "runs.db")
    with pytest.raises(WaitTimeoutError):
        hook.run_once(LATER, {"amount": 5}, run_key="k", store=store, timeout=0.3, on_timeout="leave")

    class Full(SqliteRunStore):
        def save(self, record):
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk"):
        hook.run_once(LATER, {"amount": 5}, run_key="k", store=Full(tmp_path / "runs.db"))
    assert server.record().aborts == []
    assert "may still run" in caplog.text
    assert not store.load("k").hold


def test_a_refused_first_call_leaves_no_doubt_behind(server, hook, store):
    workflow = hook.create_workflow(PAYS)
    with pytest.raises(AmbiguousRunError, match="first_attempt=True"):
        hook.run_once(workflow.id, {"amount": 5}, run_key="k", store=store, start_timeout=5)
    hook.run_once(workflow.id, {"amount": 5}, run_key="k", store=store, first_attempt=True)
    hook.run_once(workflow.id, {"amount": 5}, run_key="k", store=store, first_attempt=True)
    assert paid(server) == 5


def test_a_key_that_cannot_be_sent_is_refused(server, hook, store):
    with pytest.raises(ValidationError) as caught:
        hook.run_once(PAYS, {"amount": 5}, run_key="\ud800", store=store)
    assert caught.value.path == "run_key"


def test_a_secret_in_an_owners_error_stays_out_of_the_message(server, hook, store, monkeypatch):
    from orchestration_integrations.ownership import owned_run

    monkeypatch.setattr(owned_run, "OWNER_SECONDS", 0.5)

    def wants():
        raise OSError("postgres://user:hunter2@db")

    with pytest.raises(Exception, match="could not be found out") as caught:
        hook.run_once(PAYS, {"amount": 5}, run_key="k", store=store, wants=wants)
    assert "hunter2" not in str(caught.value)
    assert releases_of(server.record(), "k") == []


class Stopped(BaseException):
    pass


WAITS_FOR_EVER = {"name": "waits", "stages": [{"wait_event": {"event": "go"}}]}


@pytest.mark.parametrize("as_block", [False, True])
@pytest.mark.parametrize("lost", [0, 1, 2])
def test_an_interrupt_on_the_way_to_the_cancel_of_another_does_not_lose_it(
    server, hook, store, monkeypatch, lost, as_block
):
    """Nothing holds it back there yet, and it takes the place of the first one."""
    real, hits = interrupts.held_back, iter(range(lost))

    def held_back(*arguments):
        if next(hits, None) is not None:
            raise Stopped
        return real(*arguments)

    monkeypatch.setattr(interrupts, "held_back", held_back)

    def interrupted(_):
        raise KeyboardInterrupt

    def in_a_block():
        with hook.owned_run(WAITS_FOR_EVER, run_key="k", store=store):
            raise KeyboardInterrupt

    def at_once():
        hook.run_once(WAITS_FOR_EVER, run_key="k", store=store, on_stage=interrupted)

    with pytest.raises(Stopped if lost else KeyboardInterrupt) as caught:
        in_a_block() if as_block else at_once()
    assert interrupts.after_interrupt(caught.value).word == "cancelled"
    assert "it was cancelled" in str(caught.value.__notes__)
    (row,) = hook.list_instances()
    assert row.state == "cancelled"
    assert server.record().requests["abort_instance"] == 1
    assert store.load("k").hold


def test_what_breaks_a_cancel_off_begins_no_other(server, hook, store, monkeypatch):
    def broken_off(*arguments):
        raise Stopped

    monkeypatch.setattr(interrupts, "_came_of", broken_off)
    with pytest.raises(Stopped) as caught, hook.owned_run(WAITS_FOR_EVER, run_key="k", store=store):
        raise KeyboardInterrupt
    assert interrupts.after_interrupt(caught.value).word == "unknown"
    assert len(caught.value.__notes__) == 1, "it was tried once"


# ---- a run without a gate pays before it is chosen on record -------------------------------------------


class Choosing(MemoryRunStore):
    """Does something once an instance is to be chosen, or in place of that."""

    def __init__(self, now):
        super().__init__()
        self.now = now

    def choose(self, key, number, instance_id):
        self.now(key, number, instance_id)
        return super().choose(key, number, instance_id)


def fails(*_):
    raise OSError("disk full")


def interrupts_it(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("broken", [fails, interrupts_it])
def test_a_run_that_could_not_be_chosen_on_record_is_cancelled_and_named(server, hook, broken):
    store = Choosing(broken)
    with pytest.raises((OSError, KeyboardInterrupt)) as caught:
        hook.run_once(hook.create_workflow(LATER).id, {"amount": 5}, run_key="k", store=store, first_attempt=True)
    (row,) = hook.list_instances()
    assert row.state == "cancelled"
    came = interrupts.after_interrupt(caught.value)
    assert (came.word, came.instance_id) == ("cancelled", row.id)
    record = store.load("k")
    assert (record.instance_id, record.hold) == (row.id, True), "a later attempt knows that its own side cancelled it"


@pytest.mark.parametrize("cancels", [False, True])
def test_a_start_that_could_not_be_put_on_record_names_its_run(server, hook, cancels):
    workflow = hook.create_workflow(LATER).id
    with pytest.raises(OSError, match="disk full") as caught:
        hook.run_once(
            workflow, {"amount": 5}, run_key="k", store=Choosing(fails), first_attempt=True, cancel_on_interrupt=cancels
        )
    (row,) = hook.list_instances()
    assert row.state == ("cancelled" if cancels else "running")
    assert f"instance {row.id} was started, which could not be put on record" in caught.value.__notes__


def test_a_cancelled_task_cancels_the_run_that_was_not_chosen_yet(server, hook):
    chosen = threading.Event()

    def waits(*_):
        chosen.set()
        time.sleep(0.5)

    async def main():
        async with AsyncOrchestrationHttpHook(base_url=server.url) as one:
            workflow = (await one.create_workflow(LATER)).id
            call = one.run_once(workflow, {"amount": 5}, run_key="k", store=Choosing(waits), first_attempt=True)
            task = asyncio.create_task(call)
            await asyncio.to_thread(chosen.wait, 20)
            task.cancel("stop")
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
            return caught.value

    assert interrupts.after_interrupt(asyncio.run(main())).word == "cancelled"
    (row,) = hook.list_instances()
    assert row.state == "cancelled"


@pytest.mark.parametrize(("theirs", "state"), [("another run", "cancelled"), ("this very run", "running")])
def test_a_run_beside_the_one_of_its_key_is_this_attempts_alone(server, hook, theirs, state):
    """Another attempt has put a run on record at that moment: its own is left to it, one besides is nobody's."""

    def meanwhile(key, number, instance_id):
        record = store.load(key)
        known = instance_id if theirs == "this very run" else "0e7f1d7e-0000-4000-8000-000000000000"
        store.save(record.changed(state="chosen", instance_id=known, attempt="theirs"))
        raise KeyboardInterrupt

    store = Choosing(meanwhile)
    with pytest.raises(KeyboardInterrupt) as caught:
        hook.run_once(hook.create_workflow(LATER).id, {"amount": 5}, run_key="k", store=store, first_attempt=True)
    (row,) = hook.list_instances()
    assert row.state == state
    assert interrupts.after_interrupt(caught.value).word == ("cancelled" if state == "cancelled" else "superseded")
    record = store.load("k")
    assert (record.attempt, record.hold) == ("theirs", False)


# ---- cancellations of a task, one after the other --------------------------------------------------------


class Interrupting:
    """Runs a workflow that waits for ever, and notes what the interrupt of it is told."""

    def __init__(self, server):
        self.server = server
        self.begun = asyncio.Event()
        self.told = None

    async def run(self):
        def stage(event):
            self.begun.set()

        async with AsyncOrchestrationHttpHook(base_url=self.server.url) as one:
            try:
                await one.run_once(WAITS_FOR_EVER, run_key="k", store=MemoryRunStore(), on_stage=stage)
            except asyncio.CancelledError as error:
                self.told = interrupts.after_interrupt(error)
                raise


@pytest.mark.parametrize("how", ["move_on_after", "fail_after", "a task group"])
def test_a_scope_that_cancels_at_each_step_waits_for_the_end_of_the_cancel(server, hook, how):
    """Those of anyio do, and so Prefect's time limits and whatever Starlette runs."""
    server.fault("abort_instance", "stall", 1, seconds=0.8)

    async def main():
        running = Interrupting(server)
        if how == "a task group":
            async with anyio.create_task_group() as group:
                group.start_soon(running.run)
                await running.begun.wait()
                group.cancel_scope.cancel()
        elif how == "move_on_after":
            with anyio.move_on_after(1.0) as scope:
                await running.run()
            assert scope.cancelled_caught
        else:
            with pytest.raises(TimeoutError):
                with anyio.fail_after(1.0):
                    await running.run()
        return running.told

    assert asyncio.run(main()).word == "cancelled"
    (row,) = hook.list_instances()
    assert row.state == "cancelled"


@pytest.mark.parametrize(("times", "word"), [(1, "cancelled"), (2, "unknown")])
def test_a_second_cancellation_of_a_task_is_held_back_and_a_third_says_what_is_not_known(
    server, monkeypatch, caplog, times, word
):
    monkeypatch.setattr(held_back, "NERVOUS_SECONDS", 0.4)
    server.fault("abort_instance", "stall", 1, seconds=2)

    async def main(times):
        running = Interrupting(server)
        task = asyncio.create_task(running.run())
        await running.begun.wait()
        for _ in range(2):
            task.cancel()  # nervous: both count as one
            await asyncio.sleep(0.02)
        for _ in range(times):
            await asyncio.sleep(0.7)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return running.told.word

    assert asyncio.run(main(times)) == word
    assert "one more interrupt breaks the cancel off" in caplog.text


# ---- a record that is removed while its attempt waits ----------------------------------------------------


def test_a_record_that_is_gone_is_nobodys(server, hook, caplog):
    """It was taken for another attempt's: the time-out left the run alone, and said so."""
    store = MemoryRunStore()
    with pytest.raises(WaitTimeoutError, match="it was cancelled"):
        hook.run_once(WAITS_FOR_EVER, run_key="k", store=store, timeout=1, on_stage=lambda _: store._records.clear())
    (row,) = hook.list_instances()
    assert row.state == "cancelled"
    assert store.load("k") is None, "what was not known any more is not put on record anew"
    assert f"the store shows no record of instance {row.id} any more" in caplog.text


def test_a_coroutine_that_is_closed_without_its_loop_cancels_its_run(server, hook, caplog):
    """Two interrupts within a millisecond leave asyncio.run of Python 3.10 so."""
    loop = asyncio.new_event_loop()
    running = Interrupting(server)
    coroutine = running.run()
    task = loop.create_task(coroutine)
    loop.run_until_complete(asyncio.wait_for(running.begun.wait(), 20))
    loop.stop()
    loop.run_forever()
    task._log_destroy_pending = False
    with contextlib.suppress(RuntimeError):  # the hook around it cannot be closed without a loop
        coroutine.close()
    loop.close()
    (row,) = hook.list_instances()
    assert row.state == "cancelled"
    assert "it was cancelled" in caplog.text

"""A payment from plain Python: run once, whatever happens to the process, and told truthfully."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
import time

import pytest
from msgspec.structs import replace

from orchestration_integrations import (
    AmbiguousRunError,
    AsyncOrchestrationHttpHook,
    InstanceCancelledError,
    InstanceFailedError,
    KeyReusedError,
    MemoryRunStore,
    OrchestrationHttpHook,
    OwnerGoneError,
    RecordConflictError,
    RunRecord,
    Settings,
    SqliteRunStore,
    ValidationError,
    WaitTimeoutError,
    WrongServerError,
)
from orchestration_integrations.ownership.request import OwnedRequest
from orchestration_integrations.server import EmbeddedServer
from tests.conftest import open_hook
from tests.gates import releases_of


def sending(shop="shop", amount="${amount}", source="world"):
    return {
        "send": {
            "source": {"account": {"id": source}},
            "destination": {"account": {"id": shop}},
            "amount": {"amount": amount, "asset": "USD/2"},
        }
    }


PAYS = {"name": "pays", "stages": [sending()]}
LATER = {"name": "later", "stages": [{"delay": {"duration": "3s"}}, sending()]}
MUCH_LATER = {"name": "much later", "stages": [{"delay": {"duration": "1h"}}, sending()]}
UNFUNDED = {"name": "unfunded", "stages": [sending(source="empty")]}
FAILS = {"name": "fails", "stages": [sending(shop="bad account!")]}
CARRIES = {"name": "carries", "stages": [sending(shop="${runKey}")]}


@pytest.fixture(params=[1, 2, 3])
def server(request):
    with EmbeddedServer(request.param) as running:
        yield running


@pytest.fixture
def store(tmp_path):
    return SqliteRunStore(tmp_path / "runs.db")


@pytest.fixture
def hook(kind, server):
    return open_hook(kind, Settings(base_url=server.url, timeout=2.0))


def paid(server, shop="shop"):
    return server.balance(shop, "USD/2")


# ---- the same payment, another payment -------------------------------------------------------------


def test_a_key_is_paid_once_and_told_again(server, hook, store):
    first = hook.run_once(PAYS, {"amount": 100}, run_key="k", store=store)
    again = hook.run_once(PAYS, {"amount": 100}, run_key="k", store=store)
    assert first.instance.id == again.instance.id
    assert (paid(server), len(releases_of(server.record(), "k"))) == (100, 1)
    record = store.load("k")
    assert (record.state, record.end, record.instance_id) == ("told", "succeeded", first.instance.id)


def test_other_content_is_refused_and_named(server, hook, store):
    first = hook.run_once(PAYS, {"amount": 100}, run_key="k", store=store)
    with pytest.raises(KeyReusedError, match=r"variables\.amount") as caught:
        hook.run_once(PAYS, {"amount": 250}, run_key="k", store=store)
    error = caught.value
    assert (error.differs, error.run_key, error.instance_id) == ("variables.amount", "k", first.instance.id)
    with pytest.raises(KeyReusedError) as caught:
        hook.run_once({"name": "other", "stages": [sending(shop="other")]}, {"amount": 100}, run_key="k", store=store)
    assert caught.value.differs == "workflow"
    assert paid(server) == 100


def test_a_renamed_definition_is_the_same_payment(server, hook, store):
    first = hook.run_once(PAYS, {"amount": 100}, run_key="k", store=store)
    renamed = {**PAYS, "name": "renamed"}
    assert hook.run_once(renamed, {"amount": 100}, run_key="k", store=store).instance.id == first.instance.id
    assert paid(server) == 100


def test_two_workflows_by_id_are_two_payments(server, hook, store):
    one, other = (hook.ensure_workflow({**PAYS, "name": name}, gate=True).workflow for name in ("one", "other"))
    hook.run_once(one.id, {"amount": 100}, run_key="k", store=store)
    with pytest.raises(KeyReusedError) as caught:
        hook.run_once(other.id, {"amount": 100}, run_key="k", store=store)
    assert caught.value.differs == "workflow"
    assert paid(server) == 100


def test_a_change_can_be_adopted_or_ignored(server, hook, store):
    first = hook.run_once(PAYS, {"amount": 100}, run_key="k", store=store)
    adopted = hook.run_once(PAYS, {"amount": 250}, run_key="k", store=store, on_changed="adopt")
    assert adopted.instance.id == first.instance.id
    told = {"amount": 100, "asked_at": "10:00"}
    noted = hook.run_once(PAYS, told, run_key="n", store=store, fingerprint_ignores=["asked_at"])
    again = {"amount": 100, "asked_at": "10:05"}
    ignored = hook.run_once(PAYS, again, run_key="n", store=store, fingerprint_ignores=["asked_at"])
    assert ignored.instance.id == noted.instance.id
    assert paid(server) == 200


def test_start_knows_a_used_key_without_a_store(server, hook, store):
    workflow = hook.ensure_workflow(PAYS, gate=True).workflow
    first = hook.start(workflow.id, {"amount": 100}, run_key="k")
    with pytest.raises(KeyReusedError) as caught:
        hook.start(workflow.id, {"amount": 250}, run_key="k")
    assert (caught.value.differs, caught.value.instance_id) == ("content", first.id)
    with pytest.raises(KeyReusedError):
        hook.start(workflow.id, {"amount": 250}, run_key="k", chosen=first.id)
    with pytest.raises(KeyReusedError):
        hook.run_once(PAYS, {"amount": 250}, run_key="k", store=store)
    assert hook.start(workflow.id, {"amount": 250}, run_key="k", on_changed="adopt").id == first.id
    assert hook.run_once(PAYS, {"amount": 100}, run_key="k", store=store).instance.id == first.id
    assert paid(server) == 100


def test_a_chosen_run_of_another_key_is_refused(server, hook):
    workflow = hook.ensure_workflow(PAYS, gate=True).workflow
    first = hook.start(workflow.id, {"amount": 100}, run_key="k")
    with pytest.raises(ValidationError, match="of key k") as caught:
        hook.start(workflow.id, {"amount": 100}, run_key="other", chosen=first.id)
    assert caught.value.path == "chosen"


# ---- callers at once -------------------------------------------------------------------------------


def test_threads_with_one_key_start_one_run(server):
    with OrchestrationHttpHook(base_url=server.url) as hook:
        workflow = hook.ensure_workflow(PAYS, gate=True).workflow
        found = []
        threads = [
            threading.Thread(target=lambda: found.append(hook.start(workflow.id, {"amount": 100}, run_key="k").id))
            for _ in range(4)
        ]
        for one in threads:
            one.start()
        for one in threads:
            one.join(60)
    assert len(found) == 4
    assert len(set(found)) == 1
    assert len(releases_of(server.record(), "k")) == 1


def test_tasks_with_one_key_start_one_run(server):
    async def main():
        async with AsyncOrchestrationHttpHook(base_url=server.url) as hook:
            workflow = (await hook.ensure_workflow(PAYS, gate=True)).workflow
            starts = [hook.start(workflow.id, {"amount": 100}, run_key="k") for _ in range(3)]
            return await asyncio.gather(*starts)

    assert len({one.id for one in asyncio.run(main())}) == 1
    assert len(releases_of(server.record(), "k")) == 1


def test_a_second_caller_of_this_process_is_refused(server, store):
    with OrchestrationHttpHook(base_url=server.url) as hook:
        holding = threading.Event()
        first = threading.Thread(
            target=lambda: hook.run_once(
                LATER, {"amount": 1}, run_key="k", store=store, on_chosen=lambda _: holding.set()
            )
        )
        first.start()
        assert holding.wait(20)
        with pytest.raises(KeyReusedError) as caught:
            hook.run_once(LATER, {"amount": 1}, run_key="k", store=store)
        assert caught.value.differs == "caller"
        first.join(60)
        assert hook.run_once(LATER, {"amount": 1}, run_key="k", store=store).instance.state == "succeeded"
    assert paid(server) == 1


class Overtaken(SqliteRunStore):
    """Another process saves a record right before this one's save of a state."""

    def __init__(self, path, state):
        super().__init__(path)
        self.state = state
        self.done = False

    def save(self, record):
        if record.state == self.state and not self.done:
            self.done = True
            stored = self.load(record.key)
            theirs = replace(record, nonce="theirs") if stored is None else stored.changed()
            super().save(replace(theirs, attempt="other"))
        super().save(record)


@pytest.mark.parametrize("state", ["intended", "chosen"])
def test_a_process_that_is_overtaken_releases_and_cancels_nothing(server, hook, tmp_path, state):
    store = Overtaken(tmp_path / "runs.db", state)
    with pytest.raises(RecordConflictError, match="another process") as caught:
        hook.run_once(PAYS, {"amount": 100}, run_key="k", store=store)
    assert caught.value.run_key == "k"
    record = server.record()
    assert (releases_of(record, "k"), record.aborts) == ([], [])


# ---- the owner -------------------------------------------------------------------------------------


def test_what_nobody_wants_is_not_released(server, hook, store):
    with pytest.raises(OwnerGoneError) as caught:
        hook.run_once(PAYS, {"amount": 100}, run_key="k", store=store, wants=lambda: False)
    assert caught.value.run_key == "k"
    assert caught.value.instance_id
    assert releases_of(server.record(), "k") == []
    assert hook.run_once(PAYS, {"amount": 100}, run_key="k", store=store).instance.state == "succeeded"
    assert paid(server) == 100
    with pytest.raises(OwnerGoneError):
        hook.start(hook.ensure_workflow(PAYS, gate=True).workflow.id, {"amount": 1}, wants=lambda: False)
    assert paid(server) == 100


def test_wants_must_be_a_function(server, hook, store):
    with pytest.raises(ValidationError) as caught:
        hook.run_once(PAYS, {"amount": 1}, run_key="k", store=store, wants=True)
    assert caught.value.path == "wants"


# ---- ends ------------------------------------------------------------------------------------------


def test_a_bad_end_is_told_again_until_another_run_is_wished(server, hook, store):
    said = r"in stage 0 \(send; 1 on the server\).*after 0 completed stages"
    with pytest.raises(InstanceFailedError, match=said) as first:
        hook.run_once(FAILS, {"amount": 100}, run_key="k", store=store)
    with pytest.raises(InstanceFailedError) as again:
        hook.run_once(FAILS, {"amount": 100}, run_key="k", store=store)
    assert again.value.instance_id == first.value.instance_id
    with pytest.raises(InstanceFailedError) as anew:
        hook.run_once(FAILS, {"amount": 100}, run_key="k", store=store, rerun_failed=True)
    assert anew.value.instance_id != first.value.instance_id
    assert store.load("k").round == 1


def test_a_time_out_says_what_became_of_the_run(server, hook, store):
    with pytest.raises(WaitTimeoutError) as caught:
        hook.run_once(LATER, {"amount": 100}, run_key="k", store=store, timeout=1, on_timeout="leave")
    assert "left running" in str(caught.value)
    result = hook.run_once(LATER, {"amount": 100}, run_key="k", store=store)
    assert (result.instance.id, paid(server)) == (caught.value.instance_id, 100)


def test_a_time_out_cancels_where_that_works(kind, store):
    with EmbeddedServer(3) as server:
        hook = open_hook(kind, base_url=server.url)
        with pytest.raises(WaitTimeoutError, match="it was cancelled"):
            hook.run_once(LATER, {"amount": 100}, run_key="k", store=store, timeout=1)
        with pytest.raises(InstanceCancelledError):
            hook.run_once(LATER, {"amount": 100}, run_key="k", store=store)
        assert paid(server) == 0


@pytest.mark.parametrize("generation", [1, 3])
def test_a_payment_that_a_cancel_left_under_way_is_not_made_again_by_a_flag(kind, store, generation):
    with EmbeddedServer(generation) as server:
        hook = open_hook(kind, base_url=server.url)
        arguments = {"run_key": "k", "store": store, "timeout": 2, "rerun_failed": True}
        with pytest.raises(WaitTimeoutError, match="was under way") as first:
            hook.run_once(UNFUNDED, {"amount": 100}, **arguments)
        for _ in range(2):
            with pytest.raises(AmbiguousRunError, match="may have arrived all the same") as caught:
                hook.run_once(UNFUNDED, {"amount": 100}, **arguments)
            assert caught.value.candidates == (first.value.instance_id,)
        assert len(releases_of(server.record(), "k")) == 1
        with pytest.raises(InstanceCancelledError):
            hook.run_once(UNFUNDED, {"amount": 100}, **{**arguments, "rerun_failed": False})
        with pytest.raises(WaitTimeoutError) as anew:
            hook.run_once(UNFUNDED, {"amount": 100}, **arguments, settled=caught.value.token)
        assert anew.value.instance_id != first.value.instance_id
        with pytest.raises(AmbiguousRunError) as again:
            hook.run_once(UNFUNDED, {"amount": 100}, **arguments, settled=caught.value.token)
        assert again.value.token != caught.value.token


@pytest.mark.parametrize("generation", [1, 3])
def test_a_cancel_before_any_payment_leaves_a_flag_its_meaning(kind, store, generation):
    with EmbeddedServer(generation) as server:
        hook = open_hook(kind, base_url=server.url)
        arguments = {"run_key": "k", "store": store, "rerun_failed": True}
        with pytest.raises(WaitTimeoutError, match="it was cancelled"):
            hook.run_once(LATER, {"amount": 100}, **arguments, timeout=1)
        assert hook.run_once(LATER, {"amount": 100}, **arguments).instance.state == "succeeded"
        assert paid(server) == 100


def test_settling_leads_to_a_new_run(server, hook, store):
    first = hook.run_once(PAYS, {"amount": 100}, run_key="k", store=store)
    store.settle("k")
    second = hook.run_once(PAYS, {"amount": 250}, run_key="k", store=store)
    assert second.instance.id != first.instance.id
    assert hook.run_once(PAYS, {"amount": 250}, run_key="k", store=store).instance.id == second.instance.id
    assert paid(server) == 350


# ---- without a gate --------------------------------------------------------------------------------


def test_a_lost_answer_without_a_gate_is_settled_by_its_token_only(server, hook, store):
    workflow = hook.create_workflow(PAYS)
    server.fault("run_workflow", "cut_after", 1)
    arguments = {"run_key": "k", "store": store, "start_timeout": 1.5}
    with pytest.raises(AmbiguousRunError, match="settled=") as caught:
        hook.run_once(workflow.id, {"amount": 100}, first_attempt=True, **arguments)
    token = caught.value.token
    for settled in (None, "0-of something else"):
        with pytest.raises(AmbiguousRunError) as caught:
            hook.run_once(workflow.id, {"amount": 100}, settled=settled, **arguments)
        assert caught.value.token == token
    assert hook.run_once(workflow.id, {"amount": 100}, settled=token, **arguments).instance.state == "succeeded"
    assert server.record().requests["run_workflow"] == 2
    server.fault("run_workflow", "cut_after", 1)
    with pytest.raises(AmbiguousRunError):
        hook.run_once(
            workflow.id, {"amount": 100}, settled=token, **{**arguments, "run_key": "other"}, first_attempt=True
        )
    again = hook.run_once(workflow.id, {"amount": 100}, settled=token, **arguments)
    assert again.instance.state == "succeeded"
    assert server.record().requests["run_workflow"] == 3


def test_a_store_that_vouches_for_nothing_is_refused_without_a_gate(server, hook):
    workflow = hook.create_workflow(PAYS)
    with pytest.raises(ValidationError, match="SqliteRunStore") as caught:
        hook.run_once(workflow.id, {"amount": 100}, run_key="k", store=MemoryRunStore())
    assert caught.value.path == "store"
    assert server.record().started == []
    memory = MemoryRunStore()
    hook.run_once(workflow.id, {"amount": 100}, run_key="k", store=memory, first_attempt=True)
    hook.run_once(workflow.id, {"amount": 100}, run_key="k", store=memory)
    hook.run_once(PAYS, {"amount": 1}, run_key="gated", store=MemoryRunStore())
    hook.run_once(PAYS, {"amount": 1}, run_key="gated", store=MemoryRunStore())
    assert paid(server) == 101


def test_an_empty_file_in_a_new_pod_proves_nothing(server, hook, tmp_path):
    workflow = hook.create_workflow(CARRIES)
    first = SqliteRunStore(tmp_path / "first.db")
    one = hook.run_once(workflow.id, {"amount": 100}, run_key="k", store=first, first_attempt=True)
    pod = SqliteRunStore(tmp_path / "pod.db")
    found = hook.run_once(workflow.id, {"amount": 100}, run_key="k", store=pod)
    assert found.instance.id == one.instance.id
    with pytest.raises(KeyReusedError) as caught:
        hook.run_once(workflow.id, {"amount": 250}, run_key="k", store=SqliteRunStore(tmp_path / "other.db"))
    assert caught.value.differs == "variables.amount"
    assert paid(server, "k") == 100


# ---- another address -------------------------------------------------------------------------------


def test_the_same_server_under_another_name_is_known(kind, server, store):
    one = open_hook(kind, base_url=server.url)
    first = one.run_once(PAYS, {"amount": 100}, run_key="k", store=store)
    renamed = open_hook(kind, base_url=server.url.replace("127.0.0.1", "localhost"))
    assert renamed.run_once(PAYS, {"amount": 100}, run_key="k", store=store).instance.id == first.instance.id
    assert store.load("k").server == server.url.replace("127.0.0.1", "localhost")
    assert paid(server) == 100


def test_another_server_is_refused(kind, server, store):
    with EmbeddedServer(server.generation if hasattr(server, "generation") else 2) as elsewhere:
        first = open_hook(kind, base_url=server.url).run_once(PAYS, {"amount": 100}, run_key="k", store=store)
        with pytest.raises(WrongServerError, match=first.instance.id) as caught:
            open_hook(kind, base_url=elsewhere.url).run_once(PAYS, {"amount": 100}, run_key="k", store=store)
        assert caught.value.instance_id == first.instance.id
        assert elsewhere.record().started == []


# ---- a store that fails ----------------------------------------------------------------------------


class Failing(SqliteRunStore):
    """Fails to save one state, before or after storing it."""

    def __init__(self, path, state, after):
        super().__init__(path)
        self.state, self.after, self.failures = state, after, 1

    def save(self, record):
        if record.state == self.state and self.failures:
            self.failures -= 1
            if self.after:
                super().save(record)
            raise OSError("the disk is full")
        super().save(record)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("state", ["intended", "chosen"])
def test_what_is_not_saved_is_not_released(server, hook, tmp_path, state, after):
    store = Failing(tmp_path / "runs.db", state, after)
    with pytest.raises(OSError, match="disk is full"):
        hook.run_once(PAYS, {"amount": 100}, run_key="k", store=store)
    assert releases_of(server.record(), "k") == []
    assert hook.run_once(PAYS, {"amount": 100}, run_key="k", store=store).instance.state == "succeeded"
    assert paid(server) == 100


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("state", ["ended", "told"])
def test_a_success_stays_one_where_it_cannot_be_recorded(server, hook, tmp_path, state, after, caplog):
    store = Failing(tmp_path / "runs.db", state, after)
    store.failures = 100
    result = hook.run_once(PAYS, {"amount": 100}, run_key="k", store=store)
    assert result.instance.state == "succeeded"
    assert "not recorded" in caplog.text
    store.failures = 0
    assert hook.run_once(PAYS, {"amount": 100}, run_key="k", store=store).instance.id == result.instance.id
    assert paid(server) == 100


# ---- interrupts ------------------------------------------------------------------------------------


def test_an_exception_in_the_block_cancels(kind, store):
    with EmbeddedServer(3) as server:

        def fail():
            raise RuntimeError("stock is gone")

        if kind == "sync":

            def blocking():
                with OrchestrationHttpHook(base_url=server.url) as hook:
                    with hook.owned_run(LATER, {"amount": 1}, run_key="k", store=store) as run:
                        assert run.instance_id
                        fail()

            with pytest.raises(RuntimeError, match="stock"):
                blocking()
        else:

            async def main():
                async with AsyncOrchestrationHttpHook(base_url=server.url) as hook:
                    async with hook.owned_run(LATER, {"amount": 1}, run_key="k", store=store):
                        fail()

            with pytest.raises(RuntimeError, match="stock"):
                asyncio.run(main())
        (run,) = server.record().ended
        assert run["error"] == "canceled"
        assert store.load("k").hold


def test_a_block_that_ends_well_waits(server):
    store = MemoryRunStore()
    with OrchestrationHttpHook(base_url=server.url) as hook:
        with hook.owned_run(PAYS, {"amount": 7}, run_key="k", store=store) as run:
            assert run.result is None
        assert run.result.instance.state == "succeeded"
    assert paid(server) == 7


def test_a_cancelled_task_cancels_the_run(store):
    with EmbeddedServer(3) as server:

        async def main():
            async with AsyncOrchestrationHttpHook(base_url=server.url) as hook:
                chosen = asyncio.Event()
                loop = asyncio.get_running_loop()

                def told(_):
                    loop.call_soon_threadsafe(chosen.set)

                task = asyncio.create_task(
                    hook.run_once(LATER, {"amount": 1}, run_key="k", store=store, on_chosen=told)
                )
                await chosen.wait()
                await asyncio.sleep(0.3)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

        asyncio.run(main())
        assert [one["error"] for one in server.record().ended] == ["canceled"]
        assert paid(server) == 0


def _wait_for_ever(url, path, chosen):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
    with OrchestrationHttpHook(base_url=url) as hook:
        hook.run_once(
            MUCH_LATER, {"amount": 1}, run_key="k", store=SqliteRunStore(path), on_chosen=lambda _: chosen.set()
        )


def test_ctrl_c_cancels_and_a_run_that_moved_nothing_is_run_anew(tmp_path):
    with EmbeddedServer(3) as server:
        context = multiprocessing.get_context("spawn")
        chosen = context.Event()
        worker = context.Process(target=_wait_for_ever, args=(server.url, str(tmp_path / "runs.db"), chosen))
        worker.start()
        assert chosen.wait(60)
        give_up = time.monotonic() + 60
        while not releases_of(server.record(), "k") and time.monotonic() < give_up:
            time.sleep(0.05)
        time.sleep(0.4)
        os.kill(worker.pid, signal.SIGINT)
        worker.join(60)
        assert worker.exitcode is not None
        assert [one["error"] for one in server.record().ended] == ["canceled"]
        store = SqliteRunStore(tmp_path / "runs.db")
        assert store.load("k").hold
        with OrchestrationHttpHook(base_url=server.url) as hook:
            # Its delay had begun, so its end is told; what had begun nothing would be run anew.
            with pytest.raises(InstanceCancelledError):
                hook.run_once(MUCH_LATER, {"amount": 1}, run_key="k", store=store)
        assert paid(server) == 0


def test_a_loser_does_not_cancel_the_winners_run(tmp_path):
    with EmbeddedServer(3) as server, OrchestrationHttpHook(base_url=server.url) as hook:
        store = SqliteRunStore(tmp_path / "runs.db")

        def take_over():
            stored = store.load("k")
            store.save(stored.changed(attempt="the winner"))
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            hook.run_once(LATER, {"amount": 5}, run_key="k", store=store, on_stage=lambda _: take_over())
        assert server.record().aborts == []
        assert hook.run_once(LATER, {"amount": 5}, run_key="k", store=store).instance.state == "succeeded"
        assert paid(server) == 5


def test_a_cancel_from_outside_is_put_on_record(kind, store):
    with EmbeddedServer(3) as server:
        hook = open_hook(kind, base_url=server.url)
        with pytest.raises(WaitTimeoutError) as caught:
            hook.run_once(LATER, {"amount": 5}, run_key="k", store=store, timeout=0.5, on_timeout="leave")
        instance_id = caught.value.instance_id
        with pytest.raises(ValidationError):
            hook.cancel(instance_id, store=store)
        with pytest.raises(ValidationError, match="names instance"):
            hook.cancel("another", store=store, run_key="k")
        assert hook.cancel(instance_id, store=store, run_key="k").status == "cancelled"
        assert store.load("k").hold


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"run_key": ""}, "run_key"),
        ({"store": object()}, "store"),
        ({"on_timeout": "explode"}, "on_timeout"),
        ({"on_changed": "ignore"}, "on_changed"),
        ({"timeout": -1}, "timeout"),
        ({"poll_interval": 0}, "poll_interval"),
        ({"fingerprint_ignores": "amount"}, "fingerprint_ignores"),
        ({"settled": ""}, "settled"),
        ({"since": "yesterday"}, "since"),
        ({"variables": {"runGate": "x"}}, "variables.runGate"),
        ({"variables": {"runKey": "x"}}, "variables.runKey"),
        ({"variables": {"amount": 1.5}}, "variables.amount"),
        ({"workflow": ""}, "workflow"),
        ({"key_variable": "runGate"}, "key_variable"),
        ({"start_timeout": -1}, "start_timeout"),
        ({"fail_after_attempts": 0}, "fail_after_attempts"),
        ({"read_budget": -1}, "read_budget"),
    ],
)
def test_bad_input_is_refused_before_anything_is_sent(kind, store, changes, path):
    with EmbeddedServer(2) as server:
        hook = open_hook(kind, base_url=server.url)
        given = {"workflow": PAYS, "variables": {"amount": 1}, "run_key": "k", "store": store, **changes}
        with pytest.raises(ValidationError) as caught:
            hook.run_once(given.pop("workflow"), given.pop("variables"), **given)
        assert caught.value.path == path
        assert server.record().requests == {}


def test_an_unreadable_record_stops_the_run(server, hook, tmp_path):
    class Broken(SqliteRunStore):
        def load(self, key):
            return RunRecord.from_json("{}")

    with pytest.raises(Exception, match="cannot be read") as caught:
        hook.run_once(PAYS, {"amount": 1}, run_key="k", store=Broken(tmp_path / "runs.db"))
    assert type(caught.value).__name__ == "UnreadableRecordError"
    assert server.record().started == []


def test_an_owner_who_is_gone_has_nothing_submitted_without_a_gate(server, kind, tmp_path):
    """A submit without a gate moves money at once, so the owner is asked about that. A refusal leaves no doubt."""
    hook = open_hook(kind, base_url=server.url)
    workflow = hook.create_workflow({"name": "plain", "stages": [sending()]}).id
    store = SqliteRunStore(tmp_path / "runs.db")
    given = {"run_key": "k", "store": store, "first_attempt": True}
    with pytest.raises(OwnerGoneError, match="nothing was started") as caught:
        hook.run_once(workflow, {"amount": 5}, wants=lambda: False, **given)
    assert caught.value.instance_id is None
    with pytest.raises(OwnerGoneError, match="nothing was started"):
        hook.start(workflow, {"amount": 5}, wants=lambda: False)
    assert server.record().started == []
    hook.run_once(workflow, {"amount": 5}, wants=lambda: True, **given)
    assert paid(server) == 5


def test_an_attempt_that_was_overtaken_before_it_looked_leaves_the_record_alone(server, tmp_path):
    """A try decides on the record that it is a retry, and stands still; meanwhile a cleared task has another try. What
    the first puts on record afterwards would have the next retry taken for a clear, which pays again."""
    hook = open_hook("sync", base_url=server.url)
    store = SqliteRunStore(tmp_path / "runs.db")

    def attempt(name, how, decided_on):
        request = OwnedRequest(
            workflow=PAYS, variables={"amount": 5}, run_key="k", how=how, attempt=name, decided_on=decided_on
        )
        run = hook.owning(request, store=store)
        try:
            return hook.perform(run.run(lambda one, guard: hook.waiting_for(one, guard=guard)))
        finally:
            run.close()

    attempt("try 1", "first", "")
    with pytest.raises(RecordConflictError, match="try 1 has it now"):
        attempt("try 0", "first", "")  # it decided while there was no record
    attempt("try 3", "new", "try 1")
    with pytest.raises(RecordConflictError, match="try 3 has it now"):
        attempt("try 2", "again", "try 1")
    assert store.load("k").attempt == "try 3"
    attempt("try 4", "again", "try 3")
    assert paid(server) == 10

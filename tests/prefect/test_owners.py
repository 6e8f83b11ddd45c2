"""Whose run a call means, in flows of this process against a real Prefect server: steps, loops, retries of whatever
encloses a call, owners that have gone. The record of the orchestration server says what was paid."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from prefect import flow, task, unmapped
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run as runtime_flow_run
from prefect.states import Cancelling
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.transactions import transaction

from orchestration_integrations import (
    AmbiguousRunError,
    EventNotDeliveredError,
    InstanceCancelledError,
    KeyReusedError,
    OrchestrationHttpHook,
    OwnerGoneError,
    RecordConflictError,
    StateUnknownError,
    WaitTimeoutError,
)
from orchestration_integrations.prefect import (
    FlowRunCancelledError,
    OrchestrationCredentials,
    OrchestrationWorkflow,
    cancel_instances,
    run_workflow,
    run_workflow_and_wait,
    run_workflow_and_wait_async,
    run_workflow_async,
    send_event,
    send_event_async,
    settle_run,
    wait_for_instance,
    workflow_instance,
)
from orchestration_integrations.prefect.errors import RunRolledBackError
from orchestration_integrations.prefect.owning import Start
from orchestration_integrations.prefect.run_records import PrefectRunStore, records_of_flow_run
from orchestration_integrations.server import EmbeddedServer

from .conftest import abortable, defined, endless, errors_of, failing, newest_only, releases, send, short, until

pytestmark = pytest.mark.usefixtures("prefect_api")
third = pytest.mark.parametrize("server", [3], indirect=True)


class Boom(Exception):
    """A failure of the flow's own."""


def started(server: EmbeddedServer) -> list[str]:
    return [row["instance_id"] for row in server.record().started]


def paid(server: EmbeddedServer) -> int:
    return len(server.record().money)


def set_state(flow_run_id: str, state: Any) -> None:
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(flow_run_id), state, force=True)


# ---- one name, one payment (P1, P2, P5) ------------------------------------------------------------------


@pytest.mark.parametrize("named", [{"step": "order-17"}, {"run_key": "order-17"}], ids=["step", "run_key"])
def test_two_workflows_under_one_name(
    server: EmbeddedServer, credentials: OrchestrationCredentials, named: dict[str, str]
) -> None:
    first, second = defined(server, short("users:a")), defined(server, short("users:b"))

    @flow
    def one() -> None:
        run_workflow_and_wait(credentials, first, poll_interval=0.2, **named)
        run_workflow_and_wait(credentials, second, poll_interval=0.2, **named)

    with pytest.raises(KeyReusedError):
        one()
    assert server.balance("users:a", "EUR/2") == 100
    assert server.balance("users:b", "EUR/2") == 0


@pytest.mark.parametrize("other", [{"run_key": "order-18"}], ids=["run_key"])
def test_two_flow_runs_under_one_key(
    server: EmbeddedServer, credentials: OrchestrationCredentials, other: dict[str, str]
) -> None:
    """The record is of the key, so another flow run comes back to the run, and is refused with other content."""
    workflow_id = defined(server, short("${payee}"))

    @flow
    def one(payee: str) -> Any:
        return run_workflow_and_wait(credentials, workflow_id, {"payee": payee}, poll_interval=0.2, **other)

    first = one("users:a")
    assert one("users:a")["instance_id"] == first["instance_id"]
    with pytest.raises(KeyReusedError) as caught:
        one("users:b")
    assert caught.value.differs == "variables.payee"
    assert paid(server) == 1


@pytest.mark.parametrize("amounts", [("1", "2", "3"), ("1", "1", "1")], ids=["other amounts", "equal amounts"])
@pytest.mark.parametrize("way", ["task", "block", "context", "task in tasks"])
def test_a_loop_over_one_step(
    server: EmbeddedServer, credentials: OrchestrationCredentials, amounts: tuple[str, ...], way: str
) -> None:
    definition = short()
    definition["stages"][0]["send"]["amount"]["amount"] = "${amount}"
    workflow_id = defined(server, definition)

    @task(retries=1)
    def around(amount: str) -> None:
        run_workflow(credentials, workflow_id, {"amount": amount}, step="payout")

    def pay(amount: str) -> None:
        if way == "task":
            run_workflow(credentials, workflow_id, {"amount": amount}, step="payout")
        elif way == "task in tasks":
            around(amount)
        elif way == "block":
            block = OrchestrationWorkflow(credentials=credentials, workflow_id=workflow_id, step="payout")
            block.trigger({"amount": amount})
        else:
            with workflow_instance(credentials, workflow_id, {"amount": amount}, step="payout"):
                pass

    @flow
    def loop() -> None:
        for amount in amounts:
            pay(amount)

    with pytest.raises(KeyReusedError) as caught:
        loop()
    assert caught.value.differs == "caller"
    assert started(server) == [caught.value.instance_id]


@pytest.mark.parametrize("way", ["direct", "submitted", "block"])
def test_equal_unnamed_calls_are_payments_of_their_own(
    server: EmbeddedServer, credentials: OrchestrationCredentials, way: str
) -> None:
    workflow_id = defined(server, short())
    seen: list[list[str]] = []

    @flow(retries=1)
    def three() -> None:
        if way == "submitted":
            futures = [run_workflow.submit(credentials, workflow_id) for _ in range(3)]
            ids = [future.result()["instance_id"] for future in futures]
        elif way == "block":
            block = OrchestrationWorkflow(credentials=credentials, workflow_id=workflow_id)
            ids = [block.trigger().instance_id for _ in range(3)]
        else:
            ids = [run_workflow(credentials, workflow_id)["instance_id"] for _ in range(3)]
        seen.append(sorted(ids))
        if runtime_flow_run.run_count == 1:
            raise Boom

    three()
    assert seen[0] == seen[1] == sorted(started(server))
    assert len(set(seen[0])) == 3


@pytest.mark.parametrize("way", ["submit", "map"])
def test_one_key_for_several_at_once(server: EmbeddedServer, credentials: OrchestrationCredentials, way: str) -> None:
    workflow_id = defined(server, short("${payee}"))

    @flow
    def at_once() -> list[Any]:
        if way == "submit":
            futures = [run_workflow.submit(credentials, workflow_id, {"payee": "users:a"}, run_key="k") for _ in "123"]
        else:
            each = [{"payee": f"users:{number}"} for number in "123"]
            futures = run_workflow.map(unmapped(credentials), workflow_id, each, step=unmapped("pay"))
        return [future.result(raise_on_failure=False) for future in futures]

    results = at_once()
    refused = [one for one in results if isinstance(one, KeyReusedError | RecordConflictError)]
    assert len(refused) == 2
    until(lambda: paid(server), "it is paid")
    assert len(releases(server)) == 1
    assert paid(server) == 1


# ---- a retry of whatever encloses the call comes back (P3) --------------------------------------------------


@pytest.mark.parametrize("inside", ["task", "task in a task", "subflow", "wrapper"])
@pytest.mark.parametrize("outside", ["flow", "nothing"])
def test_a_retried_task_pays_once(
    server: EmbeddedServer, credentials: OrchestrationCredentials, inside: str, outside: str
) -> None:
    workflow_id = defined(server, short())
    raised: list[str] = []

    @task
    def between() -> None:
        run_workflow(credentials, workflow_id)

    @flow
    def below() -> None:
        run_workflow(credentials, workflow_id)

    @task(retries=1)
    def pay() -> str:
        if inside == "task":
            run_workflow(credentials, workflow_id)
        elif inside == "task in a task":
            between()
        elif inside == "subflow":
            below()
        else:
            run_workflow_and_wait(credentials, workflow_id, poll_interval=0.2)
        if not raised:
            raised.append("once")
            raise Boom
        return "paid"

    @flow
    def outer() -> str:
        return str(pay())

    if outside == "nothing" and inside in ("subflow", "wrapper"):
        pytest.skip("a flow that a task outside a flow calls is an outermost flow: nothing encloses its calls")
    assert (outer() if outside == "flow" else pay()) == "paid"
    assert len(started(server)) == 1
    assert len(releases(server)) == 1


async def test_a_retried_asynchronous_task_pays_once(
    server: EmbeddedServer, credentials: OrchestrationCredentials
) -> None:
    workflow_id = defined(server, short())
    raised: list[str] = []

    @task(retries=1)
    async def pay() -> str:
        await run_workflow_async(credentials, workflow_id)
        if not raised:
            raised.append("once")
            raise Boom
        return "paid"

    assert await pay() == "paid"
    assert len(started(server)) == 1


def test_two_retried_tasks_beside_each_other_pay_once_each(
    server: EmbeddedServer, credentials: OrchestrationCredentials
) -> None:
    """Equal calls in two tasks, each of which fails once, before or after its payment."""
    workflow_id = defined(server, short())
    tries: dict[int, int] = {}
    got: dict[int, str] = {}

    @flow
    def below() -> str:
        return str(run_workflow(credentials, workflow_id)["instance_id"])

    @task(retries=1)
    def pay(number: int) -> None:
        tries[number] = tries.get(number, 0) + 1
        if number % 2 and tries[number] == 1:
            raise Boom
        got[number] = below()
        if tries[number] == 1:
            raise Boom

    @flow
    def outer() -> None:
        for future in [pay.submit(number) for number in range(4)]:
            future.result()

    outer()
    assert len(started(server)) == 4
    assert sorted(got.values()) == sorted(started(server))


def test_a_retried_wrapper_comes_back(server: EmbeddedServer, credentials: OrchestrationCredentials) -> None:
    workflow_id = defined(server, endless())

    @flow
    def outer() -> None:
        run_workflow_and_wait.with_options(retries=1)(credentials, workflow_id, timeout=1, on_timeout="leave")

    with pytest.raises(WaitTimeoutError):
        outer()
    assert len(started(server)) == 1


# ---- a call that never returned is taken up (P4) ----------------------------------------------------------


@pytest.mark.parametrize("way", ["flow", "task alone"])
def test_the_next_call_takes_up_one_that_raised(
    server: EmbeddedServer, credentials: OrchestrationCredentials, way: str
) -> None:
    """The instance cannot be read while it is released, so the first call raises; the caller's own loop calls again."""
    workflow_id = defined(server, short())
    server.fault("get_instance", "status", count=1000, code=503)

    def call() -> str:
        return str(run_workflow(credentials, workflow_id, timeout=2.0)["instance_id"])

    def loop() -> str:
        with pytest.raises(StateUnknownError, match="goes on"):
            call()
        server.core.clear_faults()
        return call()

    @flow
    def in_flow() -> str:
        return loop()

    @task
    def alone() -> str:
        return loop()

    found = alone() if way == "task alone" else in_flow()
    assert started(server) == [found]
    assert len(releases(server)) == 1


def test_ungated_the_next_call_is_told_the_same(server: EmbeddedServer, credentials: OrchestrationCredentials) -> None:
    workflow_id = defined(server, short(), gate=False)
    server.fault("run_workflow", "cut_after")
    tokens: list[str | None] = []

    @flow
    def loop() -> Any:
        for _ in range(2):
            with pytest.raises(AmbiguousRunError) as caught:
                run_workflow(credentials, workflow_id, timeout=1.0)
            tokens.append(caught.value.token)
        return run_workflow(credentials, workflow_id, timeout=5.0, settled=tokens[0])

    loop()
    assert tokens[0] is not None
    assert tokens[0] == tokens[1]
    assert server.record().requests["run_workflow"] == 2  # the second one by the token


# ---- events (P8, Q1) -------------------------------------------------------------------------------------


def approved_twice() -> dict[str, Any]:
    wait = {"wait_event": {"event": "approved"}}
    return {"name": "twice", "stages": [wait, send(), wait, send()]}


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_second_event_of_one_name_is_no_silent_no(
    server: EmbeddedServer, credentials: OrchestrationCredentials, asynchronous: bool
) -> None:
    workflow_id = defined(server, {"name": "approval", "stages": [{"wait_event": {"event": "approved"}}, send()]})

    @flow
    def one() -> None:
        run = run_workflow(credentials, workflow_id)
        send_event(credentials, run, "approved", timeout=30)
        send_event(credentials, run, "approved", timeout=30)

    @flow
    async def aone() -> None:
        run = await run_workflow_async(credentials, workflow_id)
        await send_event_async(credentials, run, "approved", timeout=30)
        await send_event_async(credentials, run, "approved", timeout=30)

    with pytest.raises(EventNotDeliveredError) as caught:
        asyncio.run(aone()) if asynchronous else one()
    assert caught.value.reason in ("stage_over", "instance_ended")
    assert [row["event"] for row in server.record().events].count("approved") == 1


def test_events_of_a_retried_flow(server: EmbeddedServer, credentials: OrchestrationCredentials) -> None:
    """Two stages wait for one name: a retry comes back to both, and sends nothing again."""
    workflow_id = defined(server, approved_twice())

    @flow(retries=1)
    def one() -> Any:
        run = run_workflow(credentials, workflow_id)
        send_event(credentials, run, "approved", stage=1, timeout=30)
        send_event(credentials, run, "approved", stage=3, timeout=30)
        if runtime_flow_run.run_count == 1:
            raise Boom
        return wait_for_instance(credentials, run, poll_interval=0.2)

    assert one()["state"] == "succeeded"
    assert [row["event"] for row in server.record().events].count("approved") == 2


def test_an_event_that_was_never_sent_is_sent_by_a_retry(
    server: EmbeddedServer, credentials: OrchestrationCredentials
) -> None:
    """It is put on record right before it is sent, so a time-out before that leaves no doubt."""
    workflow_id = defined(
        server, {"name": "late", "stages": [{"delay": {"duration": "30s"}}, {"wait_event": {"event": "go"}}]}
    )

    @flow(retries=1)
    def one() -> Any:
        run = run_workflow(credentials, workflow_id)
        if runtime_flow_run.run_count == 2:
            server.advance(60)
        return send_event(credentials, run, "go", timeout=1 if runtime_flow_run.run_count == 1 else 30)

    assert one()["event"] == "go"


@pytest.mark.parametrize("asynchronous", [False, True])
def test_no_event_after_the_flow_run_is_cancelled(
    server: EmbeddedServer, credentials: OrchestrationCredentials, asynchronous: bool
) -> None:
    workflow_id = defined(
        server, {"name": "late", "stages": [{"delay": {"duration": "300s"}}, {"wait_event": {"event": "go"}}, send()]}
    )

    def gone() -> None:
        set_state(str(runtime_flow_run.id), Cancelling())
        server.advance(600)

    @flow
    def one() -> None:
        run = run_workflow(credentials, workflow_id)
        future = send_event.submit(credentials, run, "go")
        time.sleep(0.5)
        gone()
        future.result()

    @flow
    async def aone() -> None:
        run = await run_workflow_async(credentials, workflow_id)
        sending = asyncio.create_task(send_event_async(credentials, run, "go"))
        await asyncio.sleep(0.5)
        flow_run_id = str(runtime_flow_run.id)
        await asyncio.to_thread(set_state, flow_run_id, Cancelling())
        await asyncio.to_thread(server.advance, 600)
        await sending

    with pytest.raises((OwnerGoneError, FlowRunCancelledError)):
        asyncio.run(aone()) if asynchronous else one()
    assert [row["event"] for row in server.record().events].count("go") == 0
    assert paid(server) == 0


# ---- the owner has gone (Q1, Q2, Q4, Q5) -------------------------------------------------------------------


@third
@pytest.mark.parametrize("way", ["direct", "submitted", "async"])
def test_nothing_is_released_after_the_flow_run_is_cancelled(
    server: EmbeddedServer, credentials: OrchestrationCredentials, way: str
) -> None:
    """The submit stalls, and the flow run is cancelled meanwhile."""
    workflow_id = defined(server, short())
    server.fault("run_workflow", "stall", seconds=3)
    ids: list[str] = []

    def cancel_soon() -> None:
        until(lambda: ids, "the flow has begun")
        time.sleep(1.0)
        set_state(ids[0], Cancelling())

    @flow
    def one() -> None:
        ids.append(str(runtime_flow_run.id))
        if way == "submitted":
            run_workflow.submit(credentials, workflow_id).result()
        run_workflow(credentials, workflow_id)

    @flow
    async def aone() -> None:
        ids.append(str(runtime_flow_run.id))
        await run_workflow_async(credentials, workflow_id)

    canceller = threading.Thread(target=cancel_soon)
    canceller.start()
    with pytest.raises((OwnerGoneError, FlowRunCancelledError)):
        asyncio.run(aone()) if way == "async" else one()
    canceller.join()
    assert releases(server) == []
    assert paid(server) == 0
    assert list(errors_of(server).values()) == ["canceled"]


@third
def test_time_out_of_the_flow_ends_a_submitted_wait(
    server: EmbeddedServer, credentials: OrchestrationCredentials
) -> None:
    workflow_id = defined(server, endless())

    @flow(timeout_seconds=4)
    def one() -> None:
        run = run_workflow(credentials, workflow_id)
        wait_for_instance.submit(credentials, run, poll_interval=60).result()

    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        one()
    assert time.monotonic() - begun < 60
    assert errors_of(server) == dict.fromkeys(started(server), "canceled")


def test_time_out_of_the_flow_leaves_the_run_to_its_retry(
    server: EmbeddedServer, credentials: OrchestrationCredentials
) -> None:
    """The submitted wait of the first attempt ends, and cancels nothing: the second attempt has the run."""
    workflow_id = defined(server, endless())

    @flow(timeout_seconds=4, retries=1)
    def one() -> Any:
        run = run_workflow(credentials, workflow_id)
        if runtime_flow_run.run_count == 1:
            wait_for_instance.submit(credentials, run, poll_interval=60).result()
        return run["instance_id"]

    assert [one()] == started(server)
    assert errors_of(server) == {}


@abortable
@pytest.mark.parametrize("when", ["after the release", "between start and wait"])
async def test_cancelled_asyncio_task_leaves_nothing_running(
    server: EmbeddedServer, credentials: OrchestrationCredentials, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    workflow_id = defined(server, endless())
    held = asyncio.Event()

    from orchestration_integrations.prefect import runs

    class Slow(runs.Progress):
        def started(self, workflow_id: str, state: str) -> None:
            loop.call_soon_threadsafe(held.set)
            time.sleep(1.0)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(runs, "Progress", Slow)

    @flow
    async def one() -> None:
        if when == "after the release":
            paying = asyncio.create_task(run_workflow_async(credentials, workflow_id))
        else:
            paying = asyncio.create_task(run_workflow_and_wait_async(credentials, workflow_id))
        await held.wait()
        paying.cancel()
        await paying

    with pytest.raises((asyncio.CancelledError, Exception)):
        await one()
    assert len(releases(server)) == 1
    assert errors_of(server) == dict.fromkeys(started(server), "canceled")


@abortable
def test_what_was_cancelled_before_anything_moved_is_started_anew(
    server: EmbeddedServer, credentials: OrchestrationCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Q5: an interrupt amid the start, our own cancel, then a retry."""
    from prefect.exceptions import TerminationSignal

    workflow_id = defined(server, short())
    real = Start._chosen

    @flow
    def one() -> Any:
        def interrupted(self: Start, instance_id: str) -> None:
            raise TerminationSignal(signal=15)

        with monkeypatch.context() as patch:
            patch.setattr(Start, "_chosen", interrupted)
            with pytest.raises(TerminationSignal):
                run_workflow(credentials, workflow_id, step="pay")
        assert Start._chosen is real
        run = run_workflow(credentials, workflow_id, step="pay")
        return wait_for_instance(credentials, run, poll_interval=0.2)

    result = one()
    assert result["state"] == "succeeded"
    assert len(started(server)) == 2
    assert releases(server) == [result["instance_id"]]
    assert paid(server) == 1


@third
def test_a_run_that_another_attempt_has_is_not_cancelled(
    server: EmbeddedServer, credentials: OrchestrationCredentials
) -> None:
    """The record has changed hands while an old wait is interrupted."""
    workflow_id = defined(server, endless())

    @flow
    def one() -> str:
        run = run_workflow(credentials, workflow_id)

        def hand_over(*_: Any) -> None:
            store = PrefectRunStore()
            record = store.load(run["run_key"])
            assert record is not None
            store.save(record.changed(attempt="another one"))
            raise KeyboardInterrupt

        from orchestration_integrations.prefect import runs

        class Interrupted(runs.Progress):
            stage = hand_over  # type: ignore[assignment]

        before, runs.Progress = runs.Progress, Interrupted  # type: ignore[misc]
        try:
            with pytest.raises(KeyboardInterrupt):
                wait_for_instance.fn(credentials, run)
        finally:
            runs.Progress = before  # type: ignore[misc]
        return str(run["instance_id"])

    assert [one()] == started(server)
    assert server.record().aborts == []


@third
def test_failing_task_that_will_be_retried_cancels_nothing(
    server: EmbeddedServer, credentials: OrchestrationCredentials
) -> None:
    """A task run has a transaction of its own, which is rolled back when that try fails."""
    workflow_id = defined(server, endless())
    raised: list[str] = []

    @task(retries=1)
    def pay() -> Any:
        run = run_workflow(credentials, workflow_id)
        if not raised:
            raised.append("once")
            raise Boom
        return run["instance_id"]

    @flow
    def one() -> Any:
        return pay()

    assert [one()] == started(server)
    assert server.record().aborts == []


@third
def test_users_transaction_is_rolled_back_by_any_failing_try(
    server: EmbeddedServer, credentials: OrchestrationCredentials
) -> None:
    """Prefect rolls back at the first failing try, also of a task that has retries: the retry starts nothing."""
    workflow_id = defined(server, endless())

    @task(retries=1)
    def pay() -> Any:
        run_workflow(credentials, workflow_id)
        raise Boom

    @flow
    def one() -> Any:
        with transaction():
            pay()

    with pytest.raises(RunRolledBackError):
        one()
    assert errors_of(server) == dict.fromkeys(started(server), "canceled")
    assert len(releases(server)) == 1


# ---- hooks and rollbacks (Q6, Q7) ----------------------------------------------------------------------------


def test_hook_that_names_another_server(
    server: EmbeddedServer, credentials: OrchestrationCredentials, caplog: pytest.LogCaptureFixture
) -> None:
    workflow_id = defined(server, endless())
    with EmbeddedServer(generation=3) as other:
        hook = cancel_instances(OrchestrationCredentials(base_url=other.url))

        @flow(on_failure=[hook])
        def one() -> None:
            run_workflow(credentials, workflow_id)
            raise Boom

        with pytest.raises(Boom):
            one()
        assert other.record().requests.get("abort_instance", 0) == 0
    (instance_id,) = started(server)
    said = [row for row in caplog.records if instance_id in row.getMessage() and "may still run" in row.getMessage()]
    assert [row.levelno for row in said] == [logging.ERROR]
    assert server.url in said[0].getMessage()


def test_rollback_of_a_run_that_succeeded(
    server: EmbeddedServer, credentials: OrchestrationCredentials, caplog: pytest.LogCaptureFixture
) -> None:
    workflow_id = defined(server, short())

    @flow
    def one() -> None:
        with transaction():
            run = run_workflow(credentials, workflow_id)
            wait_for_instance(credentials, run, poll_interval=0.2)
            raise Boom

    with pytest.raises(Boom):
        one()
    (instance_id,) = started(server)
    said = [row for row in caplog.records if instance_id in row.getMessage() and "rolled back" in row.getMessage()]
    assert [row.levelno for row in said] == [logging.WARNING]
    assert "its money was not rolled back" in said[0].getMessage()


# ---- the end is on record ------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["dict", "id"])
def test_the_end_is_on_record(server: EmbeddedServer, credentials: OrchestrationCredentials, by: str) -> None:
    workflow_id = defined(server, failing())
    ids: list[str] = []

    @flow
    def one() -> None:
        ids.append(str(runtime_flow_run.id))
        run = run_workflow(credentials, workflow_id, allow_unbound=True)
        wait_for_instance(credentials, run if by == "dict" else run["instance_id"], poll_interval=0.2)

    with pytest.raises(Exception, match="failed"):
        one()
    (record,) = records_of_flow_run(UUID(ids[0]))
    assert (record.state, record.end, record.instance_id) == ("told", "failed", started(server)[0])
    assert record.server == server.url


@third
def test_settled_by_hand(server: EmbeddedServer, credentials: OrchestrationCredentials) -> None:
    workflow_id = defined(server, endless())

    @flow(retries=1)
    def one() -> Any:
        run = run_workflow(credentials, workflow_id, step="pay")
        if runtime_flow_run.run_count == 1:
            with OrchestrationHttpHook(credentials.settings()) as hook:
                hook.cancel(run["instance_id"])
            with pytest.raises(InstanceCancelledError):
                wait_for_instance(credentials, run)
            assert settle_run(run["run_key"])["state"] == "told"
            raise Boom
        return run["instance_id"]

    second = one()
    assert len(started(server)) == 2
    assert second == started(server)[1]


# ---- load (T7) -----------------------------------------------------------------------------------------------


@newest_only
def test_two_hundred_starts_of_one_flow_run(
    server: EmbeddedServer,
    credentials: OrchestrationCredentials,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    """As many calls for the last start as for the first, and every record is there."""
    from orchestration_integrations.prefect import api as api_module

    workflow_id = defined(server, short())
    calls: list[str] = []
    client = api_module.api()
    real = type(client).request

    def counted(self: Any, method: str, path: str, *args: Any, **kwargs: Any) -> Any:
        if self is client:
            calls.append(path)
        return real(self, method, path, *args, **kwargs)

    monkeypatch.setattr(type(client), "request", counted)
    ids: list[str] = []
    each: list[int] = []

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=16))  # type: ignore[arg-type]
    def many() -> None:
        ids.append(str(runtime_flow_run.id))
        for number in (0, 1):
            before = len(calls)
            run_workflow(credentials, workflow_id, step=f"alone-{number}", show_progress=False)
            each.append(len(calls) - before)
        futures = [
            run_workflow.submit(credentials, workflow_id, step=f"pay-{number}", timeout=300, show_progress=False)
            for number in range(197)
        ]
        for future in futures:
            future.result()
        before = len(calls)
        run_workflow(credentials, workflow_id, step="last", show_progress=False)
        each.append(len(calls) - before)

    begun = time.monotonic()
    many()
    seconds = time.monotonic() - begun
    record_property("seconds", round(seconds, 1))
    record_property("calls", len(calls))
    print(f"200 starts: {seconds:.1f} s, {len(calls)} calls, of one start {each}")
    assert max(each) <= 10  # one more where a wait of the flow run looks at it just then
    assert len(calls) <= 200 * 10
    before = len(calls)
    records = records_of_flow_run(UUID(ids[0]))
    assert len(calls) - before <= 3
    assert sorted(str(record.instance_id) for record in records) == sorted(started(server))
    assert len(records) == 200

"""The tasks without a flow: what they return, and what an interrupted or failed wait leaves behind."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from prefect.exceptions import TerminationSignal

from orchestration_integrations import (
    EventNotDeliveredError,
    InstanceCancelledError,
    InstanceFailedError,
    InstanceStuckError,
    NotFoundError,
    ValidationError,
    WaitTimeoutError,
)
from orchestration_integrations.http_hook.waits import AsyncPlace
from orchestration_integrations.prefect import (
    OrchestrationCredentials,
    cancel_instance,
    cancel_instance_async,
    create_workflow,
    create_workflow_async,
    get_instance,
    get_instance_async,
    get_instance_history,
    get_instance_history_async,
    list_instances,
    list_instances_async,
    run_workflow,
    run_workflow_async,
    send_event,
    send_event_async,
    wait_for_instance,
    wait_for_instance_async,
    workflow_instance,
)
from orchestration_integrations.prefect import runs as runs_module
from orchestration_integrations.server import EmbeddedServer

from .conftest import abortable, defined, endless, errors_of, failing, generations, releases, send, short


def call(task: Any, *args: Any, **kwargs: Any) -> Any:
    """A task's function, blocking or not."""
    result = task.fn(*args, **kwargs)
    return asyncio.run(result) if asyncio.iscoroutine(result) else result


both_starts = pytest.mark.parametrize("start", [run_workflow, run_workflow_async], ids=["sync", "async"])
both_waits = pytest.mark.parametrize("wait", [wait_for_instance, wait_for_instance_async], ids=["sync", "async"])


@generations
@both_waits
@both_starts
def test_run_and_wait(server: EmbeddedServer, credentials: OrchestrationCredentials, start: Any, wait: Any) -> None:
    run = call(start, credentials, defined(server, short()))
    assert set(run) == {"instance_id", "workflow_id", "state", "run_key"}
    result = call(wait, credentials, run, poll_interval=0.2)
    assert result["state"] == "succeeded"
    assert result["stages_completed"] == 2
    assert len(result["transactions"]) == 1
    assert result["maybe_repeated"] is False
    assert releases(server) == [run["instance_id"]]
    assert len(server.record().money) == 1


@both_waits
def test_failure_is_a_failure(server: EmbeddedServer, credentials: OrchestrationCredentials, wait: Any) -> None:
    run = run_workflow.fn(credentials, defined(server, failing()), allow_unbound=True)
    with pytest.raises(InstanceFailedError) as caught:
        call(wait, credentials, run["instance_id"], poll_interval=0.2)
    assert len(caught.value.moved.transactions) == 1


@both_waits
@pytest.mark.parametrize("nothing", [None, {"instance_id": None}, {}, "", 5])
def test_nothing_to_wait_for(credentials: OrchestrationCredentials, wait: Any, nothing: Any) -> None:
    with pytest.raises(ValidationError, match="instance_id"):
        call(wait, credentials, nothing)
    with pytest.raises(ValidationError, match="instance_id"):
        call(cancel_instance, credentials, nothing)


def test_no_workflow_to_run(credentials: OrchestrationCredentials) -> None:
    with pytest.raises(ValidationError, match="workflow_id"):
        run_workflow.fn(credentials, None)
    with pytest.raises(NotFoundError):
        run_workflow.fn(credentials, "00000000-0000-0000-0000-000000000000")


class _Stop(BaseException):
    """Some other signal."""


@abortable
@both_waits
@pytest.mark.parametrize(
    "interrupt",
    [
        lambda: KeyboardInterrupt(),
        lambda: TerminationSignal(signal=15),
        lambda: asyncio.CancelledError(),
        lambda: _Stop(),
        lambda: RuntimeError("unforeseen"),
    ],
    ids=["ctrl-c", "termination", "cancelled", "other", "error"],
)
def test_interrupted_wait_cancels_and_goes_on(
    server: EmbeddedServer,
    credentials: OrchestrationCredentials,
    wait: Any,
    interrupt: Callable[[], BaseException],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = run_workflow.fn(credentials, defined(server, endless()))
    raised = interrupt()

    def interrupted(self: Any, event: Any) -> None:
        raise raised

    monkeypatch.setattr(runs_module.Progress, "stage", interrupted)
    coroutine_like = wait is wait_for_instance_async and isinstance(raised, KeyboardInterrupt | asyncio.CancelledError)
    if coroutine_like:
        # asyncio treats these two in its own way: they are raised where the loop delivers them.
        async def deliver(self: Any, seconds: float) -> None:
            raise raised

        monkeypatch.undo()
        monkeypatch.setattr(AsyncPlace, "_sleep_alone", deliver)
    with pytest.raises(type(raised)):
        call(wait, credentials, run, poll_interval=0.2)
    assert errors_of(server) == {run["instance_id"]: "canceled"}


@pytest.mark.parametrize("caught", [asyncio.CancelledError, RuntimeError])
async def test_a_cancellation_amid_a_cancel_is_raised_after_its_end(
    caught: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the task goes on with another error, or with none, and a limit around it never comes."""
    with EmbeddedServer(generation=3) as server:
        credentials = OrchestrationCredentials(base_url=server.url)
        run = await run_workflow_async.fn(credentials, defined(server, endless()))
        server.fault("abort_instance", "stall", 1, seconds=1.0)
        stopping = asyncio.Event()

        def stage(self: Any, event: Any) -> None:
            loop.call_soon_threadsafe(stopping.set)
            if caught is RuntimeError:
                raise RuntimeError("unforeseen")

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(runs_module.Progress, "stage", stage)
        waiting = asyncio.create_task(wait_for_instance_async.fn(credentials, run, poll_interval=0.2))
        await stopping.wait()
        if caught is asyncio.CancelledError:
            waiting.cancel()
        await asyncio.sleep(0.4)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert errors_of(server) == {run["instance_id"]: "canceled"}


async def test_cancelled_asyncio_tasks_cancel_all_their_instances() -> None:
    """Ten waits cancelled at once, by a scope that cancels again at each await."""
    with EmbeddedServer(generation=3) as server:
        credentials = OrchestrationCredentials(base_url=server.url)
        workflow_id = defined(server, endless())
        runs = [await run_workflow_async.fn(credentials, workflow_id) for _ in range(10)]
        import anyio

        begun: list[str] = []
        all_begun = anyio.Event()

        async def waiting(run: dict[str, Any]) -> None:
            begun.append(run["instance_id"])
            if len(begun) == len(runs):
                all_begun.set()
            await wait_for_instance_async.fn(credentials, run, poll_interval=0.2)

        async with anyio.create_task_group() as group:
            for run in runs:
                group.start_soon(waiting, run)
            await all_begun.wait()
            await anyio.sleep(0.3)
            group.cancel_scope.cancel()
        assert errors_of(server) == {run["instance_id"]: "canceled" for run in runs}


@both_waits
def test_interrupt_may_leave_the_run(
    server: EmbeddedServer, credentials: OrchestrationCredentials, wait: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_workflow.fn(credentials, defined(server, endless()))

    def interrupted(self: Any, event: Any) -> None:
        raise TerminationSignal(signal=15)

    monkeypatch.setattr(runs_module.Progress, "stage", interrupted)
    with pytest.raises(TerminationSignal):
        call(wait, credentials, run, cancel_on_interrupt=False)
    assert server.record().requests.get("abort_instance", 0) == 0


@abortable
@both_starts
def test_interrupt_between_choice_and_release(
    server: EmbeddedServer, credentials: OrchestrationCredentials, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestration_integrations.prefect.owning import Start

    def interrupted(self: Start, instance_id: str) -> None:
        raise TerminationSignal(signal=15)

    monkeypatch.setattr(Start, "_chosen", interrupted)
    with pytest.raises(TerminationSignal):
        call(start, credentials, defined(server, endless()))
    assert releases(server) == []
    assert list(errors_of(server).values()) == ["canceled"]
    assert server.record().money == []


@abortable
@both_waits
def test_timeout_cancels_unless_told(server: EmbeddedServer, credentials: OrchestrationCredentials, wait: Any) -> None:
    workflow_id = defined(server, endless())
    left = run_workflow.fn(credentials, workflow_id)
    with pytest.raises(WaitTimeoutError, match="it was left running"):
        call(wait, credentials, left, timeout=0, on_timeout="leave")
    assert server.record().aborts == []
    given_up = run_workflow.fn(credentials, workflow_id)
    with pytest.raises(WaitTimeoutError, match=r"; it was cancelled$") as caught:
        call(wait, credentials, given_up, timeout=0.5)
    assert caught.value.instance.state == "cancelled"
    assert errors_of(server) == {given_up["instance_id"]: "canceled"}


@pytest.mark.parametrize("server", [2], indirect=True)
def test_cancel_without_effect_is_said(
    server: EmbeddedServer, credentials: OrchestrationCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On generation 2 an abort does nothing: the error must not say that it did."""
    from orchestration_integrations.ownership import owned_run

    real = owned_run.cancel
    monkeypatch.setattr(owned_run, "cancel", lambda one, *, timeout, **more: real(one, timeout=1.0, **more))
    run = run_workflow.fn(credentials, defined(server, endless()))
    with pytest.raises(WaitTimeoutError, match="it may still run"):
        wait_for_instance.fn(credentials, run, timeout=0.2)
    assert errors_of(server) == {}
    assert cancel_instance.fn(credentials, run, timeout=0.5)["status"] == "not_confirmed"


def test_success_at_the_last_moment_is_a_success(
    server: EmbeddedServer, credentials: OrchestrationCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_workflow.fn(
        credentials, defined(server, {"name": "d", "stages": [{"delay": {"duration": "20s"}}, send()]})
    )
    from orchestration_integrations.ownership import owned_run

    real = owned_run.cancel

    def late(*args: Any, **kwargs: Any) -> Any:
        server.advance(60)  # it ends between the last look and the cancel
        return real(*args, **kwargs)

    monkeypatch.setattr(owned_run, "cancel", late)
    result = wait_for_instance.fn(credentials, run, timeout=0.3)
    assert result["state"] == "succeeded"
    assert len(result["transactions"]) == 1


@both_waits
def test_the_time_of_a_wait_counts_once(
    server: EmbeddedServer, credentials: OrchestrationCredentials, monkeypatch: pytest.MonkeyPatch, wait: Any
) -> None:
    """A wait that is taken up again, since the run had ended before its cancel, has the deadline of the first one."""
    from orchestration_integrations.http_hook.base import HookBase
    from orchestration_integrations.ownership import owned_run

    run = run_workflow.fn(credentials, defined(server, {"name": "d", "stages": [{"delay": {"duration": "20s"}}]}))
    real_cancel, real_wait = owned_run.cancel, HookBase.waiting_for
    deadlines: list[float | None] = []

    def late(*args: Any, **kwargs: Any) -> Any:
        server.advance(60)
        return real_cancel(*args, **kwargs)

    def noted(self: Any, instance_id: str, arguments: Any, *others: Any) -> Any:
        deadlines.append(arguments.ends_at(time.time()))
        return real_wait(self, instance_id, arguments, *others)

    monkeypatch.setattr(owned_run, "cancel", late)
    monkeypatch.setattr(HookBase, "waiting_for", noted)
    begun = time.time()
    assert call(wait, credentials, run, timeout=0.3)["state"] == "succeeded"
    first, second = deadlines
    assert first == second
    assert first is not None
    assert begun + 0.3 <= first


@abortable
def test_payment_that_keeps_failing_is_given_up(server: EmbeddedServer, credentials: OrchestrationCredentials) -> None:
    poor = {"name": "poor", "stages": [send()]}
    poor["stages"][0]["send"]["source"] = {"account": {"id": "users:poor"}}
    run = run_workflow.fn(credentials, defined(server, poor))
    with pytest.raises(InstanceStuckError, match="; it was cancelled while CreateTransaction was under way") as caught:
        wait_for_instance.fn(credentials, run, poll_interval=0.2, fail_after_attempts=1)
    assert caught.value.reason == "attempts"
    assert errors_of(server) == {run["instance_id"]: "canceled"}


@generations
def test_cancelled_elsewhere_is_no_success(server: EmbeddedServer, credentials: OrchestrationCredentials) -> None:
    run = run_workflow.fn(credentials, defined(server, short()))
    assert wait_for_instance.fn(credentials, run, poll_interval=0.2)["state"] == "succeeded"
    assert cancel_instance.fn(credentials, run)["status"] == "already_ended"
    if server.core.generation == 2:
        return
    other = run_workflow.fn(credentials, defined(server, endless()))
    assert call(cancel_instance_async, credentials, other)["status"] == "cancelled"
    with pytest.raises(InstanceCancelledError):
        wait_for_instance.fn(credentials, other)


@pytest.mark.parametrize("send_task", [send_event, send_event_async], ids=["sync", "async"])
def test_send_event(server: EmbeddedServer, credentials: OrchestrationCredentials, send_task: Any) -> None:
    definition = {"name": "approval", "stages": [{"wait_event": {"event": "approved"}}, send()]}
    run = run_workflow.fn(credentials, defined(server, definition))
    assert call(send_task, credentials, run, "approved", timeout=20)["event"] == "approved"
    assert wait_for_instance.fn(credentials, run, poll_interval=0.2)["state"] == "succeeded"
    assert [row["event"] for row in server.record().released if row["stage"] == 1] == ["approved"]
    with pytest.raises(EventNotDeliveredError):
        call(send_task, credentials, run, "approved", timeout=20)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_reading(
    server: EmbeddedServer, credentials: OrchestrationCredentials, asynchronous: bool, tmp_path: Any
) -> None:
    create, get, rows, history = (
        (create_workflow_async, get_instance_async, list_instances_async, get_instance_history_async)
        if asynchronous
        else (create_workflow, get_instance, list_instances, get_instance_history)
    )
    file = tmp_path / "payment.yaml"
    file.write_text("name: short\nstages:\n- wait_event: {event: 'go:${runGate}'}\n- delay: {duration: 1h}\n")
    workflow_id = call(create, credentials, path=str(file))
    assert call(create, credentials, file.read_text(), gate=True) == workflow_id
    run = run_workflow.fn(credentials, workflow_id)
    found = call(get, credentials, run)
    assert found["state"] == "running"
    assert found["stages"][0]["stage"] == 0
    assert [row["instance_id"] for row in call(rows, credentials, workflow_id, True)] == [run["instance_id"]]
    assert call(history, credentials, run)[0]["name"] == "RunWaitEvent"
    with pytest.raises(ValidationError):
        call(create, credentials)


@abortable
@pytest.mark.parametrize("asynchronous", [False, True])
def test_context_manager(server: EmbeddedServer, credentials: OrchestrationCredentials, asynchronous: bool) -> None:
    workflow_id = defined(server, endless())
    seen: list[str] = []

    def blocking(error: BaseException) -> None:
        with workflow_instance(credentials, workflow_id) as run:
            seen.append(run.instance_id)
            raise error

    async def not_blocking(error: BaseException) -> None:
        async with workflow_instance(credentials, workflow_id) as run:
            seen.append(run.instance_id)
            raise error

    for error in (ValueError("check failed"), TerminationSignal(signal=15)):
        with pytest.raises(type(error)):
            asyncio.run(not_blocking(error)) if asynchronous else blocking(error)
    assert errors_of(server) == dict.fromkeys(seen, "canceled")
    with workflow_instance(credentials, defined(server, short()), poll_interval=0.2) as run:
        assert run.wait_for_completion()["state"] == "succeeded"


@abortable
def test_all_ways_of_cancelling_at_once_are_harmless(
    server: EmbeddedServer, credentials: OrchestrationCredentials
) -> None:
    from orchestration_integrations.prefect.cancelling import Target, cancel_instances_now

    runs = [run_workflow.fn(credentials, defined(server, endless()))["instance_id"] for _ in range(3)]
    targets = [Target(credentials.settings(), run) for run in runs]
    threads = [threading.Thread(target=cancel_instances_now, args=(targets, "test")) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors_of(server) == dict.fromkeys(runs, "canceled")
    assert server.record().requests["abort_instance"] == 3


def test_interrupt_during_a_cancel_waits_for_its_end(
    server: EmbeddedServer, credentials: OrchestrationCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestration_integrations.prefect import cancelling

    server.fault("abort_instance", "stall", seconds=1)
    run = run_workflow.fn(credentials, defined(server, endless()))["instance_id"]
    real = threading.Thread.join
    signals = [TerminationSignal(signal=15)]

    def join(self: threading.Thread, timeout: float | None = None) -> None:
        if signals and self.name.startswith("cancel-"):
            raise signals.pop()
        real(self, timeout)

    monkeypatch.setattr(threading.Thread, "join", join)
    with pytest.raises(TerminationSignal):
        cancelling.cancel_instances_now([cancelling.Target(credentials.settings(), run)], "test", limit=2)
    assert not [one for one in threading.enumerate() if one.name == f"cancel-{run}"]

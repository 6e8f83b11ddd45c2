"""Flows in this process against a real Prefect server: retries, transactions, hooks, what the UI shows, secrets.

The record of the orchestration server is the judge: what was started, released, paid and cancelled.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from prefect import allow_failure, flow, task, unmapped
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.sorting import FlowRunSort
from prefect.runtime import flow_run as runtime_flow_run
from prefect.runtime import task_run as runtime_task_run
from prefect.states import Cancelling, Running
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.transactions import atransaction, transaction

from orchestration_integrations import (
    AmbiguousRunError,
    ConfigurationError,
    InstanceFailedError,
    KeyReusedError,
    OrchestrationHttpHook,
    ValidationError,
    WaitTimeoutError,
    WrongServerError,
)
from orchestration_integrations.prefect import (
    FlowRunCancelledError,
    OrchestrationCredentials,
    OrchestrationWorkflow,
    cancel_instance,
    cancel_instances,
    cancel_instances_of_flow_run,
    create_workflow,
    get_instance,
    run_workflow,
    run_workflow_and_wait,
    run_workflow_and_wait_async,
    run_workflow_async,
    send_event,
    wait_for_instance,
    wait_for_instance_async,
    workflow_instance,
)
from orchestration_integrations.prefect.owning import Start
from orchestration_integrations.prefect.run_records import PrefectRunStore, records_of_flow_run
from orchestration_integrations.server import EmbeddedServer

from .conftest import abortable, defined, endless, errors_of, failing, releases, send, short, unfunded, until

pytestmark = pytest.mark.usefixtures("prefect_api")


class Boom(Exception):
    """A failure of the flow's own."""


def instances_of(flow_run_id: str) -> list[str | None]:
    return [record.instance_id for record in records_of_flow_run(UUID(flow_run_id))]


def started(server: EmbeddedServer) -> list[str]:
    return [row["instance_id"] for row in server.record().started]


# ---- run and wait ----------------------------------------------------------------------------------


def test_flow_run_and_wait(server: EmbeddedServer, credentials: OrchestrationCredentials) -> None:
    result = run_workflow_and_wait(credentials, defined(server, short()), {}, poll_interval=0.2, timeout=60)
    assert result["state"] == "succeeded"
    assert releases(server) == [result["instance_id"]]


def test_async_flow_run_and_wait(server: EmbeddedServer, credentials: OrchestrationCredentials) -> None:
    result = asyncio.run(run_workflow_and_wait_async(credentials, defined(server, short()), poll_interval=0.2))
    assert result["state"] == "succeeded"
    assert releases(server) == [result["instance_id"]]


def test_id_is_on_record_before_the_release(
    server: EmbeddedServer, credentials: OrchestrationCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[str | None], list[str]]] = []
    real = Start._chosen

    def chosen(self: Start, instance_id: str) -> None:
        real(self, instance_id)
        seen.append((instances_of(str(runtime_flow_run.id)), releases(server)))

    monkeypatch.setattr(Start, "_chosen", chosen)

    @flow
    def one() -> str:
        return str(run_workflow(credentials, defined(server, endless()))["instance_id"])

    instance_id = one()
    assert seen[0] == ([instance_id], [])
    assert releases(server) == [instance_id]


def test_nothing_is_released_where_the_id_cannot_be_stored(
    server: EmbeddedServer, credentials: OrchestrationCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = PrefectRunStore.save
    attempts: list[list[str]] = []

    def save(self: PrefectRunStore, record: Any) -> None:
        if record.state == "chosen" and runtime_flow_run.run_count == 1:
            raise RuntimeError("Prefect's API is away")
        real(self, record)

    monkeypatch.setattr(PrefectRunStore, "save", save)

    @flow(retries=1)
    def one() -> Any:
        attempts.append(releases(server))
        return run_workflow(credentials, defined(server, short()))

    run = one()
    assert attempts == [[], []]
    assert started(server) == [run["instance_id"]]
    assert releases(server) == [run["instance_id"]]


# ---- a retry of the flow comes back to the same run --------------------------------------------------


@pytest.mark.parametrize(
    ("way", "named"),
    [("tasks", True), ("tasks", False), ("async", True), ("subflow", False), ("block", False), ("context", True)],
)
def test_flow_retry_comes_back(
    server: EmbeddedServer, credentials: OrchestrationCredentials, way: str, named: bool
) -> None:
    """The flow fails after its run was started; equal second payments are payments of their own."""
    workflow_id = defined(server, short())
    results: list[list[str]] = []

    def pay(number: int) -> str:
        step = f"pay-{number}" if named else None
        if way == "tasks":
            run = run_workflow(credentials, workflow_id, step=step)
            return str(wait_for_instance(credentials, run, poll_interval=0.2)["instance_id"])
        if way == "subflow":
            return str(run_workflow_and_wait(credentials, workflow_id, step=step, poll_interval=0.2)["instance_id"])
        if way == "block":
            return (
                OrchestrationWorkflow(credentials=credentials, workflow_id=workflow_id, step=step).trigger().instance_id
            )
        with workflow_instance(credentials, workflow_id, step=step, poll_interval=0.2) as run:
            run.wait_for_completion()
            return run.instance_id

    async def apay(number: int) -> str:
        run = await run_workflow_async(credentials, workflow_id, step=f"pay-{number}" if named else None)
        return str((await wait_for_instance_async(credentials, run, poll_interval=0.2))["instance_id"])

    @flow(retries=1)
    def both() -> None:
        results.append([pay(1), pay(2)])
        if runtime_flow_run.run_count == 1:
            raise Boom

    @flow(retries=1)
    async def aboth() -> None:
        results.append([await apay(1), await apay(2)])
        if runtime_flow_run.run_count == 1:
            raise Boom

    asyncio.run(aboth()) if way == "async" else both()
    first, second = results
    assert first == second
    assert len(set(first)) == 2
    assert started(server) == first
    assert sorted(releases(server)) == sorted(first)
    assert server.record().requests["run_workflow"] == 2


def test_lost_answer_then_flow_retry(server: EmbeddedServer, credentials: OrchestrationCredentials) -> None:
    """The first attempt dies after its submit was taken and before anything was chosen."""
    workflow_id = defined(server, short())
    server.fault("run_workflow", "cut_after")
    server.fault("list_instances", "status", count=60, code=503)

    @flow(retries=1)
    def one() -> Any:
        if runtime_flow_run.run_count == 2:
            server.core.clear_faults()
        run = run_workflow(credentials, workflow_id, timeout=3.0)
        return wait_for_instance(credentials, run, poll_interval=0.2)

    result = one()
    assert result["state"] == "succeeded"
    assert started(server) == [result["instance_id"]]
    assert releases(server) == [result["instance_id"]]
    assert len(server.record().money) == 1


def test_ungated_and_lost_is_never_submitted_again(
    server: EmbeddedServer, credentials: OrchestrationCredentials
) -> None:
    workflow_id = defined(server, short(), gate=False)
    server.fault("run_workflow", "cut_after")

    @flow(retries=1)
    def one() -> Any:
        return run_workflow(credentials, workflow_id, timeout=1.0)

    with pytest.raises(AmbiguousRunError):
        one()
    assert server.record().requests["run_workflow"] == 1


def test_wait_failure_starts_nothing(server: EmbeddedServer, credentials: OrchestrationCredentials) -> None:
    """A wait that fails by itself, with retries of the task and of the flow."""
    workflow_id = defined(server, short())
    server.fault("get_instance", "status", count=1, code=403, skip=3)

    @flow(retries=2)
    def one() -> Any:
        run = run_workflow(credentials, workflow_id)
        return wait_for_instance.with_options(retries=1)(credentials, run, poll_interval=0.2)

    assert one()["state"] == "succeeded"
    assert len(started(server)) == 1
    assert server.record().requests["run_workflow"] == 1


@pytest.mark.parametrize("anew", [False, True])
def test_failed_instance_is_reported_again_unless_asked(
    server: EmbeddedServer, credentials: OrchestrationCredentials, anew: bool
) -> None:
    workflow_id = defined(server, failing())

    @flow(retries=1)
    def one() -> Any:
        run = run_workflow(credentials, workflow_id, {}, allow_unbound=True, rerun_failed=anew)
        return wait_for_instance(credentials, run, poll_interval=0.2)

    with pytest.raises(InstanceFailedError):
        one()
    assert len(started(server)) == (2 if anew else 1)
    assert len(set(releases(server))) == (2 if anew else 1)


@pytest.mark.parametrize("generation", [1, 3])
def test_a_payment_under_way_at_a_cancel_is_not_made_again_by_a_flag(credentials: Any, generation: int) -> None:
    with EmbeddedServer(generation) as server:
        reach = OrchestrationCredentials(base_url=server.url)
        workflow_id = defined(server, unfunded())
        tokens: list[str | None] = []

        @flow(retries=2)
        def one() -> None:
            settled = tokens[-1] if runtime_flow_run.run_count == 3 else None
            try:
                run_workflow_and_wait(
                    reach, workflow_id, {}, step="pay", rerun_failed=True, timeout=2, poll_interval=0.2, settled=settled
                )
            except AmbiguousRunError as error:
                tokens.append(error.token)
                raise

        with pytest.raises(WaitTimeoutError, match="was under way"):
            one()
        assert len(tokens) == 1  # the second attempt
        assert len(started(server)) == 2
        assert len(set(releases(server))) == 2


def test_changed_variables_in_a_retry_are_refused(
    server: EmbeddedServer, credentials: OrchestrationCredentials
) -> None:
    """Nobody can tell whether the second call means the first payment."""
    workflow_id = defined(server, short("${payee}"))
    caught: list[AmbiguousRunError] = []

    @flow(retries=1)
    def one() -> None:
        attempt = runtime_flow_run.run_count
        try:
            run_workflow(credentials, workflow_id, {"payee": f"users:{attempt}"})
        except AmbiguousRunError as error:
            caught.append(error)
            raise
        raise Boom

    with pytest.raises(AmbiguousRunError, match="step="):
        one()
    assert list(caught[0].candidates) == started(server)
    assert len(started(server)) == 1


def test_a_changed_definition_in_a_retry_is_refused(
    server: EmbeddedServer, credentials: OrchestrationCredentials
) -> None:
    @flow(retries=1)
    def one() -> None:
        workflow_id = defined(server, short(f"users:{runtime_flow_run.run_count}"))
        run_workflow(credentials, workflow_id)
        raise Boom

    with pytest.raises(AmbiguousRunError, match="another definition"):
        one()
    assert len(started(server)) == 1


def test_changed_variables_in_a_retried_task_outside_a_flow_are_refused(
    server: EmbeddedServer, credentials: OrchestrationCredentials
) -> None:
    workflow_id = defined(server, short("${payee}"))

    @task(retries=1)
    def pay() -> None:
        attempt = runtime_task_run.run_count
        run_workflow(credentials, workflow_id, {"payee": f"users:{attempt}"})
        raise Boom

    with pytest.raises(AmbiguousRunError, match="step="):
        pay()
    assert len(started(server)) == 1


def changing(server: EmbeddedServer, credentials: OrchestrationCredentials, **options: Any) -> list[str]:
    """A flow whose named step has other variables in its second attempt; the instances that it got."""
    workflow_id = defined(server, short("${payee}"))
    seen: list[str] = []

    @flow(retries=1)
    def one() -> None:
        attempt = runtime_flow_run.run_count
        run = run_workflow(credentials, workflow_id, {"payee": f"users:{attempt}"}, step="pay", **options)
        seen.append(run["instance_id"])
        if attempt == 1:
            raise Boom

    one()
    return seen


def test_named_step_with_other_variables_is_refused(
    server: EmbeddedServer, credentials: OrchestrationCredentials
) -> None:
    """P6: the retry would have reported a payment that it did not mean."""
    with pytest.raises(KeyReusedError) as caught:
        changing(server, credentials)
    assert caught.value.differs == "variables.payee"
    assert [caught.value.instance_id] == started(server)
    assert len(releases(server)) == 1


@pytest.mark.parametrize("options", [{"on_changed": "adopt"}, {"fingerprint_ignores": ["payee"]}], ids=str)
def test_other_variables_where_the_user_says_so(
    server: EmbeddedServer, credentials: OrchestrationCredentials, options: dict[str, Any]
) -> None:
    assert changing(server, credentials, **options) == started(server) * 2


def test_step_first_reached_in_a_retry(server: EmbeddedServer, credentials: OrchestrationCredentials) -> None:
    """A second, ungated step that the first attempt never came to is started, once."""
    first, second = defined(server, short("users:a")), defined(server, short("users:b"), gate=False)

    @flow(retries=1)
    def one() -> None:
        run_workflow(credentials, first)
        if runtime_flow_run.run_count == 1:
            raise Boom
        run_workflow(credentials, second)

    one()
    assert [row["workflow_id"] for row in server.record().started] == [first, second]


def test_own_subflow_of_a_retried_flow_comes_back(
    server: EmbeddedServer, credentials: OrchestrationCredentials
) -> None:
    """Prefect gives a failed subflow a new run: its steps are still the same."""
    workflow_id = defined(server, short())
    ids: list[tuple[str, str]] = []

    @flow
    def inner() -> None:
        run = run_workflow(credentials, workflow_id, step="pay")
        ids.append((str(runtime_flow_run.id), run["instance_id"]))
        if len(ids) < 3:
            raise Boom

    @flow(retries=2)
    def outer() -> None:
        inner()

    outer()
    assert len({flow_run_id for flow_run_id, _ in ids}) == 3
    assert {instance_id for _, instance_id in ids} == set(started(server))
    assert len(started(server)) == 1


def test_another_server_in_a_retry_is_refused(server: EmbeddedServer, credentials: OrchestrationCredentials) -> None:
    workflow_id = defined(server, short())
    with EmbeddedServer(generation=2) as other:
        defined(other, short())

        @flow(retries=1)
        def one() -> None:
            url = server.url if runtime_flow_run.run_count == 1 else other.url
            run_workflow(OrchestrationCredentials(base_url=url), workflow_id, step="pay")
            raise Boom

        with pytest.raises(WrongServerError):
            one()
        assert started(other) == []
    assert len(started(server)) == 1


def test_concurrent_equal_starts_are_all_made(server: EmbeddedServer, credentials: OrchestrationCredentials) -> None:
    workflow_id = defined(server, short())
    seen: list[list[str]] = []

    @flow(retries=1)
    def many() -> None:
        futures = [run_workflow.submit(credentials, workflow_id) for _ in range(6)]
        seen.append(sorted(future.result()["instance_id"] for future in futures))
        if runtime_flow_run.run_count == 1:
            raise Boom

    many()
    assert seen[0] == seen[1] == sorted(started(server))
    assert len(set(seen[0])) == 6
    assert sorted(releases(server)) == seen[0]


def test_delivered_event_is_not_sent_again_in_a_retry(
    server: EmbeddedServer, credentials: OrchestrationCredentials
) -> None:
    definition = {"name": "approval", "stages": [{"wait_event": {"event": "approved"}}, send()]}
    workflow_id = defined(server, definition)

    @flow(retries=1)
    def one() -> Any:
        run = run_workflow(credentials, workflow_id)
        send_event(credentials, run, "approved", timeout=30)
        if runtime_flow_run.run_count == 1:
            raise Boom
        return wait_for_instance(credentials, run, poll_interval=0.2)

    assert one()["state"] == "succeeded"
    assert [row["event"] for row in server.record().events].count("approved") == 1


# ---- upstream failure ------------------------------------------------------------------------------


@task
def fails() -> None:
    raise Boom


def test_failed_upstream_never_becomes_a_success(server: EmbeddedServer, credentials: OrchestrationCredentials) -> None:
    workflow_id = defined(server, short())

    @flow
    def one() -> Any:
        bad = fails(return_state=True)
        run = run_workflow(credentials, workflow_id, wait_for=[bad])
        assert run is None  # Prefect's way of saying that it did not run
        return wait_for_instance(credentials, run)

    with pytest.raises(ValidationError, match="did not run"):
        one()
    assert started(server) == []


@abortable
@pytest.mark.parametrize("way", ["direct", "submitted", "async", "waiting task itself", "block", "subflow"])
def test_transaction_cancels_on_failure(
    server: EmbeddedServer, credentials: OrchestrationCredentials, way: str
) -> None:
    workflow_id = defined(server, endless())

    @flow
    def one() -> None:
        with transaction():
            if way == "block":
                OrchestrationWorkflow(credentials=credentials, workflow_id=workflow_id).trigger()
                raise Boom
            if way == "subflow":
                run_workflow_and_wait(credentials, workflow_id, timeout=0.3, on_timeout="leave")
            run = run_workflow(credentials, workflow_id)
            if way == "submitted":
                wait_for_instance.submit(credentials, run, poll_interval=0.2)
            if way == "waiting task itself":
                wait_for_instance(credentials, run, timeout=0.3, on_timeout="leave")
            fails()

    @flow
    async def aone() -> None:
        async with atransaction():
            await run_workflow_async(credentials, workflow_id)
            raise Boom

    with pytest.raises((Boom, WaitTimeoutError)):
        asyncio.run(aone()) if way == "async" else one()
    (instance_id,) = started(server)
    assert errors_of(server) == {instance_id: "canceled"}


@abortable
def test_transaction_cancels_all_at_once(server: EmbeddedServer, credentials: OrchestrationCredentials) -> None:
    workflow_id = defined(server, endless())

    @flow
    def one() -> None:
        with transaction():
            for number in range(4):
                run_workflow(credentials, workflow_id, step=str(number))
            fails()

    with pytest.raises(Boom):
        one()
    assert errors_of(server) == dict.fromkeys(started(server), "canceled")
    assert len(started(server)) == 4


@pytest.mark.parametrize("server", [3], indirect=True)
def test_start_in_a_transaction_that_is_rolled_back_releases_nothing(
    server: EmbeddedServer, credentials: OrchestrationCredentials
) -> None:
    workflow_id = defined(server, short())

    @flow
    def one() -> None:
        with transaction():
            fails(return_state=True)
            run_workflow(credentials, workflow_id)

    with pytest.raises(RuntimeError, match="rolled back"):
        one()
    assert releases(server) == []
    assert server.record().money == []


@abortable
def test_allow_failure_cancels(server: EmbeddedServer, credentials: OrchestrationCredentials) -> None:
    workflow_id = defined(server, endless())
    outcomes: list[str] = []

    @flow
    def one() -> None:
        run = run_workflow(credentials, workflow_id)
        bad = fails.submit()
        cancel = cancel_instance.submit(credentials, run, wait_for=[allow_failure(bad)])
        outcomes.append(cancel.result()["status"])

    one()
    assert outcomes == ["cancelled"]
    assert errors_of(server) == dict.fromkeys(started(server), "canceled")


@abortable
def test_context_manager_in_a_flow(server: EmbeddedServer, credentials: OrchestrationCredentials) -> None:
    workflow_id = defined(server, endless())

    @flow
    def one() -> None:
        with workflow_instance(credentials, workflow_id):
            fails()

    with pytest.raises(Boom):
        one()
    assert errors_of(server) == dict.fromkeys(started(server), "canceled")


# ---- hooks and cancelled flow runs -------------------------------------------------------------------


@abortable
@pytest.mark.parametrize("stored", [True, False], ids=["block name", "block"])
def test_failure_hook_cancels_all_that_was_started(
    server: EmbeddedServer, credentials: OrchestrationCredentials, stored: bool
) -> None:
    workflow_id = defined(server, endless())
    if stored:
        credentials.save("hook-test", overwrite=True)
    hook = cancel_instances("hook-test" if stored else credentials)

    @flow
    def inner() -> None:
        run_workflow(credentials, workflow_id, step="inner")

    @flow(on_failure=[hook])
    def outer() -> None:
        run_workflow(credentials, workflow_id, step="outer")
        inner()
        raise Boom

    with pytest.raises(Boom):
        outer()
    assert len(started(server)) == 2
    assert errors_of(server) == dict.fromkeys(started(server), "canceled")


@pytest.mark.parametrize("server", [3], indirect=True)
def test_instances_of_another_flow_run(server: EmbeddedServer, credentials: OrchestrationCredentials) -> None:
    workflow_id = defined(server, endless())
    ids: list[str] = []

    @flow
    def left_behind() -> None:
        ids.append(str(runtime_flow_run.id))
        run_workflow(credentials, workflow_id)
        run_workflow(credentials, workflow_id)

    left_behind()
    assert errors_of(server) == {}
    outcomes = cancel_instances_of_flow_run(credentials, UUID(ids[0]))
    assert outcomes == dict.fromkeys(started(server), "cancelled")
    assert errors_of(server) == dict.fromkeys(started(server), "canceled")


@pytest.mark.parametrize("server", [3], indirect=True)
def test_instances_of_a_later_attempt_are_left_to_it(
    server: EmbeddedServer, credentials: OrchestrationCredentials
) -> None:
    """The event of a crash can arrive when the flow run is at work again: its runs are wanted."""
    workflow_id = defined(server, endless())
    ids: list[UUID] = []

    @flow
    def begun() -> None:
        ids.append(UUID(str(runtime_flow_run.id)))
        run_workflow(credentials, workflow_id)

    begun()
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(ids[0], Running(), force=True)
        assert client.read_flow_run(ids[0]).run_count == 2
    assert cancel_instances_of_flow_run(credentials, ids[0], run_count=1) == {}
    assert errors_of(server) == {}
    outcomes = cancel_instances_of_flow_run(credentials, ids[0], run_count=2)
    assert outcomes == dict.fromkeys(started(server), "cancelled")


@abortable
@pytest.mark.parametrize("way", ["direct", "submitted", "async", "subflow"])
def test_wait_notices_that_the_flow_run_is_cancelled(
    server: EmbeddedServer, credentials: OrchestrationCredentials, way: str
) -> None:
    """No process is killed here: Prefect tells the flow nothing at all."""
    workflow_id = defined(server, endless())
    ids: list[str] = []

    def cancel_soon() -> None:
        until(lambda: releases(server) and ids, "the run is released")
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(UUID(ids[0]), Cancelling())

    @flow
    def one() -> None:
        ids.append(str(runtime_flow_run.id))
        if way == "subflow":
            run_workflow_and_wait(credentials, workflow_id, poll_interval=60)
            return
        run = run_workflow(credentials, workflow_id)
        if way == "submitted":
            wait_for_instance.submit(credentials, run, poll_interval=60).result()
        else:
            wait_for_instance(credentials, run, poll_interval=60)

    @flow
    async def aone() -> None:
        ids.append(str(runtime_flow_run.id))
        run = await run_workflow_async(credentials, workflow_id)
        await wait_for_instance_async(credentials, run, poll_interval=60)

    canceller = threading.Thread(target=cancel_soon)
    canceller.start()
    with pytest.raises(FlowRunCancelledError):
        asyncio.run(aone()) if way == "async" else one()
    canceller.join()
    assert errors_of(server) == dict.fromkeys(started(server), "canceled")


@pytest.mark.parametrize("server", [3], indirect=True)
@pytest.mark.parametrize("way", ["threads", "loops", "one loop"])
def test_many_waits_share_a_poll_and_notice_that_the_flow_run_is_cancelled(
    server: EmbeddedServer, credentials: OrchestrationCredentials, way: str
) -> None:
    """Prefect gives each submitted task a thread, and an asynchronous one a loop of its own in it."""
    ids: list[str] = []
    seen: list[Counter[str]] = []
    with OrchestrationHttpHook(base_url=server.url) as hook:
        workflow_id = hook.create_workflow({"name": "waits", "stages": [{"wait_event": {"event": "never"}}]}).id
        runs = [hook.run_workflow(workflow_id).id for _ in range(24)]

    def count_and_cancel() -> None:
        until(lambda: Counter(server.record().requests)["list_instances"] > 2, "they share")
        before = Counter(server.record().requests)
        time.sleep(6.0)
        seen.append(Counter(server.record().requests) - before)
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(UUID(ids[0]), Cancelling())

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=30))
    def submits() -> None:
        ids.append(str(runtime_flow_run.id))
        waits = wait_for_instance if way == "threads" else wait_for_instance_async
        for future in [waits.submit(credentials, run, poll_interval=1) for run in runs]:
            future.result()

    @flow
    async def gathers() -> None:
        ids.append(str(runtime_flow_run.id))
        await asyncio.gather(*(wait_for_instance_async(credentials, run, poll_interval=1) for run in runs))

    canceller = threading.Thread(target=count_and_cancel)
    canceller.start()
    with pytest.raises(FlowRunCancelledError):
        asyncio.run(gathers()) if way == "one loop" else submits()
    canceller.join()
    assert seen[0]["list_instances"] >= 3
    assert seen[0]["get_instance"] < 60, "each for itself, they would have asked some 140 times"
    assert errors_of(server) == dict.fromkeys(runs, "canceled")


@pytest.mark.parametrize("server", [3], indirect=True)
@pytest.mark.parametrize("way", ["direct", "submitted", "async"])
def test_time_out_by_prefect_cancels(server: EmbeddedServer, credentials: OrchestrationCredentials, way: str) -> None:
    """`timeout_seconds` of the task: Prefect raises in its own ways, and no thread polls on."""
    workflow_id = defined(server, endless())

    @flow
    def one() -> None:
        run = run_workflow(credentials, workflow_id)
        wait = wait_for_instance.with_options(timeout_seconds=1)
        if way == "submitted":
            wait.submit(credentials, run, poll_interval=60).result()
        wait(credentials, run, poll_interval=60)

    @flow
    async def aone() -> None:
        run = await run_workflow_async(credentials, workflow_id)
        await wait_for_instance_async.with_options(timeout_seconds=1)(credentials, run, poll_interval=60)

    with pytest.raises(TimeoutError):
        asyncio.run(aone()) if way == "async" else one()
    assert errors_of(server) == dict.fromkeys(started(server), "canceled")


# ---- what the UI shows, and what nobody may see ------------------------------------------------------


def test_artifacts_and_events(
    server: EmbeddedServer, credentials: OrchestrationCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestration_integrations.prefect import artifacts

    events: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(
        artifacts, "emit_event", lambda event, resource, payload: events.append((event, {**resource, **payload}))
    )
    ids: list[str] = []

    @flow
    def one(shown: bool) -> Any:
        ids.append(str(runtime_flow_run.id))
        run = run_workflow(credentials, defined(server, short()), show_progress=shown)
        return wait_for_instance(credentials, run, poll_interval=0.2, show_progress=shown)

    result = one(True)
    key = f"instance-{result['instance_id']}"
    shown = [one for one in artifacts_of(ids[0]) if one.type != "orchestration-record"]
    assert {artifact.key: artifact.type for artifact in shown} == {
        f"{key}-link": "markdown",
        f"{key}-progress": "progress",
        f"{key}-stages": "table",
    }
    by_key = {artifact.key: artifact for artifact in artifacts_of(ids[0])}
    assert f"({server.url}/instances/{result['instance_id']})" in str(by_key[f"{key}-link"].data)
    assert float(str(by_key[f"{key}-progress"].data)) == 100.0
    assert "succeeded" in str(by_key[f"{key}-progress"].description)
    table = json.loads(str(by_key[f"{key}-stages"].data))
    assert [(row["stage"], row["kind"], row["error"]) for row in table] == [(0, "RunSend", "")]
    names = [name for name, _ in events]
    assert names[0] == "orchestration.instance.started"
    assert names[-1] == "orchestration.instance.ended"
    assert set(names[1:-1]) == {"orchestration.instance.stage"}
    assert {payload["prefect.resource.id"] for _, payload in events} == {
        f"orchestration.instance.{result['instance_id']}"
    }
    events.clear()
    one(False)
    assert events == []
    assert {one.type for one in artifacts_of(ids[1])} == {"orchestration-record"}


def artifacts_of(flow_run_id: str) -> list[Any]:
    with get_client(sync_client=True) as client:
        only = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[UUID(flow_run_id)]))
        return list(client.read_artifacts(artifact_filter=only))


def test_progress_never_fails_a_wait(
    server: EmbeddedServer, credentials: OrchestrationCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestration_integrations.prefect import artifacts

    def away(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("away")

    monkeypatch.setattr(artifacts, "api", away)
    monkeypatch.setattr(artifacts, "emit_event", away)
    assert run_workflow_and_wait(credentials, defined(server, short()), poll_interval=0.2)["state"] == "succeeded"


SECRET = "planted-secret-0815"


@pytest.fixture
def guarded() -> Iterator[EmbeddedServer]:
    with EmbeddedServer(generation=3, token=SECRET) as started_server:
        yield started_server


def test_secrets_are_found_nowhere(guarded: EmbeddedServer, caplog: pytest.LogCaptureFixture) -> None:

    caplog.set_level(logging.DEBUG)
    credentials = OrchestrationCredentials(
        base_url=guarded.url, client_id="me", client_secret=SECRET, token_url=f"{guarded.url}/api/auth/oauth/token"
    )
    with OrchestrationHttpHook(credentials.settings()) as hook:
        workflow_id = hook.ensure_workflow(short(), gate=True).workflow.id
        broken = hook.ensure_workflow(failing(), gate=True).workflow.id
    result = run_workflow_and_wait(credentials, workflow_id, poll_interval=0.2)
    assert result["state"] == "succeeded"
    with pytest.raises(InstanceFailedError) as caught:
        run_workflow_and_wait(credentials, broken, poll_interval=0.2, allow_unbound=True)
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=20)
        mine = [run for run in runs if workflow_id in str(run.parameters) or broken in str(run.parameters)]
        assert len(mine) == 2
        artifacts = [artifact for run in mine for artifact in artifacts_of(str(run.id))]
        assert artifacts
        tasks = client.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id for run in mine])), limit=200
        )
        found = [run.model_dump_json() for run in mine] + [one.model_dump_json() for one in (*artifacts, *tasks)]
    found += [caplog.text, repr(caught.value), str(caught.value.__dict__), json.dumps(result), repr(credentials)]
    assert [text for text in found if SECRET in text] == []
    assert "**********" in found[0] + found[1]


def test_run_from_stored_parameters_says_what_is_wrong(
    server: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The mask that Prefect stored comes back as a token."""
    credentials = OrchestrationCredentials(base_url=server.url, token=SECRET)
    stored = run_workflow_and_wait.serialize_parameters({"credentials": credentials, "workflow_id": "w"})
    with pytest.raises(ConfigurationError, match="masked"):
        run_workflow_and_wait(**stored)
    assert server.record().requests == {}


# ---- U8: names, maps, variables that nothing asks for ------------------------------------------------


def test_submitted_tasks_have_readable_names(server: EmbeddedServer, credentials: OrchestrationCredentials) -> None:
    """Also those whose parameters were still to come when they were submitted."""
    ids: list[str] = []

    @flow
    def one() -> Any:
        ids.append(str(runtime_flow_run.id))
        workflow_id = create_workflow.submit(credentials, endless(), gate=True)
        run = run_workflow.submit(credentials, workflow_id, step="pay")
        sent = send_event.submit(credentials, run, "never")
        waited = wait_for_instance.submit(credentials, run, poll_interval=0.2, wait_for=[sent])
        get_instance(credentials, run.result())
        return waited.result()["instance_id"], workflow_id.result()

    instance_id, workflow_id = one()
    with get_client(sync_client=True) as client:
        only = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(ids[0])]))
        names = {row.name for row in client.read_task_runs(flow_run_filter=only)}
    instance = instance_id[:12]
    assert names == {
        "create-workflow-endless",
        f"run-workflow-pay-{workflow_id[:12]}",
        f"send-event-never-{instance}",
        f"wait-{instance}",
        f"get-instance-{instance}",
    }


@pytest.mark.parametrize(
    "task",
    [run_workflow, run_workflow_async, run_workflow.with_options(name="pay")],
    ids=["sync", "async", "with options"],
)
def test_starts_can_be_mapped_over_their_variables(
    server: EmbeddedServer, credentials: OrchestrationCredentials, task: Any
) -> None:
    """A block is one value for all of them, not a collection of its fields."""
    workflow_id = defined(server, {"name": "to", "stages": [send("${to}")]})

    @flow
    def pay() -> Any:
        variables = [{"to": f"users:{number}"} for number in range(3)]
        runs = task.map(credentials, workflow_id, variables)
        return wait_for_instance.map(credentials, runs, poll_interval=0.2).result()

    assert [row["state"] for row in pay()] == ["succeeded"] * 3
    assert {server.balance(f"users:{number}", "EUR/2") for number in range(3)} == {100}
    assert len(started(server)) == 3


@pytest.mark.parametrize("whole", [unmapped, lambda credentials: credentials], ids=["unmapped", "as it is"])
def test_mapped_tasks_have_names_that_tell_them_apart(
    server: EmbeddedServer, credentials: OrchestrationCredentials, whole: Any
) -> None:
    workflow_id = defined(server, {"name": "to", "stages": [send("${to}")]})
    ids: list[UUID] = []

    @flow
    def pay() -> Any:
        ids.append(UUID(str(runtime_flow_run.id)))
        variables = [{"to": f"users:{number}"} for number in range(3)]
        steps = [f"pay-{number}" for number in range(3)]
        runs = run_workflow.map(whole(credentials), unmapped(workflow_id), variables, step=steps)
        return wait_for_instance.map(whole(credentials), runs, poll_interval=unmapped(0.2)).result()

    instances = [row["instance_id"] for row in pay()]
    with get_client(sync_client=True) as client:
        only = FlowRunFilter(id=FlowRunFilterId(any_=ids))
        names = {row.name for row in client.read_task_runs(flow_run_filter=only)}
    starts = {f"run-workflow-pay-{number}-{workflow_id[:12]}" for number in range(3)}
    assert names == starts | {f"wait-{one[:12]}" for one in instances}
    assert len(names) == 6


def test_a_map_over_one_mapping_says_how_to_map(server: EmbeddedServer, credentials: OrchestrationCredentials) -> None:
    workflow_id = defined(server, {"name": "to", "stages": [send("${to}")]})

    @flow
    def pay() -> Any:
        return run_workflow.map(credentials, workflow_id, {"to": "users:1"}).result()

    with pytest.raises(ValidationError, match="for map give a list of mappings"):
        pay()
    assert started(server) == []


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("way", ["task", "flow", "block", "context"])
def test_a_variable_that_nothing_asks_for_is_told(
    server: EmbeddedServer,
    credentials: OrchestrationCredentials,
    caplog: pytest.LogCaptureFixture,
    way: str,
    strict: bool,
) -> None:
    workflow_id = defined(server, short())
    given: Any = {"strict_variables": strict}

    def start() -> None:
        if way == "task":
            run_workflow(credentials, workflow_id, {"amuont": 7}, **given)
        elif way == "flow":
            run_workflow_and_wait(credentials, workflow_id, {"amuont": 7}, poll_interval=0.2, **given)
        elif way == "block":
            OrchestrationWorkflow(
                credentials=credentials, workflow_id=workflow_id, variables={"amuont": 7}, **given
            ).trigger()
        else:
            with workflow_instance(credentials, workflow_id, {"amuont": 7}, **given):
                pass

    if strict:
        with pytest.raises(ValidationError) as caught:
            start()
        assert caught.value.path == "variables.amuont"
        assert started(server) == []
        return
    start()
    assert "variables.amuont" in caplog.text
    assert len(started(server)) == 1

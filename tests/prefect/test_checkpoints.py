"""Runs that wait before each payment, in flows against a real Prefect server. The record of the orchestration server
says what was paid; on its generation 2 no abort has any effect."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.runtime import flow_run as runtime_flow_run
from prefect.states import Cancelling
from prefect.transactions import transaction

from orchestration_integrations import InstanceStuckError, OrchestrationHttpHook, ValidationError, WaitTimeoutError
from orchestration_integrations.ownership.marks import PlacedMarks
from orchestration_integrations.prefect import (
    FlowRunCancelledError,
    OrchestrationCredentials,
    OrchestrationWorkflow,
    cancel_instance,
    cancel_instances,
    cancel_instances_of_flow_run,
    create_workflow,
    resume_run,
    run_workflow,
    run_workflow_and_wait,
    run_workflow_and_wait_async,
    run_workflow_async,
    settle_run,
    wait_for_instance,
    wait_for_instance_async,
    workflow_instance,
)
from orchestration_integrations.prefect.marks import PrefectMarks
from orchestration_integrations.server import EmbeddedServer

from .conftest import defined, errors_of, generations, releases, send, short, until

pytestmark = pytest.mark.usefixtures("prefect_api")
second_and_third = pytest.mark.parametrize("server", [2, 3], indirect=True)
PAYEES = ["users:001", "users:002", "users:003"]


class Boom(Exception):
    """A failure of the flow's own."""


def payout(pause: str = "") -> dict[str, Any]:
    """Three payments; after the first one a delay, if there is to be one."""
    first, *others = [send(payee, str(number)) for number, payee in enumerate(PAYEES, start=1)]
    return {"name": "payout", "stages": [first, *([{"delay": {"duration": pause}}] if pause else []), *others]}


def prepared(server: EmbeddedServer, pause: str = "") -> str:
    """The id of the workflow, with checkpoints."""
    with OrchestrationHttpHook(base_url=server.url) as hook:
        return hook.ensure_workflow(payout(pause), gate=True, checkpoints=True).workflow.id


def paid(server: EmbeddedServer) -> list[str]:
    """Who was paid, in order."""
    return [row["posting"]["destination"] for row in server.record().money]


def passed(server: EmbeddedServer) -> list[int]:
    """The stages, by the server's number, that an event let go on."""
    return [row["stage"] for row in server.record().released]


def marks() -> list[str]:
    """The names of all marks that stand."""
    names: list[str] = []
    with get_client(sync_client=True) as client:
        for beginning in ("orchestration_hold", "orchestration_passing"):
            wanted = {"variables": {"name": {"like_": beginning}}, "limit": 200}  # not all: whole sessions leave many
            names += [one["name"] for one in client.request("POST", "/variables/filter", json=wanted).json()]
    return names


def only_start(server: EmbeddedServer) -> str:
    (row,) = server.record().started
    return str(row["instance_id"])


@pytest.fixture(autouse=True)
def _no_marks_of_others() -> None:
    with get_client(sync_client=True) as client:
        for name in marks():
            client.delete_variable_by_name(name)


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


# ---- passing -----------------------------------------------------------------------------------------


@generations
def test_whoever_waits_lets_the_run_pass(server: EmbeddedServer, credentials: OrchestrationCredentials) -> None:
    @flow
    def pay() -> Any:
        workflow_id = create_workflow(credentials, payout(), gate=True, checkpoints=True)
        assert create_workflow(credentials, payout(), gate=True, checkpoints=True) == workflow_id
        return run_workflow_and_wait(credentials, workflow_id, checkpoints=True)

    assert pay()["state"] == "succeeded"
    assert paid(server) == PAYEES
    assert passed(server) == [0, 2, 4]
    assert marks() == []  # the run has ended


@pytest.mark.parametrize("way", ["direct", "submitted", "async", "async flow", "block", "context", "outside"])
def test_each_way_to_wait(server: EmbeddedServer, credentials: OrchestrationCredentials, way: str) -> None:
    workflow_id = prepared(server)
    block = OrchestrationWorkflow(credentials=credentials, definition=payout(), checkpoints=True)

    @flow
    def pay() -> Any:
        if way == "block":
            return block.trigger().wait_for_completion()
        if way == "context":
            with workflow_instance(credentials, workflow_id, checkpoints=True) as run:
                return run.wait_for_completion()
        started = run_workflow(credentials, workflow_id, checkpoints=True)
        if way == "submitted":
            return wait_for_instance.submit(credentials, started).result()
        return wait_for_instance(credentials, started)

    @flow
    async def apay() -> Any:
        if way == "async flow":
            return await run_workflow_and_wait_async(credentials, workflow_id)
        return await wait_for_instance_async(credentials, await run_workflow_async(credentials, workflow_id))

    if way == "outside":
        result = block.trigger().wait_for_completion()
    else:
        result = asyncio.run(apay()) if way.startswith("async") else pay()
    assert result["state"] == "succeeded"
    assert paid(server) == PAYEES
    assert passed(server) == [0, 2, 4]
    assert len(server.record().started) == 1
    assert marks() == []


def test_a_run_that_nobody_waits_for_stands(server: EmbeddedServer, credentials: OrchestrationCredentials) -> None:
    """Another flow may wait for it, or a task outside any; with what the start returned, or with the id alone."""
    workflow_id = prepared(server)

    @flow
    def start() -> Any:
        return [run_workflow(credentials, workflow_id) for _ in range(3)]

    @flow
    def wait(run: Any) -> Any:
        return wait_for_instance(credentials, run)

    runs = start()
    time.sleep(2)
    assert paid(server) == PAYEES[:1] * 3
    assert wait(runs[0])["state"] == "succeeded"
    assert wait(runs[1]["instance_id"])["state"] == "succeeded"
    assert wait_for_instance(credentials, runs[2]["instance_id"])["state"] == "succeeded"
    assert sorted(paid(server)) == sorted(PAYEES * 3)
    assert marks() == []


def test_a_workflow_without_checkpoints_is_refused(
    server: EmbeddedServer, credentials: OrchestrationCredentials
) -> None:
    workflow_id = defined(server, payout())
    for refused in (
        lambda: run_workflow(credentials, workflow_id, checkpoints=True),
        lambda: run_workflow_and_wait(credentials, workflow_id, checkpoints=True),
        lambda: create_workflow(credentials, payout(), checkpoints=True),
        lambda: OrchestrationWorkflow(
            credentials=credentials, definition=payout(), gate=False, checkpoints=True
        ).trigger(),
    ):
        with pytest.raises(ValidationError, match="checkpoints: ") as caught:
            refused()
        assert caught.value.path == "checkpoints"
    assert server.record().started == []
    one = defined(server, short())  # its only payment stands behind the gate
    assert run_workflow_and_wait(credentials, one, checkpoints=True)["state"] == "succeeded"


@pytest.mark.parametrize("retried", ["flow", "task"])
def test_a_retry_passes_on(server: EmbeddedServer, credentials: OrchestrationCredentials, retried: str) -> None:
    workflow_id = prepared(server, "2s")
    tries: list[int] = []

    def work() -> Any:
        tries.append(1)
        run = run_workflow(credentials, workflow_id, step="pay")
        if len(tries) == 1:
            until(lambda: paid(server), "the first payment is made")
            raise Boom
        return wait_for_instance(credentials, run)

    @flow(retries=1)
    def retried_flow() -> Any:
        return work()

    @flow
    def of_a_task() -> Any:
        return task(retries=1)(work)()

    assert (retried_flow if retried == "flow" else of_a_task)()["state"] == "succeeded"
    assert paid(server) == PAYEES
    assert passed(server) == [0, 3, 5]
    assert marks() == []


def test_a_wait_that_is_retried_passes_on(server: EmbeddedServer, credentials: OrchestrationCredentials) -> None:
    workflow_id = prepared(server, "4s")

    @flow
    def pay() -> Any:
        run = run_workflow(credentials, workflow_id)
        retried = wait_for_instance.with_options(retries=9)
        return retried(credentials, run, timeout=1, on_timeout="leave")

    assert pay()["state"] == "succeeded"
    assert paid(server) == PAYEES


def test_two_waiters(server: EmbeddedServer, credentials: OrchestrationCredentials) -> None:
    """Of one flow, and a third in another."""
    workflow_id = prepared(server, "1s")
    runs: list[Any] = []

    @flow
    def other() -> Any:
        return wait_for_instance(credentials, until(lambda: runs, "it is started")[0])

    @flow
    def pay() -> Any:
        runs.append(run_workflow(credentials, workflow_id))
        waits = [wait_for_instance.submit(credentials, runs[0]) for _ in range(2)]
        return [one.result()["state"] for one in waits]

    thread = in_thread(other)
    assert pay() == ["succeeded", "succeeded"]
    thread.join()
    assert paid(server) == PAYEES
    assert passed(server) == [0, 3, 5]


# ---- stopping ----------------------------------------------------------------------------------------


def cancelled_soon(server: EmbeddedServer, ids: list[str]) -> Callable[[], None]:
    def work() -> None:
        until(lambda: paid(server) and ids, "the first payment is made")
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(UUID(ids[0]), Cancelling())

    return work


WAYS = (
    "cancel direct",
    "cancel submitted",
    "cancel async",
    "cancel subflow",
    "sibling",
    "context",
    "time-out",
    "time-out of the task",
    "cancel_instance",
    "hook",
    "automation",
)


@second_and_third
@pytest.mark.parametrize("way", WAYS)
def test_a_stop_holds_before_the_next_payment(
    server: EmbeddedServer, credentials: OrchestrationCredentials, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    workflow_id = prepared(server, "3s")
    ids: list[str] = []
    told: list[Any] = []
    key = f"order/{uuid.uuid4()}"
    hook = cancel_instances(credentials)

    def first_payment() -> None:
        until(lambda: paid(server), "the first payment is made")

    def pay_once() -> Any:
        return run_workflow(credentials, workflow_id, run_key=key)

    @flow
    def pay() -> Any:
        ids.append(str(runtime_flow_run.id))
        if way == "cancel subflow":
            return run_workflow_and_wait(credentials, workflow_id, run_key=key)
        if way == "context":
            with workflow_instance(credentials, workflow_id, run_key=key):
                first_payment()
                raise Boom
        if way == "sibling":
            with transaction():
                run = pay_once()
                wait = wait_for_instance.submit(credentials, run)
                first_payment()
                task(_fail)()
                return wait.result()
        run = pay_once()
        if way == "cancel submitted":
            return wait_for_instance.submit(credentials, run).result()
        if way == "time-out":
            return wait_for_instance(credentials, run, timeout=1)
        if way == "time-out of the task":
            return wait_for_instance.with_options(timeout_seconds=1)(credentials, run)
        if way == "cancel_instance":
            wait = wait_for_instance.submit(credentials, run)
            first_payment()
            told.append(cancel_instance(credentials, run))
            return wait.result()
        if way in ("hook", "automation"):
            first_payment()
            raise Boom
        return wait_for_instance(credentials, run)

    @flow
    async def apay() -> Any:
        ids.append(str(runtime_flow_run.id))
        run = await run_workflow_async(credentials, workflow_id, run_key=key)
        return await wait_for_instance_async(credentials, run)

    wanted = pay.with_options(on_failure=[hook]) if way == "hook" else pay
    if way.startswith("cancel "):
        thread = in_thread(cancelled_soon(server, ids))
        with pytest.raises(FlowRunCancelledError):
            asyncio.run(apay()) if way == "cancel async" else wanted()
        thread.join()
    else:
        with pytest.raises(Exception) as caught:  # noqa: PT011  # each way has its own
            wanted()
        if way == "time-out":
            assert isinstance(caught.value, WaitTimeoutError)
    if way == "automation":
        told.append(cancel_instances_of_flow_run(credentials, UUID(ids[0])))
    instance_id = only_start(server)
    time.sleep(1.5)
    assert paid(server) == PAYEES[:1]
    held = errors_of(server) == {}
    assert held is (server.core.generation == 2)
    assert held or errors_of(server) == {instance_id: "canceled"}
    texts = [record.getMessage() for record in caplog.records]
    if way == "cancel_instance":
        assert told[0]["status"] == ("held" if held else "cancelled")
        assert told[0].get("checkpoint") == (2 if held else None)
    elif way == "automation":
        assert told[0] == {instance_id: "held" if held else "cancelled"}
    elif way == "time-out":
        assert ("it is held at the checkpoint before stage 2" if held else "it was cancelled") in str(caught.value)
    else:
        said = [text for text in texts if "it is held at the checkpoint before stage 2" in text]
        assert bool(said) is held
        assert all(f"resume_run('{key}')" in text for text in said)
    assert not [text for text in texts if "may still run" in text]
    assert [one for one in marks() if "hold" in one] == ([f"orchestration_hold_{instance_id}"] if held else [])
    if held:
        retried_and_resumed(server, credentials, workflow_id, key)


def _fail() -> None:
    raise Boom


def retried_and_resumed(
    server: EmbeddedServer, credentials: OrchestrationCredentials, workflow_id: str, key: str
) -> None:
    """Later attempts report that it is held, and end; once the stop is taken back, the same run goes on."""
    tries: list[int] = []

    @flow(retries=2)
    def again() -> Any:
        tries.append(1)
        return run_workflow_and_wait(credentials, workflow_id, run_key=key)

    with pytest.raises(InstanceStuckError, match=rf"resume_run\('{key}'\)") as caught:
        again()
    assert (caught.value.reason, len(tries)) == ("held", 3)
    assert paid(server) == PAYEES[:1]
    assert resume_run(key)["instance_id"] == only_start(server)
    assert again()["state"] == "succeeded"
    assert paid(server) == PAYEES
    assert len(releases(server)) == 1
    assert marks() == []
    assert resume_run(key)["held_by"] is None  # harmless to repeat


def test_a_wait_is_told_that_somebody_else_holds_its_run(
    server: EmbeddedServer, credentials: OrchestrationCredentials
) -> None:
    """It is not cancelled once more, and says what to do; so does a wait that knows no record."""
    workflow_id = prepared(server, "3s")

    @flow
    def pay(run: Any = None) -> Any:
        run = run or run_workflow(credentials, workflow_id)
        runs.append(run)
        return wait_for_instance(credentials, run)

    @flow
    def stop() -> Any:
        run = until(lambda: paid(server) and runs, "the first payment is made")[0]
        outcomes.append(cancel_instance(credentials, run))

    runs: list[Any] = []
    outcomes: list[Any] = []
    thread = in_thread(stop)
    with pytest.raises(InstanceStuckError, match=r"resume_run\('") as caught:
        pay()
    assert caught.value.reason == "held"
    thread.join()
    assert outcomes[0]["status"] == "held"
    with pytest.raises(InstanceStuckError, match=r"resume_run\(the key of the run\)"):
        pay(runs[0]["instance_id"])
    assert paid(server) == PAYEES[:1]
    before = resume_run(runs[0]["run_key"])
    assert before["held_by"] == "a cancel from outside"
    assert pay(runs[0]["instance_id"])["state"] == "succeeded"
    assert paid(server) == PAYEES


def test_a_second_stop_is_a_stop_too(server: EmbeddedServer, credentials: OrchestrationCredentials) -> None:
    """What an earlier cancel of this process came to does not stand once its stop was taken back."""
    workflow_id = prepared(server, "2s")
    key = f"order/{uuid.uuid4()}"

    @flow
    def pay(stopped: bool) -> Any:
        with workflow_instance(credentials, workflow_id, run_key=key) as run:
            until(lambda: paid(server), "the first payment is made")
            if stopped:
                raise Boom
            return run.wait_for_completion()

    for _ in range(2):
        with pytest.raises(Boom):
            pay(stopped=True)
        with pytest.raises(InstanceStuckError):
            pay(stopped=False)
        assert paid(server) == PAYEES[:1]
        resume_run(key)
    assert pay(stopped=False)["state"] == "succeeded"
    assert paid(server) == PAYEES


def test_a_wait_that_leaves_its_run_holds_nothing(
    server: EmbeddedServer, credentials: OrchestrationCredentials
) -> None:
    """`cancel_on_interrupt=False`: the run stands at its checkpoint, and the next attempt lets it pass."""
    workflow_id = prepared(server, "3s")
    ids: list[str] = []
    key = f"order/{uuid.uuid4()}"

    @flow
    def pay() -> Any:
        ids.append(str(runtime_flow_run.id))
        return run_workflow_and_wait(credentials, workflow_id, run_key=key, cancel_on_interrupt=False)

    thread = in_thread(cancelled_soon(server, ids))
    with pytest.raises(FlowRunCancelledError):
        pay()
    thread.join()
    time.sleep(4)
    assert paid(server) == PAYEES[:1]
    assert not [one for one in marks() if "hold" in one]
    assert pay()["state"] == "succeeded"
    assert paid(server) == PAYEES


@pytest.mark.parametrize("way", ["wait", "start and wait"])
def test_the_flow_run_is_asked_before_each_pass(
    server: EmbeddedServer, credentials: OrchestrationCredentials, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Not only now and then, as waits look up."""
    monkeypatch.setattr("orchestration_integrations.prefect.owner.WATCH_SECONDS", 1000.0)
    workflow_id = prepared(server, "2s")
    ids: list[str] = []

    @flow
    def pay() -> Any:
        ids.append(str(runtime_flow_run.id))
        if way == "start and wait":
            return run_workflow_and_wait(credentials, workflow_id, poll_interval=0.2)
        return wait_for_instance(credentials, run_workflow(credentials, workflow_id), poll_interval=0.2)

    thread = in_thread(cancelled_soon(server, ids))
    with pytest.raises(FlowRunCancelledError):
        pay()
    thread.join()
    assert paid(server) == PAYEES[:1]
    assert passed(server) == [0]
    assert [one for one in marks() if "passing" in one] == []  # nothing was announced


def test_a_settled_run_stays_held_and_another_one_is_started(
    server: EmbeddedServer, credentials: OrchestrationCredentials
) -> None:
    workflow_id = prepared(server, "2s")
    key = f"order/{uuid.uuid4()}"

    @flow
    def pay() -> Any:
        return run_workflow_and_wait(credentials, workflow_id, run_key=key, timeout=1 if not paid(server) else 60)

    with pytest.raises(WaitTimeoutError, match="held at the checkpoint"):
        pay()
    settle_run(key)
    assert pay()["state"] == "succeeded"
    assert sorted(paid(server)) == sorted([PAYEES[0], *PAYEES])
    assert len(releases(server)) == 2


def test_what_the_ui_shows(server: EmbeddedServer, credentials: OrchestrationCredentials) -> None:
    workflow_id = prepared(server, "3s")
    ids: list[str] = []

    @flow
    def pay() -> Any:
        ids.append(str(runtime_flow_run.id))
        return wait_for_instance(credentials, run_workflow(credentials, workflow_id))

    thread = in_thread(cancelled_soon(server, ids))
    with pytest.raises(FlowRunCancelledError):
        pay()
    thread.join()
    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[UUID(ids[0])]))
    with get_client(sync_client=True) as client:
        rows = client.read_artifacts(artifact_filter=wanted)
    (progress,) = [row for row in rows if row.type == "progress"]
    assert f"Instance {only_start(server)}: held at the checkpoint before stage 2" in str(progress.description)


# ---- the marks ---------------------------------------------------------------------------------------


def performed(procedure: Any) -> Any:
    """What a procedure that only asks comes to."""
    with OrchestrationHttpHook(base_url="http://127.0.0.1:1") as hook:
        return hook.perform(procedure)


def test_an_announced_pass_is_seen_by_whoever_stops_the_run() -> None:
    instance_id = str(uuid.uuid4())
    one, other = (PlacedMarks(PrefectMarks(), instance_id, []) for _ in range(2))
    stop = PlacedMarks(PrefectMarks(), instance_id, [])
    performed(one.announce(1))
    performed(other.announce(1))
    performed(other.announce(11))
    assert [performed(stop.announced(number)) for number in (1, 11, 111)] == [True, True, False]
    performed(stop.forget())
    assert not [name for name in marks() if instance_id in name]


def test_a_mark_that_stands_is_written_over() -> None:
    name, place = f"hold/{uuid.uuid4()}", PrefectMarks()
    assert place.read(name) is None
    place.remove(name)
    place.write(name, '{"by":"a"}')
    PrefectMarks().write(name, '{"by":"b"}')
    assert place.read(name) == '{"by":"b"}'
    place.remove(name)
    assert place.read(name) is None


def test_nothing_passes_while_the_marks_cannot_be_read(
    server: EmbeddedServer, credentials: OrchestrationCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it passes once they can."""
    workflow_id = prepared(server)
    read = PrefectMarks.read
    away = [False]

    def unreadable(self: PrefectMarks, name: str) -> str | None:
        if away[0] and name.startswith("hold/"):
            raise RuntimeError("the API is away")
        return read(self, name)

    monkeypatch.setattr(PrefectMarks, "read", unreadable)

    @flow
    def pay() -> Any:
        run = run_workflow(credentials, workflow_id)
        away[0] = True  # before the release too: then nothing at all is paid
        wait = wait_for_instance.submit(credentials, run)
        time.sleep(3)
        assert paid(server) == PAYEES[:1]
        away[0] = False
        return wait.result()

    assert pay()["state"] == "succeeded"
    assert paid(server) == PAYEES


def test_held_is_no_error(
    server: EmbeddedServer, credentials: OrchestrationCredentials, caplog: pytest.LogCaptureFixture
) -> None:
    workflow_id = prepared(server, "1s")

    @flow
    def pay() -> Any:
        with workflow_instance(credentials, workflow_id):
            until(lambda: paid(server), "the first payment is made")
            raise Boom

    with pytest.raises(Boom):
        pay()
    (said,) = [one for one in caplog.records if "it is held at the checkpoint" in one.getMessage()]
    assert said.levelno == logging.WARNING


@pytest.mark.parametrize(
    ("answer", "raised"),
    [
        (httpx.Response(404, json={"detail": "Variable not found"}), None),
        (httpx.Response(404, text="<html>not found</html>"), httpx.HTTPStatusError),
        (httpx.Response(404, json=["x"]), httpx.HTTPStatusError),
    ],
    ids=["of Prefect", "a page of a gateway", "of something else"],
)
def test_a_gateways_404_is_no_missing_mark(
    monkeypatch: pytest.MonkeyPatch, answer: httpx.Response, raised: type[Exception] | None
) -> None:
    class Api:
        def request(self, method: str, path: str, **more: Any) -> httpx.Response:
            request = httpx.Request(method, f"http://prefect{path}")
            raise httpx.HTTPStatusError("404", request=request, response=answer)

    monkeypatch.setattr("orchestration_integrations.prefect.marks.api", Api)
    if raised is None:
        assert PrefectMarks().read("hold/i") is None
    else:
        with pytest.raises(raised):
            PrefectMarks().read("hold/i")

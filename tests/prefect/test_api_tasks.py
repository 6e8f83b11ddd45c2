"""A task for each operation of the API, blocking and for asyncio; and what retries do to those that change it."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect import flow
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.context import get_run_context

import orchestration_integrations.prefect as face
from orchestration_integrations import AmbiguousSubmitError, NotFoundError, TransportError, ValidationError
from orchestration_integrations.http_hook.blocking.operations import Operations
from orchestration_integrations.prefect import (  # the last two would be collected, and fail, if they did not say no
    OrchestrationCredentials,
    test_trigger,
    test_trigger_async,
)
from orchestration_integrations.prefect.api_tasks import may_be_repeated
from orchestration_integrations.prefect.subjects import id_in
from orchestration_integrations.server import EmbeddedServer

from .conftest import defined, endless, generations, short, until

README = Path(__file__).parents[2] / "README.md"
OPERATIONS = [
    name
    for name, _ in inspect.getmembers(Operations, inspect.isfunction)
    if name in Operations.__dict__ and name not in ("list_standing", "list_unreleased")  # made of several operations
]
TASKS = [name for name in face.__all__ if hasattr(getattr(face, name), "submit")]
CHANGES = ["create_trigger", "delete_trigger", "delete_workflow"]
"""Those whose repetition would change something more, or would hide what became of the first."""

both = pytest.mark.parametrize("suffix", ["", "_async"], ids=["sync", "async"])
with_triggers = pytest.mark.parametrize("server", [2, 3], indirect=True)


def call(name: str, *args: Any, **kwargs: Any) -> Any:
    """A task's function, blocking or not. All that it returns can be written as JSON and read again."""
    result = getattr(face, name).fn(*args, **kwargs)
    result = asyncio.run(result) if asyncio.iscoroutine(result) else result
    assert json.loads(json.dumps(result)) == result
    return result


def test_every_operation_has_a_task_and_a_twin() -> None:
    assert len(OPERATIONS) == 18
    assert {f"{name}{suffix}" for name in OPERATIONS for suffix in ("", "_async")} <= set(TASKS)


def test_the_table_of_the_readme_names_what_there_is() -> None:
    table = README.read_text().partition("| API operation |")[2].partition("\n\n")[0]
    rows = [line.split(" | ") for line in table.splitlines()[2:]]
    assert len(rows) == 18
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row[3])}
    named.remove("OrchestrationWorkflow")
    assert {"get_server_info", test_trigger.fn.__name__} <= named
    assert named | {f"{name}_async" for name in named} <= set(face.__all__)
    assert test_trigger_async.isasync


@pytest.mark.parametrize("name", TASKS)
def test_a_task_shows_its_signature_and_says_what_it_does(name: str) -> None:
    task = getattr(face, name)
    signature = inspect.signature(task.fn)
    first, *others = signature.parameters.values()
    assert first.name == "credentials"
    assert not [one for one in others if one.kind in (one.VAR_KEYWORD, one.VAR_POSITIONAL)]
    assert signature.return_annotation not in (inspect.Signature.empty, Any)
    assert (task.__name__, task.fn.__qualname__) == (name, name)
    assert task.cache_policy == NO_CACHE
    blocking = getattr(face, name.removesuffix("_async"))
    assert task.name == blocking.name
    documented = inspect.getdoc(blocking)
    assert documented
    assert "    credentials: the block, or the name of the stored block.\n" in documented
    for one in others:
        assert f"    {one.name}: " in documented, one.name


@generations
@both
def test_what_is_read(server: EmbeddedServer, credentials: OrchestrationCredentials, suffix: str) -> None:
    workflow_id = call(f"create_workflow{suffix}", credentials, endless(), gate=True)
    assert call(f"get_server_info{suffix}", credentials)["version"]
    (row,) = call(f"list_workflows{suffix}", credentials)
    assert (row["workflow_id"], row["name"], row["deleted_at"]) == (workflow_id, "endless", None)
    found = call(f"get_workflow{suffix}", credentials, row)
    assert [list(stage) for stage in found["stages"]] == [["wait_event"], ["send"], ["wait_event"]]
    assert {key: found[key] for key in row} == row
    run = call(f"run_workflow{suffix}", credentials, workflow_id)
    with pytest.raises(NotFoundError):
        call(f"get_stage_history{suffix}", credentials, run, 7)
    assert call(f"get_stage_history{suffix}", credentials, run, 0) == []
    assert call(f"list_instances{suffix}", credentials, found)[0]["instance_id"] == run["instance_id"]


@both
def test_the_activities_of_a_stage(server: EmbeddedServer, credentials: OrchestrationCredentials, suffix: str) -> None:
    run = call(f"run_workflow{suffix}", credentials, defined(server, short()))
    call(f"wait_for_instance{suffix}", credentials, run, poll_interval=0.2)
    (activity,) = call(f"get_stage_history{suffix}", credentials, run["instance_id"], 1)
    assert (activity["terminated"], activity["error"], activity["attempt"]) == (True, None, 1)
    assert activity["input"]


@with_triggers
@both
def test_a_trigger_for_a_workflow_with_a_gate_is_told_in_the_log_of_the_run(
    server: EmbeddedServer, credentials: OrchestrationCredentials, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody releases its runs."""
    workflow_id = defined(server, short())
    call(f"create_trigger{suffix}", credentials, "SAVED_PAYMENT", workflow_id)
    told = [one.name for one in caplog.records if "nobody releases the runs of a trigger" in one.getMessage()]
    assert {"orchestration_integrations.prefect", "orchestration_integrations.procedures"} <= set(told)


@with_triggers
@both
def test_triggers(server: EmbeddedServer, credentials: OrchestrationCredentials, suffix: str) -> None:
    workflow_id = defined(server, {"name": "on event", "stages": [{"wait_event": {"event": "${of}"}}]}, gate=False)
    given: dict[str, Any] = {"filter": "event.amount > 0", "variables": {"of": "event.name"}}
    made = call(f"create_trigger{suffix}", credentials, "SAVED_PAYMENT", workflow_id, **given)
    assert made == {**given, **{key: made[key] for key in ("trigger_id", "created_at")}} | {
        "event": "SAVED_PAYMENT",
        "workflow_id": workflow_id,
    }
    assert call(f"get_trigger{suffix}", credentials, made) == made
    assert call(f"list_triggers{suffix}", credentials) == [made]
    payload = {"id": "p", "amount": 5, "name": "x"}
    tested = call(f"test_trigger{suffix}", credentials, made["trigger_id"], payload)
    assert tested["variables"]["of"]["value"] == "x"
    server.world("publish " + json.dumps({"type": "SAVED_PAYMENT", "payload": payload}))
    server.advance(1)  # a worker starts the run a moment later
    (occurred,) = call(f"list_trigger_occurrences{suffix}", credentials, made)
    assert occurred["trigger_id"] == made["trigger_id"]
    assert call(f"get_instance{suffix}", credentials, occurred)["workflow_id"] == workflow_id
    assert call(f"delete_trigger{suffix}", credentials, made) == made["trigger_id"]
    assert call(f"list_triggers{suffix}", credentials) == []
    with pytest.raises(NotFoundError):
        call(f"delete_trigger{suffix}", credentials, made)


@pytest.mark.parametrize("server", [3], indirect=True)  # generation 2 may answer an abort with 500
@both
def test_a_deleted_workflow_and_an_aborted_instance(credentials: OrchestrationCredentials, suffix: str) -> None:
    workflow_id = call(f"create_workflow{suffix}", credentials, endless(), gate=True)
    run = call(f"run_workflow{suffix}", credentials, workflow_id)
    until(lambda: len(call(f"get_instance_history{suffix}", credentials, run)) == 3, "it waits in its last stage")
    answer = call(f"abort_instance{suffix}", credentials, run)
    assert answer == {"instance_id": run["instance_id"], "abort_answer": "204"}
    assert call(f"delete_workflow{suffix}", credentials, workflow_id) == workflow_id
    assert call(f"list_workflows{suffix}", credentials) == []
    with pytest.raises(NotFoundError):
        call(f"abort_instance{suffix}", credentials, "00000000-0000-0000-0000-000000000000")


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("get_workflow", "workflow_id"),
        ("delete_workflow", "workflow_id"),
        ("get_trigger", "trigger_id"),
        ("delete_trigger", "trigger_id"),
        ("abort_instance", "instance_id"),
    ],
)
@pytest.mark.parametrize("nothing", [None, {}, "", 5])
@both
def test_nothing_to_act_on(
    server: EmbeddedServer,
    credentials: OrchestrationCredentials,
    name: str,
    field: str,
    nothing: Any,
    suffix: str,
) -> None:
    """Prefect returns None for a direct call whose upstream failed."""
    with pytest.raises(ValidationError, match=field) as caught:
        call(f"{name}{suffix}", credentials, nothing)
    assert caught.value.path == field


# ---- retries -------------------------------------------------------------------------------------------


def settings_of_retries(name: str) -> tuple[int, bool]:
    task = getattr(face, name)
    return task.retries, task.retry_condition_fn is not None


@pytest.mark.parametrize("name", CHANGES)
@both
def test_a_change_is_repeated_by_no_setting(name: str, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`PREFECT_TASKS_DEFAULT_RETRIES` is for tasks that say nothing themselves."""
    assert settings_of_retries(f"{name}{suffix}") == (0, True)
    assert getattr(face, f"{name}{suffix}").with_options(retries=3).retry_condition_fn is not None


@pytest.mark.usefixtures("prefect_api")
@pytest.mark.parametrize(
    ("fault", "raised", "attempts"),
    [("cut_before", AmbiguousSubmitError, 1), ("status", None, 2), ("cut_after", None, 1)],
    ids=["lost", "refused", "found"],
)
@both
def test_a_trigger_that_may_be_there_is_not_created_again(
    server: EmbeddedServer,
    credentials: OrchestrationCredentials,
    suffix: str,
    fault: str,
    raised: type[Exception] | None,
    attempts: int,
) -> None:
    """Two triggers start two runs for each event: retries repeat only what was surely not carried out."""
    workflow_id = defined(server, short())
    task = getattr(face, f"create_trigger{suffix}").with_options(retries=2)
    if fault == "status":
        server.fault("list_triggers", "status", 1, code=501)
    else:
        server.fault("create_trigger", fault, 1)
    state = task(credentials, "SAVED_PAYMENT", workflow_id, return_state=True)
    state = asyncio.run(state) if asyncio.iscoroutine(state) else state
    if raised is None:
        assert state.is_completed()
    else:
        with pytest.raises(raised, match="not sent again"):
            state.result()
    assert len(face.list_triggers.fn(credentials)) == (0 if raised else 1)
    with get_client(sync_client=True) as client:
        task_run_id = state.state_details.task_run_id  # Prefect writes it down from events, a little later
        until(lambda: client.read_task_run(task_run_id).run_count == attempts, f"it had {attempts} attempts")


@pytest.mark.usefixtures("prefect_api")
def test_a_delete_that_may_have_happened_is_told(server: EmbeddedServer, credentials: OrchestrationCredentials) -> None:
    """A repeated one would say that there is no such trigger."""
    made = face.create_trigger.fn(credentials, "SAVED_PAYMENT", defined(server, short()))
    server.fault("delete_trigger", "cut_after", 1)
    with pytest.raises(AmbiguousSubmitError):
        face.delete_trigger.with_options(retries=2)(credentials, made)
    assert face.list_triggers.fn(credentials) == []


@pytest.mark.usefixtures("prefect_api")
def test_a_retried_flow_has_one_trigger(server: EmbeddedServer, credentials: OrchestrationCredentials) -> None:
    found: list[str] = []

    @flow(retries=1)
    def one() -> None:
        workflow_id = face.create_workflow(credentials, short(), gate=True)
        found.append(face.create_trigger(credentials, "SAVED_PAYMENT", workflow_id)["trigger_id"])
        if get_run_context().flow_run.run_count == 1:
            raise RuntimeError("the first attempt fails")

    one()
    assert len(found) == 2
    assert len(set(found)) == 1
    assert len(face.list_triggers.fn(credentials)) == 1


# ---- names ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("prefect_api")
def test_task_runs_are_named_by_what_they_are_about(
    server: EmbeddedServer, credentials: OrchestrationCredentials
) -> None:
    ids: dict[str, Any] = {}

    @flow
    def one() -> None:
        ids["flow"] = get_run_context().flow_run.id
        workflow_id = face.create_workflow.submit(credentials, short(), gate=True)
        made = face.create_trigger.submit(credentials, "SAVED_PAYMENT", workflow_id)
        face.get_trigger.submit(credentials, made).result()
        face.list_workflows(credentials)
        ids["workflow"], ids["trigger"] = workflow_id.result(), made.result()["trigger_id"]

    one()
    with get_client(sync_client=True) as client:
        only = FlowRunFilter(id=FlowRunFilterId(any_=[ids["flow"]]))
        names = {row.name for row in client.read_task_runs(flow_run_filter=only)}
    workflow, trigger = ids["workflow"][:12], ids["trigger"][:12]
    assert names == {
        "create-workflow-short",
        f"create-trigger-SAVED_PAYMENT-{workflow}",
        f"get-trigger-{trigger}",
        "list-workflows",
    }


@pytest.mark.parametrize(
    ("error", "repeated"),
    [
        (TransportError("no connection", sent=False), True),
        (AmbiguousSubmitError("its answer was lost"), False),
        (TimeoutError("Task run exceeded timeout of 1.5 second(s)"), False),
        (RuntimeError("the worker died"), False),
    ],
)
def test_only_an_error_that_leaves_no_doubt_is_repeated(error: Exception, repeated: bool) -> None:
    """A time-out of Prefect says nothing of what the server was asked meanwhile."""
    assert may_be_repeated(None, None, SimpleNamespace(data=error)) is repeated


@pytest.mark.parametrize("field", ["instance_id", "workflow_id", "trigger_id"])
def test_a_forgotten_await_is_named(field: str) -> None:
    async def made() -> str:
        return "an id"

    forgotten = made()
    of = field.removesuffix("_id")
    with pytest.raises(ValidationError, match=f"{field} must be .*, not a coroutine: await what gives the {of} first"):
        id_in(forgotten, field)
    forgotten.close()

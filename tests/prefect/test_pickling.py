"""What Prefect's face gives can be pickled, also by cloudpickle as task runners do, and what carries credentials."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import cloudpickle
import pytest
from prefect import Flow, Task
from prefect.blocks.core import Block

import orchestration_integrations.prefect as face
from orchestration_integrations import OrchestrationHttpHook
from orchestration_integrations.prefect import (
    OrchestrationCredentials,
    OrchestrationRun,
    OrchestrationWorkflow,
    errors,
)
from orchestration_integrations.server import EmbeddedServer

from .conftest import short

SECRET = "planted-secret-4711"
DUMPS: list[Callable[[Any], bytes]] = [
    *[lambda one, protocol=protocol: pickle.dumps(one, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)],
    cloudpickle.dumps,
]
PUBLIC = {name: getattr(face, name) for name in face.__all__}
TASKS = [name for name, one in PUBLIC.items() if isinstance(one, Task)]
BLOCKS = [name for name, one in PUBLIC.items() if isinstance(one, type) and issubclass(one, Block)]
FLOWS = [name for name, one in PUBLIC.items() if isinstance(one, Flow)]
ERRORS = {name: one for name, one in vars(errors).items() if isinstance(one, type)}
FUNCTIONS = {"cancel_instances", "resume_run", "settle_run"}
NO_VALUES = {"workflow_instance"}
"""It is entered where it is made: what it holds is an OrchestrationRun."""

USE = """
import asyncio, cloudpickle, pickle, sys
use, *given = pickle.load(sys.stdin.buffer)
result = cloudpickle.loads(use)(*[cloudpickle.loads(one) for one in given])
sys.stdout.buffer.write(cloudpickle.dumps(result))
"""


def in_a_child(use: Callable[..., Any], *given: Any) -> Any:
    """What a new process makes of pickles."""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", USE],
        input=pickle.dumps([cloudpickle.dumps(one) for one in (use, *given)]),
        capture_output=True,
        timeout=120,
        check=False,
        env=dict(os.environ),
    )
    assert ran.returncode == 0, ran.stderr.decode()
    return cloudpickle.loads(ran.stdout)


def test_each_public_name_is_tested_here() -> None:
    known = {*TASKS, *BLOCKS, *FLOWS, *ERRORS, *FUNCTIONS, *NO_VALUES, "OrchestrationRun"}
    assert set(PUBLIC) <= known


def credentials_of(url: str = "http://127.0.0.1:1") -> OrchestrationCredentials:
    return OrchestrationCredentials(base_url=url, token=SECRET)


def block(name: str) -> Any:
    if name == "OrchestrationCredentials":
        return credentials_of()
    return OrchestrationWorkflow(credentials=credentials_of(), workflow_id="w", variables={"a": 1})


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_carries_its_credentials(name: str) -> None:
    """A task runner in another process gets the block as the argument of a task: without them it could do nothing."""
    one = block(name)
    for dump in DUMPS:
        again = pickle.loads(dump(one))
        assert again == one
        assert SECRET not in repr(again)
        credentials = again if name == "OrchestrationCredentials" else again.credentials
        assert credentials.settings().token == SECRET
    assert copy.deepcopy(one) == one


def test_a_run_carries_none() -> None:
    run = OrchestrationRun(credentials_of().settings(), "i", "w", run_key="k", stored_as="kept")
    for dump in DUMPS:
        assert SECRET.encode() not in dump(run)
        again = pickle.loads(dump(run))
        assert (again.instance_id, again.workflow_id, again.run_key) == ("i", "w", "k")
    for double in (copy.copy(run), copy.deepcopy(run)):  # they stay in this process
        assert (double.settings(), double.run_key) == (run.settings(), "k")


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_keeps_what_it_says(name: str) -> None:
    kind = ERRORS[name]
    error = kind("what went wrong", superseded=True) if name == "FlowRunCancelledError" else kind("what went wrong")
    for dump in DUMPS:
        again = pickle.loads(dump(error))
        assert (type(again), str(again), again.__dict__) == (kind, str(error), error.__dict__)
    again = copy.deepcopy(error)
    assert (str(again), again.__dict__) == (str(error), error.__dict__)


def test_another_process_uses_tasks_and_blocks() -> None:
    """Every task and flow can go there; one of each way of making them is called there."""

    def use(tasks: dict[str, Any], given: Any, workflow_id: str) -> Any:
        import asyncio

        run = tasks["run_workflow"].fn(given, workflow_id)
        done = asyncio.run(tasks["wait_for_instance_async"].fn(given, run, poll_interval=0.2, timeout=60))
        found = asyncio.run(tasks["get_instance_async"].fn(given, run))
        return {name: one.name for name, one in tasks.items()}, done["state"], found["state"]

    with EmbeddedServer(3, token=SECRET) as server:
        with OrchestrationHttpHook(base_url=server.url, token=SECRET) as hook:
            workflow_id = hook.ensure_workflow(short(), gate=True).workflow.id
        things = {name: PUBLIC[name] for name in (*TASKS, *FLOWS)}
        names, waited, read = in_a_child(use, things, credentials_of(server.url), workflow_id)
        assert names == {name: one.name for name, one in things.items()}
        assert (waited, read) == ("succeeded", "succeeded")
        assert server.balance("users:001", "EUR/2") == 100


def test_a_hook_for_flows_can_be_pickled() -> None:
    for dump in DUMPS[-1:]:
        assert callable(pickle.loads(dump(face.cancel_instances("orchestration"))))
        assert callable(pickle.loads(dump(face.settle_run)))
        assert callable(pickle.loads(dump(face.resume_run)))

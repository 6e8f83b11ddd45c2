"""All that users get can be pickled and copied, also to another process; only what is made to carry credentials does.

What is tested is found by looking at what there is: a new public name without a specimen here fails.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import os
import pickle
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from importlib import import_module
from typing import Any

import msgspec
import pytest

import orchestration_integrations as package
from orchestration_integrations import (
    AsyncOrchestrationHttpHook,
    ConfigurationError,
    MemoryRunStore,
    NotFoundError,
    OrchestrationError,
    OrchestrationHttpHook,
    RunRecord,
    Settings,
    SqliteRunStore,
)
from orchestration_integrations.procedures.content import Content
from orchestration_integrations.server import EmbeddedServer
from tests.conftest import open_hook

from .test_answers import models

SECRET = "planted-secret-4711"
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
CARRIERS = {"AsyncOrchestrationHttpHook", "OrchestrationHttpHook", "Settings"}
"""These are made to reach a server, also from another process: their pickles hold the credentials."""
NO_VALUES = {"hint", "RunStore", "__version__"}
"""A protocol, and a text."""


def all_errors() -> list[type[OrchestrationError]]:
    """Each class of error of the package, public or not."""
    for module in pkgutil.walk_packages(package.__path__, "orchestration_integrations."):
        if module.name.split(".")[1] not in ("airflow", "prefect", "testing", "demo", "cli", "server"):
            import_module(module.name)

    def below(kind: type[OrchestrationError]) -> Iterator[type[OrchestrationError]]:
        yield kind
        for one in kind.__subclasses__():
            yield from below(one)

    return sorted(set(below(OrchestrationError)), key=lambda kind: kind.__name__)


def error_of(kind: type[OrchestrationError]) -> OrchestrationError:
    """An error with all its attributes set."""
    by_name = {type(one).__name__: one for one in models()}
    values: dict[str, Any] = {
        "candidates": ["i", "j"],
        "differs": "variables.amount",
        "error_code": "VALIDATION",
        "field": "token",
        "instance": by_name["Instance"],
        "instance_id": "i",
        "moved": by_name["Moved"],
        "outcome": by_name["CancelOutcome"],
        "path": "stages[0]",
        "reason": "attempts",
        "retry_after": 3.5,
        "run_key": "order-17",
        "sent": False,
        "server_message": "said",
        "status_code": 500,
        "superseded": True,
        "token": "0-abc",
        "told": "told",
        "window": (NOW, NOW),
        "workflow_id": "w",
    }
    taken: dict[str, Any] = {}
    for base in kind.__mro__:
        if "__init__" in base.__dict__ and issubclass(base, OrchestrationError):
            parameters = inspect.signature(base.__init__).parameters
            taken |= {name: values[name] for name, one in parameters.items() if one.kind is one.KEYWORD_ONLY}
            if not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
                break
    return kind("what went wrong", **taken)


def specimens() -> dict[str, Any]:
    """One of each public class, by name."""
    record = RunRecord(
        key="k",
        state="chosen",
        workflow_id="w",
        server="http://a",
        since=NOW,
        content=Content("s", {"amount": "d"}),
        instance_id="i",
    )
    found = {type(one).__name__: one for one in (*models(), record)}
    found |= {kind.__name__: error_of(kind) for kind in all_errors()}
    return found


def same(one: Any, other: Any) -> bool:
    if isinstance(one, BaseException):
        return type(one) is type(other) and str(one) == str(other) and one.__dict__ == other.__dict__
    return bool(one == other)


def test_each_public_name_has_a_specimen() -> None:
    assert set(package.__all__) - set(specimens()) == CARRIERS | NO_VALUES | {"MemoryRunStore", "SqliteRunStore"}
    structs = {
        kind.__name__
        for kind in vars(import_module("orchestration_integrations.api.models")).values()
        if _is_struct(kind)
    }
    assert structs <= set(specimens())


def _is_struct(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind is not msgspec.Struct


@pytest.mark.parametrize("name", sorted(specimens()))
def test_it_can_be_pickled_and_copied(name: str) -> None:
    one = specimens()[name]
    for protocol in PROTOCOLS:
        assert same(pickle.loads(pickle.dumps(one, protocol)), one), protocol
    assert same(copy.deepcopy(one), one)
    assert same(copy.copy(one), one)


CHILD = """
import pickle, sys
things = pickle.load(sys.stdin.buffer)
pickle.dump([(str(thing), sorted(getattr(thing, "__dict__", {}))) for thing in things.values()], sys.stdout.buffer)
"""


def in_a_child(program: str, given: Any, **env: str) -> Any:
    """What a new process, which has imported nothing of the package, makes of a pickle."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        input=pickle.dumps(given),
        capture_output=True,
        timeout=60,
        check=False,
        env={**os.environ, **env},
    )
    assert ran.returncode == 0, ran.stderr.decode()
    return pickle.loads(ran.stdout)


def test_another_process_reads_them() -> None:
    things = specimens()
    assert in_a_child(CHILD, things) == [(str(one), sorted(getattr(one, "__dict__", {}))) for one in things.values()]


# ---- credentials ---------------------------------------------------------------------------------------


USE_A_HOOK = """
import asyncio, inspect, pickle, sys
hook, workflow_id = pickle.load(sys.stdin.buffer)
async def ask():
    answer = hook.get_workflow(workflow_id)
    return await answer if inspect.isawaitable(answer) else answer
pickle.dump((asyncio.run(ask()).id, repr(hook)), sys.stdout.buffer)
"""


@pytest.mark.parametrize("kind", [OrchestrationHttpHook, AsyncOrchestrationHttpHook])
def test_another_process_uses_a_hook(kind: type) -> None:
    with EmbeddedServer(2, token=SECRET) as server:
        hook = kind(base_url=server.url, token=SECRET, timeout=7, face="airflow/3")
        made = hook.create_workflow({"name": "w", "stages": [{"wait_event": {"event": "e"}}]})
        workflow_id = (asyncio.run(made) if inspect.iscoroutine(made) else made).id
        found, shown = in_a_child(USE_A_HOOK, (hook, workflow_id))
        assert found == workflow_id
        assert shown == repr(hook)
        assert SECRET not in shown
        for protocol in PROTOCOLS:
            again = pickle.loads(pickle.dumps(hook, protocol))
            assert (type(again), again.settings) == (kind, hook.settings)
        assert copy.deepcopy(hook).settings == hook.settings
        assert pickle.dumps(hook) == pickle.dumps(pickle.loads(pickle.dumps(hook)))


def test_a_copied_hook_knows_the_ids_that_it_was_given() -> None:
    """The row of a run can be late: whoever waits for it elsewhere must not take "not found" for an answer."""
    hook = OrchestrationHttpHook(base_url="http://a")
    hook.expect("i")
    assert pickle.loads(pickle.dumps(hook)).plans.given_ids == ("i",)


@pytest.mark.parametrize("name", sorted(CARRIERS))
def test_what_reaches_a_server_carries_its_credentials(name: str) -> None:
    settings = Settings(base_url="https://a", client_id="c", client_secret=SECRET)
    one = settings if name == "Settings" else getattr(package, name)(settings)
    assert SECRET.encode() in pickle.dumps(one)
    again = pickle.loads(pickle.dumps(one))
    assert (again if name == "Settings" else again.settings) == settings
    assert SECRET not in repr(again)


def test_what_a_server_told_carries_no_credentials(kind: str) -> None:
    with EmbeddedServer(2, token=SECRET) as server:
        hook = open_hook(kind, base_url=server.url, token=SECRET)
        workflow = hook.ensure_workflow({"name": "w", "stages": [{"delay": {"duration": "1s"}}]}, gate=True)
        instance = hook.start(workflow.workflow.id, {}, run_key="k")
        told = [workflow, instance, hook.cancel(instance.id), hook.list_instances(), hook.get_server_info()]
        with pytest.raises(NotFoundError) as missing:
            hook.get_instance("00000000-0000-0000-0000-000000000000")
        with pytest.raises(ConfigurationError) as wrong:
            Settings(base_url="https://a", token=f"{SECRET}\n2")
        for one in [*told, missing.value, wrong.value]:
            assert SECRET.encode() not in pickle.dumps(one)


# ---- stores --------------------------------------------------------------------------------------------


def test_a_store_in_a_file_is_the_same_file_anywhere(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = SqliteRunStore("runs.db")
    assert store.choose("k", 0, "first") == "first"
    pickled = pickle.dumps(store)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    SqliteRunStore("runs.db")  # another file of that name
    assert pickle.loads(pickled).choose("k", 0, "second") == "first"


@pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_store_in_memory_cannot_be_doubled(way: Any) -> None:
    with pytest.raises(TypeError, match="SqliteRunStore"):
        way(MemoryRunStore())

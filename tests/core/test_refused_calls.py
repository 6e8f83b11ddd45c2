"""What the error of a call that the server refuses says besides the server's words: what was probably meant."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from orchestration_integrations import (
    AsyncOrchestrationHttpHook,
    ConfigurationError,
    MemoryRunStore,
    NotFoundError,
    OrchestrationHttpHook,
    Settings,
    ValidationError,
)
from orchestration_integrations.server import EmbeddedServer
from tests.scripted import ScriptedServer, respond

WAITS = {"name": "nightly-payout", "stages": [{"wait_event": {"event": "go"}}]}
UNKNOWN = "0e7f1d7e-0000-4000-8000-000000000000"
NO_ID = "'nightly-payout' is no id, which is a UUID. If it is the name of a workflow: list_workflows tells its id"

CALLS: dict[str, Callable[[OrchestrationHttpHook, str], Any]] = {
    "get": lambda hook, one: hook.get_workflow(one),
    "run": lambda hook, one: hook.run_workflow(one),
    "start": lambda hook, one: hook.start(one),
    "run_once": lambda hook, one: hook.run_once(one, run_key="k", store=MemoryRunStore()),
    "delete": lambda hook, one: hook.delete_workflow(one),
    "standing": lambda hook, one: hook.list_standing(one),
}
TRIGGERS: dict[str, Callable[[OrchestrationHttpHook, str], Any]] = {
    "trigger": lambda hook, one: hook.create_trigger("SAVED_PAYMENT", one),
    "ensure_trigger": lambda hook, one: hook.ensure_trigger("SAVED_PAYMENT", one),
}


@pytest.fixture(params=[1, 2, 3])
def server(request: Any) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(request.param) as running:
        yield running


@pytest.fixture
def hook(server: EmbeddedServer) -> Iterator[OrchestrationHttpHook]:
    with OrchestrationHttpHook(base_url=server.url) as one:
        yield one


@pytest.mark.parametrize("name", [*CALLS, *TRIGGERS])
def test_a_name_in_the_place_of_an_id_is_told(server: EmbeddedServer, hook: OrchestrationHttpHook, name: str) -> None:
    if name in TRIGGERS and server.core.engine.generation == 1:
        pytest.skip("it has no triggers")
    hook.create_workflow(WAITS)
    call = {**CALLS, **TRIGGERS}[name]
    with pytest.raises((NotFoundError, ValidationError)) as caught:
        call(hook, "nightly-payout")
    assert NO_ID in str(caught.value)
    assert "run_once takes the definition itself too, as a mapping" in str(caught.value)
    assert "the only text that is taken here" in str(caught.value), "also where no definition is taken: by a watcher"
    assert "no id" not in getattr(caught.value, "message", "")  # those are the server's words
    with pytest.raises((NotFoundError, ValidationError)) as caught:
        call(hook, UNKNOWN)
    assert "is no id" not in str(caught.value)


def test_a_gateways_404_is_about_no_id() -> None:
    def answer(request: Any) -> Any:
        return respond(404, b"<html>not here</html>")

    with ScriptedServer(answer) as scripted, OrchestrationHttpHook(base_url=scripted.url, retry_budget=0.5) as hook:
        with pytest.raises(NotFoundError) as caught:
            hook.get_workflow("nightly-payout")
    assert "check the base path" in str(caught.value)
    assert "is no id" not in str(caught.value)


@pytest.mark.parametrize("how", ["create", "ensure", "gated", "run_once"])
def test_a_misspelt_kind_of_stage_is_named_by_the_error(hook: OrchestrationHttpHook, how: str) -> None:
    definition = {"name": "x", "stages": [WAITS["stages"][0], {"sned": {}}]}
    with pytest.raises(ValidationError) as caught:
        {
            "create": lambda: hook.create_workflow(definition),
            "ensure": lambda: hook.ensure_workflow(definition),
            "gated": lambda: hook.ensure_workflow(definition, gate=True),
            "run_once": lambda: hook.run_once(definition, run_key="k", store=MemoryRunStore()),
        }[how]()
    said = str(caught.value)
    assert "sned: unknown kind of stage (did you mean send?); the known kinds are send, delay, wait_event" in said


def test_a_forgotten_await_is_named() -> None:
    async def main() -> None:
        async with AsyncOrchestrationHttpHook(base_url="http://127.0.0.1:9") as hook:
            for of, call in (("instance", hook.get_instance), ("workflow", hook.get_workflow)):
                forgotten = hook.get_workflow(UNKNOWN)
                with pytest.raises(ValidationError, match=f"a coroutine: await what gives the {of} first"):
                    await call(forgotten)  # type: ignore[arg-type]
                forgotten.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("given", "meant"),
    [("url", "base_url"), ("host", "base_url"), ("Server", "base_url"), ("api_key", "token"), ("ui_ulr", "ui_url")],
)
def test_what_others_call_a_setting_is_told_by_its_name_here(given: str, meant: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_fields({given: "x"})
    assert str(caught.value) == f"{given}: unknown setting (did you mean {meant}?)"

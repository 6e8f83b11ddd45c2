"""The blocks: their form, their secrets, and pairs of methods that are what they say."""

from __future__ import annotations

import asyncio
import inspect
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from prefect import flow
from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import BlockTypeCreate
from prefect.exceptions import ParameterTypeError
from prefect.testing.standard_test_suites import BlockStandardTestSuite

import orchestration_integrations.prefect as face
from orchestration_integrations import (
    AsyncOrchestrationHttpHook,
    ConfigurationError,
    KeyReusedError,
    OrchestrationError,
    OrchestrationHttpHook,
    Settings,
    ValidationError,
    WaitTimeoutError,
)
from orchestration_integrations.prefect import OrchestrationCredentials, OrchestrationRun, OrchestrationWorkflow
from orchestration_integrations.prefect.block_links import LOGO_URL
from orchestration_integrations.prefect.options import DEFAULTS
from orchestration_integrations.server import EmbeddedServer
from tests.wrong_options import WRONG_OPTIONS

from .conftest import abortable, defined, endless, releases, short

SECRET = "planted-secret-4711"


@pytest.mark.parametrize("block", [OrchestrationCredentials, OrchestrationWorkflow])
class TestStandards(BlockStandardTestSuite):
    @pytest.fixture
    def block(self, block: type[Block]) -> type[Block]:
        return block


@pytest.mark.parametrize("block", [OrchestrationCredentials, OrchestrationWorkflow])
def test_the_addresses_of_a_block_reach_the_ui(prefect_api: str, block: type[Block]) -> None:
    """U8: as Prefect's server gives them to its UI, which loads the logo by itself."""
    block.register_type_and_schema()
    with get_client(sync_client=True) as client:
        shown = client.read_block_type_by_slug(block.get_block_type_slug())
    assert str(shown.documentation_url) == "https://docs.formance.com/modules/flows/introduction"
    assert str(shown.logo_url) == LOGO_URL
    # Named by a whole commit, so that it is the same file for ever; square by Prefect's measure.
    assert re.fullmatch(
        r"https://raw\.githubusercontent\.com/formancehq/docs/[0-9a-f]{40}/[a-z/]+/android-chrome-512x512\.png",
        LOGO_URL,
    )


def test_a_logo_cannot_be_a_data_address() -> None:
    """Why it is an https one."""
    with pytest.raises(ValueError, match="scheme"):
        BlockTypeCreate(name="a", slug="a", logo_url="data:image/png;base64,iVBORw0KGgo=")  # type: ignore[arg-type]


def test_no_airflow_is_imported() -> None:
    code = "import sys, orchestration_integrations.prefect; print([m for m in sys.modules if m.startswith('airflow')])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, timeout=120).strip() == "[]"


def test_registered_as_collection() -> None:
    from importlib.metadata import entry_points

    found = [one for one in entry_points(group="prefect.collections") if one.name == "orchestration_integrations"]
    loaded = [one.load() for one in found]
    assert [set(one.__all__) for one in loaded] == [{"OrchestrationCredentials", "OrchestrationWorkflow"}]


def test_importing_the_package_imports_no_prefect() -> None:
    code = (
        "import sys, orchestration_integrations.prefect as face; print('prefect' in sys.modules, len(dir(face)) > 20)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True, timeout=120).strip() == "False True"


def test_names_are_what_they_were() -> None:
    assert all(getattr(face, name) is not None for name in face.__all__)
    assert set(face.__all__) == {name for names in face._HOMES.values() for name in names}
    assert set(face.__all__) <= set(dir(face))
    with pytest.raises(AttributeError, match="nothing"):
        face.nothing  # noqa: B018


def test_blocks_are_registered_by_the_package(prefect_api: str) -> None:
    command = [sys.executable, "-m", "prefect", "block", "register", "-m", "orchestration_integrations.prefect"]
    said = subprocess.check_output(command, text=True, timeout=120, stderr=subprocess.STDOUT)
    assert "Successfully registered 2 blocks" in said


def test_credentials_normalise_as_settings_do(monkeypatch: pytest.MonkeyPatch) -> None:
    block = OrchestrationCredentials(
        base_url="Stack.example.com/api/orchestration/", client_id="me", client_secret=SECRET, verify="false"
    )
    with block.get_client() as client:
        assert isinstance(client, OrchestrationHttpHook)
        assert client.settings.base_url == "https://stack.example.com/api/orchestration"
        assert client.settings.token_url == "https://stack.example.com/api/auth/oauth/token"
        assert client.settings.verify is False
        assert client.settings.client_secret == SECRET
    assert isinstance(block.get_async_client(), AsyncOrchestrationHttpHook)
    monkeypatch.setenv("ORCHESTRATION_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("ORCHESTRATION_TOKEN", SECRET)
    assert OrchestrationCredentials.from_env().settings().token == SECRET


WRONG_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"base_url": "http://a b"}, "base_url"),
    ({"base_url": "ftp://x"}, "base_url"),
    ({"client_id": "me"}, "client_secret"),
    ({"token": SECRET, "client_id": "me", "client_secret": SECRET}, "token"),
    ({"token": f"{SECRET}\n2"}, "token"),
    ({"token_url": "ftp://x"}, "token_url"),
    ({"timeout": 0}, "timeout"),
    ({"retry_budget": -1}, "retry_budget"),
    ({"max_connections": 0}, "max_connections"),
    ({"verify": "perhaps"}, "verify"),
    ({"timeout": "abc"}, "timeout"),
    ({"max_connections": "x"}, "max_connections"),
    ({"api_version": SECRET}, "api_version"),
    ({"retry_budget": None}, "retry_budget"),
    ({"token": [SECRET]}, "token"),
    ({"cert": {"key": SECRET}}, "cert"),
]


@pytest.mark.parametrize(("wrong", "field"), WRONG_FIELDS)
def test_wrong_fields_are_named_when_the_block_is_made(wrong: dict[str, Any], field: str) -> None:
    """U2."""
    with pytest.raises(ConfigurationError) as caught:
        OrchestrationCredentials(**{"base_url": "http://a", **wrong})
    assert caught.value.field == field
    assert SECRET not in str(caught.value)


def test_a_missing_field_and_one_of_the_block_inside_are_named() -> None:
    """By our error, not by pydantic's."""
    with pytest.raises(ConfigurationError, match="base_url: is missing") as caught:
        OrchestrationCredentials(token=SECRET)
    assert caught.value.field == "base_url"
    with pytest.raises(ConfigurationError, match=r"credentials\.timeout: should be a valid number") as caught:
        OrchestrationWorkflow(credentials={"base_url": "http://a", "timeout": "abc"}, workflow_id="w")
    assert caught.value.field == "credentials.timeout"


def test_an_unknown_field_is_named_when_the_block_is_made() -> None:
    """A mistyped field would leave the default in force: here no token would be sent, there no limit be kept."""
    block = OrchestrationCredentials(base_url="http://a")
    about = {"base_url": "http://a", "tokn": SECRET}
    for make, field in (
        (lambda: OrchestrationCredentials(**about), "tokn"),
        (lambda: OrchestrationWorkflow(credentials=block, workflow_id="w", time_out=3), "time_out"),
        (lambda: OrchestrationWorkflow(credentials=about, workflow_id="w"), "credentials.tokn"),
    ):
        with pytest.raises(ConfigurationError, match=r"did you mean (token|timeout)") as caught:
            make()
        assert caught.value.field == field
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("name", ["url", "host", "endpoint", "server"])
def test_the_address_by_another_name_is_told_by_its_own(name: str) -> None:
    """By its letters alone `url` is most like `ui_url`, which would make a block without an address."""
    with pytest.raises(ConfigurationError, match=rf"^{name}: unknown field \(did you mean base_url\?\)$") as caught:
        OrchestrationCredentials(**{name: "http://a"})
    assert caught.value.field == name


OLDER_VERSION = """
from orchestration_integrations.prefect import OrchestrationCredentials, OrchestrationWorkflow

class OlderCredentials(OrchestrationCredentials):
    _block_type_name = "Orchestration Credentials"
    region: str = "eu"

class OlderWorkflow(OrchestrationWorkflow):
    _block_type_name = "Orchestration Workflow"
    credentials: OlderCredentials
    patience: int = 3

credentials = OlderCredentials(base_url="http://a", region="us")
credentials.save("older")
OlderWorkflow(credentials=credentials, workflow_id="w", patience=4).save("older")
try:
    OlderCredentials(base_url="http://a", regoin="us")
except Exception as error:
    print(error)
"""


def test_a_block_that_an_older_version_stored_still_loads(prefect_api: str) -> None:
    """With fields that the class no longer has, also in the block inside it; and it is made again from a dump."""
    said = subprocess.check_output([sys.executable, "-W", "ignore", "-c", OLDER_VERSION], text=True, timeout=120)
    assert "regoin: unknown field (did you mean region?)" in said  # a subclass has its own fields
    assert OrchestrationCredentials.load("older").base_url == "http://a"
    job = OrchestrationWorkflow.load("older")
    assert "patience" in (job.model_extra or {})
    assert isinstance(job.credentials, OrchestrationCredentials)
    job.save("older", overwrite=True)
    for dump in (pickle.dumps, cloudpickle.dumps):
        assert pickle.loads(dump(OrchestrationWorkflow.load("older"))).workflow_id == "w"
    dumped = OrchestrationWorkflow(credentials=job.credentials, workflow_id="w").model_dump()
    assert "_block_document_id" in dumped["credentials"]
    assert OrchestrationWorkflow(**dumped).credentials.base_url == "http://a"


@pytest.mark.parametrize("way", ["sync", "async"])
def test_wrong_fields_are_named_when_the_block_is_saved(prefect_api: str, way: str) -> None:
    """U2: a field can be changed after the block was made."""
    block = OrchestrationCredentials(base_url="http://a")
    block.base_url = "ftp://x"
    with pytest.raises(ConfigurationError) as caught:
        asyncio.run(block.asave("wrong-one")) if way == "async" else block.save("wrong-one")
    assert caught.value.field == "base_url"
    with pytest.raises(ValueError, match="wrong-one"):
        OrchestrationCredentials.load("wrong-one")
    block.base_url = "http://a"
    asyncio.run(block.asave(f"right-{way}")) if way == "async" else block.save(f"right-{way}")
    assert OrchestrationCredentials.load(f"right-{way}").base_url == "http://a"


@pytest.mark.parametrize("field", ["verify", "cert"])
def test_files_are_looked_for_where_the_block_is_used(prefect_api: str, field: str) -> None:
    block = OrchestrationCredentials(base_url="https://a", **{field: "/no/such/file.pem"})
    block.save(f"with-{field}", overwrite=True)
    with pytest.raises(ConfigurationError) as caught:
        OrchestrationCredentials.load(f"with-{field}").get_client()
    assert caught.value.field == field


def test_the_block_has_every_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """U2: and drops none that the environment gives."""
    assert set(OrchestrationCredentials.model_fields) == set(Settings.__struct_fields__)
    certificate = tmp_path / "client.pem"
    certificate.write_text("")
    given = {
        "URL": "http://127.0.0.1:1",
        "CLIENT_ID": "me",
        "CLIENT_SECRET": SECRET,
        "TOKEN_URL": "http://127.0.0.1:2/token",
        "SCOPE": "orchestration:read",
        "API_VERSION": "v2",
        "VERIFY": str(certificate),
        "CERT": str(certificate),
        "TIMEOUT": "3",
        "RETRY_BUDGET": "31",
        "MAX_CONNECTIONS": "7",
        "UI_URL": "https://page.example",
    }
    for name, value in given.items():
        monkeypatch.setenv(f"ORCHESTRATION_{name}", value)
    assert OrchestrationCredentials.from_env().settings() == Settings.from_env()
    assert Settings.from_env().max_connections == 7
    link = OrchestrationCredentials.from_env().settings().instance_link("i")
    assert link == "https://page.example/#/instances/i"


@pytest.mark.parametrize("stored", [True, False])
def test_a_pickled_run_holds_no_secret(prefect_api: str, stored: bool) -> None:
    """U3: and works where it is unpickled, if its credentials are stored."""
    with EmbeddedServer(2, token=SECRET) as server:
        block = OrchestrationCredentials(base_url=server.url, token=SECRET)
        if stored:
            block.save("for-pickles", overwrite=True)
        run = OrchestrationWorkflow(credentials=block, definition=short(), poll_interval=0.2).trigger()
        for dump in (pickle.dumps, cloudpickle.dumps):
            pickled = dump(pickle.loads(dump(run)))
            assert SECRET.encode() not in pickled
        again = pickle.loads(pickled)
        assert (again.instance_id, again.run_key) == (run.instance_id, run.run_key)
        if stored:
            assert again.wait_for_completion()["state"] == "succeeded"
            return
        with pytest.raises(ConfigurationError, match="save the block") as caught:
            again.wait_for_completion()
        assert caught.value.field == "credentials"
        with pytest.raises(ConfigurationError):
            asyncio.run(again.acancel())


def test_a_pickled_run_of_a_server_without_credentials_needs_none(server: EmbeddedServer) -> None:
    block = OrchestrationCredentials(base_url=server.url)
    run = OrchestrationWorkflow(credentials=block, definition=short(), poll_interval=0.2).trigger()
    assert pickle.loads(pickle.dumps(run)).wait_for_completion()["state"] == "succeeded"


@pytest.mark.parametrize("field", ["token", "client_secret"])
def test_masked_secret_is_refused(field: str) -> None:
    with pytest.raises(ConfigurationError, match="masked") as caught:
        OrchestrationCredentials(base_url="http://a", client_id="me", **{field: "**********"}).get_client()
    assert caught.value.field == field


def test_secrets_are_in_no_dump() -> None:
    block = OrchestrationCredentials(base_url="http://a", client_id="me", client_secret=SECRET)
    job = OrchestrationWorkflow(credentials=block, workflow_id="w")
    for text in (repr(block), str(block.model_dump()), block.model_dump_json(), repr(job), job.model_dump_json()):
        assert SECRET not in text
    assert SECRET not in repr(block.get_client())
    assert SECRET not in repr(OrchestrationRun(block.settings(), "i", "w"))


def test_nothing_live_in_fields() -> None:
    job = OrchestrationWorkflow(credentials=OrchestrationCredentials(base_url="http://a"), workflow_id="w")
    assert OrchestrationWorkflow(**json.loads(job.model_dump_json())).model_dump() == job.model_dump()


def test_one_of_workflow_id_and_definition(credentials: OrchestrationCredentials) -> None:
    with pytest.raises(ConfigurationError):
        OrchestrationWorkflow(credentials=credentials).trigger()
    with pytest.raises(ConfigurationError):
        OrchestrationWorkflow(credentials=credentials, workflow_id="w", definition=short()).trigger()
    with pytest.raises(ValidationError, match="on_timeout"):
        face.wait_for_instance.fn(credentials, "i", on_timeout="maybe")


def test_job_block_runs_once_gated(server: EmbeddedServer, credentials: OrchestrationCredentials) -> None:
    definition = {"name": "p", "stages": short("${payee}")["stages"]}
    job = OrchestrationWorkflow(
        credentials=credentials, definition=definition, variables={"payee": "users:a"}, poll_interval=0.2
    )
    run = job.trigger({"payee": "users:b"})
    result = run.wait_for_completion()
    assert result["state"] == "succeeded"
    assert result == run.fetch_result()
    assert result["instance_id"] == run.instance_id
    assert [row["postings"][0]["destination"] for row in result["transactions"]] == ["users:b"]
    assert json.loads(json.dumps(result)) == result
    assert releases(server) == [run.instance_id]
    assert server.balance("users:b", "EUR/2") == 100


def triggered(job: OrchestrationWorkflow, way: str, *args: Any, **options: Any) -> OrchestrationRun:
    return asyncio.run(job.atrigger(*args, **options)) if way == "async" else job.trigger(*args, **options)


@pytest.mark.parametrize("way", ["sync", "async"])
def test_what_a_call_gives_holds_for_that_call(
    server: EmbeddedServer, credentials: OrchestrationCredentials, way: str
) -> None:
    """Variables come on top of the block's; options replace the block's; the block stays as it is."""
    definition = {"name": "p", "stages": short("${payee}:${account}")["stages"]}
    job = OrchestrationWorkflow(
        credentials=credentials,
        definition=definition,
        variables={"payee": "users:a", "account": "main"},
        step="pay",
        poll_interval=0.2,
        timeout=40,
    )
    before = job.model_dump()
    run = triggered(job, way, {"account": "other"}, run_key=f"order-{way}", timeout=30, on_timeout="leave")
    assert run.run_key == f"order-{way}"  # and not the step of the block
    assert run._options["timeout"] == 30
    assert (run._options["on_timeout"], run._options["poll_interval"]) == ("leave", 0.2)
    assert run.wait_for_completion()["state"] == "succeeded"
    assert server.balance("users:a:other", "EUR/2") == 100
    assert job.model_dump() == before
    with pytest.raises(KeyReusedError) as caught:
        triggered(job, way, run_key=f"order-{way}")  # the variables of the block alone
    assert caught.value.differs == "content"
    assert len(releases(server)) == 1


@abortable
def test_the_time_out_of_a_call_is_that_of_its_wait(
    server: EmbeddedServer, credentials: OrchestrationCredentials
) -> None:
    job = OrchestrationWorkflow(credentials=credentials, definition=endless(), poll_interval=0.2)
    with pytest.raises(WaitTimeoutError):
        job.trigger(timeout=0.5).wait_for_completion()


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        *[(changes, OrchestrationError, path) for changes, path in WRONG_OPTIONS],
        ({"rerun_faild": True}, TypeError, "did you mean rerun_failed"),
        ({"rerun_failed": "false"}, ValidationError, "rerun_failed must be True or False"),
        ({"step": "a", "run_key": "b"}, ValidationError, "step"),
        ({"variables": ["a"]}, ValidationError, "variables"),
    ],
)
@pytest.mark.parametrize("gate", [True, False])
def test_a_wrong_option_of_a_call_is_named_before_anything_is_sent(
    server: EmbeddedServer,
    credentials: OrchestrationCredentials,
    way: str,
    options: dict[str, Any],
    error: type[Exception],
    named: str,
    gate: bool,
) -> None:
    job = OrchestrationWorkflow(credentials=credentials, definition=short(), gate=gate)
    with pytest.raises(error, match=named):
        triggered(job, way, **options)
    assert server.record().started == []
    assert face.list_workflows.fn(credentials) == []


@abortable
def test_async_job_block(server: EmbeddedServer, credentials: OrchestrationCredentials) -> None:
    async def main() -> None:
        job = OrchestrationWorkflow(credentials=credentials, definition=short(), poll_interval=0.2)
        run = await job.atrigger()
        assert (await run.await_for_completion())["state"] == "succeeded"
        assert (await run.afetch_result())["state"] == "succeeded"
        other = await OrchestrationWorkflow(credentials=credentials, definition=endless()).atrigger()
        with pytest.raises(WaitTimeoutError):
            await other.afetch_result()
        assert (await other.acancel()).status == "cancelled"

    asyncio.run(main())


@abortable
def test_fetch_result_of_a_running_run_says_so(server: EmbeddedServer, credentials: OrchestrationCredentials) -> None:
    run = OrchestrationWorkflow(credentials=credentials, definition=endless()).trigger()
    with pytest.raises(WaitTimeoutError):
        run.fetch_result()
    assert server.record().aborts == []
    assert run.cancel().status == "cancelled"


def _pairs() -> list[tuple[object, object]]:
    names = [name for name in face.__all__ if name.endswith("_async")]
    pairs = [(getattr(face, name[:-6]), getattr(face, name)) for name in names]
    methods = [(OrchestrationRun, "wait_for_completion"), (OrchestrationRun, "fetch_result")]
    methods += [(OrchestrationRun, "cancel"), (OrchestrationWorkflow, "trigger")]
    return pairs + [(getattr(owner, name), getattr(owner, f"a{name}")) for owner, name in methods]


@pytest.mark.parametrize(("blocking", "asynchronous"), _pairs(), ids=lambda one: getattr(one, "__name__", ""))
def test_pairs_are_what_they_say(blocking: object, asynchronous: object) -> None:
    """A blocking one is blocking wherever it is called: nothing dispatches on the caller."""
    plain, other = getattr(blocking, "fn", blocking), getattr(asynchronous, "fn", asynchronous)
    assert not inspect.iscoroutinefunction(plain)
    assert inspect.iscoroutinefunction(other)
    assert not hasattr(plain, "aio")
    assert inspect.signature(plain).parameters.keys() == inspect.signature(other).parameters.keys()


@pytest.mark.parametrize("name", [name for name in face.__all__ if name.startswith(("run_workflow", "send_event"))])
def test_effects_are_not_cached_or_repeated(name: str) -> None:
    from prefect.cache_policies import NO_CACHE

    one = getattr(face, name)
    assert one.retries == 0
    assert getattr(one, "cache_policy", NO_CACHE) == NO_CACHE


async def test_blocking_ones_block_in_a_running_loop(
    server: EmbeddedServer, credentials: OrchestrationCredentials
) -> None:
    run = OrchestrationWorkflow(credentials=credentials, definition=short(), poll_interval=0.2).trigger()
    assert run.wait_for_completion()["state"] == "succeeded"
    assert face.get_instance.fn(credentials, run.instance_id)["state"] == "succeeded"


def test_each_option_is_the_same_everywhere() -> None:
    """Its default and its type; the block takes them from the same place."""
    signatures = {
        one.__name__: inspect.signature(one)
        for one in (
            face.run_workflow.fn,
            face.run_workflow_async.fn,
            face.wait_for_instance.fn,
            face.wait_for_instance_async.fn,
            face.run_workflow_and_wait.fn,
            face.run_workflow_and_wait_async.fn,
            OrchestrationWorkflow.trigger,
            OrchestrationWorkflow.atrigger,
        )
    }
    fields = OrchestrationWorkflow.model_fields
    for name, default in DEFAULTS.items():
        takers = [one for one in signatures.values() if name in one.parameters]
        assert len(takers) >= 6
        types = {str(one.parameters[name].annotation) for one in takers}
        defaults = {one.parameters[name].default for one in takers}
        if name == "timeout":  # a start has one of its own
            types.discard("<class 'float'>")
            defaults.discard(60.0)
        assert len(types) == 1
        assert defaults == {default}
        assert fields[name].default == default
    for function in (
        *(one.fn for one in (face.run_workflow, face.wait_for_instance, face.run_workflow_and_wait)),
        OrchestrationWorkflow.trigger,
    ):
        documented = inspect.getdoc(function) or ""
        for name in [*inspect.signature(function).parameters][1:]:
            assert f"\n    {name}: " in documented, name


@pytest.mark.usefixtures("prefect_api")
@pytest.mark.parametrize("way", ["task", "async task", "with", "block"])
@pytest.mark.parametrize(("changes", "path"), [*WRONG_OPTIONS, ({"settled": ""}, "settled")])
def test_a_wrong_option_is_refused_before_anything_is_sent(
    server: EmbeddedServer, credentials: OrchestrationCredentials, way: str, changes: dict[str, Any], path: str
) -> None:
    workflow_id = defined(server, short())

    @flow
    def one() -> None:
        if way == "task":
            face.run_workflow_and_wait(credentials, workflow_id, {}, **changes)
        elif way == "async task":
            asyncio.run(face.run_workflow_and_wait_async(credentials, workflow_id, {}, **changes))
        elif way == "with":
            with face.workflow_instance(credentials, workflow_id, {}, **changes):
                pass
        else:
            block = OrchestrationWorkflow(credentials=credentials, workflow_id=workflow_id, **changes)
            block.trigger().wait_for_completion()

    with pytest.raises((OrchestrationError, ParameterTypeError, ValueError, TypeError)) as caught:
        one()  # Prefect checks types first
    assert path in str(caught.value)
    assert server.record().started == []


@pytest.mark.parametrize("name", ["run_workflow", "wait_for_instance", "run_workflow_and_wait"])
def test_an_unknown_option_is_refused(credentials: OrchestrationCredentials, name: str) -> None:
    with pytest.raises(TypeError, match="rerun_faild"):
        getattr(face, name).fn(credentials, "x", rerun_faild=True)
    with pytest.raises(TypeError, match="rerun_faild"):
        face.workflow_instance(credentials, "x", rerun_faild=True)  # type: ignore[call-arg]

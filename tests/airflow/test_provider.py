"""What Airflow knows of the provider, and that importing it costs and warns of nothing."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import orchestration_integrations.airflow
from orchestration_integrations.airflow.compat import AIRFLOW_3, AIRFLOW_VERSION
from orchestration_integrations.airflow.hooks import EXTRAS, OrchestrationHook
from orchestration_integrations.airflow.provider_info import get_provider_info

if not AIRFLOW_3:
    import wtforms

PACKAGE = Path(orchestration_integrations.airflow.__file__ or "").parent
MODULES = sorted(one.stem for one in PACKAGE.glob("*.py") if one.stem != "__init__")


def python(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=240, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_metadata_is_what_airflow_takes() -> None:
    from importlib.resources import files

    import jsonschema

    schema = json.loads(files("airflow").joinpath("provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the commands print, all asked in one process."""
    script = """
import contextlib, io, json, sys
from airflow.cli import cli_parser
parser = cli_parser.get_parser()
told = {}
asked = "get orchestration-integrations --full,hooks,behaviours,widgets,links,triggers,notifications,configs"
for what in asked.split(","):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        arguments = parser.parse_args(["providers", *what.split(), "--output", "json"])
        arguments.func(arguments)
    told[what.split()[0]] = out.getvalue()
print("TOLD" + json.dumps(told))
"""
    found: dict[str, str] = json.loads(python(script).rpartition("TOLD")[2])
    return found


def rows(text: str) -> list[dict[str, Any]]:
    start = text.index("[{") if "[{" in text else text.index("[")
    found: list[dict[str, Any]] = json.loads(text[start:])
    return found


def test_airflow_providers_get(told: dict[str, str]) -> None:
    assert "Formance Orchestration" in told["get"]


def test_airflow_knows_notifiers_and_configuration(told: dict[str, str]) -> None:
    for name in ("OrchestrationCancelInstanceNotifier", "OrchestrationSendEventNotifier"):
        assert f"orchestration_integrations.airflow.notifications.{name}" in told["notifications"]
    assert "orchestration-integrations" in told["configs"]
    assert "orchestration_integrations.airflow.decorators.orchestration_task" in told["get"]


def test_airflow_providers_hooks(told: dict[str, str]) -> None:
    (ours,) = [one for one in rows(told["hooks"]) if one["connection_type"] == "orchestration"]
    assert ours["class"] == "orchestration_integrations.airflow.hooks.OrchestrationHook"
    assert ours["conn_id_attribute_name"] == "orchestration_conn_id"


shown_by_cli = pytest.mark.skipif(
    (3, 0) <= AIRFLOW_VERSION < (3, 2), reason="this version's command line knows forms made of widgets only"
)


@shown_by_cli
def test_airflow_providers_behaviours(told: dict[str, str]) -> None:
    assert any("orchestration" in one.values() for one in rows(told["behaviours"])), told["behaviours"]


@shown_by_cli
def test_airflow_providers_widgets(told: dict[str, str]) -> None:
    names = {str(value) for one in rows(told["widgets"]) for value in one.values()}
    wanted = {f"extra__orchestration__{name}" for name in EXTRAS}
    assert wanted <= names


@pytest.mark.skipif(AIRFLOW_VERSION < (3, 1), reason="3.0 reads forms from widgets, which come with the FAB provider")
def test_the_form_of_the_web_page() -> None:
    script = """
from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService
(ours,) = [one for one in HookMetaService.hook_meta_data() if one.connection_type == "orchestration"]
print(ours.model_dump_json())
"""
    form = json.loads(python(script).splitlines()[-1])
    assert form["standard_fields"]["host"]["title"] == "Base URL"
    assert form["standard_fields"]["password"]["title"] == "Client secret"
    assert set(form["extra_fields"]) == set(EXTRAS)


@pytest.mark.parametrize(("what", "name"), [("links", "links.OrchestrationInstanceLink"), ("triggers", "triggers")])
def test_airflow_providers_links_and_triggers(told: dict[str, str], what: str, name: str) -> None:
    assert f"orchestration_integrations.airflow.{name}" in told[what]


def test_what_the_metadata_names_exists() -> None:
    from importlib import import_module

    info = get_provider_info()
    for kind in ("hooks", "operators", "sensors", "triggers"):
        for one in info[kind]:
            for module in one["python-modules"]:
                import_module(module)
    decorators = [one["class-name"] for one in info["task-decorators"]]
    names = [
        *info["extra-links"],
        *info["notifications"],
        *decorators,
        *(one["hook-class-name"] for one in info["connection-types"]),
    ]
    for path in names:
        module, _, name = path.rpartition(".")
        assert getattr(import_module(module), name)


@pytest.mark.skipif(AIRFLOW_3, reason="later versions read the form from the metadata")
def test_the_form_below_airflow_3() -> None:
    from airflow.providers_manager import ProvidersManager

    widgets = ProvidersManager().connection_form_widgets
    assert "extra__orchestration__token" in widgets
    assert OrchestrationHook.get_ui_field_behaviour()["hidden_fields"] == ["schema"]


def test_no_import_warns(tmp_path: Path) -> None:
    """A warning that is raised by a line of this package, at import and at use, is an error."""
    script = f"""
import warnings
import airflow
from airflow.providers_manager import ProvidersManager
seen = []
with warnings.catch_warnings():
    warnings.simplefilter("always")
    def show(message, category, filename, lineno, *rest):
        seen.append((category.__name__, str(message), filename))
    warnings.showwarning = show
    from importlib import import_module
    for name in {MODULES!r}:
        import_module("orchestration_integrations.airflow." + name)
    from orchestration_integrations.airflow import operators, sensors, triggers
    operators.OrchestrationRunWorkflowOperator(task_id="a", workflow_id="w", deferrable=True)
    sensors.OrchestrationInstanceSensor(task_id="b", instance_id="i")
    triggers.OrchestrationInstanceTrigger("i")
ours = [one for one in seen if "orchestration_integrations" in one[2] or "orchestration" in one[1].lower()]
deprecated = [one for one in seen if one[0] in ("DeprecatedImportWarning", "AirflowProviderDeprecationWarning")]
assert not ours, ours
assert not deprecated, deprecated
"""
    python(script)


def test_parsing_a_dag_loads_neither_the_client_nor_the_server() -> None:
    script = """
import sys
import orchestration_integrations.airflow.compat
before = set(sys.modules)
from orchestration_integrations.airflow import operators, sensors
late = set(sys.modules) - before
heavy = {one for one in late if one.split(".")[0] in ("httpx", "tenacity", "starlette", "uvicorn", "prefect", "yaml")}
ours = ("orchestration_integrations.http_hook", "orchestration_integrations.server")
heavy |= {one for one in late if one.startswith(ours)}
print(sorted(heavy))
assert not heavy, heavy
"""
    python(script)


def test_nothing_reaches_for_airflows_database_but_the_one_place_for_airflow_2() -> None:
    """On Airflow 3 no operator, trigger or callback may touch the ORM; a command on the scheduler's host may."""
    for file in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                ("airflow.models", "airflow.utils.session", "airflow.settings")
            ):
                assert file.name in ("compat.py", "variables.py", "record_care.py"), f"{file.name}:{node.lineno}"


def test_only_one_module_imports_airflow() -> None:
    allowed = {"compat.py", "variables.py", "record_care.py", "page_plugin.py"}
    for file in PACKAGE.glob("*.py"):
        imports = [
            node.module or ""
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.ImportFrom) and node.level == 0
        ]
        assert file.name in allowed or not any(one.split(".")[0] == "airflow" for one in imports), file.name


@pytest.mark.skipif(AIRFLOW_3, reason="Airflow 3 has no form of its own to ask")
@pytest.mark.parametrize(
    ("field", "value", "fine"),
    [
        ("timeout", "soon", False),
        ("timeout", "2.5", True),
        ("max_connections", "0", False),
        ("api_version", "v3", False),
        ("verify", "perhaps", False),
        ("verify", "false", True),
        ("verify", "/etc/there/on/the/worker.pem", True),
        ("token_url", "ftp://x", False),
        ("token", "a token", False),
        ("token", "", True),
        ("token", "abc", True),
    ],
)
def test_the_form_refuses_what_no_server_could_be_reached_with(field: str, value: str, fine: bool) -> None:
    """U2."""
    form = type("Form", (wtforms.Form,), {**OrchestrationHook.get_connection_form_widgets()})
    filled = form(data={field: value})
    # A widget of a real form reads what was posted.
    for one in filled:
        one.raw_data = [one.data] if one.data else []
    assert filled.validate() is fine
    assert set(filled.errors) == (set() if fine else {field})


@pytest.mark.skipif(AIRFLOW_3, reason="Airflow 3 has no form of its own to ask")
def test_the_form_refuses_a_token_beside_a_login() -> None:
    fields = {**OrchestrationHook.get_connection_form_widgets(), "login": wtforms.StringField()}
    filled = type("Form", (wtforms.Form,), fields)(data={"token": "t", "login": "me"})
    for one in filled:
        one.raw_data = [one.data] if one.data else []
    assert not filled.validate()
    assert "not both" in filled.errors["token"][0]


def test_the_form_has_every_extra() -> None:
    assert set(get_provider_info()["connection-types"][0]["conn-fields"]) == set(EXTRAS)


PLUGINS = """
from airflow import plugins_manager as manager
manager.ensure_plugins_loaded() if hasattr(manager, "ensure_plugins_loaded") else None
from orchestration_integrations.airflow.page_plugin import OrchestrationPagePlugin as plugin
from importlib.metadata import entry_points
assert [one.load() for one in entry_points(group="airflow.plugins") if one.name == "orchestration_page"] == [plugin]
print(plugin.external_views)
"""


def test_the_page_is_a_tab_of_each_task_instance_where_its_address_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    assert python(PLUGINS).splitlines()[-1] == "[]"
    monkeypatch.setenv("AIRFLOW__ORCHESTRATION__UI_URL", "https://page.example/")
    (view,) = ast.literal_eval(python(PLUGINS).splitlines()[-1])
    assert view["destination"] == "task_instance"
    assert view["href"] == "https://page.example/#/task/{DAG_ID}/{RUN_ID}/{TASK_ID}/{MAP_INDEX}"


@pytest.mark.parametrize(
    "address",
    ["page.example", "javascript:alert(1)", "https://c/{instance_id}", "https://c/#/x", "https://u:p@c", "//c"],
)
def test_the_tab_takes_an_address_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, address: str
) -> None:
    from orchestration_integrations.airflow.page_plugin import views_of

    assert views_of(address) == []
    assert "ui_url has to be the address of the live page" in caplog.text
    assert views_of("https://page.example/sub/")[0]["href"].startswith("https://page.example/sub/#/task/")

"""Run by an interpreter that has the built wheel and its core dependencies, nothing else: is it whole?"""

from __future__ import annotations

import importlib.util
from importlib.metadata import entry_points, version
from importlib.resources import files
from pathlib import Path

import orchestration_integrations

package = Path(str(files("orchestration_integrations")))
assert "site-packages" in package.parts, f"not the wheel: {package}"
assert (package / "py.typed").is_file()
assert {one.suffix for one in (package / "ui" / "static").iterdir()} == {".css", ".html", ".js", ".svg"}
assert version("orchestration-integrations") == orchestration_integrations.__version__
for absent in ("starlette", "typer", "airflow", "prefect", "yaml"):
    assert importlib.util.find_spec(absent) is None, f"{absent} is here: this proves nothing"
for name in orchestration_integrations.__all__:
    assert getattr(orchestration_integrations, name) is not None
with orchestration_integrations.OrchestrationHttpHook(base_url="http://127.0.0.1:1") as hook:
    assert hook.settings.base_url == "http://127.0.0.1:1"
for group in ("apache_airflow_provider", "prefect.collections", "console_scripts"):
    found = [point for point in entry_points(group=group) if point.value.startswith("orchestration_integrations")]
    assert found, f"no entry point in {group}"
print(f"{package}: whole")

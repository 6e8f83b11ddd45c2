"""What keeps the package readable, as far as a machine can tell."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import orchestration_integrations
from orchestration_integrations import AsyncOrchestrationHttpHook, OrchestrationHttpHook
from tests import unasync

PACKAGE = Path(orchestration_integrations.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 500


def names(module: Path) -> str:
    return module.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("module", MODULES, ids=names)
def test_a_module_is_short(module: Path) -> None:
    assert len(module.read_text().splitlines()) <= LONGEST


def foreign_underscores(tree: ast.Module) -> Iterator[str]:
    """Names with an underscore that are reached through something else than ``self`` or ``cls``."""
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    set_here = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
    }
    defined = {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    } | set_here
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not node.attr.startswith("_") or node.attr.startswith("__"):
            continue
        if isinstance(node.value, ast.Name) and node.value.id in {"self", "cls", *own}:
            continue
        if node.attr not in defined:  # else: of a class of this very module
            yield f"line {node.lineno}: {ast.unparse(node)}"


ALLOWED = {
    # Prefect shows these in its contexts only, under no public name: prefect/place.py says so.
    "prefect/place.py": ("._token",),
    # Python's own name for ending a process at once.
    "cli/application.py": ("os._exit",),
    "cli/signals.py": ("os._exit",),
}


@pytest.mark.parametrize("module", MODULES, ids=names)
def test_nobody_reaches_into_another_modules_underscore(module: Path) -> None:
    found = list(foreign_underscores(ast.parse(module.read_text())))
    allowed = ALLOWED.get(names(module), ())
    assert [one for one in found if not one.endswith(allowed)] == [] if allowed else found == []


@pytest.mark.parametrize("module", MODULES, ids=names)
def test_nobody_writes_into_a_modules_names(module: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, ast.Call)]
    assert [ast.unparse(node.func) for node in calls if ast.unparse(node.func) in ("globals", "vars", "locals")] == []


# ---- both hooks ----------------------------------------------------------------------------------------


def test_the_blocking_hook_follows_from_the_asynchronous_one() -> None:
    assert unasync.main(check=True) == 0


def methods(hook: type) -> dict[str, object]:
    return {
        name: value
        for name, value in inspect.getmembers(hook, callable)
        if not name.startswith("_") or name == "__init__"
    }


def test_both_hooks_have_the_same_methods_with_the_same_signatures_and_docstrings() -> None:
    blocking, asynchronous = methods(OrchestrationHttpHook), methods(AsyncOrchestrationHttpHook)
    assert set(blocking) == set(asynchronous)
    for name, method in blocking.items():
        other = asynchronous[name]
        assert str(inspect.signature(method)).replace("Iterator", "") == str(  # type: ignore[arg-type]
            inspect.signature(other)  # type: ignore[arg-type]
        ).replace("AsyncIterator", ""), name
        documented = inspect.getdoc(other) or ""
        assert inspect.getdoc(method) == documented.replace("async with", "with").replace("async for", "for"), name


@pytest.mark.parametrize("hook", [OrchestrationHttpHook, AsyncOrchestrationHttpHook])
def test_all_that_users_call_is_documented(hook: type) -> None:
    assert [name for name, method in methods(hook).items() if name != "__init__" and not inspect.getdoc(method)] == []


@pytest.mark.parametrize("package", ["", ".http_hook", ".airflow", ".prefect"])
def test_a_shell_can_complete_the_names_of_a_package(package: str) -> None:
    """They load when they are first used, so Python does not know them by itself."""
    program = (
        f"import sys; from importlib import import_module; it = import_module('orchestration_integrations{package}'); "
        "assert set(it.__all__) <= set(dir(it)), set(it.__all__) - set(dir(it)); assert '__name__' in dir(it); "
        "assert not {'httpx', 'airflow', 'prefect'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)

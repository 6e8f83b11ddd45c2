"""What an import adds to what is loaded anyway: our hook, operators and tasks next to those of others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import svg
from .measuring import Child, Options, Pair, Spread, environment, figure
from .report import Section, Target

OPERATORS = (
    "from orchestration_integrations.airflow import "
    "OrchestrationRunWorkflowOperator, OrchestrationInstanceSensor, OrchestrationHook"
)
PROVIDERS = {
    "HTTP": "from airflow.providers.http.operators.http import HttpOperator",
    "dbt Cloud": "from airflow.providers.dbt.cloud.operators.dbt import DbtCloudRunJobOperator",
    "Databricks": "from airflow.providers.databricks.operators.databricks import DatabricksRunNowOperator",
}


@dataclass(frozen=True)
class Place:
    """One interpreter with what it has loaded first.

    Attributes:
        title: as the table calls it.
        python: the interpreter, or the variable that names it.
        first: what is loaded before anything is measured.
        ours: what we add.
        theirs: what the others add, by name.
        limit: seconds of CPU that ours may add; None: it is not ours to say.
    """

    title: str
    python: str
    first: str
    ours: str
    theirs: dict[str, str]
    limit: float | None


PLACES = (
    Place(
        "hook, over Python",
        sys.executable,
        "pass",
        "from orchestration_integrations import OrchestrationHttpHook",
        {
            "httpx, tenacity, msgspec": "import httpx, tenacity, msgspec",
            "formance-sdk-python": "from formance_sdk_python import SDK; SDK.__init__; "
            "import formance_sdk_python.orchestration",
        },
        None,
    ),
    Place(
        "operators, over Airflow 3.3",
        "BENCH_AIRFLOW33",
        "from airflow.sdk import DAG, BaseHook, BaseOperator, BaseSensorOperator, task",
        OPERATORS,
        PROVIDERS,
        0.15,
    ),
    Place(
        "operators, over Airflow 2.11",
        "BENCH_AIRFLOW211",
        "from airflow import DAG; from airflow.decorators import task; from airflow.hooks.base import BaseHook; "
        "from airflow.models.baseoperator import BaseOperator; from airflow.sensors.base import BaseSensorOperator; "
        "from airflow.triggers.base import BaseTrigger",
        OPERATORS,
        PROVIDERS,
        0.1,
    ),
    Place(
        "tasks, over `import prefect`",
        "BENCH_PREFECT",
        "import prefect",
        "from orchestration_integrations.prefect import OrchestrationCredentials, run_workflow, wait_for_instance",
        {
            "prefect-databricks": "from prefect_databricks import DatabricksCredentials; "
            "from prefect_databricks.jobs import jobs_runs_submit",
            "`flow`, `task` of Prefect itself": "from prefect import flow, task",
        },
        0.1,
    ),
    Place(
        "tasks, over `from prefect import flow, task`",
        "BENCH_PREFECT",
        "from prefect import flow, task",
        "from orchestration_integrations.prefect import OrchestrationCredentials, run_workflow, wait_for_instance",
        {
            "prefect-databricks": "from prefect_databricks import DatabricksCredentials; "
            "from prefect_databricks.jobs import jobs_runs_submit",
        },
        None,
    ),
)


def interpreter(named: str) -> str | None:
    """The interpreter of an environment of its own; None: it was not made."""
    path = named if os.sep in named else os.environ.get(named, "")
    return path if path and Path(path).exists() else None


def compare(place: Place, python: str, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """CPU and wall of each import, in turns; ``ours`` is ours."""
    statements = {"ours": place.ours, **place.theirs}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in statements}
    with Child("importing", place.first, python=python) as child:
        for number in range(rounds + 1):
            names = list(statements)
            for name in names if number % 2 else reversed(names):
                found = child.ask("import", statement=statements[name])
                if number:  # the first one may compile
                    taken[name].append((found["cpu"], found["wall"]))
    return taken


def profile(place: Place, python: str) -> str:
    """Where the time of an import goes: of each package, as ``-X importtime`` has it; the shortest of five."""
    code = f"{place.first}\nimport sys; sys.stderr.write('----\\n')\n{place.ours}"
    shortest: Counter[str] = Counter()
    for _ in range(5):
        command = [python, "-X", "importtime", "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=True)
        spent: Counter[str] = Counter()
        for line in done.stderr.rpartition("----\n")[2].splitlines():
            parts = line.removeprefix("import time:").split("|")
            if len(parts) == 3 and parts[0].strip().isdecimal():
                spent[parts[2].strip().split(".")[0]] += int(parts[0])
        if not shortest or spent.total() < shortest.total():
            shortest = spent
    shown = ", ".join(f"`{name}` {figure(micro / 1000)}" for name, micro in shortest.most_common(8))
    total = figure(shortest.total() / 1000)
    return (
        f"Profile of {place.title} (`-X importtime`, milliseconds by package, {total} in all): {shown}. What a "
        "package runs when a name of it is first asked for, as Prefect builds its models, counts as of the module "
        "that asks."
    )


def measure(options: Options) -> list[Section]:
    """All places whose environments are there."""
    rounds = 2 if options.quick else 9
    rows, targets, left_out, notes = [], [], [], []
    shown: dict[str, Spread] = {}
    for place in PLACES:
        python = interpreter(place.python)
        if python is None:
            left_out.append(place.title)
            continue
        taken = compare(place, python, rounds)
        cpu: Callable[[str], list[float]] = lambda name, taken=taken: [one[0] for one in taken[name]]  # type: ignore[misc] # noqa: E731
        for name, values in taken.items():
            ratio = "" if name == "ours" else str(Pair(cpu("ours"), cpu(name)).ratio)
            both = [Spread.of([one[at] for one in values]).scaled(1000) for at in (0, 1)]
            rows.append([place.title if name == "ours" else "", name, str(both[0]), str(both[1]), ratio])
            if "flow, task" not in place.title:
                shown[f"{name}, {place.title.partition(' over ')[2]}".replace("`", "")] = both[0]
        if place.limit is not None:
            middle = Spread.of(cpu("ours")).middle
            targets.append(Target(f"seconds of CPU, {place.title}", middle, place.limit))
            if not targets[-1].kept:
                notes.append(profile(place, python))
    text = [
        "The increment over what is loaded anyway, in a child that is forked from an interpreter which has loaded "
        f"that, as Airflow's DAG processor forks. {rounds} turns. *ours over theirs* is the ratio of the CPU times.",
    ]
    if left_out:
        text.append("Left out, since the environment was not made: " + ", ".join(left_out) + ".")
    return [
        Section(
            "imports",
            "An import",
            text,
            ["what, over what", "who", "CPU, ms", "wall, ms", "ours over theirs"],
            rows,
            targets,
            {"imports": svg.bars("CPU of an import, over what is loaded anyway", shown, across="milliseconds of CPU")},
            notes,
        )
    ]

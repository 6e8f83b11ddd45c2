"""A machine with flow runs dies, and a Dask worker of another flow run: each of 40 payments is paid once."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from orchestration_integrations import OrchestrationHttpHook

from ..outside import eventually
from .approving import Approver
from .judging import judge
from .payments import PAYMENT, ends, released, variables
from .prefect import Cluster, Run
from .processes import standing

EACH = 10
RUNS = {
    "threads-map": ("by-threads", "map"),
    "dask-submit": ("by-dask", "submit"),
    "threads-submit": ("by-threads", "submit"),
    "dask-map": ("by-dask", "map"),
}
FAILING = {"threads-submit": (4,)}
PAYEES = {name: variables(name, EACH, FAILING.get(name, ())) for name in RUNS}


@pytest.fixture(scope="module")
def prefect(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with standing(Cluster(), request.session) as one:
        yield one


def opened(cluster: Cluster, name: str) -> int:
    """How many runs of a flow run were released."""
    record = cluster.money.record()
    whose = {one["instance_id"]: one["variables"]["to"].partition(":")[0] for one in record.started}
    return sum(whose[one] == name for one in released(record))


def tasks_by_worker(scheduler: str) -> dict[str, int]:
    """How many tasks each Dask worker works on."""
    import distributed

    with distributed.Client(scheduler, timeout=30, set_as_default=False) as client:
        return {address: len(tasks) for address, tasks in client.processing().items()}


def test_parts_die_while_they_hold_payments(prefect: Cluster) -> None:
    figures: dict[str, Any] = {}
    begun = time.time()
    with OrchestrationHttpHook(base_url=prefect.money.url) as hook:
        workflow_id = hook.ensure_workflow(PAYMENT, gate=True).workflow.id

    def run(name: str) -> Run:
        flow, how = RUNS[name]
        return Run(prefect, flow, name, workflow_id=workflow_id, variables=PAYEES[name], how=how)

    prefect.add_worker("one", limit=2)
    runs = {name: run(name) for name in ("threads-map", "dask-submit")}
    for one in runs.values():
        eventually(lambda one=one: one.notes("flow"), f"{one.directory.name} runs on the first worker", 180)
    prefect.add_worker("two", limit=2)
    runs.update({name: run(name) for name in ("threads-submit", "dask-map")})
    for name in runs:
        eventually(lambda name=name: opened(prefect, name) == EACH, f"all runs of {name} are under way", 240, 1.0)
    figures["seconds until all wait"] = round(time.time() - begun)

    # The machine dies, with the flow runs on it and the Dask workers of one of them.
    held = {one.pid for one in prefect.machines["one"].look()}
    lost = [name for name, one in runs.items() if held & set(one.notes("flow"))]
    assert sorted(lost) == ["dask-submit", "threads-map"]
    killed = time.time()
    figures["processes killed with their machine"] = prefect.machines["one"].power_off()

    # A Dask worker dies, which Dask replaces.
    (told,) = runs["dask-map"].notes("dask").values()
    busy = tasks_by_worker(told["scheduler"])
    address, count = max(busy.items(), key=lambda one: one[1])
    figures["tasks on the killed Dask worker"] = count
    assert count >= 3
    psutil.Process(told["workers"][address]).kill()

    prefect.add_worker("three", limit=2)
    time.sleep(10)
    figures["states of the lost flow runs, 10 s later"] = {name: runs[name].read().state.name for name in lost}
    for name in lost:
        runs[name].again()
    for name in lost:
        eventually(lambda name=name: len(runs[name].notes("flow")) == 2, f"{name} runs again", 180)
    figures["seconds until the lost flow runs ran elsewhere"] = round(time.time() - killed)

    approver = Approver(prefect.money)

    def end_of(one: Run) -> Any:
        approver.check()
        state = one.read().state
        return state.is_final() and state.name

    approver.start()
    try:
        states = {name: eventually(lambda one=one: end_of(one), f"{name} ends", 240) for name, one in runs.items()}
    finally:
        approver.end()
    approver.check()
    figures["states"] = states
    figures["seconds altogether"] = round(time.time() - begun)
    figures["attempts"] = {name: one.read().run_count for name, one in runs.items()}
    record = prefect.money.record()
    figures["runs started"] = len(record.started)
    figures["requests"] = record.requests
    print(json.dumps(figures, indent=1))

    instances = judge(record, [one["to"] for all_of_one in PAYEES.values() for one in all_of_one])
    how = ends(record)
    assert states == {name: "Failed" if name in FAILING else "Completed" for name in RUNS}
    for name, one in runs.items():
        mine = {instances[payee["to"]] for payee in PAYEES[name]}
        check_records(one, mine, how)
        if name not in FAILING:
            (*_, result) = one.notes("result").values()
            assert Counter(result) == Counter(mine)


def check_records(run: Run, instances: set[str], how: dict[str, str | None]) -> None:
    """Each run of a flow run has its record in Prefect, which tells how it ended."""
    from orchestration_integrations.prefect.run_records import PrefectRunStore, records_of_root

    records = records_of_root(run.id)
    assert Counter(one.instance_id for one in records) == Counter(instances)
    for one in records:
        assert PrefectRunStore().load(one.key) == one  # folded, it is the same
        assert one.instance_id is not None
        assert one.state == "told", one
        assert one.end == ("succeeded" if how[one.instance_id] is None else "failed")
        assert one.round == 0

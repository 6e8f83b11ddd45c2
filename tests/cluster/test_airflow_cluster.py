"""Parts of a whole Airflow die while they hold 60 payments: each is paid once, and each task tells its run's end."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from ..outside import eventually
from .airflow import CONCURRENCY, Cluster, Row, Watch, states
from .approving import Approver
from .judging import judge
from .payments import BADLY, MAPPED, MAPPED_BADLY, ends, released, variables_of_dag
from .processes import standing

PAYEES = {(dag_id, number): one for dag_id in MAPPED_BADLY for number, one in enumerate(variables_of_dag(dag_id))}


@pytest.fixture(scope="module")
def airflow(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with standing(Cluster(), request.session) as one:
        yield one


def most(rows: list[Row], attribute: str, *among: str) -> tuple[str, set[tuple[str, int]]]:
    """Who of several holds most task instances, and which."""
    held = Counter(getattr(one, attribute) for one in rows if getattr(one, attribute) in among)
    assert held, f"no {attribute} of {among} holds any of {states(rows)}"
    who = held.most_common(1)[0][0]
    return who, {one.name for one in rows if getattr(one, attribute) == who}


def test_parts_die_while_they_hold_payments(airflow: Cluster) -> None:
    figures: dict[str, object] = {}
    begun = time.time()
    watch = Watch(airflow.database)
    approver = Approver(airflow.money)

    def all_deferred() -> bool:
        return sum(one.state == "deferred" and one.triggerer != "" for one in airflow.rows()) == MAPPED

    def workers_full() -> bool:
        """Both workers hold as many tasks as they can, the rest is queued, and all that run have been released."""
        running = Counter(one.worker for one in airflow.rows() if one.state == "running")
        full = all(running[f"worker-{number}"] == CONCURRENCY for number in "12")
        return full and len(released(airflow.money.record())) == MAPPED + 2 * CONCURRENCY

    try:
        run_ids = {"deferred": airflow.trigger("deferred")}
        eventually(all_deferred, "all deferred tasks are with a triggerer", 240, 1.0)
        run_ids["held"] = airflow.trigger("held")
        eventually(workers_full, "both workers are full", 240, 1.0)
        figures["seconds until all wait"] = round(time.time() - begun)

        rows = airflow.rows()
        worker, lost_tasks = most([one for one in rows if one.state == "running"], "worker", "worker-1", "worker-2")
        triggerer, lost_triggers = most(
            [one for one in rows if one.state == "deferred"], "triggerer", "triggerer-1", "triggerer-2"
        )
        scheduler, lost_queued = most(
            [one for one in rows if one.state in ("queued", "running")], "scheduler", "scheduler-1", "scheduler-2"
        )
        drained = "worker-2" if worker == "worker-1" else "worker-1"
        kept_tasks = {one.name for one in rows if one.state == "running" and one.worker == drained}
        killed = time.time()
        processes = {name: airflow.machines[name].power_off() for name in (worker, triggerer, scheduler)}
        figures["killed processes"] = processes
        figures["held by them"] = {
            worker: len(lost_tasks),
            triggerer: len(lost_triggers),
            scheduler: len(lost_queued),
            drained: len(kept_tasks),
        }
        assert len(lost_tasks) >= CONCURRENCY
        assert len(lost_triggers) >= 10

        airflow.add_worker("worker-3")
        eventually(lambda: airflow.ready("worker-3"), "a new worker is ready", 120)
        figures["seconds until a new worker is ready"] = round(time.time() - killed)
        airflow.machines[drained].drain()

        def taken_up() -> bool:
            by_name = {one.name: one for one in airflow.rows()}
            return (
                all(by_name[one].triggerer not in ("", triggerer) for one in lost_triggers)
                and all(by_name[one].try_number > 1 for one in lost_tasks)
                and not any(one.scheduler == scheduler and one.state == "queued" for one in by_name.values())
            )

        eventually(taken_up, "what was lost is taken up", 120, 1.0)
        figures["seconds until all is taken up"] = round(time.time() - killed)
        approving = time.time()
        approver.start()

        def ended() -> bool:
            """Both DAG runs have failed, since some runs of each end badly."""
            approver.check()
            return all(
                airflow.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}")["state"] == "failed"
                for dag_id, run_id in run_ids.items()
            )

        eventually(ended, "both DAG runs end", 360, 1.0)
        figures["seconds from approval to the end"] = round(time.time() - approving)
        eventually(lambda: not airflow.machines[drained].running, "the drained worker has ended", 60)
        assert airflow.machines[drained].popen.returncode == 0
    finally:
        approver.end()
        watch.end()
    approver.check()
    watch.check()

    rows = airflow.rows()
    record = airflow.money.record()

    def range_of(found: list[float | None]) -> str:
        seconds = sorted(one for one in found if one is not None)
        return f"{seconds[0]:.1f} to {seconds[-1]:.1f} ({len(seconds)} of {len(found)})" if seconds else "never"

    figures["seconds until a lost task was taken from its worker"] = range_of(
        [watch.first(killed, one, lambda row: row.state != "running") for one in lost_tasks]
    )
    figures["seconds until its next try ran"] = range_of(
        [watch.first(killed, one, lambda row: row.try_number > 1 and row.state == "running") for one in lost_tasks]
    )
    figures["seconds until a lost trigger ran elsewhere"] = range_of(
        [watch.first(killed, one, lambda row: row.triggerer not in ("", triggerer)) for one in lost_triggers]
    )
    figures["seconds until a lost scheduler's task was adopted"] = range_of(
        [watch.first(killed, one, lambda row: row.scheduler != scheduler) for one in lost_queued]
    )
    figures["tries"] = dict(Counter(one.try_number for one in rows))
    figures["runs started"] = len(record.started)
    figures["requests"] = record.requests
    figures["seconds altogether"] = round(time.time() - begun)
    print(json.dumps(figures, indent=1))

    instances = judge(record, [one["to"] for one in PAYEES.values()])
    how = ends(record)
    told = {}
    for row in rows:
        payee = PAYEES[row.name]
        instance_id = instances[payee["to"]]
        expected = "failed" if payee["last"] == BADLY else "success"
        assert row.state == expected, f"{row} of {instance_id}, which ended with {how[instance_id]!r}"
        assert (how[instance_id] is None) == (expected == "success")
        told[row.name] = instance_id
    for row in rows[::7]:
        seen = airflow.xcom_of(run_ids[row.dag_id], row, "instance_id")
        assert seen == told[row.name]
    # What the drained worker held ended there, without another try.
    by_name = {one.name: one for one in rows}
    assert {by_name[one].try_number for one in kept_tasks} == {1}
    assert {by_name[one].worker for one in kept_tasks} == {drained}

"""Every example runs, by Airflow's own ``dag.test()``, with its deferrals, and pays what it says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from orchestration_integrations.airflow.compat import AIRFLOW_VERSION
from tests.airflow.framework import serialized

EXAMPLES = Path(__file__).parent.parent.parent / "example_dags"


def loaded(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def states(run: Any) -> dict[str, str]:
    return {
        f"{ti.task_id}{'' if ti.map_index < 0 else ti.map_index}": str(getattr(ti.state, "value", ti.state))
        for ti in run.get_task_instances()
    }


def state(run: Any) -> str:
    return str(getattr(run.state, "value", run.state))


def test_run_and_wait(airflow_home: Path, server: Any) -> None:
    run = loaded("run_and_wait").dag.test(run_conf={"merchant": "m7"})
    assert state(run) == "success"
    assert server.balance("merchants:m7", "EUR/2") == 1250
    assert len(server.record().started) == 1


def test_mapped_fan_out(airflow_home: Path, server: Any) -> None:
    run = loaded("mapped_fan_out").dag.test()
    assert state(run) == "success", states(run)
    assert [server.balance(f"merchants:m{number}", "EUR/2") for number in (1, 2, 3)] == [100, 200, 300]
    assert len(server.record().started) == 3


def test_decorated_payout(airflow_home: Path, server: Any) -> None:
    """The decorator as Airflow knows it: deferred, mapped, from a file that is a template, with context and retries."""
    run = loaded("decorated_payout").dag.test(run_conf={"amount": 700})
    assert state(run) == "success", states(run)
    assert [server.balance(f"merchants:o{number}", "EUR/2") for number in (1, 2, 3)] == [700, 100, 100]
    assert len(server.record().started) == 3


@pytest.mark.skipif(
    AIRFLOW_VERSION >= (3, 1), reason="asks a human in the UI: driven over REST in the standalone tests"
)
@pytest.mark.parametrize(("approved", "generation"), [(True, 2), (False, 1), (False, 2)])
def test_payout_with_approval(airflow_home: Path, server: Any, approved: bool, generation: int) -> None:
    """W10: where a refusal could not be carried out, the DAG run is red."""
    run = loaded("payout_with_approval").dag.test(run_conf={"approved": approved})
    told = "skipped" if approved else "success" if generation == 1 else "failed"
    assert states(run)["refused"] == told
    assert state(run) == ("failed" if told == "failed" else "success"), states(run)
    assert server.balance("merchants:m1", "EUR/2") == (1250 if approved else 0)


def test_a_refusal_that_cannot_be_carried_out_fails_its_task() -> None:
    """W10, where the question stands in the UI."""
    assert loaded("payout_with_approval").refused.fail_if_not_confirmed is True


@pytest.mark.parametrize("generation", [1, 2, 3])
def test_cancel_on_upstream_failure(airflow_home: Path, server: Any, generation: int) -> None:
    run = loaded("cancel_on_upstream_failure").dag.test(run_conf={"suspicious": True, "pause": "1h"})
    assert state(run) == "failed"
    assert states(run)["cancel"] == "success"
    ended = {row["instance_id"]: row["error"] for row in server.record().ended}
    assert list(ended.values()) == (["canceled"] if generation != 2 else [])
    assert server.balance("merchants:m1", "EUR/2") == 0


def test_nothing_is_cancelled_where_nothing_failed(airflow_home: Path, server: Any) -> None:
    run = loaded("cancel_on_upstream_failure").dag.test(run_conf={"pause": "1s"})
    assert state(run) == "success"
    assert states(run)["cancel"] == "skipped"
    assert server.record().requests.get("abort_instance", 0) == 0


@pytest.mark.parametrize("generation", [1, 2, 3])
def test_payout_with_checkpoints(
    airflow_home: Path, server: Any, generation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is paid after the check has failed, on any server."""
    from orchestration_integrations.airflow import marks

    monkeypatch.setattr(marks, "OWNER_ANSWER_SECONDS", 0.5)
    dag = loaded("payout_with_checkpoints").dag
    run = dag.test(run_conf={"suspicious": True})
    assert state(run) == "failed"
    assert states(run)["cancel"] == "success", states(run)
    assert server.balance("merchants:m1", "EUR/2") == 100
    ended = {row["instance_id"]: row["error"] for row in server.record().ended}
    assert list(ended.values()) == (["canceled"] if generation != 2 else [])


def test_payout_with_checkpoints_goes_on(airflow_home: Path, server: Any) -> None:
    run = loaded("payout_with_checkpoints").dag.test()
    assert state(run) == "success", states(run)
    assert states(run)["cancel"] == "skipped"
    assert server.balance("merchants:m1", "EUR/2") == 1250
    assert len(server.record().started) == 1


@pytest.mark.parametrize("generation", [1, 2, 3])
def test_setup_and_teardown(airflow_home: Path, server: Any, generation: int) -> None:
    run = loaded("setup_and_teardown").dag.test()
    assert state(run) == "success", states(run)
    assert server.balance("sellers:o1", "EUR/2") == 1250
    assert len(server.record().started) == 1


@pytest.mark.skipif(AIRFLOW_VERSION < (3, 0), reason="assets have watchers from Airflow 3.0 on")
def test_start_on_end(airflow_home: Path, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With events it is driven by a whole Airflow: ``e2e/test_ended.py``."""
    assert not loaded("start_on_end").ended_payouts.watchers
    monkeypatch.setenv("PAYOUT_WORKFLOW_ID", "w")
    module = loaded("start_on_end")
    (watcher,) = module.ended_payouts.watchers
    serialized(module.dag)
    trigger = watcher.trigger  # Airflow 3.0 and 3.1 hold it as they store it
    arguments = trigger["kwargs"] if isinstance(trigger, dict) else trigger.serialize()[1]
    assert arguments["workflow_id"] == "w"
    run = module.dag.test()
    assert state(run) == "success", states(run)


@pytest.mark.skipif(AIRFLOW_VERSION >= (3, 0), reason="later versions tell a task's state over their API")
def test_a_triggerer_of_airflow_2_reads_the_state_of_a_task(airflow_home: Path, server: Any) -> None:
    from orchestration_integrations.airflow.compat import sight_of_task

    run = loaded("run_and_wait").dag.test()
    (ti,) = run.get_task_instances()
    parts = (ti.dag_id, ti.run_id, ti.task_id, ti.map_index)
    assert sight_of_task(parts, in_trigger=True).state == "success"
    assert sight_of_task(parts).try_number == ti.try_number
    assert sight_of_task((*parts[:3], 7)).state == "removed"

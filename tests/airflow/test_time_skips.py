"""DAGs on a server whose time skips, by ``dag.test()`` in a pytest of their own: what is skipped counts for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.documents import files_of

pytest_plugins = ["pytester"]

DAGS = """
    from datetime import datetime

    import pytest

    try:
        from airflow.sdk import DAG
    except ImportError:
        from airflow.models.dag import DAG

    from orchestration_integrations.airflow.operators import (
        OrchestrationRunWorkflowOperator,
        OrchestrationSendEventOperator,
    )
    from orchestration_integrations.airflow.sensors import OrchestrationInstanceSensor

    DAY = 24 * 3600
    WEEK = {"delay": {"duration": "168h"}}

    def send(payee):
        return {
            "send": {
                "source": {"account": {"id": "world"}},
                "destination": {"account": {"id": payee}},
                "amount": {"amount": "1250", "asset": "EUR/2"},
            }
        }

    def dag_of(name, make):
        with DAG(dag_id=name, schedule=None, start_date=datetime(2024, 1, 1), catchup=False) as dag:
            make()
        return dag

    def begun(hook, *stages):
        workflow = hook.ensure_workflow({"name": "skipping", "stages": list(stages)}, gate=True).workflow
        return hook.start(workflow.id).id

    two_weeks = dag_of("two_weeks", lambda: OrchestrationRunWorkflowOperator(
        task_id="pay",
        definition={"name": "two-weeks", "stages": [send("a"), WEEK, send("b"), WEEK, send("c")]},
        checkpoints=True,
        deferrable=True,
        timeout=8 * DAY,
    ))
    event_in_time = dag_of("event_in_time", lambda: OrchestrationSendEventOperator(
        task_id="send", instance_id="{{ dag_run.conf['id'] }}", event="approved", timeout=8 * DAY, deferrable=True
    ))
    event_too_late = dag_of("event_too_late", lambda: OrchestrationSendEventOperator(
        task_id="send", instance_id="{{ dag_run.conf['id'] }}", event="approved", timeout=3600, deferrable=True
    ))

    def sensing(name, **options):
        return dag_of(name, lambda: OrchestrationInstanceSensor(
            task_id="sense", instance_id="{{ dag_run.conf['id'] }}", poke_interval=0.2, **options
        ))

    sensors = {
        "poke": (sensing("poke", timeout=8 * DAY), sensing("poke_short", timeout=3600)),
        "deferrable": (
            sensing("deferred", timeout=8 * DAY, deferrable=True),
            sensing("deferred_short", timeout=3600, deferrable=True),
        ),
    }

    pytestmark = pytest.mark.orchestration_server(time="skip", patience=0.3)

    def test_a_limit_holds_for_all_pieces_of_a_deferred_task(orchestration_server):
        assert two_weeks.test().state == "failed"
        orchestration_server.paid("b", 1250, "EUR/2", once=True)
        orchestration_server.paid_nothing("c")

    def test_an_event_is_sent_within_its_limit(orchestration_server, orchestration_hook):
        instance_id = begun(orchestration_hook, WEEK, {"wait_event": {"event": "approved"}}, send("a"))
        assert event_in_time.test(run_conf={"id": instance_id}).state == "success"
        orchestration_server.heard("approved", once=True)

    def test_an_event_is_not_sent_after_its_limit(orchestration_server, orchestration_hook):
        instance_id = begun(orchestration_hook, WEEK, {"wait_event": {"event": "approved"}}, send("a"))
        assert event_too_late.test(run_conf={"id": instance_id}).state == "failed"
        orchestration_server.heard("approved", times=0)

    @pytest.mark.parametrize("how", sensors)
    def test_a_sensor_waits_no_longer_than_its_limit(how, orchestration_server, orchestration_hook):
        patient, impatient = sensors[how]
        instance_id = begun(orchestration_hook, WEEK, send("a"))
        assert impatient.test(run_conf={"id": instance_id}).state == "failed"
        orchestration_server.paid_nothing("a")
        assert patient.test(run_conf={"id": instance_id}).state == "success"
        orchestration_server.paid("a", 1250, "EUR/2", once=True)
"""


@pytest.mark.oldest_and_newest
def test_what_is_skipped_counts_against_whoever_it_moved_for(airflow_home: Path, pytester: pytest.Pytester) -> None:
    folder = pytester.mkdir("skipping")
    (folder / "conftest.py").write_text(files_of("testing.md", "A DAG of Airflow")["conftest.py"])
    pytester.makepyfile(**{"skipping/test_dags": DAGS})
    result = pytester.runpytest_subprocess("--strict-markers", "-p", "no:cacheprovider", folder, timeout=500)
    result.assert_outcomes(passed=5)

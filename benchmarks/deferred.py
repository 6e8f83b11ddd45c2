"""Fills the database of a new Airflow 3.3 with deferred tasks: ``python -m benchmarks.deferred``, in its environment.

It reads JSON from stdin: a list of triggers, each a class path and its keyword arguments. Each becomes the trigger of
one mapped task instance, which is deferred. No scheduler, no DAG file and no API server are there or needed.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime, timezone


def main() -> None:
    """Make the database and fill it."""
    from airflow.models.dag import DagModel
    from airflow.models.dag_version import DagVersion
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import Trigger
    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.sdk import DAG
    from airflow.serialization.serialized_objects import DagSerialization
    from airflow.utils.db import initdb
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState, TaskInstanceState
    from airflow.utils.types import DagRunTriggeredByType, DagRunType

    wanted = json.load(sys.stdin)
    initdb()
    now = datetime.now(timezone.utc)
    with DAG("waits", schedule=None) as dag:
        EmptyOperator(task_id="wait")
    task = DagSerialization.from_dict(DagSerialization.to_dict(dag)).get_task("wait")
    with create_session() as session:
        session.add(DagBundleModel(name="bench"))
        session.flush()
        session.add(DagModel(dag_id="waits", bundle_name="bench", fileloc="waits.py"))
        session.flush()
        version = DagVersion(dag_id="waits", version_number=1, bundle_name="bench")
        session.add(version)
        session.flush()
        session.add(
            DagRun(
                dag_id="waits",
                run_id="manual",
                logical_date=None,
                run_after=now,
                start_date=now,
                run_type=DagRunType.MANUAL,
                state=DagRunState.RUNNING,
                triggered_by=DagRunTriggeredByType.TEST,
            )
        )
        session.flush()
        for number, (path, arguments) in enumerate(wanted):
            trigger = Trigger(classpath=path, kwargs=arguments)
            session.add(trigger)
            session.flush()
            instance = TaskInstance(
                task, version.id, run_id="manual", state=TaskInstanceState.DEFERRED, map_index=number
            )
            instance.trigger_id = trigger.id
            instance.try_number = 1
            instance.next_method = "execute_complete"
            instance.start_date = now
            session.add(instance)


if __name__ == "__main__":
    main()

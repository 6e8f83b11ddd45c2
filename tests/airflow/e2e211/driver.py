"""Drives an Airflow 2.11 through its own functions: one JSON command a line, one JSON answer a line."""

from __future__ import annotations

import json
import sys
from typing import Any


def trigger(dag_id: str, conf: dict[str, Any]) -> str:
    from airflow.api.common.trigger_dag import trigger_dag
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session

    with create_session() as session:
        session.query(DagModel).filter(DagModel.dag_id == dag_id).update({"is_paused": False})
    return str(trigger_dag(dag_id, conf=conf).run_id)


def known(dag_id: str) -> bool:
    from airflow.models.dag import DagModel
    from airflow.models.serialized_dag import SerializedDagModel

    return DagModel.get_current(dag_id) is not None and bool(SerializedDagModel.has_dag(dag_id))


def task(dag_id: str, run_id: str, task_id: str) -> dict[str, Any]:
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session

    with create_session() as session:
        row = session.query(TaskInstance).filter_by(dag_id=dag_id, run_id=run_id, task_id=task_id).one()
        return {"state": row.state, "try_number": row.try_number, "max_tries": row.max_tries, "pid": row.pid}


def run_state(dag_id: str, run_id: str) -> str:
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session

    with create_session() as session:
        return str(session.query(DagRun.state).filter_by(dag_id=dag_id, run_id=run_id).scalar())


def mark(dag_id: str, run_id: str, task_id: str, state: str) -> None:
    from airflow.models.dagbag import DagBag

    dag = DagBag(read_dags_from_db=True).get_dag(dag_id)
    dag.set_task_instance_state(task_id=task_id, run_id=run_id, state=state, commit=True)


def clear(dag_id: str, run_id: str, task_id: str) -> None:
    from airflow.models.dagbag import DagBag
    from airflow.models.taskinstance import TaskInstance, clear_task_instances
    from airflow.utils.session import create_session

    dag = DagBag(read_dags_from_db=True).get_dag(dag_id)
    with create_session() as session:
        rows = session.query(TaskInstance).filter_by(dag_id=dag_id, run_id=run_id, task_id=task_id).all()
        clear_task_instances(rows, session, dag=dag)


def xcom(dag_id: str, run_id: str, task_id: str, key: str) -> Any:
    from airflow.models.xcom import XCom
    from airflow.utils.session import create_session

    with create_session() as session:
        row = session.query(XCom).filter_by(dag_id=dag_id, run_id=run_id, task_id=task_id, key=key).one_or_none()
        return None if row is None else row.value


def variables() -> list[str]:
    from airflow.models import Variable
    from airflow.utils.session import create_session

    with create_session() as session:
        return [name for (name,) in session.query(Variable.key)]


def remove_old(dag_id: str, run_id: str) -> list[str]:
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session

    from orchestration_integrations.airflow import remove_old_records

    with create_session() as session:
        session.query(TaskInstance).filter_by(dag_id=dag_id, run_id=run_id).delete()
        session.query(DagRun).filter_by(dag_id=dag_id, run_id=run_id).delete()
    return list(remove_old_records())


COMMANDS = {one.__name__: one for one in (trigger, known, task, run_state, mark, clear, xcom, variables, remove_old)}


def main() -> None:
    answers = sys.stdout
    sys.stdout = sys.stderr  # whatever Airflow prints
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            answer = {"ok": COMMANDS[name](*arguments)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()

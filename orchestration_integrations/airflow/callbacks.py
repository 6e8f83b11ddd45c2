"""Cancelling what a DAG run has started, once one of its tasks has failed for good.

The ids are read from the tasks' XComs by Airflow's own API, so this works in a worker (a task that
failed by itself) and in the DAG processor (a task that died, a DAG run that failed or timed out).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..api.errors import OrchestrationError
from ..api.models import CancelOutcome
from .compat import AIRFLOW_3
from .hooks import OrchestrationHook
from .links import ABOUT_KEY
from .run_operator import OrchestrationRunWorkflowOperator

logger = logging.getLogger("orchestration_integrations.airflow")

CANCEL_SECONDS = 10.0
"""Seconds for each cancel; several run at once, and Airflow stops a callback that takes too long."""
AT_ONCE = 8


def cancel_instances_on_failure(dag: Any) -> Any:
    """Cancel the running instances of a DAG run as soon as one of its tasks has failed for good.

    Call it after the DAG's tasks are defined. A task that waits for a run which this cancels reports
    ``InstanceCancelledError``. A run that its task left running on purpose (``on_timeout="leave"``,
    ``wait_for_termination=False``) is cancelled as well.

    Args:
        dag: whose runs and tasks get the callback, beside those they have.

    Returns:
        The DAG.
    """
    _attach(dag)
    if hasattr(dag, "has_on_failure_callback"):
        dag.has_on_failure_callback = True
    for task in dag.tasks:
        partial = getattr(task, "partial_kwargs", None)
        if partial is None:
            _attach(task)
        else:
            partial["on_failure_callback"] = _with(partial.get("on_failure_callback"))
    return dag


def _attach(owner: Any) -> None:
    owner.on_failure_callback = _with(owner.on_failure_callback)


def _with(existing: Any) -> list[Callable[[Any], None]]:
    if existing is None:
        callbacks: list[Callable[[Any], None]] = []
    elif isinstance(existing, Sequence):
        callbacks = list(existing)
    else:
        callbacks = [existing]
    return callbacks if cancel_instances in callbacks else [*callbacks, cancel_instances]


def cancel_instances(context: Any) -> None:
    """The callback: cancel what this DAG run's tasks have started and what still runs. Never raises."""
    ti = context.get("ti") or context.get("task_instance")
    dag = context.get("dag") or getattr(getattr(ti, "task", None), "dag", None)
    if ti is None or dag is None:
        logger.error("it is not known which DAG run has failed: nothing was cancelled")
        return
    wanted: dict[tuple[str, str], None] = {}
    for task in dag.tasks:
        if not _runs_workflows(task):
            continue
        try:
            for about in _started(ti, context, task.task_id):
                wanted[about["conn_id"], about["instance_id"]] = None
        except Exception:
            logger.exception("which instances task %s has started could not be read", task.task_id)
    if not wanted:
        return
    hooks = {}
    for conn_id, _ in wanted:
        if conn_id not in hooks:
            try:
                hook = OrchestrationHook(conn_id)
                hook.settings()
                hooks[conn_id] = hook
            except Exception:
                logger.exception("connection %s: its instances were not cancelled and may still run", conn_id)
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        for conn_id, instance_id in wanted:
            if conn_id in hooks:
                pool.submit(_cancel, hooks[conn_id], instance_id)


def _runs_workflows(task: Any) -> bool:
    kind = getattr(task, "operator_class", type(task))
    return isinstance(kind, type) and issubclass(kind, OrchestrationRunWorkflowOperator)


def _started(ti: Any, context: Any, task_id: str) -> list[dict[str, str]]:
    """The instances that a task, mapped or not, has started in this DAG run."""
    run_id = context.get("run_id") or ti.run_id
    where = {"run_id": run_id} if AIRFLOW_3 else {}
    found = ti.xcom_pull(task_ids=[task_id], key=ABOUT_KEY, **where)
    return [one for one in list(found or ()) if isinstance(one, dict) and one.get("instance_id") and one.get("conn_id")]


def _cancel(hook: OrchestrationHook, instance_id: str) -> None:
    try:
        with hook.fresh_conn(timeout=5.0, retry_budget=5.0) as http:
            if http.get_instance(instance_id).terminated:
                return
            outcome: CancelOutcome = http.cancel(instance_id, timeout=CANCEL_SECONDS)
    except OrchestrationError as error:
        logger.error("instance %s was not cancelled and may still run: %s", instance_id, error)
        return
    except Exception:
        logger.exception("instance %s was not cancelled and may still run", instance_id)
        return
    level = logging.ERROR if outcome.status == "not_confirmed" else logging.INFO
    logger.log(level, "a task of the DAG run has failed; instance %s: %s", instance_id, outcome.status)
